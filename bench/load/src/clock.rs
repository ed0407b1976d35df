//! The one place that reads clocks, and waits by them.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The steady clock.
#[allow(clippy::disallowed_methods, reason = "measuring is reading a clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// Seconds since 1970, for the expiry of tokens and the date of a report.
#[allow(clippy::disallowed_methods, reason = "tokens expire by the wall clock")]
pub fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Lets time pass, between two looks at another process.
#[allow(
    clippy::disallowed_methods,
    reason = "another process tells nobody when it is ready"
)]
pub fn pause(time: std::time::Duration) {
    std::thread::sleep(time);
}
