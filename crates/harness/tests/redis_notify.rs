//! The preset `redis-notify` from outside, with tungstenite as the client and a private Redis: what back-ends publish
//! reaches users and topics byte for byte, beside what is published through the node's own interface.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test says where it stands"
)]

use anyhow::{Context, Result, bail, ensure};
use postrider_harness::machine::{self, Need};
use postrider_harness::node::{KEY, Node, NodeOptions};
use postrider_harness::redis::{Answer, Cluster, Server, ServerOptions};
use postrider_harness::{http, token};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use tungstenite::protocol::{Message, WebSocket};

const DEADLINE: Duration = Duration::from_secs(60);
/// Sockets of the crowd: enough to tell a connection each from a connection for all.
const CROWD: usize = 200;
/// Messages of 20 kB that come at once: more than sockets and a small outbox hold.
const BURST: usize = 300;
/// Most connections that a node may hold to the one Redis that it listens to.
const FEW: usize = 6;

fn node(redis: &Server) -> Result<Node> {
    node_at(&redis.addr().to_string())
}

fn node_at(redis: &str) -> Result<Node> {
    Node::start_with(NodeOptions {
        args: ["--preset", "redis-notify", "--notify-session-cookie", "sid"]
            .map(str::to_owned)
            .into(),
        env: vec![("PUBSUB_REDIS_ADDR".into(), redis.to_owned())],
        ..NodeOptions::default()
    })
}

/// A client of the dialect.
struct Client(WebSocket<TcpStream>);

impl Client {
    fn open(node: &Node, user: &str, topics: &str) -> Result<Client> {
        let addr = node.endpoint.addr()?;
        // Without `exp`, as tokens of the service often are.
        let token = token::with_claims(json!({ "user_id": user }))?;
        let url = format!("ws://{addr}/notify/ws?authorization=Bearer%20{token}&topic={topics}");
        let stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        let (socket, _) = tungstenite::client(url, stream).map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok(Client(socket))
    }

    /// Greeted, with this state.
    fn greeted(node: &Node, user: &str, topics: &str) -> Result<(Client, Value)> {
        let mut client = Client::open(node, user, topics)?;
        let connected: Value = serde_json::from_slice(&client.next()?.into_data())?;
        ensure!(
            connected == json!({"kind": "connect", "userID": user}),
            "{connected}"
        );
        let state: Value = serde_json::from_slice(&client.next()?.into_data())?;
        ensure!(state["kind"] == "state", "{state}");
        Ok((client, state["state"].clone()))
    }

    /// The next message; pings are answered on the way.
    fn next(&mut self) -> Result<Message> {
        loop {
            match self.0.read()? {
                Message::Ping(_) => self.0.flush()?,
                message => return Ok(message),
            }
        }
    }

    fn text(&mut self) -> Result<String> {
        match self.next()? {
            Message::Text(text) => Ok(text.to_string()),
            other => bail!("{other:?} where a text was to come"),
        }
    }
}

fn publish(redis: &Server, channel: &str, payload: &[u8]) -> Result<i64> {
    match redis.client()?.must(&[b"PUBLISH", channel.as_bytes(), payload])? {
        Answer::Int(heard) => Ok(heard),
        other => bail!("{other:?}"),
    }
}

#[test]
fn what_back_ends_publish_and_keep_in_redis_reaches_users() -> Result<()> {
    machine::run("redis_notify: publish and state", &[Need::Redis], || {
        let redis = Server::start(ServerOptions::default())?;
        let node = node(&redis)?;
        redis
            .client()?
            .must(&["HSET", "notify:ada:state", "unread", "3"])?;
        let (mut ada, state) = Client::greeted(&node, "ada", "news,sport")?;
        ensure!(state == json!({"unread": "3"}), "{state}");
        let (mut bob, state) = Client::greeted(&node, "bob", "")?;
        ensure!(state == json!({}), "{state}");
        for text in [r#" {"a": 1} "#, "plain", "", "\u{fc}\n"] {
            ensure!(
                publish(&redis, "notify:ada", text.as_bytes())? == 1,
                "one subscriber"
            );
            ensure!(ada.text()? == text, "{text:?}");
        }
        publish(&redis, "notify:ada", b"\xff\x00")?;
        ensure!(
            ada.next()? == Message::binary(&b"\xff\x00"[..]),
            "bytes that are no text"
        );
        publish(&redis, "notify_topic:sport", b"goal")?;
        ensure!(ada.text()? == "goal", "a topic");
        publish(&redis, "notify:bob", b"for bob")?;
        ensure!(bob.text()? == "for bob", "nothing of ada's");
        Ok(())
    })
}

#[test]
fn a_large_message_and_a_burst_come_whole_and_a_state_of_another_type_is_empty() -> Result<()> {
    machine::run("redis_notify: large messages and bursts", &[Need::Redis], || {
        let redis = Server::start(ServerOptions::default())?;
        let node = node(&redis)?;
        redis.client()?.must(&["SET", "notify:ada:state", "no hash"])?;
        let (mut ada, state) = Client::greeted(&node, "ada", "")?;
        ensure!(state == json!({}), "{state}");
        for bytes in [300_000, 3_000_000] {
            let large = "x".repeat(bytes);
            publish(&redis, "notify:ada", large.as_bytes())?;
            ensure!(ada.text()? == large, "{bytes} bytes");
        }
        // Faster than any client reads.
        let mut back_end = redis.client()?;
        let one = |n: usize| format!("{n:05}{}", "y".repeat(20_000));
        for n in 0..BURST {
            back_end.must(&["PUBLISH", "notify:ada", &one(n)])?;
        }
        for n in 0..BURST {
            ensure!(ada.text()? == one(n), "message {n} of a burst");
        }
        Ok(())
    })
}

#[test]
fn what_the_node_itself_takes_comes_over_the_same_socket_and_is_settled() -> Result<()> {
    machine::run("redis_notify: stored", &[Need::Redis], || {
        let redis = Server::start(ServerOptions::default())?;
        let node = node(&redis)?;
        let (mut ada, _) = Client::greeted(&node, "ada", "")?;
        let body = r#"{"id":"n-1","users":["ada"],"data":{"order": 7}}"#;
        let request = http::Request::new("POST", "/v1/notifications")
            .bearer(KEY)
            .body("application/json", body);
        ensure!(
            http::once(node.endpoint.addr()?, &request)?.status() == 202,
            "accepted"
        );
        ensure!(ada.text()? == r#"{"order":7}"#, "bare data");
        // The ping behind it is answered while the next message is awaited.
        let counts = http::Request::new("GET", "/v1/notifications/n-1").bearer(KEY);
        let begin = Instant::now();
        ada.0
            .get_ref()
            .set_read_timeout(Some(Duration::from_millis(50)))?;
        loop {
            let told = http::once(node.endpoint.addr()?, &counts)?.json()?;
            if told["counts"]["delivered"] == 1 {
                return Ok(());
            }
            ensure!(begin.elapsed() < DEADLINE, "it is not settled: {told}");
            match ada.0.read() {
                Ok(Message::Ping(_)) => ada.0.flush()?,
                Ok(other) => bail!("{other:?}"),
                Err(tungstenite::Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    })
}

#[test]
fn over_a_cluster_every_user_is_greeted_whichever_master_has_the_state() -> Result<()> {
    machine::run("redis_notify: a Cluster", &[Need::Redis], || {
        let redis = Cluster::start(ServerOptions::default())?;
        let node = node_at(&redis.url())?;
        // Enough for every master to have some.
        for n in 0..12 {
            let (_, state) = Client::greeted(&node, &format!("user-{n}"), "")?;
            ensure!(state == json!({}), "{state}");
        }
        Ok(())
    })
}

#[test]
fn who_asks_whose_a_token_is_may_send_more_than_is_known() -> Result<()> {
    machine::run("redis_notify: unknown fields", &[Need::Redis], || {
        let redis = Server::start(ServerOptions::default())?;
        let node = node(&redis)?;
        let token = token::with_claims(json!({ "user_id": "ada" }))?;
        let body = json!({"authorization": token, "client": {"version": 2}});
        let request = http::Request::new("POST", "/twirp/notify.NotifyService/Auth");
        let answer = http::once(
            node.endpoint.addr()?,
            &request.body("application/json", body.to_string()),
        )?;
        ensure!(answer.text() == r#"{"userID":"ada"}"#, "{}", answer.text());
        Ok(())
    })
}

#[test]
fn a_restart_of_redis_is_not_seen_by_clients_and_takes_no_connection_each() -> Result<()> {
    machine::run("redis_notify: restart and connections", &[Need::Redis], || {
        let mut redis = Server::start(ServerOptions::default())?;
        let node = node(&redis)?;
        let mut crowd = Vec::new();
        for n in 0..CROWD {
            crowd.push(Client::greeted(&node, &format!("user-{n}"), "all")?.0);
        }
        let list = redis.client()?.must(&["CLIENT", "LIST"])?.text();
        // One is this test's own.
        let held = list.lines().count() - 1;
        println!("{CROWD} sockets, {held} connections of the node to Redis");
        ensure!(held <= FEW, "{list}");
        redis.kill9()?;
        redis.restart()?;
        let begin = Instant::now();
        while publish(&redis, "notify_topic:all", b"back")? == 0 {
            ensure!(begin.elapsed() < DEADLINE, "nobody subscribes again");
        }
        for client in &mut crowd {
            ensure!(client.text()? == "back", "it is still connected");
        }
        let last = format!("notify:user-{}", CROWD - 1);
        while publish(&redis, &last, b"you")? == 0 {
            ensure!(begin.elapsed() < DEADLINE, "a user's channel is not heard again");
        }
        let client = crowd.last_mut().context("a crowd")?;
        ensure!(client.text()? == "you", "its own");
        Ok(())
    })
}

#[test]
fn who_is_refused_is_told_in_a_frame() -> Result<()> {
    machine::run("redis_notify: refusals", &[Need::Redis], || {
        let redis = Server::start(ServerOptions::default())?;
        let node = node(&redis)?;
        let mut nobody = Client::open(&node, "", "")?;
        let told: Value = serde_json::from_str(&nobody.text()?)?;
        ensure!(
            (&told["kind"], &told["code"]) == (&json!("error"), &json!("unauthenticated")),
            "{told}"
        );
        match nobody.next()? {
            Message::Close(Some(frame)) => ensure!(u16::from(frame.code) == 1008, "{frame:?}"),
            other => bail!("{other:?}"),
        }
        Ok(())
    })
}

/// Reads on until this has come; what has come so far.
fn read_until(stream: &mut TcpStream, what: &str) -> Result<String> {
    let mut came = Vec::new();
    let mut piece = [0; 1024];
    loop {
        let text = String::from_utf8_lossy(&came).into_owned();
        if text.contains(what) {
            return Ok(text);
        }
        match stream.read(&mut piece).with_context(|| text.clone())? {
            0 => bail!("it ended before {what:?}: {text}"),
            many => came.extend_from_slice(&piece[..many]),
        }
    }
}

#[test]
fn a_token_may_come_in_a_form_also_after_other_requests() -> Result<()> {
    machine::run("redis_notify: forms", &[Need::Redis], || {
        let redis = Server::start(ServerOptions::default())?;
        let node = node(&redis)?;
        let addr = node.endpoint.addr()?;
        let form = format!(
            "authorization=Bearer%20{}",
            token::with_claims(json!({ "user_id": "ada" }))?
        );
        for is_kept_alive in [false, true] {
            let mut stream = TcpStream::connect(addr)?;
            stream.set_read_timeout(Some(DEADLINE))?;
            if is_kept_alive {
                write!(stream, "GET /no/such/thing HTTP/1.1\r\nhost: {addr}\r\n\r\n")?;
                // The last member of the problem that is the answer.
                read_until(&mut stream, "\"detail\"")?;
            }
            write!(
                stream,
                "GET /notify/ws HTTP/1.1\r\nhost: {addr}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                 sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                 content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{form}",
                form.len()
            )?;
            read_until(&mut stream, r#"{"kind":"connect","userID":"ada"}"#)
                .with_context(|| format!("kept alive: {is_kept_alive}"))?;
        }
        Ok(())
    })
}
