//! How long to wait before the next try. Pure: the roll of the dice comes in.

use std::time::Duration;

/// The first wait at its longest.
const FIRST: Duration = Duration::from_millis(20);
/// No wait is longer: a server that is back is noticed within it.
const LONGEST: Duration = Duration::from_millis(500);
/// Doublings after which a wait no longer grows.
const DOUBLINGS: u32 = 5;

/// The wait before another try after `failures` in a row: doubling, of which a random part is left out, so that nodes
/// that lost the same server do not come back as one.
pub fn backoff(failures: u32, roll: u32) -> Duration {
    let full = FIRST
        .saturating_mul(1 << failures.saturating_sub(1).min(DOUBLINGS))
        .min(LONGEST);
    let half = full / 2;
    half + half.mul_f64(f64::from(roll) / f64::from(u32::MAX))
}

/// Randomness for [`backoff`]. Where the system has none the wait is the longest, which does no harm.
pub fn roll() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_within_bounds() {
        assert_eq!(backoff(1, 0), FIRST / 2);
        assert_eq!(backoff(1, u32::MAX), FIRST);
        assert_eq!(backoff(3, u32::MAX), FIRST * 4);
        for failures in 0..100 {
            assert!(backoff(failures, u32::MAX) <= LONGEST);
            assert!(backoff(failures, 0) >= FIRST / 2);
        }
    }
}
