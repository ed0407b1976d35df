//! When which users' rows are looked over, so that a row that names nobody gets the instance of somebody who has the user.
//!
//! Pure: time is given. One page at a time, in the order of the users, from the first to the last.
//!
//! Invariant: between two rounds nothing is kept, within one the last user that was looked at.

use crate::MOST_ROWS;
use postrider_model::{Millis, Timestamp, UserId};
use std::collections::BTreeSet;
use std::ops::Bound;

/// From the begin of one round to that of the next, if it is over by then.
const EVERY: Millis = Millis::from_secs(10);
/// Between two pages of a round that nothing hurries.
const SLOWLY: Millis = Millis::from_secs(1);

/// The rounds of one table.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    /// The last that was looked at in the round under way.
    last: Option<UserId>,
    /// Not before this.
    next: Timestamp,
    next_round: Timestamp,
    is_hurried: bool,
}

impl Rounds {
    /// Rows may be gone: a round begins now, and makes no pauses.
    pub fn hurry(&mut self) {
        *self = Rounds {
            is_hurried: true,
            ..Rounds::default()
        };
    }

    /// Whether the next page follows at once.
    pub fn is_hurried(&self) -> bool {
        self.is_hurried
    }

    /// Who is to be looked at now, of those who are here. Empty where it is not time, or nobody is here.
    pub fn page(&mut self, here: &BTreeSet<UserId>, now: Timestamp) -> Vec<UserId> {
        if now < self.next {
            return Vec::new();
        }
        let from = match &self.last {
            Some(last) => Bound::Excluded(last.clone()),
            None => {
                self.next_round = now.plus(EVERY);
                Bound::Unbounded
            }
        };
        let page: Vec<UserId> = here
            .range((from, Bound::Unbounded))
            .take(MOST_ROWS)
            .cloned()
            .collect();
        let is_last = page.len() < MOST_ROWS;
        self.last = page.last().filter(|_| !is_last).cloned();
        self.next = match (is_last, self.is_hurried) {
            (true, _) => self.next_round,
            (false, true) => now,
            (false, false) => now.plus(SLOWLY),
        };
        self.is_hurried &= !is_last;
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(count: usize) -> BTreeSet<UserId> {
        let name = |n| UserId::new(&format!("u{n:05}")).unwrap();
        (0..count).map(name).collect()
    }

    #[test]
    fn a_round_goes_slowly_over_all_and_comes_again() {
        let here = users(2 * MOST_ROWS + 5);
        let mut rounds = Rounds::default();
        let mut seen = Vec::new();
        for (now, count) in [
            (0, MOST_ROWS),
            (500, 0),
            (1_000, MOST_ROWS),
            (2_000, 5),
            (9_999, 0),
            (10_000, MOST_ROWS),
        ] {
            let page = rounds.page(&here, Timestamp(now));
            assert_eq!(page.len(), count, "{now}");
            seen.extend(page);
        }
        assert_eq!(seen.len(), here.len() + MOST_ROWS);
        assert!(seen[..here.len()].iter().eq(here.iter()));
        assert!(rounds.page(&BTreeSet::new(), Timestamp(11_000)).is_empty());
    }

    #[test]
    fn a_hurried_round_makes_no_pauses_and_is_one() {
        let here = users(MOST_ROWS + 1);
        let mut rounds = Rounds::default();
        assert_eq!(rounds.page(&here, Timestamp(5)).len(), MOST_ROWS);
        rounds.hurry();
        assert_eq!(
            rounds.page(&here, Timestamp(6)).len(),
            MOST_ROWS,
            "from the first"
        );
        assert!(rounds.is_hurried());
        assert_eq!(rounds.page(&here, Timestamp(6)).len(), 1);
        assert!(!rounds.is_hurried() && rounds.page(&here, Timestamp(7)).is_empty());
    }
}
