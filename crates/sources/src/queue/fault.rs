//! Why a source gives nothing.

/// What is wrong with a source. The text is for the operator: it may name hosts and keys, never a payload or a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceFault {
    /// It cannot be reached now, or does not answer in time. Trying again mends it.
    #[error("it is away: {0}")]
    Away(String),
    /// It answers that it is asked too often. Trying again mends it, and more seldom.
    #[error("it is asked too often: {0}")]
    Throttled(String),
    /// It answers, and will not: a wrong password, a key of another type. Somebody has to mend it; then trying again
    /// helps.
    #[error("it refuses: {0}")]
    Refused(String),
}
