//! Why an engine could not do what it was asked.

use postrider_model::NotificationId;

/// One enum for all engines, so that one place maps it to answers.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The id is known with other content.
    #[error("the id {0} was used before with other content")]
    IdConflict(NotificationId),
    /// The `Idempotency-Key` is known with another body.
    #[error("this Idempotency-Key was used before with another body")]
    RequestConflict,
    /// More is waiting to be stored than the engine holds; nothing was accepted.
    #[error("the store is busy")]
    Busy,
    /// The store failed; nothing of what was asked is promised. The text is for the operator.
    #[error("the store failed: {0}")]
    Store(String),
    /// The store answers and takes nothing that is to be kept, as it is full or would lose it: until an operator mends
    /// that. The text says what is so, also to those who publish.
    #[error("nothing can be stored: {0}")]
    Unready(String),
    /// There are as many dead letters as are kept; until some are redriven or thrown away nothing is accepted.
    #[error("the dead letters are full: redrive or delete some")]
    DeadLettersFull,
    /// As much is held as `retention.total_bytes` allows, and none of it can be forgotten yet.
    #[error("the store is full: what it holds may not be forgotten yet")]
    Full,
    /// The engine is shutting down.
    #[error("the store is closed")]
    Closed,
}

impl EngineError {
    /// Whether trying the same again later can succeed.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            EngineError::Busy
                | EngineError::Store(_)
                | EngineError::Unready(_)
                | EngineError::DeadLettersFull
                | EngineError::Full
                | EngineError::Closed
        )
    }
}
