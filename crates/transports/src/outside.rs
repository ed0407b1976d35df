//! The seams to what brings entries to this node beside its engine: a source whose channels follow the node's
//! sessions, and that knows what its back-ends keep of a user.
//!
//! What such a source brings is transient, is for the sessions of this node alone ([`crate::Hub::bring`]), and knows
//! no cursor and no acknowledgement.

use async_trait::async_trait;
use postrider_model::{FeedId, Topic, UserId};
use std::collections::BTreeMap;

/// Learns which feeds the sessions of this node hear.
pub trait Follow: Send + Sync {
    /// The first session of this node hears this feed from now on. Called from a loop that serves thousands of sockets:
    /// never waits.
    fn follow(&self, feed: &FeedId);

    /// The last one that did has gone: some seconds ago, since most come back, or just now, where that was asked for.
    /// Never waits.
    fn unfollow(&self, feed: &FeedId);
}

/// Greets the users of the notify dialect.
#[async_trait]
pub trait Welcome: Send + Sync {
    /// For each of them, in order: returns once everything that is published from now on for the user, and for these
    /// topics, is heard on this node; with what the back-ends keep as the user's state, read after that. Takes a bounded
    /// time. A session may have gone meanwhile, with its user's and its topics' channels: that is no error of the others.
    ///
    /// # Errors
    /// Each by itself, where that could not be had: the client is told to come back.
    async fn welcome(
        &self,
        whom: &[(UserId, Vec<Topic>)],
    ) -> Vec<Result<BTreeMap<String, String>, Unavailable>>;
}

/// It cannot be had now.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(
    /// What the log says.
    pub String,
);
