//! The back-ends: they publish to users, topics and everyone, through any node that is up, until each is accepted.
//!
//! Invariant: what one of them publishes it publishes one after the other, so that a feed must hold it in that order;
//! an attempt after an unknown outcome has the same id and the same content.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use postrider_harness::account::{Account, Audience};
use postrider_harness::http::Request;
use postrider_harness::node::{Endpoint, KEY};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, IteratorRandom};
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::crowd::{SESSION_TOPICS, TEAM, USERS, name};
use super::pause;

const PUBLISHERS: usize = 4;
/// Between two notifications of one, in milliseconds.
const PACE: std::ops::Range<u64> = 60..160;
/// How long an answer may take before the outcome is taken for unknown.
const ANSWERS_WITHIN: Duration = Duration::from_secs(12);
/// How long a notification is tried.
const TRIED_FOR: Duration = Duration::from_secs(60);
/// Pause after a refusal, in milliseconds.
const AGAIN: u64 = 30;

/// What was published.
#[derive(Default)]
pub struct Published {
    pub requests: u64,
    /// Those for a list of users, whose states can be compared.
    pub to_users: Vec<String>,
}

pub struct BackEnd {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<Published>>>,
}

impl BackEnd {
    pub fn start(endpoints: &[Endpoint], account: &Arc<Account>, rng: &mut StdRng) -> BackEnd {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..PUBLISHERS)
            .map(|number| {
                let (endpoints, account, stop) = (endpoints.to_vec(), account.clone(), stop.clone());
                let mut rng = StdRng::seed_from_u64(rng.random());
                std::thread::spawn(move || {
                    let mut published = Published::default();
                    for nth in 0.. {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        let id = format!("p{number}-{nth}");
                        let body = compose(&id, number, &account, &mut rng);
                        published.requests += publish(&endpoints, &id, &body, &account, &mut rng)?;
                        if body["users"].is_array() {
                            published.to_users.push(id);
                        }
                        pause(rng.random_range(PACE));
                    }
                    Ok(published)
                })
            })
            .collect();
        BackEnd { stop, threads }
    }

    /// Lets each finish what it has begun.
    pub fn stop(self) -> Result<Published> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Published::default();
        for thread in self.threads {
            let one = thread.join().ok().context("a publisher panicked")??;
            all.requests += one.requests;
            all.to_users.extend(one.to_users);
        }
        Ok(all)
    }
}

/// Tries through any node until it is accepted; how many requests that took.
fn publish(
    endpoints: &[Endpoint],
    id: &str,
    body: &Value,
    account: &Account,
    rng: &mut StdRng,
) -> Result<u64> {
    let began = Instant::now();
    for attempt in 1.. {
        let up = endpoints.iter().filter(|node| node.is_up()).choose(rng);
        let answer = up.map(|node| post(node, body));
        match answer {
            Some(Ok((202, said))) if said["id"] == id => {
                account.accepted(id);
                return Ok(attempt);
            }
            // The store is away, or the node is: what became of it is unknown.
            Some(Ok((503, _)) | Err(_)) | None => {}
            Some(Ok((status, said))) => bail!("{id} was answered {status}: {said}"),
        }
        if began.elapsed() > TRIED_FOR {
            bail!("{id} was not accepted in {TRIED_FOR:?}; at last {answer:?}");
        }
        account.retried(id);
        pause(AGAIN);
    }
    bail!("no attempt was left")
}

/// One attempt, on a connection of its own.
pub fn post(node: &Endpoint, body: &Value) -> Result<(u16, Value)> {
    let request = Request::new("POST", "/v1/notifications")
        .bearer(KEY)
        .body("application/json", body.to_string());
    let answer = node
        .connect(None)?
        .call(&request, Instant::now() + ANSWERS_WITHIN)?;
    Ok((answer.status(), answer.json()?))
}

/// A random notification, noted in the account as sent.
fn compose(id: &str, publisher: usize, account: &Account, rng: &mut StdRng) -> Value {
    let size = if rng.random_ratio(1, 50) {
        rng.random_range(0..30_000)
    } else {
        rng.random_range(0..300)
    };
    let data = json!({"id": id, "pad": "é".repeat(size / 2)});
    let mut body = json!({"id": id, "data": data});
    let mut excluded = Vec::new();
    let audience = match rng.random_range(0..100) {
        0..80 => {
            let count = if rng.random_ratio(1, 20) {
                40
            } else {
                rng.random_range(1..=4)
            };
            let users: Vec<String> = (0..USERS)
                .choose_multiple(rng, count)
                .into_iter()
                .map(name)
                .collect();
            body["users"] = json!(users);
            Audience::Users(users)
        }
        80..97 => {
            let known = [&SESSION_TOPICS[..], &[TEAM]].concat();
            let count = if rng.random_ratio(1, 5) { 2 } else { 1 };
            let topics: Vec<String> = known
                .choose_multiple(rng, count)
                .map(|t| (*t).to_owned())
                .collect();
            body["topics"] = json!(topics);
            Audience::Topics(topics)
        }
        _ => Audience::Everyone,
    };
    if !matches!(audience, Audience::Users(_)) && rng.random_ratio(1, 5) {
        excluded.push(name(rng.random_range(0..USERS)));
        body["exclude_users"] = json!(excluded);
    }
    account.sent(publisher, id, &data.to_string(), &audience, &excluded);
    body
}
