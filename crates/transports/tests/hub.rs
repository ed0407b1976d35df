//! The hub alone, over real sockets and the engine in memory: each wire, the front's limits, a drain.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use postrider_engine::{Embedded, EmbeddedOptions, Engine, Feeds};
use postrider_model::*;
use postrider_transports::*;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

struct Anyone;

impl Gate for Anyone {
    fn identify(&self, credentials: &Credentials<'_>, _: Timestamp) -> Result<Identity, Problem> {
        let user = credentials
            .authorization
            .and_then(|text| text.strip_prefix("Bearer "))
            .ok_or_else(Problem::token_missing)?;
        Ok(Identity {
            user: UserId::new(user).unwrap(),
            expires_at: None,
            topics: Vec::new(),
        })
    }
    fn spend(&self, _: &str, _: bool, _: Timestamp) -> Result<(), Problem> {
        Ok(())
    }
    fn renew(&self, _: &UserId, _: &str, now: Timestamp) -> Result<Timestamp, Problem> {
        Ok(now)
    }
    fn may_subscribe(&self, _: &Identity, topic: &Topic) -> bool {
        topic.as_str() != "closed"
    }
    fn cors(&self, _: &str) -> Option<Vec<(&'static str, String)>> {
        None
    }
}

/// Takes nothing: what is published in these tests goes straight to the engine.
struct NoDesk;

impl Desk for NoDesk {
    fn max_body(&self) -> usize {
        0
    }
    fn admit(&self, _: &head::Head<'_>, _: Option<Address>) -> Result<(), Problem> {
        Err(Problem::not_found())
    }
    fn take(&self, _: &head::Head<'_>, _: Option<Address>, _: &[u8]) -> Taken {
        Taken::Answer(Err(Problem::not_found()))
    }
    fn refused(&self, _: &Problem) {}
}

#[derive(Default)]
struct Referred(Mutex<Vec<Vec<u8>>>);

impl Refer for Referred {
    fn refer(&self, link: Link, already_read: Vec<u8>) {
        let Link::Plain(mut socket) = link else {
            panic!("TLS where none was asked for");
        };
        self.0.lock().unwrap().push(already_read);
        socket.set_nonblocking(false).unwrap();
        socket.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    }
}

struct Node {
    hub: Hub,
    engine: Arc<Embedded>,
    address: std::net::SocketAddr,
    referred: Arc<Referred>,
    runtime: tokio::runtime::Runtime,
}

fn now() -> Timestamp {
    Timestamp(
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_millis() as u64,
    )
}

fn node() -> Node {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let options = EmbeddedOptions {
        data_dir: None,
        rules: Default::default(),
        clock: Arc::new(now),
        on_commit: Box::new(|_, _| {}),
    };
    let engine = Arc::new(Embedded::open(options).unwrap());
    let options = HubOptions {
        bounds: Bounds::default(),
        shards: 2,
        sessions_per_address: 0,
        sessions_per_user: 4,
        max_connections: 1000,
        ack_probe: Millis(50),
        ack_flush: Millis(50),
        ack_timeout: Millis(200),
        max_attempts: 3,
        arrivals: false,
        tcp_evidence: true,
        keep_alive: Millis(200),
        silence: Millis(2000),
        drain_spread: Millis(1000),
        clock: Arc::new(now),
        steady: Arc::new(now),
    };
    let referred = Arc::<Referred>::default();
    let as_engine: Arc<dyn Engine> = engine.clone();
    let hub = Hub::start(
        &options,
        as_engine,
        Arc::new(Anyone),
        Arc::new(NoDesk),
        referred.clone(),
        runtime.handle().clone(),
        1,
    )
    .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    hub.listen(listener).unwrap();
    Node {
        hub,
        engine,
        address,
        referred,
        runtime,
    }
}

impl Node {
    fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket
    }

    fn publish(&self, id: &str, user: &str) {
        self.publish_to(id, Audience::Users(vec![UserId::new(user).unwrap()]));
    }

    fn publish_to(&self, id: &str, audience: Audience) {
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
        let receipts = self.runtime.block_on(self.engine.publish(vec![publication]));
        assert!(receipts.iter().all(Result::is_ok), "{receipts:?}");
    }

    fn wait_for_poll(&self) {
        let begin = std::time::Instant::now();
        while self.hub.stats().sessions(Transport::LongPoll) == 0 {
            assert!(begin.elapsed() < Duration::from_secs(10), "no poll waits");
            std::thread::yield_now();
        }
    }

    fn floor(&self, user: &str) -> u64 {
        use postrider_engine::Settlements;
        let user = UserId::new(user).unwrap();
        let feed = FeedId::User(user.clone());
        self.runtime
            .block_on(self.engine.standing(&user, &feed, 1, 0))
            .unwrap()
            .floor
    }

    fn wait_for_floor(&self, user: &str, floor: u64) {
        let begin = std::time::Instant::now();
        while self.floor(user) < floor {
            assert!(
                begin.elapsed() < Duration::from_secs(10),
                "the floor stays at {}",
                self.floor(user)
            );
            std::thread::yield_now();
        }
    }
}

/// One response with a length: status line and body.
fn response(reader: &mut impl BufRead) -> (String, String) {
    let mut status = String::new();
    reader.read_line(&mut status).unwrap();
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        if let Some(n) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = n.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    (status.trim().into(), String::from_utf8(body).unwrap())
}

fn get(mut socket: impl Write, target: &str, user: &str, more: &str) {
    write!(
        socket,
        "GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {user}\r\n{more}\r\n"
    )
    .unwrap();
}

fn cursor_of(body: &str) -> String {
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    body["cursor"].as_str().unwrap().to_owned()
}

#[test]
fn a_long_poll_gets_what_is_there_then_waits_and_settles_by_its_cursor() {
    let node = node();
    node.publish("a", "ada");
    node.publish("b", "ada");
    let mut socket = node.connect();
    let mut reader = BufReader::new(socket.try_clone().unwrap());
    get(&mut socket, "/v1/inbox?wait=30&limit=1", "ada", "");
    let (status, body) = response(&mut reader);
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(
        body.contains(r#""id":"a""#) && !body.contains(r#""id":"b""#),
        "{body}"
    );
    get(
        &mut socket,
        &format!("/v1/inbox?wait=30&cursor={}", cursor_of(&body)),
        "ada",
        "",
    );
    let (_, body) = response(&mut reader);
    assert!(
        body.contains(r#""id":"b""#) && !body.contains(r#""id":"a""#),
        "{body}"
    );
    node.wait_for_floor("ada", 1);
    get(
        &mut socket,
        &format!("/v1/inbox?wait=30&cursor={}", cursor_of(&body)),
        "ada",
        "",
    );
    node.wait_for_floor("ada", 2);
    node.publish("c", "ada");
    let (_, body) = response(&mut reader);
    assert!(body.contains(r#""data":"c""#), "{body}");
    get(
        &mut socket,
        &format!("/v1/inbox?wait=0&cursor={}", cursor_of(&body)),
        "ada",
        "",
    );
    let (_, body) = response(&mut reader);
    assert!(
        body.starts_with(r#"{"notifications":[],"events":[],"cursor":""#),
        "{body}"
    );
}

#[test]
fn what_stays_of_a_poll_serves_the_next_as_if_it_were_the_first() {
    let node = node();
    let news = Audience::Topics(vec![Topic::new("news").unwrap()]);
    let socket = node.connect();
    let ask = |target: &str, user: &str, meanwhile: &dyn Fn()| {
        get(&mut &socket, target, user, "");
        meanwhile();
        let (status, body) = response(&mut BufReader::new(&socket));
        assert_eq!(status, "HTTP/1.1 200 OK");
        assert_eq!(node.hub.stats().sessions(Transport::LongPoll), 0);
        body
    };
    let poll = |target: &str, user: &str, publish: &dyn Fn()| {
        ask(target, user, &|| {
            node.wait_for_poll();
            publish();
        })
    };
    let body = poll("/v1/inbox?wait=30", "ada", &|| node.publish("a1", "ada"));
    let cursor = cursor_of(&body);
    // Another user on the same connection hears its own feed and no other.
    let body = poll("/v1/inbox?wait=30", "bob", &|| {
        node.publish("a2", "ada");
        node.publish("b1", "bob");
    });
    assert!(
        body.contains(r#""data":"b1""#) && !body.contains(r#""id":"a2""#),
        "{body}"
    );
    // Other feeds of the same user: a topic is heard from the moment the node knows of it, which this answer says.
    let target = format!("/v1/inbox?wait=0&topics=news&cursor={}", cursor_of(&body));
    let body = ask(&target, "bob", &|| {});
    let target = format!("/v1/inbox?wait=30&topics=news&cursor={}", cursor_of(&body));
    let body = poll(&target, "bob", &|| {
        node.publish_to("t1", news.clone());
    });
    assert!(body.contains(r#""data":"t1""#), "{body}");
    let target = format!("/v1/inbox?wait=30&cursor={}", cursor_of(&body));
    let body = poll(&target, "bob", &|| {
        node.publish_to("t2", news.clone());
        node.publish("b2", "bob");
    });
    assert!(
        body.contains(r#""data":"b2""#) && !body.contains(r#""id":"t2""#),
        "{body}"
    );
    // Who comes back after all of that, elsewhere, missed nothing.
    let mut socket = node.connect();
    get(
        &mut socket,
        &format!("/v1/inbox?wait=30&cursor={cursor}"),
        "ada",
        "",
    );
    let (_, body) = response(&mut BufReader::new(socket));
    assert!(
        body.contains(r#""data":"a2""#) && !body.contains(r#""id":"a1""#),
        "{body}"
    );
}

#[test]
fn between_its_polls_a_client_has_no_session() {
    let node = node();
    let mut polling = node.connect();
    let mut polled = BufReader::new(polling.try_clone().unwrap());
    get(&mut polling, "/v1/inbox?wait=0", "ada", "");
    assert_eq!(response(&mut polled).0, "HTTP/1.1 200 OK");
    let held: Vec<_> = (0..4)
        .map(|_| {
            let mut socket = node.connect();
            get(&mut socket, "/v1/inbox/stream", "ada", "");
            let mut status = [0; 15];
            socket.read_exact(&mut status).unwrap();
            assert_eq!(&status, b"HTTP/1.1 200 OK");
            socket
        })
        .collect();
    get(&mut polling, "/v1/inbox?wait=0", "ada", "");
    assert!(response(&mut polled).0.starts_with("HTTP/1.1 429 "));
    drop(held);
}

#[test]
fn a_stream_replays_then_goes_live_and_settles_by_tcp() {
    let node = node();
    node.publish("a", "ada");
    let mut socket = node.connect();
    get(&mut socket, "/v1/inbox/stream", "ada", "");
    let mut lines = BufReader::new(socket).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "HTTP/1.1 200 OK");
    let mut seen = Vec::new();
    let mut keep_alives = 0;
    while seen.len() < 2 || keep_alives == 0 {
        let line = lines.next().unwrap();
        if let Some(data) = line.strip_prefix("data: ") {
            seen.push(data.to_owned());
            if seen.len() == 1 {
                node.publish("b", "ada");
            }
        }
        keep_alives += usize::from(line == ": keep-alive");
    }
    assert!(
        seen[0].contains(r#""id":"a""#) && seen[1].contains(r#""id":"b""#),
        "{seen:?}"
    );
    node.wait_for_floor("ada", 2);
}

#[test]
fn what_is_no_inbox_request_is_referred_with_its_bytes() {
    let node = node();
    let mut socket = node.connect();
    socket.write_all(b"POST /v1/notif").unwrap();
    socket
        .write_all(b"ications HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
        .unwrap();
    let mut answer = [0; 16];
    socket.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 204 No ");
    let referred = node.referred.0.lock().unwrap().clone();
    assert!(referred[0].starts_with(b"POST /v1/notifications HTTP/1.1\r\n"));
}

#[test]
fn an_adopted_connection_is_served_like_any_other() {
    let node = node();
    node.publish("a", "ada");
    let (ours, theirs) = UnixStream::pair().unwrap();
    node.hub.adopt(
        theirs,
        None,
        b"GET /v1/inbox HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ada\r\n\r\n".to_vec(),
    );
    let (status, body) = response(&mut BufReader::new(ours));
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(body.contains(r#""id":"a""#));
}

#[test]
fn bad_requests_get_a_problem() {
    let node = node();
    let cases = [
        ("/v1/inbox?wait=121", "ada", 400),
        ("/v1/inbox?limit=0", "ada", 400),
        ("/v1/inbox?ack=maybe", "ada", 400),
        ("/v1/inbox?cursor=nonsense", "ada", 400),
        ("/v1/inbox?topics=closed", "ada", 403),
        ("/v1/inbox?topics=a%20b", "ada", 400),
        ("/v1/inbox/ws", "ada", 426),
    ];
    let mut socket = node.connect();
    let mut reader = BufReader::new(socket.try_clone().unwrap());
    for (target, user, expected) in cases {
        get(&mut socket, target, user, "");
        let (status, body) = response(&mut reader);
        assert!(
            status.starts_with(&format!("HTTP/1.1 {expected} ")),
            "{target}: {status}"
        );
        assert!(body.contains(r#""code":"#), "{body}");
    }
    write!(socket, "GET /v1/inbox HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert!(response(&mut reader).0.starts_with("HTTP/1.1 401 "));
}

#[test]
fn a_user_has_so_many_sessions_and_no_more() {
    let node = node();
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut socket = node.connect();
        get(&mut socket, "/v1/inbox/stream", "ada", "");
        socket.read_exact(&mut [0; 8]).unwrap();
        held.push(socket);
    }
    let mut socket = node.connect();
    get(&mut socket, "/v1/inbox/stream", "ada", "");
    assert!(
        response(&mut BufReader::new(socket))
            .0
            .starts_with("HTTP/1.1 429 ")
    );
    drop(held.pop());
    let begin = std::time::Instant::now();
    loop {
        let mut socket = node.connect();
        get(&mut socket, "/v1/inbox?wait=0", "ada", "");
        if response(&mut BufReader::new(socket))
            .0
            .starts_with("HTTP/1.1 200 ")
        {
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(10));
    }
}

#[test]
fn a_drain_answers_polls_and_ends_streams() {
    let node = node();
    let mut poll = node.connect();
    get(&mut poll, "/v1/inbox?wait=60", "ada", "");
    let mut stream = node.connect();
    get(&mut stream, "/v1/inbox/stream", "bob", "");
    // It is open once its head has come; one that is only opening is refused by a drain.
    stream.read_exact(&mut [0; 16]).unwrap();
    let begin = std::time::Instant::now();
    while node.hub.stats().sessions(Transport::LongPoll) + node.hub.stats().sessions(Transport::Sse) < 2 {
        assert!(begin.elapsed() < Duration::from_secs(10));
    }
    node.hub.drain();
    let (status, body) = response(&mut BufReader::new(poll));
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(body.starts_with(r#"{"notifications":[],"events":[]"#));
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    assert!(all.contains("retry: "), "{all}");
    node.hub.stop();
    node.engine.close();
}

#[test]
fn an_explicit_stream_is_sent_it_again_and_told_when_that_ends() {
    let node = node();
    node.publish("a", "ada");
    let mut socket = node.connect();
    get(&mut socket, "/v1/inbox/stream?ack=explicit", "ada", "");
    let lines = BufReader::new(socket).lines().map(Result::unwrap);
    let mut data = lines.filter(|line| line.starts_with("data: "));
    let first = data.next().unwrap();
    assert!(first.ends_with(r#""data":"a"}"#), "{first}");
    for attempt in [2, 3] {
        let again = data.next().unwrap();
        assert!(again.ends_with(&format!(r#","attempt":{attempt}}}"#)), "{again}");
    }
    assert_eq!(data.next().unwrap(), r#"data: {"ids":["a"]}"#);
    // A poll counts on from what the engine was told.
    let mut socket = node.connect();
    get(&mut socket, "/v1/inbox?ack=explicit&wait=0", "ada", "");
    let (_, body) = response(&mut BufReader::new(socket));
    assert!(body.contains(r#""data":"a","attempt":"#), "{body}");
}
