//! What a client has of its user's state map, and what a map that came is to it: changes come by wakes, of which some are
//! lost and some are late, and by looks into the engine, which may answer late too.
//!
//! A wake brings news where its version is higher. Any other wake that says something else is old, or the engine has
//! fallen back and goes on from an earlier version: only a look can tell. What a look found holds, also where it is
//! older than what the client has, if nothing else was decided since it began; otherwise another look tells.
//!
//! Invariant: where someone looks whenever wakes may have been lost, and the engine rests, the client comes to have what
//! the engine has, though that fell back. Knows nothing of how a client is told.

use postrider_model::UserState;

/// What a client has: the map that it was told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateTold {
    version: u64,
    digest: u64,
    /// How often it was told one, or a look found that it has what is: which looks began before.
    decided: u32,
}

/// What is to be done about a map that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateStep {
    /// The client has it.
    Nothing,
    /// Tell the client, and say [`StateTold::tell`].
    Tell,
    /// It may be old: look what the engine has, and come back with that.
    Look,
}

impl StateTold {
    /// A client whose session begins with this map.
    pub fn begin(state: &UserState) -> StateTold {
        StateTold {
            version: state.version(),
            digest: state.digest(),
            decided: 0,
        }
    }

    /// The client was told this map.
    pub fn tell(&mut self, state: &UserState) {
        let decided = self.decided.wrapping_add(1);
        *self = StateTold {
            decided,
            ..StateTold::begin(state)
        };
    }

    /// A wake says that the map is this one now.
    pub fn woken(&self, state: &UserState) -> StateStep {
        match state.version() > self.version {
            true => StateStep::Tell,
            false if self.has(state) => StateStep::Nothing,
            false => StateStep::Look,
        }
    }

    /// A look found this map. When it began, this was `before`.
    pub fn looked(&mut self, before: &StateTold, state: &UserState) -> StateStep {
        if self.has(state) {
            self.decided = self.decided.wrapping_add(1);
            return StateStep::Nothing;
        }
        match before == self {
            true => StateStep::Tell,
            false => StateStep::Look,
        }
    }

    fn has(&self, state: &UserState) -> bool {
        self.version == state.version() && self.digest == state.digest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, VecDeque};

    fn state(version: u64, value: u8) -> UserState {
        UserState::new(version, BTreeMap::from([("a".to_owned(), value.to_string())]))
    }

    #[test]
    fn wakes_that_rise_are_told_and_old_ones_have_someone_look() {
        let mut told = StateTold::begin(&state(5, 0));
        assert_eq!(told.woken(&state(5, 0)), StateStep::Nothing);
        assert_eq!(told.woken(&state(6, 0)), StateStep::Tell);
        told.tell(&state(6, 0));
        assert_eq!(told.woken(&state(5, 0)), StateStep::Look);
        assert_eq!(
            told.woken(&state(6, 1)),
            StateStep::Look,
            "another map of that version"
        );
    }

    #[test]
    fn what_a_look_finds_holds_though_it_is_older() {
        let before = StateTold::begin(&state(5, 0));
        for found in [state(4, 0), state(5, 1), state(6, 0), UserState::default()] {
            let mut told = before;
            assert_eq!(told.looked(&before, &found), StateStep::Tell, "{found:?}");
        }
    }

    #[test]
    fn a_look_that_began_before_another_was_done_decides_nothing() {
        let mut told = StateTold::begin(&state(5, 0));
        let before = told;
        assert_eq!(told.looked(&before, &state(5, 0)), StateStep::Nothing);
        // The engine had this one before it fell back to what the other found.
        assert_eq!(told.looked(&before, &state(6, 0)), StateStep::Look);
    }

    #[test]
    fn a_look_that_began_before_the_client_was_told_decides_nothing() {
        let before = StateTold::begin(&state(5, 0));
        let mut told = before;
        told.tell(&state(6, 0));
        assert_eq!(told.looked(&before, &state(5, 0)), StateStep::Look);
        assert_eq!(told.looked(&before, &state(7, 0)), StateStep::Look);
        assert_eq!(told.looked(&before, &state(6, 0)), StateStep::Nothing);
        // It was told what it had: what was found before that may be older still.
        told.tell(&state(5, 0));
        assert_eq!(told.looked(&before, &state(4, 0)), StateStep::Look);
    }

    /// What is on its way to the client's session.
    enum Wake {
        State(UserState),
        /// Some may have been lost up to here.
        Missed,
    }

    /// An engine, what is on its way from it, and a client.
    struct Run {
        engine: UserState,
        client: UserState,
        told: StateTold,
        wakes: VecDeque<Wake>,
        /// What the client had when they began, and what they found.
        looks: Vec<(StateTold, UserState)>,
        /// A look is to begin.
        wanted: bool,
    }

    impl Run {
        fn step(&mut self, step: StateStep, came: UserState) {
            match step {
                StateStep::Nothing => {}
                StateStep::Tell => {
                    self.told.tell(&came);
                    self.client = came;
                }
                StateStep::Look => self.wanted = true,
            }
        }

        fn changes(&mut self, value: u8) {
            self.engine = state(self.engine.version() + 1, value);
            self.wakes.push_back(Wake::State(self.engine.clone()));
        }

        /// It may number another map alike.
        fn falls_back(&mut self, by: u64, value: u8) {
            self.engine = state(self.engine.version().saturating_sub(by), value);
            self.wakes.push_back(Wake::Missed);
        }

        fn loses_a_wake(&mut self) {
            if let Some(lost) = self.wakes.front_mut() {
                *lost = Wake::Missed;
            }
        }

        /// False where none is on its way.
        fn wake_comes(&mut self) -> bool {
            match self.wakes.pop_front() {
                None => return false,
                Some(Wake::Missed) => self.wanted = true,
                Some(Wake::State(came)) => self.step(self.told.woken(&came), came),
            }
            true
        }

        /// False where none is wanted.
        fn look_begins(&mut self) -> bool {
            if self.wanted {
                self.looks.push((self.told, self.engine.clone()));
            }
            std::mem::take(&mut self.wanted)
        }

        /// False where none is under way.
        fn look_is_done(&mut self, nth: usize) -> bool {
            if self.looks.is_empty() {
                return false;
            }
            let (before, found) = self.looks.swap_remove(nth % self.looks.len());
            let step = self.told.looked(&before, &found);
            self.step(step, found);
            true
        }
    }

    proptest! {
        /// Whatever changes, falls back, is lost or late.
        #[test]
        fn the_client_comes_to_have_what_the_engine_has(
            does in proptest::collection::vec((0u8..7, 0u8..3, 0usize..4), 0..60)
        ) {
            let first = state(5, 0);
            let mut run = Run {
                told: StateTold::begin(&first),
                engine: first.clone(),
                client: first,
                wakes: VecDeque::new(),
                looks: Vec::new(),
                wanted: false,
            };
            for (what, value, nth) in does {
                match what {
                    0 | 1 => run.changes(value),
                    2 => run.falls_back(nth as u64, value),
                    3 => run.loses_a_wake(),
                    4 => _ = run.wake_comes(),
                    5 => _ = run.look_begins(),
                    _ => _ = run.look_is_done(nth),
                }
            }
            let mut steps = 0;
            while run.wake_comes() || run.look_begins() || run.look_is_done(steps) {
                steps += 1;
                prop_assert!(steps < 1_000, "it comes to an end");
            }
            prop_assert_eq!(run.client, run.engine);
        }
    }
}
