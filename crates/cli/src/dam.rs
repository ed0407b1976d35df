//! Keeps a fault that repeats from filling the log. Of warnings and errors from one place in the code, only so many
//! are written in a while; the next one after says how many were left out.
//!
//! Invariant: the first lines of a place in each while are always written, so that no fault goes unseen.
//!
//! It does not touch what someone asked for by `log.level`: `info` and below pass.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Lines of one place in one while.
const LINES: u32 = 10;
/// How long a while is.
const WHILE: Duration = Duration::from_secs(10);

/// Stands before whatever writes the log.
pub struct Dam {
    start: Instant,
    /// By place in the code, so it is bounded by the program.
    places: Mutex<HashMap<Identifier, Place>>,
}

impl Default for Dam {
    #[allow(clippy::disallowed_methods, reason = "the edge where time comes in")]
    fn default() -> Dam {
        Dam {
            start: Instant::now(),
            places: Mutex::default(),
        }
    }
}

impl<S: Subscriber> Layer<S> for Dam {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::WARN {
            return true;
        }
        let now = self.start.elapsed();
        let verdict = {
            let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
            places.entry(metadata.callsite()).or_default().judge(now)
        };
        let Verdict::Write { left_out } = verdict else {
            return false;
        };
        if left_out > 0 {
            // A line of its own, since the event's own fields cannot be added to.
            tracing::warn!(left_out, "lines like the next one were left out");
        }
        true
    }
}

/// What becomes of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It is written; so many were not since the last that was.
    Write {
        left_out: u64,
    },
    LeaveOut,
}

/// What came from one place.
#[derive(Debug, Default)]
struct Place {
    /// When the present while began.
    since: Duration,
    written: u32,
    left_out: u64,
}

impl Place {
    fn judge(&mut self, now: Duration) -> Verdict {
        if now.saturating_sub(self.since) >= WHILE {
            self.since = now;
            self.written = 0;
        }
        if self.written == LINES {
            self.left_out += 1;
            return Verdict::LeaveOut;
        }
        self.written += 1;
        Verdict::Write {
            left_out: std::mem::take(&mut self.left_out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_lines_of_each_while_are_written() {
        let mut place = Place::default();
        let at = |seconds: u64| Duration::from_secs(seconds);
        for _ in 0..LINES {
            assert_eq!(place.judge(at(1)), Verdict::Write { left_out: 0 });
        }
        for second in [1, 5, 9] {
            assert_eq!(place.judge(at(second)), Verdict::LeaveOut);
        }
        assert_eq!(place.judge(at(12)), Verdict::Write { left_out: 3 });
        assert_eq!(place.judge(at(12)), Verdict::Write { left_out: 0 });
    }
}
