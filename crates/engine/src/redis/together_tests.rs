//! Nodes that do everything at once on one store, while one of them dies and the store goes away for a while: what was
//! accepted is there once, whole and in order, all nodes say the same of it, and whoever follows a feed gets all of it.

use super::engine::RedisEngine;
use crate::contract::{Make, settlement};
use crate::{
    Directory, EngineError, Feeds, Inboxes, MemberChange, PageWanted, ReadLimit, Recipients, Settlements,
    Sync, Wake, Wakes,
};
use postrider_model::{
    FeedId, NotificationId, Publication, SettleKind, SettleTarget, Timestamp, Topic, UserId,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

const USERS: u64 = 8;
/// Others, for whom nodes publish to all of them and to one after the other at the same time.
const CROWD: u64 = 96;
const TOPICS: u64 = 2;
const NOW: Timestamp = Timestamp(1_700_000_000_000);
const WHOLE: ReadLimit = ReadLimit {
    entries: 100_000,
    bytes: usize::MAX,
};

/// What was published, and what became of it.
#[derive(Default)]
struct Account {
    /// What was handed in, with the feeds that it is for.
    tried: BTreeMap<String, Vec<FeedId>>,
    accepted: BTreeSet<String>,
    /// Ids that several nodes give to different content: by whom they were accepted anew.
    winners: BTreeMap<String, usize>,
}

type Shared = Arc<Mutex<Account>>;

fn locked<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Small, and the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

fn user(n: u64) -> UserId {
    UserId::new(&format!("u-{n}")).unwrap()
}

fn topic(n: u64) -> Topic {
    Topic::new(&format!("t-{n}")).unwrap()
}

fn one_of_many(n: u64) -> UserId {
    UserId::new(&format!("m-{n}")).unwrap()
}

fn crowd() -> impl Iterator<Item = FeedId> {
    (0..CROWD).map(|n| FeedId::User(one_of_many(n)))
}

fn all_feeds() -> Vec<FeedId> {
    let users = (0..USERS).map(|n| FeedId::User(user(n)));
    let topics = (0..TOPICS).map(|n| FeedId::Topic(topic(n)));
    users.chain(topics).chain([FeedId::All]).collect()
}

/// One who follows every feed on a node: by wakes, and by reading where one shows a hole.
struct Follower {
    had: Arc<Mutex<BTreeMap<FeedId, Vec<String>>>>,
    task: JoinHandle<()>,
}

impl Follower {
    async fn start(node: Arc<RedisEngine>) -> Follower {
        let (heard, news) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Notify::new()));
        let (hearing, telling) = (heard.clone(), news.clone());
        node.listen(Box::new(move |wake| {
            locked(&hearing).push(wake);
            telling.notify_one();
        }));
        all_feeds().iter().for_each(|feed| node.follow(feed));
        let had = Arc::new(Mutex::new(BTreeMap::new()));
        for feed in all_feeds() {
            // What was there before.
            let wanted = crate::StartsWanted {
                user: user(0),
                places: vec![(feed.clone(), None)],
                cursor: None,
                state: false,
            };
            node.starts(&[wanted]).await.remove(0).unwrap();
            catch_up(&node, &feed, &had).await;
        }
        let having = had.clone();
        let task = spawned(async move {
            loop {
                news.notified().await;
                let wakes = std::mem::take(&mut *locked(&heard));
                for wake in wakes {
                    hear(&node, wake, &having).await;
                }
            }
        });
        Follower { had, task }
    }
}

type Had = Arc<Mutex<BTreeMap<FeedId, Vec<String>>>>;

async fn hear(node: &RedisEngine, wake: Wake, had: &Had) {
    match wake {
        Wake::Appended(entries) => {
            for entry in &*entries {
                let offset = entry.position.offset as usize;
                let before = locked(had).entry(entry.feed.clone()).or_default().len();
                if offset > before + 1 {
                    catch_up_to(node, &entry.feed, had, offset - 1).await;
                }
                let mut had = locked(had);
                let had = had.entry(entry.feed.clone()).or_default();
                if offset == had.len() + 1 {
                    had.push(said(entry));
                }
            }
        }
        Wake::Missed => {
            for feed in all_feeds() {
                catch_up(node, &feed, had).await;
            }
        }
        Wake::Transient(_) | Wake::Members(_) | Wake::State(..) => {}
    }
}

fn said(entry: &postrider_model::Entry) -> String {
    String::from_utf8_lossy(entry.json()).into_owned()
}

async fn catch_up(node: &RedisEngine, feed: &FeedId, had: &Had) {
    catch_up_to(node, feed, had, usize::MAX).await;
}

async fn catch_up_to(node: &RedisEngine, feed: &FeedId, had: &Had, end: usize) {
    loop {
        let after = locked(had).entry(feed.clone()).or_default().len();
        let limit = ReadLimit {
            entries: (end - after).min(1000),
            bytes: usize::MAX,
        };
        if after >= end {
            return;
        }
        let Ok(page) = node.read(feed, after as u64, limit).await else {
            // The store is away; a session tries again.
            continue;
        };
        if page.entries.is_empty() {
            return;
        }
        let mut had = locked(had);
        let had = had.entry(feed.clone()).or_default();
        had.extend(page.entries.iter().map(|entry| said(entry)));
    }
}

#[allow(clippy::disallowed_methods, reason = "a test's tasks end with its runtime")]
fn spawned(work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(work)
}

/// Several at once.
async fn publish_all(node: &RedisEngine, account: &Shared, publications: Vec<Publication>) {
    let ids: Vec<_> = publications
        .iter()
        .map(|one| (one.notification.id.to_string(), one.feeds.clone()))
        .collect();
    locked(account).tried.extend(ids.iter().cloned());
    let receipts = node.publish(publications).await;
    for (receipt, (id, _)) in receipts.into_iter().zip(ids) {
        if receipt.is_ok() {
            locked(account).accepted.insert(id);
        }
        done(receipt);
    }
}

async fn publish(
    node: &RedisEngine,
    account: &Shared,
    who: usize,
    publication: Publication,
    is_contested: bool,
) {
    let id = publication.notification.id.to_string();
    let feeds = publication.feeds.clone();
    locked(account).tried.insert(id.clone(), feeds);
    let receipt = node.publish(vec![publication]).await.remove(0);
    match receipt {
        Ok(receipt) => {
            let mut account = locked(account);
            if is_contested && !receipt.repeated {
                let other = account.winners.insert(id.clone(), who);
                assert_eq!(other, None, "{id} was accepted anew twice");
            }
            account.accepted.insert(id);
        }
        Err(EngineError::IdConflict(_)) => assert!(is_contested, "{id} is nobody else's"),
        // Away for too long: what became of it is seen in the end.
        Err(EngineError::Store(_) | EngineError::Closed) => {}
        Err(error) => panic!("{id}: {error}"),
    }
}

/// What one node is asked to do, all of it at random.
async fn work(node: Arc<RedisEngine>, who: usize, steps: u64, account: Shared) {
    let mut dice = Dice(0x9e37_79b9 + who as u64 * 77);
    for step in 0..steps {
        let own = format!("n-{who}-{step}");
        let someone = user(dice.roll(USERS));
        match dice.roll(14) {
            12 => {
                let make = Make::new(own).users((0..CROWD).map(one_of_many));
                publish(&node, &account, who, make.publication(NOW), false).await;
            }
            13 => {
                let small = (0..4).map(|n| {
                    let make = Make::new(format!("{own}-{n}")).user(one_of_many(dice.roll(CROWD)).as_str());
                    make.publication(NOW)
                });
                publish_all(&node, &account, small.collect()).await;
            }
            0..=2 => {
                let make = Make::new(own).user(someone.as_str());
                publish(&node, &account, who, make.publication(NOW), false).await;
            }
            3 => {
                let make = Make::new(own).users((0..USERS).map(user));
                publish(&node, &account, who, make.publication(NOW), false).await;
            }
            4 => {
                let make = Make::new(own).topics(&["t-0", "t-1"]);
                publish(&node, &account, who, make.publication(NOW), false).await;
            }
            5 => {
                let make = Make::new(own).collapse("k").user(someone.as_str());
                publish(&node, &account, who, make.publication(NOW), false).await;
            }
            6 => {
                publish(&node, &account, who, Make::new(own).publication(NOW), false).await;
            }
            7 => {
                // The same from all nodes, and the same id with what this node alone says.
                let which = dice.roll(steps / 8 + 1);
                let twin = Make::new(format!("twin-{which}")).users((0..2).map(user));
                publish(&node, &account, who, twin.publication(NOW), true).await;
                let contested = Make::new(format!("clash-{which}")).data(format!("{who}"));
                let contested = contested.users((0..2).map(user));
                publish(&node, &account, who, contested.publication(NOW), true).await;
            }
            8 => {
                let known: Vec<_> = locked(&account).accepted.iter().cloned().collect();
                let ids = known
                    .iter()
                    .rev()
                    .take(5)
                    .filter_map(|id| NotificationId::new(id).ok());
                let target = SettleTarget::Ids(ids.collect());
                let word = settlement(someone.as_str(), SettleKind::Read, target);
                done(node.settle(vec![word.unwrap()], Sync::Durable).await);
            }
            9 => {
                let feed = FeedId::User(someone.clone());
                if let Ok(spans) = node.spans(std::slice::from_ref(&feed)).await {
                    let target = SettleTarget::Through(vec![(feed, spans[0].head)]);
                    let word = settlement(someone.as_str(), SettleKind::Delivered, target);
                    done(node.settle(vec![word.unwrap()], Sync::Durable).await);
                }
            }
            10 => {
                let some: Vec<_> = locked(&account).accepted.iter().cloned().collect();
                if !some.is_empty() {
                    let id = &some[dice.roll(some.len() as u64) as usize];
                    done(node.cancel(&NotificationId::new(id).unwrap()).await);
                }
            }
            _ => {
                let change = MemberChange {
                    topic: topic(dice.roll(TOPICS)),
                    user: someone,
                    joins: dice.roll(3) > 0,
                };
                done(node.change_members(vec![change]).await);
            }
        }
    }
}

/// Whatever was asked may fail while the store is away, in no other way.
fn done<T>(answer: Result<T, EngineError>) {
    match answer {
        Ok(_) | Err(EngineError::Store(_) | EngineError::Closed) => {}
        Err(error) => panic!("{error}"),
    }
}

/// Lets the nodes work at once. `trouble` comes when the work has begun, and says which node died.
pub(super) async fn together<F>(nodes: Vec<Arc<RedisEngine>>, steps: u64, trouble: impl FnOnce() -> F)
where
    F: Future<Output = Option<usize>>,
{
    let account = Shared::default();
    let mut followers = Vec::new();
    for node in &nodes {
        followers.push(Follower::start(node.clone()).await);
    }
    let workers = nodes.iter().enumerate();
    let mut workers: Vec<_> = workers
        .map(|(n, node)| spawned(work(node.clone(), n, steps, account.clone())))
        .collect();
    let dead = trouble().await;
    if let Some(dead) = dead {
        workers[dead].abort();
        followers[dead].task.abort();
    }
    for (n, worker) in workers.drain(..).enumerate() {
        let outcome = worker.await;
        assert!(
            outcome.is_ok() || dead == Some(n),
            "the worker of node {n}: {outcome:?}"
        );
    }
    let alive = |n: &usize| Some(*n) != dead;
    let alive: Vec<_> = (0..nodes.len()).filter(alive).collect();
    let first = &nodes[alive[0]];
    let feeds = judge_feeds(first, &account).await;
    for n in &alive {
        judge_agreement(first, &nodes[*n], &account).await;
        judge_follower(&followers[*n], &feeds).await;
    }
}

/// Every accepted id stands once in each of its feeds, without holes; what was not answered is whole or is not.
async fn judge_feeds(node: &RedisEngine, account: &Shared) -> BTreeMap<FeedId, Vec<String>> {
    let mut feeds = BTreeMap::new();
    let mut places: BTreeMap<(FeedId, String), usize> = BTreeMap::new();
    for feed in all_feeds().into_iter().chain(crowd()) {
        let page = node.read(&feed, 0, WHOLE).await.unwrap();
        let offsets: Vec<_> = page.entries.iter().map(|entry| entry.position.offset).collect();
        assert_eq!(
            offsets,
            (1..=offsets.len() as u64).collect::<Vec<_>>(),
            "offsets of {feed}"
        );
        for entry in &page.entries {
            if let Some(notification) = entry.notification() {
                *places
                    .entry((feed.clone(), notification.id.to_string()))
                    .or_default() += 1;
            }
        }
        if all_feeds().contains(&feed) {
            feeds.insert(feed, page.entries.iter().map(|entry| said(entry)).collect());
        }
    }
    let account = locked(account);
    assert!(account.accepted.len() > 10, "nothing was tried");
    for (id, feeds) in &account.tried {
        let counts: BTreeSet<_> = feeds
            .iter()
            .map(|feed| places.get(&(feed.clone(), id.clone())).copied().unwrap_or(0))
            .collect();
        let wanted: &[usize] = if account.accepted.contains(id) {
            &[1]
        } else {
            &[0, 1]
        };
        let is_whole = counts.len() == 1 && counts.iter().all(|count| wanted.contains(count));
        assert!(is_whole, "{id} stands so often in its feeds: {counts:?}");
    }
    feeds
}

async fn judge_agreement(one: &RedisEngine, other: &RedisEngine, account: &Shared) {
    let accepted = locked(account).accepted.clone();
    for id in accepted {
        let id = NotificationId::new(&id).unwrap();
        let states = async |node: &RedisEngine| {
            let states = node.recipients(&id, Recipients::All).await.unwrap();
            states
                .into_iter()
                .map(|one| format!("{one:?}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(states(one).await, states(other).await, "{id}");
    }
    for n in 0..USERS {
        let user = user(n);
        let memberships = one.memberships(&user).await.unwrap();
        assert_eq!(memberships, other.memberships(&user).await.unwrap(), "of {user}");
        for feed in all_feeds() {
            let wanted = PageWanted {
                user: user.clone(),
                member: matches!(feed, FeedId::Topic(_)),
                feed,
                after: 0,
                limit: WHOLE,
            };
            let page = async |node: &RedisEngine| {
                let page = node
                    .pages(std::slice::from_ref(&wanted), NOW)
                    .await
                    .remove(0)
                    .unwrap();
                assert!(page.floor <= page.span.head.offset, "a floor above the head");
                let entries = page.entries.iter();
                let entries = entries.map(|one| (said(&one.entry), one.state, one.shown, one.dismissed));
                (entries.collect::<Vec<_>>(), page.floor)
            };
            assert_eq!(page(one).await, page(other).await, "{user} in {}", wanted.feed);
        }
    }
    for n in 0..TOPICS {
        let members = one.members(&topic(n), None, 100).await.unwrap();
        assert_eq!(
            members.users.len() as u64,
            members.count,
            "members of {}",
            topic(n)
        );
    }
}

async fn judge_follower(follower: &Follower, feeds: &BTreeMap<FeedId, Vec<String>>) {
    let is_there = || {
        let had = locked(&follower.had);
        feeds
            .iter()
            .all(|(feed, entries)| had.get(feed).map_or(0, Vec::len) >= entries.len())
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), async {
        while !is_there() {
            tokio::task::yield_now().await;
        }
    });
    let lacking: Vec<_> = match waited.await {
        Ok(()) => Vec::new(),
        Err(_) => {
            let had = locked(&follower.had);
            let count = |feed| had.get(feed).map_or(0, Vec::len);
            let lacking = feeds
                .iter()
                .map(|(feed, entries)| (feed, count(feed), entries.len()));
            lacking
                .filter(|(_, had, wanted)| had < wanted)
                .map(|one| format!("{one:?}"))
                .collect()
        }
    };
    assert_eq!(lacking, Vec::<String>::new(), "what a follower lacks");
    let had = locked(&follower.had);
    for (feed, entries) in feeds {
        for (had, read) in had[feed].iter().zip(entries) {
            assert_eq!(had, read, "in {feed}");
        }
    }
}
