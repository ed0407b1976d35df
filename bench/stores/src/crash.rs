//! `kill -9` and what comes after: the loop, and the start over a large store.

use crate::bench::{Bench, engine_over, publish_all, publish_one};
use crate::child::{Running, answered};
use crate::load::{self, POPULATION, mixed};
use crate::measure::{self, Usage, disk_bytes};
use anyhow::{Context, Result, ensure};
use postrider_engine::Feeds;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

/// The longest that looking at a store may take.
pub const LOOK: Duration = Duration::from_secs(120);
/// Sequence numbers of one round of the loop.
const ROUND: u64 = 1 << 24;
/// Recipients of one publication of a large store: neighbours, and the same for many publications. (All
/// over the population, a store of pages writes 4 KiB and more for each entry, and building takes hours.)
const WIDE: u64 = 1000;
/// Publications handed in at once while it is built.
const FILL_BATCH: u64 = 20;
/// Bytes of its bodies.
const SMALL_BODY: usize = 20;

/// Kills a publishing process `--rounds` times on one directory; each time all that was ever answered must
/// be there, in order.
pub fn kill_loop(bench: &Bench) -> Result<()> {
    let rounds = bench.number("rounds", 20)?;
    std::fs::create_dir_all(&bench.dir)?;
    let store = bench.dir.join("store");
    let (mut all, mut opens, mut bad) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let victim = Running::start(bench, "victim", &store, &[("first", (round * ROUND).to_string())])?;
        let mut lines = vec![victim.line()?.context("the victim ended at once")?];
        std::thread::sleep(Duration::from_millis(100 + mixed(round) % 900));
        lines.extend(victim.kill()?);
        all.extend(answered(&lines));
        let seen = look(bench, &store, &all)?;
        if !is_whole(&seen) {
            bad.push(seen.clone());
        }
        opens.extend(seen["open_ms"].as_f64());
    }
    opens.sort_by(f64::total_cmp);
    measure::report(
        bench.candidate,
        "kill",
        json!({
            "rounds": rounds, "answered": all.len(), "bad": bad,
            "open_ms_median": opens.get(opens.len() / 2).map(|ms| measure::round(*ms)),
            "open_ms_max": opens.last().map(|ms| measure::round(*ms)), "disk_mb": disk_bytes(&store)? >> 20,
        }),
    )
}

/// Whether all answered was there and the store goes on.
pub fn is_whole(seen: &Value) -> bool {
    seen["lost"] == 0 && seen["wrong"].is_null() && seen["goes_on"].is_null()
}

/// Has another process open a store and compare it with what was answered.
pub fn look(bench: &Bench, store: &Path, answered: &[u64]) -> Result<Value> {
    let list = bench.dir.join("answered");
    let text: String = answered.iter().map(|seq| format!("{seq}\n")).collect();
    std::fs::write(&list, text)?;
    let options = [("answered", list.display().to_string())];
    let (lines, ended_well) = Running::start(bench, "look", store, &options)?.finish(LOOK)?;
    match lines.last() {
        Some(line) if ended_well => Ok(serde_json::from_str(line)?),
        _ => Ok(json!({ "refused": "it crashed, or hung" })),
    }
}

/// Builds `--entries` entries and goes on publishing until it is killed.
pub async fn fill(bench: &Bench) -> Result<()> {
    let entries = bench.number("entries", 10_000_000)?;
    let engine = bench.engine()?;
    let begin = Usage::now()?;
    let publications = entries / WIDE;
    let block = |seq: u64| seq / (publications * WIDE / POPULATION).max(1) % (POPULATION / WIDE) * WIDE;
    for first in (0..publications).step_by(FILL_BATCH as usize) {
        let batch = (first..(first + FILL_BATCH).min(publications))
            .map(|seq| load::publication(seq, block(seq)..block(seq) + WIDE, SMALL_BODY));
        publish_all(&engine, batch.collect::<Result<_>>()?).await?;
    }
    let usage = Usage::since(begin, entries)?;
    let disk = disk_bytes(&bench.dir)? >> 20;
    println!(
        "{}",
        json!({ "entries": usage, "memory": measure::memory()?, "disk_mb": disk })
    );
    println!("filled");
    for seq in publications.. {
        let publication = load::publication(seq, load::audience(seq, 1, POPULATION), SMALL_BODY)?;
        publish_one(&engine, publication).await?;
        println!("answered {seq}");
    }
    Ok(())
}

/// Kills a process over a large store and asks how long the next one takes to its first answers.
pub fn start(bench: &Bench) -> Result<()> {
    let entries = bench.number("entries", 10_000_000)?;
    let store = bench.dir.join("store");
    let victim = Running::start(bench, "fill", &store, &[("entries", entries.to_string())])?;
    let built: Value = serde_json::from_str(victim.until("filled")?.last().context("no figures")?)?;
    std::thread::sleep(Duration::from_secs(2));
    let lines = victim.kill()?;
    let newest = answered(&lines)
        .last()
        .context("nothing was answered before the kill")?;
    let mut starts = Vec::new();
    for _ in 0..2 {
        let options = [("entries", entries.to_string()), ("newest", newest.to_string())];
        let (lines, ended_well) =
            Running::start(bench, "first-answer", &store, &options)?.finish(LOOK * 5)?;
        ensure!(ended_well, "the store did not open");
        starts.push(serde_json::from_str::<Value>(lines.last().context("no answer")?)?);
    }
    let (again, killed) = (starts.pop(), starts.pop());
    measure::report(
        bench.candidate,
        "start",
        json!({ "built": built, "after_kill": killed, "again": again, "disk_mb": disk_bytes(&store)? >> 20 }),
    )
}

/// Opens a large store from the disk; ends by being killed or by itself, without closing the engine first.
pub async fn first_answer(bench: &Bench) -> Result<()> {
    let (entries, newest) = (bench.number("entries", 0)?, bench.number("newest", 0)?);
    measure::forget(&bench.dir)?;
    let begin = Instant::now();
    let ms = || measure::round(begin.elapsed().as_secs_f64() * 1000.0);
    let engine = engine_over(bench.store()?)?;
    let opened = ms();
    let user = load::audience(newest, 1, POPULATION).next().context("no user")?;
    let feed = load::feed(user)?;
    let head = engine.spans(std::slice::from_ref(&feed)).await?[0].head.offset;
    let limit = crate::bench::PAGE;
    let page = engine
        .read(&feed, head.saturating_sub(limit.entries as u64), limit)
        .await?;
    let read = ms();
    let seqs = page
        .entries
        .iter()
        .map(|entry| load::entry_seq(entry, SMALL_BODY));
    let seqs = seqs.collect::<Result<Vec<_>>>()?;
    ensure!(
        seqs.contains(&newest),
        "the newest that was answered, {newest}, is not there"
    );
    publish_one(
        &engine,
        load::publication(1 << 45, load::audience(1, 1, POPULATION), SMALL_BODY)?,
    )
    .await
    .ok();
    let published = ms();
    let feeds = (0..POPULATION).map(load::feed).collect::<Result<Vec<_>>>()?;
    let heads: u64 = engine
        .spans(&feeds)
        .await?
        .iter()
        .map(|span| span.head.offset)
        .sum();
    ensure!(heads > entries, "{entries} were stored, {heads} are held");
    println!(
        "{}",
        json!({
            "open_ms": opened, "first_read_ms": read, "first_publish_ms": published,
            "memory": measure::memory()?,
        })
    );
    Ok(())
}
