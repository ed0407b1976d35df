//! A source's workers: receive, take, again; and what to do while the source is away.

use super::Running;
use crate::clock::fresh_number;
use futures_util::FutureExt as _;
use postrider_model::Millis;
use postrider_sources::queue::{Pauses, Promise, SourceFault};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// Between two tries to reach a source that is away and keeps what comes meanwhile. Its users wait as long once it is back,
/// so this is about what clients of queues and of Redis do: to be refused a connection costs nobody much.
const AWAY: Pauses = Pauses {
    first: Millis(100),
    most: Millis(2_000),
};
/// Of one that answers, and says that it is asked too often, or that somebody has to mend something.
const ANSWERS: Pauses = Pauses {
    most: Millis(10_000),
    ..AWAY
};
/// Of one that keeps nothing: whatever comes before it is reached is lost.
const FORGETFUL: Pauses = Pauses {
    most: Millis(500),
    ..AWAY
};
/// A worker that panicked starts anew after this.
const AFTER_PANIC: Duration = Duration::from_secs(1);
/// How often a source is asked what waits in it.
const LAG_EVERY: Duration = Duration::from_secs(5);
/// After so many failures in a row of each worker a source that is away is logged again, and then whenever they have
/// doubled. That is a minute or more: a short outage is one line.
const LOG_AGAIN: u32 = 64;

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
        *failures = 0;
        if self.failures.swap(0, Ordering::Relaxed) > 0 {
            tracing::info!(source = self.name, "the source is there again");
        }
        self.plant.metrics.sources().set_ready(self.name, true);
    }

    async fn is_away(&self, fault: &SourceFault, failures: &mut u32) {
        // Of all workers: they lost it together.
        if is_told(
            self.failures.fetch_add(1, Ordering::Relaxed),
            self.handling.workers,
        ) {
            tracing::warn!(source = self.name, %fault, "nothing can be taken; it is tried again");
        }
        self.plant.metrics.sources().set_ready(self.name, false);
        let pauses = pauses_of(self.source.promise(), fault);
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

/// The pauses while a source cannot be taken from.
fn pauses_of(promise: Promise, fault: &SourceFault) -> Pauses {
    match (promise, fault) {
        (Promise::AtMostOnce, _) => FORGETFUL,
        (Promise::AtLeastOnce, SourceFault::Away(_)) => AWAY,
        (Promise::AtLeastOnce, SourceFault::Throttled(_) | SourceFault::Refused(_)) => ANSWERS,
    }
}

/// Whether this failure is logged, after so many in a row of so many workers.
fn is_told(failures: u32, workers: usize) -> bool {
    let workers = u32::try_from(workers).unwrap_or(u32::MAX).max(1);
    let of_each = failures / workers;
    let is_due = of_each >= LOG_AGAIN && of_each.is_power_of_two();
    failures == 0 || (is_due && failures.is_multiple_of(workers))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test, whose clock stands still")]
mod tests {
    use super::*;

    fn away() -> SourceFault {
        SourceFault::Away("connection refused".into())
    }

    #[test]
    fn what_is_kept_by_nobody_is_soon_heard_again_however_long_it_was_away() {
        for failures in [0, 1, 10, 1_000] {
            let longest = |promise| pauses_of(promise, &away()).nth(failures, u64::MAX);
            assert!(longest(Promise::AtMostOnce) <= Millis(500), "{failures}");
            assert!(longest(Promise::AtMostOnce) <= longest(Promise::AtLeastOnce));
        }
        // All nodes lost it at once: they do not come back at once.
        assert_eq!(pauses_of(Promise::AtMostOnce, &away()).nth(99, 0), Millis(0));
    }

    #[test]
    fn who_answers_that_it_is_too_much_is_asked_more_seldom() {
        let longest = |fault: SourceFault| pauses_of(Promise::AtLeastOnce, &fault).nth(99, u64::MAX);
        assert_eq!(longest(away()), Millis(2_000));
        assert_eq!(
            longest(SourceFault::Throttled("slow down".into())),
            Millis(10_000)
        );
        assert_eq!(longest(SourceFault::Refused("no".into())), Millis(10_000));
    }

    /// The tries of one worker while a source is away so long: how many, and how long after its return the last one is.
    async fn outage(away_for: Duration, random: &mut impl FnMut() -> u64) -> (u32, Duration) {
        let began = tokio::time::Instant::now();
        let mut failures = 0;
        while began.elapsed() < away_for {
            let pause = pauses_of(Promise::AtLeastOnce, &away()).nth(failures, random());
            tokio::time::sleep(pause.as_duration()).await;
            failures += 1;
        }
        (failures, began.elapsed() - away_for)
    }

    #[tokio::test(start_paused = true)]
    async fn after_an_outage_of_any_length_it_is_there_within_seconds_and_was_not_asked_all_the_time() {
        let mut state = 7u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state
        };
        for seconds in [1, 10, 60, 3_600] {
            for _ in 0..20 {
                let (tries, late) = outage(Duration::from_secs(seconds), &mut random).await;
                assert!(late <= AWAY.most.as_duration(), "{seconds} s: {late:?} too late");
                // The first few come sooner, and then one in a second on average.
                assert!(u64::from(tries) < 15 + seconds * 2, "{seconds} s: {tries} tries");
                let lines = (0..tries).filter(|nth| is_told(*nth, 1)).count();
                assert!(lines == 1 || seconds > 10, "{seconds} s: {lines} lines");
            }
        }
    }

    #[test]
    fn a_long_outage_is_told_ever_more_seldom_however_many_workers_there_are() {
        for workers in [1, 10] {
            let told = (0..workers * 1_000).filter(|failures| is_told(*failures, workers as usize));
            let of_each: Vec<_> = told.map(|failures| failures / workers).collect();
            assert_eq!(of_each, [0, 64, 128, 256, 512], "{workers}");
        }
    }
}
