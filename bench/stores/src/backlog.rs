//! A backlog and what is done with it: `build` publishes it, `drain` reads it forward by feed, `settle`
//! acknowledges it, `retention` forgets the oldest of it.

use crate::bench::{Bench, PAGE, publish_all};
use crate::load::{self, POPULATION, mixed};
use crate::measure::{self, Usage, disk_bytes};
use anyhow::{Result, ensure};
use postrider_engine::{Embedded, EngineError, Feeds, Settlements, Sync};
use postrider_model::{Evidence, Position, SessionId, SettleKind, SettleTarget, Settlement, Transport};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of a body.
const BODY: usize = 200;
/// Publications of one call while building.
const BUILD_BATCH: u64 = 1000;
/// Settlements of one lazy call, as sessions' evidence is gathered.
const LAZY_BATCH: usize = 100;
/// Callers of durable settlements.
const CALLERS: u64 = 16;
/// Users whose entries the durable callers settle.
const DURABLE_USERS: u64 = 1000;

/// Publishes `--entries`, each for one user, so that every user has as many.
pub async fn build(bench: &Bench) -> Result<()> {
    let entries = bench.number("entries", 1_000_000)?;
    let engine = bench.engine()?;
    let begin = Usage::now()?;
    for first in (0..entries).step_by(BUILD_BATCH as usize) {
        let batch = (first..first + BUILD_BATCH).map(|seq| load::publication(seq, user_of(seq), BODY));
        publish_all(&engine, batch.collect::<Result<_>>()?).await?;
    }
    let usage = Usage::since(begin, entries)?;
    engine.close();
    let memory = measure::memory()?;
    let disk = disk_bytes(&bench.dir)? >> 20;
    measure::report(
        bench.candidate,
        "build",
        json!({ "entries": usage, "memory": memory, "disk_mb": disk }),
    )
}

/// The one user of publication `seq`: all users in turn, in a new order each turn.
fn user_of(seq: u64) -> std::iter::Once<u64> {
    let turn = seq / POPULATION;
    std::iter::once(((seq % POPULATION) * 7_919 + mixed(turn)) % POPULATION)
}

/// Reads everything, feed by feed, in pages of 100: from the disk, and again.
pub async fn drain(bench: &Bench) -> Result<()> {
    let entries = bench.number("entries", 1_000_000)?;
    measure::forget(&bench.dir)?;
    let begin = Usage::now()?;
    let engine = bench.engine()?;
    let opened = begin.at.elapsed();
    let mut runs = Vec::new();
    for _ in 0..2 {
        let begin = Usage::now()?;
        let mut read = 0;
        for user in 0..POPULATION {
            read += drain_feed(&engine, user).await?;
        }
        ensure!(read == entries, "{entries} were published, {read} were read");
        runs.push(Usage::since(begin, read)?);
    }
    let memory = measure::memory()?;
    let open_ms = opened.as_millis() as u64;
    let (warm, cold) = (runs.pop(), runs.pop());
    measure::report(
        bench.candidate,
        "drain",
        json!({ "open_ms": open_ms, "cold": cold, "warm": warm, "memory": memory }),
    )
}

async fn drain_feed(engine: &Embedded, user: u64) -> Result<u64> {
    let feed = load::feed(user)?;
    let (mut after, mut last) = (0, None);
    loop {
        let page = engine.read(&feed, after, PAGE).await?;
        for entry in &page.entries {
            let seq = load::entry_seq(entry, BODY)?;
            ensure!(entry.position.offset == after + 1, "{feed} jumps");
            ensure!(user_of(seq).next() == Some(user), "{seq} is not for {user}");
            ensure!(last.is_none_or(|last| last < seq), "{feed} is out of order");
            (after, last) = (after + 1, Some(seq));
        }
        if after >= page.span.head.offset {
            return Ok(after);
        }
    }
}

/// Settles everything: lazily entry by entry through positions, and a part durably by ids.
pub async fn settle(bench: &Bench) -> Result<()> {
    let span = Duration::from_secs(bench.number("seconds", 60)?);
    let engine = bench.engine()?;
    let heads = heads(&engine).await?;
    let disk_before = disk_bytes(&bench.dir)? >> 20;
    let begin = Usage::now()?;
    let (count, busy) = settle_lazily(&engine, &heads, span).await?;
    let lazy = Usage::since(begin, count)?;
    let disk_lazy = disk_bytes(&bench.dir)? >> 20;
    let begin = Usage::now()?;
    let count = settle_durably(&engine, &heads, Duration::from_secs(bench.number("durable", 10)?)).await?;
    let durable = Usage::since(begin, count)?;
    let memory = measure::memory()?;
    engine.close();
    measure::report(
        bench.candidate,
        "settle",
        json!({
            "lazy": lazy, "busy": busy, "durable": durable, "memory": memory, "disk_mb_before": disk_before,
            "disk_mb_after_lazy": disk_lazy, "disk_mb": disk_bytes(&bench.dir)? >> 20,
        }),
    )
}

pub(crate) async fn heads(engine: &Embedded) -> Result<Vec<Position>> {
    let feeds = (0..POPULATION).map(load::feed).collect::<Result<Vec<_>>>()?;
    Ok(engine
        .spans(&feeds)
        .await?
        .into_iter()
        .map(|span| span.head)
        .collect())
}

/// Through each entry of each user but the last ones, oldest first; ends when the store has them.
async fn settle_lazily(engine: &Embedded, heads: &[Position], span: Duration) -> Result<(u64, u64)> {
    let users = POPULATION - DURABLE_USERS;
    let deepest = heads.iter().map(|head| head.offset).max().unwrap_or(0);
    let (begin, mut count, mut busy, mut reached) = (Instant::now(), 0, 0, 0);
    for offset in 1..=deepest {
        for first in (0..users).step_by(LAZY_BATCH) {
            let mut batch = Vec::with_capacity(LAZY_BATCH);
            for user in first..(first + LAZY_BATCH as u64).min(users) {
                let position = Position {
                    offset,
                    ..heads[user as usize]
                };
                batch.push(settlement(user, through(user, position)?, SettleKind::Delivered)?);
            }
            count += batch.len() as u64;
            while let Err(error) = engine.settle(batch.clone(), Sync::Lazy).await {
                ensure!(matches!(error, EngineError::Busy), "{error}");
                busy += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        reached = offset;
        if begin.elapsed() > span {
            break;
        }
    }
    // A durable command comes after all that was handed in before it.
    let last = settlement(
        0,
        through(
            0,
            Position {
                offset: 1,
                ..heads[0]
            },
        )?,
        SettleKind::Delivered,
    )?;
    engine.settle(vec![last], Sync::Durable).await?;
    for user in 0..users {
        let standing = engine
            .standing(&load::user_id(user)?, &load::feed(user)?, 1, 1)
            .await?;
        let expected = reached.min(heads[user as usize].offset);
        ensure!(
            standing.floor == expected,
            "the floor of {user} is {}, not {expected}",
            standing.floor
        );
    }
    Ok((count, busy))
}

async fn settle_durably(engine: &Arc<Embedded>, heads: &[Position], span: Duration) -> Result<u64> {
    let end = Instant::now() + span;
    let mut tasks = tokio::task::JoinSet::new();
    for caller in 0..CALLERS {
        let (engine, heads) = (engine.clone(), heads.to_vec());
        tasks.spawn(async move {
            let mut count = 0;
            let mut user = POPULATION - DURABLE_USERS + caller;
            while user < POPULATION && Instant::now() < end {
                let feed = load::feed(user)?;
                let page = engine.read(&feed, 0, PAGE).await?;
                ensure!(page.span.head == heads[user as usize], "{feed} has moved");
                for entry in &page.entries {
                    let id = load::id(load::entry_seq(entry, BODY)?)?;
                    let one = settlement(user, SettleTarget::Ids(vec![id]), SettleKind::Delivered)?;
                    let changed = engine.settle(vec![one], Sync::Durable).await?;
                    ensure!(changed == [1], "settling one entry of {feed} changed {changed:?}");
                    count += 1;
                    if Instant::now() >= end {
                        break;
                    }
                }
                user += CALLERS;
            }
            anyhow::Ok(count)
        });
    }
    let mut count = 0;
    while let Some(task) = tasks.join_next().await {
        count += task??;
    }
    Ok(count)
}

pub(crate) fn settlement(user: u64, target: SettleTarget, kind: SettleKind) -> Result<Settlement> {
    Ok(Settlement {
        user: load::user_id(user)?,
        kind,
        target,
        evidence: Evidence::Pong,
        session: Some(SessionId::new("session-1")?),
        transport: Some(Transport::WebSocket),
    })
}

pub(crate) fn through(user: u64, position: Position) -> Result<SettleTarget> {
    Ok(SettleTarget::Through(vec![(load::feed(user)?, position)]))
}
