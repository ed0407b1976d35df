//! When to look for evidence that a client has what it was sent: at most one probe under way, at most one
//! begun per interval, and always one after the last entry.

use postrider_model::{FeedId, Millis, Position, Timestamp};

/// A probe under way: once it is answered, these places are settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What the answer must carry. For a ping, its payload; for TCP, how many bytes had been written.
    pub token: u64,
    /// What it proves.
    pub places: Vec<(FeedId, Position)>,
}

/// The probes of one session.
#[derive(Debug, Default)]
pub struct Probing {
    last_begun: Option<Timestamp>,
    under_way: Option<Box<Probe>>,
}

impl Probing {
    /// When the next probe may begin; `None` while one is under way.
    pub fn next_at(&self, interval: Millis) -> Option<Timestamp> {
        match (&self.under_way, self.last_begun) {
            (Some(_), _) => None,
            (None, None) => Some(Timestamp(0)),
            (None, Some(begun)) => Some(begun.plus(interval)),
        }
    }

    /// Begins a probe.
    pub fn begin(&mut self, now: Timestamp, probe: Probe) {
        self.last_begun = Some(now);
        self.under_way = Some(Box::new(probe));
    }

    /// The token of the probe under way.
    pub fn under_way(&self) -> Option<u64> {
        self.under_way.as_ref().map(|probe| probe.token)
    }

    /// An answer came: what it proves. An answer to an older probe, or to none, proves nothing.
    pub fn answered(&mut self, token: u64) -> Option<Probe> {
        self.under_way
            .take_if(|probe| probe.token <= token)
            .map(|probe| *probe)
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
        probing.begin(
            Timestamp(5),
            Probe {
                token: 7,
                places: Vec::new(),
            },
        );
        assert_eq!(probing.next_at(interval), None);
        assert_eq!(probing.answered(6), None);
        assert_eq!(probing.answered(7).map(|probe| probe.token), Some(7));
        assert_eq!(probing.answered(7), None);
        assert_eq!(probing.next_at(interval), Some(Timestamp(1005)));
    }
}
