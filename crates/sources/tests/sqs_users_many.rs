//! Two thousand users' queues on one node: what they cost in threads, connections, memory and requests, against a stand-in
//! for SQS that holds polls as long as it is asked to.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]
#![allow(clippy::disallowed_methods, reason = "a test: it reads clocks and spawns")]

use postrider_aws::{Account, Reach};
use postrider_model::{FeedId, Millis, Timestamp, UserId};
use postrider_sources::queue::{Delivery, Source};
use postrider_sources::sqs::{SqsAccess, SqsUsers, SqsUsersOptions};
use postrider_sources::template::Template;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

const USERS: usize = 2_000;

/// Queues that hold one message each, at most.
#[derive(Default)]
struct Stub {
    messages: Mutex<HashMap<String, String>>,
    came: Notify,
    connections: AtomicUsize,
    most: AtomicUsize,
    receives: AtomicUsize,
}

impl Stub {
    fn put(&self, queue: &str, body: &str) {
        self.messages
            .lock()
            .unwrap()
            .insert(queue.to_owned(), body.to_owned());
        self.came.notify_waiters();
    }

    async fn serve(self: Arc<Self>, listener: TcpListener) {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let own = self.clone();
            tokio::spawn(async move {
                let now = own.connections.fetch_add(1, Ordering::SeqCst) + 1;
                own.most.fetch_max(now, Ordering::SeqCst);
                own.talk(socket).await;
                own.connections.fetch_sub(1, Ordering::SeqCst);
            });
        }
    }

    async fn talk(&self, socket: TcpStream) -> Option<()> {
        let mut socket = BufReader::with_capacity(2_048, socket);
        loop {
            let (mut length, mut target, mut line) = (0, String::new(), String::new());
            loop {
                line.clear();
                if socket.read_line(&mut line).await.ok()? == 0 {
                    return None;
                }
                let lower = line.trim().to_ascii_lowercase();
                if let Some(value) = lower.strip_prefix("content-length:") {
                    length = value.trim().parse().ok()?;
                } else if let Some(value) = lower.strip_prefix("x-amz-target:") {
                    target = value.trim().to_owned();
                } else if lower.is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            socket.read_exact(&mut body).await.ok()?;
            let asked: Value = serde_json::from_slice(&body).ok()?;
            let answer = self.answer(&target, &asked).await.to_string();
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.0\r\ncontent-length: {}\r\n\r\n{answer}",
                answer.len()
            );
            socket.get_mut().write_all(head.as_bytes()).await.ok()?;
        }
    }

    async fn answer(&self, target: &str, asked: &Value) -> Value {
        if target != "amazonsqs.receivemessage" {
            let ids = asked["Entries"].as_array().into_iter().flatten();
            let done: Vec<_> = ids.map(|entry| json!({"Id": entry["Id"]})).collect();
            return json!({"Successful": done, "Failed": []});
        }
        self.receives.fetch_add(1, Ordering::SeqCst);
        let queue = asked["QueueUrl"].as_str().unwrap();
        let until =
            tokio::time::Instant::now() + Duration::from_secs(asked["WaitTimeSeconds"].as_u64().unwrap());
        loop {
            let came = self.came.notified();
            if let Some(body) = self.messages.lock().unwrap().remove(queue) {
                let message = json!({"MessageId": queue, "ReceiptHandle": queue, "Body": body});
                return json!({"Messages": [message]});
            }
            if tokio::time::timeout_at(until, came).await.is_err() {
                return json!({});
            }
        }
    }
}

/// Threads, and resident KiB.
fn self_status() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let number = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    (number("Threads:"), number("VmRSS:"))
}

/// CPU of this process so far, in ticks of 10 ms.
fn ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn user(n: usize) -> FeedId {
    FeedId::User(UserId::new(&format!("u{n}")).unwrap())
}

fn source(endpoint: &str, connections: usize) -> SqsUsers {
    let start = Instant::now();
    SqsUsers::new(SqsUsersOptions {
        access: SqsAccess {
            account: Arc::new(Account::with_keys("a", "s")),
            reach: Reach {
                region: Some("eu-central-1".into()),
                endpoint: Some(endpoint.to_owned()),
                ..Reach::default()
            },
            wait: Duration::from_secs(20),
            visibility: Duration::from_secs(30),
            parallel: 10,
            node: "n".into(),
        },
        queue: Template::parse(&format!("{endpoint}/1/n-{{user}}"), "{user}").unwrap(),
        connections,
        unsettled: 32,
        shared: 1_024,
        linger: Millis(100),
        steady: Arc::new(move || Timestamp(u64::try_from(start.elapsed().as_millis()).unwrap())),
        random: Arc::new(|| u64::MAX / 2),
    })
}

/// Receives until one came, and how long that took.
async fn one(source: &SqsUsers) -> (Vec<Delivery>, Duration) {
    let begun = Instant::now();
    loop {
        let came = source.receive(0, 64).await.unwrap();
        if !came.is_empty() {
            return (came, begun.elapsed());
        }
    }
}

/// With so many connections for them all: seconds until a message for somebody came.
async fn run(connections: usize) -> f64 {
    let stub = Arc::<Stub>::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(stub.clone().serve(listener));
    let (threads, memory) = self_status();
    let source = source(&endpoint, connections);
    (0..USERS).for_each(|n| source.follow(&user(n)));
    source.open().await.unwrap();
    let all = async {
        while source.polled().1 < connections || stub.receives.load(Ordering::SeqCst) < USERS {
            assert!(source.receive(0, 64).await.unwrap().is_empty());
        }
    };
    tokio::time::timeout(Duration::from_secs(120), all)
        .await
        .expect("all are polled");
    let (before, asked) = (ticks(), stub.receives.load(Ordering::SeqCst));
    for _ in 0..5 {
        source.receive(0, 64).await.unwrap();
    }
    let asked = (stub.receives.load(Ordering::SeqCst) - asked) as f64 / 5.0;
    let cpu = (ticks() - before) as f64 / 500.0;
    let (threads_then, memory_then) = self_status();
    stub.put(&format!("{endpoint}/1/n-u777"), "\"hello\"");
    let (came, took) = one(&source).await;
    assert_eq!(came[0].message().feed, Some(user(777)));
    for delivery in came {
        delivery.ack().await.unwrap();
    }
    println!(
        "{USERS} users, {connections} connections: {} at most, {} threads more, {} KiB more (stand-in included), \
         {asked:.0} requests a second, {:.1} % of a core (stand-in included), a message after {:.3} s",
        stub.most.load(Ordering::SeqCst),
        threads_then - threads,
        memory_then.saturating_sub(memory),
        cpu * 100.0,
        took.as_secs_f64()
    );
    assert!(threads_then <= threads + 4, "a thread for users");
    // Polls are bounded. Beside their connections are those of single calls, and those that came back to the client a
    // moment after the next poll of a turn began: on a machine that stood still, of all polls.
    assert!(stub.most.load(Ordering::SeqCst) <= 2 * connections + 34);
    serving.abort();
    took.as_secs_f64()
}

#[test]
fn two_thousand_users_on_few_threads_and_bounded_connections() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        // Both far below what polls of 20 s that follow one another would take, and above what a busy machine needs.
        assert!(run(USERS).await < 15.0, "a long poll brings it at once");
        assert!(run(USERS / 4).await < 60.0, "in turns of a second");
    });
}
