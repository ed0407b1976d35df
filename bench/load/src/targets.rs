//! What the product has to reach, and what it would be proud of: each row names a figure of a scenario.

use crate::scenarios::{self, Scenario};
use postrider_bench_load::figures::{Summary, show};

/// A figure's bound.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    AtMost(f64),
    AtLeast(f64),
    /// Nothing is asked.
    Open,
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Bound::AtMost(most) => value <= most,
            Bound::AtLeast(least) => value >= least,
            Bound::Open => false,
        }
    }

    fn show(self) -> String {
        match self {
            Bound::AtMost(most) => format!("≤ {}", short(most)),
            Bound::AtLeast(least) => format!("≥ {}", short(least)),
            Bound::Open => String::new(),
        }
    }
}

/// A bound as it is spoken of: 1.5, 1,000, 30,000.
fn short(value: f64) -> String {
    if value < 1_000.0 {
        return value.to_string();
    }
    let (thousands, rest) = (value as u64 / 1_000, value as u64 % 1_000);
    match thousands {
        1_000.. => format!("{},{:03},{rest:03}", thousands / 1_000, thousands % 1_000),
        _ => format!("{thousands},{rest:03}"),
    }
}

/// One row of the table.
pub struct Target {
    pub says: &'static str,
    pub scenario: &'static Scenario,
    pub figure: &'static str,
    pub target: Bound,
    pub moonshot: Bound,
}

const fn row(
    says: &'static str,
    scenario: &'static Scenario,
    figure: &'static str,
    target: Bound,
    moonshot: Bound,
) -> Target {
    Target {
        says,
        scenario,
        figure,
        target,
        moonshot,
    }
}

use Bound::{AtLeast, AtMost, Open};

/// The table.
pub const TARGETS: &[Target] = &[
    row(
        "broadcast to 10,000, W = 16, CPU ÷ floor",
        &scenarios::BROADCAST,
        "W = 16, server CPU ÷ floor",
        AtMost(1.5),
        AtMost(1.15),
    ),
    row(
        "broadcast to 10,000 at 50,000 deliveries/s, CPU ÷ floor",
        &scenarios::BROADCAST,
        "50,000/s, server CPU ÷ floor",
        AtMost(1.15),
        AtMost(1.05),
    ),
    row(
        "unicast to 10,000 users over one stream, stored and synced, CPU ÷ floor",
        &scenarios::UNICAST,
        "stream, server CPU ÷ floor",
        AtMost(1.5),
        AtMost(1.2),
    ),
    row(
        "the same in arrays of 100",
        &scenarios::UNICAST,
        "arrays of 100, server CPU ÷ floor",
        AtMost(1.5),
        AtMost(1.2),
    ),
    row(
        "unicast, one HTTP request each, stored and synced, CPU ÷ nchan in memory",
        &scenarios::UNICAST,
        "requests, server CPU ÷ nchan",
        AtMost(0.74),
        AtMost(0.52),
    ),
    row(
        "process memory at rest, WebSocket, bytes",
        &scenarios::IDLE,
        "WebSocket, memory",
        AtMost(1_000.0),
        AtMost(512.0),
    ),
    row(
        "the same, SSE",
        &scenarios::IDLE,
        "SSE, memory",
        AtMost(1_000.0),
        AtMost(512.0),
    ),
    row(
        "the same, waiting long poll",
        &scenarios::IDLE,
        "long poll, memory",
        AtMost(1_000.0),
        AtMost(512.0),
    ),
    row(
        "long poll, 10,000 users, a cycle's CPU ÷ nchan",
        &scenarios::LONG_POLL,
        "rounds, server CPU ÷ nchan",
        AtMost(0.8),
        AtMost(0.5),
    ),
    row(
        "SSE to 10,000, W = 16, CPU ÷ nchan",
        &scenarios::SSE,
        "W = 16, server CPU ÷ nchan",
        AtMost(0.2),
        AtMost(0.1),
    ),
    row(
        "reconnect storm of 10,000, each resuming, CPU ÷ nchan, which resumes nothing",
        &scenarios::STORM,
        "storm, server CPU ÷ nchan",
        AtMost(1.0),
        AtMost(0.6),
    ),
    row(
        "synced publishes/s, 256 publishers, one each",
        &scenarios::PUBLISH,
        "256 publishers, one each",
        AtLeast(30_000.0),
        Open,
    ),
    row(
        "synced publishes/s in arrays of 100",
        &scenarios::PUBLISH,
        "16 publishers, arrays of 100",
        Open,
        AtLeast(100_000.0),
    ),
    row(
        "drain: a million stored entries over WebSocket, entries/s",
        &scenarios::DRAIN,
        "1000 at a time",
        AtLeast(300_000.0),
        AtLeast(1_000_000.0),
    ),
    row(
        "unicast p99 beside a running broadcast to 10,000 (W = 1) ÷ alone",
        &scenarios::BESIDE,
        "beside W = 1, p99 ÷ alone",
        AtMost(3.0),
        AtMost(1.5),
    ),
    row(
        "acks by id, unicast, CPU ÷ delivery alone",
        &scenarios::ACKS,
        "unicast, by id, server CPU ÷ no acks",
        AtMost(2.0),
        Open,
    ),
    row(
        "acks by id, broadcast W = 1, CPU ÷ delivery alone",
        &scenarios::ACKS,
        "broadcast, W = 1, by id, server CPU ÷ no acks",
        AtMost(2.0),
        Open,
    ),
];

impl Target {
    /// Its line in the table.
    pub fn line(&self, figures: &[Summary]) -> String {
        let found = figures.iter().find(|figure| figure.name == self.figure);
        let (median, spread, verdict) = match found {
            Some(found) => (
                show(found.median),
                format!("{} – {}", show(found.lowest), show(found.highest)),
                self.verdict(found.median),
            ),
            None => ("not measured".into(), String::new(), ""),
        };
        let (target, moonshot) = (self.target.show(), self.moonshot.show());
        format!(
            "| {} | {target} | {moonshot} | {median} | {spread} | {verdict} |",
            self.says
        )
    }

    fn verdict(&self, value: f64) -> &'static str {
        if self.moonshot.holds(value) {
            "moonshot"
        } else if self.target.holds(value) {
            "reached"
        } else if self.target == Bound::Open {
            "not yet"
        } else {
            "**not reached**"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(median: f64) -> Summary {
        Summary {
            name: "W = 16, server CPU ÷ floor".into(),
            unit: String::new(),
            median,
            lowest: median,
            highest: median,
        }
    }

    #[test]
    fn a_row_says_whether_it_is_reached() {
        let row = &TARGETS[0];
        for (value, verdict) in [
            (1.1, "| moonshot |"),
            (1.5, "| reached |"),
            (1.51, "| **not reached** |"),
        ] {
            let line = row.line(&[summary(value)]);
            assert!(line.ends_with(verdict), "{line}");
        }
        assert!(row.line(&[]).contains("not measured"));
    }

    #[test]
    fn bounds_are_written_as_they_are_spoken_of() {
        let shown = [1.15, 512.0, 1_000.0, 30_000.0, 1_000_000.0].map(short);
        assert_eq!(shown, ["1.15", "512", "1,000", "30,000", "1,000,000"]);
    }
}
