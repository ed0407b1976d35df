//! A roll: who is there, and since when who is gone. One tells how many sessions each user has; one more for each
//! topic that is watched tells who hears it.
//!
//! Invariant: a user is on the roll from the first session until the lingering time after the last, and no longer: so
//! many left at a moment are kept as left in that time. What a watch is told brings whoever follows it to what the
//! roll says. Does not know what a session is, nor the time.

use foldhash::fast::FixedState;
use postrider_engine::{PresenceNews, PresenceWatch};
use postrider_model::{Millis, Timestamp, UserId};
use std::collections::{HashSet, VecDeque};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// A roll is in so many parts, which are locked, and told to a watch, one at a time.
const PARTS: usize = 64;
/// Changes that may wait for one watch. One more and it begins anew.
const MAX_WAITING: usize = 4096;
/// Watches of one roll.
const MAX_WATCHES: usize = 64;

/// Now, as a roll needs it.
#[derive(Clone, Copy)]
pub(crate) struct Now {
    pub steady: Timestamp,
    pub wall: Timestamp,
}

/// See the module.
pub(crate) struct Roll {
    /// Sessions of one user.
    most: u32,
    linger: Millis,
    /// When it began: what is remembered of times counts from here.
    begun: Timestamp,
    parts: Box<[Mutex<Part>]>,
    watches: Mutex<Vec<Arc<Watch>>>,
    /// How many there are, for those who look in passing.
    watched: AtomicUsize,
    outlet: Outlet,
}

/// Whose number of sessions changed, for whoever tells other nodes. Each user once; no more than are on the roll or
/// were a moment ago.
#[derive(Default)]
struct Outlet {
    is_open: AtomicBool,
    users: Mutex<foldhash::HashSet<UserId>>,
    changed: Notify,
}

impl Outlet {
    fn users(&self) -> MutexGuard<'_, foldhash::HashSet<UserId>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put<'u>(&self, changed: impl Iterator<Item = &'u UserId>) {
        let mut users = self.users();
        let was_empty = users.is_empty();
        users.extend(changed.cloned());
        if was_empty && !users.is_empty() {
            self.changed.notify_one();
        }
    }
}

type Part = foldhash::HashMap<UserId, Known>;

/// What is known of a user who is there. There is one for every user who has a session: small.
struct Known {
    sessions: u32,
    /// When the last session ended, where somebody will look whether that is long ago; zero where nobody will.
    left: u32,
}

/// That a session was counted.
pub(crate) struct Came {
    /// Its user was not there before, and nobody was told.
    is_first: bool,
    /// Sessions of its user, with this one.
    pub sessions: usize,
}

impl Roll {
    pub fn new(most: usize, linger: Millis, begun: Timestamp) -> Roll {
        Roll {
            most: u32::try_from(most).unwrap_or(u32::MAX),
            linger,
            begun,
            parts: (0..PARTS).map(|_| Mutex::default()).collect(),
            watches: Mutex::default(),
            watched: AtomicUsize::new(0),
            outlet: Outlet::default(),
        }
    }

    /// Gathers from now on whose number of sessions changes; first, everyone who is here.
    pub fn gather(&self) {
        self.outlet.is_open.store(true, Ordering::Release);
        for nth in 0..PARTS {
            self.outlet.put(self.part(nth).keys());
        }
    }

    /// At most `most` of those who were gathered, with how many sessions each has.
    pub fn changed(&self, most: usize) -> Vec<(UserId, Option<u32>)> {
        let mut gathered = self.outlet.users();
        let users: Vec<_> = gathered.iter().take(most).cloned().collect();
        users.iter().for_each(|user| _ = gathered.remove(user));
        if !gathered.is_empty() {
            self.outlet.changed.notify_one();
        }
        drop(gathered);
        let count = |user: UserId| {
            let sessions = self
                .part(Roll::part_of(&user))
                .get(&user)
                .map(|known| known.sessions);
            (user, sessions)
        };
        users.into_iter().map(count).collect()
    }

    /// Waits until somebody was gathered.
    pub async fn has_changed(&self) {
        self.outlet.changed.notified().await;
    }

    /// The number of a user's sessions changed; under the lock of the user's part.
    fn put_out(&self, user: &UserId) {
        if self.outlet.is_open.load(Ordering::Relaxed) {
            self.outlet.put(std::iter::once(user));
        }
    }

    fn part_of(user: &UserId) -> usize {
        // The map within takes other bits of another hash.
        FixedState::default().hash_one(user) as usize % PARTS
    }

    fn part(&self, nth: usize) -> MutexGuard<'_, Part> {
        self.parts[nth].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stamp(&self, now: Now) -> u32 {
        // It wraps after seven weeks; what is compared lies seconds apart.
        (now.steady.since(self.begun).0 as u32).max(1)
    }

    /// Counts one more session of a user, if there may be one. To be followed by [`Roll::tell`], or taken back.
    pub fn take(&self, user: &UserId) -> Option<Came> {
        let mut part = self.part(Roll::part_of(user));
        let came = match part.get_mut(user) {
            Some(known) if known.sessions < self.most => {
                known.sessions += 1;
                Came {
                    is_first: false,
                    sessions: known.sessions as usize,
                }
            }
            None if self.most > 0 => {
                part.insert(user.clone(), Known { sessions: 1, left: 0 });
                Came {
                    is_first: true,
                    sessions: 1,
                }
            }
            _ => return None,
        };
        self.put_out(user);
        Some(came)
    }

    /// A session that was counted begins.
    pub fn tell(&self, user: &UserId, came: &Came, now: Now) {
        if came.is_first && self.is_watched() {
            let nth = Roll::part_of(user);
            // A watch is told of one user in order.
            let _part = self.part(nth);
            self.tell_watches(nth, user, true, now.wall);
        }
    }

    /// A session that was counted does not begin. Where the caller is to look later, says when, as [`Roll::release`].
    pub fn take_back(&self, user: &UserId, came: &Came, now: Now) -> Option<Timestamp> {
        let nth = Roll::part_of(user);
        let mut part = self.part(nth);
        let known = part.get_mut(user)?;
        self.put_out(user);
        known.sessions = known.sessions.saturating_sub(1);
        if known.sessions > 0 {
            if came.is_first {
                // Another one began meanwhile, for which this one was to tell.
                self.tell_watches(nth, user, true, now.wall);
            }
            return None;
        }
        if known.left != 0 {
            // Who looks finds when the last one ended.
            return None;
        }
        // The last one may have ended while this one was counted, and then nobody looks. With this one alone the user
        // was never there.
        let linger = if came.is_first { Millis(0) } else { self.linger };
        self.leave(nth, &mut part, user, linger, now)
    }

    /// Counts one session less. Where the caller is to look later whether its user has come back, says when.
    pub fn release(&self, user: &UserId, now: Now) -> Option<Timestamp> {
        let nth = Roll::part_of(user);
        let mut part = self.part(nth);
        let known = part.get_mut(user)?;
        self.put_out(user);
        known.sessions = known.sessions.saturating_sub(1);
        if known.sessions == 0 {
            return self.leave(nth, &mut part, user, self.linger, now);
        }
        if known.left != 0 {
            // The others may be taken back: then this was the last.
            known.left = self.stamp(now);
        }
        None
    }

    /// No session of a user is counted any more.
    fn leave(
        &self,
        nth: usize,
        part: &mut Part,
        user: &UserId,
        linger: Millis,
        now: Now,
    ) -> Option<Timestamp> {
        if linger.0 == 0 {
            part.remove(user);
            // Also where nobody was told: who began to watch meanwhile found the user here.
            self.tell_watches(nth, user, false, now.wall);
            return None;
        }
        let known = part.get_mut(user)?;
        let others_look = std::mem::replace(&mut known.left, self.stamp(now)) != 0;
        (!others_look).then(|| now.steady.plus(linger))
    }

    /// Looks whether a user who left has come back; who has not is gone. Says when to look again, if that is to be.
    pub fn look(&self, user: &UserId, now: Now) -> Option<Timestamp> {
        let nth = Roll::part_of(user);
        let mut part = self.part(nth);
        let known = part.get_mut(user)?;
        if known.sessions > 0 {
            known.left = 0;
            return None;
        }
        let away = u64::from(self.stamp(now).wrapping_sub(known.left));
        if away < self.linger.0 {
            return Some(now.steady.plus(Millis(self.linger.0 - away)));
        }
        part.remove(user);
        self.put_out(user);
        let at = Timestamp(now.wall.0.saturating_sub(away));
        self.tell_watches(nth, user, false, at);
        None
    }

    /// Whether a user is there, and with how many sessions.
    pub fn sessions_of(&self, user: &UserId) -> Option<usize> {
        let part = self.part(Roll::part_of(user));
        part.get(user).map(|known| known.sessions as usize)
    }

    fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Acquire) > 0
    }

    /// Under the lock of the user's part.
    fn tell_watches(&self, part: usize, user: &UserId, online: bool, at: Timestamp) {
        if self.is_watched() {
            let watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
            watches
                .iter()
                .for_each(|watch| watch.tell(part, user, online, at));
        }
    }

    /// Watches the roll; of these users alone, if any are named. `None` where too many do.
    pub fn watch(self: &Arc<Self>, users: Option<HashSet<UserId>>) -> Option<Watching> {
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        if watches.len() >= MAX_WATCHES {
            return None;
        }
        let watch = Arc::new(Watch {
            users,
            inner: Mutex::default(),
            news: Notify::new(),
        });
        watches.push(watch.clone());
        self.watched.store(watches.len(), Ordering::Release);
        Some(Watching {
            roll: self.clone(),
            watch,
            last: None,
        })
    }

    /// Ends all watches.
    pub fn close(&self) {
        let watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        for watch in watches.iter() {
            watch.inner().over = true;
            watch.news.notify_one();
        }
    }
}

/// One who watches.
struct Watch {
    users: Option<HashSet<UserId>>,
    inner: Mutex<Waiting>,
    news: Notify,
}

/// What waits for one who watches.
#[derive(Default)]
struct Waiting {
    changes: VecDeque<(UserId, bool, Timestamp)>,
    /// So many of the roll's parts were told: changes in others are not told, they come with the part.
    told: usize,
    lagged: bool,
    over: bool,
}

impl Watch {
    fn inner(&self) -> MutexGuard<'_, Waiting> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, part: usize, user: &UserId, online: bool, at: Timestamp) {
        if self.users.as_ref().is_some_and(|users| !users.contains(user)) {
            return;
        }
        let mut inner = self.inner();
        if part >= inner.told || inner.lagged {
            return;
        }
        if inner.changes.len() >= MAX_WAITING {
            inner.changes = VecDeque::new();
            inner.lagged = true;
        } else {
            inner.changes.push_back((user.clone(), online, at));
        }
        self.news.notify_one();
    }
}

/// A watch in the hands of whoever asked for it.
pub(crate) struct Watching {
    roll: Arc<Roll>,
    watch: Arc<Watch>,
    /// What is to be done when it ends.
    last: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl Watching {
    /// The same, with something to be done when it ends.
    pub fn with_last(self, last: Box<dyn FnOnce() + Send + Sync>) -> Watching {
        let mut watching = self;
        watching.last = Some(last);
        watching
    }

    /// What waits, or the next part of who is there.
    fn take(&self) -> Option<Option<PresenceNews>> {
        let part = {
            let mut inner = self.watch.inner();
            if inner.over {
                return Some(None);
            }
            if std::mem::take(&mut inner.lagged) {
                inner.told = 0;
                return Some(Some(PresenceNews::Lagged));
            }
            if let Some((user, online, at)) = inner.changes.pop_front() {
                return Some(Some(PresenceNews::Change { user, online, at }));
            }
            inner.told
        };
        (part < PARTS).then(|| self.tell_part(part))
    }

    fn tell_part(&self, nth: usize) -> Option<PresenceNews> {
        let part = self.roll.part(nth);
        let users: Vec<_> = match &self.watch.users {
            None => part.keys().cloned().collect(),
            Some(users) => {
                let here = users.iter().filter(|user| part.contains_key(*user));
                here.cloned().collect()
            }
        };
        // The lock of the part first, as whoever tells a change does.
        let mut inner = self.watch.inner();
        if !inner.lagged {
            inner.told = nth + 1;
        }
        Some(PresenceNews::Present {
            users,
            last: nth + 1 == PARTS,
        })
    }
}

#[async_trait::async_trait]
impl PresenceWatch for Watching {
    async fn next(&mut self) -> Option<PresenceNews> {
        loop {
            match self.take() {
                // A part without anyone says nothing, but that it was the last.
                Some(Some(PresenceNews::Present { users, last: false })) if users.is_empty() => {}
                Some(news) => return news,
                None => self.watch.news.notified().await,
            }
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut watches = self.roll.watches.lock().unwrap_or_else(PoisonError::into_inner);
        watches.retain(|watch| !Arc::ptr_eq(watch, &self.watch));
        self.roll.watched.store(watches.len(), Ordering::Release);
        drop(watches);
        if let Some(last) = self.last.take() {
            last();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn at(ms: u64) -> Now {
        Now {
            steady: Timestamp(ms),
            wall: Timestamp(1_000_000 + ms),
        }
    }

    fn user(n: usize) -> UserId {
        UserId::new(&format!("u{n}")).unwrap()
    }

    fn come(roll: &Roll, user: &UserId, now: Now) {
        let came = roll.take(user).unwrap();
        roll.tell(user, &came, now);
    }

    /// Follows what a watch says, at most so many news; says how often it had to begin anew.
    fn hear(watching: &Watching, here: &mut BTreeSet<UserId>, most: usize) -> usize {
        let mut lagged = 0;
        for news in std::iter::from_fn(|| watching.take()).take(most) {
            match news.unwrap() {
                PresenceNews::Present { users, .. } => here.extend(users),
                PresenceNews::Change { user, online, .. } => {
                    match online {
                        true => here.insert(user),
                        false => here.remove(&user),
                    };
                }
                PresenceNews::Lagged => {
                    here.clear();
                    lagged += 1;
                }
            }
        }
        lagged
    }

    /// What a user's presence comes to.
    #[derive(Default)]
    struct Truth {
        sessions: usize,
        /// Counted, and neither begun nor taken back.
        pending: Vec<Came>,
        /// With none of those: here before the first time, gone from the second on.
        lingers: (u64, u64),
    }

    impl Truth {
        fn counted(&self) -> usize {
            self.sessions + self.pending.len()
        }
    }

    proptest! {
        /// Whoever follows a watch knows who is there; a user is there from the first session until the lingering
        /// time after the last, to the millisecond but where one that was counted did not begin, and is looked for
        /// once.
        #[test]
        fn who_follows_knows_who_is_there(
            linger in 0u64..40,
            steps in proptest::collection::vec((0usize..4, 0u8..10, 0u64..30), 0..120),
        ) {
            let roll = Arc::new(Roll::new(3, Millis(linger), Timestamp(0)));
            let (mut now, mut looks, mut here) = (0, Vec::<(Timestamp, UserId)>::new(), BTreeSet::new());
            let mut truth: [Truth; 4] = Default::default();
            let watching = roll.watch(None).unwrap();
            for (nth, step, pass) in steps {
                for until in now + 1..=now + pass {
                    let due: Vec<_> = looks.extract_if(.., |(due, _)| due.0 <= until).collect();
                    for (_, user) in due {
                        looks.extend(roll.look(&user, at(until)).map(|due| (due, user)));
                    }
                }
                now += pass;
                let (truth_of, user_of) = (&mut truth[nth], user(nth));
                let mut looked = None;
                match step {
                    0..=3 => match roll.take(&user_of) {
                        Some(came) if step == 3 => looked = roll.take_back(&user_of, &came, at(now)),
                        Some(came) => truth_of.pending.push(came),
                        None => prop_assert_eq!(truth_of.counted(), 3),
                    },
                    4 | 5 if !truth_of.pending.is_empty() => {
                        roll.tell(&user_of, &truth_of.pending.pop().unwrap(), at(now));
                        truth_of.sessions += 1;
                    }
                    6 if !truth_of.pending.is_empty() => {
                        let came = truth_of.pending.remove(0);
                        looked = roll.take_back(&user_of, &came, at(now));
                        let (least, _) = truth_of.lingers;
                        truth_of.lingers = if came.is_first { (0, 0) } else { (least, now + linger) };
                    }
                    7 | 8 if truth_of.sessions > 0 => {
                        truth_of.sessions -= 1;
                        truth_of.lingers = (now + linger, now + linger);
                        looked = roll.release(&user_of, at(now));
                    }
                    // Some of what there is to hear, some time.
                    _ => _ = hear(&watching, &mut here, 20),
                }
                looks.extend(looked.map(|due| (due, user_of)));
                let lookers: BTreeSet<_> = looks.iter().map(|(_, user)| user).collect();
                prop_assert_eq!(lookers.len(), looks.len(), "looked for twice");
                for (nth, truth) in truth.iter().enumerate() {
                    let told = roll.sessions_of(&user(nth));
                    prop_assert_eq!(told.unwrap_or(0), truth.counted());
                    if truth.counted() > 0 || now < truth.lingers.0 {
                        prop_assert!(told.is_some(), "u{} is not there at {}", nth, now);
                    } else if now >= truth.lingers.1 {
                        prop_assert!(told.is_none(), "u{} is still there at {}", nth, now);
                    }
                }
            }
            for (nth, truth) in truth.iter().enumerate() {
                truth.pending.iter().for_each(|came| roll.tell(&user(nth), came, at(now)));
            }
            prop_assert_eq!(hear(&watching, &mut here, usize::MAX), 0);
            let there = (0..4).map(user).filter(|user| roll.sessions_of(user).is_some());
            prop_assert_eq!(here, there.collect::<BTreeSet<_>>());
        }
    }

    #[test]
    fn one_that_is_taken_back_after_the_last_ended_leaves_nobody_behind() {
        for linger in [0, 10] {
            let roll = Arc::new(Roll::new(3, Millis(linger), Timestamp(0)));
            let ada = user(1);
            come(&roll, &ada, at(1));
            let refused = roll.take(&ada).unwrap();
            assert_eq!(roll.release(&ada, at(2)), None, "one is counted");
            match roll.take_back(&ada, &refused, at(3)) {
                Some(due) => assert_eq!((due, roll.look(&ada, at(13))), (Timestamp(13), None)),
                None => assert_eq!(linger, 0, "somebody is to look"),
            }
            assert_eq!(roll.sessions_of(&ada), None);
        }
    }

    #[test]
    fn lingering_counts_from_the_last_that_ended_though_another_was_counted() {
        let roll = Arc::new(Roll::new(3, Millis(10), Timestamp(0)));
        let ada = user(1);
        come(&roll, &ada, at(1));
        assert_eq!(roll.release(&ada, at(2)), Some(Timestamp(12)));
        come(&roll, &ada, at(5));
        let refused = roll.take(&ada).unwrap();
        assert_eq!(roll.release(&ada, at(7)), None);
        assert_eq!(roll.take_back(&ada, &refused, at(8)), None, "somebody looks");
        assert_eq!(roll.look(&ada, at(12)), Some(Timestamp(17)));
        assert_eq!(roll.look(&ada, at(17)), None);
        assert_eq!(roll.sessions_of(&ada), None);
    }

    #[test]
    fn who_changed_is_gathered_once_with_what_is_so_by_then() {
        let roll = Arc::new(Roll::new(3, Millis(10), Timestamp(0)));
        let (ada, bob) = (user(1), user(2));
        come(&roll, &ada, at(1));
        assert!(roll.changed(9).is_empty(), "nobody asked for it");
        roll.gather();
        come(&roll, &ada, at(1));
        come(&roll, &bob, at(1));
        roll.release(&bob, at(2));
        let mut told = [roll.changed(1), roll.changed(1)].concat();
        told.sort();
        assert_eq!(told, [(ada.clone(), Some(2)), (bob.clone(), Some(0))]);
        assert!(roll.changed(9).is_empty());
        assert_eq!(roll.look(&bob, at(12)), None);
        assert_eq!(roll.changed(9), [(bob, None)]);
        roll.gather();
        assert_eq!(roll.changed(9), [(ada, Some(2))]);
    }

    #[test]
    fn who_is_too_slow_is_told_and_begins_anew() {
        let roll = Arc::new(Roll::new(3, Millis(0), Timestamp(0)));
        let (slow, mut here) = (roll.watch(None).unwrap(), BTreeSet::new());
        hear(&slow, &mut here, usize::MAX);
        let users: Vec<_> = (0..MAX_WAITING + 1).map(user).collect();
        users.iter().for_each(|user| come(&roll, user, at(1)));
        let waiting = slow.watch.inner().changes.len();
        assert_eq!(waiting, 0, "what waits is bounded");
        users[1..].iter().for_each(|user| _ = roll.release(user, at(2)));
        assert_eq!(hear(&slow, &mut here, usize::MAX), 1);
        assert_eq!(here, BTreeSet::from([users[0].clone()]));
    }

    #[test]
    fn a_watch_of_some_hears_of_nobody_else_and_ends_when_it_is_dropped() {
        let roll = Arc::new(Roll::new(3, Millis(10), Timestamp(0)));
        let (ada, bob) = (user(1), user(2));
        come(&roll, &ada, at(1));
        let watching = roll.watch(Some(HashSet::from([ada.clone()]))).unwrap();
        let mut here = BTreeSet::new();
        hear(&watching, &mut here, usize::MAX);
        come(&roll, &bob, at(2));
        hear(&watching, &mut here, usize::MAX);
        assert_eq!(here.len(), 1);
        assert_eq!(roll.release(&ada, at(3)), Some(Timestamp(13)));
        assert_eq!(roll.look(&ada, at(13)), None);
        let gone = PresenceNews::Change {
            user: ada,
            online: false,
            at: at(3).wall,
        };
        assert_eq!(
            watching.take(),
            Some(Some(gone)),
            "it was gone when the session ended"
        );
        let many: Vec<_> = std::iter::from_fn(|| roll.watch(None)).collect();
        assert_eq!(many.len(), MAX_WATCHES - 1);
        drop((many, watching));
        assert!(!roll.is_watched());
    }
}
