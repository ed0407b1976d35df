//! A notification on its way from intake to the engine.

use crate::{FeedId, Notification, NotificationId};
use std::sync::Arc;

/// What the router hands to an engine.
#[derive(Debug, Clone)]
pub struct Publication {
    /// What is to be delivered.
    pub notification: Arc<Notification>,
    /// Where it goes. May be empty (everybody was excluded): it is accepted all the same.
    pub feeds: Vec<FeedId>,
    /// A digest of everything the publisher said, to tell a repeat from a conflict.
    pub content: u128,
    /// The `Idempotency-Key` of the request it came in, if it had one.
    pub request: Option<RequestKey>,
}

/// A whole request that is to have its effect once. All its publications carry the same one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestKey {
    /// The key, scoped by its publisher.
    pub key: String,
    /// A digest of the request's body.
    pub content: u128,
}

/// A publication was accepted, and is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Its id.
    pub id: NotificationId,
    /// Whether the same id with the same content had been accepted before; nothing was appended then.
    pub repeated: bool,
}
