//! Large transactions beside small ones, on a real server: they get through, and nobody waits for one that never comes.

#![allow(
    clippy::disallowed_methods,
    reason = "tests of several nodes run them on threads of their own"
)]

use super::store::RedisStore;
use super::store_tests::{close, open, runtime};
use super::testing::{Server, has_redis};
use crate::embedded::codec::key;
use crate::embedded::store::{Added, Batch, Refused, Store, StoreFault, Table, View, Wanted, With};
use postrider_model::UserId;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Owners of a large transaction.
const MANY: u64 = 200;
/// No lease lasts so long, nor any stall of this machine.
const LONG: Duration = Duration::from_secs(30);

fn row(n: u64) -> Vec<u8> {
    key::user(&UserId::new(&format!("u{n}")).unwrap())
}

fn users(count: u64) -> impl Iterator<Item = Vec<u8>> {
    (0..count).map(row)
}

/// Adds one to what each of these users has, on this view.
fn count_up(
    store: &RedisStore,
    view: Option<Box<dyn View>>,
    rows: impl Iterator<Item = Vec<u8>>,
    tries: Option<u32>,
) -> Result<(), Refused> {
    let view = view.unwrap_or_else(|| Box::new(store.look()));
    let rows: Vec<_> = rows.collect();
    let wanted: Vec<_> = rows
        .iter()
        .map(|row| Wanted::Get(Table::States, row.clone()))
        .collect();
    view.prefetch(&wanted)?;
    let mut batch = Batch::default();
    for row in rows {
        let before = view.get(Table::States, &row)?.map_or(0, |value| number(&value));
        batch.put(Table::States, row, (before + 1).to_be_bytes().to_vec());
    }
    let with = With {
        sync: true,
        tries,
        ..With::default()
    };
    store.commit_on(view, &batch, &with)
}

fn number(value: &[u8]) -> u64 {
    u64::from_be_bytes(value.try_into().unwrap())
}

/// Until it is done; how often it was tried.
fn count_up_at_last(store: &RedisStore, count: u64) -> u32 {
    let (mut tries, mut view) = (0, None);
    loop {
        match count_up(store, view, users(count), Some(tries)) {
            Ok(()) => return tries + 1,
            Err(refused) => {
                assert!(matches!(refused.fault, StoreFault::Conflict), "{}", refused.fault);
                (tries, view) = (tries + 1, refused.kept);
            }
        }
    }
}

/// A large transaction that was tried so often before, and that another node got in the way of again.
fn in_the_way(large: &RedisStore, small: &RedisStore, tries: u32) -> Refused {
    let view: Box<dyn View> = Box::new(large.look());
    let wanted: Vec<_> = users(MANY).map(|row| Wanted::Get(Table::States, row)).collect();
    view.prefetch(&wanted).unwrap();
    count_up(small, None, users(1), None).unwrap();
    count_up(large, Some(view), users(MANY), Some(tries)).unwrap_err()
}

#[test]
fn what_is_kept_for_a_node_others_do_not_write() {
    if !has_redis("redis::keep") {
        return;
    }
    let (server, runtime) = (Server::start(), runtime());
    let [large, small] = [(); 2].map(|()| open(&runtime, &server.url()));
    // Refused for the fourth time: kept for seconds, so that no stall of this machine ends it.
    let kept = in_the_way(&large, &small, 3).kept.unwrap();
    // Another part of it, and one that it has nothing to do with.
    let waits = count_up(&small, None, std::iter::once(row(7)), None).unwrap_err();
    assert!(matches!(waits.fault, StoreFault::Conflict));
    count_up(&small, None, std::iter::once(row(MANY + 1)), None).unwrap();
    count_up(&large, Some(kept), users(MANY), Some(4)).unwrap();
    let look = small.look();
    let count = |n| number(&look.get(Table::States, &row(n)).unwrap().unwrap());
    assert_eq!((count(0), count(7)), (2, 1), "nothing of either is lost");
    count_up(&small, None, std::iter::once(row(7)), None).unwrap();
    close(&runtime, &[large, small]);
}

#[test]
fn nobody_waits_for_one_that_is_not_tried_again() {
    if !has_redis("redis::keep") {
        return;
    }
    let (server, runtime) = (Server::start(), runtime());
    let [large, small] = [(); 2].map(|()| open(&runtime, &server.url()));
    // Refused for the third time: kept for seconds, so that no stall of this machine ends it.
    assert!(matches!(
        in_the_way(&large, &small, 3).fault,
        StoreFault::Conflict
    ));
    assert!(count_up(&small, None, users(2), None).is_err(), "it is kept");
    large.gives_up();
    count_up(&small, None, users(2), None).unwrap();
    close(&runtime, &[large, small]);
}

#[test]
fn nobody_waits_long_for_a_node_that_went_away() {
    if !has_redis("redis::keep") {
        return;
    }
    let (server, runtime) = (Server::start(), runtime());
    let [gone, other] = [(); 2].map(|()| open(&runtime, &server.url()));
    // Refused for the second time: kept for seconds, so that no stall of this machine ends it.
    assert!(matches!(in_the_way(&gone, &other, 1).fault, StoreFault::Conflict));
    let begun = Instant::now();
    assert!(count_up(&other, None, users(2), None).is_err(), "it is kept");
    assert!(count_up_at_last(&other, 2) <= 2);
    assert!(begun.elapsed() < LONG, "{:?}", begun.elapsed());
    close(&runtime, &[gone, other]);
}

#[test]
fn a_large_one_beside_busy_nodes_is_done_at_the_second_try() {
    if !has_redis("redis::keep") {
        return;
    }
    let (server, runtime) = (Server::start(), runtime());
    let stores: Vec<_> = (0..3).map(|_| open(&runtime, &server.url())).collect();
    let ends = AtomicBool::new(false);
    let (small, large) = std::thread::scope(|scope| {
        let busy = stores[1..].iter().enumerate().map(|(n, store)| {
            let ends = &ends;
            scope.spawn(move || {
                let (mut done, mut at) = (0, n as u64);
                while !ends.load(Ordering::SeqCst) {
                    at = (at * 31 + 17) % MANY;
                    let (mut tries, mut view) = (0, None);
                    while let Err(refused) = count_up(store, view, std::iter::once(row(at)), Some(tries)) {
                        (tries, view) = (tries + 1, refused.kept);
                    }
                    done += 1;
                }
                done
            })
        });
        let busy: Vec<_> = busy.collect();
        let tries: Vec<u32> = (0..30).map(|_| count_up_at_last(&stores[0], MANY)).collect();
        ends.store(true, Ordering::SeqCst);
        let small: u64 = busy.into_iter().map(|one| one.join().unwrap()).sum();
        assert!(tries.iter().all(|tries| *tries <= 3), "{tries:?}");
        (small, tries.len() as u64)
    });
    let look = stores[0].look();
    let all = users(MANY).map(|row| number(&look.get(Table::States, &row).unwrap().unwrap()));
    assert_eq!(
        all.sum::<u64>(),
        large * MANY + small,
        "nothing is done twice or lost"
    );
    close(&runtime, &stores);
}

#[test]
fn those_who_add_to_one_row_are_not_in_one_anothers_way() {
    if !has_redis("redis::keep") {
        return;
    }
    let (server, runtime) = (Server::start(), runtime());
    let stores = [(); 2].map(|()| open(&runtime, &server.url()));
    let topic = b"t\0x".to_vec();
    let value = |count: i64| [&[3][..], &count.to_le_bytes()].concat();
    let add = |n: usize, change| {
        let look = stores[n].look();
        look.get(Table::States, &row(n as u64)).unwrap();
        let added = [Added {
            table: Table::Topics,
            key: topic.clone(),
            none: value(0),
            change,
        }];
        (look, added)
    };
    let is_now = |count: Option<i64>| {
        let found = stores[0].look().get(Table::Topics, &topic).unwrap();
        assert_eq!(found, count.map(value));
    };
    for changes in [[1, 1], [400, -2], [-300, -101], [-1, 2], [5, -5]] {
        // Both looked before either wrote.
        let both = [add(0, changes[0]), add(1, changes[1])];
        for (store, (look, added)) in stores.iter().zip(both) {
            let with = With {
                added: &added,
                ..With::default()
            };
            let done = store.commit_on(Box::new(look), &Batch::default(), &with);
            assert!(done.is_ok());
        }
        // Below nothing it is kept, so that what comes after it is not counted twice.
        match changes {
            [1, 1] => is_now(Some(2)),
            [400, -2] => is_now(Some(400)),
            [-300, -101] => is_now(Some(-1)),
            _ => is_now(None),
        }
    }
    close(&runtime, &stores);
}
