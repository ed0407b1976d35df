//! Channels: ways out that are no sessions. What leads to one gives it a [`Push`], and is told of every recipient what
//! became of it.
//!
//! A [`Channel`] finds those whom a push is for, hands it to each, tries again what may yet succeed, and says through a
//! [`Ledger`] what did not. The only one of this release is [`api_gateway`].
//!
//! Invariant: a push that ended left nobody out in silence: each recipient was notified, was found gone, or is in the
//! ledger as undelivered. However many there are, a bounded number is held in memory.
//!
//! Knows nothing of engines, sources and dead letters: who pushes keeps what is undelivered.

pub mod api_gateway;
mod channel;
mod circuit;
mod gate;
mod whom;

pub use channel::{Channel, Failure, Happened, Ledger, Push, Tally, Unfit};
pub use whom::{Whom, WithoutTopics};

use postrider_model::Timestamp;
use std::sync::Arc;

/// Counts milliseconds from anywhere, and never jumps.
pub type SteadyClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Is told whenever what a channel needs from elsewhere is there, or is not.
pub type Standing = Arc<dyn Fn(bool) + Send + Sync>;
