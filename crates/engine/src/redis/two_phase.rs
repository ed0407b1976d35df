//! Commits over several cells, each of them atomic, together all or nothing.
//!
//! One cell, the *coordinator*, knows the transaction's fate. Its node
//! 1. begins it there, and in every cell that it writes checks what it rests on, locks it, and leaves what is to be
//!    written (`begin`, `prepare`: one round);
//! 2. checks what it only read: after all locks are held, so that of two that read what the other writes one sees it;
//! 3. lets the coordinator decide: this is the moment of the commit;
//! 4. lets every cell write and unlock (`finish`), and, later, the coordinator forget.
//!
//! A lock has a lease. Whoever meets one that is over asks the coordinator: what is committed it finishes in that cell,
//! what is not decided it aborts, for good, and unlocks.
//!
//! Invariant: a transaction is committed by its coordinator's word alone, and once said that stays: a `decide` needs
//! what `begin` left, and whoever aborts takes that away. Clocks decide only when others may abort, never what is true.

use super::calls::{self, Answer, Held, array, bytes, function, int, number, part};
use super::commit::{Writes, unconfirmed};
use super::links::{Call, Cell, Durability, LinkFault, Moment};
use super::look;
use super::owners::Owner;
use super::store::{RedisStore, now, one};
use super::tokens::Tokens;
use crate::embedded::store::StoreFault;
use redis::Value;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How long a node has from locking to deciding before others undo it.
const LEASE: Duration = Duration::from_millis(1000);
/// How long the fate of a transaction is remembered: longer than any node repeats a question.
const MEMORY: Duration = Duration::from_secs(3600);
/// The longest wait for what another transaction holds, before it is looked at again.
const MAX_WAIT: Duration = Duration::from_millis(32);
/// Fates to forget that wait for the next commit. More are left to [`RedisStore::finish_abandoned`].
const MAX_DONE: usize = 1024;

/// A transaction of this node under way.
struct Pending<'a> {
    store: &'a RedisStore,
    tokens: &'a Tokens,
    writes: &'a Writes,
    coordinator: Cell,
    /// The cells that it writes.
    cells: Vec<Cell>,
    /// The coordinator in two digits, the node, the number.
    name: Vec<u8>,
    /// No lock is older.
    begun: Instant,
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
        let coordinator = cells.first().copied().unwrap_or(Cell(0));
        let name = format!(
            "{:02x}:{}:{n}",
            coordinator.0,
            String::from_utf8_lossy(self.node())
        );
        let pending = Pending {
            store: self,
            tokens,
            writes,
            coordinator,
            cells,
            name: name.into_bytes(),
            begun: now(),
        };
        match pending.commit(sync)? {
            Round::Done => Ok(None),
            Round::Conflict(held) => Ok(Some(held)),
        }
    }

    /// Waits a little for a transaction that holds what is asked for; ends it if its lease is over.
    pub(super) fn wait_for(&self, held: &Held, waits: u32) -> Result<(), StoreFault> {
        if !held.is_over {
            let wait = Duration::from_millis(1 << waits.min(8));
            self.pause(wait.min(MAX_WAIT));
            return Ok(());
        }
        let Some(coordinator) = coordinator(&held.transaction) else {
            return Err(calls::unforeseen());
        };
        let fate = resolve(coordinator, &held.transaction);
        let answers = self.ask(vec![fate])?;
        let does = match bytes(part(&answers, 0)?)? {
            b"c" => true,
            b"a" => false,
            _ => {
                self.pause(MAX_WAIT);
                return Ok(());
            }
        };
        tracing::warn!(
            transaction = %String::from_utf8_lossy(&held.transaction),
            committed = does,
            "a node went away in the middle of a transaction; it is brought to its end"
        );
        self.step()?;
        self.ask(vec![finish(held.cell, &held.transaction, does)])
            .map(drop)
    }

    /// Brings transactions to an end whose node went away, whoever waits for them; forgets fates that nobody asks for
    /// any more. How many were brought to an end. To be called about once a second by one node.
    pub fn finish_abandoned(&self) -> Result<usize, StoreFault> {
        let ask = |cell: Cell| {
            let keys = calls::keys(cell, &["fates", "writes", "nodes"]);
            calls::writing(cell, function::STALE, keys, vec![number(MEMORY.as_millis())])
        };
        let mut count = 0;
        let answers = self.ask(Cell::all().map(ask).collect())?;
        for (cell, answer) in Cell::all().zip(answers) {
            let told = array(&answer)?;
            for fate in array(part(told, 0)?)?.chunks(4) {
                count += usize::from(self.finish_fate(cell, fate)?);
            }
            for transaction in array(part(told, 1)?)? {
                let held = Held {
                    cell,
                    transaction: bytes(transaction)?.to_vec(),
                    is_over: true,
                };
                self.wait_for(&held, 0)?;
                count += 1;
            }
        }
        Ok(count)
    }

    /// One fate that was left behind: transaction, state, cells, whether it may be forgotten. True where something
    /// was left to do.
    fn finish_fate(&self, coordinator: Cell, fate: &[Value]) -> Result<bool, StoreFault> {
        let transaction = bytes(part(fate, 0)?)?;
        let mut changed = false;
        match bytes(part(fate, 1)?)? {
            b"c" => {
                let cells = cells_of(bytes(part(fate, 2)?)?);
                let calls = cells
                    .iter()
                    .map(|cell| finish(*cell, transaction, true))
                    .collect();
                for answer in self.ask(calls)? {
                    changed |= int(&answer)? == 1;
                }
            }
            b"d" => {
                self.ask(vec![resolve(coordinator, transaction)])?;
                changed = true;
            }
            _ => {}
        }
        if int(part(fate, 3)?)? == 1 {
            self.ask(vec![forget(coordinator, vec![transaction.to_vec()])])?;
        }
        Ok(changed)
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
        let forgotten = std::mem::take(&mut *self.store.done());
        let count = calls.len();
        calls.extend(forgotten.into_iter().map(|(cell, name)| forget(cell, vec![name])));
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
        let is_cluster = self.store.links().is_cluster();
        let chunks: Vec<_> = cells.chunks(if is_cluster { 1 } else { cells.len() }).collect();
        let calls = chunks
            .iter()
            .map(|cells| look::check(self.tokens, cells, &self.name))
            .collect();
        for (cells, answer) in chunks.iter().zip(self.store.insist(calls)) {
            let answer = answer.map_err(|link| calls::fault(&link))?;
            let cells: Vec<Cell> = cells.iter().map(|(cell, _)| *cell).collect();
            match calls::answer(&answer, &cells)? {
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
            let cells: Vec<String> = self.cells.iter().map(|cell| format!("{:02x}", cell.0)).collect();
            let args = vec![self.name.clone(), cells.concat().into_bytes()];
            let call = self.to_coordinator(function::DECIDE, args);
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

    /// It is committed: whatever cannot be reached now is finished by others.
    fn finish(&self) -> Result<(), StoreFault> {
        if self.unlock(true)? {
            let mut done = self.store.done();
            if done.len() < MAX_DONE {
                done.push((self.coordinator, self.name.clone()));
            }
        }
        Ok(())
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

    /// Writes, or does not, and unlocks. True where every cell has answered.
    fn unlock(&self, does: bool) -> Result<bool, StoreFault> {
        let cells = self.cells.iter();
        let calls = cells.map(|cell| finish(*cell, &self.name, does)).collect();
        let moment = self.store.links().moment();
        let mut all = true;
        for (cell, answer) in self.cells.iter().zip(self.store.round(calls)?) {
            match answer {
                Ok(answer) if does && int(&answer)? == 0 => self.was_done(*cell, moment),
                Ok(_) => {}
                Err(link) => {
                    tracing::warn!(%link, committed = does, "a cell is left to be finished by others");
                    all = false;
                }
            }
        }
        Ok(all)
    }

    /// There was nothing left to do in a cell, so others finished it, or an answer was lost on a connection that ended;
    /// where neither can be, what was prepared there is gone.
    fn was_done(&self, cell: Cell, moment: Moment) {
        let others_may = self.begun.elapsed() >= LEASE;
        if !others_may && self.store.links().moment() == moment {
            tracing::error!(
                cell = cell.0,
                transaction = %String::from_utf8_lossy(&self.name),
                "a part of what was committed is lost: the cell's server forgot it before it was written"
            );
        }
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
        ];
        if let Some(share) = self.writes.cells.get(&cell) {
            share.write_stamps(&mut args, |owner| share.changed.contains(&owner.bucket));
            share.write(&mut args);
        }
        let keys = calls::keys(cell, &["stamps", "locks", "writes"]);
        let function = match self.writes.frees() {
            true => function::PREPARE_FREEING,
            false => function::PREPARE,
        };
        calls::writing(cell, function, keys, args)
    }

    fn to_coordinator(&self, function: &'static str, args: Vec<Vec<u8>>) -> Call {
        let keys = calls::keys(self.coordinator, &["fates"]);
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
    let keys = calls::keys(cell, &["rows", "stamps", "locks", "counts", "writes"]);
    let args = vec![transaction.to_vec(), number(u8::from(does))];
    calls::writing(cell, function::FINISH, keys, args)
}

fn resolve(coordinator: Cell, transaction: &[u8]) -> Call {
    let keys = calls::keys(coordinator, &["fates"]);
    calls::writing(coordinator, function::RESOLVE, keys, vec![transaction.to_vec()])
}

fn forget(coordinator: Cell, transactions: Vec<Vec<u8>>) -> Call {
    let keys = calls::keys(coordinator, &["fates"]);
    calls::writing(coordinator, function::FORGET, keys, transactions)
}

/// Which cell knows a transaction's fate.
fn coordinator(transaction: &[u8]) -> Option<Cell> {
    cells_of(transaction.get(..2)?).first().copied()
}

/// Cells written one after the other in two digits each.
fn cells_of(digits: &[u8]) -> Vec<Cell> {
    let cell = |two: &[u8]| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok();
    digits.chunks(2).filter_map(cell).map(Cell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::codec::key;
    use crate::embedded::store::{Batch, Table, With};
    use crate::redis::store_tests::{close, open, runtime};
    use crate::redis::testing::{Server, has_redis};
    use postrider_model::UserId;

    #[test]
    fn nothing_is_decided_once_a_server_may_have_forgotten_what_was_prepared() {
        if !has_redis("redis::two_phase") {
            return;
        }
        let (mut server, runtime) = (Server::start(), runtime());
        let store = open(&runtime, &server.url());
        let mut batch = Batch::default();
        batch.put(
            Table::States,
            key::user(&UserId::new("ada").unwrap()),
            b"x".to_vec(),
        );
        // It rests on nothing: no stamp tells.
        let writes = Writes::new(None, &batch, &With::default(), false);
        let tokens = store.look().tokens();
        let cells: Vec<Cell> = writes.cells.keys().copied().collect();
        let pending = Pending {
            store: &store,
            tokens: &tokens,
            writes: &writes,
            coordinator: cells[0],
            name: format!("{:02x}:test:1", cells[0].0).into_bytes(),
            cells,
            begun: now(),
        };
        assert!(matches!(pending.prepare(), Ok(Round::Done)));
        assert!(matches!(pending.check_rest(), Ok(Round::Done)));
        server.restart();
        let said = pending.check_rest();
        assert!(matches!(said, Err(StoreFault::Conflict)), "it would be decided");
        pending.abort().unwrap();
        close(&runtime, &[store]);
    }
}
