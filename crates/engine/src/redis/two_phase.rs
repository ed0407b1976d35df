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
mod tests {
    use super::*;
    use crate::embedded::codec::key;
    use crate::embedded::store::{Added, Batch, Table, View, With};
    use crate::redis::store::LIBRARY;
    use crate::redis::store_tests::{close, open, runtime};
    use crate::redis::testing::{Server, has_redis, wait_until};
    use postrider_model::UserId;
    use redis::Value;

    /// A transaction of two users in two cells, which rests on nothing: no stamp tells.
    fn writes() -> (Writes, Vec<Vec<u8>>) {
        writes_with(&[])
    }

    fn writes_with(added: &[Added]) -> (Writes, Vec<Vec<u8>>) {
        let keys = ["ada", "bob"].map(|name| key::user(&UserId::new(name).unwrap()));
        let mut batch = Batch::default();
        for key in &keys {
            batch.put(Table::States, key.clone(), b"x".to_vec());
        }
        let with = With {
            added,
            ..With::default()
        };
        let writes = Writes::new(None, &batch, &with, true);
        assert!(writes.cells.len() >= 2, "in one cell");
        (writes, keys.to_vec())
    }

    fn pending<'a>(store: &'a RedisStore, tokens: &'a Tokens, writes: &'a Writes) -> Pending<'a> {
        numbered(store, tokens, writes, 1)
    }

    fn numbered<'a>(store: &'a RedisStore, tokens: &'a Tokens, writes: &'a Writes, n: u64) -> Pending<'a> {
        let cells: Vec<Cell> = writes.cells.keys().copied().collect();
        Pending {
            store,
            tokens,
            writes,
            coordinator: cells[0],
            name: name_of(cells[0], b"test", n, &cells),
            cells,
            begun: now(),
        }
    }

    /// What a failover may bring back: all keys of a cell as they are now.
    fn copy(server: &Server, cell: Cell) -> Vec<(Vec<u8>, redis::Value)> {
        let names = [
            "rows", "stamps", "locks", "counts", "writes", "fates", "done", "settled",
        ];
        let dump = |name: &&str| {
            let key = cell.key(name);
            let mut dump = redis::cmd("DUMP");
            dump.arg(&key);
            (key, server.ask(&dump))
        };
        names.iter().map(dump).collect()
    }

    fn bring_back(server: &Server, before: Vec<(Vec<u8>, redis::Value)>) {
        for (key, value) in before {
            let mut delete = redis::cmd("DEL");
            delete.arg(&key);
            server.ask(&delete);
            if let redis::Value::BulkString(bytes) = value {
                let mut restore = redis::cmd("RESTORE");
                restore.arg(&key).arg(0).arg(bytes);
                server.ask(&restore);
            }
        }
    }

    /// How many of the rows another node finds, once nothing is in its way.
    fn found(store: &RedisStore, keys: &[Vec<u8>]) -> usize {
        let mut count = 0;
        wait_until("they can be read", || {
            let look = store.look();
            let found: Result<Vec<_>, _> = keys.iter().map(|key| look.get(Table::States, key)).collect();
            count = found.as_ref().map_or(0, |found| found.iter().flatten().count());
            found.is_ok()
        });
        count
    }

    #[test]
    fn what_a_failover_brings_back_is_finished_again_though_all_was_said_to_be_done() {
        if !has_redis("redis::two_phase") {
            return;
        }
        let (server, runtime) = (Server::start(), runtime());
        let (store, other) = (open(&runtime, &server.url()), open(&runtime, &server.url()));
        let ((writes, keys), tokens) = (writes(), store.look().tokens());
        let pending = pending(&store, &tokens, &writes);
        assert!(matches!(pending.prepare(), Ok(Round::Done)));
        assert!(pending.decide(false).unwrap().is_none());
        let second = pending.cells[1];
        let before = copy(&server, second);
        pending.finish().unwrap();
        // And the coordinator is told.
        for (cell, name) in std::mem::take(&mut *store.done()) {
            store.ask(vec![settle(cell, name)]).unwrap();
        }
        let cells: Vec<_> = Cell::all().collect();
        assert_eq!(
            other.finish_abandoned(&cells).unwrap(),
            0,
            "nothing is left to do"
        );
        bring_back(&server, before);
        assert_eq!(found(&other, &keys), 2);
        close(&runtime, &[store, other]);
    }

    #[test]
    fn what_one_cell_has_written_all_write_though_the_decision_is_lost() {
        if !has_redis("redis::two_phase") {
            return;
        }
        let (server, runtime) = (Server::start(), runtime());
        // Whoever comes next meets a lock, or looks what was left behind.
        for is_met in [true, false] {
            server.ask_line("FLUSHALL");
            let (store, other) = (open(&runtime, &server.url()), open(&runtime, &server.url()));
            let ((writes, keys), tokens) = (writes(), store.look().tokens());
            let pending = pending(&store, &tokens, &writes);
            assert!(matches!(pending.prepare(), Ok(Round::Done)));
            let fates = copy(&server, pending.coordinator).remove(5);
            assert!(pending.decide(false).unwrap().is_none());
            store
                .ask(vec![finish(pending.cells[1], &pending.name, true)])
                .unwrap();
            // The node is gone now; and so is the coordinator's word.
            bring_back(&server, vec![fates]);
            let cells: Vec<_> = Cell::all().collect();
            if !is_met {
                wait_until("it is over", || other.finish_abandoned(&cells).unwrap() > 0);
            }
            assert_eq!(
                found(&other, &keys),
                2,
                "half of it, where a lock was met: {is_met}"
            );
            close(&runtime, &[store, other]);
        }
    }

    #[test]
    fn a_part_that_a_failover_lost_is_not_answered_as_done() {
        if !has_redis("redis::two_phase") {
            return;
        }
        let (server, runtime) = (Server::start(), runtime());
        let store = open(&runtime, &server.url());
        let ((writes, keys), tokens) = (writes(), store.look().tokens());
        let pending = pending(&store, &tokens, &writes);
        let before = copy(&server, pending.cells[1]);
        assert!(matches!(pending.prepare(), Ok(Round::Done)));
        assert!(matches!(pending.check_rest(), Ok(Round::Done)));
        bring_back(&server, before);
        assert!(pending.decide(false).unwrap().is_none());
        assert!(matches!(pending.finish(), Err(StoreFault::Io(_))));
        assert_eq!(found(&store, &keys), 1);
        // Said twice, it is known to have been done.
        store
            .ask(vec![finish(pending.cells[0], &pending.name, true)])
            .unwrap();
        assert_eq!(pending.unlock(true).unwrap().lost, [pending.cells[1]]);
        close(&runtime, &[store]);
    }

    #[test]
    fn nothing_is_decided_once_a_server_may_have_forgotten_what_was_prepared() {
        if !has_redis("redis::two_phase") {
            return;
        }
        let (mut server, runtime) = (Server::start(), runtime());
        let store = open(&runtime, &server.url());
        let ((writes, _), tokens) = (writes(), store.look().tokens());
        let pending = pending(&store, &tokens, &writes);
        assert!(matches!(pending.prepare(), Ok(Round::Done)));
        assert!(matches!(pending.check_rest(), Ok(Round::Done)));
        server.restart();
        let said = pending.check_rest();
        assert!(matches!(said, Err(StoreFault::Conflict)), "it would be decided");
        pending.abort().unwrap();
        close(&runtime, &[store]);
    }

    /// How much is in one of a coordinator's keys.
    fn length(server: &Server, command: &str, cell: Cell, name: &str) -> i64 {
        let mut command = redis::cmd(command);
        match server.ask(command.arg(cell.key(name))) {
            Value::Int(length) => length,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_count_is_right_whichever_of_two_is_written_first() {
        if !has_redis("redis::two_phase") {
            return;
        }
        let (server, runtime) = (Server::start(), runtime());
        let store = open(&runtime, &server.url());
        let topic = b"t".to_vec();
        let counted = |change| {
            let none = [&[3][..], &0u64.to_le_bytes()].concat();
            let (table, key) = (Table::Topics, topic.clone());
            writes_with(&[Added {
                table,
                key,
                none,
                change,
            }])
            .0
        };
        let of_topic = crate::redis::owners::owner_of(Table::Topics, &topic).cell;
        let tokens = store.look().tokens();
        // Somebody joins, and that is written everywhere but at the topic, when the same one leaves.
        let (joins, leaves) = (counted(1), counted(-1));
        let joining = numbered(&store, &tokens, &joins, 1);
        assert!(matches!(joining.prepare(), Ok(Round::Done)));
        assert!(joining.decide(false).unwrap().is_none());
        for cell in joining.cells.iter().filter(|cell| **cell != of_topic) {
            store.ask(vec![finish(*cell, &joining.name, true)]).unwrap();
        }
        let leaving = numbered(&store, &tokens, &leaves, 2);
        assert!(matches!(leaving.prepare(), Ok(Round::Done)));
        assert!(leaving.decide(false).unwrap().is_none());
        leaving.finish().unwrap();
        joining.finish().unwrap();
        let count = store.look().get(Table::Topics, &topic).unwrap();
        assert_eq!(count, None, "nobody is a member");
        close(&runtime, &[store]);
    }

    #[test]
    fn what_is_settled_is_looked_through_by_nobody_and_remembered_in_few_bytes() {
        if !has_redis("redis::two_phase") {
            return;
        }
        let (server, runtime) = (Server::start(), runtime());
        let (store, other) = (open(&runtime, &server.url()), open(&runtime, &server.url()));
        let few = LIBRARY.replace("MOST_OVER = 32768", "MOST_OVER = 3");
        assert_ne!(few, LIBRARY);
        let mut load = redis::cmd("FUNCTION");
        server.ask(load.arg("LOAD").arg("REPLACE").arg(few));
        let ((writes, _), tokens) = (writes(), store.look().tokens());
        for n in 1..=5 {
            let pending = numbered(&store, &tokens, &writes, n);
            assert!(matches!(pending.prepare(), Ok(Round::Done)));
            assert!(pending.decide(false).unwrap().is_none());
            pending.finish().unwrap();
            for (cell, name) in std::mem::take(&mut *store.done()) {
                store.ask(vec![settle(cell, name)]).unwrap();
            }
            // Asked again, it is what it was.
            assert!(pending.decide(false).unwrap().is_none());
            assert_eq!(
                other.fate(pending.coordinator, &pending.name).unwrap(),
                Some(true)
            );
        }
        let cells = writes.cells.keys().copied().collect::<Vec<_>>();
        assert_eq!(length(&server, "HLEN", cells[0], "fates"), 0);
        assert_eq!(
            length(&server, "ZCARD", cells[0], "settled"),
            3,
            "the oldest goes"
        );
        assert_eq!(length(&server, "ZCARD", cells[1], "done"), 3);
        let mut range = redis::cmd("ZRANGE");
        let names = server.ask(range.arg(cells[1].key("done")).arg(-1).arg(-1));
        assert_eq!(names, Value::Array(vec![Value::BulkString(b"test:5".to_vec())]));
        close(&runtime, &[store, other]);
    }

    #[test]
    fn what_is_committed_is_finished_where_it_can_be_and_settled_once_it_is_everywhere() {
        if !has_redis("redis::two_phase") {
            return;
        }
        let (server, runtime) = (Server::start(), runtime());
        let (store, other) = (open(&runtime, &server.url()), open(&runtime, &server.url()));
        let ((writes, keys), tokens) = (writes(), store.look().tokens());
        let pending = pending(&store, &tokens, &writes);
        assert!(matches!(pending.prepare(), Ok(Round::Done)));
        assert!(pending.decide(false).unwrap().is_none());
        // The node is gone. One of the cells answers nothing but errors.
        let broken = pending.cells[1];
        let mut set = redis::cmd("SET");
        server.ask(set.arg(broken.key("done")).arg("x"));
        assert_eq!(
            other.fate(pending.coordinator, &pending.name).unwrap(),
            Some(true)
        );
        let cells: Vec<_> = Cell::all().collect();
        assert_eq!(length(&server, "HLEN", pending.coordinator, "fates"), 1);
        let mut delete = redis::cmd("DEL");
        server.ask(delete.arg(broken.key("done")));
        wait_until("it is left behind", || {
            other.finish_abandoned(&cells).unwrap() > 0
        });
        assert_eq!(found(&other, &keys), 2);
        wait_until("nothing is left to do", || {
            other.finish_abandoned(&cells).unwrap();
            length(&server, "HLEN", pending.coordinator, "fates") == 0
        });
        // It is remembered: a failover may bring back what was locked.
        assert_eq!(
            other.fate(pending.coordinator, &pending.name).unwrap(),
            Some(true)
        );
        close(&runtime, &[store, other]);
    }

    #[test]
    fn no_cell_knows_more_fates_than_others() {
        let cells: Vec<_> = Cell::all().collect();
        let mut count = [0; CELLS as usize];
        for n in (0..6400).map(|n| n * 2) {
            let of = coordinator_of(b"test", n, &cells);
            count[usize::from(of.0)] += 1;
        }
        assert!(count.iter().all(|count| (50..200).contains(count)), "{count:?}");
        let some = [Cell(3), Cell(9)];
        assert!((0..99).all(|n| some.contains(&coordinator_of(b"test", n, &some))));
    }
}
