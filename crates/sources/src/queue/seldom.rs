//! What may happen very often is logged seldom: the first time, and then one time in so many.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts how often something happened.
#[derive(Debug, Default)]
pub struct Seldom(AtomicU64);

impl Seldom {
    /// It happened: how often so far, where it is time to log that.
    pub fn due(&self, one_in: u64) -> Option<u64> {
        let before = self.0.fetch_add(1, Ordering::Relaxed);
        before.is_multiple_of(one_in.max(1)).then_some(before + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_then_one_in_so_many() {
        let seldom = Seldom::default();
        let due: Vec<_> = (0..7).filter_map(|_| seldom.due(3)).collect();
        assert_eq!(due, [1, 4, 7]);
        assert_eq!(seldom.due(0), Some(8));
    }
}
