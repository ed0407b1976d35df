//! The sources of Redis under the contract suite, against a real server; and what is theirs alone.

#![allow(missing_docs, clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "a test: it reads clocks")]

use async_trait::async_trait;
use bytes::Bytes;
use postrider_harness::machine::{self, Need};
use postrider_harness::redis::{Server, ServerOptions};
use postrider_model::{FeedId, Millis, Timestamp, UserId};
use postrider_sources::contract::{self, Subject};
use postrider_sources::queue::{Delivery, Source};
use postrider_sources::redis::RedisAddress;
use postrider_sources::redis_pubsub::{PubSubOptions, RedisPubSub, Template};
use postrider_sources::redis_streams::{RedisStreams, StreamOptions};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

fn address(server: &Server) -> RedisAddress {
    RedisAddress::parse(&server.url()).unwrap()
}

fn streams(server: &Server, stream: &str, node: &str) -> StreamOptions {
    StreamOptions {
        address: address(server),
        stream: stream.to_owned(),
        group: "g".into(),
        from_start: true,
        workers: 2,
        claim_after: Millis(1_000),
        delete: false,
        node: node.to_owned(),
    }
}

/// A stream for each rule.
struct Streams {
    server: Mutex<Server>,
    rule: Mutex<String>,
}

impl Streams {
    fn rule(&self) -> String {
        self.rule.lock().unwrap().clone()
    }
}

#[async_trait]
impl Subject for Streams {
    async fn begin(&self, rule: &str) {
        *self.rule.lock().unwrap() = rule.to_owned();
    }

    async fn node(&self, name: &str, lease: Duration) -> Arc<dyn Source> {
        Arc::new(RedisStreams::new(StreamOptions {
            claim_after: Millis(u64::try_from(lease.as_millis()).unwrap()),
            ..streams(&self.server.lock().unwrap(), &self.rule(), name)
        }))
    }

    async fn left(&self) -> usize {
        let mut client = self.server.lock().unwrap().client().unwrap();
        let pending = client.must(&["XPENDING", &self.rule(), "g"]).unwrap();
        pending.list()[0].text().parse().unwrap()
    }

    async fn put(&self, payloads: &[String]) {
        let mut client = self.server.lock().unwrap().client().unwrap();
        for payload in payloads {
            client.must(&["XADD", &self.rule(), "*", "p", payload]).unwrap();
        }
    }

    fn payload(&self, delivery: &Delivery) -> Bytes {
        delivery.message().field("p").unwrap().clone()
    }

    async fn go_away(&self) {
        self.server.lock().unwrap().kill9().unwrap();
    }

    async fn come_back(&self) {
        self.server.lock().unwrap().restart().unwrap();
    }
}

#[test]
fn streams_pass_the_contract() -> anyhow::Result<()> {
    machine::run("streams_pass_the_contract", &[Need::Redis], || {
        let server = Mutex::new(Server::start(ServerOptions::default())?);
        let rule = Mutex::default();
        runtime().block_on(contract::check(&Streams { server, rule }));
        Ok(())
    })
}

/// A channel for each rule; `sharded` or plain.
struct Channels {
    server: Mutex<Server>,
    rule: Mutex<String>,
    sharded: bool,
}

fn channels(server: &Server, node: &str, sharded: bool) -> PubSubOptions {
    let start = Instant::now();
    PubSubOptions {
        address: address(server),
        channels: Vec::new(),
        patterns: Vec::new(),
        user_channel: None,
        topic_channel: None,
        sharded,
        linger: Millis(200),
        node: node.to_owned(),
        steady: Arc::new(move || Timestamp(u64::try_from(start.elapsed().as_millis()).unwrap())),
    }
}

#[async_trait]
impl Subject for Channels {
    async fn begin(&self, rule: &str) {
        *self.rule.lock().unwrap() = rule.to_owned();
    }

    async fn left(&self) -> usize {
        0
    }

    async fn node(&self, name: &str, _lease: Duration) -> Arc<dyn Source> {
        Arc::new(RedisPubSub::new(PubSubOptions {
            channels: vec![self.rule.lock().unwrap().clone()],
            ..channels(&self.server.lock().unwrap(), name, self.sharded)
        }))
    }

    async fn put(&self, payloads: &[String]) {
        let mut client = self.server.lock().unwrap().client().unwrap();
        let command = if self.sharded { "SPUBLISH" } else { "PUBLISH" };
        for payload in payloads {
            client
                .must(&[command, &self.rule.lock().unwrap(), payload])
                .unwrap();
        }
    }

    fn payload(&self, delivery: &Delivery) -> Bytes {
        delivery.message().body.clone().unwrap()
    }

    async fn go_away(&self) {
        self.server.lock().unwrap().kill9().unwrap();
    }

    async fn come_back(&self) {
        self.server.lock().unwrap().restart().unwrap();
    }
}

#[test]
fn pubsub_passes_the_contract() -> anyhow::Result<()> {
    machine::run("pubsub_passes_the_contract", &[Need::Redis], || {
        for sharded in [false, true] {
            let server = Mutex::new(Server::start(ServerOptions::default())?);
            let rule = Mutex::default();
            runtime().block_on(contract::check(&Channels {
                server,
                rule,
                sharded,
            }));
        }
        Ok(())
    })
}

fn user(n: usize) -> FeedId {
    FeedId::User(UserId::new(&format!("u{n}")).unwrap())
}

/// Receives until as many messages came.
async fn heard(source: &RedisPubSub, count: usize) -> Vec<(FeedId, Bytes)> {
    let mut out = Vec::new();
    let all = async {
        while out.len() < count {
            for delivery in source.receive(0, 100).await.unwrap() {
                let message = delivery.message();
                out.push((message.feed.clone().unwrap(), message.body.clone().unwrap()));
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all)
        .await
        .expect("all come");
    out
}

/// Keeps a source at work while something else is waited for.
async fn beside<T>(source: &RedisPubSub, work: impl Future<Output = T>) -> T {
    let receiving = async {
        loop {
            assert!(source.receive(0, 100).await.unwrap().is_empty());
        }
    };
    tokio::select! {
        done = work => done,
        () = receiving => unreachable!("it goes on for ever"),
    }
}

fn number_of(text: &str, name: &str) -> u64 {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .unwrap();
    line.trim().parse().unwrap()
}

#[test]
fn thousands_of_channels_in_few_commands_over_one_connection() -> anyhow::Result<()> {
    machine::run("thousands_of_channels", &[Need::Redis], || {
        let server = Server::start(ServerOptions::default())?;
        let mut client = server.client()?;
        let info = |client: &mut postrider_harness::redis::Client, section: &str| -> String {
            client.must(&["INFO", section]).unwrap().text()
        };
        for sharded in [false, true] {
            runtime().block_on(async {
                let source = RedisPubSub::new(PubSubOptions {
                    user_channel: Some(Template::parse("n:{user}", "{user}").unwrap()),
                    ..channels(&server, "a", sharded)
                });
                source.open().await.unwrap();
                let connections = number_of(&info(&mut client, "clients"), "connected_clients");
                let before = number_of(&info(&mut client, "stats"), "total_commands_processed");
                let feeds: Vec<_> = (0..10_000).map(user).collect();
                feeds.iter().for_each(|feed| source.follow(feed));
                beside(&source, source.heard(&feeds)).await.unwrap();
                let after = number_of(&info(&mut client, "stats"), "total_commands_processed");
                assert!(after - before < 40, "{} commands", after - before);
                assert_eq!(
                    number_of(&info(&mut client, "clients"), "connected_clients"),
                    connections
                );
                let publish = if sharded { "SPUBLISH" } else { "PUBLISH" };
                client.must(&[publish, "n:u7777", "x"]).unwrap();
                assert_eq!(heard(&source, 1).await, [(user(7777), Bytes::from_static(b"x"))]);
                // After the linger all but one are left.
                feeds.iter().skip(1).for_each(|feed| source.unfollow(feed));
                let gone = async {
                    while source.following() > 1 {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                };
                tokio::time::timeout(Duration::from_secs(10), beside(&source, gone))
                    .await
                    .unwrap();
                source.close().await;
            });
        }
        Ok(())
    })
}

#[test]
fn what_is_followed_is_heard_after_a_restart_and_a_state_is_read() -> anyhow::Result<()> {
    machine::run("followed_after_a_restart", &[Need::Redis], || {
        let mut server = Server::start(ServerOptions::default())?;
        server.client()?.must(&["HSET", "s:u1", "a", "1", "b", "2"])?;
        let source = RedisPubSub::new(PubSubOptions {
            user_channel: Some(Template::parse("n:{user}", "{user}").unwrap()),
            ..channels(&server, "a", false)
        });
        let runtime = runtime();
        runtime.block_on(async {
            source.open().await.unwrap();
            source.follow(&user(1));
            beside(&source, source.heard(&[user(1)])).await.unwrap();
            let state = source.hash("s:u1").await.unwrap();
            assert_eq!(
                state.into_iter().collect::<Vec<_>>(),
                [("a".into(), "1".into()), ("b".into(), "2".into())]
            );
            assert!(source.hash("s:none").await.unwrap().is_empty());
        });
        server.kill9()?;
        runtime.block_on(async { while source.receive(0, 1).await.is_ok() {} });
        server.restart()?;
        runtime.block_on(async {
            while source.open().await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            beside(&source, source.heard(&[user(1)])).await.unwrap();
            server
                .client()
                .unwrap()
                .must(&["PUBLISH", "n:u1", "back"])
                .unwrap();
            assert_eq!(heard(&source, 1).await, [(user(1), Bytes::from_static(b"back"))]);
        });
        Ok(())
    })
}

#[test]
fn a_group_that_is_gone_is_made_anew_and_consumers_are_tidied_away() -> anyhow::Result<()> {
    machine::run("a_group_that_is_gone", &[Need::Redis], || {
        let server = Server::start(ServerOptions::default())?;
        let mut client = server.client()?;
        let source = RedisStreams::new(StreamOptions {
            from_start: false,
            delete: true,
            ..streams(&server, "s", "n")
        });
        runtime().block_on(async {
            source.open().await.unwrap();
            client.must(&["FLUSHALL"]).unwrap();
            client.must(&["XADD", "s", "*", "p", "after"]).unwrap();
            let mut came = Vec::new();
            let deadline = Instant::now() + Duration::from_secs(10);
            while came.is_empty() && Instant::now() < deadline {
                match source.receive(0, 9).await {
                    Ok(deliveries) => came = deliveries,
                    Err(_) => source.open().await.unwrap(),
                }
            }
            assert_eq!(
                came.len(),
                1,
                "made from the oldest, though a first one begins with the newest"
            );
            for delivery in came {
                delivery.ack().await.unwrap();
            }
            assert_eq!(
                client.must(&["XLEN", "s"]).unwrap().text(),
                "0",
                "acknowledged is deleted"
            );
            source.close().await;
            let consumers = client.must(&["XINFO", "CONSUMERS", "s", "g"]).unwrap();
            assert!(!format!("{consumers:?}").contains("postrider-n"), "{consumers:?}");
        });
        Ok(())
    })
}

#[test]
fn what_another_program_had_last_is_told_apart() -> anyhow::Result<()> {
    machine::run("what_another_program_had_last", &[Need::Redis], || {
        let server = Server::start(ServerOptions::default())?;
        let mut client = server.client()?;
        client.must(&["XGROUP", "CREATE", "s", "g", "0", "MKSTREAM"])?;
        for (id, by) in [("1-1", "postrider-gone-0"), ("1-2", "other"), ("1-3", "another")] {
            client.must(&["XADD", "s", id, "p", "x"])?;
            client.must(&["XREADGROUP", "GROUP", "g", by, "STREAMS", "s", ">"])?;
            client.must(&["XCLAIM", "s", "g", by, "0", id, "IDLE", "9000", "RETRYCOUNT", "4"])?;
        }
        let source = |node: &str| {
            RedisStreams::new(StreamOptions {
                claim_after: Millis(1_000),
                ..streams(&server, "s", node)
            })
        };
        let taken = |deliveries: &[Delivery]| -> Vec<(u32, bool)> {
            let messages = deliveries.iter().map(Delivery::message);
            messages.map(|one| (one.deliveries, one.was_elsewhere)).collect()
        };
        runtime().block_on(async {
            let first = source("a");
            first.open().await.unwrap();
            let deliveries = first.receive(0, 9).await.unwrap();
            assert_eq!(taken(&deliveries), [(5, false), (5, true), (5, true)]);
            for delivery in deliveries {
                delivery.nack(Millis(0)).await.unwrap();
            }
            // Now it was this program that had them.
            let second = source("b");
            second.open().await.unwrap();
            let deliveries = second.receive(0, 9).await.unwrap();
            assert_eq!(taken(&deliveries), [(6, false), (6, false), (6, false)]);
            for delivery in deliveries {
                delivery.ack().await.unwrap();
            }
        });
        Ok(())
    })
}
