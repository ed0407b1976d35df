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

/// Between two tries to reach a source that is away.
const AWAY: Pauses = Pauses {
    first: Millis(100),
    most: Millis(10_000),
};
/// A worker that panicked starts anew after this.
const AFTER_PANIC: Duration = Duration::from_secs(1);
/// How often a source is asked what waits in it.
const LAG_EVERY: Duration = Duration::from_secs(5);
/// After so many failures in a row a source that is away is logged again.
const LOG_EVERY: u32 = 16;

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
        if failures.is_multiple_of(LOG_EVERY) {
            tracing::warn!(source = self.name, %fault, "nothing can be taken; it is tried again");
        }
        self.plant.metrics.sources().set_ready(self.name, false);
        self.pause(AWAY.nth(*failures, fresh_number()).as_duration())
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
