//! The store against real servers: several nodes at once, judged against a model; nodes that go away in the middle.

#![allow(
    clippy::disallowed_methods,
    reason = "tests of several nodes run them on threads of their own"
)]

use super::links::{Call, Cell, Durability, LinkFault, LinkOptions, Links, RedisUrl};
use super::look::Look;
use super::owners::{self, Owner};
use super::store::{LIBRARY, RedisStore, StoreOptions};
use super::testing::{Cluster, Server, has_redis};
use crate::embedded::codec::key;
use crate::embedded::store::{
    Batch, News, Refused, Row, Store, StoreFault, Table, Tally, View, Wanted, With,
};
use postrider_model::{FeedId, NotificationId, Timestamp, Topic, UserId};
use redis::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;

/// How a test makes a node end, or take the long way.
#[derive(Debug)]
pub(super) struct Trial {
    /// Steps until it is gone; none for one that stays.
    steps: AtomicI64,
    in_two_phases: AtomicBool,
    /// Takes its time between reading and writing, so that others get in between.
    dawdles: AtomicBool,
}

impl Default for Trial {
    fn default() -> Self {
        Trial {
            steps: AtomicI64::new(i64::MAX),
            in_two_phases: AtomicBool::new(false),
            dawdles: AtomicBool::new(false),
        }
    }
}

impl RedisStore {
    fn trial(&self) -> &Trial {
        &self.inner.trial
    }

    pub(super) fn is_in_two_phases(&self) -> bool {
        self.trial().in_two_phases.load(Ordering::SeqCst)
    }

    pub(super) fn step(&self) -> Result<(), StoreFault> {
        match self.trial().steps.fetch_sub(1, Ordering::SeqCst) > 0 {
            true => Ok(()),
            false => Err(StoreFault::Io("this node is gone".into())),
        }
    }

    /// One after the other where the node is to end between two of them.
    pub(super) fn round(&self, calls: Vec<Call>) -> Result<Vec<Result<Value, LinkFault>>, StoreFault> {
        if self.trial().steps.load(Ordering::SeqCst) > i64::from(u32::MAX) {
            return Ok(self.insist(calls));
        }
        let mut answers = Vec::new();
        for call in calls {
            self.step()?;
            answers.extend(self.insist(vec![call]));
        }
        Ok(answers)
    }
}

const OPTIONS: StoreOptions = StoreOptions {
    durability: Durability::None,
    patience: Duration::from_secs(10),
};

pub(super) fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
}

pub(super) fn open(runtime: &Runtime, url: &RedisUrl) -> RedisStore {
    let options = LinkOptions {
        timeout: Duration::from_secs(30),
        ..LinkOptions::new(url.clone(), "test")
    };
    runtime.block_on(async {
        let links = Links::open(options, LIBRARY).await.unwrap();
        RedisStore::open(links, "test", OPTIONS).await.unwrap()
    })
}

pub(super) fn close(runtime: &Runtime, stores: &[RedisStore]) {
    for store in stores {
        runtime.block_on(store.links().close());
    }
}

fn every_cell() -> Vec<Cell> {
    Cell::all().collect()
}

fn user(n: u64) -> UserId {
    UserId::new(&format!("u{n}")).unwrap()
}

fn id(n: u64) -> NotificationId {
    NotificationId::new(&format!("n{n}")).unwrap()
}

fn put(store: &RedisStore, rows: &[(Table, Vec<u8>, &[u8])]) {
    let mut batch = Batch::default();
    for (table, key, value) in rows {
        batch.put(*table, key.clone(), value.to_vec());
    }
    store.commit(&batch, true).unwrap();
}

fn commit(store: &RedisStore, look: Look, batch: &Batch) -> Result<(), StoreFault> {
    let with = With {
        sync: true,
        ..With::default()
    };
    let done = store.commit_on(Box::new(look), batch, &with);
    done.map_err(|refused| refused.fault)
}

/// All rows of all tables.
fn all_rows(store: &RedisStore) -> Model {
    let look = store.look();
    let mut all = Model::new();
    for &table in Table::ALL {
        for (key, value) in look.scan(table, &[], &[0xff; 400], usize::MAX).unwrap() {
            all.insert((table as usize, key), value);
        }
    }
    all
}

#[test]
fn what_was_written_is_read() {
    if !has_redis("redis::store") {
        return;
    }
    let (server, runtime) = (Server::start(), runtime());
    let store = open(&runtime, &server.url());
    let feed = FeedId::User(user(1));
    let entry = |offset| key::entry(&feed, offset);
    put(
        &store,
        &[
            (Table::Entries, entry(1), b"one"),
            (Table::Entries, entry(2), b""),
            (Table::Entries, entry(256), &vec![0; 300_000]),
            (Table::Entries, key::entry(&FeedId::User(user(10)), 1), b"other"),
        ],
    );
    let look = store.look();
    assert_eq!(
        look.get(Table::Entries, &entry(1)).unwrap(),
        Some(b"one".to_vec())
    );
    assert_eq!(look.get(Table::Entries, &entry(3)).unwrap(), None);
    let (from, to) = (key::feed(&feed), key::after(&key::feed(&feed)));
    let rows = look.scan(Table::Entries, &from, &to, 2).unwrap();
    assert_eq!(rows, [(entry(1), b"one".to_vec()), (entry(2), Vec::new())]);
    assert_eq!(
        look.last(Table::Entries, &from, &to).unwrap().unwrap().0,
        entry(256)
    );
    assert_eq!(
        look.scan(Table::Entries, &from, &to, usize::MAX).unwrap().len(),
        3
    );
    look.is_whole().unwrap();
    // What was read before is what one moment left.
    let mut batch = Batch::default();
    batch.remove(Table::Entries, entry(1));
    batch.put(Table::Entries, entry(2), b"two".to_vec());
    store.commit(&batch, true).unwrap();
    assert_eq!(
        look.get(Table::Entries, &entry(1)).unwrap(),
        Some(b"one".to_vec())
    );
    look.is_whole().unwrap();
    assert!(matches!(look.is_so_now(), Err(StoreFault::Conflict)));
    // And nothing is read to it that another moment left.
    let more = look.get(Table::States, &key::user(&user(2)));
    assert!(matches!(more, Err(StoreFault::Conflict)), "{more:?}");
    assert_eq!(
        store.look().scan(Table::Entries, &from, &to, 2).unwrap()[0],
        (entry(2), b"two".to_vec())
    );
    close(&runtime, &[store]);
}

#[test]
fn one_go_brings_what_was_announced() {
    if !has_redis("redis::store") {
        return;
    }
    let (server, runtime) = (Server::start(), runtime());
    let store = open(&runtime, &server.url());
    let feeds: Vec<_> = (0..200).map(|n| FeedId::User(user(n))).collect();
    let keys: Vec<_> = feeds.iter().map(key::feed).collect();
    let wanted: Vec<_> = keys
        .iter()
        .flat_map(|key| {
            [
                Wanted::Last(Table::Entries, key.clone(), key::after(key)),
                Wanted::Get(Table::Feeds, key.clone()),
            ]
        })
        .collect();
    let look = store.look();
    let before = store.links().state().commands;
    look.prefetch(&wanted).unwrap();
    assert_eq!(store.links().state().commands, before + 1);
    for key in &keys {
        assert_eq!(look.last(Table::Entries, key, &key::after(key)).unwrap(), None);
        assert_eq!(look.get(Table::Feeds, key).unwrap(), None);
        let entry = [&key[..], &1u64.to_be_bytes()].concat();
        assert_eq!(look.get(Table::Entries, &entry).unwrap(), None);
    }
    look.is_whole().unwrap();
    assert_eq!(look.tally().unwrap(), Some(Tally::default()));
    assert_eq!(store.links().state().commands, before + 1);
    close(&runtime, &[store]);
}

#[test]
fn scans_over_all_cells_are_whole_and_in_order() {
    if !has_redis("redis::store") {
        return;
    }
    let (server, runtime) = (Server::start(), runtime());
    let store = open(&runtime, &server.url());
    let mut rows: Vec<Row> = (0..3000)
        .map(|n| (key::due(Timestamp(n / 7), 2, &id(n)), vec![n as u8]))
        .collect();
    rows.sort();
    let batch: Vec<_> = rows
        .iter()
        .map(|(key, value)| (Table::Due, key.clone(), &value[..]))
        .collect();
    put(&store, &batch);
    for limit in [1, 10, 64, 1000, usize::MAX] {
        let look = store.look();
        let found = look.scan(Table::Due, &[], &[0xff; 16], limit).unwrap();
        assert_eq!(found, rows[..limit.min(rows.len())]);
        let end = &rows[500].0;
        let found = look.scan(Table::Due, &rows[100].0, end, limit).unwrap();
        assert_eq!(found, rows[100..100 + limit.min(400)]);
        assert_eq!(
            look.last(Table::Due, &[], end).unwrap().as_ref(),
            Some(&rows[499])
        );
    }
    close(&runtime, &[store]);
}

#[test]
fn large_rows_come_in_several_goes() {
    if !has_redis("redis::store") {
        return;
    }
    let (server, runtime) = (Server::start(), runtime());
    let store = open(&runtime, &server.url());
    let feed = key::feed(&FeedId::All);
    let large = vec![7; 256 << 10];
    for offset in 1..=40u64 {
        put(
            &store,
            &[(Table::Entries, key::entry(&FeedId::All, offset), &large)],
        );
        put(&store, &[(Table::Letters, offset.to_be_bytes().to_vec(), &large)]);
    }
    let look = store.look();
    let wanted = Wanted::Scan(Table::Entries, feed.clone(), key::after(&feed), 1000);
    look.prefetch(&[wanted, Wanted::Scan(Table::Letters, vec![], vec![0xff; 9], 1000)])
        .unwrap();
    let rows = look
        .scan(Table::Entries, &feed, &key::after(&feed), 1000)
        .unwrap();
    assert_eq!(rows.len(), 40);
    assert!(rows.iter().all(|(_, value)| *value == large));
    assert_eq!(
        look.scan(Table::Letters, &[], &[0xff; 9], 1000).unwrap().len(),
        40
    );
    look.is_whole().unwrap();
    close(&runtime, &[store]);
}

#[test]
fn who_rests_on_what_changed_writes_nothing() {
    if !has_redis("redis::store") {
        return;
    }
    let (server, runtime) = (Server::start(), runtime());
    let (a, b) = (open(&runtime, &server.url()), open(&runtime, &server.url()));
    for long in [false, true] {
        a.trial().in_two_phases.store(long, Ordering::SeqCst);
        let (read, written) = (key::user(&user(1)), key::user(&user(2)));
        let look = a.look();
        let before = look.get(Table::States, &read).unwrap();
        put(&b, &[(Table::States, read.clone(), format!("{long}").as_bytes())]);
        assert_ne!(b.look().get(Table::States, &read).unwrap(), before);
        let mut batch = Batch::default();
        batch.put(Table::States, written.clone(), b"x".to_vec());
        batch.put(Table::Users, key::user(&user(3)), b"x".to_vec());
        assert!(matches!(commit(&a, look, &batch), Err(StoreFault::Conflict)));
        assert_eq!(b.look().get(Table::States, &written).unwrap(), None);
        // That there is none is rested on as well.
        let look = a.look();
        assert_eq!(look.get(Table::States, &written).unwrap(), None);
        put(&b, &[(Table::States, written.clone(), b"y")]);
        assert!(matches!(commit(&a, look, &batch), Err(StoreFault::Conflict)));
        let look = a.look();
        look.get(Table::States, &written).unwrap();
        commit(&a, look, &batch).unwrap();
        let mut batch = Batch::default();
        batch.remove(Table::States, written);
        b.commit(&batch, true).unwrap();
    }
    assert_eq!(a.finish_abandoned(&every_cell()).unwrap(), 0);
    close(&runtime, &[a, b]);
}

#[test]
fn a_commit_that_is_told_twice_is_done_once() {
    if !has_redis("redis::store") {
        return;
    }
    let (server, runtime) = (Server::start(), runtime());
    let store = open(&runtime, &server.url());
    let look = store.look();
    let key = key::user(&user(1));
    look.get(Table::States, &key).unwrap();
    let mut batch = Batch::default();
    batch.put(Table::States, key, b"x".to_vec());
    let tally = Tally {
        held: 5,
        letters: -1,
        ..Tally::default()
    };
    let with = With {
        sync: true,
        tally,
        ..With::default()
    };
    let writes = super::commit::Writes::new(Some(&look), &batch, &with, false);
    for _ in 0..2 {
        let held = store.commit_at_once(&look.tokens(), &writes, 7, true).unwrap();
        assert_eq!(held, None);
    }
    assert_eq!(store.tally().unwrap(), tally);
    // One that comes after a later one is not done any more.
    assert_eq!(
        store.commit_at_once(&look.tokens(), &writes, 6, true).unwrap(),
        Some(Vec::new())
    );
    close(&runtime, &[store]);
}

#[test]
fn a_server_that_started_anew_is_another() {
    if !has_redis("redis::store") {
        return;
    }
    let (mut server, runtime) = (Server::start(), runtime());
    let store = open(&runtime, &server.url());
    let key = key::user(&user(1));
    put(&store, &[(Table::States, key.clone(), b"x")]);
    let look = store.look();
    look.get(Table::States, &key).unwrap();
    let epoch = look.epoch().unwrap();
    server.restart();
    let mut batch = Batch::default();
    batch.put(Table::States, key.clone(), b"y".to_vec());
    assert!(matches!(commit(&store, look, &batch), Err(StoreFault::Conflict)));
    let look = store.look();
    assert_eq!(look.get(Table::States, &key).unwrap(), Some(b"x".to_vec()));
    assert_ne!(look.epoch().unwrap(), epoch);
    commit(&store, look, &batch).unwrap();
    close(&runtime, &[store]);
}

#[test]
fn without_memory_nothing_is_written_and_that_is_said() {
    if !has_redis("redis::store") {
        return;
    }
    let (server, runtime) = (Server::start(), runtime());
    let store = open(&runtime, &server.url());
    let key = key::user(&user(1));
    put(&store, &[(Table::States, key.clone(), b"x")]);
    server.ask_line("CONFIG SET maxmemory 1mb");
    for long in [false, true] {
        store.trial().in_two_phases.store(long, Ordering::SeqCst);
        let look = store.look();
        assert_eq!(look.get(Table::States, &key).unwrap(), Some(b"x".to_vec()));
        let mut batch = Batch::default();
        batch.put(Table::States, key.clone(), b"y".to_vec());
        let said = commit(&store, look, &batch).unwrap_err().to_string();
        assert!(said.contains("maxmemory"), "{said}");
    }
    server.ask_line("CONFIG SET maxmemory 0");
    assert_eq!(
        store.look().get(Table::States, &key).unwrap(),
        Some(b"x".to_vec())
    );
    close(&runtime, &[store]);
}

#[test]
fn what_frees_memory_is_done_where_it_has_run_out() {
    if !has_redis("redis::store") {
        return;
    }
    let (server, runtime) = (Server::start(), runtime());
    let store = open(&runtime, &server.url());
    let keys: Vec<_> = (0..6).map(|n| key::user(&user(n))).collect();
    let rows = keys.iter().map(|key| (Table::States, key.clone(), &b"long"[..]));
    put(&store, &rows.collect::<Vec<_>>());
    server.ask_line("CONFIG SET maxmemory 1mb");
    for (long, keys) in [(false, &keys[..3]), (true, &keys[3..])] {
        store.trial().in_two_phases.store(long, Ordering::SeqCst);
        let look = store.look();
        let mut batch = Batch::default();
        for (n, key) in keys.iter().enumerate() {
            assert!(look.get(Table::States, key).unwrap().is_some());
            match n {
                0 => batch.put(Table::States, key.clone(), b"new".to_vec()),
                _ => batch.remove(Table::States, key.clone()),
            }
        }
        commit(&store, look, &batch).unwrap();
        let found = all_of(&store, keys);
        assert_eq!(
            found,
            [Some(b"new".to_vec()), None, None],
            "in two phases: {long}"
        );
    }
    close(&runtime, &[store]);
}

#[test]
fn a_scan_finds_what_a_node_that_went_away_had_committed() {
    if !has_redis("redis::store") {
        return;
    }
    let (server, runtime) = (Server::start(), runtime());
    let witness = open(&runtime, &server.url());
    let (mut ends, mut found_late) = (0, 0);
    for steps in 0.. {
        let node = open(&runtime, &server.url());
        node.trial().in_two_phases.store(true, Ordering::SeqCst);
        let keys: Vec<_> = (0..3).map(|n| key::user(&user(steps * 10 + n))).collect();
        let mut batch = Batch::default();
        keys.iter()
            .for_each(|key| batch.put(Table::States, key.clone(), b"x".to_vec()));
        node.trial()
            .steps
            .store(i64::try_from(steps).unwrap(), Ordering::SeqCst);
        let outcome = node.commit(&batch, true);
        close(&runtime, &[node]);
        ends += 1;
        // Scans alone: nobody asks for one of these rows by its key.
        let scanned = || {
            let rows = witness.look().scan(Table::States, &[], &[0xff; 400], 10_000);
            let rows = rows.unwrap_or_default();
            rows.iter().filter(|(key, _)| keys.contains(key)).count()
        };
        let before = scanned();
        super::testing::wait_until("what it held is let go", || {
            scanned();
            left_behind(&runtime, &witness) == 0
        });
        let after = scanned();
        assert!(after == 0 || after == 3, "{after} rows after {steps} steps");
        found_late += u32::from(before < after);
        if outcome.is_ok() {
            assert_eq!(after, 3);
            break;
        }
    }
    assert!(
        found_late >= 1,
        "none of {ends} ended between the decision and its rows"
    );
    close(&runtime, &[witness]);
}

#[test]
fn what_was_counted_in_a_cluster_is_counted_by_every_look() {
    if !has_redis("redis::store") {
        return;
    }
    let (server, runtime) = (Server::start(), runtime());
    server.ask_line("HSET {pr:default:05}:counts held 7");
    server.ask_line("HSET {pr:default:00}:counts held 3");
    let store = open(&runtime, &server.url());
    let look = store.look();
    look.get(Table::States, b"x").unwrap();
    assert_eq!(look.tally().unwrap().unwrap().held, 10);
    close(&runtime, &[store]);
}

#[test]
fn news_comes_with_the_commit_and_with_no_other() {
    if !has_redis("redis::store") {
        return;
    }
    let (server, runtime) = (Server::start(), runtime());
    let store = open(&runtime, &server.url());
    let (heard, news) = std::sync::mpsc::sync_channel(16);
    let on_message =
        move |channel: &[u8], payload: &[u8]| heard.send((channel.to_vec(), payload.to_vec())).unwrap();
    store.links().on_message(Box::new(on_message), Box::new(|_| {}));
    let feed = FeedId::User(user(1));
    let (cell, channel) = RedisStore::channel(&feed);
    store.links().subscribe(cell, channel.clone());
    runtime
        .block_on(store.links().subscribed(std::slice::from_ref(&channel)))
        .unwrap();
    let key = key::user(&user(1));
    for long in [false, true] {
        store.trial().in_two_phases.store(long, Ordering::SeqCst);
        for refused in [true, false] {
            let look = store.look();
            look.get(Table::States, &key).unwrap();
            if refused {
                let mut batch = Batch::default();
                batch.put(Table::States, key.clone(), b"x".to_vec());
                store.commit(&batch, true).unwrap();
            }
            let news = [b"one".to_vec(), vec![0; 100_000]].map(|payload| News {
                feed: feed.clone(),
                payload,
            });
            let with = With {
                sync: true,
                tally: Tally::default(),
                news: &news,
                ..With::default()
            };
            let mut batch = Batch::default();
            batch.put(Table::States, key.clone(), b"y".to_vec());
            let done = store.commit_on(Box::new(look), &batch, &with);
            assert_eq!(done.is_err(), refused);
        }
        for payload in [b"one".to_vec(), vec![0; 100_000]] {
            let heard = news.recv_timeout(Duration::from_secs(60)).unwrap();
            assert_eq!(heard, (channel.clone(), payload));
        }
    }
    assert!(news.try_recv().is_err());
    close(&runtime, &[store]);
}

/// Numbers that look random, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

#[derive(Debug, Clone)]
enum Read {
    Get(Table, Vec<u8>, Option<Vec<u8>>),
    Scan(Table, Vec<u8>, Vec<u8>, usize, Vec<Row>),
    Last(Table, Vec<u8>, Vec<u8>, Option<Row>),
}

/// A transaction that was committed.
#[derive(Debug)]
struct Done {
    reads: Vec<Read>,
    writes: Vec<(Table, Vec<u8>, Option<Vec<u8>>)>,
    /// What it rested on, and whether it changed that.
    stamps: Vec<(Owner, u32, bool)>,
}

/// A row somewhere: of four users, eight notifications.
fn some_key(dice: &mut Dice) -> (Table, Vec<u8>) {
    let feed = FeedId::User(user(dice.roll(4)));
    match dice.roll(5) {
        0 | 1 => (Table::Entries, key::entry(&feed, dice.roll(6))),
        2 => (
            Table::Marks,
            key::mark(&user(dice.roll(4)), &FeedId::All, dice.roll(3), 1),
        ),
        3 => (
            Table::Due,
            key::due(Timestamp(dice.roll(4)), 2, &id(dice.roll(8))),
        ),
        _ => (
            Table::Members,
            key::member(&Topic::new("t").unwrap(), &user(dice.roll(4))),
        ),
    }
}

fn some_read(look: &Look, dice: &mut Dice) -> Result<Read, StoreFault> {
    let (table, key) = some_key(dice);
    let feed = key::feed(&FeedId::User(user(dice.roll(4))));
    Ok(match dice.roll(4) {
        0 | 1 => {
            let value = look.get(table, &key)?;
            Read::Get(table, key, value)
        }
        2 => {
            let (table, from, to) = match table {
                Table::Entries | Table::Marks => (Table::Entries, feed.clone(), key::after(&feed)),
                other => (other, Vec::new(), vec![0xff; 40]),
            };
            let limit = dice.roll(5) as usize + 1;
            let rows = look.scan(table, &from, &to, limit)?;
            Read::Scan(table, from, to, limit, rows)
        }
        _ => {
            let to = key::after(&feed);
            let row = look.last(Table::Entries, &feed, &to)?;
            Read::Last(Table::Entries, feed, to, row)
        }
    })
}

/// On a view of its own, or on what is left of the one that others got in the way of.
fn some_transaction(
    store: &RedisStore,
    dice: &mut Dice,
    kept: Option<Box<dyn View>>,
    tries: u32,
) -> Result<Done, Refused> {
    let view = kept.unwrap_or_else(|| Box::new(store.look()));
    let look = view
        .as_any()
        .and_then(|view| view.downcast_ref::<Look>())
        .unwrap();
    let mut reads = Vec::new();
    for _ in 0..=dice.roll(4) {
        reads.push(some_read(look, dice)?);
    }
    let (mut batch, mut writes) = (Batch::default(), BTreeMap::new());
    for _ in 0..=dice.roll(3) {
        let (table, key) = some_key(dice);
        // Whatever is written is read before: so the stamps tell the order.
        let value = look.get(table, &key)?;
        reads.push(Read::Get(table, key.clone(), value));
        let value = (dice.roll(3) > 0).then(|| dice.roll(1 << 30).to_be_bytes().to_vec());
        writes.insert((table as usize, key.clone()), (table, key, value));
    }
    let writes: Vec<_> = writes.into_values().collect();
    for (table, key, value) in &writes {
        match value {
            Some(value) => batch.put(*table, key.clone(), value.clone()),
            None => batch.remove(*table, key.clone()),
        }
    }
    let changed: Vec<_> = writes
        .iter()
        .filter(|(table, key, value)| value.is_some() || !look.knows_absent(*table, key))
        .map(|(table, key, _)| owners::owner_of(*table, key))
        .collect();
    let stamps = look
        .stamps()
        .iter()
        .map(|(owner, stamp)| (*owner, *stamp, changed.contains(owner)))
        .collect();
    if store.trial().dawdles.load(Ordering::SeqCst) {
        std::thread::park_timeout(Duration::from_millis(3));
    }
    let with = With {
        sync: true,
        tries: Some(tries),
        ..With::default()
    };
    store.commit_on(view, &batch, &with)?;
    Ok(Done {
        reads,
        writes,
        stamps,
    })
}

/// An order in which each transaction read what the one before it left. Panics where there is none.
fn in_order(done: Vec<Done>) -> Vec<Done> {
    let mut makes: HashMap<(Owner, u32), usize> = HashMap::new();
    let mut reads: HashMap<(Owner, u32), Vec<usize>> = HashMap::new();
    for (at, one) in done.iter().enumerate() {
        for (owner, stamp, changes) in &one.stamps {
            reads.entry((*owner, *stamp)).or_default().push(at);
            if *changes {
                let other = makes.insert((*owner, stamp + 1), at);
                assert!(other.is_none(), "two changed {owner:?} from {stamp}");
            }
        }
    }
    let mut after: Vec<Vec<usize>> = done.iter().map(|_| Vec::new()).collect();
    let mut waits = vec![0; done.len()];
    let mut edge = |before: usize, later: usize| {
        if before != later {
            after[before].push(later);
            waits[later] += 1;
        }
    };
    for ((owner, stamp), readers) in &reads {
        for reader in readers {
            if let Some(writer) = makes.get(&(*owner, *stamp)) {
                edge(*writer, *reader);
            }
            if let Some(next) = makes.get(&(*owner, stamp + 1)) {
                edge(*reader, *next);
            }
        }
    }
    let mut ready: Vec<usize> = (0..done.len()).filter(|at| waits[*at] == 0).collect();
    let mut order = Vec::new();
    while let Some(at) = ready.pop() {
        order.push(at);
        for &later in &after[at] {
            waits[later] -= 1;
            if waits[later] == 0 {
                ready.push(later);
            }
        }
    }
    assert_eq!(
        order.len(),
        done.len(),
        "there is no order: transactions saw one another's work in a circle"
    );
    let mut done: Vec<_> = done.into_iter().map(Some).collect();
    order.into_iter().filter_map(|at| done[at].take()).collect()
}

type Model = BTreeMap<(usize, Vec<u8>), Vec<u8>>;

fn judge(read: &Read, model: &Model) {
    let of = |table: Table, from: &[u8], to: &[u8]| -> Vec<Row> {
        let range = model.range((table as usize, from.to_vec())..(table as usize, to.to_vec()));
        range
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect()
    };
    match read {
        Read::Get(table, key, value) => {
            assert_eq!(
                model.get(&(*table as usize, key.clone())),
                value.as_ref(),
                "{read:?}"
            );
        }
        Read::Scan(table, from, to, limit, rows) => {
            let all = of(*table, from, to);
            if owners::owner_of_range(*table, from, to).is_some() {
                assert_eq!(rows[..], all[..all.len().min(*limit)], "{read:?}");
            } else {
                // There may be others; what it found is there.
                assert!(rows.iter().all(|row| all.contains(row)), "{read:?}");
            }
        }
        Read::Last(table, from, to, row) => assert_eq!(of(*table, from, to).last(), row.as_ref(), "{read:?}"),
    }
}

/// So many transactions of each of these nodes at once, judged.
fn trial_of_nodes(runtime: &Runtime, stores: &[RedisStore], count: usize) {
    let mut done = Vec::new();
    let (mut conflicts, mut went_on) = (0, 0);
    std::thread::scope(|scope| {
        let nodes: Vec<_> = stores
            .iter()
            .enumerate()
            .map(|(n, store)| {
                scope.spawn(move || {
                    let (mut dice, mut done) = (Dice(n as u64), Vec::new());
                    let (mut conflicts, mut went_on) = (0, 0);
                    // Of every other node all is kept at once, as if its transactions were large.
                    let first = 2 * (n as u32 % 2);
                    let (mut tries, mut kept) = (first, None);
                    while done.len() < count {
                        let before = Dice(dice.0);
                        match some_transaction(store, &mut dice, kept.take(), tries) {
                            Ok(one) => {
                                done.push(one);
                                tries = first;
                            }
                            Err(refused) if matches!(refused.fault, StoreFault::Conflict) => {
                                (dice, kept) = (before, refused.kept);
                                (tries, conflicts) = (tries + 1, conflicts + 1);
                                went_on += usize::from(kept.is_some());
                            }
                            Err(refused) => panic!("{}", refused.fault),
                        }
                    }
                    (done, conflicts, went_on)
                })
            })
            .collect();
        for node in nodes {
            let (of_node, of_its, of_them) = node.join().unwrap();
            done.extend(of_node);
            conflicts += of_its;
            went_on += of_them;
        }
    });
    assert!(conflicts > 0, "the nodes did not get in each other's way");
    assert!(went_on > 0, "nothing was kept for anybody");
    let mut model = Model::new();
    for one in in_order(done) {
        one.reads.iter().for_each(|read| judge(read, &model));
        for (table, key, value) in one.writes {
            match value {
                Some(value) => model.insert((table as usize, key), value),
                None => model.remove(&(table as usize, key)),
            };
        }
    }
    assert_eq!(all_rows(&stores[0]), model);
    assert_eq!(stores[0].finish_abandoned(&every_cell()).unwrap(), 0);
    close(runtime, stores);
}

#[test]
fn several_nodes_are_as_one_after_the_other() {
    if !has_redis("redis::store") {
        return;
    }
    let (server, runtime) = (Server::start(), runtime());
    let stores: Vec<_> = (0..4).map(|_| open(&runtime, &server.url())).collect();
    for store in &stores[..2] {
        store.trial().in_two_phases.store(true, Ordering::SeqCst);
    }
    trial_of_nodes(&runtime, &stores, 150);
}

/// The judge of those trials judges: it convicts a library that leaves out one of the checks.
#[test]
fn a_library_that_checks_less_is_found_out() {
    if !has_redis("redis::store") {
        return;
    }
    let less = [
        ("if stamp ~= want[i] then return false end", ""),
        (
            "local function check(keys, args)",
            "local function check() return {'same'} end local function unused(keys, args)",
        ),
        ("if #others > 0 then return", "if false then return"),
    ];
    for (part, instead) in less {
        let library = LIBRARY.replace(part, instead);
        assert_ne!(library, LIBRARY);
        // What it lets through needs two nodes at the same moment, which no single trial is sure to have.
        let is_found_out = (0..MOST_TRIALS).any(|_| !is_as_one_with(&library));
        assert!(is_found_out, "not found out: {part}");
    }
}

/// Trials of a library that checks less.
const MOST_TRIALS: usize = 8;

/// Whether a trial with this library finds nothing.
fn is_as_one_with(library: &str) -> bool {
    let (server, runtime) = (Server::start(), runtime());
    let stores: Vec<_> = (0..4).map(|_| open(&runtime, &server.url())).collect();
    let mut load = redis::cmd("FUNCTION");
    server.ask(load.arg("LOAD").arg("REPLACE").arg(library));
    for store in &stores {
        store.trial().in_two_phases.store(true, Ordering::SeqCst);
        // What it lets through has to happen between reading and writing, which on an idle machine is a shorter time than
        // others take to write.
        store.trial().dawdles.store(true, Ordering::SeqCst);
    }
    let judged = std::thread::spawn(move || trial_of_nodes(&runtime, &stores, 150));
    judged.join().is_ok()
}

#[test]
fn several_nodes_on_a_cluster_are_as_one_after_the_other() {
    if !has_redis("redis::store on a Cluster") {
        return;
    }
    let (cluster, runtime) = (Cluster::start(), runtime());
    let stores: Vec<_> = (0..4).map(|_| open(&runtime, &cluster.url())).collect();
    trial_of_nodes(&runtime, &stores, 100);
}

/// A node ends after each of its steps in turn; another finds all of its commit or nothing.
fn trial_of_ends(runtime: &Runtime, url: &RedisUrl) {
    let keys: Vec<_> = (0..4).map(|n| key::user(&user(n))).collect();
    let witness = open(runtime, url);
    put(
        &witness,
        &keys
            .iter()
            .map(|key| (Table::States, key.clone(), &b"0"[..]))
            .collect::<Vec<_>>(),
    );
    let (mut whole, mut story) = ((0, 0), Vec::new());
    for steps in 0.. {
        let node = open(runtime, url);
        node.trial().in_two_phases.store(true, Ordering::SeqCst);
        let look = node.look();
        let read: Vec<_> = keys
            .iter()
            .map(|key| look.get(Table::States, key).unwrap())
            .collect();
        // Only read, so that there is something to check after the locks.
        look.get(Table::States, &key::user(&user(9))).unwrap();
        let mut batch = Batch::default();
        let value = format!("after {steps}").into_bytes();
        keys.iter()
            .for_each(|key| batch.put(Table::States, key.clone(), value.clone()));
        node.trial().steps.store(steps, Ordering::SeqCst);
        let outcome = commit(&node, look, &batch);
        let found = all_of(&witness, &keys);
        let is_new = found.iter().all(|found| found.as_ref() == Some(&value));
        assert!(
            is_new || found == read,
            "half of it after {steps} steps: {found:?}"
        );
        assert!(
            is_new || outcome.is_err(),
            "what was answered is lost after {steps} steps"
        );
        whole = (whole.0 + u32::from(is_new), whole.1 + u32::from(!is_new));
        story.push((steps, is_new, format!("{outcome:?}")));
        // Whoever comes next is not held up.
        let look = witness.look();
        let mut batch = Batch::default();
        for key in &keys {
            look.get(Table::States, key).unwrap();
            batch.put(Table::States, key.clone(), format!("next {steps}").into_bytes());
        }
        commit(&witness, look, &batch).unwrap();
        close(runtime, &[node]);
        if outcome.is_ok() {
            break;
        }
    }
    // Both happened: ends before and after the moment of the commit.
    assert!(whole.0 >= 3 && whole.1 >= 5, "{story:?}");
    witness.finish_abandoned(&every_cell()).unwrap();
    assert_eq!(witness.finish_abandoned(&every_cell()).unwrap(), 0);
    assert_eq!(left_behind(runtime, &witness), 0);
    close(runtime, &[witness]);
}

/// What a look finds under these keys, once it is let.
fn all_of(store: &RedisStore, keys: &[Vec<u8>]) -> Vec<Option<Vec<u8>>> {
    let wanted: Vec<_> = keys
        .iter()
        .map(|key| Wanted::Get(Table::States, key.clone()))
        .collect();
    for _ in 0..100 {
        let look = store.look();
        let read = || -> Result<Vec<_>, StoreFault> {
            look.prefetch(&wanted)?;
            look.is_whole()?;
            keys.iter().map(|key| look.get(Table::States, key)).collect()
        };
        match read() {
            Ok(found) => return found,
            Err(StoreFault::Conflict) => {}
            Err(fault) => panic!("{fault}"),
        }
    }
    panic!("the rows are held by somebody who went away");
}

/// Locks and what was left to be written.
fn left_behind(runtime: &Runtime, store: &RedisStore) -> i64 {
    let mut count = 0;
    for cell in Cell::all() {
        for name in ["locks", "writes"] {
            let mut command = redis::cmd("HLEN");
            command.arg(cell.key(name));
            match runtime.block_on(store.links().command(cell, command)).unwrap() {
                Value::Int(length) => count += length,
                other => panic!("{other:?}"),
            }
        }
    }
    count
}

#[test]
fn a_node_that_goes_away_leaves_nothing_half_done() {
    if !has_redis("redis::store") {
        return;
    }
    let (server, runtime) = (Server::start(), runtime());
    trial_of_ends(&runtime, &server.url());
}

#[test]
fn a_node_that_goes_away_leaves_nothing_half_done_on_a_cluster() {
    if !has_redis("redis::store on a Cluster") {
        return;
    }
    let (cluster, runtime) = (Cluster::start(), runtime());
    trial_of_ends(&runtime, &cluster.url());
}
