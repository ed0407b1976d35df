//! Queue sources: what notifications are taken from, rather than handed in by.
//!
//! A [`Source`] gives [`Delivery`]s; whoever took one decides what became of its [`Message`] and says so, once, by a
//! method that consumes the delivery. [`Decoding`] makes a draft of a message.
//!
//! Invariant: a source knows nothing of engines, users or rules, and keeps nothing of what it gave out but what its
//! queue keeps for it.

mod decoding;
mod delivery;
mod envelope;
mod exact;
mod fault;
mod fields;
mod message;
mod seldom;

pub use decoding::{Decoder, Decoding, Direction};
pub use delivery::{Delivery, Receipt, forgotten};
pub use envelope::{Envelope, opened};
pub use fault::SourceFault;
pub use message::Message;
pub use postrider_model::Pauses;
pub use seldom::Seldom;

use async_trait::async_trait;

/// Where notifications are taken from: a queue, a stream, a channel.
///
/// A source is shared by its workers, which call [`Source::receive`] at the same time, each with its own number. After a
/// [`SourceFault`] whoever called waits a little and calls [`Source::open`] again. Every source passes the [contract
/// suite](crate::contract) unchanged.
#[async_trait]
pub trait Source: Send + Sync {
    /// What this source promises, and always did.
    fn promise(&self) -> Promise;

    /// Brings it to where messages can be received: connects, and makes what has to be there, such as a consumer
    /// group. Where that is already so it does nothing.
    ///
    /// # Errors
    /// It is away, or it refuses. Nothing was taken.
    async fn open(&self) -> Result<(), SourceFault>;

    /// The next messages, at most `most` and at least none: it waits for the first for about a second, so that who
    /// drains needs not interrupt it. A source that asks its queue for longer does that in a task of its own, and gives
    /// back what comes after [`Source::close`]. Those of one worker come in the order of the source, but for what comes again.
    ///
    /// Where the promise is [`Promise::AtLeastOnce`], a message is given to one worker of one node at a time, and comes
    /// again until its delivery is acknowledged: also where this future is dropped, or its node dies. Where it is
    /// [`Promise::AtMostOnce`], a message whose future was dropped is lost.
    ///
    /// # Errors
    /// It is away, or it refuses; what was given before keeps its place.
    async fn receive(&self, worker: usize, most: usize) -> Result<Vec<Delivery>, SourceFault>;

    /// What waits in the source, where it can tell.
    ///
    /// # Errors
    /// It is away, or it refuses.
    async fn lag(&self) -> Result<Option<Lag>, SourceFault>;

    /// What was made for this node alone is not to be taken away when it is closed: others may still send to it.
    fn keep(&self) {}

    /// Ends the taking: gives back at once what other nodes could have otherwise only after a time, and takes away
    /// what was made for this node alone. All deliveries have been settled before. Bounded by the source's own time
    /// limit; what fails here is found by others later.
    async fn close(&self);
}

/// What becomes of a message that nobody settles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// It comes again.
    AtLeastOnce,
    /// It is gone. To settle does nothing.
    AtMostOnce,
}

/// What waits in a source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lag {
    /// Messages that nobody was given yet; `None` where the source cannot tell.
    pub waiting: Option<u64>,
    /// Messages that were given and are not settled, on all nodes.
    pub unsettled: u64,
    /// Messages that this node lost since it started, for want of room; of a source that keeps none.
    pub dropped: u64,
    /// Times that this node lost a connection since it started, and what came meanwhile with it; of a source that keeps
    /// none.
    pub interruptions: u64,
}
