//! Token buckets: so many in a time, saved up to a bound. Pure: the time comes in, by a clock that nobody sets.
//!
//! Invariant: over any time `t` at most `capacity + t / window × capacity` are taken, and what was promised ahead
//! ([`Bucket::reserve`]) is taken off what comes.

use postrider_model::{Millis, Timestamp};

/// Parts of one token, so that time turns into tokens without loss.
const PARTS: i64 = 1_000_000;

/// Tokens of one owner.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    capacity: i64,
    window: Millis,
    /// In parts; below zero where some were promised ahead.
    level: i64,
    at: Timestamp,
}

impl Bucket {
    /// A full bucket that, once empty, is full again after `window`.
    pub fn new(capacity: u32, window: Millis, now: Timestamp) -> Bucket {
        let capacity = i64::from(capacity) * PARTS;
        Bucket {
            capacity,
            window,
            level: capacity,
            at: now,
        }
    }

    /// Most that are saved.
    pub fn capacity(&self) -> usize {
        usize::try_from(self.capacity / PARTS).unwrap_or(usize::MAX)
    }

    /// Takes as many as there are, at most `wanted`; returns how many.
    pub fn take_up_to(&mut self, wanted: usize, now: Timestamp) -> usize {
        self.fill(now);
        let there = usize::try_from(self.level.max(0) / PARTS).unwrap_or(usize::MAX);
        let taken = wanted.min(there);
        self.level -= taken as i64 * PARTS;
        taken
    }

    /// Takes `count`, whether they are there or not; returns how long the owner has to wait before it may use
    /// them. Those who reserve one after another are served in that order.
    pub fn reserve(&mut self, count: usize, now: Timestamp) -> Millis {
        let wait = self.wait_for(count, now);
        let count = i64::try_from(count).unwrap_or(i64::MAX / PARTS);
        self.level = self.level.saturating_sub(count.saturating_mul(PARTS));
        wait
    }

    /// How long until `count` are there.
    pub fn wait_for(&mut self, count: usize, now: Timestamp) -> Millis {
        self.fill(now);
        let count = i64::try_from(count).unwrap_or(i64::MAX / PARTS);
        let missing = count.saturating_mul(PARTS).saturating_sub(self.level).max(0);
        let wait = (missing as u128 * u128::from(self.window.0)).div_ceil(self.capacity.max(1) as u128);
        Millis(u64::try_from(wait).unwrap_or(u64::MAX))
    }

    fn fill(&mut self, now: Timestamp) {
        let passed = now.since(self.at).0.min(self.window.0.saturating_mul(1 << 20));
        let came = passed as u128 * self.capacity as u128 / u128::from(self.window.0.max(1));
        let came = i64::try_from(came).unwrap_or(i64::MAX);
        self.level = self.level.saturating_add(came).min(self.capacity);
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Millis = Millis(1000);

    fn bucket(capacity: u32) -> Bucket {
        Bucket::new(capacity, SECOND, Timestamp(0))
    }

    #[test]
    fn a_burst_is_one_windows_worth_and_then_it_trickles() {
        let mut bucket = bucket(10);
        assert_eq!(bucket.take_up_to(25, Timestamp(0)), 10);
        assert_eq!(bucket.take_up_to(1, Timestamp(99)), 0);
        assert_eq!(bucket.take_up_to(9, Timestamp(100)), 1);
        assert_eq!(bucket.take_up_to(9, Timestamp(400)), 3);
        assert_eq!(
            bucket.take_up_to(99, Timestamp(60_000)),
            10,
            "no more than its size is saved"
        );
    }

    #[test]
    fn small_steps_of_time_lose_nothing() {
        let mut bucket = bucket(3);
        assert_eq!(bucket.take_up_to(3, Timestamp(0)), 3);
        let taken: usize = (1..=10_000).map(|ms| bucket.take_up_to(9, Timestamp(ms))).sum();
        assert_eq!(taken, 30);
    }

    #[test]
    fn who_reserves_waits_in_turn_and_others_wait_behind() {
        let mut bucket = bucket(10);
        assert_eq!(bucket.reserve(10, Timestamp(0)), Millis(0));
        assert_eq!(bucket.reserve(5, Timestamp(0)), Millis(500));
        assert_eq!(bucket.reserve(5, Timestamp(0)), Millis(1000));
        assert_eq!(bucket.take_up_to(1, Timestamp(1000)), 0);
        assert_eq!(bucket.wait_for(1, Timestamp(1000)), Millis(100));
        assert_eq!(bucket.take_up_to(1, Timestamp(1100)), 1);
    }

    #[test]
    fn a_clock_that_stands_or_leaps_breaks_nothing() {
        let mut bucket = bucket(1);
        assert_eq!(bucket.take_up_to(1, Timestamp(5000)), 1);
        assert_eq!(bucket.take_up_to(1, Timestamp(4000)), 0);
        assert_eq!(bucket.take_up_to(2, Timestamp(u64::MAX)), 1);
        assert!(bucket.wait_for(usize::MAX, Timestamp(u64::MAX)).0 > 0);
    }
}
