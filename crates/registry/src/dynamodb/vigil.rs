//! Who is taken for dead: whose lease was not prolonged for as long as it lasts, by this node's own clock.
//!
//! DynamoDB has no clock that a condition could ask, and those of nodes differ. So a lease says no time but a *beat*, a
//! text that is another each time; a lease whose beat stays the same for as long as it lasts is over (as in AWS's own
//! lock client for DynamoDB).
//!
//! Pure: time is given, and never goes back.

use postrider_model::{Millis, Timestamp};
use std::collections::HashMap;

/// A lease, as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub instance: String,
    pub beat: String,
    /// For how long a beat counts.
    pub lease: Millis,
}

/// What was read of others' leases, and since when.
#[derive(Debug, Default)]
pub(super) struct Vigil {
    since: HashMap<String, (String, Timestamp)>,
}

impl Vigil {
    /// These are all the leases of others now. Which of them are over.
    pub fn look(&mut self, now: Timestamp, leases: Vec<Seen>) -> Vec<Seen> {
        let mut since = HashMap::with_capacity(leases.len());
        let mut over = Vec::new();
        for lease in leases {
            let first = match self.since.remove(&lease.instance) {
                Some((beat, first)) if beat == lease.beat => first,
                _ => now,
            };
            since.insert(lease.instance.clone(), (lease.beat.clone(), first));
            if first.plus(lease.lease) <= now {
                over.push(lease);
            }
        }
        self.since = since;
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(instance: &str, beat: &str) -> Seen {
        Seen {
            instance: instance.into(),
            beat: beat.into(),
            lease: Millis(100),
        }
    }

    #[test]
    fn a_beat_that_stays_the_same_for_a_lease_is_the_end_of_it() {
        let mut vigil = Vigil::default();
        let mut look = |now, leases: &[(&str, &str)]| {
            let leases = leases.iter().map(|(instance, beat)| lease(instance, beat));
            let over = vigil.look(Timestamp(now), leases.collect());
            over.into_iter().map(|one| one.instance).collect::<Vec<_>>()
        };
        assert!(look(1_000, &[("a", "1"), ("b", "1")]).is_empty());
        assert!(look(1_099, &[("a", "1"), ("b", "2")]).is_empty());
        assert_eq!(look(1_100, &[("a", "1"), ("b", "2")]), ["a"]);
        // It stays over until somebody says otherwise.
        assert_eq!(look(1_199, &[("a", "1"), ("b", "2")]), ["a", "b"]);
        assert_eq!(look(1_200, &[("a", "2"), ("b", "2")]), ["b"]);
        // Who was away and is back is looked at anew.
        assert!(look(1_250, &[]).is_empty());
        assert!(look(1_400, &[("a", "2")]).is_empty());
    }
}
