//! The room that bodies under way have together, so that many clients cannot fill the memory with what each alone may
//! send, or leave in it by not taking its answers.
//!
//! Invariant: what is left and what is held make the whole. A [`Room`] gives back what it holds when it goes.
//!
//! It never waits: who finds no room is refused at once, and those who hold some can go on to their end. The first
//! bytes of a body are free, so that small requests pass whatever large ones are under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What of each body needs no room: most bodies whole. How many there are is bounded by the connections and requests.
pub const FREE_BYTES: usize = 64 * 1024;

/// The room of some kind of bodies.
#[derive(Debug)]
pub struct Bodies {
    left: AtomicUsize,
}

impl Bodies {
    /// Room for so many bytes.
    pub fn new(bytes: usize) -> Arc<Bodies> {
        Arc::new(Bodies {
            left: AtomicUsize::new(bytes),
        })
    }

    /// A body that is about to come.
    pub fn room(self: &Arc<Self>) -> Room {
        Room {
            bodies: self.clone(),
            held: 0,
        }
    }
}

/// One body's part of it.
#[derive(Debug)]
pub struct Room {
    bodies: Arc<Bodies>,
    held: usize,
}

impl Room {
    /// From now on this body takes `bytes` of memory in all, which may be less than before. False where there is
    /// no room for more; then nothing has changed.
    pub fn hold(&mut self, bytes: usize) -> bool {
        let wanted = bytes.saturating_sub(FREE_BYTES);
        if wanted > self.held {
            let more = wanted - self.held;
            let take = |left: usize| left.checked_sub(more);
            let taken = (self.bodies.left).fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
            if taken.is_err() {
                return false;
            }
        } else {
            self.bodies.left.fetch_add(self.held - wanted, Ordering::Relaxed);
        }
        self.held = wanted;
        true
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.bodies.left.fetch_add(self.held, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_missing_until_it_is_given_back() {
        let bodies = Bodies::new(100);
        let (mut first, mut second) = (bodies.room(), bodies.room());
        assert!(first.hold(FREE_BYTES + 60));
        assert!(second.hold(FREE_BYTES + 40), "to the last byte");
        assert!(!second.hold(FREE_BYTES + 41));
        assert!(first.hold(FREE_BYTES + 59));
        assert!(second.hold(FREE_BYTES + 41), "what was refused took nothing");
        drop(first);
        assert!(second.hold(FREE_BYTES + 100));
        drop(second);
        assert_eq!(bodies.left.load(Ordering::Relaxed), 100);
    }

    #[test]
    fn small_bodies_need_no_room() {
        let bodies = Bodies::new(0);
        let mut room = bodies.room();
        assert!(room.hold(FREE_BYTES));
        assert!(!room.hold(FREE_BYTES + 1));
    }
}
