//! The gate before an endpoint: whoever is to pass waits here for as long as its circuit is open.
//!
//! Invariant: who was let through as a probe and went away without a word lets the next one probe.

use crate::circuit::{Circuit, Health, Leave};
use crate::{Standing, SteadyClock};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Guards one endpoint.
pub struct Gate {
    circuit: Mutex<Circuit>,
    changed: Notify,
    steady: SteadyClock,
    random: fn() -> u64,
    standing: Standing,
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
        }
    }

    /// Waits until one may pass, who was failed before or not.
    pub async fn pass(&self, was_failed: bool) -> Pass<'_> {
        loop {
            let changed = self.changed.notified();
            let now = (self.steady)();
            let leave = self.circuit().ask(was_failed, now);
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

    /// Changes the circuit, and tells whom it concerns. Whether everybody may pass now.
    fn change(&self, change: impl FnOnce(&mut Circuit)) -> bool {
        let mut circuit = self.circuit();
        let (before, let_untried) = (circuit.is_closed(), circuit.lets_untried());
        change(&mut circuit);
        let after = circuit.is_closed();
        if before != after {
            // Before anybody else changes it, so that what is told last is so.
            (self.standing)(after);
        }
        if before != after || let_untried != circuit.lets_untried() {
            self.changed.notify_waiters();
        }
        after
    }
}

impl Pass<'_> {
    /// Whether all others wait for what becomes of it.
    pub fn is_probe(&self) -> bool {
        self.is_probe
    }

    /// What became of the attempt. Gives back whether everybody may pass now.
    pub fn tell(mut self, health: Health<'_>) -> bool {
        self.is_told = true;
        let (now, random) = ((self.gate.steady)(), (self.gate.random)());
        let is_probe = self.is_probe;
        self.gate
            .change(|circuit| circuit.tell(health, is_probe, now, random))
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
    use postrider_model::Timestamp;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

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
        for _ in 0..3 {
            gate.pass(false).await.tell(Health::Away);
        }
        assert_eq!(told.load(Ordering::Relaxed), 1);
        let probe = gate.pass(false).await;
        assert_eq!(start.elapsed().as_millis(), 2_000);
        drop(probe);
        let second = gate.pass(false).await;
        assert_eq!(start.elapsed().as_millis(), 2_000, "the next one probes at once");
        let (waiting, is_closed) = tokio::join!(gate.pass(false), async { second.tell(Health::Well) });
        assert!(is_closed);
        assert_eq!(start.elapsed().as_millis(), 2_000, "who waits is woken");
        drop(waiting);
        assert_eq!(told.load(Ordering::Relaxed), 101);
    }
}
