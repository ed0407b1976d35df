//! An engine that falls back under live sessions, over real sockets: whoever had what is lost is told of a gap and gets
//! what is held, without coming back; who had nothing of it is told nothing.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a driver of tests")]

mod falling;
#[path = "../node/mod.rs"]
mod node;

use falling::{Falling, open};
use node::{Node, cursor_of, get, node_over, now, response};
use postrider_engine::{Directory as _, Feeds as _, MemberChange, States as _, Wake};
use postrider_model::*;
use postrider_transports::Follow;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

/// Somebody who wants to know what is heard, as an engine that nodes share.
struct Follower;

impl Follow for Follower {
    fn follow(&self, _: &FeedId) {}
    fn unfollow(&self, _: &FeedId) {}
}

/// A hub over an engine that has the notifications 1 and 2 and a state that is `held`, of which a copy is kept; then 3 and 4 came, and everyone who
/// is to have them has.
struct Bench {
    node: Node,
    engine: Arc<Falling>,
    copy: tempfile::TempDir,
    _dir: tempfile::TempDir,
}

fn ada() -> Audience {
    Audience::Users(vec![UserId::new("ada").unwrap()])
}

fn of_topic(name: &str) -> Audience {
    Audience::Topics(vec![Topic::new(name).unwrap()])
}

async fn publish(engine: &postrider_engine::Embedded, id: &str, audience: Audience) {
    let notification = Notification::plain(
        NotificationId::new(id).unwrap(),
        now(),
        audience,
        format!("\"{id}\""),
    );
    let feeds = notification.feeds();
    let publication = Publication {
        notification: Arc::new(notification),
        feeds,
        content: 1,
        request: None,
    };
    let receipts = engine.publish(vec![publication]).await;
    assert!(receipts.iter().all(Result::is_ok), "{receipts:?}");
}

async fn set_state(engine: &postrider_engine::Embedded, theme: &str) {
    let change = StateChange::Merge(vec![("theme".to_owned(), Some(theme.to_owned()))]);
    let changed = engine.change_state(&UserId::new("ada").unwrap(), change).await;
    assert!(changed.is_ok_and(|changed| changed.is_ok()));
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => {
                std::fs::create_dir_all(&name).unwrap();
                copy(&entry.path(), &name);
            }
            false => _ = std::fs::copy(entry.path(), name).unwrap(),
        }
    }
}

impl Bench {
    /// With what is said of everything that is published: for whom it is.
    fn new(audience: &Audience) -> Bench {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let before = open(dir.path());
        runtime.block_on(async {
            let joins = MemberChange {
                topic: Topic::new("news").unwrap(),
                user: UserId::new("ada").unwrap(),
                joins: true,
            };
            before.change_members(vec![joins]).await.unwrap();
            publish(&before, "n1", audience.clone()).await;
            publish(&before, "n2", audience.clone()).await;
            set_state(&before, "held").await;
        });
        before.close();
        drop(before);
        let kept = tempfile::tempdir().unwrap();
        copy(dir.path(), kept.path());
        let engine = Arc::new(Falling::over(open(dir.path())));
        let node = node_over(engine.now(), engine.clone());
        node.hub.follow_with(Arc::new(Follower));
        Bench {
            node,
            engine,
            copy: kept,
            _dir: dir,
        }
    }

    fn publish(&self, id: &str, audience: &Audience) {
        let engine = self.engine.now();
        self.node.runtime.block_on(publish(&engine, id, audience.clone()));
    }

    fn set_state(&self, theme: &str) {
        self.node.runtime.block_on(set_state(&self.engine.now(), theme));
    }

    fn fall_back(&self) {
        self.engine.fall_back_to(open(self.copy.path()));
    }
}

/// What a client of a stream or of a WebSocket is told, one thing at a time: an id or `gap`.
struct Client {
    socket: BufReader<TcpStream>,
    is_stream: bool,
}

impl Client {
    fn connect(node: &Node, is_stream: bool, query: &str) -> Client {
        let mut socket = node.connect();
        if is_stream {
            get(&mut socket, &format!("/v1/inbox/stream?{query}"), "ada", "");
        } else {
            let more = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                Sec-WebSocket-Protocol: postrider.v1\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
            get(&mut socket, &format!("/v1/inbox/ws?{query}"), "ada", more);
        }
        let mut socket = BufReader::new(socket);
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            assert!(socket.read_line(&mut line).unwrap() > 0, "a head ends");
        }
        Client { socket, is_stream }
    }

    /// The next event or frame, as text.
    fn text(&mut self) -> String {
        if self.is_stream {
            let mut line = String::new();
            assert!(self.socket.read_line(&mut line).unwrap() > 0, "it goes on");
            return line;
        }
        let mut start = [0; 2];
        self.socket.read_exact(&mut start).unwrap();
        let mut length = usize::from(start[1]);
        if length == 126 {
            let mut long = [0; 2];
            self.socket.read_exact(&mut long).unwrap();
            length = usize::from(u16::from_be_bytes(long));
        }
        let mut payload = vec![0; length];
        self.socket.read_exact(&mut payload).unwrap();
        if start[0] == 0x89 {
            // A pong with no mask to speak of.
            let head = [0x8a, 0x80 | length as u8, 0, 0, 0, 0];
            let pong = [&head[..], &payload].concat();
            self.socket.get_mut().write_all(&pong).unwrap();
            return String::new();
        }
        String::from_utf8(payload).unwrap()
    }

    fn next(&mut self) -> String {
        loop {
            let text = self.text();
            if text.starts_with("event: gap") || text.contains(r#""type":"gap""#) {
                return "gap".to_owned();
            }
            if let Some(at) = text.find(r#""data":""#) {
                let data = &text[at + 8..];
                return data[..data.find('"').unwrap()].to_owned();
            }
        }
    }

    /// The next state that it is told.
    fn state(&mut self) -> String {
        loop {
            if let Some(theme) = theme_of(&self.text()) {
                return theme;
            }
        }
    }

    fn expect(&mut self, told: &[&str]) {
        let got: Vec<_> = told.iter().map(|_| self.next()).collect();
        assert_eq!(got, told);
    }
}

/// What a state that is told in this text says.
fn theme_of(text: &str) -> Option<String> {
    let (_, theme) = text.split_once(r#""theme":""#)?;
    theme.split_once('"').map(|(theme, _)| theme.to_owned())
}

/// How the sessions are told.
#[derive(Clone, Copy, Debug)]
enum News {
    /// By what is appended in the place of what is lost.
    Appended,
    /// By word that wakes may be lost.
    Missed,
}

#[test]
fn whoever_had_what_is_lost_is_told_and_gets_what_is_held() {
    let audiences = [ada(), Audience::Everyone, of_topic("news"), of_topic("asked")];
    for (audience, is_stream, news) in audiences.into_iter().flat_map(|audience| {
        let ways = [
            (true, News::Appended),
            (false, News::Missed),
            (true, News::Missed),
        ];
        ways.map(|(is_stream, news)| (audience.clone(), is_stream, news))
    }) {
        println!("{audience:?}, {is_stream}, {news:?}");
        let bench = Bench::new(&audience);
        let mut client = Client::connect(&bench.node, is_stream, "topics=asked");
        let has_state = audience != of_topic("asked");
        if has_state {
            client.expect(&["n1", "n2"]);
        } else {
            // A session topic begins with what comes.
            bench.publish("here", &ada());
            client.expect(&["here"]);
        }
        bench.publish("n3", &audience);
        bench.publish("n4", &audience);
        client.expect(&["n3", "n4"]);
        bench.fall_back();
        if matches!(news, News::Missed) {
            bench.engine.tell(Wake::Missed);
            if has_state {
                client.expect(&["gap", "n1", "n2"]);
            } else {
                assert_eq!(client.next(), "gap");
            }
        }
        bench.publish("m3", &audience);
        bench.publish("m4", &audience);
        match (news, has_state) {
            (News::Appended, true) => client.expect(&["gap", "n1", "n2", "m3", "m4"]),
            (News::Missed, true) => client.expect(&["m3", "m4"]),
            (_, false) => while client.next() != "m4" {},
        }
    }
}

#[test]
fn whoever_had_nothing_of_it_is_told_nothing() {
    let bench = Bench::new(&ada());
    let mut client = Client::connect(&bench.node, true, "");
    client.expect(&["n1", "n2"]);
    bench.fall_back();
    bench.engine.tell(Wake::Missed);
    bench.publish("m3", &ada());
    bench.publish("m4", &ada());
    client.expect(&["m3", "m4"]);
}

#[test]
fn a_poll_that_waits_is_answered() {
    let bench = Bench::new(&ada());
    bench.publish("n3", &ada());
    let mut socket = bench.node.connect();
    let mut reader = BufReader::new(socket.try_clone().unwrap());
    get(&mut socket, "/v1/inbox?wait=0", "ada", "");
    let (_, body) = response(&mut reader);
    assert!(body.contains(r#""data":"n3""#), "{body}");
    get(
        &mut socket,
        &format!("/v1/inbox?wait=30&cursor={}", cursor_of(&body)),
        "ada",
        "",
    );
    // By then it waits.
    bench.node.wait_for_floor("ada", 3);
    bench.fall_back();
    bench.engine.tell(Wake::Missed);
    let (_, body) = response(&mut reader);
    assert!(body.contains(r#""gap":true"#), "{body}");
    assert!(
        body.contains(r#""data":"n1""#) && !body.contains(r#""data":"n3""#),
        "{body}"
    );
}

#[test]
fn a_state_that_went_back_is_told() {
    for is_stream in [true, false] {
        let bench = Bench::new(&ada());
        let mut client = Client::connect(&bench.node, is_stream, "state=1");
        assert_eq!(client.state(), "held");
        bench.set_state("lost");
        assert_eq!(client.state(), "lost");
        bench.fall_back();
        bench.engine.tell(Wake::Missed);
        assert_eq!(client.state(), "held", "though it is older");
        // And once only.
        bench.engine.tell(Wake::Missed);
        bench.set_state("next");
        assert_eq!(client.state(), "next");
    }
}

#[test]
fn a_poll_that_waits_is_told_of_a_state_that_went_back() {
    let bench = Bench::new(&ada());
    bench.set_state("lost");
    let mut socket = bench.node.connect();
    let mut reader = BufReader::new(socket.try_clone().unwrap());
    get(&mut socket, "/v1/inbox?wait=0&state=1", "ada", "");
    let (_, body) = response(&mut reader);
    assert_eq!(theme_of(&body).as_deref(), Some("lost"), "{body}");
    let next = format!("/v1/inbox?wait=30&state=1&cursor={}", cursor_of(&body));
    get(&mut socket, &next, "ada", "");
    // By then it waits.
    bench.node.wait_for_floor("ada", 2);
    bench.fall_back();
    bench.engine.tell(Wake::Missed);
    let (_, body) = response(&mut reader);
    assert_eq!(theme_of(&body).as_deref(), Some("held"), "{body}");
}
