//! The ordered key-value store under the embedded engine: tables, atomic batches, forward and backward
//! scans. Two implementations: [`super::disk`] and [`Memory`].
//!
//! Invariant: a batch is applied whole or not at all, and readers see a batch only once it is as durable as
//! was asked. What the store cannot promise it answers with an error; it never answers with old data.

use super::lanes::Share;
use super::row_key::RowKey;
use postrider_model::{Epoch, FeedId};
use std::collections::BTreeMap;
use std::ops::Bound;
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
    /// It answers and takes nothing that is to be kept, until an operator mends what this says; nothing was written.
    #[error("{0}")]
    Unready(String),
    /// Another node changed what was read meanwhile, and nothing was written: it can be done again at once, on
    /// what is there now.
    #[error("another node changed what this rests on")]
    Conflict,
}

impl StoreFault {
    /// One row is not as it should be, and others can be read all the same.
    pub(crate) fn is_of_a_row(&self) -> bool {
        matches!(self, StoreFault::Corrupt { .. } | StoreFault::Newer { .. })
    }
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
    Users = "users",
    Memberships = "memberships",
    Members = "members",
    Topics = "topics",
    States = "states",
}

/// A key and its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// Where a value stands among a batch's; `None` removes.
type Place = Option<(usize, usize)>;

/// What a batch changes: per table, by key. The values stand one after the other in one piece of memory: one of
/// each of thousands costs more than what is done with them.
#[derive(Debug, Default)]
pub struct Batch {
    tables: [BTreeMap<RowKey, Place>; Table::ALL.len()],
    values: Vec<u8>,
    /// Bytes of all keys, at least.
    keys: usize,
}

/// Memory that is kept from one batch to the next.
const MAX_SPARE: usize = 8 << 20;

impl Batch {
    /// An empty one, with memory that an earlier one had.
    pub(super) fn reusing(mut values: Vec<u8>) -> Batch {
        values.clear();
        Batch {
            values,
            ..Batch::default()
        }
    }
    /// Its memory, for the next one.
    pub(super) fn into_spare(self) -> Vec<u8> {
        match self.values.capacity() {
            0..=MAX_SPARE => self.values,
            _ => Vec::new(),
        }
    }
    /// Bytes of all keys and values, or somewhat more.
    pub fn bytes(&self) -> usize {
        self.keys + self.values.len()
    }
    /// Writes a value under a key, in place of what stands there.
    pub fn put(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) {
        self.keys += key.len();
        let start = self.values.len();
        self.values.extend_from_slice(&value);
        let place = Some((start, self.values.len()));
        self.tables[table as usize].insert(RowKey::from(&key[..]), place);
    }
    /// Removes a key, which need not be there.
    pub fn remove(&mut self, table: Table, key: Vec<u8>) {
        self.keys += key.len();
        self.tables[table as usize].insert(RowKey::from(&key[..]), None);
    }
    /// What changes in one table.
    pub fn table(&self, table: Table) -> Changes<'_> {
        Changes {
            rows: &self.tables[table as usize],
            values: &self.values,
        }
    }
    /// It changes nothing.
    pub fn is_empty(&self) -> bool {
        self.tables.iter().all(BTreeMap::is_empty)
    }
}

/// What a batch changes in one table; `None` in place of a value removes.
#[derive(Debug, Clone, Copy)]
pub struct Changes<'b> {
    rows: &'b BTreeMap<RowKey, Place>,
    values: &'b [u8],
}

impl<'b> Changes<'b> {
    /// How many rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }
    /// None.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
    /// What becomes of a key, if anything does.
    pub fn get(&self, key: &[u8]) -> Option<Option<&'b [u8]>> {
        self.rows.get(key).map(|place| self.value(*place))
    }
    /// By rising key.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&'b [u8], Option<&'b [u8]>)> + use<'b> {
        let changes = *self;
        self.rows
            .iter()
            .map(move |(key, place)| (&key[..], changes.value(*place)))
    }
    /// The keys, rising.
    pub fn keys(&self) -> impl Iterator<Item = &'b [u8]> + use<'b> {
        self.rows.keys().map(|key| &key[..])
    }
    /// Those of `from..to`, by rising key.
    pub fn range(
        &self,
        from: &[u8],
        to: &[u8],
    ) -> impl DoubleEndedIterator<Item = (&'b [u8], Option<&'b [u8]>)> + use<'b> {
        let changes = *self;
        let range = (from < to && !self.rows.is_empty()).then(|| {
            self.rows
                .range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)))
        });
        let range = range.into_iter().flatten();
        range.map(move |(key, place)| (&key[..], changes.value(*place)))
    }

    fn value(&self, place: Place) -> Option<&'b [u8]> {
        place.map(|(start, end)| &self.values[start..end])
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
    /// Other nodes write it too: what a transaction rests on is what its view read, no more, and may have changed.
    fn is_shared(&self) -> bool {
        false
    }
    /// This node forgets what is too old, and does what else only one should. Of those that share a store one does, as
    /// a rule: where two do, each thing is done once all the same.
    fn keeps_house(&self) -> bool {
        true
    }
    /// What of all that is due falls to this node. See [`Share`].
    fn share(&self) -> Share {
        match self.keeps_house() {
            true => Share::ALL,
            false => Share::NONE,
        }
    }
    /// Applies a batch that rests on what was read from `view`; a store that is shared answers
    /// [`StoreFault::Conflict`] where any of that has changed, and tells the news when the batch is applied.
    fn commit_on(&self, view: Box<dyn View + '_>, batch: &Batch, with: &With<'_>) -> Result<(), Refused> {
        drop(view);
        Ok(self.commit(batch, with.sync)?)
    }
    /// What was refused last is not tried again: others need not wait for it any more.
    fn gives_up(&self) {}
}

/// A batch was not applied.
pub struct Refused {
    /// Why.
    pub fault: StoreFault,
    /// Where others were in the way: what of the view is as it was, for the next try.
    pub kept: Option<Box<dyn View>>,
}

impl std::fmt::Debug for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let is_kept = self.kept.is_some();
        f.debug_struct("Refused")
            .field("fault", &self.fault)
            .field("is_kept", &is_kept)
            .finish()
    }
}

impl From<StoreFault> for Refused {
    fn from(fault: StoreFault) -> Refused {
        Refused { fault, kept: None }
    }
}

/// What goes with a batch to a store that is shared.
#[derive(Debug, Clone, Copy, Default)]
pub struct With<'w> {
    /// As of [`Store::commit`].
    pub sync: bool,
    /// By how much what is counted over all rows changes.
    pub tally: Tally,
    /// What the nodes are told once the batch is applied, in this order.
    pub news: &'w [News],
    /// Rows that are added to.
    pub added: &'w [Added],
    /// How often others got in the way of it before. `None`: where they do it is not done again at once.
    pub tries: Option<u32>,
}

/// A row that counts something: its value ends in a signed number of eight bytes, which a batch changes whatever it is.
/// Nothing rests on it, so that those who count the same are not in one another's way; and for moments it may be below
/// nothing, where what is taken away is written before what was added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// The table.
    pub table: Table,
    /// Its key.
    pub key: Vec<u8>,
    /// What its value would be with a number of 0. There is no row with that.
    pub none: Vec<u8>,
    /// What is added, or taken away.
    pub change: i64,
}

#[cfg(test)]
impl Added {
    /// What becomes of the row.
    pub fn after(&self, before: Option<&[u8]>) -> Option<Vec<u8>> {
        let count = |value: &[u8]| Some(i64::from_le_bytes(*value.last_chunk()?));
        let count = before.and_then(count).unwrap_or(0) + self.change;
        let head = &self.none[..self.none.len() - 8];
        (count != 0).then(|| [head, &count.to_le_bytes()].concat())
    }
}

/// What is told of one feed: the name of a channel that nodes can listen to, and what is said there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// Who listens: those who follow this feed.
    pub feed: FeedId,
    /// As the codec of wakes writes it.
    pub payload: Vec<u8>,
}

/// By how much the counts over all rows change; or, summed up, what they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Bytes that notifications hold.
    pub held: i64,
    /// Those of them that only tell what became of something.
    pub records: i64,
    /// Those of them that wait for their time.
    pub scheduled: i64,
    /// Dead letters.
    pub letters: i64,
}

/// A read that is about to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// [`View::get`].
    Get(Table, Vec<u8>),
    /// [`View::scan`], with its limit.
    Scan(Table, Vec<u8>, Vec<u8>, usize),
    /// [`View::last`].
    Last(Table, Vec<u8>, Vec<u8>),
}

/// The tables as one moment left them.
pub trait View {
    /// The value under `key`.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault>;
    /// Up to `limit` rows of `from..to` by rising key.
    fn scan(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StoreFault>;
    /// The last row of `from..to`.
    fn last(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Option<Row>, StoreFault>;
    /// Fails if a key that was not found may be one that damage hides. A store without a look at its own
    /// structure cannot tell.
    fn vouch_absent(&self, _table: Table, _key: &[u8]) -> Result<(), StoreFault> {
        Ok(())
    }
    /// Says what will be read next. A store that is far away brings it all in one go; what was not announced is
    /// brought when it is asked for.
    fn prefetch(&self, _wanted: &[Wanted]) -> Result<(), StoreFault> {
        Ok(())
    }
    /// In which epoch to number what is appended to these rows. `None`: in that of whoever opened the store.
    fn epoch(&self) -> Result<Option<Epoch>, StoreFault> {
        Ok(None)
    }
    /// What is counted over all rows, where the store does that. `None`: a row of its own says it.
    fn tally(&self) -> Result<Option<Tally>, StoreFault> {
        Ok(None)
    }
    /// Fails with [`StoreFault::Conflict`] where what was read is not as one moment left it.
    fn is_whole(&self) -> Result<(), StoreFault> {
        Ok(())
    }
    /// For [`Store::commit_on`], by which a store knows its own views again.
    fn as_any(&self) -> Option<&dyn std::any::Any> {
        None
    }
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
            for (key, value) in batch.table(table).iter() {
                let rows = &mut tables[table as usize];
                let before = match value {
                    Some(value) => {
                        added += key.len() + value.len();
                        rows.insert(key.to_vec(), value.to_vec())
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
    /// A transaction, with memory that an earlier one had.
    pub fn new(store: &'s dyn Store, spare: Vec<u8>) -> Result<Self, StoreFault> {
        Ok(Txn::on(store.view()?, spare))
    }
    /// The same on a view that there is.
    pub fn on(view: Box<dyn View + 's>, spare: Vec<u8>) -> Self {
        Txn {
            view,
            batch: Batch::reusing(spare),
        }
    }
    pub fn put(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) {
        self.batch.put(table, key, value);
    }
    pub fn remove(&mut self, table: Table, key: Vec<u8>) {
        self.batch.remove(table, key);
    }
    /// What it changes so far.
    pub fn batch(&self) -> &Batch {
        &self.batch
    }
    /// The view that it rests on, and what it changes.
    pub fn into_parts(self) -> (Box<dyn View + 's>, Batch) {
        (self.view, self.batch)
    }
}

impl View for Txn<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault> {
        match self.batch.table(table).get(key) {
            Some(value) => Ok(value.map(<[u8]>::to_vec)),
            None => self.view.get(table, key),
        }
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StoreFault> {
        let changed: Vec<_> = self.batch.table(table).range(from, to).collect();
        if changed.is_empty() {
            return self.view.scan(table, from, to, limit);
        }
        let removed = changed.iter().filter(|(_, value)| value.is_none()).count();
        let stored = self.view.scan(table, from, to, limit.saturating_add(removed))?;
        let mut rows: BTreeMap<_, _> = stored.into_iter().collect();
        for (key, value) in changed {
            match value {
                Some(value) => rows.insert(key.to_vec(), value.to_vec()),
                None => rows.remove(key),
            };
        }
        Ok(rows.into_iter().take(limit).collect())
    }

    fn last(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Option<Row>, StoreFault> {
        let changed = self.batch.table(table).range(from, to);
        let newest = changed
            .filter_map(|(key, value)| Some((key.to_vec(), value?.to_vec())))
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

    fn vouch_absent(&self, table: Table, key: &[u8]) -> Result<(), StoreFault> {
        self.view.vouch_absent(table, key)
    }

    fn prefetch(&self, wanted: &[Wanted]) -> Result<(), StoreFault> {
        self.view.prefetch(wanted)
    }

    fn epoch(&self) -> Result<Option<Epoch>, StoreFault> {
        self.view.epoch()
    }

    fn tally(&self) -> Result<Option<Tally>, StoreFault> {
        self.view.tally()
    }

    fn is_whole(&self) -> Result<(), StoreFault> {
        self.view.is_whole()
    }
}
