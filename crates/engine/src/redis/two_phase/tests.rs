//! Transactions of which a part is lost, brought back, or left in the middle; against servers of the tests' own.

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

fn prepare_and_decide(pending: &Pending<'_>) {
    assert!(matches!(pending.prepare(), Ok(Round::Done)));
    assert!(pending.decide(false).unwrap().is_none());
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
    prepare_and_decide(&pending);
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
    prepare_and_decide(&joining);
    for cell in joining.cells.iter().filter(|cell| **cell != of_topic) {
        store.ask(vec![finish(*cell, &joining.name, true)]).unwrap();
    }
    let leaving = numbered(&store, &tokens, &leaves, 2);
    prepare_and_decide(&leaving);
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
        prepare_and_decide(&pending);
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
    prepare_and_decide(&pending);
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
