//! What an attack costs the node: resident memory at its peak and afterwards, processor time.
//!
//! Invariant: a peak that lasts longer than [`LOOK_EVERY`] is seen.
//!
//! It does not know what is much: bounds are the test's.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::node::Node;

/// How often memory is looked at.
pub const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Resident memory of a process in bytes.
pub fn rss_bytes(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|l| l.strip_prefix("VmRSS:"))
        .context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024)
}

/// Processor time that a process has used, user and system, in seconds.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may hold spaces, so count from the closing bracket: utime and stime are fields 14 and 15.
    let rest = stat.rsplit_once(')').context("stat without a name")?.1;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |at: usize| -> Result<u64> { Ok(fields.get(at).context("short stat")?.parse()?) };
    Ok((ticks(11)? + ticks(12)?) as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Watches a node until it is read or dropped.
pub struct Gauge {
    pid: u32,
    before_bytes: u64,
    before_cpu: f64,
    began: Instant,
    peak: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What it saw.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// By how much memory was higher at its peak than when the gauge was started, in bytes.
    pub peak: u64,
    /// By how much it is higher now.
    pub now: u64,
    /// Processor time since, in seconds.
    pub cpu: f64,
    /// Time since.
    pub took: Duration,
}

impl Gauge {
    /// Starts to watch.
    pub fn start(node: &Node) -> Result<Gauge> {
        let pid = node.pid()?;
        let (before_bytes, before_cpu) = (rss_bytes(pid)?, cpu_seconds(pid)?);
        let peak = Arc::new(AtomicU64::new(before_bytes));
        let stop = Arc::new(AtomicBool::new(false));
        let (seen, stopped) = (peak.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // A node that is gone uses none.
                seen.fetch_max(rss_bytes(pid).unwrap_or(0), Ordering::Relaxed);
                std::thread::park_timeout(LOOK_EVERY);
            }
        });
        Ok(Gauge {
            pid,
            before_bytes,
            before_cpu,
            began: Instant::now(),
            peak,
            stop,
            thread: Some(thread),
        })
    }

    /// The cost so far.
    pub fn read(&self) -> Result<Cost> {
        let now = rss_bytes(self.pid)?;
        let peak = self.peak.fetch_max(now, Ordering::Relaxed).max(now);
        Ok(Cost {
            peak: peak - self.before_bytes,
            now: now.saturating_sub(self.before_bytes),
            cpu: cpu_seconds(self.pid)? - self.before_cpu,
            took: self.began.elapsed(),
        })
    }
}

impl Cost {
    /// Cores kept busy.
    pub fn cores(&self) -> f64 {
        self.cpu / self.took.as_secs_f64()
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        write!(
            f,
            "memory +{:.1} MiB at most, +{:.1} MiB now; {:.2} s of processor in {:.1} s",
            mib(self.peak),
            mib(self.now),
            self.cpu,
            self.took.as_secs_f64()
        )
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                eprintln!("harness: a gauge panicked");
            }
        }
    }
}
