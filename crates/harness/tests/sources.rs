//! Notifications taken from a real Redis, by `XADD` and `PUBLISH`, and received over every transport.

#![allow(missing_docs, clippy::unwrap_used)]
#![allow(
    clippy::disallowed_methods,
    reason = "a black-box test is a driver: it reads clocks, spawns and draws"
)]

use anyhow::{Context, Result, ensure};
use postrider_harness::http::{Request, once};
use postrider_harness::inbox::{AckMode, Connect, Inbox, Received, TRANSPORTS, Transport, next_notification};
use postrider_harness::machine::{self, Need};
use postrider_harness::node::{KEY, Node};
use postrider_harness::people::People;
use postrider_harness::proxy::{Proxy, Weather};
use postrider_harness::redis::{Client, Server, ServerOptions};
use postrider_harness::token;
use postrider_harness::user::User;
use postrider_harness::wait::{until, until_true, within};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// The engine is away for so long: several times `claim_after`.
const AWAY: Duration = Duration::from_secs(4);
/// Who holds something may be late to say so by this, which is less than what is left of [`AWAY`].
const LATE_AT_MOST: Duration = Duration::from_secs(2);

fn run(test: &str, body: fn(Server) -> Result<()>) {
    let done = machine::run(test, &[Need::Redis], || {
        body(Server::start(ServerOptions::default())?)
    });
    if let Err(error) = done {
        panic!("{error:?}");
    }
}

/// A node with one source of this type, named `s`.
fn start(redis: &Server, kind: &str, sets: &[(&str, &str)]) -> Result<Node> {
    let own: Vec<(String, &str)> = sets
        .iter()
        .map(|(key, value)| (format!("sources.s.{key}"), *value))
        .collect();
    let url = redis.url();
    let mut all = vec![("sources.s.type", kind), ("sources.s.url", url.as_str())];
    all.extend(own.iter().map(|(key, value)| (key.as_str(), *value)));
    Node::start(&all)
}

fn stream_node(redis: &Server, sets: &[(&str, &str)]) -> Result<Node> {
    start(
        redis,
        "redis_streams",
        &[&[("stream", "s"), ("claim_after", "1s")], sets].concat(),
    )
}

fn connect(node: &Node, user: &str) -> Result<Connect> {
    Ok(Connect::new(&node.endpoint, &token::user(user)?))
}

fn metric(node: &Node, line: &str) -> Result<Option<String>> {
    let text = once(node.ops, &Request::new("GET", "/metrics"))?.text();
    Ok(text
        .lines()
        .find_map(|known| known.strip_prefix(line))
        .map(|value| value.trim().to_owned()))
}

fn is_ready(node: &Node) -> Result<bool> {
    Ok(metric(node, "postrider_source_ready{source=\"s\"}")?.as_deref() == Some("1"))
}

/// Nothing is held by any consumer, and nothing waits.
fn is_settled(client: &mut Client) -> Result<bool> {
    let pending = client.must(&["XPENDING", "s", "postrider"])?;
    Ok(pending.list().first().map(|count| count.text()).as_deref() == Some("0"))
}

#[test]
fn entries_of_a_stream_reach_every_transport() {
    run("entries_of_a_stream_reach_every_transport", |redis| {
        let mut client = redis.client()?;
        client.must(&[
            "XADD",
            "s",
            "*",
            "users",
            "ada",
            "data",
            r#"{"order": 7}"#,
            "id",
            "order-7",
        ])?;
        client.must(&[
            "XADD",
            "s",
            "*",
            "users",
            r#"["ada","bob"]"#,
            "data",
            "plain",
            "subject",
            "Hi",
        ])?;
        let node = stream_node(&redis, &[])?;
        for transport in TRANSPORTS {
            let mut session = connect(&node, "ada")?.ack(AckMode::None).open(transport)?;
            let first = next_notification(&mut *session, within(60))?;
            ensure!(
                (first.id.as_str(), first.data.as_str()) == ("order-7", r#"{"order":7}"#),
                "{first:?}"
            );
            let second = next_notification(&mut *session, within(60))?;
            ensure!(
                (second.data.as_str(), second.subject.as_deref()) == (r#""plain""#, Some("Hi")),
                "{second:?}"
            );
        }
        until_true("all is acknowledged", within(60), || is_settled(&mut client))?;
        let count = metric(&node, "postrider_notifications_accepted_total{source=\"s\"}")?;
        ensure!(count.as_deref() == Some("2"), "{count:?}");
        Ok(())
    });
}

#[test]
fn a_bad_entry_becomes_a_dead_letter_and_harms_no_other() {
    run("a_bad_entry_becomes_a_dead_letter", |redis| {
        let mut client = redis.client()?;
        client.must(&["XADD", "s", "*", "users", "ada", "data", "1"])?;
        client.must(&["XADD", "s", "*", "users", "ada", "date", "no data"])?;
        client.must(&["XADD", "s", "*", "data", "for everyone"])?;
        client.must(&["XADD", "s", "*", "users", "ada", "data", "2"])?;
        let node = stream_node(&redis, &[])?;
        let mut session = connect(&node, "ada")?.open(Transport::Sse)?;
        ensure!(next_notification(&mut *session, within(60))?.data == "1");
        ensure!(next_notification(&mut *session, within(60))?.data == "2");
        let mut people = People::new(&node.endpoint, KEY);
        let letters: Vec<Value> = until("both dead letters", within(60), || {
            let page = people.ask("GET", "/v1/dead-letters?source=s&reason=undecodable")?;
            let letters = page["dead_letters"].as_array().cloned().unwrap_or_default();
            Ok((letters.len() == 2).then_some(letters))
        })?;
        // The fields, each as name, line break, value, line break.
        let raw = "dXNlcnMKYWRhCmRhdGUKbm8gZGF0YQo=";
        ensure!(
            letters[0]["raw_base64"] == json!(raw) && letters[0]["source"] == json!("s"),
            "{letters:?}"
        );
        // Each says what was wrong with it, and not with the other.
        let details = letters
            .iter()
            .map(|letter| letter["detail"].as_str().unwrap_or_default());
        let details: Vec<_> = details.collect();
        ensure!(
            details.iter().all(|detail| !detail.is_empty()) && details[0] != details[1],
            "{letters:?}"
        );
        until_true("all is acknowledged", within(60), || is_settled(&mut client))
    });
}

#[test]
fn an_entry_stays_in_its_stream_until_it_is_delivered() {
    run("an_entry_stays_until_it_is_delivered", |redis| {
        let mut client = redis.client()?;
        let node = stream_node(
            &redis,
            &[
                ("settle_on", "delivered"),
                ("deliver_within", "1s"),
                ("retry", "100ms"),
                ("max_deliveries", "1000"),
            ],
        )?;
        client.must(&["XADD", "s", "*", "users", "ada", "data", "1", "id", "one"])?;
        // It is given back, comes again, and is still one notification.
        let given_back = || -> Result<bool> {
            let count = metric(&node, "postrider_source_given_back_total{source=\"s\"}")?;
            Ok(count
                .and_then(|count| count.parse::<u64>().ok())
                .is_some_and(|count| count >= 2))
        };
        until_true("it was given back twice", within(60), given_back)?;
        ensure!(!is_settled(&mut client)?, "acknowledged before anybody had it");
        let user = User::new(&node.endpoint, "ada")?;
        ensure!(user.pending()? == ["one"]);
        user.ack(&["one"])?;
        until_true("it is acknowledged", within(60), || is_settled(&mut client))
    });
}

#[test]
fn a_crash_between_storing_and_acknowledging_is_one_notification() {
    run("a_crash_between_storing_and_acknowledging", |redis| {
        let mut client = redis.client()?;
        // What is stored is not acknowledged as long as nobody has it: a crash leaves it so.
        let mut node = stream_node(&redis, &[("settle_on", "delivered"), ("deliver_within", "1d")])?;
        client.must(&["XADD", "s", "*", "users", "ada", "data", "1"])?;
        let user = User::new(&node.endpoint, "ada")?;
        let before = until("it is stored", within(60), || {
            let pending = user.pending()?;
            Ok((pending.len() == 1).then_some(pending))
        })?;
        node.kill9()?;
        node.restart()?;
        let redelivered = || -> Result<bool> {
            let count = metric(&node, "postrider_source_redelivered_total{source=\"s\"}")?;
            Ok(count.as_deref() == Some("1"))
        };
        until_true("it came again", within(60), redelivered)?;
        client.must(&["XADD", "s", "*", "users", "ada", "data", "2"])?;
        until_true("the next is there", within(60), || Ok(user.pending()?.len() > 1))?;
        let after = user.pending()?;
        ensure!(
            after.len() == 2 && after.contains(&before[0]),
            "{before:?}, then {after:?}"
        );
        Ok(())
    });
}

#[test]
fn a_source_that_is_away_shows_and_comes_back() {
    run("a_source_that_is_away_shows", |mut redis| {
        redis.kill9()?;
        let node = stream_node(&redis, &[])?;
        let told = once(node.ops, &Request::new("GET", "/ready"))?;
        ensure!(
            told.status() == 200 && told.json()?["awaiting"] == json!(["s"]),
            "{}",
            told.text()
        );
        ensure!(!is_ready(&node)?);
        redis.restart()?;
        until_true("it is there", within(60), || is_ready(&node))?;
        redis.pause()?;
        until_true("it is away", within(60), || Ok(!is_ready(&node)?))?;
        redis.resume()?;
        redis
            .client()?
            .must(&["XADD", "s", "*", "users", "ada", "data", "1"])?;
        let mut session = connect(&node, "ada")?.open(Transport::Sse)?;
        ensure!(next_notification(&mut *session, within(60))?.data == "1");
        until_true("it is there again", within(60), || is_ready(&node))
    });
}

#[test]
fn while_the_engine_is_away_a_batch_is_held_and_nothing_of_it_is_lost() {
    run("while_the_engine_is_away_a_batch_is_held", |redis| {
        let behind = Server::start(ServerOptions::default())?;
        let proxy = Proxy::start(&[behind.addr()])?;
        let mut client = redis.client()?;
        let engine = format!("redis://{}", proxy.addr());
        let url = redis.url();
        let node = Node::start(&[
            ("engine.type", "redis"),
            ("engine.redis.url", &engine),
            ("sources.s.type", "redis_streams"),
            ("sources.s.url", &url),
            ("sources.s.stream", "s"),
            ("sources.s.claim_after", "1s"),
            ("sources.s.max_deliveries", "1"),
        ])?;
        until_true("it is there", within(60), || is_ready(&node))?;
        proxy.weather(Weather {
            holds: true,
            ..Weather::default()
        });
        // In one go, so that they are one batch.
        client.must(&["EVAL", "for _, data in ipairs({'data', 'date', 'data'}) do redis.call('XADD', 's', '*', 'users', 'ada', data, '1') end", "0"])?;
        let pending = |client: &mut Client, idle: &str| -> Result<usize> {
            let answer = client.must(&["XPENDING", "s", "postrider", "IDLE", idle, "-", "+", "9"])?;
            Ok(answer.list().len())
        };
        until_true("they are taken", within(60), || {
            Ok(pending(&mut client, "0")? == 3)
        })?;
        let over = Instant::now() + AWAY;
        let mut free_since = None::<Instant>;
        while Instant::now() < over {
            // A machine that stood still has the node be late for a moment.
            free_since = match pending(&mut client, "1000")? {
                0 => None,
                _ => free_since.or_else(|| Some(Instant::now())),
            };
            ensure!(
                free_since.is_none_or(|since| since.elapsed() < LATE_AT_MOST),
                "another node could take it over"
            );
            std::thread::park_timeout(Duration::from_millis(10));
        }
        proxy.clear();
        until_true("all is settled", within(60), || is_settled(&mut client))?;
        let user = User::new(&node.endpoint, "ada")?;
        ensure!(user.pending()?.len() == 2, "{:?}", user.pending()?);
        let mut people = People::new(&node.endpoint, KEY);
        let page = people.ask("GET", "/v1/dead-letters?source=s")?;
        let letters = page["dead_letters"].as_array().context("a list")?;
        ensure!(
            letters.len() == 1 && letters[0]["reason"] == "undecodable",
            "{page}"
        );
        Ok(())
    });
}

#[test]
fn an_entry_that_was_given_out_too_often_has_one_try_more() {
    run("an_entry_has_one_try_more", |redis| {
        let mut client = redis.client()?;
        client.must(&["XGROUP", "CREATE", "s", "postrider", "0", "MKSTREAM"])?;
        // As nodes leave them that ended while they had them; and as another program does, which is no word on this one.
        for (id, given_out, by) in [
            ("1-1", "2", "postrider-gone-0"),
            ("1-2", "3", "postrider-gone-0"),
            ("1-3", "9", "other"),
        ] {
            client.must(&["XADD", "s", id, "users", "ada", "data", "1"])?;
            client.must(&["XREADGROUP", "GROUP", "postrider", by, "STREAMS", "s", ">"])?;
            client.must(&[
                "XCLAIM",
                "s",
                "postrider",
                by,
                "0",
                id,
                "IDLE",
                "5000",
                "RETRYCOUNT",
                given_out,
            ])?;
        }
        let node = stream_node(&redis, &[("max_deliveries", "2")])?;
        until_true("all is settled", within(60), || is_settled(&mut client))?;
        let user = User::new(&node.endpoint, "ada")?;
        ensure!(user.pending()?.len() == 2, "{:?}", user.pending()?);
        let mut people = People::new(&node.endpoint, KEY);
        let page = people.ask("GET", "/v1/dead-letters?source=s")?;
        let letters = page["dead_letters"].as_array().context("a list")?;
        ensure!(
            letters.len() == 1 && letters[0]["reason"] == "max_attempts",
            "{page}"
        );
        Ok(())
    });
}

#[test]
fn a_drain_gives_back_what_waits_and_leaves_no_consumer() {
    run("a_drain_gives_back_what_waits", |redis| {
        let mut client = redis.client()?;
        let mut node = stream_node(
            &redis,
            &[
                ("settle_on", "delivered"),
                ("deliver_within", "1d"),
                ("claim_after", "1h"),
            ],
        )?;
        client.must(&["XADD", "s", "*", "users", "ada", "data", "1"])?;
        let user = User::new(&node.endpoint, "ada")?;
        until_true("it is stored", within(60), || Ok(user.pending()?.len() == 1))?;
        node.signal_term()?;
        let status = node.wait_exit(Duration::from_secs(20))?;
        ensure!(status.success(), "{status}");
        // Given back, so that it is another node's at once, and not after an hour.
        let pending = client.must(&["XPENDING", "s", "postrider", "IDLE", "3500000", "-", "+", "9"])?;
        ensure!(pending.list().len() == 1, "{pending:?}");
        Ok(())
    });
}

/// The channel of `name` has this many subscribers.
fn subscribers(client: &mut Client, name: &str) -> Result<String> {
    let answer = client.must(&["PUBSUB", "NUMSUB", name])?;
    Ok(answer.list().get(1).context("a count")?.text())
}

/// Publishes until the session has it: a poll that is not waiting misses what is transient. It may come more than once, so
/// that what `before` it was published may come still.
fn published(
    client: &mut Client,
    channel: &str,
    payload: &str,
    session: &mut dyn Inbox,
    before: &str,
) -> Result<String> {
    let deadline = within(60);
    loop {
        client.must(&["PUBLISH", channel, payload])?;
        let soon = Instant::now() + Duration::from_millis(500);
        while let Some(received) = session.next(soon)? {
            if let Received::Notification(one) = received
                && one.data != before
            {
                return Ok(one.data);
            }
        }
        ensure!(Instant::now() < deadline, "it did not come");
    }
}

#[test]
fn what_is_published_for_a_user_or_topic_reaches_its_sessions() {
    run("what_is_published_reaches_its_sessions", |redis| {
        let mut client = redis.client()?;
        let url = redis.url();
        let node = Node::start(&[
            ("topics.open", r#"["*"]"#),
            ("sources.s.type", "redis_pubsub"),
            ("sources.s.url", &url),
            ("sources.s.channel", "n:{user}"),
            ("sources.s.topic_channel", "t:{topic}"),
            ("sources.s.linger", "0s"),
            ("presence.linger", "60s"),
        ])?;
        for transport in TRANSPORTS {
            let mut session = connect(&node, "ada")?.topics(&["news"]).open(transport)?;
            let hello = published(&mut client, "n:ada", "hello", &mut *session, "")?;
            ensure!(hello == r#""hello""#, "{hello}");
            let news = published(&mut client, "t:news", "{\"a\": 1}", &mut *session, &hello)?;
            ensure!(news == r#"{"a":1}"#, "{news}");
            drop(session);
        }
        // After the source's linger, and not that of presence beside it.
        until_true("the channels are left", within(60), || {
            Ok(subscribers(&mut client, "n:ada")? == "0")
        })?;
        client.must(&["PUBLISH", "n:ada", "to nobody"])?;
        Ok(())
    });
}

#[test]
fn fixed_channels_and_patterns_are_decoded() {
    run("fixed_channels_and_patterns", |redis| {
        let mut client = redis.client()?;
        let node = start(
            &redis,
            "redis_pubsub",
            &[
                ("patterns", r#"["push.*"]"#),
                ("decoder", "pusher"),
                ("broadcast", "true"),
            ],
        )?;
        let mut session = connect(&node, "ada")?.open(Transport::WebSocket)?;
        let to_ada = r#"{"users":["ada"],"data":{"n":1}}"#;
        ensure!(published(&mut client, "push.a", to_ada, &mut *session, "")? == r#"{"n":1}"#);
        client.must(&["PUBLISH", "push.b", "no JSON"])?;
        client.must(&["PUBLISH", "push.b", r#"{"exclude_users":["ada"],"data":2}"#])?;
        client.must(&["PUBLISH", "push.b", r#"{"data":3}"#])?;
        until("what is for everyone", within(60), || {
            let one = next_notification(&mut *session, within(60))?;
            ensure!(one.data != "2", "it was for others");
            Ok((one.data == "3").then_some(()))
        })
    });
}
