//! Waiting for a condition that can only be asked for, such as a count that the server reports.
//!
//! Invariant: a condition is looked at once more after its deadline, so that a slow machine does not fail a test
//! whose condition holds.
//!
//! It does not sleep for a fixed time in the hope that something has happened.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The moment so many seconds from now.
pub fn within(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

/// Looks until `look` finds something. An error of `look` ends the wait at once.
pub fn until<T>(what: &str, deadline: Instant, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    loop {
        let last = Instant::now() >= deadline;
        if let Some(found) = look()? {
            return Ok(found);
        }
        if last {
            bail!("{what}: not observed before the deadline");
        }
        std::thread::park_timeout(LOOK_EVERY);
    }
}

/// Looks until `holds` is true.
pub fn until_true(what: &str, deadline: Instant, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    until(what, deadline, || Ok(holds()?.then_some(())))
}
