//! A queue whose messages are made when they are asked for.
//!
//! What is in it is said in [batches](Batch), at the start or later (`GET /put?...`): so many messages, for one user each or
//! for everyone, all at once or so many a second. Every message carries its number `n`, counted from 0 over all batches, and
//! the time `t` in microseconds since 1970 at which it was given out or, at a rate, was due to be.

use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::Notify;

/// What every client gets.
const PAYLOAD: &str =
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
/// An empty queue makes a poll wait for no longer than SQS does.
const POLL_MOST: u64 = 20;

/// Messages of a kind.
pub struct Batch {
    pub count: u64,
    /// For everyone; else the nth is for the user `u{n % users}`.
    pub is_for_all: bool,
    /// So many a second; 0 for all at once.
    pub rate: u64,
}

/// See the module.
pub struct Queue {
    users: u64,
    state: Mutex<State>,
    put: Notify,
    deleted: AtomicU64,
}

#[derive(Default)]
struct State {
    batches: VecDeque<Batch>,
    /// When the first batch began, and how many of it were given out.
    began: Option<u64>,
    given: u64,
    /// The number of the next message.
    next: u64,
}

/// What an empty hand waits for.
enum Wait {
    Micros(u64),
    More,
}

impl Queue {
    pub fn new(users: u64) -> Queue {
        Queue {
            users: users.max(1),
            state: Mutex::default(),
            put: Notify::new(),
            deleted: AtomicU64::new(0),
        }
    }

    pub fn put(&self, batch: Batch) {
        if batch.count > 0 {
            self.state().batches.push_back(batch);
            self.put.notify_waiters();
        }
    }

    pub fn deleted(&self) -> u64 {
        self.deleted.load(Ordering::Relaxed)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What SQS answers to a call of this name.
    pub async fn answer(&self, call: &str, asked: &Value) -> Option<Value> {
        let entries = || asked["Entries"].as_array().cloned().unwrap_or_default();
        let all_done = |entries: Vec<Value>| {
            let done = entries.iter().map(|entry| json!({"Id": entry["Id"]}));
            json!({"Successful": done.collect::<Vec<_>>(), "Failed": []})
        };
        Some(match call {
            "ReceiveMessage" => self.receive(asked).await,
            "DeleteMessageBatch" => {
                let entries = entries();
                self.deleted.fetch_add(entries.len() as u64, Ordering::Relaxed);
                all_done(entries)
            }
            "DeleteMessage" => {
                self.deleted.fetch_add(1, Ordering::Relaxed);
                json!({})
            }
            "ChangeMessageVisibilityBatch" => all_done(entries()),
            "GetQueueAttributes" => json!({"Attributes": {"VisibilityTimeout": "30"}}),
            _ => return None,
        })
    }

    async fn receive(&self, asked: &Value) -> Value {
        let most = asked["MaxNumberOfMessages"].as_u64().unwrap_or(1);
        let wait = asked["WaitTimeSeconds"].as_u64().unwrap_or(0).min(POLL_MOST);
        let until = tokio::time::Instant::now() + Duration::from_secs(wait);
        loop {
            let put = self.put.notified();
            let (messages, wait) = self.state().take(most, self.users);
            if !messages.is_empty() {
                return json!({"Messages": messages});
            }
            let ended = match wait {
                Wait::Micros(micros) => {
                    let due = tokio::time::Instant::now() + Duration::from_micros(micros);
                    tokio::time::sleep_until(due.min(until)).await;
                    tokio::time::Instant::now() >= until
                }
                Wait::More => tokio::time::timeout_at(until, put).await.is_err(),
            };
            if ended {
                return json!({});
            }
        }
    }
}

impl State {
    fn take(&mut self, most: u64, users: u64) -> (Vec<Value>, Wait) {
        let now = micros();
        let mut out = Vec::new();
        while (out.len() as u64) < most {
            let Some(batch) = self.batches.front() else {
                return (out, Wait::More);
            };
            let began = *self.began.get_or_insert(now);
            let due = match batch.rate {
                0 => now,
                rate => began + self.given * 1_000_000 / rate,
            };
            if due > now {
                return (out, Wait::Micros(due - now));
            }
            out.push(message(
                self.next,
                due,
                (!batch.is_for_all).then(|| self.next % users),
            ));
            self.next += 1;
            self.given += 1;
            if self.given == batch.count {
                self.batches.pop_front();
                (self.began, self.given) = (None, 0);
            }
        }
        (out, Wait::More)
    }
}

fn message(n: u64, t: u64, user: Option<u64>) -> Value {
    let users = user.map_or(String::new(), |user| format!(r#""users":["u{user}"],"#));
    let body = format!(r#"{{{users}"data":{{"n":{n},"t":{t},"text":"{PAYLOAD}"}}}}"#);
    json!({"MessageId": format!("m{n}"), "ReceiptHandle": format!("r{n}"), "Body": body,
        "Attributes": {"ApproximateReceiveCount": "1"}})
}

fn micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}
