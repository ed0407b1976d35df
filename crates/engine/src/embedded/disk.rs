//! The store on disk: one redb file. Every table maps bytes to bytes; each value ends in a check over its
//! table, key and bytes.
//!
//! Invariant: a synced commit is on the disk when it returns. redb writes a commit beside what it replaces
//! and then switches over, so that a torn or half-written tail is never looked at. After any failure of the
//! file the handle is not trusted again: the next use opens the file anew, and until that works every
//! answer is an error. What the file says that was not written to it is an error, never an answer.

use super::StoreFault;
use super::store::{Batch, Row, Store, Table, View};
use redb::{
    Builder, Database, Durability, ReadOnlyTable, ReadTransaction, ReadableDatabase, TableDefinition,
};
use std::cell::OnceCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Memory for pages, both clean and not yet written.
const CACHE_BYTES: usize = 32 << 20;
/// Length of the check that ends a value.
const CHECK: usize = 4;

type Bytes = &'static [u8];

/// The tables in one file.
pub(super) struct Disk {
    /// What faults call the store.
    name: String,
    open: Box<dyn Fn() -> Result<Database, redb::DatabaseError> + Send + Sync>,
    /// `None` after a failure, until the file could be opened again.
    database: Mutex<Option<Arc<Database>>>,
}

impl Disk {
    /// Opens the file, which must be there.
    pub fn open(path: &Path) -> Result<Disk, StoreFault> {
        let name = path.display().to_string();
        let path = path.to_owned();
        Disk::with(name, move || builder().open(&path))
    }

    /// Makes the file where there is none: elsewhere first, so that one whose making was cut short is
    /// never taken for a store.
    pub fn make(path: &Path) -> Result<(), StoreFault> {
        let io = |error: std::io::Error| {
            StoreFault::Io(format!("cannot make the store {}: {error}", path.display()))
        };
        if path.try_exists().map_err(io)? {
            return Ok(());
        }
        let new = path.with_extension("new");
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
        let (name, at) = (new.display().to_string(), new.clone());
        drop(Disk::with(name, move || builder().create(&at))?);
        std::fs::rename(&new, path).map_err(io)?;
        let dir = path.parent().unwrap_or(Path::new("."));
        std::fs::File::open(dir)
            .and_then(|dir| dir.sync_all())
            .map_err(io)
    }

    /// Opens by `open`, now and after each failure.
    pub fn with(
        name: String,
        open: impl Fn() -> Result<Database, redb::DatabaseError> + Send + Sync + 'static,
    ) -> Result<Disk, StoreFault> {
        let disk = Disk {
            name,
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
        let database = self.caught("cannot open the store", || {
            let database = (self.open)()?;
            // Readers must find every table.
            let begin = database.begin_write()?;
            for &table in Table::ALL {
                begin.open_table(definition(table))?;
            }
            begin.commit()?;
            Ok(Arc::new(database))
        })?;
        *held = Some(database.clone());
        Ok(database)
    }

    fn distrust(&self) {
        let held = self
            .database
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // Closing a file that is damaged may fail in its own ways.
        if catch_unwind(AssertUnwindSafe(|| drop(held))).is_err() {
            tracing::error!(store = self.name, "the store could not be closed");
        }
    }

    /// Runs something that touches the file. A damaged file can bring the store crate to a panic: that is
    /// one more way to fail.
    fn caught<T>(&self, what: &str, run: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, StoreFault> {
        let detail = match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it is damaged".to_owned(),
        };
        Err(StoreFault::Io(format!("{what} {}: {detail}", self.name)))
    }

    /// The same, once the file is open.
    fn used<T>(&self, what: &str, run: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, StoreFault> {
        self.caught(what, run).inspect_err(|_| self.distrust())
    }

    fn write(database: &Database, batch: &Batch, sync: bool) -> Result<(), redb::Error> {
        let mut txn = database.begin_write()?;
        txn.set_durability(if sync {
            Durability::Immediate
        } else {
            Durability::None
        })?;
        // Opens in milliseconds after a crash, whatever the size.
        txn.set_quick_repair(sync);
        for &name in Table::ALL {
            let changes = batch.table(name);
            if changes.is_empty() {
                continue;
            }
            let mut table = txn.open_table(definition(name))?;
            for (key, value) in changes {
                match value {
                    Some(value) => {
                        let checked = [value.as_slice(), &check(name, key, value)].concat();
                        drop(table.insert(key.as_slice(), checked.as_slice())?);
                    }
                    None => drop(table.remove(key.as_slice())?),
                }
            }
        }
        Ok(txn.commit()?)
    }
}

impl Store for Disk {
    fn view(&self) -> Result<Box<dyn View + '_>, StoreFault> {
        let database = self.database()?;
        let txn = self.used("cannot read the store", || Ok(database.begin_read()?))?;
        Ok(Box::new(DiskView {
            disk: self,
            txn,
            tables: Default::default(),
        }))
    }

    fn commit(&self, batch: &Batch, sync: bool) -> Result<(), StoreFault> {
        let database = self.database()?;
        let written = self.caught("cannot write the store", || Disk::write(&database, batch, sync));
        if written.is_err() {
            drop(database);
            self.distrust();
        }
        written
    }
}

struct DiskView<'d> {
    disk: &'d Disk,
    txn: ReadTransaction,
    tables: [OnceCell<ReadOnlyTable<Bytes, Bytes>>; Table::ALL.len()],
}

impl DiskView<'_> {
    fn table(&self, name: Table) -> Result<&ReadOnlyTable<Bytes, Bytes>, redb::Error> {
        let cell = &self.tables[name as usize];
        if let Some(table) = cell.get() {
            return Ok(table);
        }
        let table = self.txn.open_table(definition(name))?;
        Ok(cell.get_or_init(|| table))
    }

    fn rows(
        &self,
        table: Table,
        read: impl FnOnce(&ReadOnlyTable<Bytes, Bytes>) -> Result<Vec<Row>, redb::Error>,
    ) -> Result<Vec<Row>, StoreFault> {
        let mut rows = self
            .disk
            .used("cannot read the store", || read(self.table(table)?))?;
        for (key, value) in &mut rows {
            let length = value.len().saturating_sub(CHECK);
            if value.len() < CHECK || check(table, key, &value[..length]) != value[length..] {
                return Err(StoreFault::Io(format!(
                    "the store {} is damaged: a row of table `{}` is not what was written",
                    self.disk.name,
                    table.name()
                )));
            }
            value.truncate(length);
        }
        Ok(rows)
    }
}

impl View for DiskView<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault> {
        let rows = self.rows(table, |rows| {
            let value = rows.get(key)?.map(|guard| guard.value().to_vec());
            Ok(value.map(|value| (key.to_vec(), value)).into_iter().collect())
        })?;
        Ok(rows.into_iter().next().map(|row| row.1))
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StoreFault> {
        if from >= to {
            return Ok(Vec::new());
        }
        self.rows(table, |rows| {
            let range = rows.range::<&[u8]>(from..to)?;
            let range = range.take(limit);
            range
                .map(|row| row.map(|(k, v)| (k.value().to_vec(), v.value().to_vec())))
                .collect::<Result<_, _>>()
                .map_err(redb::Error::from)
        })
    }

    fn last(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Option<Row>, StoreFault> {
        if from >= to {
            return Ok(None);
        }
        let rows = self.rows(table, |rows| {
            let row = rows.range::<&[u8]>(from..to)?.next_back().transpose()?;
            Ok(row
                .map(|(k, v)| (k.value().to_vec(), v.value().to_vec()))
                .into_iter()
                .collect())
        })?;
        Ok(rows.into_iter().next())
    }
}

/// Tells a row that was written from one that damage made up, or moved.
fn check(table: Table, key: &[u8], value: &[u8]) -> [u8; CHECK] {
    let mut hash = Xxh3::with_seed(xxh3_64(table.name().as_bytes()));
    hash.update(&(key.len() as u64).to_le_bytes());
    hash.update(key);
    hash.update(value);
    (hash.digest() as u32).to_le_bytes()
}

fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn definition(table: Table) -> TableDefinition<'static, Bytes, Bytes> {
    TableDefinition::new(table.name())
}
