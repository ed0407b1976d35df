//! What the table is to say of the users of this node, and what of it was not written yet.
//!
//! Whoever serves sessions says who comes and goes, which takes a short lock and no more; the [`crate::Keeper`] takes what
//! is to be written in batches. Of a user who comes and goes faster than that, the last word counts.
//!
//! Invariant: at most one change waits for each user. Of users who are gone at most [`MOST_GONE`] wait; where there are
//! more, they are forgotten, and all rows of this instance are cleared and written anew.

use crate::MOST_ROWS;
use crate::rounds::Rounds;
use postrider_model::{Timestamp, UserId};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Users who are gone, and whose rows do not say so yet.
pub const MOST_GONE: usize = 100_000;

/// What a user's row is to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// This instance.
    Here,
    /// Not this instance.
    Gone,
}

/// Who is here, and what is to be written.
#[derive(Debug, Default)]
pub struct Ledger {
    state: Mutex<State>,
    bell: Notify,
}

#[derive(Debug, Default)]
struct State {
    here: BTreeSet<UserId>,
    waiting: HashMap<UserId, Word>,
    /// Those of `waiting`, and some who wait no longer, in the order in which they began to.
    order: VecDeque<UserId>,
    gone: usize,
    must_start_over: bool,
    rounds: Rounds,
}

/// What is written next.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Batch {
    pub here: Vec<UserId>,
    pub gone: Vec<UserId>,
}

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.here.is_empty() && self.gone.is_empty()
    }
}

impl Ledger {
    /// The first session of this user on this node. Never waits.
    pub fn came(&self, user: &UserId) {
        let mut state = self.lock();
        state.here.insert(user.clone());
        state.wait(user, Word::Here);
        drop(state);
        self.bell.notify_one();
    }

    /// The last session of this user on this node has ended. Never waits.
    pub fn went(&self, user: &UserId) {
        let mut state = self.lock();
        // Who was struck off has no row.
        if state.here.remove(user) {
            state.wait(user, Word::Gone);
        }
        drop(state);
        self.bell.notify_one();
    }

    /// Changes that wait.
    pub fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Returns once somebody came or went since this was last asked. Cancel-safe.
    pub(crate) async fn word(&self) {
        self.bell.notified().await;
    }

    /// Whether there is more to be done at once.
    pub(crate) fn is_behind(&self) -> bool {
        let state = self.lock();
        !state.waiting.is_empty() || state.must_start_over || state.rounds.is_hurried()
    }

    /// Takes the changes that have waited longest.
    pub(crate) fn take(&self) -> Batch {
        let mut state = self.lock();
        let mut batch = Batch::default();
        while batch.here.len() + batch.gone.len() < MOST_ROWS {
            let Some(user) = state.order.pop_front() else {
                break;
            };
            match state.waiting.remove(&user) {
                Some(Word::Here) => batch.here.push(user),
                Some(Word::Gone) => {
                    state.gone -= 1;
                    batch.gone.push(user);
                }
                None => {}
            }
        }
        batch
    }

    /// A batch was not written: it waits again, but for those of whom there is a later word.
    pub(crate) fn put_back(&self, batch: Batch) {
        let mut state = self.lock();
        let here = batch.here.into_iter().map(|user| (user, Word::Here));
        let gone = batch.gone.into_iter().map(|user| (user, Word::Gone));
        for (user, word) in here.chain(gone) {
            // Who was forgotten with too many others is not here again.
            let is_so = word == Word::Gone || state.here.contains(&user);
            if is_so && !state.waiting.contains_key(&user) {
                state.wait(&user, word);
            }
        }
    }

    /// Whose rows are to be looked over now.
    pub(crate) fn page(&self, now: Timestamp) -> Vec<UserId> {
        let state = &mut *self.lock();
        state.rounds.page(&state.here, now)
    }

    /// Rows may be gone: all who are here are looked over, without pauses.
    pub(crate) fn hurry(&self) {
        self.lock().rounds.hurry();
    }

    /// The table cannot hold this user: nothing is written of it until it comes again.
    pub(crate) fn strike_off(&self, user: &UserId) {
        self.lock().here.remove(user);
    }

    /// Whether all rows of this instance are to be cleared before anything else is written.
    pub(crate) fn must_start_over(&self) -> bool {
        self.lock().must_start_over
    }

    /// They are.
    pub(crate) fn started_over(&self) {
        let mut state = self.lock();
        state.must_start_over = false;
        state.rounds.hurry();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wait(&mut self, user: &UserId, word: Word) {
        let before = self.waiting.insert(user.clone(), word);
        if before.is_none() {
            self.order.push_back(user.clone());
        }
        self.gone += usize::from(word == Word::Gone);
        self.gone -= usize::from(before == Some(Word::Gone));
        if self.gone > MOST_GONE {
            // Who is here waits on.
            self.waiting.retain(|_, word| *word == Word::Here);
            let waiting = &self.waiting;
            self.order.retain(|user| waiting.contains_key(user));
            self.gone = 0;
            self.must_start_over = true;
        }
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
