//! When to leave an endpoint alone that is not well.
//!
//! Invariant: pure. While it is open nobody passes who failed before; when its pause is over one passes as a probe, and
//! what becomes of that closes it or opens it for a longer pause. Where it opened since recipients failed, one that was not
//! tried yet passes: a few that fail by themselves must not hold up the others.

use postrider_model::{Millis, Pauses, Timestamp};

/// After failures of this weight in a row it opens.
pub const OPENS_AT: u32 = 20;
/// So many attempts in a row that did not reach it open it.
const AWAYS: u32 = 3;
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
pub enum Health<'a> {
    /// It does what it is for.
    Well,
    /// It asks for less, and to be left alone for so long.
    Slow(Millis),
    /// It failed one recipient. In a row each recipient weighs once, and a weight of 0 says nothing of the endpoint.
    Failed { recipient: &'a str, weight: u32 },
    /// It was not reached.
    Away,
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
    /// Whom it failed since it was well, as far as they weigh: at most [`OPENS_AT`].
    failed: Vec<String>,
    /// Whether it answers, so that while it is open whoever was not tried yet may pass.
    answers: bool,
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
    /// Whether one may pass now, who was failed before or not. Whoever gets [`Leave::Probe`] has to say what became of it.
    pub fn ask(&mut self, was_failed: bool, now: Timestamp) -> Leave {
        if now < self.not_before {
            return Leave::Wait(self.not_before.since(now));
        }
        match self.state {
            State::Closed(_) => Leave::Pass,
            _ if self.lets_untried() && !was_failed => Leave::Pass,
            State::Probing { .. } => Leave::Wait(PROBING),
            State::Open { until, .. } if now < until => Leave::Wait(until.since(now)),
            State::Open { times, .. } => {
                self.state = State::Probing { times };
                Leave::Probe
            }
        }
    }

    /// What became of an attempt. One that began before it opened, and failed, changes nothing any more.
    pub fn tell(&mut self, health: Health<'_>, is_probe: bool, now: Timestamp, random: u64) {
        let weight = match health {
            Health::Well => return self.close(),
            Health::Slow(pause) => {
                self.not_before = self.not_before.max(now.plus(pause));
                // It answers.
                if is_probe || self.is_closed() {
                    self.close();
                }
                return;
            }
            Health::Failed { recipient, weight } => match self.is_closed() {
                true => self.weigh(recipient, weight),
                false => 0,
            },
            Health::Away => OPENS_AT.div_ceil(AWAYS),
        };
        let answers = health != Health::Away;
        match self.state {
            State::Probing { times } if is_probe => self.open(times + 1, answers, now, random),
            State::Closed(before) if before.saturating_add(weight) >= OPENS_AT => {
                self.open(0, answers, now, random);
            }
            State::Closed(before) => self.state = State::Closed(before + weight),
            State::Open { .. } | State::Probing { .. } => {}
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

    /// Whether whoever was not tried yet passes though it is open.
    pub fn lets_untried(&self) -> bool {
        !self.is_closed() && self.answers
    }

    /// What the failure of one recipient weighs: nothing where it was weighed before.
    fn weigh(&mut self, recipient: &str, weight: u32) -> u32 {
        if weight == 0 || self.failed.iter().any(|one| one == recipient) {
            return 0;
        }
        self.failed.push(recipient.to_owned());
        weight
    }

    fn close(&mut self) {
        self.state = State::Closed(0);
        self.failed.clear();
    }

    fn open(&mut self, times: u32, answers: bool, now: Timestamp, random: u64) {
        self.failed.clear();
        self.answers = answers;
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
        for nth in 0..times {
            circuit.tell(failed(&nth.to_string(), 1), false, NOW, u64::MAX);
        }
    }

    fn failed(recipient: &str, weight: u32) -> Health<'_> {
        Health::Failed { recipient, weight }
    }

    fn away(circuit: &mut Circuit) {
        for _ in 0..AWAYS {
            circuit.tell(Health::Away, false, NOW, u64::MAX);
        }
    }

    #[test]
    fn only_failures_in_a_row_open_it() {
        let mut circuit = Circuit::default();
        failing(&mut circuit, OPENS_AT - 1);
        circuit.tell(Health::Well, false, NOW, 0);
        failing(&mut circuit, OPENS_AT - 1);
        assert_eq!(circuit.ask(true, NOW), Leave::Pass);
        circuit.tell(failed("another", 1), false, NOW, u64::MAX);
        assert!(!circuit.is_closed());
        assert_eq!(circuit.ask(true, NOW), Leave::Wait(Millis(2_000)));
        let mut heavy = Circuit::default();
        heavy.tell(failed("a", OPENS_AT), false, NOW, 0);
        assert_eq!(heavy.ask(true, NOW), Leave::Wait(LEAST));
    }

    #[test]
    fn one_recipient_weighs_once_however_often_it_fails() {
        let mut circuit = Circuit::default();
        for _ in 0..100 {
            circuit.tell(failed("a", OPENS_AT - 1), false, NOW, 0);
            circuit.tell(failed("b", 0), false, NOW, 0);
        }
        assert!(circuit.is_closed());
        circuit.tell(failed("b", 1), false, NOW, 0);
        assert!(!circuit.is_closed());
    }

    #[test]
    fn who_was_not_tried_yet_passes_unless_it_is_away() {
        let mut circuit = Circuit::default();
        failing(&mut circuit, OPENS_AT);
        assert_eq!(circuit.ask(false, NOW), Leave::Pass);
        assert_eq!(circuit.ask(true, NOW), Leave::Wait(Millis(2_000)));
        let later = NOW.plus(Millis(2_000));
        assert_eq!(circuit.ask(true, later), Leave::Probe);
        circuit.tell(Health::Away, true, later, u64::MAX);
        assert_eq!(circuit.ask(false, later), Leave::Wait(Millis(4_000)));
        let again = later.plus(Millis(4_000));
        assert_eq!(circuit.ask(false, again), Leave::Probe);
        circuit.tell(failed("a", 0), true, again, u64::MAX);
        assert_eq!(circuit.ask(false, again), Leave::Pass, "it answers again");
        assert_eq!(circuit.ask(true, again), Leave::Wait(Millis(8_000)));
        circuit.tell(Health::Well, false, again, 0);
        assert_eq!(circuit.ask(true, again), Leave::Pass);
    }

    #[test]
    fn one_probe_at_a_time_decides() {
        let mut circuit = Circuit::default();
        away(&mut circuit);
        let later = NOW.plus(Millis(2_000));
        assert_eq!(circuit.ask(false, later), Leave::Probe);
        assert_eq!(circuit.ask(false, later), Leave::Wait(PROBING));
        // Who began before it opened has no say in it.
        circuit.tell(Health::Away, false, later, u64::MAX);
        assert_eq!(circuit.ask(false, later), Leave::Wait(PROBING));
        circuit.tell(Health::Away, true, later, u64::MAX);
        assert_eq!(circuit.ask(false, later), Leave::Wait(Millis(4_000)));
        let again = later.plus(Millis(4_000));
        assert_eq!(circuit.ask(false, again), Leave::Probe);
        circuit.forget_probe(again);
        assert_eq!(circuit.ask(false, again), Leave::Probe);
        circuit.tell(Health::Well, true, again, 0);
        assert!(circuit.is_closed());
        assert_eq!(circuit.ask(false, again), Leave::Pass);
    }

    #[test]
    fn who_asks_for_less_is_left_alone_and_is_there() {
        let mut circuit = Circuit::default();
        failing(&mut circuit, OPENS_AT - 1);
        circuit.tell(Health::Slow(Millis(700)), false, NOW, 0);
        assert_eq!(circuit.ask(false, NOW), Leave::Wait(Millis(700)));
        circuit.tell(Health::Slow(Millis(100)), false, NOW, 0);
        assert_eq!(
            circuit.ask(false, NOW),
            Leave::Wait(Millis(700)),
            "the longest counts"
        );
        assert_eq!(circuit.ask(false, NOW.plus(Millis(700))), Leave::Pass);
        failing(&mut circuit, 1);
        assert!(circuit.is_closed(), "the failures before do not count");
    }
}
