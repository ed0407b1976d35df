//! When to leave an endpoint alone that is not well.
//!
//! Invariant: pure. While it is open nobody passes; when its pause is over one passes as a probe, and what becomes of
//! that closes it or opens it for a longer pause.

use postrider_model::{Millis, Pauses, Timestamp};

/// After failures of this weight in a row it opens.
pub const OPENS_AT: u32 = 20;
/// Between two probes.
const PAUSES: Pauses = Pauses {
    first: Millis(2_000),
    most: Millis(30_000),
};
/// Least of such a pause, whatever the draw.
const LEAST: Millis = Millis(200);
/// How much later the next look is, where a probe is under way.
const PROBING: Millis = Millis(1_000);

/// What became of an attempt, as far as the endpoint goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It does what it is for.
    Well,
    /// It asks for less, and to be left alone for so long.
    Slow(Millis),
    /// It failed; of so much weight.
    Failed(u32),
}

/// Whether one may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// Yes.
    Pass,
    /// Yes, and all others wait for what becomes of it.
    Probe,
    /// Not for so long.
    Wait(Millis),
}

/// The state of one endpoint.
#[derive(Debug, Default)]
pub struct Circuit {
    state: State,
    /// Not before this, since it asked for less.
    not_before: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The weight of the failures in a row.
    Closed(u32),
    /// Opened so many times without a success in between.
    Open {
        until: Timestamp,
        times: u32,
    },
    Probing {
        times: u32,
    },
}

impl Default for State {
    fn default() -> Self {
        State::Closed(0)
    }
}

impl Circuit {
    /// Whether one may pass now. Whoever gets [`Leave::Probe`] has to say what became of it.
    pub fn ask(&mut self, now: Timestamp) -> Leave {
        if now < self.not_before {
            return Leave::Wait(self.not_before.since(now));
        }
        match self.state {
            State::Closed(_) => Leave::Pass,
            State::Probing { .. } => Leave::Wait(PROBING),
            State::Open { until, .. } if now < until => Leave::Wait(until.since(now)),
            State::Open { times, .. } => {
                self.state = State::Probing { times };
                Leave::Probe
            }
        }
    }

    /// What became of an attempt. One that began before it opened, and failed, changes nothing any more.
    pub fn tell(&mut self, health: Health, is_probe: bool, now: Timestamp, random: u64) {
        match (health, self.state) {
            (Health::Well, _) => self.state = State::Closed(0),
            (Health::Slow(pause), state) => {
                self.not_before = self.not_before.max(now.plus(pause));
                // It answers.
                if is_probe || matches!(state, State::Closed(_)) {
                    self.state = State::Closed(0);
                }
            }
            (Health::Failed(_), State::Probing { times }) if is_probe => self.open(times + 1, now, random),
            (Health::Failed(weight), State::Closed(before)) => {
                let all = before.saturating_add(weight);
                if all >= OPENS_AT {
                    self.open(0, now, random);
                } else {
                    self.state = State::Closed(all);
                }
            }
            (Health::Failed(_), State::Open { .. } | State::Probing { .. }) => {}
        }
    }

    /// Nobody will ever say what became of the probe.
    pub fn forget_probe(&mut self, now: Timestamp) {
        if let State::Probing { times } = self.state {
            self.state = State::Open { until: now, times };
        }
    }

    /// Whether everybody may pass.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed(_))
    }

    fn open(&mut self, times: u32, now: Timestamp, random: u64) {
        let pause = PAUSES.nth(times, random).max(LEAST);
        let until = now.plus(pause);
        self.state = State::Open { until, times };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn failing(circuit: &mut Circuit, times: u32) {
        for _ in 0..times {
            circuit.tell(Health::Failed(1), false, NOW, u64::MAX);
        }
    }

    #[test]
    fn only_failures_in_a_row_open_it() {
        let mut circuit = Circuit::default();
        failing(&mut circuit, OPENS_AT - 1);
        circuit.tell(Health::Well, false, NOW, 0);
        failing(&mut circuit, OPENS_AT - 1);
        assert_eq!(circuit.ask(NOW), Leave::Pass);
        failing(&mut circuit, 1);
        assert!(!circuit.is_closed());
        assert_eq!(circuit.ask(NOW), Leave::Wait(Millis(2_000)));
        let mut heavy = Circuit::default();
        heavy.tell(Health::Failed(OPENS_AT), false, NOW, 0);
        assert_eq!(heavy.ask(NOW), Leave::Wait(LEAST));
    }

    #[test]
    fn one_probe_at_a_time_decides() {
        let mut circuit = Circuit::default();
        failing(&mut circuit, OPENS_AT);
        let later = NOW.plus(Millis(2_000));
        assert_eq!(circuit.ask(later), Leave::Probe);
        assert_eq!(circuit.ask(later), Leave::Wait(PROBING));
        // Who began before it opened has no say in it.
        circuit.tell(Health::Failed(1), false, later, u64::MAX);
        assert_eq!(circuit.ask(later), Leave::Wait(PROBING));
        circuit.tell(Health::Failed(1), true, later, u64::MAX);
        assert_eq!(circuit.ask(later), Leave::Wait(Millis(4_000)));
        let again = later.plus(Millis(4_000));
        assert_eq!(circuit.ask(again), Leave::Probe);
        circuit.forget_probe(again);
        assert_eq!(circuit.ask(again), Leave::Probe);
        circuit.tell(Health::Well, true, again, 0);
        assert!(circuit.is_closed());
        assert_eq!(circuit.ask(again), Leave::Pass);
    }

    #[test]
    fn who_asks_for_less_is_left_alone_and_is_there() {
        let mut circuit = Circuit::default();
        failing(&mut circuit, OPENS_AT - 1);
        circuit.tell(Health::Slow(Millis(700)), false, NOW, 0);
        assert_eq!(circuit.ask(NOW), Leave::Wait(Millis(700)));
        circuit.tell(Health::Slow(Millis(100)), false, NOW, 0);
        assert_eq!(circuit.ask(NOW), Leave::Wait(Millis(700)), "the longest counts");
        assert_eq!(circuit.ask(NOW.plus(Millis(700))), Leave::Pass);
        failing(&mut circuit, 1);
        assert!(circuit.is_closed(), "the failures before do not count");
    }
}
