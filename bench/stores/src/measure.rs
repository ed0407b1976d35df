//! What the kernel says of this process and this machine, and how results are written down: a JSON line on
//! stdout, and a line to read on stderr.

use crate::candidates::Candidate;
use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Clock ticks per second in `/proc/self/stat`: 100 wherever Linux runs.
const TICKS: f64 = 100.0;

/// What this process used since it began.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// When it was looked at.
    pub at: Instant,
    /// CPU seconds, user and system.
    pub cpu: f64,
    /// Bytes sent to the disk (counted where a page becomes dirty).
    pub disk_bytes: u64,
    /// Bytes given to `write`.
    pub write_bytes: u64,
    /// Calls of `write` and its kin.
    pub writes: u64,
}

impl Usage {
    /// As of now.
    pub fn now() -> Result<Usage> {
        let stat = fs::read_to_string("/proc/self/stat")?;
        let rest = stat.rsplit(')').next().context("no stat")?;
        let fields: Vec<_> = rest.split_whitespace().collect();
        let ticks = |at: usize| -> Result<f64> { Ok(fields.get(at).context("a short stat")?.parse()?) };
        let io = fs::read_to_string("/proc/self/io")?;
        Ok(Usage {
            at: Instant::now(),
            cpu: (ticks(11)? + ticks(12)?) / TICKS,
            disk_bytes: field(&io, "write_bytes:")?,
            write_bytes: field(&io, "wchar:")?,
            writes: field(&io, "syscw:")?,
        })
    }

    /// What was used since then, for `count` things done.
    pub fn since(then: Usage, count: u64) -> Result<Value> {
        let now = Usage::now()?;
        let seconds = (now.at - then.at).as_secs_f64();
        let each = |n: u64| (n as f64 / count.max(1) as f64).round();
        Ok(json!({
            "count": count,
            "seconds": round(seconds),
            "per_second": (count as f64 / seconds).round(),
            "cpu_seconds": round(now.cpu - then.cpu),
            "cpu_seconds_per_100k": round((now.cpu - then.cpu) * 100_000.0 / count.max(1) as f64),
            "disk_bytes_each": each(now.disk_bytes - then.disk_bytes),
            "write_bytes_each": each(now.write_bytes - then.write_bytes),
            "write_calls_each": round((now.writes - then.writes) as f64 / count.max(1) as f64),
        }))
    }
}

fn field(text: &str, name: &str) -> Result<u64> {
    let line = text
        .lines()
        .find(|line| line.starts_with(name))
        .with_context(|| format!("no {name}"))?;
    Ok(line.split_whitespace().nth(1).context("no number")?.parse()?)
}

/// Three significant places after the point are enough.
pub fn round(x: f64) -> f64 {
    (x * 1000.0).round() / 1000.0
}

/// Peak and present memory, MB.
pub fn memory() -> Result<Value> {
    let status = fs::read_to_string("/proc/self/status")?;
    Ok(json!({ "peak_mb": field(&status, "VmHWM:")? / 1024, "rss_mb": field(&status, "VmRSS:")? / 1024 }))
}

/// Load of the machine over the last minute.
pub fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace()
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(-1.0)
}

/// Bytes that a directory takes on its disk, as `du` counts them.
pub fn disk_bytes(dir: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // What vanishes meanwhile takes no room.
        let Ok(meta) = entry.metadata() else { continue };
        sum += if meta.is_dir() {
            disk_bytes(&entry.path())?
        } else {
            meta.blocks() * 512
        };
    }
    Ok(sum)
}

/// How often the disk syncs 512 appended bytes, per second, in the file system of `dir`.
pub fn disk_syncs(dir: &Path, span: Duration) -> Result<f64> {
    fs::create_dir_all(dir)?;
    let path = dir.join("sync-rate");
    let mut file = File::create(&path)?;
    let (begin, mut count) = (Instant::now(), 0u64);
    while begin.elapsed() < span {
        file.write_all(&[7; 512])?;
        file.sync_data()?;
        count += 1;
    }
    let rate = count as f64 / begin.elapsed().as_secs_f64();
    fs::remove_file(path)?;
    Ok(rate.round())
}

/// Lets the kernel forget a directory's files, so that the next read comes from the disk.
pub fn forget(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.metadata()?.is_dir() {
            forget(&entry.path())?;
            continue;
        }
        let file = File::open(entry.path())?;
        file.sync_all()?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    }
    Ok(())
}

/// Percentiles of microseconds, in milliseconds.
pub fn percentiles(micros: &mut [u32]) -> Value {
    micros.sort_unstable();
    let at = |share: f64| {
        let last = micros.len().saturating_sub(1);
        let index = ((micros.len() as f64 * share) as usize).min(last);
        micros.get(index).map_or(0.0, |us| f64::from(*us) / 1000.0)
    };
    json!({ "p50_ms": at(0.5), "p99_ms": at(0.99), "p999_ms": at(0.999), "max_ms": at(1.0) })
}

/// Writes a result down.
pub fn report(candidate: Candidate, experiment: &str, parts: Value) -> Result<()> {
    let mut line = Map::new();
    line.insert("candidate".into(), candidate.name().into());
    line.insert("experiment".into(), experiment.into());
    line.insert("load".into(), load().into());
    if let Value::Object(parts) = parts {
        line.extend(parts);
    }
    let line = Value::Object(line);
    println!("{line}");
    eprintln!("{:>8} {experiment}: {}", candidate.name(), plain(&line));
    Ok(())
}

fn plain(line: &Value) -> String {
    let Value::Object(parts) = line else {
        return line.to_string();
    };
    let shown = parts
        .iter()
        .filter(|(name, _)| *name != "candidate" && *name != "experiment");
    shown
        .map(|(name, value)| format!("{name} {}", plain(value)))
        .collect::<Vec<_>>()
        .join(", ")
}
