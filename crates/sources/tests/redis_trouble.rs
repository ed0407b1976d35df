//! The source `redis_pubsub` over a bad network: a slow one with users who come and go all the time, a connection that
//! falls silent, and a server that is away.

#![allow(missing_docs, clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "a test: it reads clocks")]

use postrider_harness::machine::{self, Need};
use postrider_harness::proxy::{Proxy, Way, Weather};
use postrider_harness::redis::{Server, ServerOptions};
use postrider_model::{FeedId, Millis, Timestamp, UserId};
use postrider_sources::queue::Source as _;
use postrider_sources::redis::RedisAddress;
use postrider_sources::redis_pubsub::{PubSubOptions, RedisPubSub, Template};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);
/// One way.
const DELAY: Duration = Duration::from_millis(4);
/// Between two users who come: several within each round trip.
const COMES_EVERY: Duration = Duration::from_millis(2);
/// Who comes into a slow network is heard this soon, whoever else comes and goes.
const SOON: Duration = Duration::from_secs(1);
/// An answer that waited for nothing comes this soon.
const AT_ONCE: Duration = Duration::from_millis(200);
/// A connection that fell silent is given up this soon.
const NOTICED: Duration = Duration::from_secs(20);
/// A state is waited for at least so long while Redis is away, and no longer than that and an answer takes.
const A_MOMENT: Duration = Duration::from_secs(2);
const NO_MOMENT: Duration = Duration::from_secs(12);

/// On one thread: who waits runs only where the worker waits.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(work)
}

fn source(proxy: &Proxy) -> Arc<RedisPubSub> {
    let start = Instant::now();
    Arc::new(RedisPubSub::new(PubSubOptions {
        address: RedisAddress::parse(&format!("redis://{}", proxy.addr())).unwrap(),
        channels: Vec::new(),
        patterns: Vec::new(),
        user_channel: Some(Template::parse("n:{user}", "{user}").unwrap()),
        topic_channel: None,
        sharded: false,
        linger: Millis(50),
        node: "n".into(),
        steady: Arc::new(move || Timestamp(u64::try_from(start.elapsed().as_millis()).unwrap())),
    }))
}

fn user(name: &str) -> FeedId {
    FeedId::User(UserId::new(name).unwrap())
}

/// Opens and receives, as a worker does, for ever.
async fn work(source: Arc<RedisPubSub>) {
    loop {
        let received = match source.open().await {
            Ok(()) => source.receive(0, 100).await,
            Err(fault) => Err(fault),
        };
        if received.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[test]
fn who_comes_is_heard_soon_while_others_come_and_go() -> anyhow::Result<()> {
    machine::run("who_comes_is_heard_soon", &[Need::Redis], || {
        let redis = Server::start(ServerOptions::default())?;
        let proxy = Proxy::start(&[redis.addr()])?;
        let source = source(&proxy);
        block_on(async {
            source.open().await.unwrap();
            proxy.weather(Weather {
                delay: DELAY,
                ..Weather::default()
            });
            let working = tokio::spawn(work(source.clone()));
            let others = source.clone();
            let churning = tokio::spawn(async move {
                for n in 0u64.. {
                    others.follow(&user(&format!("other-{n}")));
                    if let Some(earlier) = n.checked_sub(10) {
                        others.unfollow(&user(&format!("other-{earlier}")));
                    }
                    tokio::time::sleep(COMES_EVERY).await;
                }
            });
            let mut soon = 0;
            for n in 0..20 {
                let feed = user(&format!("ada-{n}"));
                let came = Instant::now();
                // After its own time limit it says so: this machine may stand still for that long.
                let heard = timeout(PATIENCE, source.heard(std::slice::from_ref(&feed))).await;
                let is_heard = heard.expect("it answers").is_ok();
                soon += usize::from(is_heard && came.elapsed() < SOON);
            }
            assert!(soon >= 15, "only {soon} of 20 were heard soon");
            churning.abort();
            working.abort();
        });
        Ok(())
    })
}

#[test]
fn a_connection_that_falls_silent_is_noticed_and_made_anew() -> anyhow::Result<()> {
    machine::run("a_connection_that_falls_silent", &[Need::Redis], || {
        let redis = Server::start(ServerOptions::default())?;
        let proxy = Proxy::start(&[redis.addr()])?;
        let source = source(&proxy);
        source.follow(&user("ada"));
        block_on(async {
            source.open().await.unwrap();
            proxy.weather(Weather {
                swallows: vec![Way::There, Way::Back],
                ..Weather::default()
            });
            // Nobody comes, nobody goes, and nothing is published as far as can be seen.
            let noticed = async { while source.receive(0, 9).await.is_ok() {} };
            timeout(NOTICED, noticed).await.expect("it is noticed");
            proxy.clear();
            while source.open().await.is_err() {}
            assert_eq!(source.lag().await.unwrap().unwrap().interruptions, 1);
            redis
                .client()
                .unwrap()
                .must(&["PUBLISH", "n:ada", "again"])
                .unwrap();
            let again = async { while source.receive(0, 9).await.unwrap().is_empty() {} };
            timeout(PATIENCE, again).await.expect("it is heard again");
        });
        Ok(())
    })
}

#[test]
fn who_comes_while_redis_is_away_is_told_at_once() -> anyhow::Result<()> {
    machine::run("who_comes_while_redis_is_away", &[Need::Redis], || {
        let redis = Server::start(ServerOptions::default())?;
        let proxy = Proxy::start(&[redis.addr()])?;
        let source = source(&proxy);
        block_on(async {
            let working = tokio::spawn(work(source.clone()));
            let ada = [user("ada")];
            source.heard(&ada).await.expect("it is there");
            proxy.weather(Weather {
                refuses: true,
                ..Weather::default()
            });
            proxy.cut();
            let begin = Instant::now();
            let told_at_once = async {
                loop {
                    let came = Instant::now();
                    if source.heard(&ada).await.is_err() && came.elapsed() < AT_ONCE {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            timeout(PATIENCE, told_at_once).await.expect("it fails at once");
            assert!(begin.elapsed() > SOON, "a server may start anew meanwhile");
            proxy.clear();
            let back = async {
                while source.heard(&ada).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            timeout(PATIENCE, back).await.expect("it is there again");
            working.abort();
        });
        Ok(())
    })
}

#[test]
fn a_state_that_is_no_hash_is_empty() -> anyhow::Result<()> {
    machine::run("a_state_that_is_no_hash", &[Need::Redis], || {
        let redis = Server::start(ServerOptions::default())?;
        let proxy = Proxy::start(&[redis.addr()])?;
        let source = source(&proxy);
        let mut client = redis.client()?;
        client.must(&["SET", "text", "x"])?;
        client.must(&["HSET", "hash", "a", "1"])?;
        block_on(async {
            source.open().await.unwrap();
            assert!(source.hash("text").await.unwrap().is_empty());
            assert!(source.hash("none").await.unwrap().is_empty());
            assert_eq!(source.hash("hash").await.unwrap()["a"], "1");
        });
        Ok(())
    })
}

#[test]
fn a_state_is_waited_for_while_redis_is_away_for_a_moment() -> anyhow::Result<()> {
    machine::run("a_state_is_waited_for", &[Need::Redis], || {
        let redis = Server::start(ServerOptions::default())?;
        let proxy = Proxy::start(&[redis.addr()])?;
        let source = source(&proxy);
        redis.client()?.must(&["HSET", "hash", "a", "1"])?;
        block_on(async {
            source.open().await.unwrap();
            loop {
                proxy.weather(Weather {
                    refuses: true,
                    ..Weather::default()
                });
                proxy.cut();
                // Nobody has opened it again.
                while source.receive(0, 9).await.is_ok() {}
                let comes_back = async {
                    tokio::time::sleep(A_MOMENT / 2).await;
                    proxy.clear();
                    while source.open().await.is_err() {}
                };
                let began = Instant::now();
                let asked = async { (source.hash("hash").await, began.elapsed()) };
                let ((state, took), ()) = tokio::join!(asked, comes_back);
                match state {
                    Ok(state) => {
                        assert_eq!(state["a"], "1");
                        break;
                    }
                    // This machine stood still: once more.
                    Err(fault) => assert!(took >= A_MOMENT, "{fault} after {took:?}"),
                }
            }
            source.close().await;
            let begin = Instant::now();
            assert!(source.hash("hash").await.is_err(), "it stays away");
            assert!(begin.elapsed() < NO_MOMENT, "for more than a moment");
        });
        Ok(())
    })
}
