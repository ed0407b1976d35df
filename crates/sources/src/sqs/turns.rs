//! Whose queue is polled next, and for how long.
//!
//! While there are connections enough, every user's queue is polled without a pause, each poll as long as SQS holds it.
//! Above that the queues take turns, with polls of [`TURN`]: a message waits for at most `users / connections` of these.
//!
//! A poll asks for one message. Where the user's last poll brought all it asked for, more may wait, and the next asks for
//! more, while there is room for that; it waits for no longer than [`TURN`], so that no room is kept by who has nothing.
//!
//! Every user has room for one message that is not settled. Beyond that all share `shared_most`, of which nobody has more
//! than a [fair](FAIR) part of what is left, and `unsettled_most` at most: the more is taken by those whose clients take
//! nothing, the less each of them gets, and something is always left for the others.
//!
//! Invariant: no queue is polled twice at a time, and at most `most` are polled at all; who left is polled no more after the
//! linger; a queue that failed waits, and nobody waits for it. Polls under way bring at most `most` messages and
//! [`EXTRA_MOST`] together; what is not settled is at most one of each user and `shared_most` together, and no poll asks for
//! more than there is room for. Pure: time comes in.

use postrider_model::{Millis, Timestamp, UserId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

/// A poll's wait where queues take turns. With less SQS would ask only some of its servers, and miss messages.
const TURN: Duration = Duration::from_secs(1);

/// Messages that all polls under way may ask for beyond the one of each. A message of SQS has at most 1 MiB, so these are at
/// most 64 MiB. A poll that would be over asks for one.
const EXTRA_MOST: usize = 64;

/// Of the room that is left to all, nobody has more than one part in so many. `n` who take nothing leave `1 / (1 + n / 4)` of it.
const FAIR: usize = 4;

/// See the module.
#[derive(Debug)]
pub(super) struct Turns {
    most: usize,
    wait: Duration,
    linger: Millis,
    unsettled_most: usize,
    shared_most: usize,
    users: HashMap<UserId, Turn>,
    /// Who can be polled, the next one first.
    ready: BTreeMap<i64, UserId>,
    first: i64,
    last: i64,
    /// Whose queue failed, and until when it is left alone.
    later: BTreeSet<(Timestamp, UserId)>,
    /// Who has no session any more, and when polling ends.
    leaving: BTreeSet<(Timestamp, UserId)>,
    polling: usize,
    /// Messages asked for beyond the one of each poll.
    extra: usize,
    /// Messages that are not settled, of whom there are some; also of those who have left.
    unsettled: HashMap<UserId, usize>,
    /// Of them those beyond the first of each; and room for those that polls under way may bring.
    shared: usize,
    reserved: usize,
    /// Users whose last poll failed.
    failing: usize,
}

/// Whose queue is to be polled, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Next {
    pub user: UserId,
    pub wait: Duration,
    /// For so many messages.
    pub most: usize,
}

#[derive(Debug)]
struct Turn {
    stands: Stands,
    leave_at: Option<Timestamp>,
    failures: u32,
    /// The poll under way asks for so many, and has room for so many in what is shared.
    asked: usize,
    reserved: usize,
    /// The last one brought all it asked for.
    was_full: bool,
}

#[derive(Debug, Clone, Copy)]
enum Stands {
    Ready(i64),
    Polled,
    Later(Timestamp),
    /// Too many of his messages are not settled: he waits until one of them is.
    Full,
}

impl Turns {
    pub fn new(
        most: usize,
        wait: Duration,
        linger: Millis,
        unsettled_most: usize,
        shared_most: usize,
    ) -> Turns {
        Turns {
            most: most.max(1),
            wait,
            linger,
            unsettled_most: unsettled_most.max(1),
            shared_most,
            users: HashMap::new(),
            ready: BTreeMap::new(),
            first: 0,
            last: 0,
            later: BTreeSet::new(),
            leaving: BTreeSet::new(),
            polling: 0,
            extra: 0,
            unsettled: HashMap::new(),
            shared: 0,
            reserved: 0,
            failing: 0,
        }
    }

    /// A session of this user is here. Who is new goes before all others: much may wait for him.
    pub fn follow(&mut self, user: &UserId) {
        if let Some(turn) = self.users.get_mut(user) {
            if let Some(at) = turn.leave_at.take() {
                self.leaving.remove(&(at, user.clone()));
            }
            return;
        }
        let stands = if self.is_full(user) {
            Stands::Full
        } else {
            self.first -= 1;
            self.ready.insert(self.first, user.clone());
            Stands::Ready(self.first)
        };
        let turn = Turn {
            stands,
            leave_at: None,
            failures: 0,
            asked: 0,
            reserved: 0,
            was_full: false,
        };
        self.users.insert(user.clone(), turn);
    }

    /// The last session of this user has gone.
    pub fn unfollow(&mut self, user: &UserId, now: Timestamp) {
        if let Some(turn) = self.users.get_mut(user)
            && turn.leave_at.is_none()
        {
            let at = now.plus(self.linger);
            turn.leave_at = Some(at);
            self.leaving.insert((at, user.clone()));
        }
    }

    /// Lets go of who has left, and takes up what has waited long enough.
    pub fn tick(&mut self, now: Timestamp) {
        while let Some((_, user)) = first_until(&mut self.leaving, now) {
            match self.users.get(&user).map(|turn| turn.stands) {
                // Once its poll has ended.
                Some(Stands::Polled) | None => {}
                Some(Stands::Ready(place)) => {
                    self.ready.remove(&place);
                    self.let_go(&user);
                }
                Some(Stands::Later(until)) => {
                    self.later.remove(&(until, user.clone()));
                    self.let_go(&user);
                }
                Some(Stands::Full) => self.let_go(&user),
            }
        }
        while let Some((_, user)) = first_until(&mut self.later, now) {
            self.queue_up(&user);
        }
    }

    fn let_go(&mut self, user: &UserId) {
        if let Some(turn) = self.users.remove(user) {
            self.failing -= usize::from(turn.failures > 0);
        }
    }

    fn is_full(&self, user: &UserId) -> bool {
        self.room_of(user) == 0
    }

    /// How many messages more this user may have.
    fn room_of(&self, user: &UserId) -> usize {
        let left = self.shared_most.saturating_sub(self.shared + self.reserved);
        let may_have = (1 + left / FAIR).min(self.unsettled_most);
        may_have.saturating_sub(self.unsettled_of(user))
    }

    fn unsettled_of(&self, user: &UserId) -> usize {
        self.unsettled.get(user).copied().unwrap_or(0)
    }

    fn queue_up(&mut self, user: &UserId) {
        let is_full = self.is_full(user);
        if let Some(turn) = self.users.get_mut(user) {
            if is_full {
                turn.stands = Stands::Full;
                return;
            }
            self.last += 1;
            turn.stands = Stands::Ready(self.last);
            self.ready.insert(self.last, user.clone());
        }
    }

    /// The next one to be polled, for at most `batch` messages.
    pub fn next(&mut self, batch: usize) -> Option<Next> {
        if self.polling >= self.most {
            return None;
        }
        let user = self.first_with_room()?;
        let may_be_long = self.users.len() <= self.most;
        let is_first = self.unsettled_of(&user) == 0;
        let room = (1 + EXTRA_MOST - self.extra).min(self.room_of(&user));
        let turn = self.users.get_mut(&user)?;
        turn.stands = Stands::Polled;
        turn.asked = match turn.was_full {
            true => batch.min(room).max(1),
            false => 1,
        };
        let most = turn.asked;
        turn.reserved = most - usize::from(is_first);
        self.reserved += turn.reserved;
        self.extra += most - 1;
        self.polling += 1;
        let wait = match may_be_long && most == 1 {
            true => self.wait,
            false => self.wait.min(TURN),
        };
        Some(Next { user, wait, most })
    }

    /// Takes the first of the queue; whose room has gone meanwhile waits for more.
    fn first_with_room(&mut self) -> Option<UserId> {
        loop {
            let (_, user) = self.ready.pop_first()?;
            if !self.is_full(&user) {
                return Some(user);
            }
            if let Some(turn) = self.users.get_mut(&user) {
                turn.stands = Stands::Full;
            }
        }
    }

    /// A poll has ended well, and brought so many messages. Whether the user is still here; then they are to be
    /// [settled](Turns::settled), each.
    pub fn done(&mut self, user: &UserId, now: Timestamp, brought: usize) -> bool {
        let is_here = self.ended(user, now);
        if is_here {
            if let Some(turn) = self.users.get_mut(user) {
                self.failing -= usize::from(turn.failures > 0);
                turn.failures = 0;
                turn.was_full = brought >= turn.asked;
            }
            if brought > 0 {
                let unsettled = self.unsettled.entry(user.clone()).or_default();
                self.shared += brought - usize::from(*unsettled == 0);
                *unsettled += brought;
            }
            self.queue_up(user);
        }
        is_here
    }

    /// One message of this user is nobody's any more.
    pub fn settled(&mut self, user: &UserId) {
        let Some(unsettled) = self.unsettled.get_mut(user) else {
            return;
        };
        *unsettled -= 1;
        if *unsettled == 0 {
            self.unsettled.remove(user);
        } else {
            self.shared -= 1;
        }
        let stands = self.users.get(user).map(|turn| turn.stands);
        if matches!(stands, Some(Stands::Full)) && !self.is_full(user) {
            self.queue_up(user);
        }
    }

    /// Whether there are users, and each one's last poll failed.
    pub fn all_fail(&self) -> bool {
        !self.users.is_empty() && self.failing == self.users.len()
    }

    /// A poll has failed: the queue is left alone for what `pause` says of the failures in a row.
    pub fn failed(&mut self, user: &UserId, now: Timestamp, pause: impl FnOnce(u32) -> Millis) {
        if !self.ended(user, now) {
            return;
        }
        if let Some(turn) = self.users.get_mut(user) {
            let until = now.plus(pause(turn.failures));
            self.failing += usize::from(turn.failures == 0);
            turn.failures = turn.failures.saturating_add(1);
            turn.stands = Stands::Later(until);
            self.later.insert((until, user.clone()));
        }
    }

    fn ended(&mut self, user: &UserId, now: Timestamp) -> bool {
        self.polling = self.polling.saturating_sub(1);
        let Some(turn) = self.users.get_mut(user) else {
            return false;
        };
        self.extra -= turn.asked.saturating_sub(1);
        self.reserved -= std::mem::take(&mut turn.reserved);
        let left_at = turn.leave_at.filter(|at| *at <= now);
        if let Some(at) = left_at {
            self.let_go(user);
            self.leaving.remove(&(at, user.clone()));
        }
        left_at.is_none()
    }

    /// When something is due that nobody will tell of.
    pub fn due(&self) -> Option<Timestamp> {
        let firsts = [self.leaving.first(), self.later.first()];
        firsts.into_iter().flatten().map(|(at, _)| *at).min()
    }

    /// How many polls are under way.
    pub fn polling(&self) -> usize {
        self.polling
    }

    /// How many users are followed.
    pub fn users(&self) -> usize {
        self.users.len()
    }
}

/// The first of them, if it is due.
fn first_until(set: &mut BTreeSet<(Timestamp, UserId)>, now: Timestamp) -> Option<(Timestamp, UserId)> {
    if set.first()?.0 > now {
        return None;
    }
    set.pop_first()
}

#[cfg(test)]
#[path = "turns_tests.rs"]
mod tests;
