//! The ordered key-value store under the embedded engine: tables, atomic batches, forward and backward
//! scans. Two implementations: [`super::disk`] and [`Memory`].
//!
//! Invariant: a batch is applied whole or not at all, and readers see a batch only once it is as durable as
//! was asked. What the store cannot promise it answers with an error; it never answers with old data.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

/// Why the store could not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreFault {
    /// The file system, or the store crate, said no.
    #[error("{0}")]
    Io(String),
    /// A record that cannot be read.
    #[error("a record in table `{table}` is damaged: {detail}")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// What is wrong with it.
        detail: &'static str,
    },
    /// Written by a newer version.
    #[error("{what} was written by a newer version of postrider; run that version")]
    Newer {
        /// What was.
        what: &'static str,
    },
    /// The data directory belongs to somebody else.
    #[error("{0}")]
    Refused(String),
}

macro_rules! tables {
    ($($name:ident = $text:literal),* $(,)?) => {
        /// The tables; what stands in each is written down in [`super::codec`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Table { $(#[doc = concat!("`", $text, "`")] $name),* }

        impl Table {
            /// Every table, in the order of their numbers.
            pub const ALL: &[Table] = &[$(Table::$name),*];
            /// What the store calls it.
            pub fn name(self) -> &'static str {
                match self { $(Table::$name => $text),* }
            }
        }
    };
}

tables! {
    Meta = "meta",
    Notifications = "notifications",
    Entries = "entries",
    Feeds = "feeds",
    Recipients = "recipients",
    Floors = "floors",
    Marks = "marks",
    Ranges = "ranges",
    Settlers = "settlers",
    Dropped = "dropped",
    Collapse = "collapse",
    Due = "due",
    Requests = "requests",
    Ages = "ages",
    Attempts = "attempts",
    Firsts = "firsts",
    Opens = "opens",
    Past = "past",
    Letters = "letters",
    LettersOf = "letters_of",
    LetterFor = "letter_for",
    Erased = "erased",
    Sizes = "sizes",
}

/// A key and its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// What a batch changes: per table, by key; `None` removes.
#[derive(Debug, Default)]
pub struct Batch {
    tables: [BTreeMap<Vec<u8>, Option<Vec<u8>>>; Table::ALL.len()],
}

impl Batch {
    /// Writes a value under a key, in place of what stands there.
    pub fn put(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) {
        self.tables[table as usize].insert(key, Some(value));
    }
    /// Removes a key, which need not be there.
    pub fn remove(&mut self, table: Table, key: Vec<u8>) {
        self.tables[table as usize].insert(key, None);
    }
    /// What changes in one table.
    pub fn table(&self, table: Table) -> &BTreeMap<Vec<u8>, Option<Vec<u8>>> {
        &self.tables[table as usize]
    }
    /// It changes nothing.
    pub fn is_empty(&self) -> bool {
        self.tables.iter().all(BTreeMap::is_empty)
    }
}

/// Ordered tables with atomic, durable batches. One caller commits at a time; any number read.
pub trait Store: Send + Sync + 'static {
    /// What the tables hold now. Short-lived: the store cannot reuse space that a view may still read.
    fn view(&self) -> Result<Box<dyn View + '_>, StoreFault>;
    /// Applies a batch. With `sync` it, and all before it, is on the disk when this returns; without, a
    /// crash may take it, but never a part of it, and never anything older.
    fn commit(&self, batch: &Batch, sync: bool) -> Result<(), StoreFault>;
    /// Bytes of the keys and values that the tables hold. May lag behind the last commits: what they
    /// overwrote is then still counted.
    fn live_bytes(&self) -> u64;
    /// Bytes that the store takes on the disk, or in memory where it has none.
    fn file_bytes(&self) -> u64;
}

/// The tables as one moment left them.
pub trait View {
    /// The value under `key`.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault>;
    /// Up to `limit` rows of `from..to` by rising key.
    fn scan(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StoreFault>;
    /// The last row of `from..to`.
    fn last(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Option<Row>, StoreFault>;
}

/// Tables in memory, for tests, simulation and `engine.type: memory`.
#[derive(Debug, Default)]
pub struct Memory {
    tables: RwLock<[BTreeMap<Vec<u8>, Vec<u8>>; Table::ALL.len()]>,
    bytes: AtomicU64,
}

impl Store for Memory {
    fn view(&self) -> Result<Box<dyn View + '_>, StoreFault> {
        Ok(Box::new(MemoryView(
            self.tables.read().unwrap_or_else(PoisonError::into_inner),
        )))
    }

    fn commit(&self, batch: &Batch, _sync: bool) -> Result<(), StoreFault> {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        let (mut added, mut gone) = (0, 0);
        for &table in Table::ALL {
            for (key, value) in batch.table(table) {
                let rows = &mut tables[table as usize];
                let before = match value {
                    Some(value) => {
                        added += key.len() + value.len();
                        rows.insert(key.clone(), value.clone())
                    }
                    None => rows.remove(key),
                };
                gone += before.map_or(0, |before| key.len() + before.len());
            }
        }
        // Added first, so that it never goes below nothing.
        self.bytes.fetch_add(added as u64, Ordering::Relaxed);
        self.bytes.fetch_sub(gone as u64, Ordering::Relaxed);
        Ok(())
    }

    fn live_bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn file_bytes(&self) -> u64 {
        self.live_bytes()
    }
}

struct MemoryView<'m>(RwLockReadGuard<'m, [BTreeMap<Vec<u8>, Vec<u8>>; Table::ALL.len()]>);

impl MemoryView<'_> {
    fn rows(&self, table: Table, from: &[u8], to: &[u8]) -> impl DoubleEndedIterator<Item = Row> {
        let range = (from < to).then(|| self.0[table as usize].range(from.to_vec()..to.to_vec()));
        range
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.clone(), value.clone()))
    }
}

impl View for MemoryView<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault> {
        Ok(self.0[table as usize].get(key).cloned())
    }
    fn scan(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StoreFault> {
        Ok(self.rows(table, from, to).take(limit).collect())
    }
    fn last(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Option<Row>, StoreFault> {
        Ok(self.rows(table, from, to).next_back())
    }
}

/// A batch being built, read as if it were already applied.
pub(super) struct Txn<'s> {
    view: Box<dyn View + 's>,
    batch: Batch,
}

impl<'s> Txn<'s> {
    pub fn new(store: &'s dyn Store) -> Result<Self, StoreFault> {
        Ok(Txn {
            view: store.view()?,
            batch: Batch::default(),
        })
    }
    pub fn put(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) {
        self.batch.put(table, key, value);
    }
    pub fn remove(&mut self, table: Table, key: Vec<u8>) {
        self.batch.remove(table, key);
    }
    pub fn into_batch(self) -> Batch {
        self.batch
    }

    fn changed(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
    ) -> impl DoubleEndedIterator<Item = (&Vec<u8>, &Option<Vec<u8>>)> {
        let range = (from < to).then(|| self.batch.table(table).range(from.to_vec()..to.to_vec()));
        range.into_iter().flatten()
    }
}

impl View for Txn<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault> {
        match self.batch.table(table).get(key) {
            Some(value) => Ok(value.clone()),
            None => self.view.get(table, key),
        }
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StoreFault> {
        let changed: Vec<_> = self.changed(table, from, to).collect();
        if changed.is_empty() {
            return self.view.scan(table, from, to, limit);
        }
        let removed = changed.iter().filter(|(_, value)| value.is_none()).count();
        let stored = self.view.scan(table, from, to, limit.saturating_add(removed))?;
        let mut rows: BTreeMap<_, _> = stored.into_iter().collect();
        for (key, value) in changed {
            match value {
                Some(value) => rows.insert(key.clone(), value.clone()),
                None => rows.remove(key),
            };
        }
        Ok(rows.into_iter().take(limit).collect())
    }

    fn last(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Option<Row>, StoreFault> {
        let newest = self
            .changed(table, from, to)
            .filter_map(|(k, v)| v.clone().map(|v| (k.clone(), v)))
            .next_back();
        let mut stored = self.view.last(table, from, to)?;
        while let Some((key, _)) = &stored
            && matches!(self.batch.table(table).get(key), Some(None))
        {
            let removed = key.clone();
            stored = self.view.last(table, from, &removed)?;
        }
        Ok(newest.into_iter().chain(stored).max_by(|a, b| a.0.cmp(&b.0)))
    }
}
