//! When to look for evidence that a client has what it was sent: at most one probe under way, at most one
//! begun per interval, and always one after the last entry. While entries flow, a probe that is due waits for the next
//! of them to ride with, as a send of its own would cost as much as theirs: at most [`PATIENCE`]. What a probe proves is the session's to know
//! ([`Session::begin_probe`](crate::Session::begin_probe)).

use postrider_model::{Millis, Timestamp};

/// How long a probe that is due waits for company, as a part of the interval.
const PATIENCE: u64 = 2;

/// The probes of one session.
#[derive(Debug, Default)]
pub struct Probing {
    /// Zero before the first.
    last_begun: Timestamp,
    /// The token of the probe under way; none has zero.
    under_way: u64,
}

impl Probing {
    /// When the next probe may begin; `None` while one is under way.
    pub fn next_at(&self, interval: Millis) -> Option<Timestamp> {
        match (self.under_way, self.last_begun) {
            (0, Timestamp(0)) => Some(Timestamp(0)),
            (0, begun) => Some(begun.plus(interval)),
            _ => None,
        }
    }

    /// When a probe is to begin without company, where entries were last sent at `sent`; `None` while one is under
    /// way.
    pub fn alone_at(&self, interval: Millis, sent: Timestamp) -> Option<Timestamp> {
        let due = self.next_at(interval)?;
        let patience = Millis(interval.0 / PATIENCE);
        Some(due.max(sent.plus(patience).min(due.plus(patience))))
    }

    /// Begins a probe. `token`, above zero, is what the answer must carry at least: for a ping its payload; for TCP
    /// how many bytes had been written.
    pub fn begin(&mut self, now: Timestamp, token: u64) {
        self.last_begun = now;
        self.under_way = token;
    }

    /// The token of the probe under way.
    pub fn under_way(&self) -> Option<u64> {
        (self.under_way > 0).then_some(self.under_way)
    }

    /// An answer came: whether it is one to the probe under way. An answer to an older probe proves nothing.
    pub fn answered(&mut self, token: u64) -> bool {
        let answered = self.under_way > 0 && self.under_way <= token;
        if answered {
            self.under_way = 0;
        }
        answered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_one_per_interval() {
        let mut probing = Probing::default();
        let interval = Millis(1000);
        assert_eq!(probing.next_at(interval), Some(Timestamp(0)));
        probing.begin(Timestamp(5), 7);
        assert_eq!(probing.next_at(interval), None);
        assert!(!probing.answered(6));
        assert!(probing.answered(7));
        assert!(!probing.answered(7));
        assert_eq!(probing.next_at(interval), Some(Timestamp(1005)));
        for (sent, alone) in [(300, 1005), (800, 1300), (1004, 1504), (1400, 1505)] {
            let at = probing.alone_at(interval, Timestamp(sent));
            assert_eq!(at, Some(Timestamp(alone)), "sent at {sent}");
        }
    }
}
