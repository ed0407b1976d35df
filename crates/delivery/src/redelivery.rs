//! When what a client has not acknowledged is sent again. One for each feed of a session that settles only by
//! its client's word.
//!
//! It remembers stretches and not entries: what was sent for the nth time within an eighth of the ack timeout is
//! one *batch*, from its first offset to its last. When a batch is due its stretch is read from the engine, which
//! knows what was settled meanwhile; what is still pending is sent, and joins a batch of the attempt after.
//!
//! Invariant: batches do not overlap; of two batches, the one that stands lower was sent at least as often as the
//! other, so those of one attempt are neighbours; there are at most [`MAX_BATCHES`] of one attempt. Does not know
//! entries, states or sockets; time comes in as an argument.

use postrider_model::{Millis, Timestamp};
use std::collections::VecDeque;

/// Batches of one attempt. As many as come due in time there are no more than ten; of a client that is too slow
/// for that, the newest two become one, which is due with the later of them.
const MAX_BATCHES: usize = 12;

/// How long to wait for the client's word, and how often to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedeliveryRules {
    /// An entry is sent again so long after it was sent, at the soonest, and a quarter later at the latest
    /// (`delivery.ack_timeout`).
    pub ack_timeout: Millis,
    /// How often one entry is sent to one session, the first time included (`delivery.max_attempts`).
    pub max_attempts: u32,
}

impl RedeliveryRules {
    /// What is sent within this time is sent again together.
    fn window(&self) -> Millis {
        Millis(self.ack_timeout.0 / 8)
    }

    /// A batch is due so long after it was begun: its last entry has waited a timeout and a sixteenth, its first
    /// one and three sixteenths. The rest, up to a quarter, is for reading it.
    fn wait(&self) -> Millis {
        Millis(self.ack_timeout.0.saturating_add(self.ack_timeout.0 / 16 * 3))
    }
}

/// What was sent, and when it is due again.
#[derive(Debug)]
pub(crate) struct Redelivery {
    rules: RedeliveryRules,
    /// By rising time of beginning, and so by rising time of being due.
    batches: VecDeque<Batch>,
    again: Option<Again>,
}

/// A stretch that was sent within one window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Batch {
    first: u64,
    last: u64,
    begun: Timestamp,
    /// How often it was sent.
    attempt: u32,
}

/// The rest of a batch that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Again {
    next: u64,
    last: u64,
    /// How often it was sent before.
    attempt: u32,
    /// A page of it was asked for and has not come.
    reading: bool,
    /// That page may be older than a mark that the client was told since.
    stale: bool,
}

/// What to do with entries of a stretch that are still pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// Send them for this time, or a later one where others were sent them too.
    Send { attempt: u32 },
    /// They were sent as often as they may be.
    Stall,
}

impl Redelivery {
    pub fn new(rules: RedeliveryRules) -> Redelivery {
        Redelivery {
            rules,
            batches: VecDeque::new(),
            again: None,
        }
    }

    pub fn rules(&self) -> RedeliveryRules {
        self.rules
    }

    /// This entry was sent for the nth time. Of one attempt, offsets rise.
    pub fn sent(&mut self, offset: u64, attempt: u32, now: Timestamp) {
        let of_attempt = |batch: &Batch| batch.attempt == attempt;
        let fresh = Batch {
            first: offset,
            last: offset,
            begun: now,
            attempt,
        };
        let Some(newest) = self.batches.iter().rposition(of_attempt) else {
            self.batches.push_back(fresh);
            return;
        };
        let window = self.rules.window();
        if now < self.batches[newest].begun.plus(window) {
            self.batches[newest].last = offset;
        } else if self.batches.iter().filter(|batch| of_attempt(batch)).count() < MAX_BATCHES {
            self.batches.push_back(fresh);
        } else if let Some(batch) = self.batches.remove(newest) {
            let first = batch.first;
            self.batches.push_back(Batch { first, ..fresh });
        }
    }

    /// When the next batch is due. None while one is being sent: that goes by pages and by room.
    pub fn next_at(&self) -> Option<Timestamp> {
        let next = self.batches.front().filter(|_| self.again.is_none())?;
        Some(next.begun.plus(self.rules.wait()))
    }

    /// Begins with the batch that is due, if one is.
    pub fn begin(&mut self, now: Timestamp) {
        if self.next_at().is_none_or(|at| at > now) {
            return;
        }
        if let Some(batch) = self.batches.pop_front() {
            self.again = Some(Again {
                next: batch.first,
                last: batch.last,
                attempt: batch.attempt,
                reading: false,
                stale: false,
            });
        }
        if self.batches.is_empty() {
            // At rest it keeps no memory.
            self.batches = VecDeque::new();
        }
    }

    /// Whether a page is to be read as soon as there is room.
    pub fn wants_page(&self) -> bool {
        self.again.is_some_and(|again| !again.reading)
    }

    /// The stretch to read now. Begins reading.
    pub fn page_wanted(&mut self) -> Option<(u64, u64)> {
        let again = self.again.as_mut().filter(|again| !again.reading)?;
        again.reading = true;
        Some((again.next, again.last))
    }

    /// A mark was told. A page that is being read may not know of it, and must not bring back what was taken off.
    pub fn doubt(&mut self) {
        if let Some(again) = &mut self.again {
            again.stale = again.reading;
        }
    }

    /// A page came, or could not be read. False where it is not to be used but read anew.
    pub fn page_came(&mut self) -> bool {
        let Some(again) = &mut self.again else {
            return false;
        };
        again.reading = false;
        !std::mem::take(&mut again.stale)
    }

    /// What to do with the entry at this offset if it is pending; nothing where it is not in turn.
    pub fn due(&self, offset: u64) -> Option<Due> {
        let again = self
            .again
            .filter(|again| (again.next..=again.last).contains(&offset))?;
        Some(if again.attempt < self.rules.max_attempts {
            let attempt = again.attempt.saturating_add(1);
            Due::Send { attempt }
        } else {
            Due::Stall
        })
    }

    /// Everything up to here was looked at.
    pub fn passed(&mut self, through: u64) {
        let Some(again) = &mut self.again else { return };
        again.next = again.next.max(through.saturating_add(1));
        if again.next > again.last {
            self.again = None;
        }
    }

    /// Whether nothing waits to be sent again.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// How many batches wait, which is what this costs. Panics where they break the invariant.
    #[cfg(test)]
    pub fn batches(&self) -> usize {
        let mut by_offset: Vec<_> = self.batches.iter().collect();
        by_offset.sort_by_key(|batch| batch.first);
        let low_first = |pair: &[&Batch]| pair[0].last < pair[1].first && pair[0].attempt >= pair[1].attempt;
        assert!(by_offset.windows(2).all(low_first), "{by_offset:?}");
        assert!(self.batches.iter().is_sorted_by_key(|batch| batch.begun));
        assert!(self.batches.len() <= MAX_BATCHES * self.rules.max_attempts as usize);
        self.batches.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: RedeliveryRules = RedeliveryRules {
        ack_timeout: Millis(1600),
        max_attempts: 3,
    };

    #[test]
    fn a_window_is_one_batch_and_due_after_the_timeout() {
        let mut redelivery = Redelivery::new(RULES);
        assert_eq!(redelivery.next_at(), None);
        for (offset, at) in [(1, 0), (2, 199), (3, 200), (4, 399)] {
            redelivery.sent(offset, 1, Timestamp(at));
        }
        assert_eq!(
            (redelivery.batches(), redelivery.next_at()),
            (2, Some(Timestamp(1900)))
        );
        redelivery.begin(Timestamp(1899));
        assert!(!redelivery.wants_page());
        redelivery.begin(Timestamp(1900));
        assert!(redelivery.wants_page() && redelivery.next_at().is_none());
        assert_eq!(redelivery.page_wanted(), Some((1, 2)));
        assert_eq!(redelivery.page_wanted(), None, "it is being read");
        assert!(redelivery.page_came());
        assert_eq!(redelivery.due(2), Some(Due::Send { attempt: 2 }));
        assert_eq!(redelivery.due(3), None, "it is not in turn");
        redelivery.passed(2);
        assert_eq!(redelivery.next_at(), Some(Timestamp(2100)));
    }

    #[test]
    fn after_the_last_attempt_it_stalls() {
        let mut redelivery = Redelivery::new(RULES);
        redelivery.sent(1, 3, Timestamp(0));
        redelivery.begin(Timestamp(1900));
        assert_eq!(redelivery.due(1), Some(Due::Stall));
    }

    #[test]
    fn a_client_that_is_never_in_time_costs_no_more() {
        let mut redelivery = Redelivery::new(RULES);
        for offset in 1..=1000 {
            redelivery.sent(offset, 1, Timestamp(offset * 1000));
        }
        assert_eq!(redelivery.batches(), MAX_BATCHES);
        let last = redelivery.batches.back().copied();
        assert_eq!(
            last.map(|batch| (batch.last, batch.begun)),
            Some((1000, Timestamp(1_000_000)))
        );
        let mut next = 1;
        for batch in &redelivery.batches {
            assert_eq!(batch.first, next, "a hole, or twice");
            next = batch.last + 1;
        }
    }
}
