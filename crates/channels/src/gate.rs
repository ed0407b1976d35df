//! The gate before an endpoint: whoever is to pass waits here for as long as its circuit is open.
//!
//! Invariant: who was let through as a probe and went away without a word lets the next one probe.

use crate::circuit::{Circuit, Health, Leave};
use crate::{Standing, SteadyClock};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Guards one endpoint.
pub struct Gate {
    circuit: Mutex<Circuit>,
    changed: Notify,
    steady: SteadyClock,
    random: fn() -> u64,
    standing: Standing,
    /// Attempts that the endpoint served.
    well: AtomicU64,
}

/// One attempt that was let through.
pub struct Pass<'a> {
    gate: &'a Gate,
    is_probe: bool,
    is_told: bool,
}

impl Gate {
    /// An open way.
    pub fn new(steady: SteadyClock, random: fn() -> u64, standing: Standing) -> Gate {
        let (circuit, changed) = Default::default();
        Gate {
            circuit,
            changed,
            steady,
            random,
            standing,
            well: AtomicU64::new(0),
        }
    }

    /// How many attempts the endpoint has served so far.
    pub fn well(&self) -> u64 {
        self.well.load(Ordering::Relaxed)
    }

    /// Waits until one may pass.
    pub async fn pass(&self) -> Pass<'_> {
        loop {
            let changed = self.changed.notified();
            let now = (self.steady)();
            let leave = self.circuit().ask(now);
            let wait = match leave {
                Leave::Pass | Leave::Probe => {
                    return Pass {
                        gate: self,
                        is_probe: leave == Leave::Probe,
                        is_told: false,
                    };
                }
                Leave::Wait(wait) => wait.as_duration(),
            };
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    fn circuit(&self) -> MutexGuard<'_, Circuit> {
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the circuit, and tells whom it concerns.
    fn change(&self, change: impl FnOnce(&mut Circuit)) {
        let mut circuit = self.circuit();
        let before = circuit.is_closed();
        change(&mut circuit);
        let after = circuit.is_closed();
        if before != after {
            // Before anybody else changes it, so that what is told last is so.
            (self.standing)(after);
            self.changed.notify_waiters();
        }
    }
}

impl Pass<'_> {
    /// What became of the attempt.
    pub fn tell(mut self, health: Health) {
        self.is_told = true;
        if health == Health::Well {
            self.gate.well.fetch_add(1, Ordering::Relaxed);
        }
        let (now, random) = ((self.gate.steady)(), (self.gate.random)());
        let is_probe = self.is_probe;
        self.gate
            .change(|circuit| circuit.tell(health, is_probe, now, random));
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.is_probe && !self.is_told {
            let now = (self.gate.steady)();
            self.gate.change(|circuit| circuit.forget_probe(now));
            self.gate.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::circuit::OPENS_AT;
    use postrider_model::Timestamp;
    use std::sync::Arc;

    #[tokio::test(start_paused = true)]
    async fn all_wait_and_one_probes_until_it_is_well() {
        #[allow(clippy::disallowed_methods, reason = "the paused clock of a test")]
        let start = tokio::time::Instant::now();
        let steady: SteadyClock = Arc::new(move || Timestamp(start.elapsed().as_millis() as u64));
        let told = Arc::<AtomicU64>::default();
        let telling = told.clone();
        let standing: Standing = Arc::new(move |is_there| {
            telling.fetch_add(if is_there { 100 } else { 1 }, Ordering::Relaxed);
        });
        let gate = Gate::new(steady, || u64::MAX, standing);
        gate.pass().await.tell(Health::Failed(OPENS_AT));
        assert_eq!(told.load(Ordering::Relaxed), 1);
        let probe = gate.pass().await;
        assert_eq!(start.elapsed().as_millis(), 2_000);
        drop(probe);
        let second = gate.pass().await;
        assert_eq!(start.elapsed().as_millis(), 2_000, "the next one probes at once");
        let (waiting, ()) = tokio::join!(gate.pass(), async { second.tell(Health::Well) });
        assert_eq!(start.elapsed().as_millis(), 2_000, "who waits is woken");
        drop(waiting);
        assert_eq!(told.load(Ordering::Relaxed), 101);
    }
}
