//! How far something is that takes long: a line on standard error that is written over, on a terminal only.
//!
//! It knows nothing of what it counts, and never writes where nobody watches.

use crate::output::grouped;
use crate::term::Look;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// The line is written anew at most so often.
const EVERY: Duration = Duration::from_millis(100);
/// Columns of the bar.
const BAR: u64 = 24;

/// A line that tells how far it is.
pub struct Progress {
    look: Look,
    shows: bool,
    noun: &'static str,
    begun: Instant,
    last: Option<Instant>,
}

/// How far it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct At {
    /// Things done.
    pub done: u64,
    /// Of them, not taken.
    pub rejected: u64,
    /// Bytes read of the input.
    pub bytes: u64,
    /// Bytes that it has; `None` where that is not known.
    pub of: Option<u64>,
}

#[expect(clippy::disallowed_methods, reason = "it shows how time passes to a person")]
impl Progress {
    /// Begins now. `noun` is what is counted, in the plural.
    pub fn begin(noun: &'static str) -> Progress {
        Progress {
            look: Look::stderr(),
            shows: std::io::stderr().is_terminal(),
            noun,
            begun: Instant::now(),
            last: None,
        }
    }

    /// How long it has been going on.
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Writes the line, unless it was written a moment ago.
    pub fn show(&mut self, at: At) -> std::io::Result<()> {
        let now = Instant::now();
        if !self.shows || self.last.is_some_and(|last| now.duration_since(last) < EVERY) {
            return Ok(());
        }
        self.last = Some(now);
        let line = render(at, self.noun, self.begun.elapsed(), self.look);
        let mut out = std::io::stderr().lock();
        write!(out, "\r\x1b[K{line}")?;
        out.flush()
    }

    /// Takes the line away, before something else is written there, and at the end.
    pub fn clear(&mut self) -> std::io::Result<()> {
        if self.last.take().is_none() {
            return Ok(());
        }
        let mut out = std::io::stderr().lock();
        write!(out, "\r\x1b[K")?;
        out.flush()
    }
}

fn render(at: At, noun: &str, elapsed: Duration, look: Look) -> String {
    let mut parts = Vec::new();
    if let Some(of) = at.of.filter(|of| *of > 0) {
        let share = at.bytes.min(of);
        let full = (share * BAR / of) as usize;
        let bar = format!(
            "{}{}",
            "━".repeat(full),
            look.dim("─".repeat(BAR as usize - full))
        );
        parts.push(format!("{bar} {:3}%", share * 100 / of));
    }
    parts.push(format!("{} {noun}", grouped(at.done)));
    let seconds = elapsed.as_secs_f64();
    if seconds > 0.2 {
        parts.push(format!("{}/s", grouped((at.done as f64 / seconds) as u64)));
    }
    if at.rejected > 0 {
        parts.push(look.bad(format!("{} rejected", grouped(at.rejected))));
    }
    parts.join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_it_is() {
        let at = At {
            done: 50_000,
            rejected: 3,
            bytes: 500,
            of: Some(1000),
        };
        let line = render(at, "users", Duration::from_secs(2), Look::default());
        assert!(
            line.ends_with(" 50%  50,000 users  25,000/s  3 rejected"),
            "{line}"
        );
        let unknown = At {
            done: 7,
            ..At::default()
        };
        assert_eq!(
            render(unknown, "users", Duration::ZERO, Look::default()),
            "7 users"
        );
    }
}
