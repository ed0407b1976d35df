//! A shard's part of presence: it knows its sessions and what they hear, and looks when the lingering of those who
//! left it is over.
//!
//! Invariant: those who hear a topic are looked at a slice in a turn. While a topic is watched, everyone who hears it
//! here is on its roll once the first look has been at all of them.

use super::*;
use crate::follows;
use crate::presence::{Heard, WhoHears};
use crate::roll::{Came, Now, Roll};
use foldhash::fast::FixedState;
use postrider_engine::PresentSession;
use postrider_model::Topic;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::BuildHasher;

/// Of those who hear a topic, so many are looked at in a turn.
const SLICE: usize = 256;
/// Those who left and are looked for in a turn.
const MAX_LOOKS: usize = 1024;

/// See the module.
#[derive(Default)]
pub(super) struct Presences {
    /// Who left a roll by this loop, and when to look whether they have come back. One for each user and roll, at
    /// most, over all loops.
    lingering: BinaryHeap<Reverse<Lingering>>,
    /// Feeds that nobody here hears any more, and when to look whether they can be let go; the first is due first.
    unheard: VecDeque<(Timestamp, FeedId)>,
    counts: VecDeque<Count>,
    /// Watched topics of which not all who hear them are on the roll.
    telling: VecDeque<Topic>,
}

struct Lingering {
    due: Timestamp,
    user: UserId,
    roll: Arc<Roll>,
}

impl PartialEq for Lingering {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}
impl Eq for Lingering {}
impl PartialOrd for Lingering {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Lingering {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.due.cmp(&other.due)
    }
}

/// A question that is being answered.
struct Count {
    asked: WhoHears,
    /// The next seat to look at.
    at: usize,
    heard: Heard,
}

impl Presences {
    /// Whether there is something to do in the next turn.
    pub fn is_busy(&self) -> bool {
        !self.counts.is_empty() || !self.telling.is_empty()
    }

    /// When to look for the next who left.
    pub fn next_at(&self) -> Option<Timestamp> {
        let lingering = self.lingering.peek().map(|Reverse(next)| next.due);
        let unheard = self.unheard.front().map(|(due, _)| *due);
        lingering.into_iter().chain(unheard).min()
    }
}

impl Shard {
    pub(super) fn roll_now(&self) -> Now {
        Now {
            steady: self.turn.now,
            wall: self.turn.wall,
        }
    }

    /// A session of this user ended.
    pub(super) fn session_ended(&mut self, user: &UserId) {
        let roll = self.shared.sessions.clone();
        self.leave_roll(roll, user);
    }

    /// A session of this user was counted, and does not begin.
    pub(super) fn session_refused(&mut self, user: &UserId, came: &Came) {
        let roll = self.shared.sessions.clone();
        let due = roll.take_back(user, came, self.roll_now());
        self.look_at(due, roll, user);
    }

    fn leave_roll(&mut self, roll: Arc<Roll>, user: &UserId) {
        let due = roll.release(user, self.roll_now());
        self.look_at(due, roll, user);
    }

    fn look_at(&mut self, due: Option<Timestamp>, roll: Arc<Roll>, user: &UserId) {
        if let Some(due) = due {
            let user = user.clone();
            let lingering = Lingering { due, user, roll };
            self.presences.lingering.push(Reverse(lingering));
        }
    }

    /// Looks for those whose lingering is over, and goes on with what was asked.
    pub(super) fn run_presence(&mut self) {
        for _ in 0..MAX_LOOKS {
            let is_due = |next: &Reverse<Lingering>| next.0.due <= self.turn.now;
            if !self.presences.lingering.peek().is_some_and(is_due) {
                break;
            }
            let Some(Reverse(left)) = self.presences.lingering.pop() else {
                break;
            };
            if let Some(due) = left.roll.look(&left.user, self.roll_now()) {
                self.presences.lingering.push(Reverse(Lingering { due, ..left }));
            }
        }
        if self.presences.lingering.is_empty() {
            // At rest it keeps no memory.
            self.presences.lingering = BinaryHeap::new();
        }
        self.let_go();
        if let Some(count) = self.presences.counts.pop_front() {
            self.count_on(count);
        }
        if let Some(topic) = self.presences.telling.pop_front() {
            self.tell_on(topic);
        }
        self.tell_rolls();
    }

    /// Lets feeds go that nobody hears any more.
    fn let_go(&mut self) {
        let due = self.turn.now.plus(follows::LINGER);
        let left = self.hearers.take_left();
        self.presences
            .unheard
            .extend(left.into_iter().map(|feed| (due, feed)));
        for _ in 0..MAX_LOOKS {
            let is_due = |next: &(Timestamp, FeedId)| next.0 <= self.turn.now;
            if !self.presences.unheard.front().is_some_and(is_due) {
                break;
            }
            if let Some((_, feed)) = self.presences.unheard.pop_front() {
                self.shared.follows.look(&feed);
            }
        }
        if self.presences.unheard.is_empty() {
            // At rest it keeps no memory.
            self.presences.unheard = VecDeque::new();
        }
    }

    /// What seats of watched topics were taken and left.
    pub(super) fn tell_rolls(&mut self) {
        for (roll, user, came) in self.hearers.take_news() {
            if !came {
                self.leave_roll(roll, &user);
            } else if let Some(came) = roll.take(&user) {
                roll.tell(&user, &came, self.roll_now());
            }
        }
    }

    /// The sessions of a user.
    pub(super) fn who_is(&self, user: &UserId) -> Vec<PresentSession> {
        let slots = self.hearers.slots_of(user);
        let stages = slots
            .iter()
            .filter_map(|slot| self.connections.get(*slot as usize));
        stages
            .filter_map(|connection| match &connection.stage {
                Stage::Live(live) => Some(PresentSession {
                    session: live.session.id().clone(),
                    transport: live.transport(),
                }),
                Stage::Opening(opening) => Some(PresentSession {
                    session: opening.asked.session.clone(),
                    transport: opening.wire.transport(),
                }),
                _ => None,
            })
            .collect()
    }

    /// Begins to answer who hears a topic.
    pub(super) fn count_hearers(&mut self, asked: WhoHears) {
        let count = Count {
            asked,
            at: 0,
            heard: Heard::default(),
        };
        self.presences.counts.push_back(count);
    }

    fn count_on(&mut self, mut count: Count) {
        if count.asked.reply.is_closed() {
            // Whoever asked has gone.
            return;
        }
        let Some((number, sessions, seats)) = self.hearers.extent(&count.asked.topic) else {
            return answer(count);
        };
        count.heard.sessions = sessions;
        let end = seats.min(count.at + SLICE);
        for seat in count.at..end {
            if let Some((slot, user)) = self.sitter(number, seat)
                && self.is_first(slot, &user, number)
            {
                self.count_user(&mut count, &user);
            }
        }
        count.at = end;
        if end < seats {
            self.presences.counts.push_back(count);
        } else {
            answer(count);
        }
    }

    fn count_user(&self, count: &mut Count, user: &UserId) {
        let here = self.who_is(user).len();
        let elsewhere = self
            .shared
            .sessions
            .sessions_of(user)
            .is_some_and(|all| all > here);
        if count.asked.marks {
            count.heard.marks.add(user);
        }
        match elsewhere {
            true => count.heard.shared.push(FixedState::default().hash_one(user)),
            false => count.heard.users += 1,
        }
        if count.asked.after.as_ref().is_none_or(|after| user > after) {
            count.heard.name(user, count.asked.limit);
        }
    }

    /// Who has this seat with a session.
    fn sitter(&self, ring: usize, seat: usize) -> Option<(usize, UserId)> {
        let slot = self.hearers.sitter(ring, seat)?;
        match &self.connections.get(slot)?.stage {
            Stage::Live(live) => Some((slot, live.session.user().clone())),
            Stage::Opening(opening) => Some((slot, opening.asked.user.clone())),
            _ => None,
        }
    }

    /// Whether of the user's sessions that hear a topic this is the first.
    fn is_first(&self, slot: usize, user: &UserId, ring: usize) -> bool {
        let slots = self.hearers.slots_of(user);
        let before = slots
            .iter()
            .map(|slot| *slot as usize)
            .filter(|other| *other < slot);
        let mut before = before.filter_map(|other| self.connections.get(other));
        !before.any(|connection| {
            let has_session = matches!(connection.stage, Stage::Live(_) | Stage::Opening(_));
            has_session && connection.seats.has(ring)
        })
    }

    /// Watches a topic, or stops watching it.
    pub(super) fn watched(&mut self, topic: Topic, roll: Option<Arc<Roll>>) {
        let is_begun = roll.is_some();
        self.hearers.watch(&topic, roll);
        if is_begun {
            self.presences.telling.push_back(topic);
        }
    }

    /// Puts the next of those who hear a watched topic on its roll.
    fn tell_on(&mut self, topic: Topic) {
        // What was taken and left up to now comes first.
        self.tell_rolls();
        let Some((ring, seats)) = self.hearers.untold(&topic, SLICE) else {
            return;
        };
        for seat in seats {
            if let Some((_, user)) = self.sitter(ring, seat) {
                self.hearers.sits(ring, &user);
            }
        }
        self.presences.telling.push_back(topic);
    }
}

fn answer(count: Count) {
    if count.asked.reply.send(count.heard).is_err() {
        tracing::trace!("whoever asked had gone before the answer");
    }
}
