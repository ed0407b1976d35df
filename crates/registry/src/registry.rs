//! What every table of users and instances does, whatever keeps it.

use async_trait::async_trait;
use postrider_model::UserId;

/// The table, as one instance writes it. A user has a row or none; a row names one instance or none.
///
/// All is idempotent: what failed may have been done, and is done again. Nothing waits longer than the table's time limit.
/// At most [`crate::MOST_ROWS`] users are given at once, none of them twice.
#[async_trait]
pub trait Registry: Send + Sync {
    /// Finds out how the table is made, and makes it where it is to. To be called first, and again after a fault.
    async fn open(&self) -> Result<(), RegistryFault>;

    /// The rows of these users name this instance, whatever they named.
    async fn put(&self, users: &[UserId]) -> Result<(), RegistryFault>;

    /// Those of these users' rows that name nobody, or are missing, name this instance. The others stay. Returns how many
    /// changed.
    async fn take_over(&self, users: &[UserId]) -> Result<u64, RegistryFault>;

    /// Those of these users' rows that name this instance name nobody. The others stay: who has gone to another node is
    /// there.
    async fn clear(&self, users: &[UserId]) -> Result<(), RegistryFault>;

    /// This instance lives for another lease; the rows of others whose lease is over name nobody. Where the table keeps no
    /// leases this does nothing.
    async fn beat(&self) -> Result<Lease, RegistryFault>;

    /// No row names this instance any more, and it has no lease.
    async fn leave(&self) -> Result<(), RegistryFault>;

    /// Which instance this user's row names, as of about now. A user whom the table cannot hold has none.
    async fn instance_of(&self, user: &UserId) -> Result<Option<String>, RegistryFault>;
}

/// How a lease stood when it was prolonged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lease {
    /// It held: no other has cleared rows of this instance.
    Held,
    /// It was over, or is the first: rows may be gone.
    Lapsed,
}

/// Why the table was not written. The text is for the operator, and holds no password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryFault {
    /// It cannot be reached, or does not answer in time. It may have been done.
    #[error("{0}")]
    Away(String),
    /// It answers, and will not: somebody has to mend something.
    #[error("{0}")]
    Refused(String),
    /// It will not for one of these users; the others may be well. Nothing was done.
    #[error("{0}")]
    Unfit(String),
}

impl RegistryFault {
    /// Whether to try again, later, may help though nobody mends anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, RegistryFault::Away(_))
    }
}
