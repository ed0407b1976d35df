//! Knows what was sent to whom, and judges what arrived.
//!
//! Each receiver is sent numbers 0, 1, 2 … in this order. Invariant: `delivered` counts a number once, however
//! often it comes; what comes again is `repeated` (allowed: at least once), what comes after a later one is
//! `reordered`, what never comes is `lost`.

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// More than so many holes at once end the run: it has failed anyway.
const MAX_HOLES: usize = 1_000_000;

/// What each receiver has had.
pub struct Account {
    next: Vec<u64>,
    holes: BTreeSet<(usize, u64)>,
    totals: Totals,
}

/// The sums over all receivers.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Each number once.
    pub delivered: u64,
    /// Never came.
    pub lost: u64,
    /// Came again.
    pub repeated: u64,
    /// Came after a later one.
    pub reordered: u64,
}

impl Account {
    /// Nobody has had anything.
    pub fn new(receivers: usize) -> Account {
        Account {
            next: vec![0; receivers],
            holes: BTreeSet::new(),
            totals: Totals::default(),
        }
    }

    /// `number` came to `receiver`. True if it had not come before.
    ///
    /// # Errors
    /// So much is missing that the run has failed.
    pub fn received(&mut self, receiver: usize, number: u64) -> Result<bool> {
        let next = &mut self.next[receiver];
        if number == *next {
            *next += 1;
        } else if number > *next {
            if self.holes.len() + (number - *next) as usize > MAX_HOLES {
                bail!("receiver {receiver} got {number} where {next} was next");
            }
            self.holes.extend((*next..number).map(|hole| (receiver, hole)));
            *next = number + 1;
        } else if self.holes.remove(&(receiver, number)) {
            self.totals.reordered += 1;
        } else {
            self.totals.repeated += 1;
            return Ok(false);
        }
        self.totals.delivered += 1;
        Ok(true)
    }

    /// How many a receiver has had at the head of its order, holes included.
    pub fn reached(&self, receiver: usize) -> u64 {
        self.next[receiver]
    }

    /// How many have come, each once.
    pub fn delivered(&self) -> u64 {
        self.totals.delivered
    }

    /// The sums so far; nothing counts as lost yet.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Closes the books: `sent` says how many each receiver was sent.
    ///
    /// # Errors
    /// Something was lost, or came out of order, or came that nobody sent.
    pub fn close(self, sent: impl Fn(usize) -> u64) -> Result<Totals> {
        let totals = self.close_unordered(sent)?;
        if totals.reordered > 0 {
            bail!("deliveries failed: {} out of order: {totals:?}", totals.reordered);
        }
        Ok(totals)
    }

    /// Closes the books of what was published without an order, over several connections at once.
    ///
    /// # Errors
    /// Something was lost, or came that nobody sent.
    pub fn close_unordered(mut self, sent: impl Fn(usize) -> u64) -> Result<Totals> {
        self.totals.lost = self.holes.len() as u64;
        for (receiver, next) in self.next.iter().enumerate() {
            let Some(missing) = sent(receiver).checked_sub(*next) else {
                bail!("receiver {receiver} got more than was sent");
            };
            self.totals.lost += missing;
        }
        if self.totals.lost > 0 {
            bail!("deliveries failed: {} lost: {:?}", self.totals.lost, self.totals);
        }
        Ok(self.totals)
    }
}

impl Totals {
    /// Adds another account's.
    pub fn add(&mut self, more: Totals) {
        self.delivered += more.delivered;
        self.lost += more.lost;
        self.repeated += more.repeated;
        self.reordered += more.reordered;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(numbers: &[u64]) -> Account {
        let mut account = Account::new(2);
        for number in numbers {
            account.received(1, *number).unwrap();
        }
        account
    }

    #[test]
    fn in_order_once_is_well() {
        let totals = account(&[0, 1, 2]).close(|r| 3 * r as u64).unwrap();
        assert_eq!((totals.delivered, totals.repeated), (3, 0));
    }

    #[test]
    fn a_repeat_is_counted_and_allowed() {
        let totals = account(&[0, 1, 0, 1, 2]).close(|r| 3 * r as u64).unwrap();
        assert_eq!((totals.delivered, totals.repeated), (3, 2));
    }

    #[test]
    fn every_fault_fails_the_run() {
        let fails = |numbers: &[u64], sent: u64| account(numbers).close(|r| sent * r as u64).is_err();
        assert!(fails(&[0, 2], 3), "a hole");
        assert!(fails(&[0, 1], 3), "the end is missing");
        assert!(fails(&[0, 2, 1], 3), "out of order");
        assert!(fails(&[0, 1, 2, 3], 3), "never sent");
        assert!(fails(&[], 1), "nothing came");
        let unordered = account(&[0, 2, 1]).close_unordered(|r| 3 * r as u64).unwrap();
        assert_eq!((unordered.delivered, unordered.reordered), (3, 1));
    }
}
