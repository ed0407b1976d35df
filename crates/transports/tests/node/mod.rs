//! A hub with the engine in memory, for tests: anyone gets in who says a name.
#![allow(dead_code, reason = "each test needs some of it")]
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    missing_docs,
    reason = "a driver of tests"
)]

use postrider_engine::{Embedded, EmbeddedOptions, Engine, Feeds};
use postrider_model::*;
use postrider_transports::*;
use std::io::{BufRead, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

pub struct Anyone;

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
    fn cookie<'c>(&self, _: &'c str) -> Option<&'c str> {
        None
    }
    fn cors(&self, _: &str) -> Option<Vec<(&'static str, String)>> {
        None
    }
}

/// Takes nothing: what is published in these tests goes straight to the engine.
pub struct NoDesk;

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
pub struct Referred(pub Mutex<Vec<Vec<u8>>>);

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

pub struct Node {
    pub hub: Hub,
    pub engine: Arc<Embedded>,
    pub address: std::net::SocketAddr,
    pub referred: Arc<Referred>,
    pub runtime: tokio::runtime::Runtime,
}

/// How long is waited for what has no time of its own.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn now() -> Timestamp {
    Timestamp(
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_millis() as u64,
    )
}

pub fn node() -> Node {
    let options = EmbeddedOptions {
        data_dir: None,
        rules: Default::default(),
        clock: Arc::new(now),
        on_commit: Box::new(|_, _| {}),
    };
    let engine = Arc::new(Embedded::open(options).unwrap());
    node_over(engine.clone(), engine)
}

/// With a hub over `as_engine`; `engine` is what is looked into.
pub fn node_over(engine: Arc<Embedded>, as_engine: Arc<dyn Engine>) -> Node {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let started = std::time::Instant::now();
    let options = HubOptions {
        bounds: Bounds::default(),
        shards: 2,
        sessions_per_address: 0,
        presence_linger: Millis(300),
        sessions_per_user: 4,
        max_connections: 1000,
        ack_probe: Millis(50),
        ack_flush: Millis(50),
        ack_timeout: Millis(200),
        max_attempts: 3,
        arrivals: false,
        tcp_evidence: true,
        keep_alive: Millis(200),
        // Longer than a test leaves a client alone on a machine that is busy, or has a slow disk.
        silence: Millis(60_000),
        drain_spread: Millis(1000),
        clock: Arc::new(now),
        steady: Arc::new(move || Timestamp(1_000_000 + started.elapsed().as_millis() as u64)),
    };
    let referred = Arc::<Referred>::default();
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
    pub fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    pub fn publish(&self, id: &str, user: &str) {
        self.publish_to(id, Audience::Users(vec![UserId::new(user).unwrap()]));
    }

    pub fn publish_to(&self, id: &str, audience: Audience) {
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

    pub fn wait_for_poll(&self) {
        let begin = std::time::Instant::now();
        while self.hub.stats().sessions(Transport::LongPoll) == 0 {
            assert!(begin.elapsed() < PATIENCE, "no poll waits");
            std::thread::yield_now();
        }
    }

    pub fn floor(&self, user: &str) -> u64 {
        self.floor_in(user, &FeedId::User(UserId::new(user).unwrap()))
    }

    pub fn floor_in(&self, user: &str, feed: &FeedId) -> u64 {
        use postrider_engine::Settlements;
        let user = UserId::new(user).unwrap();
        self.runtime
            .block_on(self.engine.standing(&user, feed, 1, 0))
            .unwrap()
            .floor
    }

    pub fn wait_for_floor(&self, user: &str, floor: u64) {
        let begin = std::time::Instant::now();
        while self.floor(user) < floor {
            assert!(
                begin.elapsed() < PATIENCE,
                "the floor stays at {}",
                self.floor(user)
            );
            std::thread::yield_now();
        }
    }
}

/// One response with a length: status line and body.
pub fn response(reader: &mut impl BufRead) -> (String, String) {
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

pub fn get(mut socket: impl Write, target: &str, user: &str, more: &str) {
    write!(
        socket,
        "GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {user}\r\n{more}\r\n"
    )
    .unwrap();
}

pub fn cursor_of(body: &str) -> String {
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    body["cursor"].as_str().unwrap().to_owned()
}
