//! How long one publish may take: a fixed moderate rate for many minutes, with a reader and a settler
//! beside it, so that rotation, compaction and checkpoints are all seen.
//!
//! A publish is measured from when it was to begin, not from when its publisher was free: a stall counts
//! for everyone who waited for it.

use crate::bench::{Bench, PAGE, publish_one};
use crate::load::{self, POPULATION};
use crate::measure::{self, Usage, disk_bytes};
use anyhow::{Context, Result, ensure};
use postrider_engine::{Embedded, EngineError, Feeds, Settlements, Sync};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PUBLISHERS: u64 = 16;
const BODY: usize = 200;
/// Time between two pages of the reader.
const READ_EVERY: Duration = Duration::from_millis(5);
/// Time between two gathered settlements.
const SETTLE_EVERY: Duration = Duration::from_millis(50);
/// Users in one gathered settlement.
const SETTLE_BATCH: u64 = 50;

/// `--rate` publishes per second for `--seconds`.
pub async fn run(bench: &Bench) -> Result<()> {
    let span = Duration::from_secs(bench.number("seconds", 600)?);
    let rate = bench.number("rate", 2000)?;
    let syncs = measure::disk_syncs(&bench.dir, Duration::from_secs(1))?;
    let engine = bench.engine()?;
    let (begin, usage) = (Instant::now(), Usage::now()?);
    let mut tasks = tokio::task::JoinSet::new();
    for publisher in 0..PUBLISHERS {
        tasks.spawn(publish(engine.clone(), publisher, rate, begin, span));
    }
    let reader = tokio::spawn(read(engine.clone(), begin, span));
    let settler = tokio::spawn(settle(engine.clone(), begin, span));
    let mut samples: Vec<(Duration, u32)> = Vec::new();
    while let Some(task) = tasks.join_next().await {
        samples.extend(task??);
    }
    let usage = Usage::since(usage, samples.len() as u64)?;
    let mut pages = reader.await??;
    settler.await??;
    let memory = measure::memory()?;
    let heads: u64 = crate::backlog::heads(&engine)
        .await?
        .iter()
        .map(|head| head.offset)
        .sum();
    ensure!(
        heads == samples.len() as u64,
        "{} were answered, {heads} are held",
        samples.len()
    );
    let minutes = per_minute(&samples);
    let mut micros: Vec<u32> = samples.into_iter().map(|(_, micros)| micros).collect();
    measure::report(
        bench.candidate,
        "stalls",
        json!({
            "rate": rate, "publishes": usage, "latency": measure::percentiles(&mut micros),
            "page": measure::percentiles(&mut pages), "max_ms_by_minute": minutes, "memory": memory,
            "disk_syncs_per_second": syncs, "disk_mb": disk_bytes(&bench.dir)? >> 20,
        }),
    )
}

async fn publish(
    engine: Arc<Embedded>,
    publisher: u64,
    rate: u64,
    begin: Instant,
    span: Duration,
) -> Result<Vec<(Duration, u32)>> {
    let mut samples = Vec::new();
    for n in 0.. {
        let seq = n * PUBLISHERS + publisher;
        let due = Duration::from_secs_f64(seq as f64 / rate as f64);
        if due >= span {
            break;
        }
        let publication = load::publication(seq, load::audience(seq, 1, POPULATION), BODY)?;
        tokio::time::sleep_until((begin + due).into()).await;
        publish_one(&engine, publication).await?;
        // The timer's own grain, one millisecond, is no stall of the store; it is the same for all.
        samples.push((due, (begin.elapsed().saturating_sub(due)).as_micros() as u32));
    }
    Ok(samples)
}

/// Reads a random user's last page; it must be whole.
async fn read(engine: Arc<Embedded>, begin: Instant, span: Duration) -> Result<Vec<u32>> {
    let mut samples = Vec::new();
    for n in 0.. {
        if begin.elapsed() >= span {
            break;
        }
        let feed = load::feed(load::mixed(n) % POPULATION)?;
        let at = Instant::now();
        let head = engine
            .spans(std::slice::from_ref(&feed))
            .await?
            .pop()
            .context("no span")?
            .head
            .offset;
        let after = head.saturating_sub(PAGE.entries as u64);
        let page = engine.read(&feed, after, PAGE).await?;
        samples.push(at.elapsed().as_micros() as u32);
        ensure!(
            page.entries.len() as u64 >= head - after,
            "{feed} ends before its head"
        );
        for (entry, offset) in page.entries.iter().zip(after + 1..) {
            ensure!(entry.position.offset == offset, "{feed} jumps");
        }
        tokio::time::sleep(READ_EVERY).await;
    }
    Ok(samples)
}

async fn settle(engine: Arc<Embedded>, begin: Instant, span: Duration) -> Result<()> {
    let mut first = 0;
    while begin.elapsed() < span {
        let users: Vec<u64> = (first..first + SETTLE_BATCH)
            .map(|user| user % POPULATION)
            .collect();
        let feeds = users
            .iter()
            .map(|user| load::feed(*user))
            .collect::<Result<Vec<_>>>()?;
        let mut batch = Vec::new();
        for (user, span) in users.into_iter().zip(engine.spans(&feeds).await?) {
            let target = crate::backlog::through(user, span.head)?;
            batch.push(crate::backlog::settlement(
                user,
                target,
                postrider_model::SettleKind::Delivered,
            )?);
        }
        match engine.settle(batch, Sync::Lazy).await {
            Ok(_) | Err(EngineError::Busy) => {}
            Err(error) => return Err(error.into()),
        }
        first += SETTLE_BATCH;
        tokio::time::sleep(SETTLE_EVERY).await;
    }
    Ok(())
}

/// The worst of each minute: shows whether stalls are rare or regular, and whether they grow.
fn per_minute(samples: &[(Duration, u32)]) -> Vec<Value> {
    let minute = |due: &Duration| due.as_secs() as usize / 60;
    let last = samples.iter().map(|(due, _)| minute(due)).max().unwrap_or(0);
    let mut worst = vec![0; last + 1];
    for (due, micros) in samples {
        let slot: &mut u32 = &mut worst[minute(due)];
        *slot = (*slot).max(*micros);
    }
    worst
        .into_iter()
        .map(|micros| json!(f64::from(micros) / 1000.0))
        .collect()
}
