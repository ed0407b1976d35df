//! The stores that compete, each behind the engine's own `Store` trait.
//!
//! Invariant: every candidate gives what the trait asks for (whole batches, synced when asked, views that
//! do not move), tuned as those who keep it would tune it for this use; why is said beside each setting.

mod check;
mod fjall;
mod redb;
mod sqlite;

use anyhow::{Context, Result};
use postrider_engine::stores::{Journaled, Store};
use std::path::Path;
use std::sync::Arc;

/// Memory for clean pages or blocks, the same for all.
pub const CACHE_BYTES: u64 = 32 << 20;

/// Who competes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Candidate {
    /// redb alone: the store of the first release.
    Redb,
    /// A journal of our own in front of redb.
    Journal,
    /// The LSM tree.
    Fjall,
    /// The SQL classic.
    Sqlite,
}

impl Candidate {
    /// All of them, with their names.
    pub const ALL: [(&'static str, Candidate); 4] = [
        ("redb", Candidate::Redb),
        ("journal", Candidate::Journal),
        ("fjall", Candidate::Fjall),
        ("sqlite", Candidate::Sqlite),
    ];

    /// By its name.
    pub fn named(name: &str) -> Result<Candidate> {
        let found = Candidate::ALL.into_iter().find(|(known, _)| *known == name);
        let known = Candidate::ALL.map(|(known, _)| known).join(", ");
        Ok(found
            .with_context(|| format!("no candidate is called {name}; there are {known}"))?
            .1)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Candidate::ALL
            .into_iter()
            .find(|(_, one)| *one == self)
            .map_or("?", |(name, _)| name)
    }

    /// Opens its store in `dir`, or makes it there.
    pub fn open(self, dir: &Path) -> Result<Arc<dyn Store>> {
        std::fs::create_dir_all(dir)?;
        Ok(match self {
            Candidate::Redb => Arc::new(redb::Redb::open(&dir.join("feeds.redb"))?),
            Candidate::Journal => {
                let is_fresh = !dir.join("feeds.redb").try_exists()?;
                Arc::new(Journaled::open(dir, is_fresh)?)
            }
            Candidate::Fjall => Arc::new(fjall::Fjall::open(dir)?),
            Candidate::Sqlite => Arc::new(sqlite::Sqlite::open(&dir.join("feeds.sqlite"))?),
        })
    }
}
