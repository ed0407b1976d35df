//! That a message is given back only after what holds it has been said: of two words under way SQS keeps the one that gets
//! there last, and a message that is held after all is nobody's for a whole visibility, nor is the rest of its group.
//!
//! Invariant: who gives a message back waits until no hold of it is ordered or under way, [`ENDS`] at most.

use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

/// A word that is under way for longer has most likely been lost, or got there and its answer was; and a drain waits for this.
const ENDS: Duration = Duration::from_secs(2);

/// The holds of one message, whoever has it here.
#[derive(Debug, Clone, Default)]
pub(super) struct Holds(Arc<RwLock<()>>);

/// A hold that is ordered or under way, until it is dropped.
pub(super) type Holding = OwnedRwLockReadGuard<()>;

impl Holds {
    /// One begins; `None` where the message is being given back.
    pub fn begin(&self) -> Option<Holding> {
        self.0.clone().try_read_owned().ok()
    }

    /// Waits until all have ended, or for as long as that may matter.
    pub async fn ended(&self) {
        if tokio::time::timeout(ENDS, self.0.write()).await.is_err() {
            tracing::debug!("a message is given back while it may still be held");
        }
    }
}

#[cfg(test)]
#[path = "holds_tests.rs"]
mod tests;
