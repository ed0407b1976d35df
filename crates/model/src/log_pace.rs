//! What can happen to each of very many, all at once, is logged seldom.

use crate::{Millis, Timestamp};
use std::sync::atomic::{AtomicU64, Ordering};

/// Between two lines.
const LOG_EVERY: Millis = Millis(1_000);

/// The pace of one kind of line in a log: at most one in a second, and each says for how many others it stands.
///
/// What comes after the last line is counted, and told with the next one, whenever there is a next one.
#[derive(Debug, Default)]
pub struct LogPace {
    /// From when on there may be a line.
    next: AtomicU64,
    unsaid: AtomicU64,
}

impl LogPace {
    /// Nothing was logged yet.
    pub const fn new() -> LogPace {
        LogPace {
            next: AtomicU64::new(0),
            unsaid: AtomicU64::new(0),
        }
    }

    /// It happened. Where it is time to log it: how many went by since the last line without one.
    pub fn due(&self, now: Timestamp) -> Option<u64> {
        let next = self.next.load(Ordering::Relaxed);
        // A clock that was set back must not silence anyone; threads that read it a little apart are no reason for a line.
        let is_due = now.0 >= next || next - now.0 > 2 * LOG_EVERY.0;
        let after = now.plus(LOG_EVERY).0;
        let is_mine = is_due
            && self
                .next
                .compare_exchange(next, after, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if !is_mine {
            self.unsaid.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.unsaid.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_in_a_second() {
        let pace = LogPace::new();
        let said = [0, 0, 1, 999, 1_000, 1_001, 9_000, 9_999, 10_000].map(|at| pace.due(Timestamp(at)));
        assert_eq!(
            said,
            [Some(0), None, None, None, Some(3), None, Some(1), None, Some(1)]
        );
    }

    #[test]
    fn a_clock_that_was_set_back_silences_nobody() {
        let pace = LogPace::new();
        assert_eq!(pace.due(Timestamp(1_000_000)), Some(0));
        assert_eq!(pace.due(Timestamp(999_999)), None);
        assert_eq!(pace.due(Timestamp(5)), Some(1));
        assert_eq!(pace.due(Timestamp(6)), None);
    }

    #[test]
    fn among_many_one_says_it() {
        let pace = LogPace::new();
        let said = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..1_000).filter_map(|_| pace.due(Timestamp(7))).count()))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum::<usize>()
        });
        assert_eq!(said, 1);
        assert_eq!(pace.due(Timestamp(2_000)), Some(3_999));
    }
}
