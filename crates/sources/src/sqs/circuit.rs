//! Whether SQS is there, by how polls end.
//!
//! Failures among successes are no outage, however many: each poll that failed is made again after a pause of its own. SQS
//! may be away only when for [`TRIED`] nothing but failures came; or at the first failure, where it is not known yet that it is
//! there. Pure: time comes in.

use postrider_model::{Millis, Timestamp};
use std::time::Duration;

/// Nothing but failures for so long means away.
pub(super) const TRIED: Millis = Millis(2_000);

/// See the module.
#[derive(Debug)]
pub(super) struct Circuit {
    is_proven: bool,
    /// When a poll went well last.
    last_well: Timestamp,
    /// Since when there were only failures.
    failing: Option<Timestamp>,
}

impl Circuit {
    /// It is not known yet whether SQS is there.
    pub fn new() -> Circuit {
        Circuit {
            is_proven: false,
            last_well: Timestamp(0),
            failing: None,
        }
    }

    /// SQS answered as it should.
    pub fn well(&mut self, now: Timestamp) {
        self.is_proven = true;
        self.last_well = now;
        self.failing = None;
    }

    /// It is not known any more whether SQS is there.
    pub fn open(&mut self) {
        self.is_proven = false;
        self.failing = None;
    }

    /// A poll failed that began then and was to wait so long. Whether that may mean that SQS is away.
    pub fn failed(&mut self, began: Timestamp, wait: Duration, now: Timestamp) -> bool {
        // One that had no answer in its time was failing all that time; one that was held and then cut was not.
        let wait = Millis(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        let since = began.plus(wait).min(now).max(self.last_well);
        let since = *self.failing.get_or_insert(since);
        !self.is_proven || since.plus(TRIED) <= now
    }

    /// Whether SQS was there, and nothing failed for long since.
    pub fn is_proven(&self) -> bool {
        self.is_proven
    }

    /// Whether the last poll failed, and it is not known yet what that means.
    pub fn is_in_doubt(&self) -> bool {
        self.failing.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WAIT: Duration = Duration::from_secs(20);

    fn failed(circuit: &mut Circuit, now: u64) -> bool {
        circuit.failed(Timestamp(now), WAIT, Timestamp(now))
    }

    #[test]
    fn away_at_once_before_anything_went_well_and_after_two_seconds_of_failures() {
        let mut circuit = Circuit::new();
        assert!(failed(&mut circuit, 0));
        circuit.well(Timestamp(9_000));
        for now in [10_000, 10_500, 11_999] {
            assert!(!failed(&mut circuit, now) && circuit.is_proven() && circuit.is_in_doubt());
        }
        assert!(failed(&mut circuit, 12_000));
        circuit.open();
        assert!(!circuit.is_proven() && !circuit.is_in_doubt());
        assert!(failed(&mut circuit, 12_001), "until one goes well");
        circuit.well(Timestamp(12_001));
        assert!(!failed(&mut circuit, 12_002));
    }

    #[test]
    fn a_poll_that_had_no_answer_in_its_time_is_an_outage_and_one_that_was_cut_is_not() {
        let mut circuit = Circuit::new();
        circuit.well(Timestamp(0));
        assert!(!circuit.failed(Timestamp(0), WAIT, Timestamp(19_000)));
        circuit.well(Timestamp(0));
        assert!(circuit.failed(Timestamp(0), WAIT, Timestamp(30_000)));
        // Unless another went well meanwhile.
        circuit.well(Timestamp(29_000));
        assert!(!circuit.failed(Timestamp(0), WAIT, Timestamp(30_000)));
    }

    proptest! {
        /// Half of all calls may fail, or nine of ten: while one goes well in every two seconds, SQS is there.
        #[test]
        fn failures_among_successes_do_not_add_up(polls in prop::collection::vec((1u64..500, 0u8..10), 1..400)) {
            let mut circuit = Circuit::new();
            circuit.well(Timestamp(0));
            let (mut now, mut last_well) = (0, 0);
            for (passed, kind) in polls {
                now += passed;
                if kind == 0 || now - last_well >= TRIED.0 {
                    circuit.well(Timestamp(now));
                    last_well = now;
                } else {
                    prop_assert!(!failed(&mut circuit, now));
                }
            }
        }
    }
}
