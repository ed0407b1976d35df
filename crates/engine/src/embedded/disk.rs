//! The base by itself as a store: every commit is one transaction of it, synced whether asked or not. Slower
//! than the journal in front of it ([`super::journal`]); kept to be measured and tested against.
//!
//! Invariant: those of [`super::base`].

use super::StoreFault;
use super::base::{Base, CACHE_BYTES, Opener, Reading, builder};
use super::store::{Batch, Row, Store, Table, View};
use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The tables in one file.
pub struct Disk {
    held: Mutex<Held>,
    length: Box<dyn Fn() -> u64 + Send + Sync>,
}

struct Held {
    base: Base,
    /// What the last commit left.
    reading: Option<Arc<Reading>>,
}

impl Disk {
    /// Opens the file; makes it where there is none.
    pub fn open(path: &Path) -> Result<Disk, StoreFault> {
        let (at, name) = (path.to_owned(), path.display().to_string());
        let mut disk = Disk::with(name, Box::new(move || builder(CACHE_BYTES).create(&at)))?;
        let at = path.to_owned();
        disk.length = Box::new(move || std::fs::metadata(&at).map_or(0, |meta| meta.len()));
        Ok(disk)
    }

    /// Opens by `open`, now and after each failure.
    pub(super) fn with(name: String, open: Opener) -> Result<Disk, StoreFault> {
        let base = Base::open(name, open)?;
        let held = Mutex::new(Held { base, reading: None });
        Ok(Disk {
            held,
            length: Box::new(|| 0),
        })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for Disk {
    fn view(&self) -> Result<Box<dyn View + '_>, StoreFault> {
        let mut held = self.held();
        if held.reading.as_ref().is_some_and(|reading| reading.is_suspect()) {
            held.base.distrust();
            held.reading = None;
        }
        let reading = match &held.reading {
            Some(reading) => reading.clone(),
            None => Arc::new(held.base.reading()?),
        };
        held.reading = Some(reading.clone());
        Ok(Box::new(DiskView(reading)))
    }

    fn commit(&self, batch: &Batch, _sync: bool) -> Result<(), StoreFault> {
        let mut held = self.held();
        let written = held.base.write(0, 0, |filling| {
            Table::ALL.iter().try_for_each(|&table| {
                let changes = batch.table(table).iter();
                filling.change(table, changes)
            })
        });
        held.reading = None;
        written
    }

    fn live_bytes(&self) -> u64 {
        self.held().base.head().live
    }

    fn file_bytes(&self) -> u64 {
        (self.length)()
    }
}

struct DiskView(Arc<Reading>);

impl DiskView {
    fn rows(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        limit: usize,
        falling: bool,
    ) -> Result<Vec<Row>, StoreFault> {
        if from >= to {
            return Ok(Vec::new());
        }
        let range = (Bound::Included(from), Bound::Excluded(to));
        self.0.rows(table, range, limit, falling)
    }
}

impl View for DiskView {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault> {
        self.0.get(table, key)
    }
    fn scan(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StoreFault> {
        self.rows(table, from, to, limit, false)
    }
    fn last(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Option<Row>, StoreFault> {
        Ok(self.rows(table, from, to, 1, true)?.pop())
    }
    fn vouch_absent(&self, table: Table, key: &[u8]) -> Result<(), StoreFault> {
        self.0.vouch_absent(table, key)
    }
}
