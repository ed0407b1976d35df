//! Two and three nodes over one Redis: what each tells of all.

use super::*;
use crate::redis::links::LinkOptions;
use crate::redis::testing;
use crate::{PresenceNews, TopicShare};
use postrider_model::{SessionId, Transport};
use std::collections::{BTreeMap, BTreeSet};
use tokio::runtime::Runtime;

const PATIENCE: Duration = Duration::from_secs(60);

/// One node's loops: users with their sessions; everyone hears every topic.
#[derive(Default)]
struct Loops {
    name: String,
    users: Mutex<BTreeMap<UserId, u32>>,
    changes: Mutex<Vec<(UserId, Option<u32>)>>,
    changed: Notify,
    watches: Mutex<Vec<mpsc::Sender<PresenceNews>>>,
}

impl Loops {
    fn new(name: &str) -> Arc<Loops> {
        Arc::new(Loops {
            name: name.into(),
            ..Loops::default()
        })
    }

    /// A user has so many sessions from now on; `None`: is gone.
    fn set(&self, user: &UserId, sessions: Option<u32>) {
        let mut users = locked(&self.users);
        let was = match sessions {
            Some(sessions) => users.insert(user.clone(), sessions),
            None => users.remove(user),
        };
        if was.is_some() != sessions.is_some() {
            let change = PresenceNews::Change {
                user: user.clone(),
                online: sessions.is_some(),
                at: Timestamp(7),
            };
            locked(&self.watches).retain(|watch| watch.try_send(change.clone()).is_ok());
        }
        locked(&self.changes).push((user.clone(), sessions));
        self.changed.notify_one();
    }

    fn told(&self, user: &UserId) -> UserPresence {
        let sessions = locked(&self.users).get(user).copied();
        let one = |nth| PresentSession {
            session: SessionId::new(&format!("{}-{nth}", self.name)).unwrap(),
            transport: Transport::Sse,
        };
        UserPresence {
            online: sessions.is_some(),
            sessions: (0..sessions.unwrap_or(0)).map(one).collect(),
        }
    }
}

struct Watching(mpsc::Receiver<PresenceNews>);

#[async_trait]
impl PresenceWatch for Watching {
    async fn next(&mut self) -> Option<PresenceNews> {
        self.0.recv().await
    }
}

#[async_trait]
impl Presence for Loops {
    async fn user_presence(&self, user: &UserId) -> Result<UserPresence, EngineError> {
        Ok(self.told(user))
    }

    async fn topic_presence(
        &self,
        topic: &Topic,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<TopicPresence, EngineError> {
        Ok(self.topic_share(topic, after, limit).await?.presence)
    }

    fn watch_presence(&self, _: PresenceFilter) -> Result<Box<dyn PresenceWatch>, EngineError> {
        let (watch, news) = mpsc::channel(64);
        let users = locked(&self.users);
        let present = PresenceNews::Present {
            users: users.keys().cloned().collect(),
            last: true,
        };
        watch.try_send(present).unwrap();
        locked(&self.watches).push(watch);
        Ok(Box::new(Watching(news)))
    }
}

#[async_trait]
impl NodePresence for Loops {
    fn gather(&self) {
        let users = locked(&self.users);
        let all = users
            .iter()
            .map(|(user, sessions)| (user.clone(), Some(*sessions)));
        locked(&self.changes).extend(all);
        self.changed.notify_one();
    }

    fn changed(&self, most: usize) -> Vec<(UserId, Option<u32>)> {
        let mut changes = locked(&self.changes);
        let many = most.min(changes.len());
        // Each user once, with what is so now.
        let told: BTreeMap<_, _> = changes.drain(..many).collect();
        if !changes.is_empty() {
            self.changed.notify_one();
        }
        told.into_iter().collect()
    }

    async fn has_changed(&self) {
        self.changed.notified().await;
    }

    async fn topic_share(
        &self,
        _: &Topic,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<TopicShare, EngineError> {
        let users = locked(&self.users);
        let mut share = TopicShare::default();
        users.keys().for_each(|user| share.marks.add(user));
        let follow = users
            .keys()
            .filter(|user| after.as_ref().is_none_or(|after| *user > after));
        let page: Vec<_> = follow.cloned().collect();
        share.presence = TopicPresence {
            sessions: users.values().map(|sessions| u64::from(*sessions)).sum(),
            users: users.len() as u64,
            more: page.len() > limit,
            page: page.into_iter().take(limit).collect(),
        };
        Ok(share)
    }
}

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

async fn node(server: &testing::Server, loops: &Arc<Loops>) -> RedisPresence {
    let links = LinkOptions::new(server.url(), loops.name.clone());
    let options = PresenceOptions {
        links: Links::open(links, "").await.unwrap(),
        node: loops.name.clone(),
        about: "a test".into(),
        linger: Duration::from_millis(300),
        clock: Arc::new(|| Timestamp(9)),
    };
    RedisPresence::open(options, loops.clone()).await.unwrap()
}

/// As `kill -9`: it says nothing more, and gives nothing back.
async fn die(node: RedisPresence) {
    let links = node.inner.links.clone();
    drop(node);
    links.close().await;
}

/// Asks until it is so. There is nothing to wait for but the answer itself.
async fn until<T: std::fmt::Debug>(mut ask: impl AsyncFnMut() -> T, is_so: impl Fn(&T) -> bool) -> T {
    let asking = async {
        loop {
            let told = ask().await;
            if is_so(&told) {
                return told;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.expect("in time")
}

/// A Redis that loses nothing.
const KEPT: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

fn run(suite: &str, test: impl AsyncFnOnce(testing::Server)) {
    run_on(&["--save", ""], suite, test);
}

fn run_on(arguments: &[&str], suite: &str, test: impl AsyncFnOnce(testing::Server)) {
    if testing::has_redis(suite) {
        let server = testing::Server::start_with(arguments);
        Runtime::new().unwrap().block_on(test(server));
    }
}

#[test]
fn a_user_is_there_with_the_sessions_of_all_nodes() {
    run("presence of a user over nodes", async |server| {
        let (a, b) = (Loops::new("a"), Loops::new("b"));
        let (on_a, on_b) = (node(&server, &a).await, node(&server, &b).await);
        until(async || on_a.nodes(), |nodes| *nodes == 2).await;
        let ada = user("ada");
        let told = on_a.user_presence(&ada).await.unwrap();
        assert_eq!((told.online, told.sessions.len()), (false, 0));
        b.set(&ada, Some(2));
        let told = until(
            async || on_a.user_presence(&ada).await.unwrap(),
            |told| told.online,
        )
        .await;
        let names = |told: &UserPresence| {
            told.sessions
                .iter()
                .map(|one| one.session.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&told), ["b-0", "b-1"]);
        assert_eq!(
            on_a.sessions_elsewhere(&[user("bob"), ada.clone()])
                .await
                .unwrap(),
            [0, 2]
        );
        assert_eq!(
            on_b.sessions_elsewhere(std::slice::from_ref(&ada)).await.unwrap(),
            [0],
            "they are its own"
        );
        a.set(&ada, Some(1));
        let told = on_a.user_presence(&ada).await.unwrap();
        assert_eq!(names(&told), ["a-0", "b-0", "b-1"]);
        // Lingering on one node, gone from the other.
        b.set(&ada, Some(0));
        a.set(&ada, None);
        until(
            async || on_a.sessions_elsewhere(std::slice::from_ref(&ada)).await.unwrap(),
            |sessions| sessions == &[0],
        )
        .await;
        let told = on_a.user_presence(&ada).await.unwrap();
        assert_eq!((told.online, told.sessions.len()), (true, 0));
        b.set(&ada, None);
        until(
            async || on_a.user_presence(&ada).await.unwrap(),
            |told| !told.online,
        )
        .await;
        on_a.close().await;
        on_b.close().await;
        let left = server.ask_line("KEYS *here*");
        assert_eq!(left, Value::Array(Vec::new()), "nothing is left of either");
    });
}

#[test]
fn a_node_that_comes_is_seen_by_the_others_before_it_is_open() {
    run("presence of a node that comes", async |server| {
        let (a, b, c) = (Loops::new("a"), Loops::new("b"), Loops::new("c"));
        let on_a = node(&server, &a).await;
        let on_b = node(&server, &b).await;
        assert_eq!((on_a.nodes(), on_b.nodes()), (2, 2));
        b.set(&user("bob"), Some(1));
        c.set(&user("cat"), Some(2));
        let on_c = node(&server, &c).await;
        assert_eq!([&on_a, &on_b, &on_c].map(RedisPresence::nodes), [3, 3, 3]);
        // What it says counts as soon as it stands in Redis, not when somebody renews.
        let mut told = redis::cmd("HGET");
        told.arg(super::here(super::cell_of(&user("cat")), "c"))
            .arg("cat");
        until(async || server.ask(&told), |told| *told != Value::Nil).await;
        for other in [&on_a, &on_b] {
            assert_eq!(other.sessions_elsewhere(&[user("cat")]).await.unwrap(), [2]);
        }
    });
}

#[test]
fn a_node_comes_though_one_of_the_others_says_nothing() {
    run("presence beside a node that is silent", async |server| {
        let (a, b) = (Loops::new("a"), Loops::new("b"));
        let on_a = node(&server, &a).await;
        // One that was killed, and one that hears and does not know what is asked.
        for silent in ["dead", "older"] {
            server.ask(&roster::renew(NODES.tag(), silent, "silent"));
        }
        let older = Links::open(LinkOptions::new(server.url(), "older"), "")
            .await
            .unwrap();
        let channel = on_a.inner.channel("older");
        older.subscribe(NODES, channel.clone());
        older.subscribed(&[channel]).await.unwrap();
        let on_b = node(&server, &b).await;
        assert_eq!((on_a.nodes(), on_b.nodes()), (4, 4));
    });
}

#[test]
fn who_went_and_stands_there_again_after_a_failover_is_forgotten() {
    run("presence that a failover brought back", async |server| {
        let (a, b) = (Loops::new("a"), Loops::new("b"));
        let (on_a, on_b) = (node(&server, &a).await, node(&server, &b).await);
        until(async || on_a.nodes(), |nodes| *nodes == 2).await;
        b.set(&user("ada"), Some(1));
        let online = async |name: &str| on_a.user_presence(&user(name)).await.unwrap().online;
        until(async || online("ada").await, |online| *online).await;
        // As if Redis had lost that they went, and with them more than one look takes.
        for nth in 0..3_000 {
            let ghost = user(&format!("ghost-{nth}"));
            let mut put = redis::cmd("HSET");
            put.arg(super::here(super::cell_of(&ghost), "b"))
                .arg(ghost.as_str())
                .arg(1);
            server.ask(&put);
        }
        assert!(online("ghost-7").await);
        on_b.inner.lost.notify_one();
        until(async || online("ghost-7").await, |online| !online).await;
        until(
            async || {
                let ghosts: Vec<_> = (0..3_000).map(|nth| user(&format!("ghost-{nth}"))).collect();
                on_a.sessions_elsewhere(&ghosts)
                    .await
                    .unwrap()
                    .iter()
                    .sum::<u64>()
            },
            |left| *left == 0,
        )
        .await;
        assert!(online("ada").await, "she is there");
        // Also where nobody is there any more, and nothing changes.
        b.set(&user("ada"), None);
        until(async || online("ada").await, |online| !online).await;
        let mut put = redis::cmd("HSET");
        put.arg(super::here(super::cell_of(&user("ada")), "b"))
            .arg("ada")
            .arg(1);
        server.ask(&put);
        on_b.inner.lost.notify_one();
        until(async || online("ada").await, |online| !online).await;
    });
}

#[test]
fn a_topic_counts_its_users_once() {
    run("presence of a topic over nodes", async |server| {
        let (a, b) = (Loops::new("a"), Loops::new("b"));
        for (loops, users) in [(&a, ["ada", "bob"]), (&b, ["bob", "eve"])] {
            users.iter().for_each(|name| loops.set(&user(name), Some(1)));
        }
        let (on_a, on_b) = (node(&server, &a).await, node(&server, &b).await);
        until(async || on_a.nodes(), |nodes| *nodes == 2).await;
        let topic = Topic::new("news").unwrap();
        for asked in [&on_a, &on_b] {
            let told = asked.topic_presence(&topic, None, 2).await.unwrap();
            assert_eq!((told.sessions, told.users, told.more), (4, 3, true));
            assert_eq!(told.page, [user("ada"), user("bob")]);
            let rest = asked.topic_presence(&topic, Some(user("bob")), 2).await.unwrap();
            assert_eq!((rest.page, rest.more), (vec![user("eve")], false));
            if std::ptr::eq(asked, &on_a) {
                until(async || on_b.nodes(), |nodes| *nodes == 2).await;
            }
        }
    });
}

/// What a watch makes of what it is told.
async fn hear(watch: &mut Box<dyn PresenceWatch>, here: &mut BTreeSet<UserId>, until: &[&str]) {
    let wanted: BTreeSet<_> = until.iter().map(|name| user(name)).collect();
    let hearing = async {
        while *here != wanted {
            match watch.next().await.expect("the watch goes on") {
                PresenceNews::Present { users, .. } => here.extend(users),
                PresenceNews::Change {
                    user, online: true, ..
                } => assert!(here.insert(user), "came twice"),
                PresenceNews::Change {
                    user, online: false, ..
                } => assert!(here.remove(&user), "was not there"),
                PresenceNews::Lagged => here.clear(),
            }
        }
    };
    let heard = tokio::time::timeout(PATIENCE, hearing).await;
    assert!(heard.is_ok(), "wanted {wanted:?}, and have {here:?}");
}

#[test]
fn a_watch_hears_of_all_nodes_and_loses_those_of_a_node_that_died() {
    run("watches of presence over nodes", async |server| {
        let (a, b, c) = (Loops::new("a"), Loops::new("b"), Loops::new("c"));
        a.set(&user("ada"), Some(1));
        b.set(&user("bob"), Some(1));
        let (on_a, on_b) = (node(&server, &a).await, node(&server, &b).await);
        let mut watch = on_a.watch_presence(PresenceFilter::All).unwrap();
        let mut here = BTreeSet::new();
        hear(&mut watch, &mut here, &["ada", "bob"]).await;
        b.set(&user("ada"), Some(1));
        b.set(&user("eve"), Some(1));
        hear(&mut watch, &mut here, &["ada", "bob", "eve"]).await;
        a.set(&user("ada"), None);
        b.set(&user("eve"), None);
        // She is on the other node still: nothing was told.
        hear(&mut watch, &mut here, &["ada", "bob"]).await;
        // A node that comes later is heard too.
        let on_c = node(&server, &c).await;
        c.set(&user("cat"), Some(1));
        hear(&mut watch, &mut here, &["ada", "bob", "cat"]).await;
        die(on_b).await;
        c.set(&user("bob"), Some(1));
        hear(&mut watch, &mut here, &["bob", "cat"]).await;
        until(async || on_c.nodes(), |nodes| *nodes == 2).await;
        let told = on_c.user_presence(&user("ada")).await.unwrap();
        assert!(!told.online, "no ghost is left");
        let dead = server.ask_line("KEYS *here:b");
        assert_eq!(dead, Value::Array(Vec::new()));
    });
}

#[test]
fn a_redis_that_restarts_empty_is_told_again_who_is_here() {
    run("presence over a restart of Redis", async |mut server| {
        let (a, b) = (Loops::new("a"), Loops::new("b"));
        let (on_a, on_b) = (node(&server, &a).await, node(&server, &b).await);
        b.set(&user("bob"), Some(1));
        let is_there = |told: &Result<UserPresence, EngineError>| {
            told.as_ref().is_ok_and(|told| told.sessions.len() == 1)
        };
        let before = until(async || on_a.user_presence(&user("bob")).await, is_there).await;
        server.kill();
        server.restart();
        let after = until(async || on_a.user_presence(&user("bob")).await, is_there).await;
        assert_eq!(before.ok(), after.ok());
        let mut watch = on_a.watch_presence(PresenceFilter::All).unwrap();
        hear(&mut watch, &mut BTreeSet::new(), &["bob"]).await;
        drop(on_b);
    });
}

#[test]
fn a_node_that_was_taken_for_gone_is_seen_again_even_where_it_is_forgotten_late() {
    run("presence of a node that comes back", async |server| {
        let (a, b) = (Loops::new("a"), Loops::new("b"));
        let (on_a, on_b) = (node(&server, &a).await, node(&server, &b).await);
        let bob = user("bob");
        b.set(&bob, Some(1));
        let key = here(cell_of(&bob), "b");
        let ask = |name: &str| {
            let mut command = redis::cmd(name);
            command.arg(&key);
            server.ask(&command)
        };
        let seen = async || on_a.sessions_elsewhere(std::slice::from_ref(&bob)).await.unwrap();
        until(seen, |sessions| sessions == &[1]).await;
        until(
            async || ask("PTTL"),
            |left| matches!(left, Value::Int(ms) if *ms > 0),
        )
        .await;
        // As a node would that takes `b` for gone, and is slow: it forgets once before `b` is back, and once after.
        ask("UNLINK");
        server.ask_line("ZREM {pr:default:00}:roster b");
        until(async || ask("EXISTS"), |there| *there == Value::Int(1)).await;
        ask("UNLINK");
        until(seen, |sessions| sessions == &[1]).await;
        drop(on_b);
    });
}

#[test]
fn who_went_while_redis_was_away_is_not_counted_for_ever() {
    run_on(&KEPT, "presence of who went without Redis", async |mut server| {
        let (a, b) = (Loops::new("a"), Loops::new("b"));
        let (on_a, on_b) = (node(&server, &a).await, node(&server, &b).await);
        let bob = user("bob");
        b.set(&bob, Some(1));
        let seen = async || on_a.sessions_elsewhere(std::slice::from_ref(&bob)).await.ok();
        until(seen, |sessions| sessions == &Some(vec![1])).await;
        server.kill();
        b.set(&bob, None);
        // As long as a command has: the one that was to tell it has failed by then.
        for _ in 0..2 {
            assert_eq!(seen().await, None);
        }
        server.restart();
        until(seen, |sessions| sessions == &Some(vec![0])).await;
        drop(on_b);
    });
}
