//! Which feeds' channels should be subscribed to, and which are.
//!
//! What is to be said to the server is said in turns, one after another, each with a number. A feed remembers the turn that
//! asked for its channel: once that turn is confirmed the channel is heard, whatever later turns are about.
//!
//! Invariant: a channel is left only after the linger, and only if nobody has come back by then; what was lost with a
//! connection is asked for again; a feed that nobody wants any more takes no room, also while there is no connection. Pure:
//! the time comes in.

use postrider_model::{FeedId, Millis, Timestamp};
use std::collections::{BTreeSet, HashMap};

/// See the module.
#[derive(Debug)]
pub(super) struct Interests {
    linger: Millis,
    feeds: HashMap<FeedId, Interest>,
    /// Feeds that may have to be subscribed to.
    come: Vec<FeedId>,
    /// Feeds that are to be left, and when: those that have a `leave_at`, each once.
    leaving: BTreeSet<(Timestamp, FeedId)>,
    /// The last turn that began.
    turn: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Interest {
    /// Nobody hears it any more, and it is left then.
    leave_at: Option<Timestamp>,
    /// The turn that subscribes to it.
    asked_in: Option<u64>,
}

/// What is to be said to the server, in one turn. No feed is in both.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub subscribe: Vec<FeedId>,
    pub unsubscribe: Vec<FeedId>,
    /// The number of the turn.
    pub turn: u64,
}

impl Interests {
    pub fn new(linger: Millis) -> Interests {
        Interests {
            linger,
            feeds: HashMap::new(),
            come: Vec::new(),
            leaving: BTreeSet::new(),
            turn: 0,
        }
    }

    /// A session hears this feed.
    pub fn follow(&mut self, feed: &FeedId) {
        self.leave_at(feed, None);
    }

    /// No session hears it any more.
    pub fn unfollow(&mut self, feed: &FeedId, now: Timestamp) {
        if self.feeds.contains_key(feed) {
            self.leave_at(feed, Some(now.plus(self.linger)));
        }
    }

    /// Somebody is about to hear it: it is subscribed to for so long, at least.
    pub fn expect(&mut self, feed: &FeedId, now: Timestamp, time: Millis) {
        let until = now.plus(time);
        let is_wanted = |interest: &Interest| interest.leave_at.is_none_or(|at| at >= until);
        if !self.feeds.get(feed).is_some_and(is_wanted) {
            self.leave_at(feed, Some(until));
        }
    }

    fn leave_at(&mut self, feed: &FeedId, at: Option<Timestamp>) {
        let is_new = !self.feeds.contains_key(feed);
        let interest = self.feeds.entry(feed.clone()).or_default();
        if let Some(earlier) = std::mem::replace(&mut interest.leave_at, at) {
            self.leaving.remove(&(earlier, feed.clone()));
        }
        self.leaving.extend(at.map(|at| (at, feed.clone())));
        if is_new {
            self.come.push(feed.clone());
        }
    }

    /// The turn that subscribes to its channel, if one has begun.
    pub fn asked_in(&self, feed: &FeedId) -> Option<u64> {
        self.feeds.get(feed)?.asked_in
    }

    /// What to say now, at most so much, in a turn of its own; `None` where there is nothing. Counts as said: where that
    /// fails, [`Interests::lost`].
    pub fn take(&mut self, now: Timestamp, most: usize) -> Option<Changes> {
        let mut changes = Changes {
            unsubscribe: self.leave(now, most),
            turn: self.turn + 1,
            ..Changes::default()
        };
        while changes.subscribe.len() < most {
            let Some(feed) = self.come.pop() else { break };
            let interest = self.feeds.get_mut(&feed);
            let Some(interest) = interest.filter(|interest| interest.asked_in.is_none()) else {
                continue;
            };
            interest.asked_in = Some(changes.turn);
            changes.subscribe.push(feed);
        }
        if changes.subscribe.is_empty() && changes.unsubscribe.is_empty() {
            return None;
        }
        self.turn = changes.turn;
        Some(changes)
    }

    /// Forgets feeds that are due, until so many of them were subscribed to, which it gives.
    fn leave(&mut self, now: Timestamp, most: usize) -> Vec<FeedId> {
        let mut left = Vec::new();
        while left.len() < most && self.next_leave().is_some_and(|at| at <= now) {
            let Some((_, feed)) = self.leaving.pop_first() else {
                break;
            };
            let was = self.feeds.remove(&feed);
            left.extend(was.and_then(|was| was.asked_in).map(|_| feed));
        }
        left
    }

    /// When something is to be left next.
    pub fn next_leave(&self) -> Option<Timestamp> {
        self.leaving.first().map(|(at, _)| *at)
    }

    /// Whether there is something to say at once.
    pub fn is_due(&self, now: Timestamp) -> bool {
        !self.come.is_empty() || self.next_leave().is_some_and(|at| at <= now)
    }

    /// The connection is gone, and all subscriptions with it.
    pub fn lost(&mut self, now: Timestamp) {
        self.leave(now, usize::MAX);
        for interest in self.feeds.values_mut() {
            interest.asked_in = None;
        }
        self.come = self.feeds.keys().cloned().collect();
    }

    /// Feeds whose channels are wanted.
    pub fn count(&self) -> usize {
        self.feeds.len()
    }

    /// Feeds that are to be subscribed to.
    pub fn coming(&self) -> usize {
        self.come.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_model::UserId;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn feed(n: u64) -> FeedId {
        FeedId::User(UserId::new(&format!("u{n}")).unwrap())
    }

    fn subscribed(interests: &mut Interests, now: u64) -> Vec<FeedId> {
        interests.take(Timestamp(now), 9).unwrap_or_default().subscribe
    }

    #[test]
    fn one_who_comes_back_within_the_linger_is_not_left() {
        let mut interests = Interests::new(Millis(10));
        interests.follow(&feed(1));
        assert_eq!(subscribed(&mut interests, 0), [feed(1)]);
        interests.unfollow(&feed(1), Timestamp(0));
        interests.follow(&feed(1));
        assert_eq!(interests.take(Timestamp(10), 9), None);
        interests.unfollow(&feed(1), Timestamp(10));
        assert_eq!(interests.take(Timestamp(19), 9), None);
        let changes = interests.take(Timestamp(20), 9).unwrap();
        assert_eq!((changes.unsubscribe, changes.turn), (vec![feed(1)], 2));
        assert_eq!(interests.count(), 0);
    }

    #[test]
    fn one_who_is_expected_is_heard_for_that_long_whatever_the_linger() {
        let mut interests = Interests::new(Millis(0));
        interests.expect(&feed(1), Timestamp(0), Millis(10));
        interests.expect(&feed(1), Timestamp(1), Millis(5));
        assert_eq!(subscribed(&mut interests, 1), [feed(1)]);
        assert_eq!(interests.next_leave(), Some(Timestamp(10)));
        interests.follow(&feed(1));
        interests.expect(&feed(1), Timestamp(5), Millis(10));
        assert_eq!(interests.take(Timestamp(99), 9), None);
        assert_eq!(interests.asked_in(&feed(1)), Some(1));
    }

    #[test]
    fn a_feed_keeps_the_turn_that_asked_for_it() {
        let mut interests = Interests::new(Millis(0));
        for n in 1..4 {
            interests.follow(&feed(n));
            assert_eq!(subscribed(&mut interests, 0), [feed(n)]);
        }
        let turns: Vec<_> = (0..4).map(|n| interests.asked_in(&feed(n))).collect();
        assert_eq!(turns, [None, Some(1), Some(2), Some(3)]);
    }

    #[test]
    fn who_came_and_went_while_there_was_no_connection_takes_no_room() {
        let mut interests = Interests::new(Millis(10));
        for n in 0..1_000 {
            interests.follow(&feed(n));
            interests.unfollow(&feed(n), Timestamp(n));
            interests.lost(Timestamp(n));
        }
        assert!(interests.count() <= 10 && interests.coming() <= 10 && interests.leaving.len() <= 10);
    }

    proptest! {
        /// What the server was told is, once all is said, what is followed; also when connections are lost.
        #[test]
        fn the_server_is_told_what_is_followed(steps in proptest::collection::vec((0u8..5, 0u64..4, 0u64..8), 0..200)) {
            let mut interests = Interests::new(Millis(5));
            let (mut followed, mut told, mut now, mut turn) = (HashSet::new(), HashSet::new(), 0, 0);
            for (step, n, pass) in steps {
                now += pass;
                match step {
                    0 if followed.insert(feed(n)) => interests.follow(&feed(n)),
                    1 if followed.remove(&feed(n)) => interests.unfollow(&feed(n), Timestamp(now)),
                    2 => { interests.lost(Timestamp(now)); told.clear(); }
                    3 => interests.expect(&feed(n), Timestamp(now), Millis(pass)),
                    _ => if let Some(changes) = interests.take(Timestamp(now), n as usize + 1) {
                        prop_assert_eq!(changes.turn, turn + 1);
                        turn = changes.turn;
                        for feed in changes.unsubscribe { prop_assert!(told.remove(&feed)); }
                        for feed in changes.subscribe { prop_assert!(told.insert(feed)); }
                    }
                }
                prop_assert!((0..4).all(|n| interests.asked_in(&feed(n)).is_some() == told.contains(&feed(n))));
                prop_assert!(interests.leaving.len() + followed.len() == interests.count());
            }
            now += 100;
            while let Some(changes) = interests.take(Timestamp(now), 100) {
                for feed in changes.unsubscribe { prop_assert!(told.remove(&feed)); }
                for feed in changes.subscribe { prop_assert!(told.insert(feed)); }
            }
            prop_assert_eq!(told, followed);
            prop_assert!(interests.next_leave().is_none() && !interests.is_due(Timestamp(now)));
        }
    }
}
