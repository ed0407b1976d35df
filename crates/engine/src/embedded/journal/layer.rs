//! Rows that are in the journal and not yet in the base. A layer takes commits in order; a reader sees it as
//! of one commit, however many follow.
//!
//! Invariant: what a reader of commit `n` sees never changes. Old versions are kept until the whole layer
//! goes away, which its writing to the base brings about; its bytes count them.
//!
//! No lock is held for longer than one look at a bounded number of rows.

use super::format::Change;
use crate::embedded::row_key::RowKey;
use crate::embedded::store::Table;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

/// What a row costs beyond its key and value.
pub(super) const ROW_OVERHEAD: usize = 128;

/// A key's value as of a commit; `None` removes.
#[derive(Debug)]
struct Version {
    seq: u64,
    value: Option<Bytes>,
}

/// The versions of one key: the newest, and those before it, oldest first.
#[derive(Debug)]
struct Versions {
    newest: Version,
    #[allow(
        clippy::box_collection,
        reason = "most keys have none: a pointer is all that this takes then"
    )]
    older: Option<Box<Vec<Version>>>,
}

type Rows = BTreeMap<RowKey, Versions>;
/// The end of a range of keys.
pub(super) type End<'k> = Bound<&'k [u8]>;

/// The rows of some commits.
#[derive(Debug, Default)]
pub(super) struct Layer {
    tables: [RwLock<Rows>; Table::ALL.len()],
    bytes: AtomicUsize,
    /// By how much the store's live bytes change, as far as is known.
    delta: AtomicI64,
}

impl Versions {
    fn at(&self, seq: u64) -> Option<&Version> {
        if self.newest.seq <= seq {
            return Some(&self.newest);
        }
        let older = self.older.as_deref()?;
        let after = older.partition_point(|version| version.seq <= seq);
        after.checked_sub(1).map(|at| &older[at])
    }

    fn push(&mut self, version: Version) {
        let before = std::mem::replace(&mut self.newest, version);
        self.older.get_or_insert_default().push(before);
    }
}

impl Layer {
    /// Adds a commit. Its seq is above all before it.
    pub fn add(&self, seq: u64, changes: Vec<Change>, delta: i64) {
        let mut bytes = 0;
        let mut changes = changes.into_iter().peekable();
        while let Some((table, ..)) = changes.peek() {
            let table = *table;
            let mut rows = self.tables[table as usize]
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            while let Some((_, key, value)) = changes.next_if(|change| change.0 == table) {
                bytes += key.len() + value.as_ref().map_or(0, Bytes::len) + ROW_OVERHEAD;
                let version = Version { seq, value };
                match rows.entry(key) {
                    Entry::Occupied(mut versions) => versions.get_mut().push(version),
                    Entry::Vacant(row) => drop(row.insert(Versions {
                        newest: version,
                        older: None,
                    })),
                }
            }
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.delta.fetch_add(delta, Ordering::Relaxed);
    }

    /// What it takes in memory.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub fn delta(&self) -> i64 {
        self.delta.load(Ordering::Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.bytes() == 0
    }

    /// What commit `seq` and those before it say of a key: nothing, or its value, or that it is gone.
    pub fn get(&self, seq: u64, table: Table, key: &[u8]) -> Option<Option<Bytes>> {
        let rows = self.rows(table);
        let version = rows.get(key)?.at(seq)?;
        Some(version.value.clone())
    }

    /// The changes of up to `limit` keys as of commit `seq`, by rising key or by falling, into `out`. Says
    /// after which key to go on, if there may be more.
    pub fn chunk(
        &self,
        seq: u64,
        table: Table,
        range: (End<'_>, End<'_>),
        (limit, falling): (usize, bool),
        mut out: impl FnMut(RowKey, Option<Bytes>),
    ) -> Option<RowKey> {
        let rows = self.rows(table);
        let range = rows.range::<[u8], _>(range);
        let mut visit = |rows: &mut dyn Iterator<Item = (&RowKey, &Versions)>| {
            let mut seen = 0;
            for (key, versions) in rows {
                if let Some(version) = versions.at(seq) {
                    out(key.clone(), version.value.clone());
                }
                seen += 1;
                if seen == limit {
                    return Some(key.clone());
                }
            }
            None
        };
        match falling {
            false => visit(&mut range.into_iter()),
            true => visit(&mut range.rev()),
        }
    }

    /// Lets `look` see the newest change of every key of a table, in order.
    pub fn newest<T>(
        &self,
        table: Table,
        look: impl for<'k> FnOnce(&mut dyn Iterator<Item = (&'k [u8], Option<&'k [u8]>)>) -> T,
    ) -> T {
        let rows = self.rows(table);
        let mut changes = rows
            .iter()
            .map(|(key, versions)| (&key[..], versions.newest.value.as_deref()));
        look(&mut changes)
    }

    fn rows(&self, table: Table) -> RwLockReadGuard<'_, Rows> {
        self.tables[table as usize]
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
