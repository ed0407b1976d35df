//! The timers of one loop: a wheel of buckets, each some milliseconds wide.
//!
//! Invariant: what was put in comes out once, never before its time unless that lies beyond the wheel's reach, and at
//! most one bucket late. Nothing is ever taken out or moved: who has changed its mind says so when its timer comes
//! out, so that a keep-alive put off with every send costs nothing. Does not know what a timer is for.

use postrider_model::Timestamp;

/// The width of a bucket: how late a timer may be.
const WIDTH: u64 = 8;
/// Buckets of one turn of the wheel, which is its reach: 32 s.
const BUCKETS: usize = 4096;

/// See the module.
pub(crate) struct Wheel<T> {
    buckets: Box<[Vec<T>]>,
    /// A bit for each bucket that holds something.
    filled: [u64; BUCKETS / 64],
    /// The first bucket, counted from time zero, that was not emptied.
    next: u64,
}

impl<T> Wheel<T> {
    pub fn new(now: Timestamp) -> Wheel<T> {
        Wheel {
            buckets: (0..BUCKETS).map(|_| Vec::new()).collect(),
            filled: [0; BUCKETS / 64],
            next: now.0 / WIDTH,
        }
    }

    /// Puts a timer in, and says when it will come out: at `at`, or earlier where that is beyond reach.
    pub fn insert(&mut self, at: Timestamp, timer: T) -> Timestamp {
        let last = self.next + BUCKETS as u64 - 1;
        let bucket = at.0.div_ceil(WIDTH).clamp(self.next, last);
        let index = (bucket % BUCKETS as u64) as usize;
        self.buckets[index].push(timer);
        self.filled[index / 64] |= 1 << (index % 64);
        Timestamp(bucket * WIDTH).min(at)
    }

    /// When the next comes out.
    pub fn next_at(&self) -> Option<Timestamp> {
        let start = (self.next % BUCKETS as u64) as usize;
        // The word that begins the search is looked at again at its end, for the bits before the start.
        (0..=self.filled.len()).find_map(|nth| {
            let index = (start / 64 + nth) % self.filled.len();
            let mut word = self.filled[index];
            if nth == 0 {
                word &= u64::MAX << (start % 64);
            } else if nth == self.filled.len() {
                word &= !(u64::MAX << (start % 64));
            }
            let bit = (word != 0).then(|| word.trailing_zeros() as usize)?;
            let ahead = (index * 64 + bit + BUCKETS - start) % BUCKETS;
            Some(Timestamp((self.next + ahead as u64) * WIDTH))
        })
    }

    /// One bucket of what is due now; `None` where nothing is. What is put in meanwhile comes out at a later call.
    pub fn take_due(&mut self, now: Timestamp) -> Option<Vec<T>> {
        let at = self.next_at().filter(|at| *at <= now)?;
        self.next = at.0 / WIDTH;
        let index = (self.next % BUCKETS as u64) as usize;
        self.filled[index / 64] &= !(1 << (index % 64));
        Some(std::mem::take(&mut self.buckets[index]))
    }

    /// Nothing is due before now: what is put in from now on has all of the reach.
    pub fn turn_to(&mut self, now: Timestamp) {
        let soonest = self.next_at().map_or(u64::MAX, |at| at.0 / WIDTH);
        self.next = self.next.max((now.0 / WIDTH).min(soonest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn each_comes_out_once_and_in_time(
            start in 0u64..1_000_000,
            steps in proptest::collection::vec((0u64..20_000, proptest::option::of(0u64..60_000)), 1..80),
        ) {
            let mut now = start;
            let mut wheel = Wheel::new(Timestamp(now));
            let mut waiting = Vec::new();
            for (nth, (pass, wait)) in steps.into_iter().enumerate() {
                if let Some(wait) = wait {
                    let out = wheel.insert(Timestamp(now + wait), nth).0;
                    prop_assert!(out <= now + wait);
                    prop_assert!(out == now + wait || wait > 32_000);
                    waiting.push((out, nth));
                }
                prop_assert_eq!(wheel.next_at().is_none(), waiting.is_empty());
                now += pass;
                while let Some(due) = wheel.take_due(Timestamp(now)) {
                    for timer in due {
                        let at = waiting.iter().position(|(_, nth)| *nth == timer);
                        let (out, _) = waiting.remove(at.unwrap());
                        prop_assert!(out <= now);
                    }
                }
                wheel.turn_to(Timestamp(now));
                prop_assert!(waiting.iter().all(|(out, _)| out + WIDTH > now));
            }
        }
    }
}
