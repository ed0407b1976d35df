//! What a publisher wrote, decoded but not judged: the types are right, the rules are not yet checked.

use bytes::Bytes;
use postrider_model::{Devices, Durability, Millis, Timestamp};

/// One notification as some source decoded it. What the publisher left out is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Draft {
    /// `users`
    pub users: Option<Vec<String>>,
    /// `topics`
    pub topics: Option<Vec<String>>,
    /// `exclude_users`; empty where left out.
    pub exclude_users: Vec<String>,
    /// `subject`
    pub subject: Option<String>,
    /// `data` as compact JSON, otherwise byte for byte as written.
    pub data: Bytes,
    /// `id`
    pub id: Option<String>,
    /// `durability`
    pub durability: Durability,
    /// `ttl`, counted from when the notification becomes deliverable.
    pub ttl: Option<Millis>,
    /// `deliver_at`
    pub deliver_at: Option<Timestamp>,
    /// `collapse_key`
    pub collapse_key: Option<String>,
    /// `policy`
    pub policy: Option<String>,
    /// `devices`
    pub devices: Devices,
}
