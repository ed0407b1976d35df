//! A store in memory that several writers share, with the rules of the one in Redis: a look reads each row as it is
//! then, and rests on the stamps of the owners of what it read; a batch is applied if none of them has changed, and if
//! nothing of it is kept for another node.
//!
//! Invariant: as [`crate::redis::store`] says it. This one is for tests: it is as strict, and can be made to refuse.

use super::owners::{Owner, owner_of, owner_of_range};
use crate::StoreFault;
use crate::embedded::store::{Batch, News, Refused, Row, Store, Table, Tally, View, Wanted, With};
use postrider_model::Epoch;
use std::any::Any;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// With so many owners all is kept for a transaction that others got in the way of at the first try.
const LARGE: usize = 6;
/// So many commits of others are refused for what is kept; then the lease is over.
const LEASE: u32 = 200;

/// What is told of each commit, in the order of the commits.
pub(super) type OnNews = Box<dyn Fn(&[News]) + Send + Sync>;

/// What all nodes share.
#[derive(Default)]
pub(super) struct Common {
    rows: Mutex<Rows>,
    listeners: Mutex<Vec<OnNews>>,
    /// Looks, and commits, fail as if the store was away.
    pub away: AtomicBool,
    /// Each read gives the others a turn, so that looks are torn.
    pub torn: AtomicBool,
    /// So many of the next reads find that another node got in between.
    pub torn_reads: AtomicU64,
    /// Right before each commit another node changes all that it rests on, unless that is kept for its node.
    pub busy: AtomicBool,
    /// It has no room: what frees none of what notifications hold is refused.
    pub full: AtomicBool,
    /// Whoever wants a view of it waits.
    pub shut: AtomicBool,
    /// Commits that were applied.
    pub commits: AtomicU64,
    /// Commits that were refused.
    pub conflicts: AtomicU64,
    /// Those of them for which all was kept.
    pub kept: AtomicU64,
}

#[derive(Default)]
struct Rows {
    tables: HashMap<usize, BTreeMap<Vec<u8>, Vec<u8>>>,
    stamps: HashMap<Owner, u64>,
    tally: Tally,
    epoch: u32,
    kept: Vec<Kept>,
}

/// What is kept for a node.
struct Kept {
    node: usize,
    owners: HashSet<Owner>,
    refuses: u32,
}

impl Rows {
    /// Whether anything of it is kept for another node.
    fn is_kept_from(&mut self, node: usize, owners: &HashSet<Owner>) -> bool {
        let mut is_kept = false;
        for kept in &mut self.kept {
            if kept.node != node && !kept.owners.is_disjoint(owners) {
                kept.refuses = kept.refuses.saturating_sub(1);
                is_kept |= kept.refuses > 0;
            }
        }
        self.kept.retain(|kept| kept.refuses > 0);
        is_kept
    }

    fn stamp(&self, owner: &Owner) -> u64 {
        self.stamps.get(owner).copied().unwrap_or(0)
    }
}

impl Common {
    pub fn new() -> Arc<Common> {
        let common = Common::default();
        common.rows().epoch = 1;
        Arc::new(common)
    }

    /// The store begins anew with what it holds, as after a restart.
    pub fn begin_epoch(&self) {
        self.rows().epoch += 1;
    }

    /// Damages a row, or puts a strange one.
    pub fn put(&self, table: Table, key: Vec<u8>, value: Vec<u8>) {
        let mut rows = self.rows();
        let into = rows.tables.entry(table as usize).or_default();
        into.insert(key, value);
    }

    /// Loses a row.
    pub fn take(&self, table: Table, key: &[u8]) -> Option<Vec<u8>> {
        self.rows().tables.get_mut(&(table as usize))?.remove(key)
    }

    /// How many rows a table has.
    pub fn count(&self, table: Table) -> usize {
        self.rows().tables.get(&(table as usize)).map_or(0, BTreeMap::len)
    }

    pub fn listen(&self, listener: OnNews) {
        self.listeners().push(listener);
    }

    /// Tells what nobody keeps.
    pub fn tell(&self, news: &[News]) {
        self.listeners().iter().for_each(|listener| listener(news));
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listeners(&self) -> MutexGuard<'_, Vec<OnNews>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_way(&self) {
        if self.torn.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
    }

    fn here(&self) -> Result<(), StoreFault> {
        match self.away.load(Ordering::SeqCst) {
            true => Err(StoreFault::Io("away".into())),
            false => Ok(()),
        }
    }

    /// What a look meets with every read.
    fn read(&self) -> Result<MutexGuard<'_, Rows>, StoreFault> {
        self.give_way();
        self.here()?;
        let less = |left: u64| left.checked_sub(1);
        let torn = self
            .torn_reads
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
        match torn {
            Ok(_) => Err(StoreFault::Conflict),
            Err(_) => Ok(self.rows()),
        }
    }
}

/// One node's way to it.
pub(super) struct Node {
    pub number: usize,
    pub common: Arc<Common>,
    pub keeps_house: bool,
    /// It cannot reach it any more.
    pub dead: Arc<AtomicBool>,
}

impl Node {
    fn here(&self) -> Result<(), StoreFault> {
        match self.dead.load(Ordering::SeqCst) {
            true => Err(StoreFault::Io("dead".into())),
            false => self.common.here(),
        }
    }
}

impl Store for Node {
    fn view(&self) -> Result<Box<dyn View + '_>, StoreFault> {
        self.here()?;
        while self.common.shut.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        let rows = self.common.rows();
        Ok(Box::new(Look {
            epoch: rows.epoch,
            tally: rows.tally,
            rests_on: Mutex::default(),
            common: self.common.clone(),
        }))
    }

    fn commit(&self, _: &Batch, _: bool) -> Result<(), StoreFault> {
        Err(StoreFault::Io("a batch that rests on nothing".into()))
    }

    fn live_bytes(&self) -> u64 {
        0
    }

    fn file_bytes(&self) -> u64 {
        0
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn keeps_house(&self) -> bool {
        self.keeps_house
    }

    fn commit_on(&self, view: Box<dyn View + '_>, batch: &Batch, with: &With<'_>) -> Result<(), Refused> {
        self.here()?;
        let look = view.as_any().and_then(|look| look.downcast_ref::<Look>());
        let look = look.ok_or_else(|| StoreFault::Io("a strange view".into()))?;
        // Held until the news are told, so that they are told in the order of the commits.
        let listeners = self.common.listeners();
        let mut rows = self.common.rows();
        let owners = look.owners(batch);
        let is_kept = rows.is_kept_from(self.number, &owners);
        if self.common.busy.load(Ordering::SeqCst) {
            let mine = rows.kept.iter().filter(|kept| kept.node == self.number);
            let mine: HashSet<_> = mine.flat_map(|kept| kept.owners.iter().copied()).collect();
            for owner in look.owners(&Batch::default()).difference(&mine) {
                *rows.stamps.entry(*owner).or_default() += 1;
            }
        }
        if is_kept || look.check(&rows).is_err() {
            self.common.conflicts.fetch_add(1, Ordering::SeqCst);
            let kept = match with.tries {
                Some(tries) if !is_kept && (tries > 1 || owners.len() >= LARGE) => {
                    self.common.kept.fetch_add(1, Ordering::SeqCst);
                    self.keep(&mut rows, look, owners)
                }
                _ => None,
            };
            let fault = StoreFault::Conflict;
            return Err(Refused { fault, kept });
        }
        if self.common.full.load(Ordering::SeqCst) && !batch.is_empty() && with.tally.held >= 0 {
            return Err(StoreFault::Unready("there is no room".into()).into());
        }
        rows.kept.retain(|kept| kept.node != self.number);
        for &table in Table::ALL {
            for (key, value) in batch.table(table).iter() {
                *rows.stamps.entry(owner_of(table, key)).or_default() += 1;
                let into = rows.tables.entry(table as usize).or_default();
                match value {
                    Some(value) => into.insert(key.to_vec(), value.to_vec()),
                    None => into.remove(key),
                };
            }
        }
        for added in with.added {
            let into = rows.tables.entry(added.table as usize).or_default();
            match added.after(into.get(&added.key).map(Vec::as_slice)) {
                Some(value) => into.insert(added.key.clone(), value),
                None => into.remove(&added.key),
            };
        }
        rows.tally = Tally {
            held: rows.tally.held + with.tally.held,
            records: rows.tally.records + with.tally.records,
            scheduled: rows.tally.scheduled + with.tally.scheduled,
            letters: rows.tally.letters + with.tally.letters,
        };
        drop(rows);
        self.common.commits.fetch_add(1, Ordering::SeqCst);
        listeners.iter().for_each(|listener| listener(with.news));
        Ok(())
    }
}

struct Look {
    common: Arc<Common>,
    epoch: u32,
    tally: Tally,
    rests_on: Mutex<HashMap<Owner, u64>>,
}

impl Node {
    /// Keeps all of a transaction for this node; what is left of its look.
    fn keep(&self, rows: &mut Rows, look: &Look, owners: HashSet<Owner>) -> Option<Box<dyn View>> {
        rows.kept.retain(|kept| kept.node != self.number);
        rows.kept.push(Kept {
            node: self.number,
            owners,
            refuses: LEASE,
        });
        let mut rests_on = look.rests_on().clone();
        rests_on.retain(|owner, stamp| rows.stamp(owner) == *stamp);
        let left = Look {
            common: look.common.clone(),
            epoch: look.epoch,
            tally: look.tally,
            rests_on: Mutex::new(rests_on),
        };
        (look.epoch == rows.epoch).then(|| Box::new(left) as _)
    }
}

impl Look {
    fn rests_on(&self) -> MutexGuard<'_, HashMap<Owner, u64>> {
        self.rests_on.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that it rests on and that this writes.
    fn owners(&self, batch: &Batch) -> HashSet<Owner> {
        let mut owners: HashSet<_> = self.rests_on().keys().copied().collect();
        for &table in Table::ALL {
            owners.extend(batch.table(table).keys().map(|key| owner_of(table, key)));
        }
        owners
    }

    fn check(&self, rows: &Rows) -> Result<(), StoreFault> {
        let rests_on = self.rests_on();
        let unchanged = rests_on.iter().all(|(owner, stamp)| rows.stamp(owner) == *stamp);
        match unchanged && rows.epoch == self.epoch {
            true => Ok(()),
            false => Err(StoreFault::Conflict),
        }
    }

    fn rest(&self, rows: &Rows, owner: Owner) {
        self.rests_on().entry(owner).or_insert(rows.stamp(&owner));
    }

    /// The rows of a range, each with a stamp that it rests on.
    fn range(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        take: impl FnOnce(&mut dyn DoubleEndedIterator<Item = Row>) -> Vec<Row>,
    ) -> Result<Vec<Row>, StoreFault> {
        let rows = self.common.read()?;
        let range = rows.tables.get(&(table as usize)).filter(|_| from < to);
        let range = range.map(|rows| rows.range(from.to_vec()..to.to_vec()));
        let found = take(&mut range.into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())));
        match owner_of_range(table, from, to) {
            Some(owner) => self.rest(&rows, owner),
            None => found
                .iter()
                .for_each(|(key, _)| self.rest(&rows, owner_of(table, key))),
        }
        Ok(found)
    }
}

impl View for Look {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault> {
        let rows = self.common.read()?;
        self.rest(&rows, owner_of(table, key));
        let table = rows.tables.get(&(table as usize));
        Ok(table.and_then(|rows| rows.get(key).cloned()))
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StoreFault> {
        self.range(table, from, to, |rows| rows.take(limit).collect())
    }

    fn last(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Option<Row>, StoreFault> {
        let mut last = self.range(table, from, to, |rows| rows.next_back().into_iter().collect())?;
        Ok(last.pop())
    }

    fn prefetch(&self, wanted: &[Wanted]) -> Result<(), StoreFault> {
        // Whoever announces a read rests on it, also where it is not read then.
        for wanted in wanted {
            match wanted {
                Wanted::Get(table, key) => drop(self.get(*table, key)?),
                Wanted::Scan(table, from, to, limit) => drop(self.scan(*table, from, to, *limit)?),
                Wanted::Last(table, from, to) => drop(self.last(*table, from, to)?),
            }
        }
        Ok(())
    }

    fn epoch(&self) -> Result<Option<Epoch>, StoreFault> {
        Ok(Some(Epoch(self.epoch)))
    }

    fn tally(&self) -> Result<Option<Tally>, StoreFault> {
        Ok(Some(self.tally))
    }

    fn is_whole(&self) -> Result<(), StoreFault> {
        self.check(&self.common.rows())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}
