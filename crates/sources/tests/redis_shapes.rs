//! The sources of Redis where there are several servers: behind Sentinels, and in a Cluster, through a failover.

#![allow(missing_docs, clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "a test: it reads clocks")]

use postrider_harness::machine::{self, Need};
use postrider_harness::redis::{Client, Cluster, Replicated, ServerOptions};
use postrider_model::{FeedId, Millis, Timestamp, UserId};
use postrider_sources::queue::{Delivery, Source, SourceFault};
use postrider_sources::redis::{RedisAddress, slot};
use postrider_sources::redis_pubsub::{PubSubOptions, RedisPubSub, Template};
use postrider_sources::redis_streams::{RedisStreams, StreamOptions};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

const PATIENCE: Duration = Duration::from_secs(40);

fn runtime() -> Runtime {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all().build().unwrap()
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    runtime().block_on(work)
}

/// Receives one, however often it has to be opened anew.
async fn one(source: &dyn Source) -> Delivery {
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "nothing came");
        if source.open().await.is_ok()
            && let Ok(deliveries) = source.receive(0, 1).await
            && let Some(delivery) = deliveries.into_iter().next()
        {
            return delivery;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn stream(url: &str) -> RedisStreams {
    RedisStreams::new(StreamOptions {
        address: RedisAddress::parse(url).unwrap(),
        stream: "s".into(),
        group: "g".into(),
        from_start: true,
        workers: 1,
        claim_after: Millis(1_000),
        delete: false,
        node: "n".into(),
    })
}

fn pubsub(redis: &Cluster, sharded: bool) -> RedisPubSub {
    let start = Instant::now();
    RedisPubSub::new(PubSubOptions {
        address: RedisAddress::parse(&redis.url()).unwrap(),
        channels: Vec::new(),
        patterns: Vec::new(),
        user_channel: Some(Template::parse("n:{user}", "{user}").unwrap()),
        topic_channel: None,
        sharded,
        linger: Millis(0),
        node: "n".into(),
        steady: Arc::new(move || Timestamp(u64::try_from(start.elapsed().as_millis()).unwrap())),
    })
}

fn add(client: &mut Client, payload: &str) {
    client.must(&["XADD", "s", "*", "p", payload]).unwrap();
}

#[test]
fn a_stream_behind_sentinels_goes_on_after_a_failover() -> anyhow::Result<()> {
    machine::run("a_stream_behind_sentinels", &[Need::Redis], || {
        let mut redis = Replicated::start(ServerOptions::default())?;
        let source = stream(&redis.url());
        add(&mut redis.master()?.client()?, "before");
        block_on(async {
            let first = one(&source).await;
            assert_eq!(&first.message().field("p").unwrap()[..], b"before");
            first.ack().await.unwrap();
        });
        redis.fail_over()?;
        add(&mut redis.master()?.client()?, "after");
        block_on(async {
            let second = one(&source).await;
            assert_eq!(&second.message().field("p").unwrap()[..], b"after");
            second.ack().await.unwrap();
        });
        Ok(())
    })
}

/// Runs `redis-cli` against a Cluster, which follows the slots.
fn cli(addr: std::net::SocketAddr, words: &[&str]) {
    let port = addr.port().to_string();
    let done = Command::new("redis-cli")
        .args(["-c", "-p", &port])
        .args(words)
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
}

#[test]
fn sharded_channels_and_a_stream_of_a_cluster() -> anyhow::Result<()> {
    machine::run("sharded_channels_of_a_cluster", &[Need::Redis], || {
        let redis = Cluster::start(ServerOptions::default())?;
        let any = redis.masters()?[0];
        cli(any, &["XADD", "s", "*", "p", "x"]);
        block_on(async { one(&stream(&redis.url())).await.ack().await.unwrap() });
        let source = pubsub(&redis, true);
        // Enough for every master to have some.
        let user = |n: usize| FeedId::User(UserId::new(&format!("u{n}")).unwrap());
        (0..60).for_each(|n| source.follow(&user(n)));
        block_on(async {
            source.open().await.unwrap();
            for n in 0..60 {
                // What is published while a connection is made anew is lost: it is published again.
                let deadline = Instant::now() + PATIENCE;
                let mut came = None;
                while came != Some(user(n)) {
                    assert!(Instant::now() < deadline, "nothing came for u{n}");
                    cli(any, &["SPUBLISH", &format!("n:u{n}"), "x"]);
                    let one = tokio::time::timeout(Duration::from_secs(5), one(&source)).await;
                    came = one.ok().and_then(|one| one.message().feed.clone());
                    let is_earlier = |feed: &FeedId| (0..n).any(|m| user(m) == *feed);
                    assert!(
                        came.as_ref()
                            .is_none_or(|feed| *feed == user(n) || is_earlier(feed))
                    );
                }
            }
        });
        Ok(())
    })
}

/// Reads the states of so many users. All in one runtime: connections live as long as theirs.
fn read_states(runtime: &Runtime, source: &RedisPubSub, users: usize) {
    runtime.block_on(async {
        for n in 0..users {
            // It is away for whoever stands still for long enough.
            let state = match source.hash(&format!("s:{n}")).await {
                Err(SourceFault::Away(_)) => source.hash(&format!("s:{n}")).await.unwrap(),
                state => state.unwrap(),
            };
            assert_eq!(state["n"], n.to_string(), "of {n}");
        }
        assert!(source.hash("s:none").await.unwrap().is_empty());
    });
}

#[test]
fn a_state_is_read_from_the_master_that_has_it_wherever_it_goes() -> anyhow::Result<()> {
    machine::run("a_state_of_a_cluster", &[Need::Redis], || {
        const USERS: usize = 30;
        let mut redis = Cluster::start(ServerOptions::default())?;
        let any = redis.masters()?[0];
        for n in 0..USERS {
            cli(any, &["HSET", &format!("s:{n}"), "n", &n.to_string()]);
        }
        let source = pubsub(&redis, false);
        let runtime = runtime();
        runtime.block_on(async { source.open().await.unwrap() });
        read_states(&runtime, &source, USERS);
        // The slot of one user goes from its master to another, and is on its way for a while.
        let slot = slot(b"s:0").to_string();
        let from = usize::from(slot.parse::<u16>()? / (16_384 / 3)).min(2);
        let (from, to) = (redis.masters()?[from], redis.masters()?[(from + 1) % 3]);
        let (mut here, mut there) = (Client::connect(from)?, Client::connect(to)?);
        let ids = [&mut here, &mut there].map(|one| one.must(&["CLUSTER", "MYID"]).unwrap().text());
        there.must(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &ids[0]])?;
        here.must(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &ids[1]])?;
        read_states(&runtime, &source, USERS);
        let port = to.port().to_string();
        here.must(&["MIGRATE", "127.0.0.1", &port, "s:0", "0", "5000"])?;
        read_states(&runtime, &source, USERS);
        for client in [&mut there, &mut here] {
            client.must(&["CLUSTER", "SETSLOT", &slot, "NODE", &ids[1]])?;
        }
        read_states(&runtime, &source, USERS);
        // The masters have other places after failovers.
        for shard in 0..3 {
            redis.move_master(shard)?;
        }
        read_states(&runtime, &source, USERS);
        Ok(())
    })
}
