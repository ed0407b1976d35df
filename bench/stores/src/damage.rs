//! Damage to copies of a store. What opens, what refuses, what lies?
//!
//! Two kinds. *Power*: only what had not been synced is touched; each of its pages keeps its old content,
//! or its new, at random, as a power failure leaves them. All that was answered must be there. *Rot*: the
//! newest file is cut near its end, or a page of it zeroed, near its end or anywhere. No store can undo
//! that, but it can say so; one that opens and leaves out what was answered, without a word, lies.

use crate::bench::Bench;
use crate::child::{Running, answered};
use crate::crash::{is_whole, look};
use crate::load::mixed;
use crate::measure;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;
/// What the kernel writes back as one.
const PAGE: usize = 4096;
/// Publications of each publisher.
const PUBLISHED: u64 = 60;
/// Near the end is within the last of so many parts.
const END: u64 = 5;

/// `--trials` of each kind.
pub fn run(bench: &Bench) -> Result<()> {
    let trials = bench.number("trials", 30)?;
    fs::create_dir_all(&bench.dir)?;
    let (synced, lazy, trial) = (
        bench.dir.join("synced"),
        bench.dir.join("lazy"),
        bench.dir.join("trial"),
    );
    let answered = make(bench, &synced, &lazy)?;
    let changed = changed_pages(&synced, &lazy)?;
    let mut outcomes: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    let mut note = |kind: &str, seen: &Value| {
        *outcomes
            .entry(kind.to_owned())
            .or_default()
            .entry(verdict(seen))
            .or_default() += 1;
    };
    for n in 0..trials {
        if !changed.is_empty() {
            copy(&synced, &trial)?;
            tear(&lazy, &trial, &changed, n)?;
            note("power", &look(bench, &trial, &answered)?);
        }
        for (kind, is_cut, share) in [
            ("cut", true, END),
            ("hole_near_end", false, END),
            ("hole", false, 1),
        ] {
            copy(&synced, &trial)?;
            rot(&trial, is_cut, share, n)?;
            note(kind, &look(bench, &trial, &answered)?);
        }
    }
    let unsynced = changed.len();
    let parts = json!({ "answered": answered.len(), "unsynced_sectors": unsynced, "outcomes": outcomes });
    measure::report(bench.candidate, "damage", parts)
}

fn verdict(seen: &Value) -> String {
    let lazy = &seen["lazy"];
    if !lazy["moved"].is_null() && !lazy["still"].is_null() {
        return "opens: LIES, half a batch".into();
    }
    let text = match seen {
        _ if !seen["refused"].is_null() => "refuses to open",
        _ if !seen["error"].is_null() => "opens, error when read",
        _ if is_whole(seen) => "opens, all answered there",
        _ if !seen["wrong"].is_null() => "opens: LIES, not what was written",
        _ if seen["holes"] != 0 => "opens: LIES, a hole",
        _ if seen["lost"] != 0 => "opens: LIES, the newest left out",
        _ => "opens, does not go on",
    };
    text.into()
}

/// A store as it was when all was synced, and as it is with one more commit that was not.
fn make(bench: &Bench, synced: &Path, lazy: &Path) -> Result<Vec<u64>> {
    let store = bench.dir.join("store");
    let options = [("count", PUBLISHED.to_string())];
    let mut victim = Running::start(bench, "victim-lazy", &store, &options)?;
    let lines = victim.until("synced")?;
    copy(&store, synced)?;
    victim.go()?;
    victim.until("lazy")?;
    victim.kill()?;
    copy(&store, lazy)?;
    Ok(answered(&lines).collect())
}

type Changed = Vec<(PathBuf, usize)>;

/// The sectors in which two copies of a store differ.
fn changed_pages(old: &Path, new: &Path) -> Result<Changed> {
    let mut changed = Vec::new();
    for path in files(new)? {
        let (before, after) = (
            fs::read(old.join(&path)).unwrap_or_default(),
            fs::read(new.join(&path))?,
        );
        for at in (0..after.len()).step_by(SECTOR) {
            let end = (at + SECTOR).min(after.len());
            if before.get(at..end) != Some(&after[at..end]) {
                changed.push((path.clone(), at));
            }
        }
    }
    Ok(changed)
}

/// Brings a random half of the changed sectors into `trial`; a file that grew has the length of the last of
/// them, with zeros where one is missing.
fn tear(new: &Path, trial: &Path, changed: &Changed, seed: u64) -> Result<()> {
    let mut torn: BTreeMap<&Path, Vec<u8>> = BTreeMap::new();
    for (n, (path, at)) in changed.iter().enumerate() {
        if mixed(seed << 20 | n as u64).is_multiple_of(2) {
            continue;
        }
        let after = fs::read(new.join(path))?;
        let bytes = torn
            .entry(path)
            .or_insert_with(|| fs::read(trial.join(path)).unwrap_or_default());
        let end = (at + SECTOR).min(after.len());
        bytes.resize(bytes.len().max(end), 0);
        bytes[*at..end].copy_from_slice(&after[*at..end]);
    }
    for (path, bytes) in torn {
        fs::write(trial.join(path), bytes)?;
    }
    Ok(())
}

/// Cuts the newest file, or zeroes one page of it, in the last of `share` parts.
fn rot(trial: &Path, is_cut: bool, share: u64, seed: u64) -> Result<()> {
    let newest = files(trial)?
        .into_iter()
        .map(|path| trial.join(path))
        .filter(|path| holds_data(path));
    let when = |path: &PathBuf| {
        fs::metadata(path)
            .and_then(|meta| meta.modified())
            .unwrap_or(SystemTime::UNIX_EPOCH)
    };
    let newest = newest.max_by_key(when).context("a store without files")?;
    let mut bytes = fs::read(&newest)?;
    // A file made longer than what is in it ends in zeros; those hold nothing.
    let length = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .context("an empty file")? as u64
        + 1;
    let at = (length - 1 - mixed(seed) % (length / share).max(1)) as usize;
    if is_cut {
        bytes.truncate(at);
    } else {
        let page = at / PAGE * PAGE;
        let end = (page + PAGE).min(bytes.len());
        bytes[page..end].fill(0);
    }
    Ok(fs::write(newest, bytes)?)
}

/// SQLite's shared memory is made anew from the log after a crash, and locks are empty.
fn holds_data(path: &Path) -> bool {
    let is_shm = path
        .extension()
        .is_some_and(|end| end.to_string_lossy().ends_with("shm"));
    !is_shm && fs::metadata(path).is_ok_and(|meta| meta.len() > 0) && !path.ends_with("lock")
}

/// The files below a directory, by their path in it.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name: PathBuf = path.file_name().context("no name")?.into();
        if path.is_dir() {
            all.extend(files(&path)?.into_iter().map(|inner| name.join(inner)));
        } else {
            all.push(name);
        }
    }
    all.sort();
    Ok(all)
}

/// A copy that keeps the times, so that the newest file stays the newest.
fn copy(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
            continue;
        }
        fs::copy(entry.path(), &target)?;
        fs::File::options()
            .write(true)
            .open(&target)?
            .set_modified(entry.metadata()?.modified()?)?;
    }
    Ok(())
}
