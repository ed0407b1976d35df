//! Several nodes over the store in memory that is as strict as the one in Redis: the contract, the model, and all of
//! them at once.

use super::engine::RedisEngine;
use super::optimistic::{Common, Node};
use super::together_tests::together;
use super::wakes::Way;
use crate::contract::{Instance, Make, Subject, run, settlement};
use crate::embedded::codec::key;
use crate::embedded::model_test::{cases, live_over, steps};
use crate::embedded::news::transient;
use crate::embedded::store::Table;
use crate::{
    Directory as _, EmbeddedOptions, Engine, EngineError, Feeds as _, Inboxes as _, PageWanted, ReadLimit,
    Rules, Settlements as _, StartsWanted, Sync, Users as _,
};
use async_trait::async_trait;
use postrider_model::{
    FeedId, Millis, NotificationId, Publication, SettleKind, SettleTarget, Timestamp, UserId,
};
use proptest::prelude::*;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// All nodes hear everything.
struct Loud(Arc<Common>);

#[async_trait]
impl Way for Loud {
    fn follow(&self, _: &FeedId) {}
    fn unfollow(&self, _: &FeedId) {}
    fn followed(&self) -> usize {
        0
    }
    async fn is_heard(&self, _: &[FeedId]) -> Result<(), EngineError> {
        Ok(())
    }
    fn transmit(&self, publication: Publication) {
        let feeds = publication.feeds.iter();
        let news = feeds.map(|feed| transient(feed, &publication.notification));
        self.0.tell(&news.collect::<Vec<_>>());
    }
}

/// Nodes that share one store, and take turns at being asked.
struct Nodes {
    common: Arc<Common>,
    clock: Arc<AtomicU64>,
    rules: Rules,
    nodes: Vec<Arc<RedisEngine>>,
    /// Which of them cannot reach the store any more.
    dead: [Arc<AtomicBool>; 3],
    next: AtomicUsize,
}

impl Nodes {
    fn open(count: usize, now: Timestamp, rules: Rules) -> Nodes {
        let mut nodes = Nodes {
            common: Common::new(),
            clock: Arc::new(AtomicU64::new(now.0)),
            rules,
            nodes: Vec::new(),
            dead: Default::default(),
            next: AtomicUsize::new(0),
        };
        nodes.start(count);
        nodes
    }

    fn start(&mut self, count: usize) {
        self.nodes = (0..count).map(|n| Arc::new(self.node(n))).collect();
    }

    fn node(&self, n: usize) -> RedisEngine {
        let clock = self.clock.clone();
        let options = EmbeddedOptions {
            data_dir: None,
            rules: self.rules.clone(),
            clock: Arc::new(move || Timestamp(clock.load(Ordering::SeqCst))),
            on_commit: Box::new(|_, _| {}),
        };
        let store = Node {
            number: n,
            common: self.common.clone(),
            // Nobody: what is due is done when the test says so.
            keeps_house: false,
            dead: self.dead[n].clone(),
        };
        let way = Arc::new(Loud(self.common.clone()));
        let patience = Duration::from_secs(10);
        let engine = RedisEngine::over(format!("node-{n}"), Arc::new(store), way, options, patience).unwrap();
        let heard = Arc::downgrade(engine.shared());
        self.common.listen(Box::new(move |news| {
            if let Some(shared) = Weak::upgrade(&heard) {
                news.iter().for_each(|one| shared.heard(&one.payload));
            }
        }));
        engine
    }
}

#[async_trait]
impl Instance for Nodes {
    fn engine(&self) -> Arc<dyn Engine> {
        let turn = self.next.fetch_add(1, Ordering::SeqCst);
        self.nodes[turn % self.nodes.len()].clone()
    }
    fn set_time(&self, now: Timestamp) {
        self.clock.store(now.0, Ordering::SeqCst);
    }
    async fn tick(&self) {
        for node in &self.nodes {
            node.tick().await.unwrap();
        }
    }
    async fn restart(&mut self) -> bool {
        let count = self.nodes.len();
        self.close().await;
        self.nodes.clear();
        self.common.begin_epoch();
        self.start(count);
        true
    }
    async fn close(&self) {
        for node in &self.nodes {
            node.close().await;
        }
    }
}

struct SeveralNodes(usize);

#[async_trait]
impl Subject for SeveralNodes {
    async fn open(&self, now: Timestamp, rules: Rules) -> Box<dyn Instance> {
        Box::new(Nodes::open(self.0, now, rules))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_over_one_node() {
    if let Err(faults) = run(&SeveralNodes(1)).await {
        panic!("{faults}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_over_nodes_that_take_turns() {
    if let Err(faults) = run(&SeveralNodes(3)).await {
        panic!("{faults}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(25), max_shrink_iters: 1000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn nodes_that_take_turns_do_what_the_model_does(steps in steps()) {
        live_over(&steps, |rules| Box::new(Nodes::open(3, crate::contract::Kit::BEGIN, rules)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nodes_do_everything_at_once() {
    let nodes = Nodes::open(3, Timestamp(1_700_000_000_000), Rules::default());
    let common = nodes.common.clone();
    common.torn.store(true, Ordering::SeqCst);
    let dead = Arc::downgrade(&nodes.nodes[2]);
    together(nodes.nodes.clone(), 60, || async {
        let begun = || common.commits.load(Ordering::SeqCst) > 60;
        while !begun() {
            tokio::task::yield_now().await;
        }
        nodes.dead[2].store(true, Ordering::SeqCst);
        common.away.store(true, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(300)).await;
        common.begin_epoch();
        common.away.store(false, Ordering::SeqCst);
        assert!(dead.upgrade().is_some());
        Some(2)
    })
    .await;
    assert!(
        common.conflicts.load(Ordering::SeqCst) > 0,
        "nobody was in anybody's way"
    );
    assert!(common.kept.load(Ordering::SeqCst) > 0, "nothing had to be kept");
}

/// As after a failover, when the first to look meets other servers, and locks that nobody holds any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_that_others_tear_is_done_again_and_told_to_nobody() {
    let nodes = Nodes::open(1, Timestamp(1_700_000_000_000), Rules::default());
    let (node, user) = (&nodes.nodes[0], UserId::new("ada").unwrap());
    let own = FeedId::User(user.clone());
    let limit = ReadLimit {
        entries: 10,
        bytes: 1 << 20,
    };
    let starts = StartsWanted {
        user: user.clone(),
        places: vec![(own.clone(), None)],
        cursor: None,
        state: true,
    };
    let page = PageWanted {
        user: user.clone(),
        feed: own.clone(),
        member: false,
        after: 0,
        limit,
    };
    // More than are done at once, and than a look that was torn all the same is taken for.
    for torn in [1, 2, 3, 12] {
        let tear = || nodes.common.torn_reads.store(torn, Ordering::SeqCst);
        tear();
        node.memberships(&user).await.unwrap();
        tear();
        node.starts(std::slice::from_ref(&starts))
            .await
            .remove(0)
            .unwrap();
        tear();
        let now = Timestamp(1_700_000_000_000);
        node.pages(std::slice::from_ref(&page), now)
            .await
            .remove(0)
            .unwrap();
        tear();
        node.read(&own, 0, limit).await.unwrap();
        assert_eq!(nodes.common.torn_reads.load(Ordering::SeqCst), 0);
    }
    assert!(!node.is_failing());
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_frees_something_is_done_in_a_full_store_beside_what_is_refused() {
    let now = Timestamp(1_700_000_000_000);
    let nodes = Nodes::open(1, now, Rules::default());
    let node = &nodes.nodes[0];
    let user = |name: &str| UserId::new(name).unwrap();
    let publish = async |name: &str| {
        let new = Make::new(format!("for-{name}")).user(name).data("1".repeat(500));
        node.publish(vec![new.publication(now)]).await.remove(0)
    };
    for name in ["ada", "bob", "cat"] {
        publish(name).await.unwrap();
    }
    let of_ada = SettleTarget::Ids(vec![NotificationId::new("for-ada").unwrap()]);
    let read = settlement("ada", SettleKind::Read, of_ada).unwrap();
    nodes.common.full.store(true, Ordering::SeqCst);
    // All of it waits at a time. Only the first may be in a transaction of its own.
    nodes.common.shut.store(true, Ordering::SeqCst);
    let (bob, cat) = (user("bob"), user("cat"));
    let told = tokio::join!(
        publish("u0"),
        publish("u1"),
        node.erase(&bob),
        node.settle(vec![read], Sync::Durable),
        publish("u2"),
        node.erase(&cat),
        async { nodes.common.shut.store(false, Ordering::SeqCst) },
    );
    for new in [told.0, told.1, told.4] {
        assert!(matches!(new, Err(EngineError::Unready(_))), "{new:?}");
    }
    assert!(matches!(told.3, Err(EngineError::Unready(_))), "{:?}", told.3);
    assert_eq!((told.2.unwrap(), told.5.unwrap()), (true, true));
    // What comes later is not held up by it.
    nodes.common.full.store(false, Ordering::SeqCst);
    publish("u0").await.unwrap();
    nodes.close().await;
}

/// One for each of these users, and one for all of them, a second from now.
fn scheduled(users: usize, now: Timestamp) -> Vec<Publication> {
    let names: Vec<_> = (0..users).map(|n| format!("u{n}")).collect();
    let own = names
        .iter()
        .map(|name| Make::new(format!("for-{name}")).user(name));
    let all = Make::new("for-all".to_owned()).users(names.clone());
    let all = own.chain([all]).map(|make| make.deliver_in(Millis(1000)));
    all.map(|make| make.publication(now)).collect()
}

async fn heads(node: &RedisEngine, users: usize) -> Vec<u64> {
    let feed = |n| FeedId::User(UserId::new(&format!("u{n}")).unwrap());
    let feeds: Vec<_> = (0..users).map(feed).collect();
    let spans = node.spans(&feeds).await.unwrap();
    spans.iter().map(|span| span.head.offset).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_due_for_many_is_done_beside_those_who_publish_to_them() {
    let now = Timestamp(1_700_000_000_000);
    let nodes = Nodes::open(1, now, Rules::default());
    let published = nodes.nodes[0].publish(scheduled(20, now)).await;
    assert!(published.iter().all(Result::is_ok));
    nodes.set_time(Timestamp(now.0 + 1000));
    nodes.common.busy.store(true, Ordering::SeqCst);
    nodes.tick().await;
    assert_eq!(heads(&nodes.nodes[0], 20).await, [2; 20]);
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_due_row_that_cannot_be_read_keeps_nothing_else_from_being_done() {
    let now = Timestamp(1_700_000_000_000);
    let nodes = Nodes::open(1, now, Rules::default());
    let published = nodes.nodes[0].publish(scheduled(20, now)).await;
    assert!(published.iter().all(Result::is_ok));
    // One of a newer version, and two damaged.
    for (name, value) in [("for-u3", &[0xfe, 7][..]), ("for-all", &[]), ("gone", &[3])] {
        let row = key::due(Timestamp(now.0 + 1000), 1, &NotificationId::new(name).unwrap());
        nodes.common.put(Table::Due, row, value.to_vec());
    }
    nodes.set_time(Timestamp(now.0 + 1000));
    nodes.tick().await;
    assert_eq!(heads(&nodes.nodes[0], 20).await, [2; 20]);
    assert_eq!(nodes.common.count(Table::Due), 0, "nothing is left to be done");
    nodes.close().await;
}

/// The clock of the node that does the second is ahead of that of the one that does the first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ran_out_before_it_was_delivered_is_never_delivered() {
    let now = Timestamp(1_700_000_000_000);
    let nodes = Nodes::open(1, now, Rules::default());
    let make = Make::new("late")
        .user("u0")
        .deliver_in(Millis(1000))
        .ttl(Millis(2000));
    assert!(nodes.nodes[0].publish(vec![make.publication(now)]).await[0].is_ok());
    let row = key::due(Timestamp(now.0 + 1000), 1, &NotificationId::new("late").unwrap());
    let value = nodes.common.take(Table::Due, &row).unwrap();
    nodes.set_time(Timestamp(now.0 + 2000));
    nodes.tick().await;
    nodes.common.put(Table::Due, row, value);
    nodes.set_time(Timestamp(now.0 + 1500));
    nodes.tick().await;
    assert_eq!(heads(&nodes.nodes[0], 1).await, [0]);
    assert_eq!(nodes.common.count(Table::Due), 0);
    nodes.close().await;
}
