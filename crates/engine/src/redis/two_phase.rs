//! Commits over several cells, each of them atomic, together all or nothing.
//!
//! One cell of those it writes, the *coordinator*, knows the transaction's fate; which one, its name decides, so that no
//! cell has more of them than others. Its node
//! 1. begins it there, and in every cell that it writes checks what it rests on, locks it, and leaves what is to be
//!    written (`begin`, `prepare`: one round);
//! 2. checks what it only read: after all locks are held, so that of two that read what the other writes one sees it;
//! 3. lets the coordinator decide: this is the moment of the commit;
//! 4. lets every cell write and unlock (`finish`), and, later, tells the coordinator so (`settle`).
//!
//! A lock has a lease. Whoever meets one that is over asks: what was written in any cell, or is committed by its
//! coordinator's word, is finished in that cell; what is not decided is aborted, for good, and unlocked (`recovery`).
//!
//! Invariant: a transaction is committed by its coordinator's word alone, and once said that stays: a `decide` needs
//! what `begin` left, and whoever aborts takes that away. Clocks decide only when others may abort, never what is true.
//!
//! A failover can bring a cell back to what its new master knew. What that means at each step, and what of it is left,
//! says ADR 14.

mod recovery;

use super::across::CELLS_AT_ONCE;
use super::calls::{self, Answer, Held, function, int, number};
use super::commit::{Writes, unconfirmed};
use super::links::{CELLS, Call, Cell, Durability, LinkFault, Moment};
use super::look;
use super::owners::Owner;
use super::store::{RedisStore, now, one};
use super::tokens::Tokens;
use crate::embedded::store::StoreFault;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Where a coordinator has what it knows of fates.
const FATES: [&str; 2] = ["fates", "settled"];
/// How long a node has from locking to deciding before others undo it.
const LEASE: Duration = Duration::from_millis(1000);
/// How long it is remembered that a transaction was finished: longer than a replica that is promoted may lag behind,
/// and than others need to find what it brings back.
const FINISHED: Duration = Duration::from_secs(60);
/// Transactions to settle that wait for the next commit. More are left to [`RedisStore::finish_abandoned`].
const MAX_DONE: usize = 1024;

/// A transaction of this node under way.
struct Pending<'a> {
    store: &'a RedisStore,
    tokens: &'a Tokens,
    writes: &'a Writes,
    coordinator: Cell,
    /// The cells that it writes.
    cells: Vec<Cell>,
    /// The coordinator in two digits, the node, the number, the cells that it writes.
    name: Vec<u8>,
    /// No lock is older.
    begun: Instant,
}

/// What became of the cells of a transaction that is decided.
struct Unlocked {
    /// Every cell has answered.
    all: bool,
    /// Where nothing is left of what was prepared, nor was done.
    lost: Vec<Cell>,
}

/// How a round ended.
enum Round {
    Done,
    /// Nothing is written, nor will be.
    Conflict(Vec<Held>),
}

impl RedisStore {
    /// Commits over several cells. Answers as [`RedisStore::commit_at_once`].
    pub(super) fn commit_in_two_phases(
        &self,
        tokens: &Tokens,
        writes: &Writes,
        n: u64,
        sync: bool,
    ) -> Result<Option<Vec<Held>>, StoreFault> {
        let written = writes.cells.iter().filter(|(_, share)| share.writes());
        let cells: Vec<Cell> = written.map(|(cell, _)| *cell).collect();
        let coordinator = coordinator_of(self.node(), n, &cells);
        let name = name_of(coordinator, self.node(), n, &cells);
        let pending = Pending {
            store: self,
            tokens,
            writes,
            coordinator,
            cells,
            name,
            begun: now(),
        };
        match pending.commit(sync)? {
            Round::Done => Ok(None),
            Round::Conflict(held) => Ok(Some(held)),
        }
    }
}

impl Pending<'_> {
    fn commit(&self, sync: bool) -> Result<Round, StoreFault> {
        let moment = self.store.links().moment();
        let outcome = match self.prepare()? {
            Round::Done => self.check_rest(),
            conflict => Ok(conflict),
        };
        match outcome {
            Ok(Round::Done) => {}
            conflict => {
                self.abort()?;
                return conflict;
            }
        }
        // What is decided must not be forgotten by those who are to do it; nor what it rests on, as its answers may.
        let cells: Vec<Cell> = self.writes.cells.keys().copied().collect();
        if let Err(link) = self.store.confirm(moment, &cells, sync) {
            self.abort()?;
            return Err(calls::fault(&link));
        }
        if let Some(conflict) = self.decide(sync)? {
            return Ok(conflict);
        }
        self.finish()?;
        Ok(Round::Done)
    }

    /// Begins at the coordinator, and locks in every cell that it writes.
    fn prepare(&self) -> Result<Round, StoreFault> {
        let mut calls = vec![self.begin()];
        calls.extend(self.cells.iter().map(|cell| self.lock(*cell)));
        let finished = std::mem::take(&mut *self.store.done());
        let count = calls.len();
        calls.extend(finished.into_iter().map(|(cell, name)| settle(cell, name)));
        let asked_at = now();
        let answers = self.store.round(calls)?;
        let mut held = Vec::new();
        let mut conflict = false;
        let cells = std::iter::once(self.coordinator).chain(self.cells.iter().copied());
        for (cell, answer) in cells.zip(answers.into_iter().take(count)) {
            let answer = answer.map_err(|link| calls::fault(&link));
            match answer.and_then(|answer| calls::answer(&answer, &[cell])) {
                Ok(Answer::Done) => {}
                Ok(Answer::Conflict(others)) => {
                    conflict = true;
                    held.extend(others);
                }
                Ok(Answer::Stranger) => {
                    self.abort()?;
                    self.store.met_another()?;
                }
                Err(fault) => {
                    self.abort()?;
                    return Err(fault);
                }
            }
        }
        // So late its locks may be gone, and its beginning may be later than that.
        if conflict || asked_at.elapsed() >= LEASE {
            return Ok(Round::Conflict(held));
        }
        Ok(Round::Done)
    }

    /// What it rests on and does not write; and that every server it writes to is still the one that was read from: of
    /// another one, what was prepared there may be lost.
    fn check_rest(&self) -> Result<Round, StoreFault> {
        let mut cells: Vec<(Cell, Vec<(Owner, u32)>)> = Vec::new();
        for (cell, share) in &self.writes.cells {
            let stamps = share.stamps.iter();
            let stamps = stamps.filter(|(owner, _)| !share.changed.contains(&owner.bucket));
            let stamps: Vec<_> = stamps.copied().collect();
            if !stamps.is_empty() {
                cells.push((*cell, stamps));
            }
        }
        let links = self.store.links();
        let mut asked: BTreeSet<u64> = cells.iter().map(|(cell, _)| links.server_of(*cell)).collect();
        for cell in &self.cells {
            if asked.insert(links.server_of(*cell)) {
                cells.push((*cell, Vec::new()));
            }
        }
        self.store.step()?;
        let all: Vec<Cell> = cells.iter().map(|(cell, _)| *cell).collect();
        let groups = self.store.together(&all);
        let groups: Vec<&[Cell]> = groups
            .iter()
            .flat_map(|cells| cells.chunks(CELLS_AT_ONCE))
            .collect();
        let calls = groups.iter().map(|group| {
            let group = cells.iter().filter(|(cell, _)| group.contains(cell));
            look::check(
                self.store,
                self.tokens,
                &group.cloned().collect::<Vec<_>>(),
                &self.name,
            )
        });
        for (group, answer) in groups.iter().zip(self.store.insist(calls.collect())) {
            let answer = answer.map_err(|link| calls::fault(&link))?;
            match calls::answer(&answer, group)? {
                Answer::Done => {}
                Answer::Conflict(held) => return Ok(Round::Conflict(held)),
                Answer::Stranger => {
                    self.store.met_another()?;
                }
            }
        }
        Ok(Round::Done)
    }

    /// The moment of the commit. Some: it was aborted before.
    fn decide(&self, sync: bool) -> Result<Option<Round>, StoreFault> {
        let patience_ends = now() + self.store.options().patience;
        loop {
            let moment = self.store.links().moment();
            self.store.step()?;
            let call = decide(self.coordinator, &self.name, &self.cells);
            let answer = one(self.store.insist(vec![call])).map_err(|link| calls::fault(&link))?;
            if calls::answer(&answer, &[])? != Answer::Done {
                self.unlock(false)?;
                return Ok(Some(Round::Conflict(Vec::new())));
            }
            match self.store.confirm(moment, &[self.coordinator], sync) {
                Ok(()) => return Ok(None),
                Err(LinkFault::Unknown(_)) if now() < patience_ends => {}
                Err(link) => {
                    self.finish()?;
                    return Err(unconfirmed(&link));
                }
            }
        }
    }

    /// It is committed: whatever cannot be reached now is finished by others. Fails where a server lost its part: what
    /// is known not to be there is not answered as done.
    fn finish(&self) -> Result<(), StoreFault> {
        let unlocked = self.unlock(true)?;
        if unlocked.all {
            let mut done = self.store.done();
            if done.len() < MAX_DONE {
                done.push((self.coordinator, self.name.clone()));
            }
        }
        match unlocked.lost.as_slice() {
            [] => Ok(()),
            lost => {
                let cells: Vec<_> = lost.iter().map(|cell| cell.0).collect();
                tracing::error!(
                    ?cells,
                    transaction = %String::from_utf8_lossy(&self.name),
                    "a part of what was committed is lost: the cells' server forgot it before it was written"
                );
                Err(StoreFault::Io(
                    "a failover of Redis lost a part of what was to be written".into(),
                ))
            }
        }
    }

    /// Nothing of it is to be done, and nobody will ask for it to be decided: its fate need not be kept. What cannot
    /// be reached now is undone by others.
    fn abort(&self) -> Result<(), StoreFault> {
        self.store.step()?;
        let forget = forget(self.coordinator, vec![self.name.clone()]);
        if let Err(link) = one(self.store.insist(vec![forget])) {
            tracing::debug!(%link, "a transaction that is not to be done is left to its lease");
            return Ok(());
        }
        self.unlock(false).map(drop)
    }

    /// Writes, or does not, and unlocks.
    fn unlock(&self, does: bool) -> Result<Unlocked, StoreFault> {
        let cells = self.cells.iter();
        let calls = cells.map(|cell| finish(*cell, &self.name, does)).collect();
        let mut unlocked = Unlocked {
            all: true,
            lost: Vec::new(),
        };
        for (cell, answer) in self.cells.iter().zip(self.store.round(calls)?) {
            match answer {
                // So late others may have finished it, and nobody remember that.
                Ok(answer) if does && int(&answer)? < 0 && self.begun.elapsed() < FINISHED => {
                    unlocked.lost.push(*cell);
                }
                Ok(_) => {}
                Err(link) => {
                    tracing::warn!(%link, committed = does, "a cell is left to be finished by others");
                    unlocked.all = false;
                }
            }
        }
        Ok(unlocked)
    }

    fn begin(&self) -> Call {
        let args = vec![self.name.clone(), number(LEASE.as_millis())];
        let function = match self.writes.frees() {
            true => function::BEGIN_FREEING,
            false => function::BEGIN,
        };
        self.to_coordinator(function, args)
    }

    fn lock(&self, cell: Cell) -> Call {
        let mut args = vec![
            self.tokens.of(cell).to_vec(),
            self.name.clone(),
            number(LEASE.as_millis()),
            self.store.node().to_vec(),
        ];
        if let Some(share) = self.writes.cells.get(&cell) {
            share.write_stamps(&mut args, |owner| share.changed.contains(&owner.bucket));
            share.write(&mut args);
        }
        let keys = calls::keys(cell, &["stamps", "locks", "writes", "kept"]);
        let function = match self.writes.frees() {
            true => function::PREPARE_FREEING,
            false => function::PREPARE,
        };
        calls::writing(cell, function, keys, args)
    }

    fn to_coordinator(&self, function: &'static str, args: Vec<Vec<u8>>) -> Call {
        let keys = calls::keys(self.coordinator, &FATES);
        calls::writing(self.coordinator, function, keys, args)
    }
}

impl RedisStore {
    /// Waits for the copies that are asked for.
    pub(super) fn confirm(&self, moment: Moment, cells: &[Cell], sync: bool) -> Result<(), LinkFault> {
        let durability = self.options().durability;
        if !sync || durability == Durability::None {
            return Ok(());
        }
        let links = self.links();
        links.handle().block_on(links.confirm(moment, cells, durability))
    }
}

fn finish(cell: Cell, transaction: &[u8], does: bool) -> Call {
    let keys = calls::keys(cell, &["rows", "stamps", "locks", "counts", "writes", "done"]);
    let args = vec![transaction.to_vec(), number(u8::from(does))];
    calls::writing(cell, function::FINISH, keys, args)
}

fn decide(coordinator: Cell, transaction: &[u8], cells: &[Cell]) -> Call {
    let args = vec![transaction.to_vec(), digits_of(cells).into_bytes()];
    calls::writing(
        coordinator,
        function::DECIDE,
        calls::keys(coordinator, &FATES),
        args,
    )
}

fn settle(coordinator: Cell, transaction: Vec<u8>) -> Call {
    let keys = calls::keys(coordinator, &FATES);
    calls::writing(coordinator, function::SETTLE, keys, vec![transaction])
}

fn forget(coordinator: Cell, transactions: Vec<Vec<u8>>) -> Call {
    let keys = calls::keys(coordinator, &FATES);
    calls::writing(coordinator, function::FORGET, keys, transactions)
}

/// The written cell that is to know the fate of a node's transaction.
fn coordinator_of(node: &[u8], n: u64, cells: &[Cell]) -> Cell {
    let hash = xxh3_64_with_seed(node, n);
    let at = hash % (cells.len() as u64).max(1);
    cells.get(at as usize).copied().unwrap_or(Cell(0))
}

/// What a transaction is known by: who knows its fate, which it is, where its parts are.
fn name_of(coordinator: Cell, node: &[u8], n: u64, cells: &[Cell]) -> Vec<u8> {
    let node = String::from_utf8_lossy(node);
    format!("{:02x}:{node}:{n}:{}", coordinator.0, digits_of(cells)).into_bytes()
}

/// Which cell knows a transaction's fate.
fn coordinator(transaction: &[u8]) -> Option<Cell> {
    cells_of(transaction.get(..2)?).first().copied()
}

/// The cells that a transaction writes.
fn parts_of(transaction: &[u8]) -> Vec<Cell> {
    cells_of(
        transaction
            .rsplit(|byte| *byte == b':')
            .next()
            .unwrap_or_default(),
    )
}

/// Cells one after the other in two digits each.
fn digits_of(cells: &[Cell]) -> String {
    cells.iter().map(|cell| format!("{:02x}", cell.0)).collect()
}

fn cells_of(digits: &[u8]) -> Vec<Cell> {
    let cell = |two: &[u8]| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok();
    let cells = digits.chunks_exact(2).filter_map(cell);
    cells.filter(|cell| *cell < CELLS).map(Cell).collect()
}

#[cfg(test)]
mod tests;
