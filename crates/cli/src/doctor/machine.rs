//! The machine that a node runs on: its limits and its clock.

use super::Finding;
use postrider_model::Timestamp;
use rustix::process::{Resource, getrlimit};
use std::path::Path;

/// A node with fewer holds fewer sessions than people expect of one machine.
const ENOUGH_FILES: u64 = 65_536;
/// 2025-01-01: a clock before it is not set.
const BEGINNING: Timestamp = Timestamp(1_735_689_600_000);
/// What time services leave while they run.
const KEPT_BY: [(&str, &str); 4] = [
    ("/run/systemd/timesync/synchronized", "systemd-timesyncd"),
    ("/run/chrony/chronyd.pid", "chrony"),
    ("/run/ntpd.pid", "ntpd"),
    ("/run/ntpsec/ntpd.pid", "ntpsec"),
];

/// How many sessions the process may hold.
pub fn open_files() -> Finding {
    judge_files(getrlimit(Resource::Nofile).maximum)
}

fn judge_files(most: Option<u64>) -> Finding {
    match most {
        Some(most) if most < ENOUGH_FILES => Finding::advice(
            "open files",
            format!("{most} at most, and each session is one"),
            "raise the hard limit: LimitNOFILE=1048576 in the unit, or `ulimit -Hn` before the start",
        ),
        Some(most) => Finding::good("open files", format!("{most} at most")),
        None => Finding::good("open files", "without a limit"),
    }
}

/// Whether the time of day, by which tokens expire, can be believed.
pub fn clock(now: Timestamp) -> Finding {
    judge_clock(now, |path| Path::new(path).exists())
}

fn judge_clock(now: Timestamp, exists: impl Fn(&str) -> bool) -> Finding {
    if now < BEGINNING {
        return Finding::fault(
            "clock",
            format!("it says {now}"),
            "set it: tokens would be refused as not yet valid, and ids would go back in time",
        );
    }
    match KEPT_BY.iter().find(|(path, _)| exists(path)) {
        Some((_, service)) => Finding::good("clock", format!("{now}, kept by {service}")),
        None => Finding::advice(
            "clock",
            format!("{now}; no time service was seen here"),
            "nothing to do in a container, whose host keeps it; else run systemd-timesyncd or chrony: tokens expire \
             by this clock",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn limits() {
        assert_eq!(judge_files(Some(1024)).verdict, Verdict::Advice);
        assert_eq!(judge_files(Some(1 << 20)).verdict, Verdict::Good);
        assert_eq!(judge_files(None).verdict, Verdict::Good);
    }

    #[test]
    fn clocks() {
        let now = Timestamp(BEGINNING.0 + 1);
        assert_eq!(judge_clock(Timestamp(0), |_| true).verdict, Verdict::Fault);
        assert_eq!(judge_clock(now, |_| false).verdict, Verdict::Advice);
        assert_eq!(
            judge_clock(now, |path| path.contains("chrony")).verdict,
            Verdict::Good
        );
    }
}
