//! Which instance has a user, for producers that ask over HTTP: from the table, or, where there is but one node, from its
//! own sessions.
//!
//! Invariant: so many look at the table at a time as [`LOOKS`] says, and so many wait as [`CALLERS`] says; others are told to
//! come again, and so is everybody who would wait longer than [`WITHIN`].

use crate::drain::Drain;
use postrider_engine::{EngineError, Presence};
use postrider_model::{LogPace, UserId};
use postrider_registry::{Registry, RegistryFault};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Looks at the table at a time.
const LOOKS: usize = 16;
/// Who looks or waits for it.
const CALLERS: usize = 256;
/// A look takes no longer, the wait for it included.
const WITHIN: Duration = Duration::from_secs(5);

/// Who knows.
pub(crate) enum Lookup {
    /// Nobody.
    None,
    /// This node, which is the only one.
    Own {
        /// What it is called.
        instance: Arc<str>,
        /// Once it stops it is nobody's.
        drain: Drain,
    },
    /// The table.
    Table(Table),
}

/// The table, and who looks at it.
pub(crate) struct Table {
    /// Whatever keeps it.
    registry: Arc<dyn Registry>,
    /// So many more may look.
    looks: Semaphore,
    /// So many more may come.
    callers: Semaphore,
    refusals: LogPace,
}

/// Why it is not told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LookupFault {
    /// There is no registry.
    #[error("there is no registry")]
    None,
    /// Too many ask.
    #[error("too many look at the registry")]
    Busy,
    /// It was not told in time.
    #[error("the registry does not answer in time")]
    Late,
    /// It cannot be read.
    #[error(transparent)]
    Table(#[from] RegistryFault),
    /// Presence cannot be read.
    #[error(transparent)]
    Presence(#[from] EngineError),
}

impl Lookup {
    pub(super) fn table(registry: Arc<dyn Registry>) -> Lookup {
        Lookup::Table(Table {
            registry,
            looks: Semaphore::new(LOOKS),
            callers: Semaphore::new(CALLERS),
            refusals: LogPace::new(),
        })
    }

    /// The instance that has this user; `None`: none has.
    pub async fn instance_of(
        &self,
        user: &UserId,
        presence: &dyn Presence,
    ) -> Result<Option<String>, LookupFault> {
        match self {
            Lookup::None => Err(LookupFault::None),
            Lookup::Own { drain, .. } if drain.has_begun() => Ok(None),
            Lookup::Own { instance, .. } => {
                let present = presence.user_presence(user).await?;
                let is_here = !present.sessions.is_empty();
                Ok(is_here.then(|| instance.to_string()))
            }
            Lookup::Table(table) => table.instance_of(user).await,
        }
    }
}

impl Table {
    async fn instance_of(&self, user: &UserId) -> Result<Option<String>, LookupFault> {
        let _caller = self.callers.try_acquire().map_err(|_| LookupFault::Busy)?;
        let look = async {
            let _look = self.looks.acquire().await.map_err(|_| LookupFault::Busy)?;
            match self.registry.instance_of(user).await {
                // A connection that nobody used for a while may be gone: the second look makes another.
                Err(RegistryFault::Away(_)) => Ok(self.registry.instance_of(user).await?),
                told => Ok(told?),
            }
        };
        let told = tokio::time::timeout(WITHIN, look)
            .await
            .map_err(|_| LookupFault::Late)?;
        if let Err(LookupFault::Table(RegistryFault::Refused(what))) = &told
            && let Some(unsaid) = self.refusals.due(crate::now())
        {
            // Who writes the table may be let, and who reads it not.
            tracing::warn!(what, unsaid, "the registry refuses to be read");
        }
        told
    }
}

#[cfg(test)]
#[path = "lookup_tests.rs"]
mod tests;
