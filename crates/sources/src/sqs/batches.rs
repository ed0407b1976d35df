//! Which words go to SQS in one call.
//!
//! Invariant: a batch is of one queue and of one kind, has at most [`BATCH_MOST`] words, and keeps their order. Pure.

use super::BATCH_MOST;
use std::collections::HashMap;
use std::sync::Arc;

/// What two words must have alike to go together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    /// The address of the queue.
    pub queue: Arc<str>,
    pub is_delete: bool,
}

/// Words that wait for others to go with.
#[derive(Debug)]
pub(super) struct Batches<T> {
    open: HashMap<Kind, Vec<T>>,
}

impl<T> Batches<T> {
    pub fn new() -> Batches<T> {
        Batches { open: HashMap::new() }
    }

    /// Adds a word; its batch, if it is full with it.
    pub fn add(&mut self, kind: Kind, word: T) -> Option<(Kind, Vec<T>)> {
        let batch = self.open.entry(kind.clone()).or_default();
        batch.push(word);
        let is_full = batch.len() >= BATCH_MOST;
        is_full.then(|| self.open.remove_entry(&kind)).flatten()
    }

    /// All that wait.
    pub fn take(&mut self) -> Vec<(Kind, Vec<T>)> {
        self.open.drain().collect()
    }

    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_of_a_kind_at_most_and_in_order() {
        let kind = |(queue, is_delete, _): &(&str, bool, usize)| Kind {
            queue: (*queue).into(),
            is_delete: *is_delete,
        };
        let words: Vec<_> = (0..48).map(|n| (["a", "b"][n % 2], n % 3 == 0, n)).collect();
        let mut batches = Batches::new();
        let full = words
            .into_iter()
            .filter_map(|word| batches.add(kind(&word), word));
        let mut made: Vec<_> = full.collect();
        // Two of the kinds have 16 words.
        assert!(made.len() == 2 && made.iter().all(|(_, batch)| batch.len() == BATCH_MOST));
        assert!(!batches.is_empty());
        made.extend(batches.take());
        for (of, batch) in &made {
            assert!((1..=BATCH_MOST).contains(&batch.len()));
            assert!(batch.iter().all(|word| kind(word) == *of));
            assert!(batch.is_sorted_by_key(|word| word.2));
        }
        assert_eq!(made.iter().map(|(_, batch)| batch.len()).sum::<usize>(), 48);
        assert_eq!(made.len(), 6);
        assert!(batches.is_empty() && batches.take().is_empty());
    }
}
