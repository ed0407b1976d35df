//! The sources `sqs` and `sqs_users`: messages of Amazon SQS, taken by long polls.
//!
//! A [`Pump`](pump) polls in tasks of its own, for as long as a poll may take, and only while somebody waits in
//! [`Source::receive`](crate::queue::Source::receive); which is why that comes back after a second and needs no
//! interruption. [`one`] polls one queue; [`users`] the queues of the users who have a session on this node, in
//! [`turns`]. What becomes of messages is said in batches of at most ten ([`settle`]). Messages of a group of a FIFO queue
//! are handed out one at a time ([`groups`]).
//!
//! Invariant: a message is deleted only by [`Delivery::ack`](crate::queue::Delivery::ack). What a poll brings for
//! nobody, since the source was closed or the user has left, is made visible again at once.
//!
//! Does not know what a payload is, and keeps no message: SQS does.

mod aws;
mod batches;
mod circuit;
mod counted;
mod groups;
mod holds;
mod message;
mod one;
mod plan;
mod pump;
mod settle;
#[cfg(test)]
mod silent_link_tests;
mod slip;
#[cfg(test)]
mod stub;
mod turns;
mod users;

pub use one::Sqs;
pub use users::SqsUsers;

use postrider_aws::{Account, Reach};
use std::sync::Arc;
use std::time::Duration;

/// SQS gives and takes at most so many messages in one call.
pub const BATCH_MOST: usize = 10;
/// SQS holds a poll for at most so long.
pub const WAIT_MOST: Duration = Duration::from_secs(20);

/// How SQS is reached, and what is common to all its queues.
#[derive(Debug, Clone)]
pub struct SqsAccess {
    /// Whose credentials.
    pub account: Arc<Account>,
    /// Where.
    pub reach: Reach,
    /// How long a poll waits for a message, in whole seconds; at most [`WAIT_MOST`].
    pub wait: Duration,
    /// A message that was given out is nobody else's for so long, in whole seconds; `hold` begins it anew.
    pub visibility: Duration,
    /// Most messages of one poll: 1 to [`BATCH_MOST`].
    pub parallel: usize,
    /// Unlike for every node and every start.
    pub node: String,
}

/// One queue, and what is done with it.
#[derive(Clone)]
pub struct SqsOptions {
    /// How it is reached.
    pub access: SqsAccess,
    /// Which it is.
    pub queue: QueueName,
    /// Polls at the same time.
    pub workers: usize,
    /// It is made where it is not there.
    pub create: bool,
    /// It is taken away when the source is closed, if this source made it and nothing is in it.
    pub remove: bool,
    /// A time that never goes back.
    pub steady: SteadyClock,
    /// Any number, each time another.
    pub random: Random,
}

/// How a queue is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueName {
    /// By its address.
    Url(String),
    /// By its name, in the account and region of the caller.
    Name(String),
}

/// The queues of users.
#[derive(Clone)]
pub struct SqsUsersOptions {
    /// How they are reached.
    pub access: SqsAccess,
    /// The address of a user's queue.
    pub queue: crate::template::Template,
    /// Most polls at the same time: each takes a connection.
    pub connections: usize,
    /// Most messages of a user that are received and not settled. Above that his queue is not polled: one whose client
    /// takes nothing leaves room for the others.
    pub unsettled: usize,
    /// Most messages of all users that are received and not settled, beside one of each user, for which there is always
    /// room.
    pub shared: usize,
    /// A user's queue is polled for so long after the last session.
    pub linger: postrider_model::Millis,
    /// A time that never goes back.
    pub steady: SteadyClock,
    /// Any number, each time another.
    pub random: Random,
}

/// A time that never goes back.
pub type SteadyClock = Arc<dyn Fn() -> postrider_model::Timestamp + Send + Sync>;
/// Any number, each time another.
pub type Random = Arc<dyn Fn() -> u64 + Send + Sync>;
