//! A line in the log, now and then, that says what the process takes: for those who watch a service by its log.
//!
//! The figures are those of `/proc`; what cannot be read there is left out.

use crate::drain::Drain;
use postrider_model::Millis;
use postrider_transports::HubStats;
use std::sync::Arc;
use std::time::Duration;

/// Ticks of processor time in a second, as Linux tells them to programs, whatever it counts in itself.
const TICKS_PER_SECOND: u64 = 100;

/// What a process takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Usage {
    /// Processor time since its start.
    cpu: Duration,
    resident_kib: u64,
    threads: u64,
    open_files: u64,
}

/// Writes the line until the node stops.
pub async fn watch(every: Millis, stats: Arc<HubStats>, drain: Drain) {
    let mut before = now();
    loop {
        tokio::select! {
            () = tokio::time::sleep(every.as_duration()) => {}
            () = drain.begun() => return,
        }
        let usage = now();
        let percent = share(before.cpu, usage.cpu, every);
        tracing::info!(
            cpu_percent = percent,
            cpu_seconds = usage.cpu.as_secs(),
            resident_mib = usage.resident_kib / 1024,
            threads = usage.threads,
            open_files = usage.open_files,
            connections = stats.connections(),
            "process"
        );
        before = usage;
    }
}

/// Of one core, in whole percent.
fn share(before: Duration, after: Duration, every: Millis) -> u64 {
    let used = after.saturating_sub(before).as_millis();
    u64::try_from(used * 100 / u128::from(every.0.max(1))).unwrap_or(u64::MAX)
}

fn now() -> Usage {
    let text = |name| std::fs::read_to_string(name).unwrap_or_default();
    let open_files = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    Usage {
        // Without the one that reads the directory.
        open_files: (open_files as u64).saturating_sub(1),
        ..read(&text("/proc/self/stat"), &text("/proc/self/status"))
    }
}

/// `proc(5)`: of `stat` the 14th and 15th fields, counted from behind the name, which may hold anything; of `status`
/// what it names.
fn read(stat: &str, status: &str) -> Usage {
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = after_name.split_ascii_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|field| field.parse::<u64>().ok()).sum();
    let named = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok())
    };
    Usage {
        cpu: Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND),
        resident_kib: named("VmRSS:").unwrap_or(0),
        threads: named("Threads:").unwrap_or(0),
        open_files: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 1 2 3";
        let status = "Name:\ta\nVmRSS:\t    2048 kB\nThreads:\t9\n";
        let usage = Usage {
            cpu: Duration::from_secs(3),
            resident_kib: 2048,
            threads: 9,
            open_files: 0,
        };
        assert_eq!(read(stat, status), usage);
        assert_eq!(read("", ""), Usage::default());
        let own = now();
        assert!(
            own.resident_kib > 0 && own.threads > 0 && own.open_files > 0,
            "{own:?}"
        );
    }

    #[test]
    fn a_share_is_of_one_core() {
        let seconds = Duration::from_secs;
        assert_eq!(share(seconds(10), seconds(13), Millis(15_000)), 20);
        assert_eq!(share(seconds(10), seconds(10), Millis(15_000)), 0);
        assert_eq!(share(seconds(10), seconds(40), Millis(15_000)), 200);
    }
}
