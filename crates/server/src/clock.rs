//! The one place where the server looks at the clock, and makes ids of it. Everything below gets the time,
//! and a fresh id, as an argument.

use postrider_model::Timestamp;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The time now. A clock before 1970 reads as 1970.
#[allow(clippy::disallowed_methods, reason = "the edge where time comes in")]
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Counts milliseconds from anywhere, and never jumps.
pub type SteadyClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Milliseconds since this was called, by a clock that nobody sets.
#[allow(clippy::disallowed_methods, reason = "the edge where time comes in")]
pub fn steady_clock() -> SteadyClock {
    let start = Instant::now();
    Arc::new(move || Timestamp(u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)))
}

/// A fresh UUID of version 7 (RFC 9562) for this time. Fails only where the system has no randomness.
pub(crate) fn fresh_uuid(now: Timestamp) -> Result<uuid::Uuid, getrandom::Error> {
    let mut random = [0u8; 10];
    getrandom::fill(&mut random)?;
    Ok(uuid::Builder::from_unix_timestamp_millis(now.0, &random).into_uuid())
}
