//! A source's workers: receive, take, again; and what to do while the source is away.

use super::Running;
use crate::clock::fresh_number;
use futures_util::FutureExt as _;
use postrider_model::Millis;
use postrider_sources::queue::{Pauses, Promise, SourceFault};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// Between two tries to reach a source that is away and keeps what comes meanwhile.
const AWAY: Pauses = Pauses {
    first: Millis(100),
    most: Millis(10_000),
};
/// Of one that keeps nothing: whatever comes before it is reached is lost.
const AWAY_FORGETFUL: Pauses = Pauses {
    most: Millis(500),
    ..AWAY
};
/// A worker that panicked starts anew after this.
const AFTER_PANIC: Duration = Duration::from_secs(1);
/// How often a source is asked what waits in it.
const LAG_EVERY: Duration = Duration::from_secs(5);
/// After so many failures in a row a source that is away is logged again, and then whenever they have doubled.
const LOG_AGAIN: u32 = 16;

/// Starts the workers of a source, and the look at its lag.
pub(super) fn start(running: &Arc<Running>) {
    let tasks = &running.plant.tasks;
    for worker in 0..running.handling.workers {
        let own = running.clone();
        tasks.spawn("source worker", async move {
            while !own.plant.drain.has_begun() {
                // What it held when it panicked was dropped, and is noticed there.
                if AssertUnwindSafe(own.clone().work(worker))
                    .catch_unwind()
                    .await
                    .is_err()
                {
                    tracing::error!(source = own.name, worker, "a worker panicked; it starts anew");
                    own.pause(AFTER_PANIC).await;
                }
            }
        });
    }
    let own = running.clone();
    tasks.spawn("source lag", async move { own.look_at_lag().await });
}

impl Running {
    async fn work(self: Arc<Self>, worker: usize) {
        let mut failures = 0;
        while !self.plant.drain.has_begun() {
            let Some(mut permit) = self.room().await else {
                return;
            };
            let most = permit.num_permits();
            let received = match self.source.open().await {
                Ok(()) => self.source.receive(worker, most).await,
                Err(fault) => Err(fault),
            };
            match received {
                Ok(deliveries) => {
                    self.is_there(&mut failures);
                    let surplus = most.saturating_sub(deliveries.len());
                    drop(permit.split(surplus));
                    if self.source.promise() == Promise::AtMostOnce {
                        self.hand_out(deliveries);
                    } else {
                        self.take(deliveries, permit).await;
                    }
                }
                Err(fault) => {
                    drop(permit);
                    self.is_away(&fault, &mut failures).await;
                }
            }
        }
    }

    /// Room for a batch; `None` where the node drains.
    async fn room(&self) -> Option<OwnedSemaphorePermit> {
        let most = self
            .handling
            .batch
            .min(self.handling.in_flight / self.handling.workers)
            .max(1);
        let room = self
            .room
            .clone()
            .acquire_many_owned(u32::try_from(most).unwrap_or(1));
        tokio::select! {
            biased;
            () = self.plant.drain.begun() => None,
            permit = room => permit.ok(),
        }
    }

    fn is_there(&self, failures: &mut u32) {
        if *failures > 0 {
            tracing::info!(source = self.name, "the source is there again");
        }
        *failures = 0;
        self.plant.metrics.sources().set_ready(self.name, true);
    }

    async fn is_away(&self, fault: &SourceFault, failures: &mut u32) {
        if is_told(*failures) {
            tracing::warn!(source = self.name, %fault, "nothing can be taken; it is tried again");
        }
        self.plant.metrics.sources().set_ready(self.name, false);
        let pauses = pauses_of(self.source.promise());
        self.pause(pauses.nth(*failures, fresh_number()).as_duration())
            .await;
        *failures = failures.saturating_add(1);
    }

    /// Waits, but not in a drain.
    pub(super) async fn pause(&self, time: Duration) {
        tokio::select! {
            () = self.plant.drain.begun() => {}
            () = tokio::time::sleep(time) => {}
        }
    }

    async fn look_at_lag(&self) {
        while !self.plant.drain.has_begun() {
            // Where it cannot be told, the workers say why.
            if let Ok(Some(lag)) = self.source.lag().await {
                self.plant.metrics.sources().set_lag(self.name, lag);
            }
            self.pause(LAG_EVERY).await;
        }
    }
}

/// The pauses while a source is away.
fn pauses_of(promise: Promise) -> Pauses {
    match promise {
        Promise::AtLeastOnce => AWAY,
        Promise::AtMostOnce => AWAY_FORGETFUL,
    }
}

/// Whether this failure is logged, after so many in a row.
fn is_told(failures: u32) -> bool {
    failures == 0 || (failures >= LOG_AGAIN && failures.is_power_of_two())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_by_nobody_is_soon_heard_again_however_long_it_was_away() {
        for failures in [0, 1, 10, 1_000] {
            let longest = |promise| pauses_of(promise).nth(failures, u64::MAX);
            assert!(longest(Promise::AtMostOnce) <= Millis(500), "{failures}");
            assert!(longest(Promise::AtMostOnce) <= longest(Promise::AtLeastOnce));
        }
        assert_eq!(pauses_of(Promise::AtLeastOnce).nth(99, u64::MAX), Millis(10_000));
        // All nodes lost it at once: they do not come back at once.
        assert_eq!(pauses_of(Promise::AtMostOnce).nth(99, 0), Millis(0));
    }

    #[test]
    fn a_long_outage_is_told_ever_more_seldom() {
        let told: Vec<_> = (0..1_000).filter(|failures| is_told(*failures)).collect();
        assert_eq!(told, [0, 16, 32, 64, 128, 256, 512]);
    }
}
