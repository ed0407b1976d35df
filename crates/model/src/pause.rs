//! How long to wait before trying again: exponential, with full jitter.

use crate::Millis;

/// A row of pauses, each drawn between nothing and a bound that doubles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pauses {
    /// The first bound.
    pub first: Millis,
    /// The greatest bound.
    pub most: Millis,
}

impl Pauses {
    /// The pause before the `nth` repeat (from 0). `random` is any number: the pause is uniform over it.
    pub fn nth(&self, nth: u32, random: u64) -> Millis {
        let doubled = self
            .first
            .0
            .saturating_mul(1u64.checked_shl(nth).unwrap_or(u64::MAX));
        let bound = doubled.min(self.most.0).max(1);
        // Uniform in 0..=bound, by the high half of the product.
        Millis(((u128::from(random) * (u128::from(bound) + 1)) >> 64) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_up_to_the_most_and_the_whole_range_is_used() {
        let pauses = Pauses {
            first: Millis(100),
            most: Millis(10_000),
        };
        for (nth, bound) in [
            (0, 100),
            (1, 200),
            (6, 6_400),
            (7, 10_000),
            (63, 10_000),
            (64, 10_000),
            (u32::MAX, 10_000),
        ] {
            assert_eq!(pauses.nth(nth, u64::MAX), Millis(bound), "{nth}");
            assert_eq!(pauses.nth(nth, 0), Millis(0));
            assert_eq!(pauses.nth(nth, u64::MAX / 2), Millis(bound / 2));
        }
    }
}
