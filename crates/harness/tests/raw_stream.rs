//! The raw dialect from outside: bare bodies over `GET /notifications`, what counts as delivered, how refusals are told,
//! and a queue that stays the store of what is for users who are away.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test says where it stands"
)]

use anyhow::{Context as _, Result, bail, ensure};
use postrider_harness::http::{Conn, Cut, Head, Piece, Request, once};
use postrider_harness::inbox::{Connect, Transport, next_notification};
use postrider_harness::machine::{self, Need};
use postrider_harness::node::{KEY, Node, NodeOptions};
use postrider_harness::publish::Publisher;
use postrider_harness::redis::{Client, Server, ServerOptions};
use postrider_harness::tls::Authority;
use postrider_harness::wait::{until_true, within};
use postrider_harness::{raw, token};
use serde_json::{Value, json};

const DIALECT: [(&str, &str); 4] = [
    ("raw.path", "/notifications"),
    ("raw.health", "/health"),
    ("ack.flush", "50ms"),
    ("ack.probe", "50ms"),
];

fn node(more: &[(&str, &str)]) -> Result<Node> {
    Node::start(&[&DIALECT, more].concat())
}

/// A client of the dialect.
struct Stream(Conn);

impl Stream {
    fn open(node: &Node, user: &str) -> Result<(Stream, Head)> {
        Stream::over(node.endpoint.connect(None)?, user)
    }

    fn over(mut conn: Conn, user: &str) -> Result<(Stream, Head)> {
        let request = Request::new("GET", "/notifications").bearer(&token::user(user)?);
        conn.write(&request.bytes())?;
        let head = conn.head(within(60))?.context("no head")?;
        ensure!(head.status == 200, "{head:?}");
        Ok((Stream(conn), head))
    }

    /// Reads exactly these bytes next.
    fn expect(&mut self, text: &str) -> Result<()> {
        let mut read = Vec::new();
        while read.len() < text.len() {
            match self.0.piece(within(60))? {
                Piece::Bytes(bytes) => read.extend(bytes),
                other => bail!("{other:?} after {:?}", String::from_utf8_lossy(&read)),
            }
        }
        ensure!(
            read == text.as_bytes(),
            "{:?} instead of {text:?}",
            String::from_utf8_lossy(&read)
        );
        Ok(())
    }
}

fn delivered(publisher: &mut Publisher, id: &str) -> Result<()> {
    until_true("it is delivered", within(60), || {
        Ok(publisher.count(id, "delivered")? == 1)
    })
}

#[test]
fn bodies_come_bare_and_count_once_the_client_has_them() -> Result<()> {
    let node = node(&[])?;
    let mut publisher = Publisher::new(&node.endpoint, KEY);
    let waiting = publisher.accepted(&json!({"users": ["ada"], "data": {"waited": true}}))?;
    ensure!(publisher.count(&waiting, "pending")? == 1);
    let (mut ada, head) = Stream::open(&node, "ada")?;
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-cache"),
    ] {
        ensure!(head.header(name) == Some(value), "{head:?}");
    }
    ada.expect(r#"{"waited":true}"#)?;
    delivered(&mut publisher, &waiting)?;
    let (mut second, _) = Stream::open(&node, "ada")?;
    let (mut bob, _) = Stream::open(&node, "bob")?;
    for (data, body) in [
        (json!([1, 2]), "[1,2]"),
        (
            json!("plain, \"quoted\"\nand on the next line: ü"),
            "plain, \"quoted\"\nand on the next line: ü",
        ),
        (json!({"a": "b"}), r#"{"a":"b"}"#),
    ] {
        let id = publisher.accepted(&json!({"users": ["ada"], "data": data}))?;
        ada.expect(body)?;
        second.expect(body)?;
        delivered(&mut publisher, &id)?;
    }
    publisher.accepted(&json!({"users": ["bob"], "data": "for bob"}))?;
    bob.expect("for bob")?;
    // Broadcasts, and what is kept nowhere, come by the same way; marks do not.
    publisher.accepted(&json!({"data": 7, "durability": "transient"}))?;
    let withdrawn = publisher.accepted(&json!({"data": "all"}))?;
    ada.expect("7all")?;
    publisher.cancel(&withdrawn)?;
    publisher.accepted(&json!({"users": ["ada"], "data": "end"}))?;
    ada.expect("end")
}

/// Each message on a stream of its own, which the client closes as soon as it has the last byte.
fn each_is_delivered_to_who_leaves_at_once(node: &Node) -> Result<()> {
    let mut publisher = Publisher::new(&node.endpoint, KEY);
    for nth in 0..5 {
        let data = format!("the {nth}th");
        let (mut ada, _) = Stream::open(node, "ada")?;
        let id = publisher.accepted(&json!({"users": ["ada"], "data": data}))?;
        ada.expect(&data)?;
        ada.0.leave()?;
        delivered(&mut publisher, &id)?;
    }
    Ok(())
}

#[test]
fn who_takes_a_message_and_leaves_at_once_has_it() -> Result<()> {
    each_is_delivered_to_who_leaves_at_once(&node(&[])?)
}

#[test]
fn what_a_client_does_not_take_is_not_delivered() -> Result<()> {
    let node = node(&[])?;
    let mut publisher = Publisher::new(&node.endpoint, KEY);
    let conn = Conn::open(node.endpoint.addr()?, Some(raw::SMALL_BUFFER))?;
    let (slow, _) = Stream::over(conn, "ada")?;
    // More than both sockets' buffers hold: the last bytes stay with the node.
    let large = "x".repeat(200_000);
    let ids: Vec<String> = (0..40)
        .map(|n| publisher.accepted(&json!({"users": ["ada"], "data": format!("{n:02}{large}")})))
        .collect::<Result<_>>()?;
    delivered_or_pending(&mut publisher, &ids)?;
    slow.0.cut(Cut::Reset);
    let last = ids.last().context("there are some")?;
    ensure!(publisher.count(last, "pending")? == 1, "nobody took it");
    let (mut ada, _) = Stream::open(&node, "ada")?;
    let mut read = Vec::new();
    while !read.ends_with(format!("39{large}").as_bytes()) {
        match ada.0.piece(within(60))? {
            Piece::Bytes(bytes) => read.extend(bytes),
            other => bail!("{other:?} after {} bytes", read.len()),
        }
    }
    delivered(&mut publisher, last)
}

/// Each is one or the other, whoever took how much of them.
fn delivered_or_pending(publisher: &mut Publisher, ids: &[String]) -> Result<()> {
    for id in ids {
        // In one look: it may turn from one into the other at any time.
        let counts = publisher.look(id)?.json()?["counts"].take();
        let known = ["delivered", "pending"].map(|state| counts[state].as_u64().unwrap_or(0));
        ensure!(known.iter().sum::<u64>() == 1, "{id} is nowhere: {counts}");
    }
    Ok(())
}

#[test]
fn a_stream_ends_when_its_time_is_over_and_when_the_node_drains() -> Result<()> {
    let mut node = node(&[("raw.max_time", "1s")])?;
    let (mut ada, _) = Stream::open(&node, "ada")?;
    ensure!(ada.0.rest(within(60))?.is_empty(), "not a word of its own");
    let (mut bob, _) = Stream::open(&node, "bob")?;
    node.signal_term()?;
    ensure!(bob.0.rest(within(60))?.is_empty());
    ensure!(node.wait_exit(std::time::Duration::from_secs(20))?.success());
    Ok(())
}

fn refusal(node: &Node, headers: &[(&str, &str)]) -> Result<(u16, Value)> {
    let mut request = Request::new("GET", "/notifications");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let answer = once(node.endpoint.addr()?, &request)?;
    ensure!(
        answer.head.header("content-type") == Some("application/json"),
        "{:?}",
        answer.head
    );
    Ok((answer.status(), answer.json()?))
}

#[test]
fn refusals_are_told_by_code_and_trace_and_nothing_secret_is_logged() -> Result<()> {
    let node = node(&[("log.level", "debug")])?;
    let good = token::user("ada")?;
    let over = token::until("ada", 1_000_000)?;
    let nobody = token::with_claims(json!({"exp": token::now_seconds() + 600}))?;
    // Another first character of the signature; the last one has bits that stand for nothing.
    let (signed, signature) = good.rsplit_once('.').context("a token has a signature")?;
    let other = if signature.starts_with('A') { 'B' } else { 'A' };
    let forged = format!("{signed}.{other}{}", &signature[1..]);
    for (credential, code) in [
        ("hush-hush", "ERROR_INVALID_JWT"),
        (&*forged, "ERROR_INVALID_SIGNATURE"),
        (&*over, "ERROR_TOKEN_EXPIRED"),
        (&*nobody, "ERROR_TOKEN_PROCESSABLE"),
    ] {
        let authorization = format!("Bearer {credential}");
        let (status, told) = refusal(
            &node,
            &[("authorization", &authorization), ("trace-id", "trace-7")],
        )?;
        ensure!((status, &told["error"]) == (401, &json!(code)), "{told}");
        ensure!(
            told["context"] == "trace-7" && told["message"].is_string(),
            "{told}"
        );
    }
    let (status, told) = refusal(&node, &[])?;
    ensure!(
        (status, &told["error"]) == (401, &json!("ERROR_INVALID_JWT")),
        "{told}"
    );
    let made = told["context"].as_str().unwrap_or_default().to_owned();
    ensure!(made.len() == 36 && made.split('-').count() == 5, "{told}");
    let log = node.log();
    ensure!(log.contains("trace-7") && log.contains(&made), "{log}");
    for secret in ["hush-hush", &*forged, &*over, &*nobody] {
        ensure!(!log.contains(secret), "a token is in the log");
    }
    Ok(())
}

#[test]
fn health_and_a_stream_after_another_request_on_one_connection() -> Result<()> {
    let node = node(&[])?;
    let mut conn = node.endpoint.connect(None)?;
    let health = conn.call(&Request::new("GET", "/health"), within(60))?;
    ensure!(health.status() == 200, "{health:?}");
    let (mut ada, head) = Stream::over(conn, "ada")?;
    ensure!(head.header("cache-control") == Some("no-cache"), "{head:?}");
    let mut publisher = Publisher::new(&node.endpoint, KEY);
    let id = publisher.accepted(&json!({"users": ["ada"], "data": "bridged"}))?;
    ada.expect("bridged")?;
    delivered(&mut publisher, &id)?;
    let wrong = once(node.endpoint.addr()?, &Request::new("POST", "/notifications"))?;
    ensure!(wrong.status() == 405, "{wrong:?}");
    Ok(())
}

#[test]
fn over_tls() -> Result<()> {
    let authority = Authority::new()?;
    let node = authority.start(&DIALECT)?;
    let mut publisher = Publisher::new(&node.endpoint, KEY);
    let (mut ada, _) = Stream::open(&node, "ada")?;
    let id = publisher.accepted(&json!({"users": ["ada"], "data": "hidden"}))?;
    ada.expect("hidden")?;
    delivered(&mut publisher, &id)?;
    // Else it would have what the others leave.
    drop(ada);
    each_is_delivered_to_who_leaves_at_once(&node)
}

#[test]
fn a_mode_that_may_be_read_in_two_ways_is_told() -> Result<()> {
    let refused = Node::refusal(NodeOptions {
        args: ["--preset", "sqs-long-poll"].map(str::to_owned).into(),
        env: [
            ("NOTIFICATION_SERVICE_MODE", "1"),
            ("SQS_QUEUE_NAME_PREFIX", "notify"),
            ("SQS_USER_QUEUE_BASE_URL", "http://127.0.0.1:1/0/user"),
        ]
        .map(|(name, text)| (name.to_owned(), text.to_owned()))
        .into(),
        ..NodeOptions::default()
    })?;
    ensure!(
        refused.status.and_then(|status| status.code()) == Some(2),
        "{refused:?}"
    );
    ensure!(
        refused.log.contains("NOTIFICATION_SERVICE_MODE")
            && refused.log.contains("write 0")
            && refused.log.contains("write 2"),
        "{}",
        refused.log
    );
    Ok(())
}

/// A stream in Redis whose messages stay there while their users are away.
fn left(redis: &Server) -> Result<Node> {
    let url = redis.url();
    node(&[
        ("sources.s.type", "redis_streams"),
        ("sources.s.url", &url),
        ("sources.s.stream", "s"),
        // Its `id` is the notification's own, by which the test looks.
        ("sources.s.decoder", "raw"),
        ("sources.s.user_field", "addressee"),
        ("sources.s.settle_on", "delivered"),
        ("sources.s.deliver_within", "1d"),
        ("sources.s.offline", "leave"),
        ("sources.s.claim_after", "1s"),
        ("sources.s.max_deliveries", "1000000"),
        ("presence.linger", "0s"),
    ])
}

fn add(client: &mut Client, user: &str, data: &str) -> Result<()> {
    client.must(&[
        "XADD",
        "s",
        "*",
        "addressee",
        user,
        "subject",
        "s",
        "id",
        data,
        "data",
        data,
    ])?;
    Ok(())
}

fn held(client: &mut Client) -> Result<String> {
    let pending = client.must(&["XPENDING", "s", "postrider"])?;
    Ok(pending
        .list()
        .first()
        .map(|count| count.text())
        .unwrap_or_default())
}

#[test]
fn a_queue_stays_the_store_of_who_is_away() -> Result<()> {
    machine::run("raw_stream: a queue stays the store", &[Need::Redis], || {
        let redis = Server::start(ServerOptions::default())?;
        let (mut client, node) = (redis.client()?, left(&redis)?);
        let mut publisher = Publisher::new(&node.endpoint, KEY);
        let (mut ada, _) = Stream::open(&node, "ada")?;
        add(&mut client, "bob", "left")?;
        add(&mut client, "ada", "here")?;
        ada.expect("here")?;
        until_true("only what nobody took is held", within(60), || {
            Ok(held(&mut client)? == "1")
        })?;
        until_true("it was given back", within(60), || {
            Ok(node.metric("postrider_source_given_back_total{source=\"s\"}")? >= 2.0)
        })?;
        ensure!(
            publisher.look("left")?.status() == 404,
            "it was published for nobody"
        );
        let (mut bob, _) = Stream::open(&node, "bob")?;
        bob.expect("left")?;
        until_true("nothing is held any more", within(60), || {
            Ok(held(&mut client)? == "0")
        })
    })
}

#[test]
fn who_leaves_before_the_ack_leaves_the_message_to_the_queue() -> Result<()> {
    machine::run("raw_stream: who leaves", &[Need::Redis], || {
        let redis = Server::start(ServerOptions::default())?;
        let (mut client, node) = (redis.client()?, left(&redis)?);
        let mut publisher = Publisher::new(&node.endpoint, KEY);
        let connect = Connect::new(&node.endpoint, &token::user("ada")?);
        let mut explicit = connect
            .clone()
            .ack(postrider_harness::inbox::AckMode::Explicit)
            .open(Transport::Sse)?;
        add(&mut client, "ada", "one")?;
        ensure!(next_notification(&mut *explicit, within(60))?.id == "one");
        ensure!(held(&mut client)? == "1" && publisher.count("one", "pending")? == 1);
        drop(explicit);
        // Long before `deliver_within`: the word is that the user left.
        until_true("it was let go", within(60), || {
            Ok(node.metric("postrider_source_given_back_total{source=\"s\"}")? >= 1.0)
        })?;
        let (mut ada, _) = Stream::open(&node, "ada")?;
        ada.expect("one")?;
        until_true("nothing is held any more", within(60), || {
            Ok(held(&mut client)? == "0")
        })
    })
}
