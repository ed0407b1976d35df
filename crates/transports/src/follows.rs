//! Which feeds are heard on this node, for those who bring only what is heard: an engine that many nodes share, a
//! source that is subscribed to channels.
//!
//! Each loop says when its first session hears a feed, and when its last one no longer does. A feed that nobody hears
//! any more is let go a while later: a client that polls, or reconnects, is away again and again for a moment. Who has
//! a while of its own for that is told at once.
//!
//! Invariant: who listens is told of a feed before anything is asked of the engine about it, and of one feed in order:
//! follow, unfollow, follow. Everyone's feed is followed always. Where nobody listens, nothing is counted.

use crate::outside::Follow;
use foldhash::fast::FixedState;
use postrider_model::{FeedId, Millis};
use std::collections::hash_map::Entry;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// The feeds are counted in so many parts, which are locked one at a time.
const PARTS: usize = 64;
/// A feed is followed for so long after the last session that heard it: longer than a browser waits before it comes back.
pub(crate) const LINGER: Millis = Millis(3_000);

/// See the module.
#[derive(Default)]
pub(crate) struct Follows {
    listeners: RwLock<Vec<Listener>>,
    is_on: AtomicBool,
    parts: Parts,
}

struct Listener {
    told: Arc<dyn Follow>,
    lets_go: LetsGo,
}

/// When a listener is told that nobody hears a feed any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LetsGo {
    /// At once: it keeps the feed for a while by itself.
    AtOnce,
    /// After [`LINGER`].
    Later,
}

struct Parts(Box<[Mutex<Part>]>);

impl Default for Parts {
    fn default() -> Parts {
        Parts((0..PARTS).map(|_| Mutex::default()).collect())
    }
}

type Part = foldhash::HashMap<FeedId, Heard>;

/// What is known of a feed that is followed.
struct Heard {
    /// The loops in which somebody hears it.
    loops: u32,
    /// A loop will look whether it is to be let go.
    is_watched: bool,
}

impl Follows {
    /// One more is told, from now on. To be called before there are sessions.
    pub fn add(&self, told: Arc<dyn Follow>, lets_go: LetsGo) {
        told.follow(&FeedId::All);
        let mut listeners = self.listeners.write().unwrap_or_else(PoisonError::into_inner);
        listeners.push(Listener { told, lets_go });
        self.is_on.store(true, Ordering::Release);
    }

    /// Whether anybody listens.
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Acquire)
    }

    fn part(&self, feed: &FeedId) -> MutexGuard<'_, Part> {
        let nth = FixedState::default().hash_one(feed) as usize % PARTS;
        self.parts.0[nth].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, whom: LetsGo, tell: impl Fn(&dyn Follow)) {
        let listeners = self.listeners.read().unwrap_or_else(PoisonError::into_inner);
        let told = listeners.iter().filter(|listener| listener.lets_go == whom);
        told.for_each(|listener| tell(&*listener.told));
    }

    /// In one loop more this feed is heard.
    pub fn hear(&self, feed: &FeedId) {
        if !self.is_on() || *feed == FeedId::All {
            return;
        }
        let mut part = self.part(feed);
        // They are told under the lock: of one feed in order.
        let is_first = match part.entry(feed.clone()) {
            Entry::Occupied(mut heard) => {
                heard.get_mut().loops += 1;
                heard.get().loops == 1
            }
            Entry::Vacant(vacant) => {
                vacant.insert(Heard {
                    loops: 1,
                    is_watched: false,
                });
                self.tell(LetsGo::Later, |listener| listener.follow(feed));
                true
            }
        };
        if is_first {
            self.tell(LetsGo::AtOnce, |listener| listener.follow(feed));
        }
    }

    /// In one loop less. Says whether the caller is to [`Follows::look`], after [`LINGER`].
    pub fn leave(&self, feed: &FeedId) -> bool {
        if !self.is_on() {
            return false;
        }
        let mut part = self.part(feed);
        let Some(heard) = part.get_mut(feed) else {
            return false;
        };
        let was_heard = heard.loops > 0;
        heard.loops = heard.loops.saturating_sub(1);
        if heard.loops > 0 {
            return false;
        }
        let is_to_look = !std::mem::replace(&mut heard.is_watched, true);
        if was_heard {
            self.tell(LetsGo::AtOnce, |listener| listener.unfollow(feed));
        }
        is_to_look
    }

    /// Lets a feed go that nobody hears.
    pub fn look(&self, feed: &FeedId) {
        let mut part = self.part(feed);
        let Some(heard) = part.get_mut(feed) else {
            return;
        };
        heard.is_watched = false;
        if heard.loops == 0 {
            part.remove(feed);
            self.tell(LetsGo::Later, |listener| listener.unfollow(feed));
        }
    }

    /// Feeds that are followed.
    pub fn count(&self) -> u64 {
        let parts = self.parts.0.iter();
        let counts = parts.map(|part| part.lock().unwrap_or_else(PoisonError::into_inner).len());
        counts.sum::<usize>() as u64 + u64::from(self.is_on())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_model::UserId;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[derive(Default)]
    struct Heads(Mutex<BTreeSet<String>>);

    impl Follow for Heads {
        fn follow(&self, feed: &FeedId) {
            let is_new = self.0.lock().unwrap().insert(feed.to_string());
            assert!(is_new, "{feed} is followed twice");
        }
        fn unfollow(&self, feed: &FeedId) {
            let was_there = self.0.lock().unwrap().remove(&feed.to_string());
            assert!(was_there, "{feed} was not followed");
        }
    }

    fn feed(n: usize) -> FeedId {
        FeedId::User(UserId::new(&format!("u{n}")).unwrap())
    }

    proptest! {
        /// What is heard is followed; what nobody heard when it was looked at last is not; each is looked for once. Who is
        /// told at once follows what is heard, and nothing else.
        #[test]
        fn what_is_heard_is_followed(steps in proptest::collection::vec((0usize..3, 0u8..3), 0..60)) {
            let (follows, heads, prompt) = (Follows::default(), Arc::<Heads>::default(), Arc::<Heads>::default());
            follows.add(heads.clone(), LetsGo::Later);
            follows.add(prompt.clone(), LetsGo::AtOnce);
            let (mut loops, mut looks) = ([0; 3], Vec::new());
            for (nth, step) in steps {
                match step {
                    0 => {
                        follows.hear(&feed(nth));
                        loops[nth] += 1;
                    }
                    1 if loops[nth] > 0 => {
                        loops[nth] -= 1;
                        if follows.leave(&feed(nth)) {
                            prop_assert!(!looks.contains(&nth), "looked for twice");
                            looks.push(nth);
                        }
                    }
                    _ => if let Some(nth) = looks.pop() {
                        follows.look(&feed(nth));
                        let is_followed = heads.0.lock().unwrap().contains(&feed(nth).to_string());
                        prop_assert_eq!(is_followed, loops[nth] > 0);
                    }
                }
                for (nth, loops) in loops.iter().enumerate() {
                    let is_followed = heads.0.lock().unwrap().contains(&feed(nth).to_string());
                    prop_assert!(*loops == 0 || is_followed);
                    prop_assert!(*loops > 0 || !is_followed || looks.contains(&nth));
                    let is_followed = prompt.0.lock().unwrap().contains(&feed(nth).to_string());
                    prop_assert_eq!(is_followed, *loops > 0);
                }
            }
            prop_assert!(heads.0.lock().unwrap().contains(&FeedId::All.to_string()));
        }
    }

    #[test]
    fn where_nobody_listens_nothing_is_counted() {
        let follows = Follows::default();
        follows.hear(&feed(1));
        assert!(!follows.leave(&feed(1)));
        assert_eq!(follows.count(), 0);
    }
}
