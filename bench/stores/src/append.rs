//! Synced publishes per second: each publisher waits for its answer before it publishes again.

use crate::bench::{Bench, publish_one, read_whole};
use crate::load::{self, POPULATION};
use crate::measure::{self, Usage};
use anyhow::{Result, ensure};
use postrider_engine::{Embedded, Feeds};
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of a body.
const BODY: usize = 200;
/// Feeds read whole to verify.
const FEEDS_READ: u64 = 100;

/// `--users` per publication, `--publishers`, for `--seconds`.
pub async fn run(bench: &Bench) -> Result<()> {
    let (users, publishers) = (bench.number("users", 1)?, bench.number("publishers", 1)?);
    let span = Duration::from_secs(bench.number("seconds", 5)?);
    let syncs = measure::disk_syncs(&bench.dir, Duration::from_secs(1))?;
    let engine = bench.engine()?;
    // What the first commits of a new store cost is not asked.
    let warm = publish_for(&engine, publishers, users, 0, Duration::from_millis(500)).await?;
    let begin = Usage::now()?;
    let answered = publish_for(
        &engine,
        publishers,
        users,
        warm.seqs.len() as u64 + (1 << 32),
        span,
    )
    .await?;
    let usage = Usage::since(begin, answered.seqs.len() as u64)?;
    let memory = measure::memory()?;
    let mut latencies = answered.micros;
    let mut seqs = warm.seqs;
    seqs.extend(answered.seqs);
    verify(&engine, &seqs, users).await?;
    engine.close();
    measure::report(
        bench.candidate,
        "append",
        json!({
            "users": users, "publishers": publishers, "publishes": usage,
            "latency": measure::percentiles(&mut latencies), "memory": memory,
            "disk_syncs_per_second": syncs, "disk_mb": measure::disk_bytes(&bench.dir)? >> 20,
        }),
    )
}

struct Answered {
    seqs: Vec<u64>,
    micros: Vec<u32>,
}

async fn publish_for(
    engine: &Arc<Embedded>,
    publishers: u64,
    users: u64,
    first: u64,
    span: Duration,
) -> Result<Answered> {
    let end = Instant::now() + span;
    let mut tasks = tokio::task::JoinSet::new();
    for publisher in 0..publishers {
        let engine = engine.clone();
        tasks.spawn(async move {
            let mut answered = Answered {
                seqs: Vec::new(),
                micros: Vec::new(),
            };
            let mut seq = first + publisher;
            while Instant::now() < end {
                let publication = load::publication(seq, load::audience(seq, users, POPULATION), BODY)?;
                let begin = Instant::now();
                publish_one(&engine, publication).await?;
                answered.micros.push(begin.elapsed().as_micros() as u32);
                answered.seqs.push(seq);
                seq += publishers;
            }
            anyhow::Ok(answered)
        });
    }
    let mut all = Answered {
        seqs: Vec::new(),
        micros: Vec::new(),
    };
    while let Some(task) = tasks.join_next().await {
        let one = task??;
        all.seqs.extend(one.seqs);
        all.micros.extend(one.micros);
    }
    Ok(all)
}

/// Every answered publication stands once in the feed of each of its users, and nothing else does.
async fn verify(engine: &Embedded, seqs: &[u64], users: u64) -> Result<()> {
    let feeds = (0..POPULATION).map(load::feed).collect::<Result<Vec<_>>>()?;
    let heads: u64 = engine
        .spans(&feeds)
        .await?
        .iter()
        .map(|span| span.head.offset)
        .sum();
    let expected = seqs.len() as u64 * users;
    ensure!(
        heads == expected,
        "{expected} entries were answered, the feeds hold {heads}"
    );
    let read = |user: &u64| *user < FEEDS_READ;
    let mut expected: HashMap<u64, Vec<u64>> = HashMap::new();
    for seq in seqs {
        for user in load::audience(*seq, users, POPULATION).filter(read) {
            expected.entry(user).or_default().push(*seq);
        }
    }
    for (user, mut expected) in expected {
        let entries = read_whole(engine, &load::feed(user)?).await?;
        let mut held = entries
            .iter()
            .map(|entry| load::entry_seq(entry, BODY))
            .collect::<Result<Vec<_>>>()?;
        held.sort_unstable();
        expected.sort_unstable();
        ensure!(
            held == expected,
            "the feed of user {user} does not hold what was answered"
        );
    }
    Ok(())
}
