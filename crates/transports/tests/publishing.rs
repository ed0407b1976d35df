//! Publish requests that the loops serve, over real sockets and the engine in memory, with a desk that knows ids and
//! users only.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use postrider_engine::{Embedded, EmbeddedOptions, Engine, EngineError, Settlements};
use postrider_model::*;
use postrider_transports::*;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Anybody is let in, as whom they say they are.
struct Anyone;

impl Gate for Anyone {
    fn identify(&self, credentials: &Credentials<'_>, _: Timestamp) -> Result<Identity, Problem> {
        let user = credentials.authorization.unwrap_or("Bearer nobody");
        Ok(Identity {
            user: UserId::new(user.trim_start_matches("Bearer ")).unwrap(),
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
    fn may_subscribe(&self, _: &Identity, _: &Topic) -> bool {
        true
    }
    fn cookie<'c>(&self, _: &'c str) -> Option<&'c str> {
        None
    }
    fn cors(&self, origin: &str) -> Option<Vec<(&'static str, String)>> {
        Some(vec![("Access-Control-Allow-Origin", origin.to_owned())])
    }
}

/// Takes a body of ids, one a line, as notifications for `ada`. Nobody but `Bearer key` may publish.
#[derive(Default)]
struct Ids {
    refused: Mutex<Vec<&'static str>>,
}

struct Waiting(Vec<String>);

impl Desk for Ids {
    fn max_body(&self) -> usize {
        1 << 20
    }

    fn admit(&self, request: &head::Head<'_>, _: Option<Address>) -> Result<(), Problem> {
        match request.header("authorization") {
            Some("Bearer key") => Ok(()),
            _ => Err(Problem::key_invalid()),
        }
    }

    fn take(&self, request: &head::Head<'_>, client: Option<Address>, body: &[u8]) -> Taken {
        if let Err(problem) = self.admit(request, client) {
            return Taken::Answer(Err(problem));
        }
        match std::str::from_utf8(body).unwrap() {
            "" => Taken::Answer(Err(Problem::invalid_notification("Nothing.", None))),
            "transient" => Taken::Answer(Ok(b"told".to_vec())),
            ids => Taken::Order(Box::new(Waiting(ids.lines().map(str::to_owned).collect()))),
        }
    }

    fn refused(&self, problem: &Problem) {
        self.refused.lock().unwrap().push(problem.code);
    }
}

impl Order for Waiting {
    fn publications(&mut self) -> Vec<Publication> {
        self.0.iter().map(|id| publication(id)).collect()
    }

    fn answer(self: Box<Self>, receipts: Vec<Result<Receipt, EngineError>>) -> Answer {
        assert_eq!(receipts.len(), self.0.len());
        let told: Result<Vec<_>, _> = receipts.into_iter().collect();
        let told = told.map_err(|_| Problem::unavailable(1))?;
        let ids: Vec<_> = told.iter().map(|receipt| receipt.id.as_str()).collect();
        assert_eq!(ids, self.0, "the receipts of another request");
        Ok(ids.join(",").into_bytes())
    }
}

fn publication(id: &str) -> Publication {
    let notification = Notification::plain(
        NotificationId::new(id).unwrap(),
        Timestamp(1),
        Audience::Users(vec![UserId::new("ada").unwrap()]),
        "7",
    );
    Publication {
        feeds: notification.feeds(),
        notification: Arc::new(notification),
        content: 1,
        request: None,
    }
}

/// Says on each connection that it has it, and how many bytes came with it.
struct Elsewhere;

impl Refer for Elsewhere {
    fn refer(&self, link: Link, already_read: Vec<u8>) {
        let Link::Plain(mut socket) = link else {
            panic!("TLS where none was asked for");
        };
        socket.set_nonblocking(false).unwrap();
        let had = already_read.len().to_string();
        let answer = format!(
            "HTTP/1.1 299 Elsewhere\r\nContent-Length: {}\r\n\r\n{had}",
            had.len()
        );
        socket.write_all(answer.as_bytes()).unwrap();
    }
}

struct Node {
    hub: Hub,
    engine: Arc<Embedded>,
    desk: Arc<Ids>,
    address: std::net::SocketAddr,
    /// By the loops' clock.
    time: Arc<AtomicU64>,
    runtime: tokio::runtime::Runtime,
}

fn node() -> Node {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let engine = Arc::new(
        Embedded::open(EmbeddedOptions {
            data_dir: None,
            rules: Default::default(),
            clock: Arc::new(|| Timestamp(1)),
            on_commit: Box::new(|_, _| {}),
        })
        .unwrap(),
    );
    let time = Arc::new(AtomicU64::new(1_000_000));
    let steady = time.clone();
    let options = HubOptions {
        bounds: Bounds::default(),
        shards: 1,
        sessions_per_address: 0,
        presence_linger: Millis(300),
        sessions_per_user: 4,
        max_connections: 2000,
        ack_probe: Millis(50),
        ack_flush: Millis(50),
        ack_timeout: Millis(200),
        max_attempts: 3,
        arrivals: false,
        tcp_evidence: true,
        keep_alive: Millis(60_000),
        silence: Millis(60_000),
        drain_spread: Millis(1000),
        clock: Arc::new(|| Timestamp(1)),
        steady: Arc::new(move || Timestamp(steady.load(Ordering::Relaxed))),
    };
    let desk = Arc::<Ids>::default();
    let as_engine: Arc<dyn Engine> = engine.clone();
    let (gate, handle) = (Arc::new(Anyone), runtime.handle().clone());
    let hub = Hub::start(
        &options,
        as_engine,
        gate,
        desk.clone(),
        Arc::new(Elsewhere),
        handle,
        1,
    )
    .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    hub.listen(listener).unwrap();
    Node {
        hub,
        engine,
        desk,
        address,
        time,
        runtime,
    }
}

impl Node {
    fn connect(&self) -> Client {
        let socket = TcpStream::connect(self.address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Client(BufReader::new(socket))
    }

    fn is_stored(&self, id: &str) -> bool {
        let id = NotificationId::new(id).unwrap();
        self.runtime.block_on(self.engine.lookup(&id)).unwrap().is_some()
    }

    /// Lets the loop's time pass, and has it look.
    fn pass(&self, time: Millis) {
        self.time.fetch_add(time.0, Ordering::Relaxed);
        // Any event wakes a loop: it looks at its timers in the same turn.
        if let Ok(socket) = TcpStream::connect(self.address) {
            drop(socket);
        } else {
            self.hub.drain();
        }
    }
}

struct Client(BufReader<TcpStream>);

impl Client {
    fn send(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).unwrap();
    }

    /// The next answer: its status, its headers in lower case, its body.
    fn answer(&mut self) -> (u16, String, String) {
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "closed after {head:?}");
            if line == "\r\n" {
                break;
            }
            let line = line.to_ascii_lowercase();
            if let Some(n) = line.strip_prefix("content-length:") {
                length = n.trim().parse().unwrap();
            }
            head.push_str(&line);
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head, String::from_utf8(body).unwrap())
    }

    fn expect(&mut self, status: u16, body: &str) {
        let (had, head, text) = self.answer();
        assert_eq!((had, text.as_str()), (status, body), "{head}");
    }

    /// Whether something has come, or the end.
    fn has_something(&self) -> bool {
        let socket = self.0.get_ref();
        socket.set_nonblocking(true).unwrap();
        let has = socket.peek(&mut [0]).is_ok();
        socket.set_nonblocking(false).unwrap();
        has
    }

    fn is_closed(&mut self) -> bool {
        matches!(self.0.read(&mut [0]), Ok(0))
    }
}

fn post(body: &str) -> Vec<u8> {
    post_with("", body)
}

fn post_with(lines: &str, body: &str) -> Vec<u8> {
    format!(
        "POST /v1/notifications HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer key\r\n{lines}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[test]
fn requests_of_one_connection_one_after_another() {
    let node = node();
    let mut client = node.connect();
    for n in 0..50 {
        client.send(&post(&format!("n{n}")));
        client.expect(202, &format!("n{n}"));
        assert!(node.is_stored(&format!("n{n}")), "answered before it was stored");
    }
    client.send(&post("several\nat\nonce"));
    client.expect(202, "several,at,once");
    client.send(&post("transient"));
    client.expect(202, "told");
    client.send(&post(""));
    assert_eq!(client.answer().0, 400, "a refusal does not end the connection");
    client.send(&post_with(
        "Origin: https://a.example\r\nConnection: close\r\n",
        "last",
    ));
    let (status, head, body) = client.answer();
    assert_eq!((status, body.as_str()), (202, "last"));
    assert!(
        head.contains("access-control-allow-origin: https://a.example\r\n"),
        "{head}"
    );
    assert!(head.contains("connection: close\r\n") && head.contains("cache-control: no-store\r\n"));
    assert!(client.is_closed());
}

#[test]
fn in_pieces_of_any_size() {
    let node = node();
    for size in [1, 2, 7, 100] {
        let mut client = node.connect();
        for n in 0..2 {
            let id = format!("s{size}-{n}");
            for piece in post(&id).chunks(size) {
                client.send(piece);
            }
            client.expect(202, &id);
        }
    }
    // A long body, which no single read brings.
    let ids: Vec<String> = (0..6400).map(|n| format!("long-{n}")).collect();
    let body = ids.join("\n");
    assert!(body.len() > 60_000 && body.len() <= 64 << 10);
    let mut client = node.connect();
    client.send(&post(&body));
    client.expect(202, &ids.join(","));
}

#[test]
fn pipelined_with_polls_and_answered_in_order() {
    let node = node();
    let mut client = node.connect();
    let mut bytes = Vec::new();
    for n in 0..20 {
        bytes.extend(post(&format!("p{n}")));
        bytes.extend(post("transient"));
        bytes.extend(post(""));
        bytes.extend_from_slice(
            b"GET /v1/inbox?wait=0&limit=1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ada\r\n\r\n",
        );
    }
    client.send(&bytes);
    for n in 0..20 {
        client.expect(202, &format!("p{n}"));
        client.expect(202, "told");
        assert_eq!(client.answer().0, 400);
        let (status, _, body) = client.answer();
        assert!(status == 200 && body.contains("\"p0\""), "{n}: {body}");
    }
}

/// Whoever sends more than a loop keeps waits for its answers, and loses nothing.
#[test]
fn a_long_pipeline_is_answered_in_order() {
    let node = node();
    let mut client = node.connect();
    let bytes: Vec<u8> = (0..3000).flat_map(|n| post(&format!("p{n}"))).collect();
    let writer = client.0.get_ref().try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || (&writer).write_all(&bytes).unwrap());
        for n in 0..3000 {
            client.expect(202, &format!("p{n}"));
        }
    });
}

#[test]
fn many_publishers_at_once() {
    let node = node();
    std::thread::scope(|scope| {
        for p in 0..16 {
            let mut client = node.connect();
            scope.spawn(move || {
                for n in 0..50 {
                    let ids = [format!("m{p}-{n}"), format!("w{p}-{n}")];
                    client.send(&post(&ids.join("\n")));
                    client.expect(202, &ids.join(","));
                }
            });
        }
    });
}

#[test]
fn what_a_loop_does_not_serve_goes_elsewhere_whole() {
    let node = node();
    let long = "x".repeat((64 << 10) + 1);
    for request in [
        post(&long),
        post_with("Content-Type: application/x-ndjson\r\n", "a"),
        post_with("Expect: 100-continue\r\n", "a"),
    ] {
        let mut client = node.connect();
        client.send(&post("first"));
        client.expect(202, "first");
        let head = request.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        client.send(&request[..head]);
        client.expect(299, &head.to_string());
    }
}

#[test]
fn who_may_not_publish_is_told_before_the_body_came() {
    let node = node();
    let mut client = node.connect();
    client.send(b"POST /v1/notifications HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\nabc");
    let (status, head, _) = client.answer();
    assert_eq!(status, 401);
    assert!(head.contains("connection: close\r\n"), "{head}");
    // With the body the connection is none the worse.
    let mut client = node.connect();
    let request = String::from_utf8(post("id"))
        .unwrap()
        .replace("Bearer key", "Bearer no");
    client.send(request.as_bytes());
    assert_eq!(client.answer().0, 401);
    client.send(&post("id"));
    client.expect(202, "id");
}

#[test]
fn a_body_that_does_not_come_is_given_up() {
    let node = node();
    let mut client = node.connect();
    let request = post("never whole");
    client.send(&request[..request.len() - 1]);
    // It is being waited for: whatever comes on a later connection is served after it was read.
    node.connect().send(&post("x"));
    let mut other = node.connect();
    other.send(&post("other"));
    other.expect(202, "other");
    node.pass(Millis(29_000));
    client.0.get_ref().set_nonblocking(true).unwrap();
    assert!(client.0.read(&mut [0]).is_err(), "it was given up too soon");
    client.0.get_ref().set_nonblocking(false).unwrap();
    node.pass(Millis(2_000));
    let (status, _, body) = client.answer();
    assert_eq!(status, 408, "{body}");
    assert!(client.is_closed());
    assert_eq!(*node.desk.refused.lock().unwrap(), ["head_timeout"]);
}

#[test]
fn a_drain_waits_for_a_body_that_comes_and_not_for_one_that_does_not() {
    let node = node();
    let (mut comes, mut stays) = (node.connect(), node.connect());
    let request = post("late");
    for client in [&mut comes, &mut stays] {
        client.send(&request[..request.len() - 1]);
    }
    let mut other = node.connect();
    other.send(&post("other"));
    other.expect(202, "other");
    node.hub.drain();
    assert!(other.is_closed(), "an idle connection is let go");
    comes.send(&request[request.len() - 1..]);
    let (status, head, body) = comes.answer();
    assert_eq!((status, body.as_str()), (202, "late"));
    assert!(head.contains("connection: close\r\n"), "{head}");
    node.pass(Millis(5_001));
    assert_eq!(stays.answer().0, 408);
}

#[test]
fn a_closed_engine_is_told_at_once() {
    let node = node();
    node.engine.close();
    let mut client = node.connect();
    client.send(&post("refused"));
    let (status, head, _) = client.answer();
    assert_eq!(status, 503);
    assert!(head.contains("retry-after: 1\r\n"), "{head}");
}

/// 64 MiB is the bound for bodies that are not whole. Others publish all the while.
#[test]
fn half_bodies_take_bounded_memory() {
    let node = node();
    let ids: Vec<String> = (0..6000).map(|n| format!("half-{n:04}")).collect();
    let whole = post(&ids.join("\n"));
    let mut held = Vec::new();
    let mut other = node.connect();
    for n in 0..1500 {
        let mut client = node.connect();
        client.send(&whole[..whole.len() - 1]);
        held.push(client);
        if n % 100 == 0 {
            other.send(&post(&format!("o{n}")));
            other.expect(202, &format!("o{n}"));
        }
        if !node.desk.refused.lock().unwrap().is_empty() {
            break;
        }
    }
    let refused = node.desk.refused.lock().unwrap().clone();
    assert_eq!(refused.first(), Some(&"unavailable"), "after {}", held.len());
    assert!(held.len() > 500, "only {} fit", held.len());
    // A loop that lags behind has refused one of those before the last.
    let begin = std::time::Instant::now();
    let told = loop {
        if let Some(told) = held.iter().rposition(Client::has_something) {
            break told;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "nobody is told");
    };
    assert_eq!(held[told].answer().0, 503);
    // The room comes back with those who leave.
    held.truncate(10);
    let mut late = node.connect();
    late.send(&post("late"));
    late.expect(202, "late");
    let mut last = held.pop().unwrap();
    last.send(&whole[whole.len() - 1..]);
    last.expect(202, &ids.join(","));
}
