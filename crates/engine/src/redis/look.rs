//! What a transaction, or a reader, has seen of the rows, and what that rests on.
//!
//! A look reads what it is asked for, remembers it, and remembers the *stamp* of every owner whose rows it read: as long
//! as those have not changed, what it knows is what is there. Whatever is asked twice is answered from memory, so a look
//! never contradicts itself.
//!
//! Invariant: every row that it told of, and every key of which it told that there is none, is its owner's, and that
//! owner's stamp was read with it in one moment. The exception: of a scan over the rows of many owners it rests on those
//! that it found, not on there being no others.
//!
//! It blocks the thread it is used on.

use super::across::across;
use super::calls::{self, Answer, function};
use super::fetch::{Ask, Fetched, Found, Plan};
use super::known::{self, Known, Last, Scan};
use super::links::Cell;
use super::owners::{self, Owner};
use super::store::RedisStore;
use super::tokens::Tokens;
use crate::embedded::store::{Row, StoreFault, Table, Tally, View, Wanted};
use postrider_model::Epoch;
use std::any::Any;
use std::cell::{Ref, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How often one read meets what another transaction holds, and waits, before it gives up.
const MAX_WAITS: u32 = 64;

/// A look at the rows, as far as it was asked for.
#[derive(Debug)]
pub struct Look {
    store: RedisStore,
    /// What each server was known by when the look began.
    tokens: Arc<Tokens>,
    seen: RefCell<Seen>,
}

/// What it has read so far.
#[derive(Debug)]
struct Seen {
    /// By table: what it knows of the rows of single owners.
    own: Vec<Known>,
    /// By table: what it knows of scans over many owners.
    gathered: Vec<Known>,
    stamps: BTreeMap<Owner, u32>,
    /// Not all of it was read, or found to be so still, by the last call.
    is_torn: bool,
    tally: Option<Tally>,
}

impl Look {
    pub(super) fn new(store: RedisStore, tokens: Arc<Tokens>) -> Look {
        Look {
            store,
            tokens,
            seen: RefCell::default(),
        }
    }

    pub(super) fn tokens(&self) -> Arc<Tokens> {
        self.tokens.clone()
    }

    /// What is left of it once these owners' rows have changed: a look that reads those anew. It takes what this one
    /// knows. `None` where it walked over rows of many owners: of those it cannot be said which are left.
    pub(super) fn without(&self, moved: &BTreeSet<Owner>) -> Option<Look> {
        if !self.seen.borrow().gathered.iter().all(Known::is_empty) {
            return None;
        }
        let mut seen = self.seen.take();
        for &table in Table::ALL {
            seen.own[table as usize].forget(|from, to| {
                let owner = owners::owner_of_range(table, from, to);
                owner.is_none_or(|owner| moved.contains(&owner))
            });
        }
        seen.stamps.retain(|owner, _| !moved.contains(owner));
        seen.tally = None;
        Some(Look {
            store: self.store.clone(),
            tokens: self.tokens.clone(),
            seen: RefCell::new(seen),
        })
    }

    /// What it rests on.
    pub(super) fn stamps(&self) -> Ref<'_, BTreeMap<Owner, u32>> {
        Ref::map(self.seen.borrow(), |seen| &seen.stamps)
    }

    /// Whether it knows that there is no row under this key.
    pub(super) fn knows_absent(&self, table: Table, key: &[u8]) -> bool {
        self.seen.borrow().own[table as usize].get(key) == Some(None)
    }

    /// How long the value under this key is, where it is known.
    pub(super) fn size_of(&self, table: Table, key: &[u8]) -> Option<usize> {
        let seen = self.seen.borrow();
        seen.own[table as usize].get(key).flatten().map(<[u8]>::len)
    }

    /// Reads these ranges, and waits for what is about to be written there.
    fn fetch(&self, asks: &[Ask]) -> Result<(), StoreFault> {
        let with_counts = self.seen.borrow().tally.is_none();
        let is_cluster = self.store.links().is_cluster();
        let mut plan = Plan::new(asks, is_cluster, self.store.grouping(), with_counts);
        let is_of_one_moment = plan.ask_again(self.seen.borrow().stamps.keys().copied());
        for waits in 0..MAX_WAITS {
            let calls = plan.calls();
            let mut fetched = plan.read(&self.store.ask(calls)?)?;
            if let Some(held) = fetched.held.first() {
                if self.store.unblock(&fetched.held)? == 0 {
                    self.store.wait_for(held, waits)?;
                }
                continue;
            }
            fetched.tally = fetched.tally.map(|tally| self.store.with_elsewhere(tally));
            self.store.meet(&self.tokens, &fetched.tokens)?;
            return self.seen.borrow_mut().learn(asks, fetched, is_of_one_moment);
        }
        Err(StoreFault::Conflict)
    }

    /// What of this is not known yet, as it is to be asked for.
    fn unknown(&self, wanted: &Wanted) -> Option<Ask> {
        let seen = self.seen.borrow();
        match wanted {
            Wanted::Get(table, key) => {
                let known = seen.own[*table as usize].get(key);
                known
                    .is_none()
                    .then(|| Ask::new(*table, key, &known::next(key), 1, false))
            }
            Wanted::Scan(table, from, to, limit) => {
                match seen.memory(*table, from, to)[*table as usize].scan(from, to, *limit) {
                    Scan::Whole(_) => None,
                    Scan::UpTo(rows, next) => Some(Ask::new(*table, &next, to, limit - rows.len(), false)),
                }
            }
            Wanted::Last(table, from, to) => {
                match seen.memory(*table, from, to)[*table as usize].last(from, to) {
                    Last::Is(_) => None,
                    Last::Before(end) => Some(Ask::new(*table, from, &end, 1, true)),
                }
            }
        }
    }
}

impl Default for Seen {
    fn default() -> Seen {
        let tables = || Table::ALL.iter().map(|_| Known::default()).collect();
        Seen {
            own: tables(),
            gathered: tables(),
            stamps: BTreeMap::new(),
            is_torn: false,
            tally: None,
        }
    }
}

impl Seen {
    /// The memory in which the rows of such a range are.
    fn memory(&self, table: Table, from: &[u8], to: &[u8]) -> &[Known] {
        match owners::owner_of_range(table, from, to) {
            Some(_) => &self.own,
            None => &self.gathered,
        }
    }

    fn learn(&mut self, asks: &[Ask], fetched: Fetched, is_of_one_moment: bool) -> Result<(), StoreFault> {
        self.is_torn = !is_of_one_moment;
        self.tally = self.tally.or(fetched.tally);
        for (owner, stamp) in fetched.stamps {
            self.rest_on(owner, stamp)?;
        }
        for (ask, found) in asks.iter().zip(fetched.found) {
            let Some(found) = found else { continue };
            self.learn_range(ask, found)?;
        }
        Ok(())
    }

    fn learn_range(&mut self, ask: &Ask, found: Found) -> Result<(), StoreFault> {
        let table = ask.table as usize;
        let mut rows = Vec::with_capacity(found.rows.len());
        for ((key, value), stamped) in found.rows {
            if let Some((owner, stamp)) = stamped {
                self.rest_on(owner, stamp)?;
                let next = known::next(&key);
                self.own[table].learn(&key, &next, [(key.clone(), value.clone())]);
            }
            rows.push((key, value));
        }
        let memory = match ask.owner {
            Some(_) => &mut self.own,
            None => &mut self.gathered,
        };
        memory[table].learn(&found.from, &found.to, rows);
        Ok(())
    }

    /// Fails where something was read of this owner before, and has changed since.
    fn rest_on(&mut self, owner: Owner, stamp: u32) -> Result<(), StoreFault> {
        match *self.stamps.entry(owner).or_insert(stamp) == stamp {
            true => Ok(()),
            false => Err(StoreFault::Conflict),
        }
    }
}

impl View for Look {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault> {
        loop {
            if let Some(value) = self.seen.borrow().own[table as usize].get(key) {
                return Ok(value.map(<[u8]>::to_vec));
            }
            self.fetch(&[Ask::new(table, key, &known::next(key), 1, false)])?;
        }
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StoreFault> {
        let wanted = Wanted::Scan(table, from.to_vec(), to.to_vec(), limit);
        while let Some(ask) = self.unknown(&wanted) {
            self.fetch(&[ask])?;
        }
        let seen = self.seen.borrow();
        match seen.memory(table, from, to)[table as usize].scan(from, to, limit) {
            Scan::Whole(rows) | Scan::UpTo(rows, _) => Ok(rows),
        }
    }

    fn last(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Option<Row>, StoreFault> {
        let wanted = Wanted::Last(table, from.to_vec(), to.to_vec());
        while let Some(ask) = self.unknown(&wanted) {
            self.fetch(&[ask])?;
        }
        let seen = self.seen.borrow();
        match seen.memory(table, from, to)[table as usize].last(from, to) {
            Last::Is(row) => Ok(row),
            Last::Before(_) => Ok(None),
        }
    }

    fn prefetch(&self, wanted: &[Wanted]) -> Result<(), StoreFault> {
        let asks: Vec<Ask> = wanted.iter().filter_map(|one| self.unknown(one)).collect();
        match asks.is_empty() {
            true => Ok(()),
            false => self.fetch(&asks),
        }
    }

    fn epoch(&self) -> Result<Option<Epoch>, StoreFault> {
        Ok(Some(self.tokens.epoch()))
    }

    fn tally(&self) -> Result<Option<Tally>, StoreFault> {
        if let Some(tally) = self.seen.borrow().tally {
            return Ok(Some(tally));
        }
        self.store.tally().map(Some)
    }

    fn is_whole(&self) -> Result<(), StoreFault> {
        match self.seen.borrow().is_torn {
            false => Ok(()),
            true => self.is_so_now(),
        }
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl Look {
    /// Asks the servers whether all that it rests on is as it was. Fails with [`StoreFault::Conflict`] where it is not.
    pub(super) fn is_so_now(&self) -> Result<(), StoreFault> {
        let seen = self.seen.borrow();
        let mut cells: BTreeMap<Cell, Vec<(Owner, u32)>> = BTreeMap::new();
        for (owner, stamp) in &seen.stamps {
            cells.entry(owner.cell).or_default().push((*owner, *stamp));
        }
        let groups = self.store.together(&cells.keys().copied().collect::<Vec<_>>());
        let calls = groups.iter().map(|group| {
            let group = group.iter().filter_map(|cell| cells.remove_entry(cell));
            check(&self.store, &self.tokens, &group.collect::<Vec<_>>(), b"")
        });
        for answer in self.store.ask(calls.collect())? {
            // Which of them is held does not matter: it is read anew.
            if !matches!(calls::answer(&answer, &[]), Ok(Answer::Done)) {
                return Err(StoreFault::Conflict);
            }
        }
        Ok(())
    }
}

/// Asks whether these stamps are what they were, and held by nobody but, perhaps, this transaction.
pub(super) fn check(
    store: &RedisStore,
    tokens: &Tokens,
    cells: &[(Cell, Vec<(Owner, u32)>)],
    transaction: &[u8],
) -> super::links::Call {
    let first = cells.first().map_or(Cell(0), |(cell, _)| *cell);
    let mut keys = Vec::with_capacity(cells.len() * 2);
    let mut args = vec![tokens.of(first).to_vec(), transaction.to_vec()];
    for (cell, stamps) in cells {
        keys.append(&mut calls::keys(*cell, &["stamps", "locks"]));
        args.push(calls::number(stamps.len()));
        for (owner, stamp) in stamps {
            args.extend([calls::number(owner.bucket), calls::number(stamp)]);
        }
    }
    across(
        calls::reading(first, function::CHECK, keys, args),
        store.links().is_cluster(),
    )
}
