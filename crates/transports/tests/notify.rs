//! The notify dialect over a hub: its greeting, bare data of both kinds, what its client is asked and what it is not
//! told. Read by hand, byte by byte, as its frames are the contract.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a driver of tests")]

mod node;

use async_trait::async_trait;
use node::{Node, PATIENCE, node, now};
use postrider_model::*;
use postrider_transports::*;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;

/// Gives a welcome once it is let.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
    asked: Mutex<Vec<(UserId, Vec<Topic>)>>,
}

#[async_trait]
impl Welcome for Gate {
    async fn welcome(
        &self,
        whom: &[(UserId, Vec<Topic>)],
    ) -> Vec<Result<BTreeMap<String, String>, Unavailable>> {
        self.asked.lock().unwrap().extend_from_slice(whom);
        let shut = self.open.lock().unwrap();
        drop(self.opened.wait_while(shut, |open| !*open).unwrap());
        let state = |user: &UserId| match user.as_str() {
            "unlucky" => Err(Unavailable("away".into())),
            "nobody" => Ok(BTreeMap::new()),
            name => Ok(BTreeMap::from([("name".into(), name.into())])),
        };
        whom.iter().map(|(user, _)| state(user)).collect()
    }
}

impl Gate {
    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

fn notify_node(welcome: Option<Arc<Gate>>) -> Node {
    let node = node();
    node.hub.serve_notify(NotifyRules {
        path: "/notify/ws".into(),
        origins: vec!["*".into()],
        ends_with_token: false,
    });
    if let Some(welcome) = welcome {
        node.hub.greet_with(welcome);
    }
    node
}

fn open_gate() -> Arc<Gate> {
    let gate = Arc::<Gate>::default();
    gate.open();
    gate
}

fn connect(node: &Node, query: &str) -> TcpStream {
    let mut socket = node.connect();
    write!(
        socket,
        "GET /notify/ws?{query} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .unwrap();
    let head = head(&mut socket);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    socket
}

fn head(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// The first byte of a frame, and its payload.
fn frame(socket: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut start = [0; 2];
    socket.read_exact(&mut start).unwrap();
    let length = match start[1] {
        126 => {
            let mut length = [0; 2];
            socket.read_exact(&mut length).unwrap();
            usize::from(u16::from_be_bytes(length))
        }
        short => usize::from(short),
    };
    let mut payload = vec![0; length];
    socket.read_exact(&mut payload).unwrap();
    (start[0], payload)
}

/// The next frame that is no ping; pings are answered.
fn next(socket: &mut TcpStream) -> (u8, Vec<u8>) {
    loop {
        let (first, payload) = frame(socket);
        if first != PING {
            return (first, payload);
        }
        say(socket, 0x8A, &payload);
    }
}

fn say(socket: &mut TcpStream, first: u8, payload: &[u8]) {
    let mut bytes = vec![first, 0x80 | payload.len() as u8, 0, 0, 0, 0];
    bytes.extend_from_slice(payload);
    socket.write_all(&bytes).unwrap();
}

fn text(socket: &mut TcpStream) -> String {
    let (first, payload) = next(socket);
    assert_eq!(first, TEXT, "{payload:?}");
    String::from_utf8(payload).unwrap()
}

fn bring(node: &Node, feed: FeedId, payload: &'static [u8]) {
    let id = NotificationId::new("raw").unwrap();
    let entry = Entry::raw(feed, id, now(), payload.into(), "test");
    node.hub.bring(&Arc::from([Arc::new(entry)]));
}

fn user(name: &str) -> FeedId {
    FeedId::User(UserId::new(name).unwrap())
}

fn topic(name: &str) -> FeedId {
    FeedId::Topic(Topic::new(name).unwrap())
}

#[test]
fn it_is_greeted_and_gets_bare_data_in_order() {
    let gate = open_gate();
    let node = notify_node(Some(gate.clone()));
    let mut ada = connect(&node, "authorization=Bearer%20ada&topic=news,sport+chess");
    assert_eq!(text(&mut ada), r#"{"kind":"connect","userID":"ada"}"#);
    assert_eq!(text(&mut ada), r#"{"kind":"state","state":{"name":"ada"}}"#);
    let topics = ["news", "sport", "chess"].map(|name| Topic::new(name).unwrap());
    let asked = (UserId::new("ada").unwrap(), topics.to_vec());
    assert_eq!(*gate.asked.lock().unwrap(), [asked]);
    let mut sent = Vec::new();
    for (feed, payload, first) in [
        (user("ada"), &b" { \"a\" : 1 }\n"[..], TEXT),
        (user("bob"), b"not for ada", TEXT),
        (user("ada"), "plain text, \u{fc}".as_bytes(), TEXT),
        (user("ada"), b"", TEXT),
        (user("ada"), b"\xff\xfe", BINARY),
        (user("ada"), &[b'x'; 60_000], TEXT),
    ] {
        bring(&node, feed.clone(), payload);
        if feed != user("bob") {
            sent.push((first, payload.to_vec()));
        }
    }
    for expected in sent {
        assert!(
            next(&mut ada) == expected,
            "{:?}",
            String::from_utf8_lossy(&expected.1)
        );
    }
    for name in ["news", "chess"] {
        bring(&node, topic(name), b"to a topic");
        assert_eq!(text(&mut ada), "to a topic");
    }
    bring(&node, topic("cooking"), b"not asked for");
    bring(&node, topic("sport"), b"the last");
    assert_eq!(text(&mut ada), "the last");
}

#[test]
fn what_comes_between_the_subscription_and_the_state_follows_the_state() {
    let gate = Arc::<Gate>::default();
    let node = notify_node(Some(gate.clone()));
    let mut ada = connect(&node, "authorization=ada&topic=news");
    assert_eq!(text(&mut ada), r#"{"kind":"connect","userID":"ada"}"#);
    let begin = Instant::now();
    while gate.asked.lock().unwrap().is_empty() {
        assert!(begin.elapsed() < PATIENCE, "nobody asks for a welcome");
        std::thread::yield_now();
    }
    bring(&node, user("ada"), b"one");
    bring(&node, topic("news"), b"two");
    // A third connection's greeting shows that the loops have passed both.
    let mut bob = connect(&node, "authorization=bob");
    assert_eq!(text(&mut bob), r#"{"kind":"connect","userID":"bob"}"#);
    gate.open();
    assert_eq!(text(&mut ada), r#"{"kind":"state","state":{"name":"ada"}}"#);
    let mut both = [text(&mut ada), text(&mut ada)];
    both.sort();
    assert_eq!(both, ["one", "two"]);
    bring(&node, user("ada"), b"three");
    assert_eq!(text(&mut ada), "three");
}

#[test]
fn an_empty_state_is_an_empty_object_and_an_unknown_one_no_session() {
    let node = notify_node(Some(open_gate()));
    let mut nobody = connect(&node, "authorization=nobody");
    assert_eq!(text(&mut nobody), r#"{"kind":"connect","userID":"nobody"}"#);
    assert_eq!(text(&mut nobody), r#"{"kind":"state","state":{}}"#);
    let mut unlucky = connect(&node, "authorization=unlucky");
    assert_eq!(text(&mut unlucky), r#"{"kind":"connect","userID":"unlucky"}"#);
    assert!(text(&mut unlucky).starts_with(r#"{"kind":"error","code":"unavailable","#));
    let (first, payload) = next(&mut unlucky);
    assert_eq!((first, &payload[..2]), (CLOSE, &1013u16.to_be_bytes()[..]));
    assert_eq!(node.hub.stats().sessions(Transport::WebSocket), 1);
}

#[test]
fn without_a_source_the_state_is_the_engines() {
    use postrider_engine::States;
    let node = notify_node(None);
    let ada = UserId::new("ada").unwrap();
    let change = StateChange::Merge(vec![("unread".into(), Some("3".into()))]);
    node.runtime
        .block_on(node.engine.change_state(&ada, change))
        .unwrap()
        .unwrap();
    let mut ada = connect(&node, "authorization=ada");
    assert_eq!(text(&mut ada), r#"{"kind":"connect","userID":"ada"}"#);
    assert_eq!(text(&mut ada), r#"{"kind":"state","state":{"unread":"3"}}"#);
}

#[test]
fn who_is_refused_is_told_so_in_a_frame() {
    let node = notify_node(Some(open_gate()));
    for (query, code) in [
        ("topic=a", "unauthenticated"),
        ("authorization=ada&topic=closed", "permission_denied"),
    ] {
        let mut socket = connect(&node, query);
        let told: serde_json::Value = serde_json::from_str(&text(&mut socket)).unwrap();
        assert_eq!((&told["kind"], &told["code"]), (&"error".into(), &code.into()));
        let (first, payload) = next(&mut socket);
        assert_eq!((first, &payload[..2]), (CLOSE, &1008u16.to_be_bytes()[..]));
        assert_eq!(socket.read(&mut [0; 1]).unwrap(), 0, "the connection ends");
    }
    // The fifth session of a user.
    let _four: Vec<_> = (0..4).map(|_| greeted(&node, "many")).collect();
    let mut fifth = connect(&node, "authorization=many");
    assert!(text(&mut fifth).contains(r#""meta":{"code":"session_limit"}"#));
    assert_eq!(next(&mut fifth).1[..2], 1013u16.to_be_bytes());
}

fn greeted(node: &Node, name: &str) -> TcpStream {
    let mut socket = connect(node, &format!("authorization={name}"));
    text(&mut socket);
    text(&mut socket);
    socket
}

#[test]
fn stored_notifications_come_bare_and_are_settled_by_the_pong() {
    let node = notify_node(Some(open_gate()));
    let _known = greeted(&node, "ada");
    drop(_known);
    node.publish("one", "ada");
    let mut ada = greeted(&node, "ada");
    assert_eq!(text(&mut ada), "\"one\"");
    node.publish("two", "ada");
    assert_eq!(text(&mut ada), "\"two\"");
    node.publish_to("all", Audience::Everyone);
    assert_eq!(text(&mut ada), "\"all\"");
    // The pings behind them are answered while something else is awaited.
    bring(&node, user("ada"), b"done");
    assert_eq!(text(&mut ada), "done");
    let begin = Instant::now();
    ada.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    while node.floor("ada") < 2 || node.floor_in("ada", &FeedId::All) < 1 {
        assert!(begin.elapsed() < PATIENCE, "nothing is settled");
        let mut start = [0; 10];
        if ada.read_exact(&mut start).is_ok() {
            assert_eq!(start[..2], [PING, 8]);
            say(&mut ada, 0x8A, &start[2..]);
        }
    }
    let mut again = greeted(&node, "ada");
    bring(&node, user("ada"), b"nothing is pending");
    assert_eq!(text(&mut again), "nothing is pending");
}

#[test]
fn a_client_that_only_listens_is_asked_for_a_sign_of_life() {
    let node = notify_node(Some(open_gate()));
    let begin = Instant::now();
    let mut ada = greeted(&node, "ada");
    // More often than the keep-alive of 200 ms: what is sent asks for nothing.
    let mut pings = 0;
    while pings < 3 {
        assert!(begin.elapsed() < PATIENCE, "no ping comes");
        bring(&node, user("ada"), b"tick");
        loop {
            match frame(&mut ada) {
                (PING, payload) => {
                    pings += 1;
                    say(&mut ada, 0x8A, &payload);
                }
                (first, payload) => {
                    assert_eq!((first, &payload[..]), (TEXT, &b"tick"[..]));
                    break;
                }
            }
        }
    }
    assert!(begin.elapsed() >= Duration::from_millis(590), "one each 200 ms");
}

#[test]
fn what_its_client_says_is_not_listened_to_and_its_pings_are_answered() {
    let node = notify_node(Some(open_gate()));
    let mut ada = greeted(&node, "ada");
    say(&mut ada, TEXT, b"hello");
    say(&mut ada, TEXT, br#"{"type":"shout"}"#);
    say(&mut ada, PING, b"x");
    assert_eq!(next(&mut ada), (0x8A, b"x".to_vec()));
    say(&mut ada, CLOSE, &1000u16.to_be_bytes());
    assert_eq!(next(&mut ada), (CLOSE, 1000u16.to_be_bytes().to_vec()));
}

#[test]
fn a_drain_is_said_as_every_client_knows_it() {
    let node = notify_node(Some(open_gate()));
    let mut ada = greeted(&node, "ada");
    node.hub.drain();
    let (first, payload) = next(&mut ada);
    assert_eq!((first, &payload[..2]), (CLOSE, &1001u16.to_be_bytes()[..]));
}

#[test]
fn a_form_may_come_in_pieces_and_frames_right_behind_it() {
    let node = notify_node(Some(open_gate()));
    let mut socket = node.connect();
    let form = "authorization=Bearer+ada&topic=news";
    let head_text = format!(
        "GET /notify/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n",
        form.len()
    );
    socket.write_all(head_text.as_bytes()).unwrap();
    socket.write_all(&form.as_bytes()[..10]).unwrap();
    socket.write_all(&form.as_bytes()[10..]).unwrap();
    say(&mut socket, PING, b"y");
    assert!(head(&mut socket).starts_with("HTTP/1.1 101 "));
    assert_eq!(text(&mut socket), r#"{"kind":"connect","userID":"ada"}"#);
    assert_eq!(text(&mut socket), r#"{"kind":"state","state":{"name":"ada"}}"#);
    assert_eq!(next(&mut socket), (0x8A, b"y".to_vec()));
}
