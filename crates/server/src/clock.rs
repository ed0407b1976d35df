//! The one place where the server looks at the clock. Everything below gets the time as an argument.

use postrider_model::Timestamp;
use std::time::{SystemTime, UNIX_EPOCH};

/// The time now. A clock before 1970 reads as 1970.
#[allow(clippy::disallowed_methods, reason = "the edge where time comes in")]
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
