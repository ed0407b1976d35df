//! The store on disk: one redb file. Every table maps bytes to bytes.
//!
//! Invariant: a synced commit is on the disk when it returns. redb writes a commit beside what it replaces
//! and then switches over, with both commit records checksummed, so a torn or half-written tail is seen and
//! the last whole commit opens. After any failure of the file the handle is not trusted again: the next use
//! opens the file anew, and until that works every answer is an error.

use super::StoreFault;
use super::store::{Batch, Row, Store, Table, View};
use redb::{
    Builder, Database, Durability, ReadOnlyTable, ReadTransaction, ReadableDatabase, TableDefinition,
};
use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Memory for pages, both clean and not yet written.
const CACHE_BYTES: usize = 64 << 20;

type Bytes = &'static [u8];

/// The tables in one file.
pub(super) struct Disk {
    open: Box<dyn Fn() -> Result<Database, StoreFault> + Send + Sync>,
    /// `None` after a failure, until the file could be opened again.
    database: Mutex<Option<Arc<Database>>>,
}

impl Disk {
    /// Opens the file, or makes it.
    pub fn open(path: &Path) -> Result<Disk, StoreFault> {
        let path = path.to_owned();
        Disk::with(move || builder().create(&path).map_err(|error| cannot_open(&path, error)))
    }

    /// Opens by `open`, now and after each failure.
    fn with(
        open: impl Fn() -> Result<Database, StoreFault> + Send + Sync + 'static,
    ) -> Result<Disk, StoreFault> {
        let disk = Disk {
            open: Box::new(open),
            database: Mutex::new(None),
        };
        disk.database()?;
        Ok(disk)
    }

    fn database(&self) -> Result<Arc<Database>, StoreFault> {
        let mut held = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(database) = &*held {
            return Ok(database.clone());
        }
        let database = Arc::new((self.open)()?);
        // Readers must find every table.
        let begin = database.begin_write().map_err(fault)?;
        for &table in Table::ALL {
            begin.open_table(definition(table)).map_err(fault)?;
        }
        begin.commit().map_err(fault)?;
        *held = Some(database.clone());
        Ok(database)
    }

    fn distrust(&self) {
        *self.database.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn write(database: &Database, batch: &Batch, sync: bool) -> Result<(), StoreFault> {
        let mut txn = database.begin_write().map_err(fault)?;
        txn.set_durability(if sync {
            Durability::Immediate
        } else {
            Durability::None
        })
        .map_err(fault)?;
        // Opens in milliseconds after a crash, whatever the size.
        txn.set_quick_repair(sync);
        for &name in Table::ALL {
            let changes = batch.table(name);
            if changes.is_empty() {
                continue;
            }
            let mut table = txn.open_table(definition(name)).map_err(fault)?;
            for (key, value) in changes {
                match value {
                    Some(value) => drop(table.insert(key.as_slice(), value.as_slice()).map_err(fault)?),
                    None => drop(table.remove(key.as_slice()).map_err(fault)?),
                }
            }
        }
        txn.commit().map_err(fault)
    }
}

impl Store for Disk {
    fn view(&self) -> Result<Box<dyn View + '_>, StoreFault> {
        let begun = self.database()?.begin_read().map_err(fault);
        if begun.is_err() {
            self.distrust();
        }
        Ok(Box::new(DiskView {
            txn: begun?,
            tables: Default::default(),
        }))
    }

    fn commit(&self, batch: &Batch, sync: bool) -> Result<(), StoreFault> {
        let written = Disk::write(&*self.database()?, batch, sync);
        if written.is_err() {
            self.distrust();
        }
        written
    }
}

struct DiskView {
    txn: ReadTransaction,
    tables: [OnceCell<ReadOnlyTable<Bytes, Bytes>>; Table::ALL.len()],
}

impl DiskView {
    fn table(&self, name: Table) -> Result<&ReadOnlyTable<Bytes, Bytes>, StoreFault> {
        let cell = &self.tables[name as usize];
        if cell.get().is_none() {
            let table = self.txn.open_table(definition(name)).map_err(fault)?;
            return Ok(cell.get_or_init(|| table));
        }
        cell.get()
            .ok_or_else(|| StoreFault::Io("a table went away".into()))
    }
}

impl View for DiskView {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault> {
        Ok(self
            .table(table)?
            .get(key)
            .map_err(fault)?
            .map(|guard| guard.value().to_vec()))
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StoreFault> {
        if from >= to {
            return Ok(Vec::new());
        }
        let range = self.table(table)?.range::<&[u8]>(from..to).map_err(fault)?;
        range
            .take(limit)
            .map(|row| {
                row.map_err(fault)
                    .map(|(k, v)| (k.value().to_vec(), v.value().to_vec()))
            })
            .collect()
    }

    fn last(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Option<Row>, StoreFault> {
        if from >= to {
            return Ok(None);
        }
        let mut range = self.table(table)?.range::<&[u8]>(from..to).map_err(fault)?;
        let row = range.next_back().transpose().map_err(fault)?;
        Ok(row.map(|(k, v)| (k.value().to_vec(), v.value().to_vec())))
    }
}

fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn definition(table: Table) -> TableDefinition<'static, Bytes, Bytes> {
    TableDefinition::new(table.name())
}

fn fault(error: impl Into<redb::Error>) -> StoreFault {
    StoreFault::Io(error.into().to_string())
}

fn cannot_open(path: &Path, error: redb::DatabaseError) -> StoreFault {
    let path: PathBuf = path.to_owned();
    StoreFault::Io(format!("cannot open the store {}: {error}", path.display()))
}
