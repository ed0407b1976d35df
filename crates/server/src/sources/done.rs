//! The messages of a source that were done with, though their queue may not know it.
//!
//! A word that is lost on the way to the queue makes a message come again. What went to a channel cannot be known by an id as
//! what is in the engine is: so the names of the last messages are kept here, and one that comes again is not pushed again.
//!
//! Invariant: at most [`MOST`] names, the newest. A node that starts anew knows none.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Names that are kept of a source; above this the oldest goes.
const MOST: usize = 4_096;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Done(Mutex<Names>);

#[derive(Debug, Default)]
struct Names {
    known: HashSet<Arc<str>>,
    by_age: VecDeque<Arc<str>>,
}

impl Done {
    /// The message of this name is done with. One without a name cannot be known again.
    pub fn note(&self, name: Option<&str>) {
        let Some(name) = name else {
            return;
        };
        let name: Arc<str> = name.into();
        let mut names = self.lock();
        if !names.known.insert(name.clone()) {
            return;
        }
        names.by_age.push_back(name);
        if names.by_age.len() > MOST
            && let Some(oldest) = names.by_age.pop_front()
        {
            names.known.remove(&oldest);
        }
    }

    /// Whether the message of this name was.
    pub fn holds(&self, name: Option<&str>) -> bool {
        name.is_some_and(|name| self.lock().known.contains(name))
    }

    fn lock(&self) -> MutexGuard<'_, Names> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_known() {
        let done = Done::default();
        for nth in 0..=MOST {
            let name = nth.to_string();
            assert!(!done.holds(Some(&name)), "{name}");
            done.note(Some(&name));
            done.note(Some(&name));
        }
        assert!(!done.holds(Some("0")), "the oldest has gone");
        assert!(done.holds(Some("1")) && done.holds(Some(&MOST.to_string())));
        assert_eq!(done.lock().by_age.len(), MOST);
        done.note(None);
        assert!(!done.holds(None));
    }
}
