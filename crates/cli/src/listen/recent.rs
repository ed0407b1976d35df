//! The ids of notifications that were shown last: a connection that breaks before its cursor has come begins again
//! with some of them.

use std::collections::{HashSet, VecDeque};

/// Notifications that are recognised when they come again; a batch is smaller.
const RECENT_IDS: usize = 10_000;

/// What was shown last.
#[derive(Default)]
pub struct Recent {
    ids: HashSet<String>,
    order: VecDeque<String>,
}

impl Recent {
    /// Whether it is among them.
    pub fn has(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    /// Whether it was shown before and is no new attempt; one that was not is noted.
    pub fn repeats(&mut self, id: &str, is_attempt: bool) -> bool {
        if !self.ids.insert(id.to_owned()) {
            return !is_attempt;
        }
        self.order.push_back(id.to_owned());
        if self.order.len() > RECENT_IDS
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeat_is_known_unless_it_is_a_new_attempt_or_long_ago() {
        let mut recent = Recent::default();
        assert!(!recent.repeats("a", false));
        assert!(recent.repeats("a", false));
        assert!(!recent.repeats("a", true));
        for n in 0..RECENT_IDS {
            assert!(!recent.repeats(&format!("n{n}"), false));
        }
        assert!(!recent.repeats("a", false));
        assert!(recent.ids.len() <= RECENT_IDS && recent.order.len() <= RECENT_IDS);
    }
}
