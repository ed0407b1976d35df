//! Measures what the engine over Redis asks of its server: the time of the library's functions, and the server's whole
//! processor time, for each notification in batches of several sizes; and what a stored notification takes in memory.
//!
//! `redis-server --port 7777 --save "" &` and
//! `cargo run --release -p postrider-engine --example redis -- redis://127.0.0.1:7777`

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::expect_used,
    reason = "it measures, and says what it found"
)]

use bytes::Bytes;
use postrider_engine::redis::links::{Cell, Durability, TlsOptions};
use postrider_engine::redis::{DEFAULT_PATIENCE, RedisEngine, RedisOptions};
use postrider_engine::{Feeds, ReadLimit, Rules};
use postrider_model::{
    Audience, Devices, Durability as Kept, FeedId, Notification, NotificationId, Publication, Timestamp,
    UserId,
};
use redis::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Notifications of each size of batch.
const COUNT: usize = 20_000;
const READS: usize = 2000;
const DATA: usize = 128;

fn now() -> Timestamp {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    Timestamp(since.as_millis() as u64)
}

fn user(n: usize) -> UserId {
    UserId::new(&format!("user-{n:08}")).expect("a user id")
}

fn publication(n: usize) -> Publication {
    let rules = Rules::default();
    let notification = Notification {
        id: NotificationId::new(&format!("01890a5d-ac96-774b-bcce-{n:012}")).expect("an id"),
        time: now(),
        subject: None,
        data: Bytes::from(format!("\"{}\"", "x".repeat(DATA - 2))),
        audience: Audience::Users(vec![user(n)]),
        exclude: Vec::new(),
        durability: Kept::Stored,
        expires_at: Some(now().plus(rules.age)),
        deliver_at: None,
        collapse_key: None,
        policy: None,
        devices: Devices::All,
        publisher: "measure".into(),
    };
    Publication {
        feeds: notification.feeds(),
        notification: Arc::new(notification),
        content: n as u128,
        request: None,
    }
}

/// Microseconds and calls of each function, and all the processor time of the server in microseconds.
async fn spent(engine: &RedisEngine) -> (BTreeMap<String, f64>, f64, f64) {
    let stats = info(engine, "commandstats").await;
    let mut by = BTreeMap::new();
    for line in stats.lines().filter(|line| line.starts_with("cmdstat_fcall")) {
        let (name, rest) = line.split_once(':').expect("a command");
        let number = |key: &str| {
            let value = rest.split(',').find_map(|part| part.strip_prefix(key));
            value.and_then(|value| value.parse::<f64>().ok()).unwrap_or(0.0)
        };
        by.insert(format!("{} calls", &name[8..]), number("calls="));
        by.insert(format!("{} us", &name[8..]), number("usec="));
    }
    let cpu = info(engine, "cpu").await;
    let seconds = |key: &str| {
        let value = cpu.lines().find_map(|line| line.strip_prefix(key));
        value
            .and_then(|value| value.trim().parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    let memory = info(engine, "memory").await;
    let used = memory.lines().find_map(|line| line.strip_prefix("used_memory:"));
    let used = used.and_then(|value| value.trim().parse().ok()).unwrap_or(0.0);
    (
        by,
        (seconds("used_cpu_user:") + seconds("used_cpu_sys:")) * 1e6,
        used,
    )
}

async fn info(engine: &RedisEngine, section: &str) -> String {
    let mut command = redis::cmd("INFO");
    command.arg(section);
    let links = engine.links().expect("links");
    match links.command(Cell(0), command).await.expect("an answer") {
        Value::BulkString(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Value::VerbatimString { text, .. } => text,
        other => panic!("not a text: {other:?}"),
    }
}

#[tokio::main]
async fn main() {
    let url = std::env::args().nth(1).expect("the address of a Redis");
    let engine = RedisEngine::open(RedisOptions {
        url: url.parse().expect("an address"),
        tls: TlsOptions::default(),
        timeout: Duration::from_secs(5),
        durability: Durability::None,
        patience: DEFAULT_PATIENCE,
        rules: Rules::default(),
        clock: Arc::new(now),
        on_commit: Box::new(|_, _| {}),
    });
    let engine = engine.await.expect("an engine");
    let mut next = 0;
    for batch in [1, 16, 256, 512] {
        let count = if batch == 1 { COUNT / 10 } else { COUNT };
        let before = spent(&engine).await;
        let started = std::time::Instant::now();
        let end = next + count;
        while next < end {
            let publications = (next..next + batch).map(publication).collect();
            for receipt in engine.publish(publications).await {
                receipt.expect("a receipt");
            }
            next += batch;
        }
        report(
            &format!("publish, batches of {batch}"),
            count,
            started.elapsed(),
            &before,
            &spent(&engine).await,
        );
    }
    let before = spent(&engine).await;
    let started = std::time::Instant::now();
    let limit = ReadLimit {
        entries: 100,
        bytes: 1 << 20,
    };
    for n in 0..READS {
        let page = engine
            .read(&FeedId::User(user(n)), 0, limit)
            .await
            .expect("a page");
        assert_eq!(page.entries.len(), 1);
    }
    report(
        "read a feed",
        READS,
        started.elapsed(),
        &before,
        &spent(&engine).await,
    );
    engine.close().await;
}

type Spent = (BTreeMap<String, f64>, f64, f64);

fn report(what: &str, count: usize, took: Duration, before: &Spent, after: &Spent) {
    let count = count as f64;
    print!("{what}: each {:.1} us of Redis", (after.1 - before.1) / count);
    for (name, value) in &after.0 {
        let more = value - before.0.get(name).copied().unwrap_or(0.0);
        print!(", {name} {:.3}", more / count);
    }
    println!(
        ", {:.0} bytes of memory; {:.0}/s",
        (after.2 - before.2) / count,
        count / took.as_secs_f64()
    );
}
