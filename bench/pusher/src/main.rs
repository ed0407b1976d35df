//! The HTTP side of AWS for measuring pushers: SQS, DynamoDB and the connections of an API Gateway, by their JSON protocols,
//! from memory and without a delay, so that who is measured is the limit.
//!
//! Usage: `postrider-bench-pusher MESSAGES ROWS [BROADCASTS]` prints `ready PORT`. The queue holds MESSAGES requests for one
//! user each, and BROADCASTS for everyone; the table has ROWS users with one connection each.
//! `GET /put?one=N&all=M&rate=R` puts more into the queue, `GET /stats` says how it stands. It checks no signature, and a
//! message that is not deleted does not come again.

#![allow(clippy::print_stdout, reason = "a program for measuring")]
#![allow(clippy::disallowed_methods, reason = "a program for measuring")]

mod http;
mod queue;

use anyhow::{Context, Result};
use http::Asked;
use queue::{Batch, Queue};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::net::TcpListener;

struct Stub {
    rows: u64,
    queue: Queue,
    posted: AtomicU64,
    /// Microseconds from the start to the first and the last post.
    first: AtomicU64,
    last: AtomicU64,
    start: Instant,
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<u64>());
    let mut number = || numbers.next().transpose();
    let one = number()?.context("MESSAGES ROWS [BROADCASTS]")?;
    let rows = number()?.context("ROWS")?;
    let all = number()?.unwrap_or(0);
    let stub = Arc::new(Stub {
        rows,
        queue: Queue::new(rows),
        posted: AtomicU64::new(0),
        first: AtomicU64::new(u64::MAX),
        last: AtomicU64::new(0),
        start: Instant::now(),
    });
    stub.put(one, all, 0);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("ready {}", listener.local_addr()?.port());
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        // A connection that breaks ends alone.
        let stub = stub.clone();
        tokio::spawn(async move { http::serve(stub, socket).await.ok() });
    }
}

impl http::Site for Stub {
    async fn answer(&self, asked: Asked) -> String {
        if asked.path.contains("connections/") {
            let now = self.start.elapsed().as_micros() as u64;
            self.first.fetch_min(now, Ordering::Relaxed);
            self.last.fetch_max(now, Ordering::Relaxed);
            self.posted.fetch_add(1, Ordering::Relaxed);
            return String::new();
        }
        if asked.path == "/stats" {
            return self.stats().to_string();
        }
        if let Some(("/put", query)) = asked.path.split_once('?') {
            let of = |name| query.split('&').find_map(|one| one.strip_prefix(name));
            let number = |name| of(name).and_then(|text| text.parse().ok()).unwrap_or(0);
            self.put(number("one="), number("all="), number("rate="));
            return String::new();
        }
        let call = asked.target.split('.').next_back().unwrap_or_default();
        let question: Value = serde_json::from_slice(&asked.body).unwrap_or_default();
        let said = match self.queue.answer(call, &question).await {
            Some(said) => said,
            None => self.table(call, &question),
        };
        said.to_string()
    }
}

impl Stub {
    fn put(&self, one: u64, all: u64, rate: u64) {
        for (count, is_for_all) in [(one, false), (all, true)] {
            self.queue.put(Batch {
                count,
                is_for_all,
                rate,
            });
        }
    }

    fn table(&self, call: &str, asked: &Value) -> Value {
        match call {
            "Query" => {
                let user = asked["ExpressionAttributeValues"].as_object();
                let user = user.and_then(|values| values.values().next()).cloned();
                json!({"Items": [{"user_id": user, "connection_id": {"S": "c"}}], "Count": 1})
            }
            "Scan" => self.scan(asked),
            _ => json!({}),
        }
    }

    fn scan(&self, asked: &Value) -> Value {
        let of = asked["TotalSegments"].as_u64().unwrap_or(1);
        let number = asked["Segment"].as_u64().unwrap_or(0);
        let limit = asked["Limit"].as_u64().unwrap_or(5_000);
        let size = self.rows.div_ceil(of);
        let end = (size * (number + 1)).min(self.rows);
        let after = asked["ExclusiveStartKey"]["connection_id"]["S"].as_str();
        let from = after
            .and_then(|id| id.parse::<u64>().ok())
            .map_or(size * number, |n| n + 1);
        let to = (from + limit).min(end);
        let key = |n: u64| json!({"user_id": {"S": format!("u{n}")}, "connection_id": {"S": n.to_string()}});
        let mut said =
            json!({"Items": (from..to).map(key).collect::<Vec<_>>(), "Count": to.saturating_sub(from)});
        if to < end {
            said["LastEvaluatedKey"] = key(to - 1);
        }
        said
    }

    fn stats(&self) -> Value {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let micros = load(&self.last).saturating_sub(load(&self.first));
        json!({"posted": load(&self.posted), "deleted": self.queue.deleted(), "seconds": micros as f64 / 1e6})
    }
}
