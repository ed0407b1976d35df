//! The configured limits of one notification (`limits.*`).

use postrider_model::ByteSize;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How large a notification, and a request of them, may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Most bytes of `data`, white space outside strings not counted.
    #[schemars(extend("x-minimum" = "1B", "x-maximum" = "64MiB"))]
    pub data: ByteSize,
    /// Most entries of `users`.
    #[schemars(range(min = 1, max = 1000000))]
    pub users_per_notification: usize,
    /// Most entries of `exclude_users`.
    #[schemars(range(min = 0, max = 1000000))]
    pub exclude_users: usize,
    /// Most entries of `topics`.
    #[schemars(range(min = 1, max = 10_000))]
    pub topics_per_notification: usize,
    /// Most bytes of `subject`: a line for people, not a second body.
    #[schemars(extend("x-minimum" = "1B", "x-maximum" = "64KiB"))]
    pub subject: ByteSize,
    /// Most notifications of one array.
    #[schemars(range(min = 1, max = 1000000))]
    pub array: usize,
    /// How deep a notification may nest arrays and objects.
    #[schemars(range(min = 1, max = 120))]
    pub json_depth: usize,
    /// Most sessions of one user at a time. Nodes that share a Redis count them together; those that begin on several of
    /// them within the same 50 ms or so are not counted against each other.
    #[schemars(range(min = 1, max = 1000000))]
    pub sessions_per_user: usize,
    /// Most sessions of one client address at a time, on one node; 0: any number.
    #[schemars(range(min = 0, max = 100000000))]
    pub sessions_per_address: usize,
    /// Most notifications a second of one API key, on one node; 0: any number.
    #[schemars(range(min = 0, max = 100000000))]
    pub publish_rate: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            data: ByteSize::kib(256),
            users_per_notification: 10_000,
            exclude_users: 1_000,
            topics_per_notification: 100,
            subject: ByteSize::kib(4),
            array: 1_000,
            json_depth: 64,
            sessions_per_user: 64,
            sessions_per_address: 0,
            publish_rate: 0,
        }
    }
}

/// Most bytes of `collapse_key`.
pub(crate) const COLLAPSE_KEY_BYTES: usize = 256;
