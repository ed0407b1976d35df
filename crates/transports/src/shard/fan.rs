//! Who hears which feed, and how what is appended to a wide one reaches all of them: in slices, so that sockets,
//! mail and timers get their turn in between.
//!
//! Invariant: a connection has its seats while it has a session or is opening one, and between two polls as long as
//! something of the first is kept.

use super::*;
use crate::follows::Follows;
use crate::live::{Alike, Salvo};
use crate::ring::Ring;
use crate::roll::Roll;
use postrider_delivery::Stretch;
use postrider_model::Topic;
use std::collections::hash_map;

/// Hearers passed in one turn of the loop. A turn costs about a third of a send, so few are enough; whatever comes
/// meanwhile waits for no more than these, some three times on its way from a publisher to a session.
const SLICE: usize = 32;

/// Who hears which feed.
pub(super) struct Hearers {
    users: foldhash::HashMap<UserId, Few>,
    /// Wide feeds that somebody hears, and `all`, by their number.
    fans: Slab<Ring>,
    all: usize,
    topics: HashMap<Topic, usize>,
    /// Those with something in their window, each once, the next first.
    busy: VecDeque<usize>,
    /// The topics that are watched.
    watched: HashMap<Topic, Arc<Roll>>,
    /// Who came to a watched topic, or went, in order.
    news: Vec<(Arc<Roll>, UserId, bool)>,
    follows: Arc<Follows>,
    /// Feeds to look at later: nobody on this node hears them any more.
    left: Vec<FeedId>,
}

/// A user's slots, mostly one.
enum Few {
    One(u32),
    Many(Box<[u32]>),
}

impl Few {
    fn slots(&self) -> &[u32] {
        match self {
            Few::One(slot) => std::slice::from_ref(slot),
            Few::Many(slots) => slots,
        }
    }

    fn of(slots: Vec<u32>) -> Few {
        match slots[..] {
            [slot] => Few::One(slot),
            _ => Few::Many(slots.into()),
        }
    }
}

/// Where a connection stands in the rings that it is in.
#[derive(Default)]
pub(crate) struct Seats {
    all: Option<u32>,
    /// Of topics: which ring, and where.
    topics: Option<Box<TopicSeats>>,
}

/// Few have any.
#[derive(Default)]
struct TopicSeats {
    /// Each with its ring's number.
    seats: Vec<(u32, u32)>,
    /// They are kept between two polls: nobody sits there.
    resting: bool,
}

impl Seats {
    /// Whether there is one in this ring.
    pub fn has(&self, ring: usize) -> bool {
        let mut rings = self.topics.iter().flat_map(|topics| &topics.seats);
        rings.any(|(number, _)| *number as usize == ring)
    }
}

impl Hearers {
    pub fn new(follows: Arc<Follows>) -> Hearers {
        let mut fans = Slab::new();
        let all = fans.insert(Ring::new(FeedId::All));
        Hearers {
            users: foldhash::HashMap::default(),
            fans,
            all,
            topics: HashMap::new(),
            busy: VecDeque::new(),
            watched: HashMap::new(),
            news: Vec::new(),
            follows,
            left: Vec::new(),
        }
    }

    /// Nobody in this loop hears this feed any more.
    fn unheard(&mut self, feed: FeedId) {
        if self.follows.leave(&feed) {
            self.left.push(feed);
        }
    }

    /// The feeds to look at later, since this was last asked.
    pub fn take_left(&mut self) -> Vec<FeedId> {
        std::mem::take(&mut self.left)
    }

    /// The ring to go on, or `all`'s if it is to be no topic's.
    fn next_busy(&mut self, no_topic: bool) -> Option<usize> {
        if !no_topic {
            return self.busy.pop_front();
        }
        let all = self.busy.iter().position(|busy| *busy == self.all)?;
        self.busy.remove(all)
    }

    /// Whether a ring has yet to go on.
    pub fn is_busy(&self) -> bool {
        !self.busy.is_empty()
    }

    pub fn join(&mut self, slot: usize, user: &UserId, topics: &[Topic]) -> Seats {
        let slot = slot as u32;
        match self.users.entry(user.clone()) {
            hash_map::Entry::Occupied(mut few) => {
                let few = few.get_mut();
                *few = Few::of([few.slots(), &[slot]].concat());
            }
            hash_map::Entry::Vacant(vacant) => {
                vacant.insert(Few::One(slot));
                if self.follows.is_on() {
                    self.follows.hear(&FeedId::User(user.clone()));
                }
            }
        }
        let all = self.fans.get_mut(self.all).map(|fan| fan.sit(slot));
        let mut seats = Seats { all, topics: None };
        self.reseat(slot as usize, user, &mut seats, topics.iter());
        seats
    }

    /// The connections that hear for a user, or have kept their seats.
    pub fn slots_of(&self, user: &UserId) -> Vec<u32> {
        self.users
            .get(user)
            .map_or_else(Vec::new, |few| few.slots().to_vec())
    }

    /// Has a connection sit where these topics are heard, and nowhere else but where `all` is. Says whether it sat down
    /// anywhere.
    pub fn reseat<'t>(
        &mut self,
        slot: usize,
        user: &UserId,
        seats: &mut Seats,
        heard: impl Iterator<Item = &'t Topic>,
    ) -> bool {
        let mut left = seats.topics.take().map(|topics| topics.seats).unwrap_or_default();
        let mut taken = Vec::with_capacity(left.len());
        let mut sat_down = false;
        for topic in heard {
            let number = self.ring_of(topic);
            let has = left.iter().position(|(held, _)| *held == number as u32);
            taken.push(match has {
                Some(at) => left.swap_remove(at),
                None => {
                    let seat = self.fans[number].sit(slot as u32);
                    sat_down = true;
                    self.changes(number, seat, user, true);
                    (number as u32, seat)
                }
            });
        }
        for (number, seat) in left {
            self.changes(number as usize, seat, user, false);
            self.leave_topic((number, seat));
        }
        let resting = false;
        let kept = |seats| Box::new(TopicSeats { seats, resting });
        seats.topics = (!taken.is_empty()).then(|| kept(taken));
        sat_down
    }

    /// Somebody sat down, or is to leave: to be told if the topic is watched.
    fn changes(&mut self, number: usize, seat: u32, user: &UserId, came: bool) {
        if let Some((roll, told)) = self.fans.get(number).and_then(|fan| fan.roll.as_ref())
            && (seat as usize) < *told
        {
            self.news.push((roll.clone(), user.clone(), came));
        }
    }

    /// A connection keeps its seats without a session, or has one again.
    pub fn rest(&mut self, user: &UserId, seats: &mut Seats, resting: bool) {
        let Some(topics) = seats.topics.as_mut().filter(|topics| topics.resting != resting) else {
            return;
        };
        topics.resting = resting;
        for (number, seat) in topics.seats.clone() {
            self.changes(number as usize, seat, user, !resting);
            if let Some(fan) = self.fans.get_mut(number as usize) {
                match resting {
                    true => fan.resting += 1,
                    false => fan.resting -= 1,
                }
            }
        }
    }

    /// Who came to watched topics, and went, since this was last asked.
    pub fn take_news(&mut self) -> Vec<(Arc<Roll>, UserId, bool)> {
        std::mem::take(&mut self.news)
    }

    /// Watches a topic, or stops watching it.
    pub fn watch(&mut self, topic: &Topic, roll: Option<Arc<Roll>>) {
        if let Some(fan) = self
            .topics
            .get(topic)
            .and_then(|number| self.fans.get_mut(*number))
        {
            fan.roll = roll.clone().map(|roll| (roll, 0));
        }
        match roll {
            Some(roll) => _ = self.watched.insert(topic.clone(), roll),
            None => _ = self.watched.remove(topic),
        }
    }

    /// The next seats of a watched topic that are to be told, at most so many: they count as told.
    pub fn untold(&mut self, topic: &Topic, most: usize) -> Option<(usize, std::ops::Range<usize>)> {
        let number = *self.topics.get(topic)?;
        let fan = self.fans.get_mut(number)?;
        let seats = fan.extent().1;
        let (_, told) = fan.roll.as_mut().filter(|(_, told)| *told < usize::MAX)?;
        let from = *told;
        let end = seats.min(from + most);
        *told = if end < seats { end } else { usize::MAX };
        Some((number, from..end))
    }

    /// Somebody who had sat there before is told.
    pub fn sits(&mut self, number: usize, user: &UserId) {
        if let Some((roll, _)) = self.fans.get(number).and_then(|fan| fan.roll.as_ref()) {
            self.news.push((roll.clone(), user.clone(), true));
        }
    }

    /// A topic's ring, how many sessions hear it, and below which seat they sit.
    pub fn extent(&self, topic: &Topic) -> Option<(usize, u64, usize)> {
        let number = *self.topics.get(topic)?;
        let fan = self.fans.get(number)?;
        let (hearers, seats) = fan.extent();
        Some((number, hearers.saturating_sub(fan.resting) as u64, seats))
    }

    /// Whose seat this is.
    pub fn sitter(&self, number: usize, seat: usize) -> Option<usize> {
        Some(self.fans.get(number)?.hearer(seat)?.0)
    }

    /// The ring of a topic; there is one from now on.
    fn ring_of(&mut self, topic: &Topic) -> usize {
        if let Some(number) = self.topics.get(topic) {
            return *number;
        }
        let mut ring = Ring::new(FeedId::Topic(topic.clone()));
        self.follows.hear(&ring.feed);
        // Nobody sat there before it was watched.
        ring.roll = self.watched.get(topic).map(|roll| (roll.clone(), usize::MAX));
        let number = self.fans.insert(ring);
        self.topics.insert(topic.clone(), number);
        number
    }

    fn leave_topic(&mut self, (number, seat): (u32, u32)) {
        let number = number as usize;
        let Some(fan) = self.fans.get_mut(number) else {
            return;
        };
        fan.leave(seat);
        if fan.is_empty() {
            let fan = self.fans.remove(number);
            self.busy.retain(|busy| *busy != number);
            if let FeedId::Topic(topic) = &fan.feed {
                self.topics.remove(topic);
            }
            self.unheard(fan.feed);
        }
    }

    /// How many connections hear for a user, or have kept their seats.
    pub fn seats_of(&self, user: &UserId) -> usize {
        self.users.get(user).map_or(0, |few| few.slots().len())
    }

    pub fn leave(&mut self, slot: usize, user: &UserId, seats: &Seats) {
        let slot = slot as u32;
        if let Some(few) = self.users.get_mut(user) {
            let left: Vec<_> = few.slots().iter().copied().filter(|held| *held != slot).collect();
            if left.is_empty() {
                self.users.remove(user);
                if self.follows.is_on() {
                    self.unheard(FeedId::User(user.clone()));
                }
            } else {
                *few = Few::of(left);
            }
        }
        if let Some(seat) = seats.all {
            self.fans[self.all].leave(seat);
        }
        let Some(topics) = &seats.topics else { return };
        for (number, seat) in &topics.seats {
            match topics.resting {
                true => {
                    if let Some(fan) = self.fans.get_mut(*number as usize) {
                        fan.resting -= 1;
                    }
                }
                false => self.changes(*number as usize, *seat, user, false),
            }
            self.leave_topic((*number, *seat));
        }
    }

    /// Puts entries of one wide feed into its window.
    fn push(&mut self, run: &[Arc<Entry>]) {
        let number = match run.first().map(|entry| &entry.feed) {
            Some(FeedId::All) => Some(self.all),
            Some(FeedId::Topic(topic)) => self.topics.get(topic).copied(),
            Some(FeedId::User(_)) | None => None,
        };
        let Some((number, fan)) = number.and_then(|n| Some((n, self.fans.get_mut(n)?))) else {
            return;
        };
        let idle = !fan.is_busy();
        run.iter().for_each(|entry| fan.push(entry));
        if idle && fan.is_busy() {
            self.busy.push_back(number);
        }
    }
}

impl Shard {
    /// Entries of any feeds, stored or transient: those of a user's feed go to the user's sessions, those of a wide
    /// one to its window.
    pub(super) fn woken(&mut self, entries: &[Arc<Entry>]) {
        for run in entries.chunk_by(|a, b| a.feed == b.feed) {
            match &run[0].feed {
                FeedId::User(user) => match self.hearers.users.get(user) {
                    None => {}
                    Some(Few::One(slot)) => self.tell(*slot as usize, run, 0),
                    Some(Few::Many(slots)) => {
                        for slot in slots.clone() {
                            self.tell(slot as usize, run, 0);
                        }
                    }
                },
                FeedId::All | FeedId::Topic(_) => self.hearers.push(run),
            }
        }
    }

    /// Gives entries of one feed to a connection; of the transient ones, those from `heard` on.
    fn tell(&mut self, slot: usize, entries: &[Arc<Entry>], heard: usize) {
        let transient = |entry: &Arc<Entry>| entry.position.offset == 0;
        let mut at = 0;
        for run in entries.chunk_by(|a, b| transient(a) == transient(b)) {
            if transient(&run[0]) {
                let from = heard.saturating_sub(at).min(run.len());
                run[from..]
                    .iter()
                    .for_each(|entry| self.apply(slot, Effect::Transient(entry)));
            } else {
                self.apply(slot, Effect::Appended(run));
            }
            at += run.len();
        }
    }

    /// A feed brought more than its window takes: the session reads what is stored, and the client is told if there
    /// was anything else.
    fn lost(&mut self, slot: usize, fan: &Ring) {
        if fan.lost_transients > 0
            && let Some(live) = self.connections.get_mut(slot).and_then(Connection::live)
        {
            live.dropped_transient = true;
            self.turn.stats.dropped_transients(fan.lost_transients);
        }
        self.apply(slot, Effect::SuspectFeed(&fan.feed));
    }

    /// Lets the rings go on, as far as one turn may.
    pub(super) fn fan_out(&mut self) {
        let mut left = SLICE;
        while left > 0 {
            // Nothing of a topic goes out by seats that may have been left.
            let Some(number) = self.hearers.next_busy(self.members.is_busy()) else {
                return;
            };
            let Some(fan) = self.hearers.fans.get_mut(number) else {
                continue;
            };
            // Nobody joins or leaves until it is back.
            let mut fan = std::mem::replace(fan, Ring::new(FeedId::All));
            let mut broken = Vec::new();
            left = left.saturating_sub(self.go_round(&mut fan, left, &mut broken));
            if fan.is_busy() {
                self.hearers.busy.push_back(number);
            }
            self.hearers.fans[number] = fan;
            broken.into_iter().for_each(|slot| self.drop_connection(slot));
        }
    }

    /// Lets one ring go on past at most `most` hearers; says past how many it went.
    fn go_round(&mut self, fan: &mut Ring, most: usize, broken: &mut Vec<usize>) -> usize {
        let mut passed = 0;
        while passed < most
            && let Some(seats) = fan.pass(most - passed)
        {
            let stretch = fan.stretch(self.turn.wall);
            let known = self.turn.soonest_expiry;
            self.turn.soonest_expiry = known.into_iter().chain(fan.soonest_expiry()).min();
            for seat in seats {
                let Some((slot, heard)) = fan.hearer(seat) else {
                    continue;
                };
                passed += 1;
                let alike = stretch.map_or(Alike::No, |stretch| self.fire(slot, fan, stretch));
                match alike {
                    Alike::Done => {}
                    Alike::Broken => broken.push(slot),
                    Alike::No => {
                        if fan.is_lost() {
                            self.lost(slot, fan);
                        }
                        self.tell(slot, &fan.window, heard);
                    }
                }
            }
        }
        passed
    }

    /// Sends a window to a session as everyone gets it, if it is one that can be served so.
    fn fire(&mut self, slot: usize, fan: &mut Ring, stretch: Stretch) -> Alike {
        let Some(connection) = self.connections.get_mut(slot) else {
            return Alike::Done;
        };
        let mut salvo = Salvo {
            feed: &fan.feed,
            stretch,
            entries: &fan.window,
            volleys: &mut fan.volleys,
        };
        let (alike, look) = connection.take_salvo(&mut salvo, &mut self.turn);
        if let Some(at) = look {
            // Never later: a busy feed must not put off the look for evidence again and again.
            let at = at.min(connection.timer);
            self.set_timer(slot, at);
            self.watch_writes(slot);
        }
        alike
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_seats_are_counted_until_they_are_left() {
        let (mut hearers, topic) = (Hearers::new(Arc::default()), Topic::new("news").unwrap());
        let [ada, bob] = ["ada", "bob"].map(|user| UserId::new(user).unwrap());
        let seats: Vec<_> = (0..3)
            .map(|slot| hearers.join(slot, &ada, std::slice::from_ref(&topic)))
            .collect();
        let other = hearers.join(3, &bob, &[]);
        for (slot, seats) in seats.iter().enumerate() {
            assert_eq!(hearers.seats_of(&ada), 3 - slot);
            hearers.leave(slot, &ada, seats);
        }
        assert_eq!((hearers.seats_of(&ada), hearers.seats_of(&bob)), (0, 1));
        assert!(hearers.topics.is_empty(), "nobody hears it");
        hearers.leave(3, &bob, &other);
        assert_eq!((hearers.users.len(), hearers.fans.len()), (0, 1));
    }
}
