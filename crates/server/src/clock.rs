//! The one place where the server looks at the clock, and makes ids of it. Everything below gets the time,
//! and a fresh id, as an argument.

use postrider_model::Timestamp;
use std::cell::RefCell;
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
    let random = RANDOM.with_borrow_mut(Block::take)?;
    Ok(uuid::Builder::from_unix_timestamp_millis(now.0, &random).into_uuid())
}

/// A random number, for jitter and for ids that something better goes before. 0 where the system has no randomness: then
/// pauses are short, and nothing else depends on it.
pub(crate) fn fresh_number() -> u64 {
    let random = RANDOM.with_borrow_mut(Block::take).unwrap_or_default();
    random[..8]
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Random bytes of one id.
type Random = [u8; 10];

/// Random bytes for this many ids are asked of the system at once: asking costs more than all else of an id.
const BLOCK: usize = 128;

thread_local! {
    static RANDOM: RefCell<Block> = const {
        RefCell::new(Block {
            bytes: [[0; 10]; BLOCK],
            left: 0,
        })
    };
}

/// What of the system's randomness a thread has not used yet.
struct Block {
    bytes: [Random; BLOCK],
    left: usize,
}

impl Block {
    /// Bytes that no id had before.
    fn take(&mut self) -> Result<Random, getrandom::Error> {
        if self.left == 0 {
            getrandom::fill(self.bytes.as_flattened_mut())?;
            self.left = BLOCK;
        }
        self.left -= 1;
        Ok(std::mem::take(&mut self.bytes[self.left]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_of_their_time_and_no_two_are_alike() {
        let at = Timestamp(0x0123_4567_89ab);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..3 * BLOCK {
            let id = fresh_uuid(at).unwrap();
            assert_eq!(id.get_version_num(), 7);
            assert!(id.to_string().starts_with("01234567-89ab-7"), "{id}");
            assert!(seen.insert(id), "{id} twice");
        }
    }
}
