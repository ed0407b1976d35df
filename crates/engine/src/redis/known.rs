//! What a look knows of one table: rows, and the stretches of keys in which it knows all rows.
//!
//! Invariant: stretches neither overlap nor touch, and every row stands in one. What is known is forgotten by whole
//! stretches only, with all their rows.

use crate::embedded::store::Row;
use std::collections::BTreeMap;
use std::ops::Bound;

/// The known part of a table.
#[derive(Debug, Default)]
pub(super) struct Known {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    /// By their first key: the first key after each.
    stretches: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What is known of a scan.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Scan {
    /// All that was asked for.
    Whole(Vec<Row>),
    /// These, and from this key on nothing is known.
    UpTo(Vec<Row>, Vec<u8>),
}

/// What is known of the last row of a range.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Last {
    /// It, or that there is none.
    Is(Option<Row>),
    /// It stands before this key, if there is one.
    Before(Vec<u8>),
}

impl Known {
    /// The value under a key, where it is known whether there is one.
    pub fn get(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        self.end_of_stretch_at(key)?;
        Some(self.rows.get(key).map(Vec::as_slice))
    }

    /// The first `limit` rows of `from..to`.
    pub fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Scan {
        if from >= to || limit == 0 {
            return Scan::Whole(Vec::new());
        }
        let Some(end) = self.end_of_stretch_at(from) else {
            return Scan::UpTo(Vec::new(), from.to_vec());
        };
        let known = end.min(to);
        let rows = self
            .rows
            .range::<[u8], _>((Bound::Included(from), Bound::Excluded(known)));
        let rows: Vec<Row> = rows
            .take(limit)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        match rows.len() == limit || known == to {
            true => Scan::Whole(rows),
            false => Scan::UpTo(rows, known.to_vec()),
        }
    }

    /// The last row of `from..to`.
    pub fn last(&self, from: &[u8], to: &[u8]) -> Last {
        if from >= to {
            return Last::Is(None);
        }
        let before = self
            .stretches
            .range::<[u8], _>((Bound::Unbounded, Bound::Excluded(to)));
        let Some((start, _)) = before.last().filter(|(_, end)| end.as_slice() >= to) else {
            return Last::Before(to.to_vec());
        };
        let start = start.as_slice().max(from);
        let mut rows = self
            .rows
            .range::<[u8], _>((Bound::Included(start), Bound::Excluded(to)));
        match rows.next_back() {
            Some((key, value)) => Last::Is(Some((key.clone(), value.clone()))),
            None if start == from => Last::Is(None),
            None => Last::Before(start.to_vec()),
        }
    }

    /// Learns that these are all rows of `from..to`.
    pub fn learn(&mut self, from: &[u8], to: &[u8], rows: impl IntoIterator<Item = Row>) {
        if from >= to {
            return;
        }
        self.rows.extend(rows);
        let (mut start, mut end) = (from.to_vec(), to.to_vec());
        let touching = self
            .stretches
            .range::<[u8], _>((Bound::Unbounded, Bound::Included(to)));
        let touching: Vec<_> = touching
            .rev()
            .take_while(|(_, end)| end.as_slice() >= from)
            .map(|(start, _)| start.clone())
            .collect();
        for old in touching {
            if let Some(old_end) = self.stretches.remove(&old) {
                start = start.min(old);
                end = end.max(old_end);
            }
        }
        self.stretches.insert(start, end);
    }

    /// Forgets those stretches of which this is true, with their rows.
    pub fn forget(&mut self, is_gone: impl Fn(&[u8], &[u8]) -> bool) {
        let rows = &mut self.rows;
        self.stretches.retain(|from, to| {
            let goes = is_gone(from, to);
            if goes {
                let range = (Bound::Included(from.as_slice()), Bound::Excluded(to.as_slice()));
                let gone: Vec<_> = rows.range::<[u8], _>(range).map(|(key, _)| key.clone()).collect();
                for key in gone {
                    rows.remove(&key);
                }
            }
            !goes
        });
    }

    pub fn is_empty(&self) -> bool {
        self.stretches.is_empty()
    }

    /// Where the stretch in which this key stands ends.
    fn end_of_stretch_at(&self, key: &[u8]) -> Option<&[u8]> {
        let before = self
            .stretches
            .range::<[u8], _>((Bound::Unbounded, Bound::Included(key)));
        let (_, end) = before.last()?;
        (end.as_slice() > key).then_some(end)
    }
}

/// The first key after this one.
pub(super) fn next(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(2)], 0..4)
    }

    #[test]
    fn nothing_is_known_at_first() {
        let known = Known::default();
        assert_eq!(known.get(b"a"), None);
        assert_eq!(known.scan(b"a", b"b", 1), Scan::UpTo(Vec::new(), b"a".to_vec()));
        assert_eq!(known.last(b"a", b"b"), Last::Before(b"b".to_vec()));
        assert_eq!(known.scan(b"b", b"a", 1), Scan::Whole(Vec::new()));
        assert_eq!(known.last(b"b", b"a"), Last::Is(None));
    }

    #[test]
    fn what_is_forgotten_is_not_known_and_the_rest_is() {
        let mut known = Known::default();
        let row = |key: &[u8]| (key.to_vec(), b"v".to_vec());
        known.learn(b"a", b"c", [row(b"a"), row(b"b")]);
        known.learn(b"d", b"e", [row(b"d")]);
        known.forget(|from, _| from == b"a");
        assert_eq!((known.get(b"a"), known.get(b"b")), (None, None));
        assert_eq!(known.get(b"d"), Some(Some(&b"v"[..])));
        known.learn(b"a", b"c", []);
        assert_eq!(
            known.scan(b"a", b"c", 9),
            Scan::Whole(Vec::new()),
            "no old row is left"
        );
        known.forget(|_, _| true);
        assert!(known.is_empty());
    }

    proptest! {
        /// Whatever was learned, in whatever order, answers are those of the table itself, and what is left open is
        /// what was not learned.
        #[test]
        fn it_answers_as_the_table_would(
            table in proptest::collection::btree_map(keys(), keys(), 0..20),
            learned in proptest::collection::vec((keys(), keys()), 0..8),
            asked in proptest::collection::vec((keys(), keys(), 0usize..4), 1..8),
        ) {
            let of = |from: &[u8], to: &[u8]| -> Vec<Row> {
                let rows = table.iter().filter(|(key, _)| key.as_slice() >= from && key.as_slice() < to);
                rows.map(|(key, value)| (key.clone(), value.clone())).collect()
            };
            let mut known = Known::default();
            for (from, to) in &learned {
                known.learn(from, to, of(from, to));
            }
            let is_known = |key: &[u8]| learned.iter().any(|(from, to)| from.as_slice() <= key && key < to.as_slice());
            for (from, to, limit) in asked {
                prop_assert_eq!(known.get(&from).is_some(), is_known(&from));
                if let Some(value) = known.get(&from) {
                    prop_assert_eq!(value, table.get(&from).map(Vec::as_slice));
                }
                let all: Vec<_> = of(&from, &to).into_iter().take(limit).collect();
                match known.scan(&from, &to, limit) {
                    Scan::Whole(rows) => prop_assert_eq!(rows, all),
                    Scan::UpTo(rows, next) => {
                        prop_assert!(!is_known(&next) && from <= next && next < to);
                        prop_assert_eq!(rows, of(&from, &next));
                    }
                }
                match known.last(&from, &to) {
                    Last::Is(row) => prop_assert_eq!(row, of(&from, &to).pop()),
                    Last::Before(end) => {
                        prop_assert!(from < end && end <= to);
                        prop_assert_eq!(of(&end, &to), Vec::new());
                    }
                }
            }
        }
    }
}
