//! Publishers that take no for an answer, readers on every transport, and the account of both.
//!
//! Invariant: an id is sent once. What it was answered is what the account knows of it: accepted, or not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use postrider_harness::account::{Account, Audience, Report};
use postrider_harness::http::Answer;
use postrider_harness::inbox::{AckMode, Connect, Received, TRANSPORTS, Transport};
use postrider_harness::node::{Endpoint, KEY, Node};
use postrider_harness::publish::{Item, Publisher};
use postrider_harness::reader::{Reader, ReaderSpec};
use postrider_harness::token;
use postrider_harness::wait::{until_true, within};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

const USERS: [&str; 4] = ["ada", "bob", "cyd", "dee"];
/// Users who read; the others' entries are there as well, and read by nobody until the end.
const READERS: usize = 3;
/// Longest pause of a publisher.
const PAUSE_MAX_MS: u64 = 10;

/// How much is published.
#[derive(Clone, Copy)]
pub struct LoadSpec {
    pub publishers: usize,
    /// Most bytes of one `data`.
    pub data_bytes: usize,
    pub seed: u64,
}

impl LoadSpec {
    /// Small notifications by two publishers.
    pub fn small() -> LoadSpec {
        LoadSpec {
            publishers: 2,
            data_bytes: 300,
            seed: 1,
        }
    }
}

/// What the publishers were answered so far.
#[derive(Default)]
pub struct Tally {
    pub accepted: AtomicU64,
    pub refused: AtomicU64,
    /// Requests that got no answer.
    pub unanswered: AtomicU64,
}

/// Publishing and reading that goes on.
pub struct Load {
    pub account: Arc<Account>,
    pub tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
    publishers: Vec<JoinHandle<()>>,
    readers: Vec<Reader>,
}

impl Load {
    pub fn start(node: &Node, spec: LoadSpec) -> Result<Load> {
        let account = Arc::new(Account::default());
        let mut readers = Vec::new();
        for (at, user) in USERS.into_iter().enumerate().take(READERS) {
            readers.push(Reader::start(
                &node.endpoint,
                &account,
                reader(user, at, spec.seed),
            )?);
        }
        let mut load = Load {
            account,
            tally: Arc::default(),
            stop: Arc::default(),
            publishers: Vec::new(),
            readers,
        };
        for number in 0..spec.publishers {
            let publishing = Publishing {
                number,
                account: load.account.clone(),
                tally: load.tally.clone(),
                stop: load.stop.clone(),
                rng: StdRng::seed_from_u64(spec.seed * 1000 + number as u64),
                data_bytes: spec.data_bytes,
            };
            let endpoint = node.endpoint.clone();
            load.publishers
                .push(std::thread::spawn(move || publishing.run(&endpoint)));
        }
        Ok(load)
    }

    /// Waits until so many more were refused.
    pub fn wait_refused(&self, more: u64, deadline: Instant) -> Result<()> {
        self.wait("refusals", &self.tally.refused, more, deadline)
    }

    /// Waits until so many more were accepted.
    pub fn wait_accepted(&self, more: u64, deadline: Instant) -> Result<()> {
        self.wait("accepted notifications", &self.tally.accepted, more, deadline)
    }

    fn wait(&self, what: &str, counter: &AtomicU64, more: u64, deadline: Instant) -> Result<()> {
        let wanted = counter.load(Ordering::Relaxed) + more;
        until_true(what, deadline, || Ok(counter.load(Ordering::Relaxed) >= wanted)).with_context(|| {
            format!(
                "accepted {}, refused {}, unanswered {}",
                self.tally.accepted.load(Ordering::Relaxed),
                self.tally.refused.load(Ordering::Relaxed),
                self.tally.unanswered.load(Ordering::Relaxed)
            )
        })
    }

    /// No more is published.
    pub fn stop_publishing(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for publisher in self.publishers.drain(..) {
            if publisher.join().is_err() {
                self.account.violation("a publisher panicked".to_owned());
            }
        }
    }

    /// Ends the publishing, waits until every reader has all of its own, and judges.
    pub fn judge(mut self, what: &str, node: &Node, deadline: Instant) -> Result<Report> {
        self.stop_publishing();
        // Somebody who was never there while it happened must find the same.
        read_late(node, &self.account)?;
        self.account.wait_complete(deadline);
        self.readers.drain(..).for_each(Reader::stop);
        let report = self.account.report();
        println!(
            "{what}: refused {}, unanswered {}, {}",
            self.tally.refused.load(Ordering::Relaxed),
            self.tally.unanswered.load(Ordering::Relaxed),
            report.text()
        );
        ensure!(
            report.is_clean(),
            "{what}: the account does not balance: {}",
            report.text()
        );
        Ok(report)
    }
}

fn reader(user: &str, at: usize, seed: u64) -> ReaderSpec {
    ReaderSpec {
        name: format!("{user} by {}", TRANSPORTS[at]),
        user: user.to_owned(),
        topics: Vec::new(),
        member_of: Vec::new(),
        transports: vec![TRANSPORTS[at]],
        ack: AckMode::Auto,
        leaves_after: None,
        seed: seed + at as u64,
    }
}

/// The last of the users comes only now, without a cursor, and is to get all of its own.
fn read_late(node: &Node, account: &Account) -> Result<()> {
    let user = USERS[READERS];
    let book = account.reader(&format!("{user}, late"), user, &[]);
    let mut connect = Connect::new(&node.endpoint, &token::user(user)?).ack(AckMode::None);
    connect.poll_wait = 0;
    connect.poll_limit = 1000;
    let mut inbox = connect.open(Transport::LongPoll)?;
    loop {
        match inbox.next(within(120))?.context("a late reader got no answer")? {
            Received::Notification(notification) => account.received(book, &notification),
            Received::Cursor(_) => account.cursor(book),
            // An empty page: that was all.
            Received::KeepAlive => return Ok(()),
            Received::Gap(oldest) => account.violation(format!("a gap for a late reader, {oldest:?}")),
            other => account.violation(format!("a late reader got {other:?}")),
        }
    }
}

struct Publishing {
    number: usize,
    account: Arc<Account>,
    tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
    rng: StdRng,
    data_bytes: usize,
}

impl Publishing {
    fn run(mut self, endpoint: &Endpoint) {
        let mut publisher = Publisher::new(endpoint, KEY);
        let mut next = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let count = if self.rng.random_ratio(1, 5) { 5 } else { 1 };
            let batch: Vec<Value> = (0..count)
                .map(|_| {
                    next += 1;
                    self.compose(next)
                })
                .collect();
            let body = if count == 1 {
                batch[0].to_string()
            } else {
                json!(batch).to_string()
            };
            match publisher.raw("application/json", body) {
                Ok(answer) => {
                    if let Err(e) = self.note(&batch, &answer) {
                        self.account
                            .violation(format!("publisher {}: {e:#}", self.number));
                    }
                }
                // It was killed, or it cut the connection: nothing is known of these.
                Err(_) => {
                    self.tally.unanswered.fetch_add(1, Ordering::Relaxed);
                    publisher = Publisher::new(endpoint, KEY);
                }
            }
            std::thread::park_timeout(Duration::from_millis(self.rng.random_range(0..PAUSE_MAX_MS)));
        }
    }

    fn compose(&mut self, next: u64) -> Value {
        let id = format!("p{}-{next}", self.number);
        let data = json!({"id": id, "pad": "x".repeat(self.rng.random_range(0..self.data_bytes))});
        let mut notification = json!({"id": id, "data": data});
        let audience = if self.rng.random_ratio(1, 8) {
            Audience::Everyone
        } else {
            let users: Vec<String> = USERS
                .choose_multiple(&mut self.rng, 2)
                .map(|user| (*user).to_owned())
                .collect();
            notification["users"] = json!(users);
            Audience::Users(users)
        };
        self.account
            .sent(self.number, &id, &data.to_string(), &audience, &[]);
        notification
    }

    fn note(&self, batch: &[Value], answer: &Answer) -> Result<()> {
        let items = match answer.status() {
            202 if batch.len() == 1 => vec![Item::Accepted(text(&answer.json()?["id"]))],
            202 => postrider_harness::publish::items(&answer.json()?, batch.len())?,
            _ => {
                is_unavailable(answer)?;
                self.tally
                    .refused
                    .fetch_add(batch.len() as u64, Ordering::Relaxed);
                return Ok(());
            }
        };
        for (sent, item) in batch.iter().zip(items) {
            match item {
                Item::Accepted(id) => {
                    ensure!(sent["id"] == id, "{} was accepted as {id}", sent["id"]);
                    self.account.accepted(&id);
                    self.tally.accepted.fetch_add(1, Ordering::Relaxed);
                }
                Item::Rejected(code, told) => {
                    ensure!(code == "unavailable", "an item was rejected with {told}");
                    self.tally.refused.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        Ok(())
    }
}

/// A refusal that says when to come back.
pub fn is_unavailable(answer: &Answer) -> Result<()> {
    let told = format!("{} {}", answer.status(), answer.text());
    ensure!(answer.status() == 503, "wanted 503, got {told}");
    ensure!(
        answer.code().as_deref() == Some("unavailable"),
        "wanted unavailable, got {told}"
    );
    let after = answer
        .head
        .header("retry-after")
        .and_then(|seconds| seconds.parse::<u64>().ok());
    ensure!(
        after.is_some_and(|seconds| seconds > 0),
        "503 without Retry-After: {:?}",
        answer.head
    );
    Ok(())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
