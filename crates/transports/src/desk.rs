//! Who takes publish requests that arrive in a loop: the seam between the front, which reads them whole and
//! writes the answers, and whoever knows keys, rules and notifications.
//!
//! Invariant: an [`Order`] is answered once, and after the engine has told what became of everything in it.
//! Does not read from sockets, and does not know what a notification looks like.

use crate::addresses::Address;
use crate::head::Head;
use crate::problem::Problem;
use postrider_engine::EngineError;
use postrider_model::{Publication, Receipt};

/// Takes publish requests. Called from a loop that serves thousands of sockets: never waits.
pub trait Desk: Send + Sync {
    /// The longest body that it takes; whoever sends a longer one is served elsewhere.
    fn max_body(&self) -> usize;

    /// Judges a request of which only the head is there, so that nobody's body is kept who may not publish.
    /// [`Desk::take`] judges it again.
    fn admit(&self, request: &Head<'_>, client: Option<Address>) -> Result<(), Problem>;

    /// Takes a whole request: an order for the engine, or its answer where that need not be asked.
    fn take(&self, request: &Head<'_>, client: Option<Address>, body: &[u8]) -> Taken;

    /// A request that was admitted is refused before its body was whole: to be counted.
    fn refused(&self, problem: &Problem);
}

/// What a desk says to a whole request.
pub enum Taken {
    /// The engine has to store something first.
    Order(Box<dyn Order>),
    /// Refused, or done already.
    Answer(Answer),
}

/// A publish request that waits for the engine.
pub trait Order: Send {
    /// What is to be stored, in order. There is something; a second call finds nothing.
    fn publications(&mut self) -> Vec<Publication>;

    /// The answer, from what became of these.
    fn answer(self: Box<Self>, receipts: Vec<Result<Receipt, EngineError>>) -> Answer;
}

/// The answer to a publish request: 202 with this JSON, or the problem that refuses it as a whole.
pub type Answer = Result<Vec<u8>, Problem>;
