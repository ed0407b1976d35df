//! The process that is killed, and the one that looks afterwards. The victim writes down what was answered,
//! line by line on stdout, after the answer; who kills it reads that.

use crate::bench::{Bench, publish_one, read_whole};
use crate::load;
use anyhow::{Context, Result, ensure};
use postrider_engine::{Embedded, Feeds, Recipients, Settlements};
use postrider_model::State;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Publishers of the victim; each has a user of its own, in whose feed its publications stand in order.
pub const PUBLISHERS: u64 = 16;
/// Users beside the publisher's own.
const OTHERS: u64 = 3;
/// The others come from this population; publishers' own users stand above it.
const OTHER_USERS: u64 = 1000;
const BODY: usize = 200;
/// Ids whose recipients are looked at one by one.
const SAMPLES: usize = 200;

fn own_user(publisher: u64) -> u64 {
    OTHER_USERS + publisher
}

fn users(seq: u64) -> impl Iterator<Item = u64> {
    std::iter::once(own_user(seq % PUBLISHERS)).chain(load::audience(seq, OTHERS, OTHER_USERS))
}

/// Publishes from `--first` until it is killed, or `--count` per publisher; answers go to stdout.
pub async fn publish(engine: &Arc<Embedded>, bench: &Bench) -> Result<()> {
    let (first, count) = (
        bench.number("first", 0)?,
        bench.number("count", u64::MAX / PUBLISHERS / 2)?,
    );
    let mut tasks = tokio::task::JoinSet::new();
    for publisher in 0..PUBLISHERS {
        let engine = engine.clone();
        tasks.spawn(async move {
            for n in 0..count {
                let seq = first + n * PUBLISHERS + publisher;
                publish_one(&engine, load::publication(seq, users(seq), BODY)?).await?;
                writeln!(std::io::stdout().lock(), "answered {seq}")?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    Ok(())
}

/// What is wrong with a store, seen by reading all of it.
#[derive(Debug, Default)]
pub struct Findings {
    /// Answered publications that are in no feed of their own.
    pub lost: Vec<u64>,
    /// Of the lost, those that stand before another that is there: a hole, not a shorter past.
    pub holes: usize,
    /// The first thing that does not fit otherwise.
    pub wrong: Option<String>,
}

/// Reads everything and compares it with what was answered.
pub async fn examine(engine: &Embedded, answered: &[u64]) -> Result<Findings> {
    let mut found = Findings::default();
    let mut held = HashSet::new();
    let mut newest: HashMap<u64, u64> = HashMap::new();
    for publisher in 0..PUBLISHERS {
        let entries = read_whole(engine, &load::feed(own_user(publisher))?).await?;
        let mut last = None;
        for entry in &entries {
            let seq = load::entry_seq(entry, BODY)?;
            if last.is_some_and(|last| last >= seq) {
                found
                    .wrong
                    .get_or_insert(format!("publisher {publisher}: {seq} after {last:?}"));
            }
            last = Some(seq);
            held.insert(seq);
            newest.insert(publisher, seq);
        }
    }
    for user in 0..OTHER_USERS {
        for entry in read_whole(engine, &load::feed(user)?).await? {
            let seq = load::entry_seq(&entry, BODY)?;
            if !held.contains(&seq) || !load::audience(seq, OTHERS, OTHER_USERS).any(|one| one == user) {
                found
                    .wrong
                    .get_or_insert(format!("{seq} stands in the feed of {user} only"));
            }
        }
    }
    found.lost = answered
        .iter()
        .copied()
        .filter(|seq| !held.contains(seq))
        .collect();
    let before_another = |seq: &&u64| {
        newest
            .get(&(**seq % PUBLISHERS))
            .is_some_and(|newest| *newest > **seq)
    };
    found.holes = found.lost.iter().filter(before_another).count();
    let step = (answered.len() / SAMPLES).max(1);
    for seq in answered.iter().filter(|seq| held.contains(seq)).step_by(step) {
        let states = engine.recipients(&load::id(*seq)?, Recipients::All).await?;
        let whole = states.len() as u64 == OTHERS + 1;
        if !whole
            || states
                .iter()
                .any(|one| !matches!(one.state, State::Pending | State::Delivered))
        {
            found
                .wrong
                .get_or_insert(format!("{seq} has {} recipients", states.len()));
        }
    }
    Ok(found)
}

/// Opens, examines against the file `--answered`, publishes one more; says what it saw as one JSON line.
/// Anything that goes wrong on the way is what it saw.
pub async fn look(bench: &Bench) -> Result<()> {
    let answered: Vec<u64> = std::fs::read_to_string(bench.text("answered")?)?
        .lines()
        .map(|line| line.parse().context("not a number"))
        .collect::<Result<_>>()?;
    let begin = Instant::now();
    let seen = match bench.engine() {
        Err(error) => json!({ "refused": error.to_string() }),
        Ok(engine) => {
            let open_ms = begin.elapsed().as_secs_f64() * 1000.0;
            match examine(&engine, &answered).await {
                Err(error) => json!({ "open_ms": open_ms, "error": error.to_string() }),
                Ok(found) => told(&engine, found, open_ms).await,
            }
        }
    };
    println!("{seen}");
    Ok(())
}

async fn told(engine: &Embedded, found: Findings, open_ms: f64) -> Value {
    // For a user of its own, so that a later look finds the publishers' feeds as they left them.
    let stranger = own_user(PUBLISHERS);
    let after = load::publication(1 << 45, std::iter::once(stranger), BODY);
    let publishes = match after {
        Ok(publication) => publish_one(engine, publication)
            .await
            .map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    json!({
        "open_ms": open_ms, "lost": found.lost.len(), "holes": found.holes, "wrong": found.wrong,
        "goes_on": publishes.err(), "lazy": floors(engine).await.unwrap_or_default(),
    })
}

/// The floors of the publishers' own users, which one lazy call settled: all of them moved, or none.
pub async fn floors(engine: &Embedded) -> Result<HashMap<String, u64>> {
    let mut moved = HashMap::new();
    for user in (0..PUBLISHERS).map(own_user) {
        let floor = engine
            .standing(&load::user_id(user)?, &load::feed(user)?, 1, 1)
            .await?
            .floor;
        *moved
            .entry(if floor > 0 { "moved" } else { "still" }.to_owned())
            .or_insert(0) += 1;
    }
    Ok(moved)
}

/// The victim of the kill loop.
pub async fn run(bench: &Bench) -> Result<()> {
    let engine = bench.engine()?;
    publish(&engine, bench).await
}

/// The victim of the damage trials: publishes, stops where all is synced, then settles without a sync.
pub async fn run_lazy(bench: &Bench) -> Result<()> {
    let engine = bench.engine()?;
    publish(&engine, bench).await?;
    println!("synced");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let users = (0..PUBLISHERS).map(own_user);
    let feeds = users.clone().map(load::feed).collect::<Result<Vec<_>>>()?;
    let mut batch = Vec::new();
    for (user, span) in users.zip(engine.spans(&feeds).await?) {
        let target = crate::backlog::through(user, span.head)?;
        batch.push(crate::backlog::settlement(
            user,
            target,
            postrider_model::SettleKind::Delivered,
        )?);
    }
    engine.settle(batch, postrider_engine::Sync::Lazy).await?;
    let begin = Instant::now();
    while floors(&engine).await?.contains_key("still") {
        ensure!(
            begin.elapsed() < Duration::from_secs(5),
            "the settlements were not applied"
        );
    }
    println!("lazy");
    // To be killed before what is lazy is synced.
    std::io::stdin().read_line(&mut line)?;
    Ok(())
}
