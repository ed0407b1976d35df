//! Kills the node with `SIGKILL` at random moments while it is published to and read from, and judges at the end.
//!
//! Invariant checked: what was accepted reaches every recipient, in the order of its feed; a repeat is only of what
//! came after the last cursor before a cut. A publish without an answer is tried again under the same id.
//!
//! `POSTRIDER_KILLS` (default 10) and `POSTRIDER_SEED` set its length and its choices; the seed fixes what is
//! published and when a kill is due, not how threads interleave.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]
#![allow(
    clippy::disallowed_methods,
    reason = "a black-box test is a driver: it reads clocks, spawns and draws"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use postrider_harness::account::{Account, Audience};
use postrider_harness::inbox::{AckMode, TRANSPORTS, Transport};
use postrider_harness::node::{KEY, Node};
use postrider_harness::publish::Publisher;
use postrider_harness::reader::{Reader, ReaderSpec};
use postrider_harness::settle::{Shape, publish};
use postrider_harness::wait::{until_true, within};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, IteratorRandom};
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

const USERS: usize = 6;
const TOPICS: [&str; 4] = ["weather", "news:eu", "builds/main", "chat~1"];
const PUBLISHERS: usize = 6;
/// So many more are accepted before a kill that does not come right after a start.
const ACCEPTED_EACH: u64 = 10;
const SETS: [(&str, &str); 1] = [("topics.open", r#"["*"]"#)];

#[test]
fn nothing_accepted_is_lost_over_kills() {
    let kills = number("POSTRIDER_KILLS").unwrap_or(10);
    let seed = number("POSTRIDER_SEED").unwrap_or_else(rand::random);
    println!("kill_loop: POSTRIDER_SEED={seed} POSTRIDER_KILLS={kills}");
    if let Err(e) = run(kills, seed) {
        panic!("with POSTRIDER_SEED={seed}: {e:?}");
    }
}

fn run(kills: u64, seed: u64) -> Result<()> {
    let started = Instant::now();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut node = Node::start(&SETS)?;
    let account = Arc::new(Account::default());
    let readers = readers(&node, &account, &mut rng)?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut publishers = Vec::new();
    for number in 0..PUBLISHERS {
        let (account, stop) = (account.clone(), stop.clone());
        let publisher = Publisher::new(&node.endpoint, KEY);
        let rng = StdRng::seed_from_u64(rng.random());
        publishers.push(std::thread::spawn(move || {
            publish_until(&stop, number, publisher, &account, rng)
        }));
    }
    // Whoever has a session is cut by the first kill.
    until_true("all sessions", within(60), || {
        Ok(readers.iter().all(Reader::has_begun))
    })?;
    for kill in 1..=kills {
        // One in five comes right after the start, while sessions resume and the store settles down; before the others
        // there is work.
        let is_early = kill > 1 && rng.random_ratio(1, 5);
        let life = if is_early { 0..30 } else { 100..1500 };
        let enough = account.accepted_count() + ACCEPTED_EACH;
        std::thread::park_timeout(Duration::from_millis(rng.random_range(life)));
        until_true("publishing to go on", within(60), || {
            Ok(is_early || account.accepted_count() >= enough)
        })
        .with_context(|| format!("before kill {kill}"))?;
        node.kill9()?;
        node.restart()
            .with_context(|| format!("restart after kill {kill}"))?;
    }
    stop.store(true, Ordering::Relaxed);
    let mut attempts = 0;
    for publisher in publishers {
        attempts += publisher
            .join()
            .map_err(|_| anyhow::anyhow!("a publisher panicked"))??;
    }
    account.wait_complete(Instant::now() + Duration::from_secs(60 + kills));
    let stayed = || account.reconnects().into_iter().filter(|(_, times)| *times == 0);
    let all_back = until_true("everyone to come back", within(60), || {
        Ok(stayed().next().is_none())
    });
    all_back.with_context(|| format!("{:?}", stayed().collect::<Vec<_>>()))?;
    readers.into_iter().for_each(Reader::stop);
    let report = account.report();
    println!(
        "kill_loop: kills {kills}, publish requests {attempts}, {} in {:.1} s",
        report.text(),
        started.elapsed().as_secs_f64()
    );
    ensure!(report.is_clean(), "the account does not balance");
    let status = node.terminate(Duration::from_secs(25))?;
    ensure!(status.success(), "exit after SIGTERM: {status}");
    Ok(())
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect(name))
}

/// Each user on each transport; one of them leaves by itself, one changes transport at every session.
fn readers(node: &Node, account: &Arc<Account>, rng: &mut StdRng) -> Result<Vec<Reader>> {
    let mut readers = Vec::new();
    let mut start = |name: String, user: usize, transports: Vec<Transport>, leaves: bool| -> Result<()> {
        let topics = TOPICS
            .into_iter()
            .take(user % (TOPICS.len() + 1))
            .map(str::to_owned)
            .collect();
        let spec = ReaderSpec {
            name,
            user: format!("user-{user}"),
            topics,
            member_of: Vec::new(),
            transports,
            ack: AckMode::Auto,
            leaves_after: leaves.then_some(1..=400),
            seed: rng.random(),
        };
        readers.push(Reader::start(&node.endpoint, account, spec)?);
        Ok(())
    };
    for user in 0..USERS {
        for transport in TRANSPORTS {
            start(
                format!("user-{user} by {transport}"),
                user,
                vec![transport],
                false,
            )?;
        }
    }
    for user in 0..3 {
        start(format!("user-{user} restless"), user, TRANSPORTS.to_vec(), true)?;
    }
    Ok(readers)
}

fn publish_until(
    stop: &AtomicBool,
    number: usize,
    mut publisher: Publisher,
    account: &Account,
    mut rng: StdRng,
) -> Result<u64> {
    let mut next = 0;
    let mut requests = 0;
    while !stop.load(Ordering::Relaxed) {
        let (shape, count) = match rng.random_range(0..3) {
            0 => (Shape::Single, 1),
            1 => (Shape::Array, rng.random_range(1..=20)),
            _ => (Shape::Stream, rng.random_range(1..=30)),
        };
        let batch: Vec<Value> = (0..count)
            .map(|_| {
                next += 1;
                compose(&format!("p{number}-{next}"), number, account, &mut rng)
            })
            .collect();
        let attempts = publish(&mut publisher, shape, &batch, within(60), |id| {
            account.accepted(id)
        })?;
        requests += u64::from(attempts);
        std::thread::park_timeout(Duration::from_millis(rng.random_range(20..60)));
    }
    Ok(requests)
}

/// A random notification, noted in the account as sent.
fn compose(id: &str, publisher: usize, account: &Account, rng: &mut StdRng) -> Value {
    let size = if rng.random_ratio(1, 50) {
        rng.random_range(0..60_000)
    } else {
        rng.random_range(0..300)
    };
    let data = json!({"id": id, "pad": "é".repeat(size / 2)});
    let user = |n: usize| format!("user-{n}");
    let mut notification = json!({"id": id, "data": data});
    let mut excluded = Vec::new();
    let audience = match rng.random_range(0..10) {
        0..=6 => {
            // Some of the users have no reader at all.
            let count = rng.random_range(1..=3);
            let users: Vec<String> = (0..USERS * 2)
                .choose_multiple(rng, count)
                .into_iter()
                .map(user)
                .collect();
            notification["users"] = json!(users);
            Audience::Users(users)
        }
        7 | 8 => {
            let count = if rng.random_ratio(1, 5) { 2 } else { 1 };
            let topics: Vec<String> = TOPICS
                .choose_multiple(rng, count)
                .map(|t| (*t).to_owned())
                .collect();
            notification["topics"] = json!(topics);
            Audience::Topics(topics)
        }
        _ => Audience::Everyone,
    };
    if rng.random_ratio(1, 10) {
        excluded.push(user(rng.random_range(0..USERS)));
        notification["exclude_users"] = json!(excluded);
    }
    account.sent(publisher, id, &data.to_string(), &audience, &excluded);
    notification
}
