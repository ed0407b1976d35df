//! Cores, open files, and what the kernel counts for a process.

use anyhow::{Context as _, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::fs;
use std::time::Duration;

/// Where servers run.
pub const SERVER_CORE: usize = 0;
/// Where the load runs.
pub const LOAD_CORE: usize = 1;

/// Keeps this thread, and what it starts from now on, on one core.
pub fn pin(core: usize) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).with_context(|| format!("pin to core {core}"))
}

/// Lets this process, and what it starts, open as many files as it may.
pub fn raise_open_files() -> Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, limit).context("raise the limit of open files")
}

/// User and system time of a process so far.
pub fn cpu(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may hold anything; fields are counted from behind its last parenthesis, state first.
    let (_, fields) = stat.rsplit_once(')').context("stat")?;
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse::<u64>)
        .sum::<Result<u64, _>>()?;
    Ok(Duration::from_secs(ticks) / rustix::param::clock_ticks_per_second() as u32)
}

/// Resident bytes of a process.
pub fn resident(pid: u32) -> Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"));
    let kib: u64 = line
        .and_then(|line| line.split_whitespace().next())
        .context("smaps_rollup has no Rss")?
        .parse()?;
    Ok(kib * 1024)
}

/// The machine in one line, for a report.
pub fn describe() -> String {
    let first = |path: &str, key: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text
            .lines()
            .find(|line| line.starts_with(key))
            .unwrap_or_default();
        line.split_once(':')
            .map_or("", |(_, value)| value)
            .trim()
            .to_owned()
    };
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cores = cores.lines().filter(|line| line.starts_with("processor")).count();
    format!(
        "{}, {cores} cores, {} of memory, Linux {}",
        first("/proc/cpuinfo", "model name"),
        first("/proc/meminfo", "MemTotal"),
        kernel.trim()
    )
}

/// The load averages, which tell whether others were at work.
pub fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}
