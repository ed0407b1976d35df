//! What retention costs and gives back: a backlog that was delivered is forgotten up to its newest tenth,
//! row by row, as retention does it; then the store goes on with a trickle of publishes.

use crate::backlog::{heads, settlement, through};
use crate::bench::{Bench, engine_over, publish_one, read_whole};
use crate::load::{self, POPULATION};
use crate::measure::{self, Usage, disk_bytes};
use anyhow::{Result, ensure};
use postrider_engine::stores::{Batch, Store, Table, View};
use postrider_engine::{Embedded, Feeds, Settlements, Sync};
use postrider_model::{Entry, EntryKind, SettleKind};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Of this many entries the newest stays.
const KEEP_ONE_OF: u64 = 10;
/// Notifications whose rows one batch removes.
const REMOVE_BATCH: usize = 1000;
/// Feeds trimmed at once, so that their trims share transactions as they would.
const TRIMS: usize = 64;
/// Time between the publishes of the trickle.
const TRICKLE: Duration = Duration::from_millis(100);
const BODY: usize = 200;

/// Forgets nine tenths of a built backlog, then waits `--wait` seconds.
pub async fn run(bench: &Bench) -> Result<()> {
    let wait = Duration::from_secs(bench.number("wait", 60)?);
    let store = bench.store()?;
    let engine = engine_over(store.clone())?;
    settle_all(&engine).await?;
    let mut sizes = vec![("delivered", disk_bytes(&bench.dir)?)];
    let begin = Usage::now()?;
    let oldest = oldest(&engine).await?;
    trim(&engine).await?;
    // The engine is at rest: nothing was handed in since the trims were answered.
    remove_rows(&*store, &oldest)?;
    let usage = Usage::since(begin, oldest.len() as u64)?;
    sizes.push(("removed", disk_bytes(&bench.dir)?));
    let peak = trickle(&engine, wait, &bench.dir).await?;
    sizes.push(("later", disk_bytes(&bench.dir)?));
    verify(&engine, &*store, &oldest).await?;
    engine.close();
    drop((engine, store));
    sizes.push(("closed", disk_bytes(&bench.dir)?));
    drop(bench.engine()?);
    sizes.push(("reopened", disk_bytes(&bench.dir)?));
    let sizes: serde_json::Map<_, _> = sizes
        .into_iter()
        .map(|(when, bytes)| (format!("mb_{when}"), (bytes >> 20).into()))
        .collect();
    measure::report(
        bench.candidate,
        "retention",
        json!({ "removed": usage, "disk": sizes, "peak_mb": peak >> 20, "memory": measure::memory()? }),
    )
}

async fn settle_all(engine: &Embedded) -> Result<()> {
    let heads = heads(engine).await?;
    for (first, chunk) in heads.chunks(100).enumerate() {
        let users = (first as u64 * 100)..;
        let batch = users
            .zip(chunk)
            .map(|(user, head)| settlement(user, through(user, *head)?, SettleKind::Delivered));
        engine
            .settle(batch.collect::<Result<_>>()?, Sync::Durable)
            .await?;
    }
    Ok(())
}

fn first_kept(head: u64) -> u64 {
    head - head / KEEP_ONE_OF + 1
}

/// The numbers and users of what will go.
async fn oldest(engine: &Embedded) -> Result<Vec<(u64, u64)>> {
    let mut oldest = Vec::new();
    for user in 0..POPULATION {
        let entries = read_whole(engine, &load::feed(user)?).await?;
        let before = first_kept(entries.len() as u64);
        for entry in entries.iter().filter(|entry| entry.position.offset < before) {
            oldest.push((load::entry_seq(entry, BODY)?, user));
        }
    }
    oldest.sort_unstable();
    Ok(oldest)
}

async fn trim(engine: &Arc<Embedded>) -> Result<()> {
    let heads = heads(engine).await?;
    let users: Vec<u64> = (0..POPULATION).collect();
    for chunk in users.chunks(TRIMS) {
        let mut tasks = tokio::task::JoinSet::new();
        for &user in chunk {
            let (engine, before) = (engine.clone(), first_kept(heads[user as usize].offset));
            tasks.spawn(async move { anyhow::Ok(engine.trim(&load::feed(user)?, before).await?) });
        }
        while let Some(task) = tasks.join_next().await {
            task??;
        }
    }
    Ok(())
}

fn keys(seq: u64, user: u64) -> Result<(Vec<u8>, Vec<u8>)> {
    let body = load::id(seq)?.as_str().as_bytes().to_vec();
    let recipient = [&body, &b"\0"[..], load::user_id(user)?.as_str().as_bytes()].concat();
    Ok((body, recipient))
}

fn remove_rows(store: &dyn Store, oldest: &[(u64, u64)]) -> Result<()> {
    for chunk in oldest.chunks(REMOVE_BATCH) {
        let mut batch = Batch::default();
        for (seq, user) in chunk {
            let (body, recipient) = keys(*seq, *user)?;
            batch.remove(Table::Notifications, body);
            batch.remove(Table::Recipients, recipient);
        }
        store.commit(&batch, true)?;
    }
    Ok(())
}

/// A live store is never quite at rest: what tidies up beside its commits has its chance.
async fn trickle(engine: &Embedded, wait: Duration, dir: &Path) -> Result<u64> {
    let (begin, mut seq, mut peak) = (Instant::now(), 1 << 40, 0);
    while begin.elapsed() < wait {
        let publication = load::publication(seq, load::audience(seq, 1, POPULATION), BODY)?;
        publish_one(engine, publication).await?;
        seq += 1;
        peak = peak.max(disk_bytes(dir)?);
        tokio::time::sleep(TRICKLE).await;
    }
    Ok(peak)
}

async fn verify(engine: &Embedded, store: &dyn Store, oldest: &[(u64, u64)]) -> Result<()> {
    let view: Box<dyn View + '_> = store.view()?;
    for (seq, user) in oldest {
        let (body, recipient) = keys(*seq, *user)?;
        ensure!(
            view.get(Table::Notifications, &body)?.is_none(),
            "the body of {seq} is still there"
        );
        ensure!(
            view.get(Table::Recipients, &recipient)?.is_none(),
            "the recipient of {seq} is still there"
        );
    }
    drop(view);
    for user in 0..POPULATION {
        let entries: Vec<Arc<Entry>> = read_whole(engine, &load::feed(user)?).await?;
        ensure!(!entries.is_empty(), "user {user} has nothing left");
        for entry in entries {
            ensure!(
                matches!(entry.kind, EntryKind::Notification(..)),
                "a mark came from nowhere"
            );
            load::entry_seq(&entry, BODY)?;
        }
    }
    Ok(())
}
