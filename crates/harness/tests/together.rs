//! What nodes over one Redis agree on: who is there, how many sessions a user may have, which tickets have started one;
//! and what becomes of it when one of them dies, or Redis is away.
//!
//! Each test has a Redis of its own. Where `redis-server` is missing they say `NOT RUN`, or fail with
//! `POSTRIDER_TEST_REDIS=required`.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]
#![allow(
    clippy::disallowed_methods,
    reason = "a black-box test is a driver: it reads clocks, spawns and draws"
)]

use anyhow::{Context, Result, anyhow, ensure};
use postrider_harness::fleet::{AS_IT_COMES, Fleet};
use postrider_harness::http::Cut;
use postrider_harness::inbox::{
    AckMode, Connect, Inbox, Received, Refused, TRANSPORTS, Transport, next_notification, wait_for,
};
use postrider_harness::machine::{self, Need};
use postrider_harness::node::{KEY, Node, NodeOptions, binary};
use postrider_harness::people::People;
use postrider_harness::publish::Publisher;
use postrider_harness::redis::{Fsync, Server, ServerOptions};
use postrider_harness::token;
use postrider_harness::user::User;
use postrider_harness::wait::{until, until_true, within};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// Two nodes over a Redis.
struct Bench {
    redis: Server,
    fleet: Fleet,
}

impl Bench {
    fn start(sets: &[(&str, &str)]) -> Result<Bench> {
        let redis = Server::start(ServerOptions::default())?;
        let sets = [&[("presence.linger", "500ms"), AS_IT_COMES], sets].concat();
        let fleet = Fleet::start(2, &redis.url(), &sets)?;
        let bench = Bench { redis, fleet };
        for node in &bench.fleet.nodes {
            until_true("the nodes know each other", within(20), || {
                Ok(node.metric("postrider_nodes")? == 2.0)
            })?;
        }
        Ok(bench)
    }

    fn node(&self, nth: usize) -> &Node {
        &self.fleet.nodes[nth]
    }

    fn people(&self, nth: usize) -> People {
        People::new(&self.node(nth).endpoint, KEY)
    }

    fn connect(&self, nth: usize, user: &str) -> Result<Connect> {
        Ok(Connect::new(&self.node(nth).endpoint, &token::user(user)?))
    }

    fn open(&self, nth: usize, user: &str, transport: Transport) -> Result<Box<dyn Inbox>> {
        self.connect(nth, user)?.open(transport)
    }

    /// Whether a user is online as this node tells it, and over which transports.
    fn online(&self, nth: usize, user: &str) -> Result<(bool, Vec<String>)> {
        let told = self
            .people(nth)
            .ask("GET", &format!("/v1/users/{user}/presence"))?;
        let sessions = told["sessions"].as_array().context("no sessions")?;
        let transports = sessions
            .iter()
            .map(|one| one["transport"].as_str().unwrap_or_default().to_owned());
        Ok((told["online"] == true, transports.collect()))
    }

    /// Waits until a node knows of so many sessions of a user, as it was told before.
    fn knows_sessions(&self, nth: usize, user: &str, sessions: usize) -> Result<()> {
        until_true("the sessions are known", within(20), || {
            Ok(self.online(nth, user)?.1.len() == sessions)
        })
    }

    fn publish(&self, nth: usize, user: &str) -> Result<String> {
        let notification = json!({"users": [user], "data": 1});
        Publisher::new(&self.node(nth).endpoint, KEY).accepted(&notification)
    }
}

fn run(name: &'static str, sets: &[(&str, &str)], test: impl FnOnce(&mut Bench) -> Result<()>) -> Result<()> {
    machine::run(name, &[Need::Redis], || {
        let mut bench = Bench::start(sets)?;
        test(&mut bench).with_context(|| {
            let logs = bench.fleet.nodes.iter().map(Node::log);
            logs.collect::<Vec<_>>().join("\n---\n")
        })
    })
}

#[test]
fn what_one_node_takes_the_other_delivers_on_every_transport() -> Result<()> {
    run(
        "what_one_node_takes_the_other_delivers_on_every_transport",
        &[],
        |bench| {
            for transport in TRANSPORTS {
                let user = format!("ada-{transport}");
                let mut inbox = bench.open(1, &user, transport)?;
                let id = bench.publish(0, &user)?;
                let got = next_notification(&mut *inbox, within(20))?;
                ensure!(got.id == id, "{transport}: {got:?}");
                inbox.cut(Cut::Close);
            }
            Ok(())
        },
    )
}

#[test]
fn a_cursor_of_one_node_goes_on_at_the_other() -> Result<()> {
    run("a_cursor_of_one_node_goes_on_at_the_other", &[], |bench| {
        bench.publish(0, "ada")?;
        let mut first = bench.connect(0, "ada")?.ack(AckMode::None).open(Transport::Sse)?;
        next_notification(&mut *first, within(20))?;
        let cursor = wait_for(&mut *first, within(20), "a cursor", |received| match received {
            Received::Cursor(cursor) => Some(cursor.clone()),
            _ => None,
        })?;
        first.cut(Cut::Close);
        let id = bench.publish(1, "ada")?;
        let mut second = bench
            .connect(1, "ada")?
            .ack(AckMode::None)
            .cursor(&cursor)
            .open(Transport::WebSocket)?;
        let got = next_notification(&mut *second, within(20))?;
        ensure!(got.id == id, "it goes on after what the first node sent: {got:?}");
        Ok(())
    })
}

#[test]
fn every_node_tells_who_is_on_any() -> Result<()> {
    run(
        "every_node_tells_who_is_on_any",
        &[("topics.open", r#"["*"]"#)],
        |bench| {
            let mut stream = bench.people(0).presence("?topic=news")?;
            ensure!(stream.snapshot(within(20))?.is_empty());
            let news: &[&str] = &["news"];
            let ada = bench.connect(0, "ada")?.topics(news).open(Transport::Sse)?;
            let again = bench.connect(1, "ada")?.topics(news).open(Transport::WebSocket)?;
            let bob = bench.connect(1, "bob")?.topics(news).open(Transport::Sse)?;
            stream.expect("join", "ada", within(20))?;
            stream.expect("join", "bob", within(20))?;
            for nth in 0..2 {
                until_true("both sessions of ada", within(20), || {
                    let (online, mut over) = bench.online(nth, "ada")?;
                    over.sort();
                    Ok(online && over == ["sse", "websocket"])
                })?;
                until_true("all of the topic", within(20), || {
                    let told = bench
                        .people(nth)
                        .ask("GET", "/v1/topics/news/presence?users=true&limit=10")?;
                    Ok(told["sessions"] == 3
                        && told["users"] == 2
                        && told["present"] == json!(["ada", "bob"]))
                })?;
            }
            // She is there as long as one node has her.
            ada.cut(Cut::Close);
            until_true("one session of ada", within(20), || {
                Ok(bench.online(0, "ada")?.1.len() == 1)
            })?;
            bob.cut(Cut::Close);
            stream.expect("leave", "bob", within(20))?;
            again.cut(Cut::Close);
            stream.expect("leave", "ada", within(20))?;
            until_true("nobody is there", within(20), || Ok(!bench.online(0, "ada")?.0))
        },
    )
}

#[test]
fn a_node_that_is_killed_leaves_no_ghost() -> Result<()> {
    run("a_node_that_is_killed_leaves_no_ghost", &[], |bench| {
        let mut stream = bench.people(0).presence("")?;
        ensure!(stream.snapshot(within(20))?.is_empty());
        let _ada = bench.open(1, "ada", Transport::Sse)?;
        let _bob = bench.open(0, "bob", Transport::Sse)?;
        let mut joined = BTreeSet::new();
        while joined.len() < 2 {
            let (event, told) = stream.event(within(20))?.context("the stream ended")?;
            ensure!(event == "join", "{event} {told}");
            joined.insert(told["user"].to_string());
        }
        until_true("the other node knows", within(20), || {
            Ok(bench.online(0, "ada")?.0)
        })?;
        bench.fleet.nodes[1].kill9()?;
        let killed = Instant::now();
        stream.expect("leave", "ada", within(60))?;
        let took = killed.elapsed();
        // The lease, the lingering, the pace of those who look, and a busy machine.
        ensure!(took < Duration::from_secs(30), "the ghost was there for {took:?}");
        ensure!(!bench.online(0, "ada")?.0 && bench.online(0, "bob")?.0);
        bench.fleet.nodes[1].restart()?;
        let _back = bench.open(1, "ada", Transport::Sse)?;
        stream.expect("join", "ada", within(20))?;
        bench.knows_sessions(0, "ada", 1)
    })
}

#[test]
fn the_limit_of_sessions_holds_over_nodes() -> Result<()> {
    run(
        "the_limit_of_sessions_holds_over_nodes",
        &[("limits.sessions_per_user", "3")],
        |bench| {
            let mut held = Vec::new();
            for nth in [0, 1, 0] {
                held.push(bench.open(nth, "ada", Transport::Sse)?);
            }
            for nth in [0, 1] {
                // A session that began on the other node within the last moment is not counted yet.
                let refused = until("the limit", within(20), || {
                    match bench.connect(nth, "ada")?.open(Transport::Sse) {
                        Ok(one_more) => one_more.cut(Cut::Close),
                        Err(refused) => return Ok(Some(refused.downcast::<Refused>()?.0)),
                    }
                    Ok(None)
                })?;
                ensure!(refused.status() == 429, "{}", refused.text());
                ensure!(
                    refused.code().as_deref() == Some("session_limit"),
                    "{}",
                    refused.text()
                );
                let mut socket = bench.open(nth, "ada", Transport::WebSocket)?;
                let end = loop {
                    if let Some(Received::End(end)) = socket.next(within(20))? {
                        break end;
                    }
                };
                ensure!(format!("{end:?}").contains("4002"), "{end:?}");
            }
            let _other = bench.open(1, "bob", Transport::Sse)?;
            held.pop().context("one is held")?.cut(Cut::Close);
            until("there is room again", within(20), || {
                Ok(bench.open(1, "ada", Transport::Sse).ok())
            })?;
            Ok(())
        },
    )
}

#[test]
fn the_last_place_goes_to_one_of_those_who_come_at_once() -> Result<()> {
    run(
        "the_last_place_goes_to_one_of_those_who_come_at_once",
        &[("limits.sessions_per_user", "2")],
        |bench| {
            for round in 0..10 {
                let user = format!("user-{round}");
                let _first = bench.open(0, &user, Transport::Sse)?;
                bench.knows_sessions(1, &user, 1)?;
                let connects = [bench.connect(1, &user)?, bench.connect(1, &user)?];
                let came: Vec<_> = thread::scope(|scope| {
                    let opening = connects
                        .iter()
                        .map(|connect| scope.spawn(|| connect.open(Transport::Sse)));
                    let opening: Vec<_> = opening.collect();
                    opening.into_iter().map(|one| one.join()).collect()
                });
                let mut let_in = 0;
                for came in came {
                    match came.map_err(|_| anyhow!("a thread ended"))? {
                        Ok(_) => let_in += 1,
                        Err(refused) => {
                            let refused = refused.downcast::<Refused>()?.0;
                            ensure!(refused.code().as_deref() == Some("session_limit"));
                        }
                    }
                }
                ensure!(let_in == 1, "{let_in} of two took the one place of {user}");
            }
            Ok(())
        },
    )
}

#[test]
fn a_place_that_was_left_on_one_node_is_free_on_the_other() -> Result<()> {
    run(
        "a_place_that_was_left_on_one_node_is_free_on_the_other",
        &[("limits.sessions_per_user", "1")],
        |bench| {
            let mut held = bench.open(0, "ada", Transport::WebSocket)?;
            for nth in [1, 0, 1, 0, 1] {
                bench.knows_sessions(nth, "ada", 1)?;
                held.cut(Cut::Close);
                // At once, as a client does that a balancer leads elsewhere.
                held = bench.open(nth, "ada", Transport::Sse)?;
            }
            // A place that a node took with it is free when its lease has ended: till then clients come back often.
            bench.knows_sessions(0, "ada", 1)?;
            bench.fleet.nodes[1].kill9()?;
            let refused = bench.connect(0, "ada")?.refusal(Transport::Sse)?;
            ensure!(
                refused.code().as_deref() == Some("session_limit"),
                "{}",
                refused.text()
            );
            ensure!(
                refused.head.header("retry-after") == Some("5"),
                "{}",
                refused.text()
            );
            let mut socket = bench.open(0, "ada", Transport::WebSocket)?;
            let end = loop {
                if let Some(Received::End(end)) = socket.next(within(20))? {
                    break end;
                }
            };
            ensure!(format!("{end:?}").contains("5000"), "{end:?}");
            until("the place is free", within(20), || {
                Ok(bench.open(0, "ada", Transport::Sse).ok())
            })?;
            Ok(())
        },
    )
}

#[test]
fn a_ticket_of_one_node_starts_one_session_at_any() -> Result<()> {
    run("a_ticket_of_one_node_starts_one_session_at_any", &[], |bench| {
        let with = |nth: usize, ticket: &str| {
            Connect::new(&bench.node(nth).endpoint, "")
                .without_token()
                .query("ticket", ticket)
        };
        for (made, used) in [(0, 1), (1, 0), (0, 0)] {
            let ticket = User::new(&bench.node(made).endpoint, "ada")?.ticket()?;
            let mut inbox = with(used, &ticket).ack(AckMode::None).open(Transport::Sse)?;
            let id = bench.publish(made, "ada")?;
            loop {
                if next_notification(&mut *inbox, within(20))?.id == id {
                    break;
                }
            }
            let cursor = wait_for(&mut *inbox, within(20), "a cursor", |received| match received {
                Received::Cursor(cursor) => Some(cursor.clone()),
                _ => None,
            })?;
            for nth in 0..2 {
                let refused = with(nth, &ticket).refusal(Transport::Sse)?;
                ensure!(
                    refused.code().as_deref() == Some("token_expired"),
                    "{}",
                    refused.text()
                );
                let _again = with(nth, &ticket).cursor(&cursor).open(Transport::Sse)?;
            }
        }
        Ok(())
    })
}

#[test]
fn a_node_is_not_ready_while_redis_is_away_and_then_is_again() -> Result<()> {
    run(
        "a_node_is_not_ready_while_redis_is_away_and_then_is_again",
        &[],
        |bench| {
            let mut inbox = bench.open(1, "ada", Transport::Sse)?;
            bench.redis.kill9()?;
            let told = until("the node says so", within(20), || {
                let (status, told) = bench.node(0).ready()?;
                Ok((status == 503).then_some(told))
            })?;
            let reason = told["reason"].as_str().unwrap_or_default();
            ensure!(reason.contains("Redis"), "{told}");
            ensure!(bench.node(0).metric("postrider_redis_down")? == 1.0);
            bench.redis.restart()?;
            until_true("the node is ready", within(20), || {
                Ok(bench.node(0).ready()?.0 == 200)
            })?;
            let id = until("it takes notifications", within(20), || {
                Ok(bench.publish(0, "ada").ok())
            })?;
            loop {
                if next_notification(&mut *inbox, within(20))?.id == id {
                    return Ok(());
                }
            }
        },
    )
}

#[test]
fn a_full_redis_is_told_as_full_until_it_is_not_and_nodes_can_start_meanwhile() -> Result<()> {
    let name = "a_full_redis_is_told_as_full_until_it_is_not_and_nodes_can_start_meanwhile";
    run(name, &[], |bench| {
        bench.publish(0, "ada")?;
        let mut client = bench.redis.client()?;
        client.must(&["CONFIG", "SET", "maxmemory", "1"])?;
        let notification = json!({"users": ["ada"], "data": 1});
        let answer = Publisher::new(&bench.node(0).endpoint, KEY).one(&notification)?;
        let said = answer.text();
        ensure!(answer.status() == 503 && said.contains("maxmemory"), "{said}");
        ensure!(answer.head.header("retry-after") == Some("30"), "{said}");
        // Longer than it takes a node to do several times all that it does by itself.
        let end = Instant::now() + Duration::from_secs(3);
        while Instant::now() < end {
            let (status, told) = bench.node(0).ready()?;
            let reason = told["reason"].as_str().unwrap_or_default();
            ensure!(status == 503 && reason.contains("maxmemory"), "{told}");
            thread::sleep(Duration::from_millis(50));
        }
        let url = bench.redis.url();
        let sets = [("engine.type", "redis"), ("engine.redis.url", url.as_str())];
        drop(Node::start(&sets)?);
        client.must(&["CONFIG", "SET", "maxmemory", "0"])?;
        until_true("the node is ready", within(20), || {
            Ok(bench.node(0).ready()?.0 == 200)
        })?;
        bench.publish(0, "ada").map(drop)
    })
}

#[test]
fn a_node_does_not_start_where_redis_would_lose_what_it_took() -> Result<()> {
    let name = "a_node_does_not_start_where_redis_would_lose_what_it_took";
    machine::run(name, &[Need::Redis], || {
        let evicting = ServerOptions::default()
            .with("maxmemory", "64mb")
            .with("maxmemory-policy", "allkeys-lru");
        let table = [
            (evicting, "none", "maxmemory-policy noeviction"),
            (
                ServerOptions::fsync(Fsync::EverySecond),
                "aof",
                "appendfsync always",
            ),
            (ServerOptions::default(), "wait:1", ""),
        ];
        for (options, durability, mend) in table {
            let redis = Server::start(options)?;
            let url = redis.url();
            let sets = [
                ("engine.type", "redis"),
                ("engine.redis.url", url.as_str()),
                ("engine.redis.durability", durability),
            ];
            match mend {
                // A replica may come later.
                "" => drop(Node::start(&sets)?),
                _ => {
                    let refusal = Node::refusal(NodeOptions::sets(&sets))?;
                    ensure!(refusal.to_string().contains(mend), "{refusal}");
                }
            }
        }
        Ok(())
    })
}

/// What `postrider doctor` says of a Redis: its exit status, and its findings.
fn doctor(redis: &Server, durability: &str) -> Result<(Option<i32>, Value)> {
    let url = format!("engine.redis.url={}", redis.url());
    let durability = format!("engine.redis.durability={durability}");
    let mut command = Command::new(binary()?);
    command.args([
        "doctor",
        "--json",
        "--set",
        "engine.type=redis",
        "--set",
        &url,
        "--set",
        &durability,
    ]);
    command.args([
        "--set",
        "http.listen=127.0.0.1:0",
        "--set",
        "ops.listen=127.0.0.1:0",
    ]);
    command.args(["--set", "auth.jwt.hmac_secret=a secret of 32 bytes or more, here"]);
    command.args([
        "--set",
        r#"auth.api_keys=[{"name":"a","key":"a key of 16 bytes or more","scopes":["publish"]}]"#,
    ]);
    let output = command.output()?;
    Ok((output.status.code(), serde_json::from_slice(&output.stdout)?))
}

/// How one thing stands, and how to mend it.
fn verdict<'f>(findings: &'f Value, check: &str) -> Result<(&'f str, &'f str)> {
    let all = findings["findings"].as_array().context("no findings")?;
    let found = all.iter().find(|finding| finding["check"] == check);
    let found = found.with_context(|| format!("{check} was not looked at: {findings}"))?;
    Ok((
        found["verdict"].as_str().unwrap_or_default(),
        found["mend"].as_str().unwrap_or_default(),
    ))
}

#[test]
fn the_doctor_says_what_is_wrong_with_a_redis_and_changes_nothing() -> Result<()> {
    machine::run("the_doctor_and_redis", &[Need::Redis], || {
        let mut redis = Server::start(ServerOptions::default())?;
        let (status, findings) = doctor(&redis, "aof")?;
        ensure!(status == Some(0), "{findings}");
        for check in [
            "redis version",
            "redis role",
            "redis eviction",
            "redis persistence",
            "redis clock",
        ] {
            ensure!(verdict(&findings, check)?.0 == "ok", "{check}: {findings}");
        }
        let mut client = redis.client()?;
        ensure!(client.must(&["DBSIZE"])?.text() == "0");
        ensure!(client.must(&["FUNCTION", "LIST"])?.list().is_empty());
        client.must(&[
            "CONFIG",
            "SET",
            "maxmemory-policy",
            "allkeys-lru",
            "appendfsync",
            "everysec",
        ])?;
        let (status, findings) = doctor(&redis, "aof")?;
        ensure!(status == Some(1), "{findings}");
        for (check, mend) in [
            ("redis eviction", "noeviction"),
            ("redis persistence", "appendfsync always"),
        ] {
            let (word, said) = verdict(&findings, check)?;
            ensure!(word == "fault" && said.contains(mend), "{check}: {findings}");
        }
        let (_, findings) = doctor(&redis, "wait:1")?;
        ensure!(verdict(&findings, "redis replicas")?.0 == "fault", "{findings}");
        redis.stop()?;
        let (status, findings) = doctor(&redis, "none")?;
        ensure!(
            status == Some(1) && verdict(&findings, "redis")?.0 == "fault",
            "{findings}"
        );
        Ok(())
    })
}
