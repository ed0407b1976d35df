//! What every channel does, whatever is at its end.

use crate::Whom;
use async_trait::async_trait;
use bytes::Bytes;
use postrider_model::NotificationId;

/// A way out.
#[async_trait]
pub trait Channel: Send + Sync {
    /// Whether a push could ever go this way.
    ///
    /// # Errors
    /// Why not: nobody would be given it, however often it was tried.
    fn check(&self, push: &Push) -> Result<(), Unfit>;

    /// Hands it to all whom it is for, and returns when of each the ledger knows what became of it. What is away is waited
    /// for, for as long as it takes, so that an outage costs nobody a notification.
    ///
    /// Where this future is dropped, some have been given it and some have not: to push it again reaches everybody, and
    /// some of them twice.
    async fn push(&self, push: &Push, ledger: &dyn Ledger) -> Tally;
}

/// One notification on its way out.
#[derive(Debug, Clone)]
pub struct Push {
    /// The notification's id, the same whenever it is pushed again.
    pub id: NotificationId,
    /// For whom it is.
    pub whom: Whom,
    /// What each of them is given.
    pub data: Bytes,
}

/// Is told what becomes of a push while it is under way.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// Something to be counted.
    fn note(&self, what: Happened);

    /// One recipient will not be given it. Returns when that is kept.
    async fn keep(&self, failure: Failure);
}

/// What is counted while a push is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happened {
    /// A recipient has it.
    Notified,
    /// A recipient was not there any more.
    Gone,
    /// So many recipients that were gone were struck off the list.
    Struck(u64),
    /// An attempt failed, and is made again.
    Repeated,
    /// An attempt was refused since there were too many, and is made again.
    Throttled,
}

/// Why one recipient was not given something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The user, as the channel's list has it.
    pub user: String,
    /// Which of the user's recipients: a connection, an address.
    pub recipient: String,
    /// How often it was attempted.
    pub attempts: u32,
    /// Why it was given up; for people. It never holds the payload.
    pub why: String,
}

/// What became of a push, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Recipients that have it.
    pub notified: u64,
    /// Recipients that were not there any more.
    pub gone: u64,
    /// Of those, how many were struck off the list.
    pub struck: u64,
    /// Recipients that will not be given it.
    pub undelivered: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.notified += other.notified;
        self.gone += other.gone;
        self.struck += other.struck;
        self.undelivered += other.undelivered;
    }
}

/// Why a push can never go this way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unfit {
    /// It is too large.
    #[error("the payload has {bytes} bytes; the channel takes at most {most}")]
    TooLarge {
        /// The payload's length.
        bytes: usize,
        /// The channel's bound.
        most: usize,
    },
}
