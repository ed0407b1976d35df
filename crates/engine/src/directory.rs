//! Users that are known by name, the topics they are members of, and their state maps.
//!
//! Membership is kept as intervals of the topic's feed ([`Membership`]), so that a topic costs one entry for each
//! notification, however many members it has:
//!
//! * Who joins has what is appended after the topic's head at the join; who leaves, up to its head at the leave. A stay
//!   during which nothing came vanishes. Coming back is a new stay, unless nothing came meanwhile.
//! * What stands inside a stay is the user's for good: after leaving, what is pending is still delivered, and history
//!   shows it. What stands outside is never shown and has no state, whatever a cursor says. A mark is shown where both it
//!   and what it speaks of are the user's; who left is told of no later mark.
//! * A floor begins at the first stay, and passes over what is not the user's. All else of delivery (states, attempts,
//!   dead letters, the first device) is for members as it is for what is addressed to everyone.
//! * A notification for several topics is one delivery and one ack: it stands for the user in the first of its topics,
//!   in its own order, of which the user was a member when it was appended.
//! * What waits for its time is for those who are members then.
//! * Stays are forgotten with the records of what stood in them.

use crate::EngineError;
use async_trait::async_trait;
use postrider_model::{Membership, Profile, StateChange, StateError, Timestamp, Topic, UserId, UserState};

/// What the directory says of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserEntry {
    /// Who.
    pub user: UserId,
    /// What is known.
    pub profile: Profile,
    /// By topic. Former ones too, as long as the inbox may show something of them.
    pub memberships: Vec<Membership>,
    /// When the user was added.
    pub created_at: Timestamp,
    /// When the profile or a membership last changed.
    pub changed_at: Timestamp,
}

/// A user to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserPut {
    /// Who.
    pub user: UserId,
    /// Replaces what is known.
    pub profile: Profile,
    /// The topics that the user is to be a member of: joins what is missing, leaves the rest. `None` leaves them.
    pub topics: Option<Vec<Topic>>,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The user was not known.
    Created,
    /// Something is different now.
    Changed,
    /// It was so already.
    Same,
}

/// A user joins a topic, or leaves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberChange {
    /// Which topic.
    pub topic: Topic,
    /// Who.
    pub user: UserId,
    /// Joins; else leaves.
    pub joins: bool,
}

/// Some members of a topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemberPage {
    /// By rising id.
    pub users: Vec<UserId>,
    /// All members that the topic has now.
    pub count: u64,
    /// There are others after the last of these.
    pub more: bool,
}

/// Some users.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserPage {
    /// By rising id.
    pub users: Vec<UserEntry>,
    /// There are others after the last of these.
    pub more: bool,
}

/// Why a user's memberships cannot be so. Nothing of what was asked for this user is done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// The inbox would have more feeds. Topics that the user left count as long as they hold something of the user's.
    #[error("a user has at most {most} topics, with those left that still hold something of theirs")]
    TooManyTopics {
        /// Topics.
        most: usize,
    },
    /// The user joined and left so often that no more can be remembered.
    #[error("the user joined and left {topic} too often: no more stays can be remembered")]
    TooManyStays {
        /// Which topic.
        topic: Topic,
    },
    /// What is kept of the user is damaged. The text is for the operator. Erasing the user mends it.
    #[error("what is kept of the user cannot be read: {fault}")]
    Unreadable {
        /// What is wrong.
        fault: String,
    },
}

/// The directory of users, and the topics they are members of.
#[async_trait]
pub trait Directory: Send + Sync {
    /// Writes users, in this order, each on its own: one that is refused leaves the others. Durable when answered.
    /// Where the whole fails some of it may have been done; putting the same again is safe.
    async fn put_users(&self, users: Vec<UserPut>) -> Result<Vec<Result<Put, DirectoryError>>, EngineError>;

    /// `None` where the directory does not know the user.
    async fn user(&self, user: &UserId) -> Result<Option<UserEntry>, EngineError>;

    /// Those after `after` by rising id, at most `limit`, and no more once what is known of these amounts to about a
    /// mebibyte: a page can be short, and yet say that there are others.
    async fn users(&self, after: Option<UserId>, limit: usize) -> Result<UserPage, EngineError>;

    /// Forgets what the directory says of the user, who leaves all topics. The inbox stays, and the state map. False
    /// where there was nothing.
    async fn remove_user(&self, user: &UserId) -> Result<bool, EngineError>;

    /// Joins and leaves, in this order, and says of each whether it changed anything. Who joins and is not known is
    /// added, with an empty profile. Durable when answered.
    async fn change_members(
        &self,
        changes: Vec<MemberChange>,
    ) -> Result<Vec<Result<bool, DirectoryError>>, EngineError>;

    /// A topic's members after `after` by rising id, at most `limit`.
    async fn members(
        &self,
        topic: &Topic,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<MemberPage, EngineError>;

    /// A user's memberships by topic, former ones too as long as the inbox may show something of them. Also of a user
    /// whom the directory does not know any more.
    async fn memberships(&self, user: &UserId) -> Result<Vec<Membership>, EngineError>;
}

/// Users' state maps.
#[async_trait]
pub trait States: Send + Sync {
    /// What it is now; version 0 where it was never set.
    async fn state(&self, user: &UserId) -> Result<UserState, EngineError>;

    /// Durable when answered. Changes of one user are made one after the other, each with a new version, and listeners
    /// are told in that order.
    async fn change_state(
        &self,
        user: &UserId,
        change: StateChange,
    ) -> Result<Result<UserState, StateError>, EngineError>;
}
