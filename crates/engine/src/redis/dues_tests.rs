//! What is due, done by several nodes: once each, in order, though one of them dies with what it holds.

use super::engine::{RedisEngine, RedisOptions};
use super::engine_tests::options;
use super::testing::{Cluster, Server, has_redis};
use crate::contract::{Kit, Make};
use crate::{Feeds, ReadLimit};
use postrider_model::{FeedId, Millis, Timestamp, UserId};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const USERS: u64 = 40;
/// All of them fall due within a second.
const COUNT: u64 = 3_000;
/// One in so many is for two users, and so for none of the lanes.
const FOR_TWO: u64 = 200;

struct Node {
    engine: RedisEngine,
    /// Transactions that it committed.
    commits: Arc<AtomicU64>,
}

async fn open(url: super::links::RedisUrl, clock: &Arc<AtomicU64>) -> Node {
    let commits = Arc::new(AtomicU64::new(0));
    let (clock, counting) = (clock.clone(), commits.clone());
    let options = RedisOptions {
        clock: Arc::new(move || Timestamp(clock.load(Ordering::SeqCst))),
        on_commit: Box::new(move |_, _| _ = counting.fetch_add(1, Ordering::SeqCst)),
        ..options(url)
    };
    let engine = RedisEngine::open(options).await.unwrap();
    Node { engine, commits }
}

/// Waits until it is so; nothing else tells.
async fn wait_until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    #[allow(clippy::disallowed_methods, reason = "a deadline of a test")]
    let started = Instant::now();
    while !is_so().await {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "not in a minute: {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn user(n: u64) -> String {
    format!("u-{}", n % USERS)
}

async fn schedule(node: &RedisEngine) {
    let make = |n: u64| {
        let make = Make::new(format!("n-{n}")).deliver_in(Millis(1 + n * 7 % 1000));
        match n.is_multiple_of(FOR_TWO) {
            true => make.users([user(n), user(n + 1)]),
            false => make.user(&user(n)),
        }
    };
    let all: Vec<_> = (0..COUNT).map(|n| make(n).publication(Kit::BEGIN)).collect();
    for batch in all.chunks(500) {
        assert!(node.publish(batch.to_vec()).await.iter().all(Result::is_ok));
    }
}

fn feeds() -> Vec<FeedId> {
    (0..USERS)
        .map(|n| FeedId::User(UserId::new(&user(n)).unwrap()))
        .collect()
}

async fn delivered(node: &RedisEngine) -> u64 {
    let spans = node.spans(&feeds()).await.unwrap();
    spans.iter().map(|span| span.head.offset).sum()
}

/// Each id once in its feeds, in the order in which they fell due.
async fn judge(node: &RedisEngine) {
    let whole = ReadLimit {
        entries: 100_000,
        bytes: usize::MAX,
    };
    let mut places = BTreeSet::new();
    for feed in feeds() {
        let page = node.read(&feed, 0, whole).await.unwrap();
        let mut last = None;
        for entry in &page.entries {
            let notification = entry.notification().unwrap();
            assert!(
                places.insert((feed.clone(), notification.id.clone())),
                "twice in {feed}"
            );
            assert!(last <= notification.deliver_at, "out of order in {feed}");
            last = notification.deliver_at;
        }
    }
    assert_eq!(places.len() as u64, COUNT + COUNT / FOR_TWO);
}

async fn trial(url: super::links::RedisUrl) {
    let clock = Arc::new(AtomicU64::new(Kit::BEGIN.0));
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(open(url.clone(), &clock).await);
    }
    let shares = || nodes.iter().map(|node| node.engine.share());
    wait_until("each has its part, and one of them the house", async || {
        let shares: Vec<_> = shares().collect();
        let houses = shares.iter().filter(|share| share.keeps_house()).count();
        houses == 1 && shares.iter().all(|share| (21..=22).contains(&share.len()))
    })
    .await;
    schedule(&nodes[0].engine).await;
    assert_eq!(delivered(&nodes[0].engine).await, 0);
    for node in &nodes {
        node.commits.store(0, Ordering::SeqCst);
    }
    clock.fetch_add(1_001, Ordering::SeqCst);
    // The one that keeps house, in the middle of it; where a stall has ended all leases, whoever has them first.
    let mut keeper = None;
    wait_until("one keeps house", async || {
        keeper = nodes.iter().position(|node| node.engine.share().keeps_house());
        keeper.is_some()
    })
    .await;
    let dead = nodes.swap_remove(keeper.unwrap());
    let rest = nodes;
    wait_until("it has begun", async || {
        delivered(&rest[0].engine).await > COUNT / 20
    })
    .await;
    dead.engine.die().await;
    let all = COUNT + COUNT / FOR_TWO;
    wait_until("all of it is done", async || {
        delivered(&rest[0].engine).await >= all
    })
    .await;
    judge(&rest[1].engine).await;
    let done = rest.iter().map(|node| node.commits.load(Ordering::SeqCst));
    assert!(
        done.clone().all(|done| done >= 3),
        "one did nothing: {:?}",
        done.collect::<Vec<_>>()
    );
    wait_until("the others have its part", async || {
        rest.iter().all(|node| node.engine.share().len() == 32)
    })
    .await;
    for node in rest {
        node.engine.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_due_is_done_once_and_in_order_though_a_node_dies() {
    if !has_redis("redis::dues") {
        return;
    }
    let server = Server::start();
    trial(server.url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_due_is_done_once_and_in_order_on_a_cluster_though_a_node_dies() {
    if !has_redis("redis::dues on a Cluster") {
        return;
    }
    let cluster = tokio::task::block_in_place(Cluster::start);
    trial(cluster.url()).await;
}

/// One node alone, and what becomes due sooner than any other looks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_becomes_due_soon_is_done_by_whoever_put_it() {
    if !has_redis("redis::dues") {
        return;
    }
    let server = Server::start();
    let clock = Arc::new(AtomicU64::new(Kit::BEGIN.0));
    let keeper = open(server.url(), &clock).await;
    wait_until("it has all", async || keeper.engine.share().keeps_house()).await;
    let other = open(server.url(), &clock).await;
    // Whatever the first holds it never does: it cannot reach Redis any more, and its lease lasts two seconds yet.
    keeper.engine.die().await;
    let soon = Make::new("soon").deliver_in(Millis(10)).user(&user(0));
    let published = other.engine.publish(vec![soon.publication(Kit::BEGIN)]).await;
    assert!(published[0].is_ok());
    clock.fetch_add(10, Ordering::SeqCst);
    wait_until("it is done", async || delivered(&other.engine).await == 1).await;
    other.engine.close().await;
}

/// It has no lane, so that nothing that is due after it is done before it, by any node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_due_for_many_is_done_beside_nodes_that_publish_to_them() {
    const MANY: usize = 400;
    if !has_redis("redis::dues") {
        return;
    }
    let server = Server::start();
    let clock = Arc::new(AtomicU64::new(Kit::BEGIN.0));
    let keeper = open(server.url(), &clock).await;
    wait_until("it has all", async || keeper.engine.share().keeps_house()).await;
    let busy = open(server.url(), &clock).await;
    let names: Vec<_> = (0..MANY).map(|n| format!("m-{n}")).collect();
    let wide = Make::new("wide").users(&names).deliver_in(Millis(5_000));
    let published = keeper.engine.publish(vec![wide.publication(Kit::BEGIN)]).await;
    assert!(published[0].is_ok());
    let ends = AtomicBool::new(false);
    let publishes = async {
        for round in 0.. {
            let some = names.iter().skip(round * 7 % MANY).step_by(29);
            let some = some.map(|name| {
                Make::new(format!("{round}-{name}"))
                    .user(name)
                    .publication(Kit::BEGIN)
            });
            let done = busy.engine.publish(some.collect()).await;
            assert!(done.iter().all(Result::is_ok));
            if ends.load(Ordering::SeqCst) {
                break;
            }
        }
    };
    let falls_due = async {
        clock.fetch_add(5_000, Ordering::SeqCst);
        let feed = FeedId::User(UserId::new("m-0").unwrap());
        let whole = ReadLimit {
            entries: 100_000,
            bytes: usize::MAX,
        };
        wait_until("it is done", async || {
            let page = keeper.engine.read(&feed, 0, whole).await.unwrap();
            let mut all = page.entries.iter().filter_map(|entry| entry.notification());
            all.any(|one| one.id.as_str() == "wide")
        })
        .await;
        ends.store(true, Ordering::SeqCst);
    };
    tokio::join!(publishes, falls_due);
    busy.engine.close().await;
    keeper.engine.close().await;
}

/// The figure of docs/operate/redis.md.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_nodes_ask_next_to_nothing() {
    const SECONDS: u64 = 5;
    if !has_redis("redis::dues") {
        return;
    }
    let server = Server::start();
    let clock = Arc::new(AtomicU64::new(Kit::BEGIN.0));
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(open(server.url(), &clock).await);
    }
    let shares = || nodes.iter().map(|node| node.engine.share().len());
    wait_until("each has its part", async || shares().all(|lanes| lanes >= 21)).await;
    let commands = || {
        nodes
            .iter()
            .map(|node| node.engine.links().unwrap().state().commands)
            .sum::<u64>()
    };
    #[allow(clippy::disallowed_methods, reason = "what is measured is a rate")]
    let (before, begun) = (commands(), Instant::now());
    tokio::time::sleep(Duration::from_secs(SECONDS)).await;
    let each = (commands() - before) as f64 / (begun.elapsed().as_secs_f64() * 3.0);
    println!("{each:.1} commands of an idle node in a second");
    assert!(each < 12.0, "{each:.1}");
    for node in nodes {
        node.engine.close().await;
    }
}
