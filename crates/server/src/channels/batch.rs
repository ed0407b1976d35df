//! What became of the messages of one receive, told once the last of them was pushed.

use super::Named;
use crate::clock::SteadyClock;
use crate::metrics::Metrics;
use postrider_channels::Tally;
use postrider_model::Timestamp;
use std::sync::{Arc, Mutex, PoisonError};

/// The sums of one batch; shared by those who push its messages.
pub struct BatchTally {
    source: &'static str,
    began: Timestamp,
    clock: SteadyClock,
    sums: Mutex<Sums>,
}

#[derive(Default, Clone, Copy)]
struct Sums {
    /// Messages that are still being pushed.
    left: u64,
    records: u64,
    tally: Tally,
}

impl BatchTally {
    /// Of so many messages of a source, by a clock that nobody sets.
    pub fn begin(source: &'static str, messages: usize, clock: SteadyClock) -> Arc<BatchTally> {
        let sums = Sums {
            left: messages as u64,
            ..Sums::default()
        };
        Arc::new(BatchTally {
            source,
            began: clock(),
            clock,
            sums: Mutex::new(sums),
        })
    }

    /// One of them ended: `None` where it was given back. Whoever ends the last one tells.
    pub fn end(&self, tally: Option<Tally>, channels: &[Named], metrics: &Metrics) {
        let sums = {
            let mut sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
            sums.left -= 1;
            if let Some(tally) = tally {
                sums.records += 1;
                sums.tally += tally;
            }
            *sums
        };
        if sums.left > 0 {
            return;
        }
        let elapsed = (self.clock)().since(self.began);
        for one in channels {
            metrics.channels().observe_batch(one.name, elapsed.as_duration());
        }
        let Tally {
            notified,
            gone,
            struck,
            undelivered,
        } = sums.tally;
        tracing::info!(
            source = self.source,
            records = sums.records,
            notified,
            gone,
            stale_deleted = struck,
            undelivered,
            elapsed_ms = elapsed.0,
            "a batch was pushed"
        );
    }
}
