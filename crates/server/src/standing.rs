//! Which of the things that a node needs are there: a level for each, and the names of those that are not.

use crate::metrics::Labels;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Of one kind, such as sources. There are as many as were configured.
#[derive(Debug, Default)]
pub struct Standing {
    ready: Family<Labels, Gauge>,
    away: Mutex<BTreeSet<&'static str>>,
}

impl Standing {
    /// Makes the levels known by this name.
    pub fn register(&self, r: &mut Registry, name: &str, what: &str) {
        r.register(name, what, self.ready.clone());
    }

    /// Whether the one of this label is there.
    pub fn set(&self, label: Labels, is_ready: bool) {
        self.ready.get_or_create(&label).set(i64::from(is_ready));
        let [(_, name)] = label;
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        if is_ready {
            away.remove(name);
        } else {
            away.insert(name);
        }
    }

    /// Those that are not there, by name.
    pub fn away(&self) -> Vec<&'static str> {
        let away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        away.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_are_away_are_told_once_each_until_they_are_there() {
        let standing = Standing::default();
        for (name, is_ready) in [("b", false), ("a", false), ("b", false), ("c", true)] {
            standing.set([("source", name)], is_ready);
        }
        assert_eq!(standing.away(), ["a", "b"]);
        standing.set([("source", "b")], true);
        assert_eq!(standing.away(), ["a"]);
    }
}
