//! A source whose link to SQS breaks without a word while much is under way. Over real connections, by real time.

#![allow(
    clippy::disallowed_methods,
    reason = "a test: a server on threads, and real time"
)]

use super::{QueueName, Sqs, SqsAccess, SqsOptions};
use crate::queue::{Delivery, Source};
use futures_util::future::join_all;
use postrider_aws::{Account, Reach};
use postrider_harness::proxy::{Proxy, Way, Weather};
use postrider_model::Timestamp;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// How long a call waits for its answer, and a poll beyond its own wait.
const ANSWER: Duration = Duration::from_secs(2);
const WAIT: Duration = Duration::from_secs(20);
/// The link is whole again, and the source takes messages: within this, and long before the time of a poll is over.
const BACK: Duration = Duration::from_secs(20);
const WORKERS: usize = 4;

/// As much of SQS as is needed here: what was given out does not come again.
#[derive(Default)]
struct Queue {
    /// So many wait, and the next one's number.
    waiting: Mutex<(usize, usize)>,
    came: Condvar,
}

impl Queue {
    fn start() -> (Arc<Queue>, SocketAddr) {
        let queue = Arc::new(Queue::default());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (addr, own) = (listener.local_addr().unwrap(), queue.clone());
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let (socket, own) = (socket.unwrap(), own.clone());
                // Whoever is cut off in the middle ends it.
                std::thread::spawn(move || own.serve(&socket).ok());
            }
        });
        (queue, addr)
    }

    fn put(&self, count: usize) {
        self.waiting.lock().unwrap().0 += count;
        self.came.notify_all();
    }

    fn serve(&self, socket: &TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(socket);
        while let Some((call, asked)) = request(&mut reader)? {
            let answer = match call.as_str() {
                "ReceiveMessage" => self.receive(&asked),
                "GetQueueAttributes" => json!({"Attributes": {}}),
                _ => {
                    let entries = asked["Entries"].as_array().unwrap();
                    let done: Vec<_> = entries.iter().map(|entry| json!({"Id": entry["Id"]})).collect();
                    json!({"Successful": done, "Failed": []})
                }
            };
            let (body, kind) = (answer.to_string(), "application/x-amz-json-1.0");
            let length = body.len();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n");
            (&*socket).write_all((head + &body).as_bytes())?;
        }
        Ok(())
    }

    fn receive(&self, asked: &Value) -> Value {
        let number = |name: &str| usize::try_from(asked[name].as_u64().unwrap()).unwrap();
        let wait = Duration::from_secs(number("WaitTimeSeconds") as u64);
        let waiting = self.waiting.lock().unwrap();
        let none = |waiting: &mut (usize, usize)| waiting.0 == 0;
        let mut waiting = self.came.wait_timeout_while(waiting, wait, none).unwrap().0;
        let count = waiting.0.min(number("MaxNumberOfMessages"));
        let first = waiting.1;
        *waiting = (waiting.0 - count, first + count);
        let messages: Vec<_> = (first..first + count)
            .map(|n| json!({"MessageId": n.to_string(), "ReceiptHandle": n.to_string(), "Body": "x"}))
            .collect();
        json!({"Messages": messages})
    }
}

/// What is called, and with what; `None` at the end.
fn request(reader: &mut impl BufRead) -> std::io::Result<Option<(String, Value)>> {
    let (mut call, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        match line.trim_end().split_once(": ") {
            Some(("x-amz-target", target)) => call = target.rsplit('.').next().unwrap().to_owned(),
            Some(("content-length", text)) => length = text.parse().unwrap(),
            None if line == "\r\n" => break,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some((call, serde_json::from_slice(&body).unwrap())))
}

fn source(endpoint: SocketAddr) -> Sqs {
    let start = Instant::now();
    Sqs::new(SqsOptions {
        access: SqsAccess {
            account: Arc::new(Account::with_keys("a", "s")),
            reach: Reach {
                region: Some("eu-central-1".into()),
                endpoint: Some(format!("http://{endpoint}")),
                answer: ANSWER,
                ..Reach::default()
            },
            wait: WAIT,
            visibility: Duration::from_secs(30),
            parallel: 10,
            node: "n".into(),
        },
        queue: QueueName::Url(format!("http://{endpoint}/1/q")),
        workers: WORKERS,
        create: false,
        remove: false,
        steady: Arc::new(move || Timestamp(u64::try_from(start.elapsed().as_millis()).unwrap())),
        random: Arc::new(|| u64::MAX / 2),
    })
}

/// As the workers do it, until so many came.
async fn take(source: &Sqs, count: usize) -> Vec<Delivery> {
    let mut came = Vec::new();
    while came.len() < count {
        let received = match source.open().await {
            Ok(()) => join_all((0..WORKERS).map(|worker| source.receive(worker, 10))).await,
            Err(fault) => vec![Err(fault)],
        };
        if received.iter().all(Result::is_err) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        came.extend(received.into_iter().flatten().flatten());
    }
    came
}

/// Whether more than half went well.
fn most<T, E>(results: &[Result<T, E>]) -> bool {
    2 * results.iter().filter(|result| result.is_ok()).count() > results.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_link_that_broke_in_silence_it_is_back_within_seconds() {
    let (queue, addr) = Queue::start();
    let proxy = Proxy::start(&[addr]).unwrap();
    let source = source(proxy.addr());
    source.open().await.unwrap();
    queue.put(400);
    let mut held = take(&source, 400).await;
    // Some are settled, so that there are connections at rest; the polls of the workers are under way.
    let settled = join_all(held.drain(200..).map(Delivery::ack)).await;
    // All, but where this machine stands still for longer than they are worth saying.
    assert!(most(&settled));
    let none = join_all((0..WORKERS).map(|worker| source.receive(worker, 10))).await;
    assert!(none.iter().all(|none| none.as_ref().unwrap().is_empty()));
    proxy.weather(Weather {
        swallows: vec![Way::There, Way::Back],
        ..Weather::default()
    });
    // The polls are answered, and the answers vanish; what came before is settled in vain. It comes again in its time.
    queue.put(WORKERS * 10);
    let settled = join_all(held.into_iter().map(Delivery::ack)).await;
    assert!(settled.iter().all(Result::is_err));
    proxy.clear();
    queue.put(100);
    let came = tokio::time::timeout(BACK, take(&source, 100)).await;
    let came = came.unwrap_or_else(|_| panic!("nothing came in {BACK:?}"));
    let settled = tokio::time::timeout(BACK, join_all(came.into_iter().map(Delivery::ack))).await;
    assert!(most(&settled.unwrap()));
}
