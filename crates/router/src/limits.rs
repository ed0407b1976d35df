//! The configured limits of one notification (`limits.*`).

use postrider_model::ByteSize;
use serde::{Deserialize, Serialize};

/// How large a notification, and a request of them, may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Most bytes of `data`, white space outside strings not counted.
    pub data: ByteSize,
    /// Most entries of `users`.
    pub users_per_notification: usize,
    /// Most entries of `exclude_users`.
    pub exclude_users: usize,
    /// Most notifications of one array.
    pub array: usize,
    /// How deep a notification may nest arrays and objects.
    pub json_depth: usize,
    /// Most sessions of one user at a time.
    pub sessions_per_user: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            data: ByteSize::kib(256),
            users_per_notification: 10_000,
            exclude_users: 1_000,
            array: 1_000,
            json_depth: 64,
            sessions_per_user: 64,
        }
    }
}

/// Most entries of `topics`; as many as an inbox has feeds.
pub(crate) const TOPICS_PER_NOTIFICATION: usize = 100;
/// Most bytes of `subject`: a line for people, not a second body.
pub(crate) const SUBJECT_BYTES: usize = 4096;
/// Most bytes of `collapse_key`.
pub(crate) const COLLAPSE_KEY_BYTES: usize = 256;
