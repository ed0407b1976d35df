//! redb alone, as the first release used it: one copy-on-write file, a commit is one transaction.
//!
//! Settings, and why:
//! * Quick repair on every synced commit: otherwise opening after a crash walks the whole file, which takes
//!   seconds per gigabyte. It costs a second sync and the allocator's state with each commit.
//! * What may wait is committed with `Durability::None` and synced with the next commit that must be:
//!   long runs of such commits let the file grow (cberner/redb#810), so the engine syncs once a second.
//! * Each value ends in a check: redb checks its pages only when it repairs.
//!
//! Known from its issues: the file does not shrink by itself (#272, #1098); `compact` needs the only handle
//! and stops the world, so a live server cannot call it.

use super::CACHE_BYTES;
use super::check::{checked, unchecked};
use postrider_engine::StoreFault;
use postrider_engine::stores::{Batch, Row, Store, Table, View};
use redb::{Database, Durability, ReadTransaction, ReadableDatabase, TableDefinition};
use std::path::Path;

type Bytes = &'static [u8];

pub struct Redb(Database);

impl Redb {
    pub fn open(path: &Path) -> Result<Redb, StoreFault> {
        let cache = usize::try_from(CACHE_BYTES).unwrap_or(usize::MAX);
        let database = Database::builder()
            .set_cache_size(cache)
            .create(path)
            .map_err(fault)?;
        // Readers must find every table.
        let txn = database.begin_write().map_err(fault)?;
        for &table in Table::ALL {
            drop(txn.open_table(definition(table)).map_err(fault)?);
        }
        txn.commit().map_err(fault)?;
        Ok(Redb(database))
    }

    fn write(&self, batch: &Batch, sync: bool) -> Result<(), redb::Error> {
        let mut txn = self.0.begin_write()?;
        txn.set_durability(if sync {
            Durability::Immediate
        } else {
            Durability::None
        })?;
        txn.set_quick_repair(sync);
        for &table in Table::ALL {
            let changes = batch.table(table);
            if changes.is_empty() {
                continue;
            }
            let mut rows = txn.open_table(definition(table))?;
            for (key, value) in changes.iter() {
                match value {
                    Some(value) => drop(rows.insert(key, &checked(table, key, value)[..])?),
                    None => drop(rows.remove(key)?),
                }
            }
        }
        Ok(txn.commit()?)
    }
}

impl Store for Redb {
    fn view(&self) -> Result<Box<dyn View + '_>, StoreFault> {
        Ok(Box::new(RedbView(self.0.begin_read().map_err(fault)?)))
    }

    fn commit(&self, batch: &Batch, sync: bool) -> Result<(), StoreFault> {
        self.write(batch, sync).map_err(fault)
    }

    /// Not counted here; no experiment asks.
    fn live_bytes(&self) -> u64 {
        0
    }

    /// The same.
    fn file_bytes(&self) -> u64 {
        0
    }
}

struct RedbView(ReadTransaction);

impl View for RedbView {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault> {
        let rows = self.0.open_table(definition(table)).map_err(fault)?;
        let value = rows.get(key).map_err(fault)?.map(|value| value.value().to_vec());
        let row = value
            .map(|value| unchecked(table, (key.to_vec(), value)))
            .transpose()?;
        Ok(row.map(|(_, value)| value))
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StoreFault> {
        if from >= to {
            return Ok(Vec::new());
        }
        let rows = self.0.open_table(definition(table)).map_err(fault)?;
        let range = rows.range::<&[u8]>(from..to).map_err(fault)?.take(limit);
        range.map(|row| owned(table, row)).collect()
    }

    fn last(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Option<Row>, StoreFault> {
        if from >= to {
            return Ok(None);
        }
        let rows = self.0.open_table(definition(table)).map_err(fault)?;
        let row = rows.range::<&[u8]>(from..to).map_err(fault)?.next_back();
        row.map(|row| owned(table, row)).transpose()
    }
}

type Guards<'g> = (redb::AccessGuard<'g, Bytes>, redb::AccessGuard<'g, Bytes>);

fn owned(table: Table, row: Result<Guards<'_>, redb::StorageError>) -> Result<Row, StoreFault> {
    let (key, value) = row.map_err(fault)?;
    unchecked(table, (key.value().to_vec(), value.value().to_vec()))
}

fn definition(table: Table) -> TableDefinition<'static, Bytes, Bytes> {
    TableDefinition::new(table.name())
}

fn fault(error: impl Into<redb::Error>) -> StoreFault {
    StoreFault::Io(format!("redb: {}", error.into()))
}
