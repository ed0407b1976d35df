//! The engine over real servers that the tests start, beside the contract on each kind of Redis, which is a test binary
//! of its own: several nodes at once, round trips, and what a node does when Redis or another node goes away.

use super::engine::{RedisEngine, RedisOptions};
use super::links::{Durability, RedisUrl, TlsOptions};
use super::testing::{Cluster, Server, has_redis, wait_until};
use super::together_tests::together;
use crate::contract::{Kit, Make};
use crate::{
    EngineError, Feeds, Inboxes, PageWanted, ReadLimit, Rules, StartsWanted, States as _, Wake, Wakes as _,
};
use postrider_model::{FeedId, Millis, StateChange, Timestamp, UserId};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long is waited for what has no time of its own.
const PATIENCE: Duration = Duration::from_secs(60);

/// A Redis of the test's own.
pub(super) enum Servers {
    Single(Server),
    Cluster(Cluster),
}

impl Servers {
    pub fn url(&self) -> RedisUrl {
        match self {
            Servers::Single(server) => server.url(),
            Servers::Cluster(cluster) => cluster.url(),
        }
    }

    /// Kills it and starts it again over its files.
    fn restart(&mut self) {
        match self {
            Servers::Single(server) => server.restart(),
            Servers::Cluster(cluster) => {
                cluster.masters.iter_mut().for_each(Server::restart);
                wait_until("the Cluster is up again", || {
                    let up = |master: &Server| {
                        format!("{:?}", master.ask_line("CLUSTER INFO")).contains("cluster_state:ok")
                    };
                    cluster.masters.iter().all(up)
                });
            }
        }
    }
}

/// Defaults, and the time of the wall.
pub(super) fn options(url: RedisUrl) -> RedisOptions {
    RedisOptions {
        url,
        tls: TlsOptions::default(),
        timeout: Duration::from_secs(5),
        durability: Durability::None,
        patience: Duration::from_secs(10),
        rules: Rules::default(),
        clock: Arc::new(|| Timestamp(1_700_000_000_000)),
        on_commit: Box::new(|_, _| {}),
    }
}

/// Three nodes at work while one of them vanishes in the middle, as by a kill, and Redis is killed and started again.
async fn together_on(mut servers: Servers) {
    let mut nodes = Vec::new();
    for _ in 0..3 {
        let commits = Arc::new(AtomicU64::new(0));
        let counter = commits.clone();
        let options = RedisOptions {
            on_commit: Box::new(move |_, _| {
                counter.fetch_add(1, Ordering::SeqCst);
            }),
            ..options(servers.url())
        };
        nodes.push((Arc::new(RedisEngine::open(options).await.unwrap()), commits));
    }
    let engines: Vec<_> = nodes.iter().map(|(node, _)| node.clone()).collect();
    let all = || {
        nodes
            .iter()
            .map(|(_, commits)| commits.load(Ordering::SeqCst))
            .sum::<u64>()
    };
    let reached = async |count| {
        while all() < count {
            tokio::task::yield_now().await;
        }
    };
    together(engines, 60, || async {
        reached(30).await;
        // Nothing that it does reaches Redis any more.
        nodes[2].0.links().unwrap().close().await;
        reached(60).await;
        tokio::task::block_in_place(|| servers.restart());
        Some(2)
    })
    .await;
    nodes[2].0.shared().give_up();
    for (node, _) in &nodes {
        node.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nodes_do_everything_at_once_on_a_single_server() {
    if has_redis("three nodes on a single server") {
        together_on(Servers::Single(Server::start())).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nodes_do_everything_at_once_on_a_cluster() {
    if has_redis("three nodes on a Cluster") {
        together_on(Servers::Cluster(Cluster::start())).await;
    }
}

/// Two nodes with one clock, of which the first keeps house.
async fn two_nodes(server: &Server, clock: &Arc<AtomicU64>) -> [Arc<RedisEngine>; 2] {
    let open = async || {
        let clock = clock.clone();
        let options = RedisOptions {
            clock: Arc::new(move || Timestamp(clock.load(Ordering::SeqCst))),
            ..options(server.url())
        };
        Arc::new(RedisEngine::open(options).await.unwrap())
    };
    [open().await, open().await]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_node_does_what_is_due_when_one_dies() {
    if !has_redis("taking over what is due") {
        return;
    }
    let (server, clock) = (Server::start(), Arc::new(AtomicU64::new(Kit::BEGIN.0)));
    let [first, second] = two_nodes(&server, &clock).await;
    let feed = FeedId::User(UserId::new("ada").unwrap());
    for (id, delay) in [("by-the-first", 1000), ("by-the-second", 2000)] {
        let make = Make::new(id).user("ada").deliver_in(Millis(delay));
        let receipts = first.publish(vec![make.publication(Kit::BEGIN)]).await;
        assert!(receipts[0].is_ok(), "{receipts:?}");
    }
    let delivered = async |count| {
        let due = tokio::time::timeout(PATIENCE, async {
            while second.spans(std::slice::from_ref(&feed)).await.unwrap()[0]
                .head
                .offset
                < count
            {
                tokio::task::yield_now().await;
            }
        });
        due.await.expect("what is due is done without being asked for");
    };
    clock.fetch_add(1000, Ordering::SeqCst);
    delivered(1).await;
    first.links().unwrap().close().await;
    clock.fetch_add(1000, Ordering::SeqCst);
    delivered(2).await;
    first.shared().give_up();
    first.close().await;
    second.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opening_a_session_and_reading_a_page_are_few_round_trips() {
    if !has_redis("counting round trips") {
        return;
    }
    let (server, clock) = (Server::start(), Arc::new(AtomicU64::new(Kit::BEGIN.0)));
    let [node, _other] = two_nodes(&server, &clock).await;
    let user = UserId::new("ada").unwrap();
    let own = FeedId::User(user.clone());
    let many = (0..50).map(|n| Make::new(format!("n-{n}")).users(["ada", "bob"]));
    let receipts = node
        .publish(many.map(|make| make.publication(Kit::BEGIN)).collect())
        .await;
    assert!(receipts.iter().all(Result::is_ok));
    let wanted = StartsWanted {
        user: user.clone(),
        places: vec![(own.clone(), None), (FeedId::All, None)],
        cursor: None,
        state: true,
    };
    let page = PageWanted {
        user,
        feed: own,
        member: false,
        after: 0,
        limit: ReadLimit {
            entries: 100,
            bytes: 1 << 20,
        },
    };
    let alone = UserId::new("cy").unwrap();
    let many = (0..50).map(|n| Make::new(format!("o-{n}")).users(["cy"]));
    let receipts = node
        .publish(many.map(|make| make.publication(Kit::BEGIN)).collect())
        .await;
    assert!(receipts.iter().all(Result::is_ok));
    let page_alone = PageWanted {
        feed: FeedId::User(alone.clone()),
        user: alone,
        ..page.clone()
    };
    let trips = || node.links().unwrap().state().round_trips;
    // The lease, and what is due, go over the same connection now and then: the least is what it takes.
    let (mut opening, mut reading, mut reading_alone) = (u64::MAX, u64::MAX, u64::MAX);
    for _ in 0..50 {
        let before = trips();
        node.starts(std::slice::from_ref(&wanted))
            .await
            .remove(0)
            .unwrap();
        let between = trips();
        let read = node
            .pages(std::slice::from_ref(&page), Kit::BEGIN)
            .await
            .remove(0)
            .unwrap();
        assert_eq!(read.entries.len(), 50);
        opening = opening.min(between - before);
        reading = reading.min(trips() - between);
        let between = trips();
        let read = node.pages(std::slice::from_ref(&page_alone), Kit::BEGIN).await;
        assert_eq!(read[0].as_ref().unwrap().entries.len(), 50);
        reading_alone = reading_alone.min(trips() - between);
    }
    println!(
        "opening a session: {opening} round trips; a page: {reading}, of what is one's alone: {reading_alone}"
    );
    assert!(opening <= 2 && reading <= 2, "{opening} and {reading}");
    assert_eq!(reading_alone, 1);
    node.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_there_before_is_answered_only_once_it_has_its_copies() {
    if !has_redis("copies of what is repeated") {
        return;
    }
    let server = Server::start();
    let open = async |durability| {
        let options = RedisOptions {
            durability,
            ..options(server.url())
        };
        RedisEngine::open(options).await.unwrap()
    };
    let publication = || vec![Make::new("n-1").user("ada").publication(Kit::BEGIN)];
    let careless = open(Durability::None).await;
    assert!(careless.publish(publication()).await[0].is_ok());
    let again = careless.publish(publication()).await;
    assert!(
        again[0].as_ref().is_ok_and(|receipt| receipt.repeated),
        "{again:?}"
    );
    // There is no replica: what only this server has may be lost with it.
    let careful = open(Durability::Replicas(1)).await;
    let again = careful.publish(publication()).await;
    assert!(matches!(&again[0], Err(EngineError::Store(_))), "{again:?}");
    let synced = open(Durability::Aof).await;
    assert!(synced.publish(publication()).await[0].is_ok());
    for node in [careless, careful, synced] {
        node.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_asks_nothing_sees_that_its_server_is_another() {
    if !has_redis("a server that started anew") {
        return;
    }
    let mut server = Server::start();
    let node = RedisEngine::open(options(server.url())).await.unwrap();
    let (missed, mut heard) = tokio::sync::mpsc::channel(2048);
    node.listen(Box::new(move |wake| {
        if matches!(wake, Wake::Missed) && missed.try_send(()).is_err() {
            println!("told after the test");
        }
    }));
    assert!(heard.try_recv().is_err(), "nothing happened yet");
    // It follows no feed, so no subscription is lost.
    tokio::task::block_in_place(|| server.restart());
    let told = tokio::time::timeout(PATIENCE, heard.recv()).await;
    assert!(told.is_ok_and(|told| told.is_some()), "nobody was told");
    node.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_went_back_is_what_a_look_after_the_news_finds() {
    if !has_redis("a state that went back") {
        return;
    }
    let mut server = Server::start_with(&[]);
    let node = RedisEngine::open(options(server.url())).await.unwrap();
    let ada = UserId::new("ada").unwrap();
    let set = async |theme: &str| {
        let change = StateChange::Merge(vec![("theme".to_owned(), Some(theme.to_owned()))]);
        node.change_state(&ada, change).await.unwrap().unwrap()
    };
    let held = set("held").await;
    assert_eq!(server.ask_line("SAVE"), redis::Value::Okay);
    let lost = set("lost").await;
    let (missed, mut heard) = tokio::sync::mpsc::channel(2048);
    node.listen(Box::new(move |wake| {
        if matches!(wake, Wake::Missed) && missed.try_send(()).is_err() {
            println!("told after the test");
        }
    }));
    tokio::task::block_in_place(|| server.restart());
    let told = tokio::time::timeout(PATIENCE, heard.recv()).await;
    assert!(told.is_ok_and(|told| told.is_some()), "nobody was told");
    assert_eq!(node.state(&ada).await.unwrap(), held);
    assert!(held.version() < lost.version());
    node.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_for_many_takes_few_round_trips() {
    const MANY: usize = 600;
    if !has_redis("round trips of what is for many") {
        return;
    }
    let (server, clock) = (Server::start(), Arc::new(AtomicU64::new(Kit::BEGIN.0)));
    let [node, _other] = two_nodes(&server, &clock).await;
    let users: Vec<String> = (0..MANY).map(|n| format!("user-{n}")).collect();
    let make = |id| Make::new(id).users(users.iter().map(String::as_str));
    let later = make("later").deliver_in(Millis(1000));
    let batch = [make("now"), later].map(|make| make.publication(Kit::BEGIN));
    assert!(node.publish(batch.into()).await.iter().all(Result::is_ok));
    let trips = || node.links().unwrap().state().round_trips;
    let before = trips();
    let now = postrider_model::NotificationId::new("now").unwrap();
    assert_eq!(node.cancel(&now).await.unwrap(), Some(Some(MANY as u64)));
    let cancelling = trips() - before;
    clock.fetch_add(1000, Ordering::SeqCst);
    let before = trips();
    node.tick().await.unwrap();
    let delivering = trips() - before;
    let last = FeedId::User(UserId::new("user-599").unwrap());
    assert_eq!(
        node.spans(&[last]).await.unwrap()[0].head.offset,
        3,
        "sent, taken back, delivered"
    );
    let before = trips();
    clock.fetch_add(Rules::default().age.0 + 10_000, Ordering::SeqCst);
    node.tick().await.unwrap();
    let forgetting = trips() - before;
    println!(
        "{MANY} users: {cancelling} round trips to cancel, {delivering} to deliver, {forgetting} to forget"
    );
    // A few for each of those who keep house meanwhile, too.
    let few = (MANY / 6) as u64;
    assert!(cancelling < few && delivering < few && forgetting < few);
    node.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_has_sessions_look_once_in_a_while() {
    if !has_redis("news that cannot be read") {
        return;
    }
    let server = Server::start();
    let node = RedisEngine::open(options(server.url())).await.unwrap();
    let (missed, mut heard) = tokio::sync::mpsc::channel(2048);
    node.listen(Box::new(move |wake| {
        if matches!(wake, Wake::Missed) {
            missed.try_send(()).unwrap_or(());
        }
    }));
    for _ in 0..1000 {
        node.shared().heard(b"of another version");
    }
    let mut told = 0;
    while heard.try_recv().is_ok() {
        told += 1;
    }
    assert!((1..=5).contains(&told), "{told} times");
    assert_eq!(node.counters().unreadable, 1000);
    // What came after the first may be what was missed.
    let again = tokio::time::timeout(PATIENCE, heard.recv()).await;
    assert!(told > 1 || again.is_ok(), "nobody was told of the last");
    node.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_taken_in_is_finished_though_the_readers_are_busy() {
    if !has_redis("closing with busy readers") {
        return;
    }
    let server = Server::start();
    let node = RedisEngine::open(options(server.url())).await.unwrap();
    let (open, gate) = std::sync::mpsc::sync_channel::<()>(1);
    let gate = Arc::new(Mutex::new(gate));
    let blocked = || {
        let gate = gate.clone();
        let wait = move || assert!(gate.lock().unwrap().recv().is_err());
        node.shared().readers().start_work(wait)
    };
    while blocked().is_ok() {}
    let finished = tokio::time::timeout(PATIENCE, node.finish_writing()).await;
    assert!(matches!(finished, Ok(Ok(()))), "{finished:?}");
    drop(open);
    node.close().await;
}
