//! The store against a plain map, over histories of commits, checkpoints, rewrites, failing calls, losses of
//! power and kills. Every trial has a seed, which a failure prints.

use super::model::{Failing, Model, Rng};
use super::tests::{Rows, TIGHT, all_rows, open_in, random_batch, rows};
use super::*;
use std::io::ErrorKind;

/// A store and a map, and what each may say after a loss of power.
struct Trial {
    seed: u64,
    rng: Rng,
    /// The states after each commit that was taken; the first is the empty store.
    states: Vec<Rows>,
    /// The last commit that surely is on the disk.
    safe: usize,
    /// The state after a commit that was refused, until another was taken: it may be there or not.
    refused: Vec<Rows>,
}

impl Trial {
    /// What an opened store holds must be the state after one of the commits, none older than is safe.
    fn judge(&mut self, core: &Core, what: &str) {
        let seed = self.seed;
        let found = all_rows(core).unwrap_or_else(|fault| panic!("seed {seed}, {what}: {fault}"));
        let last = self.states.len() - 1;
        match (self.safe..=last).rev().find(|at| self.states[*at] == found) {
            Some(at) => self.states.truncate(at + 1),
            None if self.refused.contains(&found) => self.states.push(found),
            None => panic!(
                "seed {seed}, {what}: the rows are of no commit of {}..={last}",
                self.safe
            ),
        }
        // What a start read goes to the disk with the first segment it begins.
        if lock(&core.log).heal().is_ok() {
            self.safe = self.states.len() - 1;
            self.refused.clear();
        }
    }

    fn commit(&mut self, core: &Core) {
        if lock(&core.state).frozen.is_some() && lock(&core.state).active.bytes() >= TIGHT.layer {
            drop(core.checkpoint());
        }
        let mut next = self.states[self.states.len() - 1].clone();
        let batch = random_batch(&mut self.rng, self.states.len(), &mut next);
        let sync = self.rng.one_in(2);
        match core.commit(&batch, sync) {
            Ok(()) => {
                self.states.push(next);
                self.refused.clear();
                if sync {
                    self.safe = self.states.len() - 1;
                }
            }
            Err(_) => self.refused.push(next),
        }
    }

    fn step(&mut self, core: &Core, model: &Model) {
        match self.rng.below(20) {
            0..11 => self.commit(core),
            11 | 12 => {
                core.freeze_now();
                drop(core.checkpoint());
            }
            13 => drop(core.checkpoint()),
            14 | 15 => {
                let mut side = lock(&core.base);
                (side.rewritten, side.resting) = (0, 0);
                drop(side);
                for _ in 0..self.rng.below(60) {
                    core.rewrite_some();
                }
            }
            16 => drop(core.make_spare()),
            17 => {
                if core.commit(&Batch::default(), true).is_ok() {
                    self.safe = self.states.len() - 1;
                }
            }
            18 if self.rng.one_in(2) => {
                let kind = Some([ErrorKind::Other, ErrorKind::StorageFull][self.rng.below(2)]);
                let failing = match self.rng.below(4) {
                    0 => Failing {
                        writes: kind,
                        ..Failing::default()
                    },
                    1 => Failing {
                        syncs: kind,
                        ..Failing::default()
                    },
                    2 => Failing {
                        names: kind,
                        ..Failing::default()
                    },
                    _ => Failing {
                        reads: kind,
                        writes: kind,
                        syncs: kind,
                        names: kind,
                    },
                };
                model.with(|disk| disk.failing = failing);
            }
            _ => model.with(|disk| disk.failing = Failing::default()),
        }
        if let Ok(found) = all_rows(core) {
            let seed = self.seed;
            assert!(
                found == self.states[self.states.len() - 1],
                "seed {seed}: a reader sees another state"
            );
            let state = lock(&core.state);
            if state.frozen.is_none() && state.active.is_empty() {
                let live: usize = found
                    .iter()
                    .map(|((_, key), value)| key.len() + value.len())
                    .sum();
                assert_eq!(state.live, live as u64, "seed {seed}: live bytes");
            }
        }
    }

    fn run(seed: u64) {
        let mut trial = Trial {
            seed,
            rng: Rng(seed),
            states: vec![Rows::new()],
            safe: 0,
            refused: Vec::new(),
        };
        let mut model = Model::new(seed);
        for life in 0..4 {
            let power = trial.rng.below(400);
            model.with(|disk| disk.power = (life < 3).then_some(power));
            match open_in(&model, TIGHT) {
                Err(fault) => assert!(life < 3, "seed {seed}: does not open with the power on: {fault}"),
                Ok(core) => {
                    trial.judge(&core, &format!("life {life}"));
                    if life == 3 {
                        return;
                    }
                    // An older view stays what it was.
                    let (view, then) = (core.snapshot(), trial.states[trial.states.len() - 1].clone());
                    for _ in 0..trial.rng.below(60) {
                        trial.step(&core, &model);
                        if model.with(|disk| disk.power == Some(0)) {
                            break;
                        }
                    }
                    if let Ok(Ok(found)) = view.map(|view| rows(&view)) {
                        assert!(found == then, "seed {seed}: an old view changed");
                    }
                }
            }
            model = match trial.rng.one_in(4) {
                true => model.after_kill(),
                false => model.after_power_loss(),
            };
        }
    }
}

#[test]
fn any_history_keeps_every_synced_commit_whole() {
    let trials = std::env::var("POSTRIDER_TRIALS").map_or(300, |n| n.parse().unwrap());
    for seed in 0..trials {
        Trial::run(seed);
    }
}
