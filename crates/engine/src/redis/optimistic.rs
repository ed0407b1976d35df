//! A store in memory that several writers share, with the rules of the one in Redis: a look reads each row as it is
//! then, and rests on the stamps of the owners of what it read; a batch is applied if none of them has changed.
//!
//! Invariant: as [`crate::redis::store`] says it. This one is for tests: it is as strict, and can be made to refuse.

use super::owners::{Owner, owner_of, owner_of_range};
use crate::StoreFault;
use crate::embedded::store::{Batch, News, Row, Store, Table, Tally, View, Wanted, With};
use postrider_model::Epoch;
use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    /// Commits that were applied.
    pub commits: AtomicU64,
    /// Commits that were refused.
    pub conflicts: AtomicU64,
}

#[derive(Default)]
struct Rows {
    tables: HashMap<usize, BTreeMap<Vec<u8>, Vec<u8>>>,
    stamps: HashMap<Owner, u64>,
    tally: Tally,
    epoch: u32,
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

    fn commit_on(&self, view: Box<dyn View + '_>, batch: &Batch, with: &With<'_>) -> Result<(), StoreFault> {
        self.here()?;
        let look = view.as_any().and_then(|look| look.downcast_ref::<Look>());
        let look = look.ok_or_else(|| StoreFault::Io("a strange view".into()))?;
        // Held until the news are told, so that they are told in the order of the commits.
        let listeners = self.common.listeners();
        let mut rows = self.common.rows();
        if let Err(fault) = look.check(&rows) {
            self.common.conflicts.fetch_add(1, Ordering::SeqCst);
            return Err(fault);
        }
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

impl Look {
    fn check(&self, rows: &Rows) -> Result<(), StoreFault> {
        let rests_on = self.rests_on.lock().unwrap_or_else(PoisonError::into_inner);
        let mut owners = rests_on.iter();
        let unchanged = owners.all(|(owner, stamp)| rows.stamps.get(owner).copied().unwrap_or(0) == *stamp);
        match unchanged && rows.epoch == self.epoch {
            true => Ok(()),
            false => Err(StoreFault::Conflict),
        }
    }

    fn rest(&self, rows: &Rows, owner: Owner) {
        let stamp = rows.stamps.get(&owner).copied().unwrap_or(0);
        let mut rests_on = self.rests_on.lock().unwrap_or_else(PoisonError::into_inner);
        rests_on.entry(owner).or_insert(stamp);
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
