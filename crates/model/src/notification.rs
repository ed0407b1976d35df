//! What was asked to be delivered, and to whom.

use crate::{FeedId, NotificationId, Timestamp, Topic, UserId};
use bytes::Bytes;

/// Whom a notification is for, before the excluded are taken off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience {
    /// These users, each once.
    Users(Vec<UserId>),
    /// The subscribers of these topics, each topic once, in the order the publisher gave.
    Topics(Vec<Topic>),
    /// Everyone.
    Everyone,
}

/// Whether the promise of delivery is kept or traded for speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Stored, resumable, acknowledged.
    #[default]
    Stored,
    /// At most once, only to those connected now; never on disk.
    Transient,
}

/// Which of a recipient's devices it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Devices {
    /// Every live session gets it.
    #[default]
    All,
    /// The first session that acknowledges it by id takes it.
    First,
}

/// A notification as accepted: checked, defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// Its id, given by the publisher or made at intake.
    pub id: NotificationId,
    /// When it was accepted.
    pub time: Timestamp,
    /// A line for people.
    pub subject: Option<String>,
    /// Compact JSON, otherwise as the publisher wrote it.
    pub data: Bytes,
    /// Whom it is for.
    pub audience: Audience,
    /// Users who do not get it, sorted, each once.
    pub exclude: Vec<UserId>,
    /// Stored or transient.
    pub durability: Durability,
    /// When it is no longer worth delivering; `None` means as long as it is retained.
    pub expires_at: Option<Timestamp>,
    /// When it becomes deliverable; `None` means at once.
    pub deliver_at: Option<Timestamp>,
    /// Replaces an earlier one with the same key in the same feed.
    pub collapse_key: Option<String>,
    /// The policy that takes it further; only `default` exists.
    pub policy: Option<String>,
    /// All devices, or the first.
    pub devices: Devices,
    /// The name of the API key, or other source, that published it.
    pub publisher: String,
}

impl Notification {
    /// One that asks for nothing special: stored, for all devices, at once, without a name of its publisher.
    pub fn plain(
        id: NotificationId,
        time: Timestamp,
        audience: Audience,
        data: impl Into<Bytes>,
    ) -> Notification {
        Notification {
            id,
            time,
            subject: None,
            data: data.into(),
            audience,
            exclude: Vec::new(),
            durability: Durability::Stored,
            expires_at: None,
            deliver_at: None,
            collapse_key: None,
            policy: None,
            devices: Devices::All,
            publisher: String::new(),
        }
    }

    /// Whether `user` is taken off the audience.
    pub fn excludes(&self, user: &UserId) -> bool {
        self.exclude.binary_search(user).is_ok()
    }

    /// The feeds it goes to: one per user who is not excluded, one per topic, or `all`.
    pub fn feeds(&self) -> Vec<FeedId> {
        match &self.audience {
            Audience::Users(users) => users
                .iter()
                .filter(|user| !self.excludes(user))
                .cloned()
                .map(FeedId::User)
                .collect(),
            Audience::Topics(topics) => topics.iter().cloned().map(FeedId::Topic).collect(),
            Audience::Everyone => vec![FeedId::All],
        }
    }
}
