//! What is kept by name, up to so many bytes. What nobody used for longest goes first: there are two
//! generations; when the young one is full it becomes the old one, and what was the old one is forgotten.
//!
//! Invariant: the bytes of both generations together stay below the bound, but for the one that was put last.

use foldhash::fast::RandomState;
use foldhash::{HashMap, HashMapExt};
use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a name costs beyond its letters: its place in the map, and the text's own header.
const NAME_OVERHEAD: usize = 48;

/// What something takes in memory, about.
pub(super) trait Cost {
    /// In bytes.
    fn cost(&self) -> usize;
}

/// What becomes of a slot that was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Keep,
    Drop,
}

pub(super) struct Slots<K, V> {
    stripes: Box<[Mutex<Stripe<K, V>>]>,
    hashing: RandomState,
    /// Bytes of one generation of a stripe.
    bound: usize,
}

struct Stripe<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    /// Bytes of the young.
    bytes: usize,
}

impl<K: Borrow<str> + Eq + Hash, V: Cost> Slots<K, V> {
    /// Holds up to so many bytes, in so many parts with a lock each, so that loops do not wait for each other. One
    /// generation of a part should hold several values.
    pub fn new(bytes: usize, stripes: usize) -> Slots<K, V> {
        let stripe = || {
            Mutex::new(Stripe {
                young: HashMap::new(),
                old: HashMap::new(),
                bytes: 0,
            })
        };
        Slots {
            stripes: (0..stripes).map(|_| stripe()).collect(),
            hashing: RandomState::default(),
            bound: bytes / stripes / 2,
        }
    }

    /// A number that tells names apart, most of the time.
    pub fn hash(&self, name: &str) -> u64 {
        self.hashing.hash_one(name)
    }

    /// Looks at what is kept under a name, if anything is. `used`: it is needed, and so becomes young again.
    pub fn look<R>(&self, name: &str, used: bool, look: impl FnOnce(&mut V) -> (Fate, R)) -> Option<R> {
        let mut stripe = self.stripe(name);
        let Stripe { young, old, bytes } = &mut *stripe;
        let is_young = young.contains_key(name);
        if !is_young && used {
            let (key, value) = old.remove_entry(name)?;
            *bytes += value.cost() + name.len() + NAME_OVERHEAD;
            young.insert(key, value);
        }
        let is_young = is_young || used;
        let map = if is_young { young } else { old };
        let value = map.get_mut(name)?;
        let before = value.cost();
        let (fate, result) = look(value);
        if is_young {
            *bytes = (*bytes + value.cost()).saturating_sub(before);
        }
        if fate == Fate::Drop
            && let Some(value) = map.remove(name)
            && is_young
        {
            *bytes = bytes.saturating_sub(value.cost() + name.len() + NAME_OVERHEAD);
        }
        stripe.bound(self.bound);
        Some(result)
    }

    /// Keeps this under a name that has nothing; false where it has.
    pub fn add(&self, key: K, value: V) -> bool {
        let mut stripe = self.stripe(key.borrow());
        if stripe.young.contains_key(key.borrow()) || stripe.old.contains_key(key.borrow()) {
            return false;
        }
        stripe.bytes += value.cost() + key.borrow().len() + NAME_OVERHEAD;
        stripe.young.insert(key, value);
        stripe.bound(self.bound);
        true
    }

    fn stripe(&self, name: &str) -> MutexGuard<'_, Stripe<K, V>> {
        let at = self.hash(name) as usize % self.stripes.len();
        self.stripes[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, V> Stripe<K, V> {
    fn bound(&mut self, most: usize) {
        if self.bytes > most {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRIPES: usize = 64;

    impl Cost for usize {
        fn cost(&self) -> usize {
            *self
        }
    }

    fn held(slots: &Slots<String, usize>, name: &str) -> Option<usize> {
        slots.look(name, false, |value| (Fate::Keep, *value))
    }

    #[test]
    fn what_is_used_stays_and_the_rest_is_forgotten() {
        let slots = Slots::<String, usize>::new(STRIPES * 2 * 10_000, STRIPES);
        assert!(slots.add("used".into(), 100));
        assert!(!slots.add("used".into(), 7), "it is there");
        for n in 0..STRIPES * 1000 {
            slots.add(format!("n{n}"), 200);
            assert_eq!(slots.look("used", true, |value| (Fate::Keep, *value)), Some(100));
        }
        let names = (0..STRIPES * 1000).map(|n| format!("n{n}"));
        let kept: usize = names.filter_map(|name| held(&slots, &name)).sum();
        assert!(kept > 0 && kept < STRIPES * 2 * 10_000, "{kept} bytes are held");
    }

    #[test]
    fn what_grows_counts_and_what_is_dropped_is_gone() {
        let slots = Slots::<String, usize>::new(STRIPES * 2 * 1000, STRIPES);
        assert!(slots.add("a".into(), 1));
        assert_eq!(slots.look("a", true, |value| (Fate::Drop, *value)), Some(1));
        assert_eq!(held(&slots, "a"), None);
        assert!(slots.add("a".into(), 1));
        for _ in 0..2 {
            // Larger than a generation: it makes the next one begin.
            slots.look("a", true, |value| {
                *value = 5000;
                (Fate::Keep, ())
            });
        }
        assert_eq!(
            held(&slots, "a"),
            Some(5000),
            "the one that was put last stays for a while"
        );
        for n in 0..STRIPES * 100 {
            slots.add(format!("n{n}"), 100);
        }
        assert_eq!(held(&slots, "a"), None);
    }
}
