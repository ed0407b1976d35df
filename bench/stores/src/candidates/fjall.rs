//! fjall: an LSM tree per table, one journal for all of them.
//!
//! Settings, and why:
//! * `SyncData` on a synced batch: one `fdatasync` of the journal, which syncs the grown length too.
//! * Memtables of 16 MiB instead of 64: there are a dozen tables, each with its own; the journal can be
//!   let go only when all of them were written out, and opening after a crash replays it.
//! * A journal of at most 128 MiB (512 by default), for the same reason: fjall-rs/fjall#288 tells of
//!   journals that an idle table keeps from being let go.
//! * Two workers, as this machine has two cores.
//! * Compression stays at its default (LZ4 below the second level): its community runs it so.
//!
//! Known from its issues: `commit` stalls while memtables rotate (#282, #293, open), and tombstones keep
//! tables alive until a compaction comes by (#115, #256).

use super::CACHE_BYTES;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Snapshot};
use postrider_engine::StoreFault;
use postrider_engine::stores::{Batch, Row, Store, Table, View};
use std::path::Path;

const MEMTABLE_BYTES: u64 = 16 << 20;
const JOURNAL_BYTES: u64 = 128 << 20;
const WORKERS: usize = 2;

/// The tables, by their number.
pub struct Fjall {
    database: Database,
    tables: Vec<Keyspace>,
}

impl Fjall {
    pub fn open(dir: &Path) -> Result<Fjall, StoreFault> {
        let database = Database::builder(dir)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .worker_threads(WORKERS)
            .open()
            .map_err(fault)?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let tables = Table::ALL
            .iter()
            .map(|table| database.keyspace(table.name(), options).map_err(fault))
            .collect::<Result<_, _>>()?;
        Ok(Fjall { database, tables })
    }
}

impl Store for Fjall {
    fn view(&self) -> Result<Box<dyn View + '_>, StoreFault> {
        Ok(Box::new(FjallView {
            snapshot: self.database.snapshot(),
            tables: &self.tables,
        }))
    }

    fn commit(&self, batch: &Batch, sync: bool) -> Result<(), StoreFault> {
        if batch.is_empty() {
            // What was committed without a sync lies in the journal already.
            let persist = || self.database.persist(PersistMode::SyncData);
            return if sync { persist().map_err(fault) } else { Ok(()) };
        }
        let mode = if sync {
            PersistMode::SyncData
        } else {
            PersistMode::Buffer
        };
        let mut writes = self.database.batch().durability(Some(mode));
        for &table in Table::ALL {
            let keyspace = &self.tables[table as usize];
            for (key, value) in batch.table(table).iter() {
                match value {
                    Some(value) => writes.insert(keyspace, key, value),
                    None => writes.remove(keyspace, key),
                }
            }
        }
        writes.commit().map_err(fault)
    }

    /// Not counted here; no experiment asks.
    fn live_bytes(&self) -> u64 {
        0
    }

    fn file_bytes(&self) -> u64 {
        self.database.disk_space().unwrap_or(0)
    }
}

struct FjallView<'s> {
    snapshot: Snapshot,
    tables: &'s [Keyspace],
}

impl View for FjallView<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault> {
        let value = self
            .snapshot
            .get(&self.tables[table as usize], key)
            .map_err(fault)?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StoreFault> {
        if from >= to {
            return Ok(Vec::new());
        }
        let range = self.snapshot.range(&self.tables[table as usize], from..to);
        range.take(limit).map(row).collect()
    }

    fn last(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Option<Row>, StoreFault> {
        if from >= to {
            return Ok(None);
        }
        let mut range = self.snapshot.range(&self.tables[table as usize], from..to);
        range.next_back().map(row).transpose()
    }
}

fn row(guard: fjall::Guard) -> Result<Row, StoreFault> {
    let (key, value) = guard.into_inner().map_err(fault)?;
    Ok((key.to_vec(), value.to_vec()))
}

fn fault(error: fjall::Error) -> StoreFault {
    StoreFault::Io(format!("fjall: {error:?}"))
}
