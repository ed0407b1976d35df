//! Random sequences of everything users and publishers do, against a plain model: each feed a list, each
//! user's state of each notification a word that is changed when something happens to it. No floors, no
//! marks, nothing worked out later.

use super::tests::Here;
use crate::contract::{Instance, Kit, Make, settlement};
use crate::{ReadLimit, Redriven, Rules};
use postrider_model::{
    DeadLetterFilter, FeedId, Millis, Position, SettleKind, SettleTarget, State, Topic, UserId,
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const USERS: [&str; 3] = ["ada", "bob", "cyd"];
const IDS: usize = 14;

/// What happens, as numbers that shrink well.
pub(crate) type Step = (u8, u8, u8, u8);

#[derive(Debug, Clone)]
struct Note {
    content: u128,
    feeds: Vec<FeedId>,
    exclude: Vec<String>,
    collapse: Option<u8>,
    expires_at: Option<u64>,
    deliver_at: Option<u64>,
    placed: bool,
    cancelled: bool,
    /// Before its time ran out.
    cancelled_in_time: bool,
    first: bool,
    kept_from: u64,
    /// For these users of a wide one it stands in their own feeds now.
    redriven: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Log {
    entries: Vec<String>,
    first: usize,
    /// The notification at each offset, where it is one.
    ids: Vec<Option<String>>,
}

#[derive(Default)]
struct Model {
    now: u64,
    notes: BTreeMap<String, Note>,
    feeds: BTreeMap<FeedId, Log>,
    states: BTreeMap<(String, String), State>,
    /// Who is a member of what now.
    members: BTreeSet<(FeedId, String)>,
    /// In which topic a notification, by id, is a user's.
    homes: BTreeMap<(String, String), FeedId>,
    dismissed: BTreeSet<(String, String)>,
    withdrawn: BTreeSet<(FeedId, usize)>,
    /// Places that were redriven from, by user.
    moved: BTreeSet<(String, FeedId, usize)>,
    collapse: BTreeMap<(FeedId, u8), usize>,
    /// Times; first deliveries, then expiries, then giving up; by id, and user.
    due: BTreeSet<(u64, u8, String, String)>,
    attempts: BTreeMap<(String, FeedId, usize), (u32, u64)>,
    /// Dead letters, oldest first: user, id, whether it was ever attempted.
    letters: Vec<(String, String, bool)>,
    /// When the marks of a feed are too old, and up to where.
    marks: BTreeMap<(u64, FeedId), usize>,
}

const AGE: u64 = 60;
const AUDIT: u64 = 100;
const MOST: usize = 7;
const TIMEOUT: u64 = 10;
const ATTEMPTS: u32 = 2;

fn rules() -> Rules {
    Rules {
        age: Millis(AGE),
        audit: Millis(AUDIT),
        dedupe: Millis(AGE),
        entries_per_feed: MOST as u64,
        ack_timeout: Millis(TIMEOUT),
        max_total_attempts: ATTEMPTS,
        ..Rules::default()
    }
}

fn own(user: &str) -> FeedId {
    FeedId::User(UserId::new(user).unwrap())
}

fn topic() -> FeedId {
    named("t")
}

fn named(topic: &str) -> FeedId {
    FeedId::Topic(Topic::new(topic).unwrap())
}

impl Model {
    fn log(&mut self, feed: &FeedId) -> &mut Log {
        self.feeds.entry(feed.clone()).or_default()
    }

    fn append(&mut self, feed: &FeedId, text: String, id: Option<&str>) -> usize {
        let log = self.log(feed);
        log.entries.push(text);
        log.ids.push(id.map(str::to_owned));
        let offset = log.entries.len();
        if id.is_none() {
            // Times of day count in the engine, whose clock begins at a round second.
            let end = (self.now / 1000 + 1) * 1000;
            self.marks.insert((end, feed.clone()), offset);
        }
        let first = self.log(feed).first;
        if offset - first > MOST {
            self.overflow(feed, first + 1);
        }
        offset
    }

    fn overflow(&mut self, feed: &FeedId, oldest: usize) {
        let id = self.feeds[feed].ids[oldest - 1].clone();
        if let (FeedId::User(user), Some(id)) = (feed, id) {
            // One that was redriven stands elsewhere too.
            if self.place_of(&id, user.as_str()) == Some((feed.clone(), oldest)) {
                self.give_up(user.as_str(), &id, false);
            }
        }
        self.trim(feed, oldest + 1);
    }

    fn give_up(&mut self, user: &str, id: &str, attempted: bool) {
        let state = self.states.get_mut(&(id.to_owned(), user.to_owned())).unwrap();
        let expired = self.notes[id].expires_at.is_some_and(|end| end <= self.now);
        if *state == State::Pending && !expired {
            *state = State::Dead;
            self.letters.push((user.to_owned(), id.to_owned(), attempted));
        }
    }

    fn no_longer_dead(&mut self, user: &str, id: &str) {
        self.letters.retain(|(of, what, _)| of != user || what != id);
    }

    /// Where a user has it: in the own feed after a redrive.
    fn place_of(&self, id: &str, user: &str) -> Option<(FeedId, usize)> {
        let note = self.notes.get(id).filter(|note| note.placed)?;
        let feed = match note.redriven.contains(user) || note.feeds.contains(&own(user)) {
            true => own(user),
            false if note.feeds.contains(&FeedId::All) => FeedId::All,
            false => self.homes.get(&(id.to_owned(), user.to_owned()))?.clone(),
        };
        let at = self.feeds[&feed]
            .ids
            .iter()
            .rposition(|at| at.as_deref() == Some(id))?;
        Some((feed, at + 1))
    }

    fn attempt(&mut self, user: &str, feed: &FeedId, offset: usize) {
        let row = (user.to_owned(), feed.clone(), offset);
        let (count, last) = self.attempts.get(&row).copied().unwrap_or_default();
        let held = self.is_held(feed, offset);
        let id = held.then(|| self.feeds[feed].ids[offset - 1].clone()).flatten();
        let Some(id) = id.filter(|_| count == 0 || self.now >= last + TIMEOUT) else {
            return;
        };
        let here = self.place_of(&id, user) == Some((feed.clone(), offset));
        let state = self.states.get(&(id.clone(), user.to_owned()));
        if count >= ATTEMPTS || !here || state != Some(&State::Pending) {
            return;
        }
        self.attempts.insert(row, (count + 1, self.now));
        if count + 1 == ATTEMPTS {
            self.due.insert((self.now + TIMEOUT, 3, id, user.to_owned()));
        }
    }

    fn attempts_ended(&mut self, id: &str, user: &str) {
        let Some((feed, offset)) = self.place_of(id, user) else {
            return;
        };
        let row = (user.to_owned(), feed, offset);
        if self
            .attempts
            .get(&row)
            .is_some_and(|(count, _)| *count >= ATTEMPTS)
        {
            self.give_up(user, id, true);
        }
    }

    fn redrive(&mut self, at: usize) -> Redriven {
        let Some((user, id, _)) = self.letters.get(at).cloned() else {
            return Redriven::Unknown;
        };
        if self.notes[&id].expires_at.is_some_and(|end| end <= self.now) {
            return Redriven::Expired;
        }
        let old = self.place_of(&id, &user);
        let taken_back = |(feed, offset): &(FeedId, usize)| self.withdrawn.contains(&(feed.clone(), *offset));
        if self.notes[&id].cancelled || old.as_ref().is_some_and(taken_back) {
            return Redriven::Impossible;
        }
        self.letters.remove(at);
        self.states.insert((id.clone(), user.clone()), State::Pending);
        let note = self.notes.get_mut(&id).unwrap();
        note.kept_from = self.now;
        if note.feeds.iter().any(FeedId::is_wide) {
            note.redriven.insert(user.clone());
        }
        let offset = self.append(&own(&user), id.clone(), Some(&id));
        if let Some(key) = self.notes[&id].collapse {
            let feed = own(&user);
            let newest = self.collapse.get(&(feed.clone(), key)).copied();
            let newer = newest.filter(|at| self.is_held(&feed, *at) && old != Some((feed.clone(), *at)));
            if newer.is_none() {
                self.collapse.insert((feed, key), offset);
            }
        }
        self.moved.extend(old.map(|(feed, offset)| (user, feed, offset)));
        Redriven::Yes
    }

    /// What is too old is forgotten, after all that is due was done.
    fn grow_old(&mut self) {
        let mut ages: Vec<_> = self
            .notes
            .iter()
            .map(|(id, note)| (note.kept_from, id.clone()))
            .collect();
        ages.sort();
        let now = self.now;
        for (_, id) in ages.iter().filter(|(from, _)| from + AGE <= now) {
            let note = self.notes[id].clone();
            if !note.placed {
                continue;
            }
            let mut feeds: Vec<_> = note.feeds.iter().filter(|feed| feed.is_wide()).cloned().collect();
            let mut users: Vec<_> = note
                .feeds
                .iter()
                .filter(|feed| !feed.is_wide())
                .cloned()
                .collect();
            users.extend(note.redriven.iter().map(|user| own(user)));
            users.sort();
            feeds.extend(users);
            for feed in feeds {
                let at = self.feeds[&feed]
                    .ids
                    .iter()
                    .rposition(|at| at.as_deref() == Some(id));
                if let Some(at) = at {
                    self.trim(&feed, at + 2);
                }
            }
        }
        for (_, id) in ages.iter().filter(|(from, _)| from + AUDIT <= now) {
            self.notes.remove(id);
            self.homes.retain(|(of, _), _| of != id);
            self.states.retain(|(of, _), _| of != id);
            self.dismissed.retain(|(of, _)| of != id);
            self.letters.retain(|(_, of, _)| of != id);
        }
        while let Some((&(end, ref feed), &offset)) = self.marks.first_key_value() {
            if end + AGE > self.now {
                break;
            }
            let feed = feed.clone();
            self.marks.pop_first();
            self.trim(&feed, offset + 1);
        }
    }

    fn is_held(&self, feed: &FeedId, offset: usize) -> bool {
        self.feeds
            .get(feed)
            .is_some_and(|log| offset > log.first && offset <= log.entries.len())
    }

    /// Who has a state of what stands in this feed.
    fn readers(&self, feed: &FeedId, id: &str) -> Vec<String> {
        match feed {
            FeedId::User(user) => vec![user.to_string()],
            FeedId::Topic(_) => {
                let homes = self.homes.iter();
                let here = homes.filter(|((of, user), home)| {
                    of == id && *home == feed && !self.notes[id].redriven.contains(user)
                });
                here.map(|((_, user), _)| user.clone()).collect()
            }
            FeedId::All => USERS
                .iter()
                .map(|user| (*user).to_owned())
                .filter(|user| {
                    let note = &self.notes[id];
                    !note.exclude.contains(user) && !note.redriven.contains(user)
                })
                .collect(),
        }
    }

    fn publish(&mut self, id: &str, note: Note) -> Result<bool, ()> {
        if let Some(known) = self.notes.get(id) {
            return if known.content == note.content {
                Ok(true)
            } else {
                Err(())
            };
        }
        self.notes.insert(id.to_owned(), note.clone());
        for feed in &note.feeds {
            for user in self.readers(feed, id) {
                self.states.insert((id.to_owned(), user), State::Pending);
            }
        }
        match note.deliver_at {
            Some(at) => drop(self.due.insert((at, 1, id.to_owned(), String::new()))),
            None => self.place(id),
        }
        if let Some(at) = note.expires_at {
            self.due.insert((at, 2, id.to_owned(), String::new()));
        }
        Ok(false)
    }

    fn place(&mut self, id: &str) {
        let note = self.notes.get_mut(id).unwrap();
        note.placed = true;
        let mut feeds = note.feeds.clone();
        let key = note.collapse;
        if note.deliver_at.is_some() && !feeds.iter().any(FeedId::is_wide) {
            feeds.sort();
        }
        let exclude = note.exclude.clone();
        for feed in feeds {
            if let Some(key) = key
                && let Some(&offset) = self.collapse.get(&(feed.clone(), key))
                && self.is_held(&feed, offset)
            {
                let old = self.feeds[&feed].ids[offset - 1].clone().unwrap();
                self.withdraw(&feed, offset, &old, "collapsed", State::Cancelled);
            }
            let offset = self.append(&feed, id.to_owned(), Some(id));
            for user in USERS.map(str::to_owned) {
                let is_member = self.members.contains(&(feed.clone(), user.clone()));
                let key = (id.to_owned(), user);
                if is_member && !exclude.contains(&key.1) && !self.homes.contains_key(&key) {
                    self.homes.insert(key.clone(), feed.clone());
                    self.states.insert(key, State::Pending);
                }
            }
            if let Some(key) = key {
                self.collapse.insert((feed, key), offset);
            }
        }
    }

    /// What is told of one that waits for its time, or never came, to those who are members now.
    fn prospect(&self, id: &str, user: &str) -> Option<State> {
        let note = self.notes.get(id).filter(|note| !note.placed)?;
        let is_member = |feed: &FeedId| self.members.contains(&(feed.clone(), user.to_owned()));
        let is_for = note.feeds.iter().any(is_member) && !note.exclude.iter().any(|one| one == user);
        let expired = note.expires_at.is_some_and(|end| end <= self.now);
        is_for.then_some(match (note.cancelled, note.cancelled_in_time) {
            (true, true) => State::Cancelled,
            (true, false) => State::Expired,
            (false, _) if expired => State::Expired,
            (false, _) => State::Pending,
        })
    }

    fn withdraw(&mut self, feed: &FeedId, offset: usize, id: &str, reason: &str, to: State) -> u64 {
        let mut changed = 0;
        let mut tell = false;
        // What collapses it may itself be late: by now its time has run out.
        let expired = self.notes[id].expires_at.is_some_and(|end| end <= self.now);
        let by_itself = (reason, to);
        let pending = self.readers(feed, id).into_iter();
        let pending = pending.filter(|user| self.states[&(id.to_owned(), user.clone())] == State::Pending);
        let (reason, to) = if expired && (feed.is_wide() || pending.count() > 0) {
            ("expired", State::Expired)
        } else {
            (reason, to)
        };
        if feed.is_wide() {
            if !self.is_held(feed, offset) || !self.withdrawn.insert((feed.clone(), offset)) {
                return 0;
            }
            tell = true;
        }
        for user in self.readers(feed, id) {
            let key = (id.to_owned(), user);
            match self.states[&key] {
                State::Pending => {
                    self.states.insert(key, to);
                    changed += 1;
                    tell = true;
                }
                State::Dead if !feed.is_wide() && by_itself.1 == State::Cancelled => {
                    self.states.insert(key.clone(), State::Cancelled);
                    self.no_longer_dead(&key.1, id);
                    changed += 1;
                    tell = true;
                }
                State::Delivered if !feed.is_wide() && to == State::Cancelled => {
                    tell |= self.dismissed.insert(key);
                }
                _ => {}
            }
        }
        if tell {
            self.append(feed, format!("withdrawn {id} at {offset} ({reason})"), None);
        }
        changed
    }

    fn withdraw_all(&mut self, id: &str, reason: &str, to: State) -> u64 {
        let note = self.notes[id].clone();
        let mut feeds = note.feeds.clone();
        feeds.sort();
        feeds.extend(note.redriven.iter().map(|user| own(user)));
        let mut changed = 0;
        for feed in feeds {
            if note.placed {
                let at = self.feeds[&feed]
                    .ids
                    .iter()
                    .rposition(|at| at.as_deref() == Some(id))
                    .unwrap();
                changed += self.withdraw(&feed, at + 1, id, reason, to);
            } else {
                for user in self.readers(&feed, id) {
                    let state = self.states.get_mut(&(id.to_owned(), user)).unwrap();
                    if *state == State::Pending {
                        *state = to;
                        changed += 1;
                    }
                }
            }
        }
        changed
    }

    fn cancel(&mut self, id: &str) -> Option<Option<u64>> {
        let note = self.notes.get_mut(id)?;
        let wide = note.feeds.iter().any(FeedId::is_wide);
        let again = std::mem::replace(&mut note.cancelled, true);
        if !again {
            note.cancelled_in_time = note.expires_at.is_none_or(|end| end > self.now);
        }
        let changed = if again {
            0
        } else {
            self.withdraw_all(id, "cancelled", State::Cancelled)
        };
        Some((!wide).then_some(changed))
    }

    fn pass(&mut self, span: u64) {
        self.now += span;
        while let Some((at, kind, id, user)) = self.due.first().cloned() {
            if at > self.now {
                break;
            }
            self.due.pop_first();
            let Some(note) = self.notes.get(&id) else {
                continue;
            };
            let expired = note.expires_at.is_some_and(|end| end <= self.now);
            match kind {
                _ if note.cancelled => {}
                3 => self.attempts_ended(&id, &user),
                1 if !expired => self.place(&id),
                1 => {}
                _ => drop(self.withdraw_all(&id, "expired", State::Expired)),
            }
        }
        self.grow_old();
    }

    fn settle_one(&mut self, user: &str, id: &str, read: bool) -> bool {
        let Some(state) = self.states.get_mut(&(id.to_owned(), user.to_owned())) else {
            return false;
        };
        let was = *state;
        let to = match (read, was) {
            (false, State::Pending | State::Dead) => State::Delivered,
            (true, State::Pending | State::Dead | State::Delivered) => State::Read,
            _ => return false,
        };
        *state = to;
        if was == State::Dead {
            self.no_longer_dead(user, id);
        }
        if self.notes[id].first && was != State::Delivered {
            let (_, at) = self.place_of(id, user).unwrap();
            self.dismissed.insert((id.to_owned(), user.to_owned()));
            self.append(&own(user), format!("withdrawn {id} at {at} (taken)"), None);
        }
        true
    }

    fn settle(&mut self, user: &str, ids: Vec<String>, read: bool) -> u64 {
        let mut changed = Vec::new();
        for id in ids {
            if self.notes.get(&id).is_some_and(|note| note.placed) && self.settle_one(user, &id, read) {
                changed.push(id);
            }
        }
        if read && !changed.is_empty() {
            self.append(&own(user), format!("read {}", changed.join(" ")), None);
        }
        changed.len() as u64
    }

    fn through(&mut self, user: &str, feed: &FeedId, offset: usize, read: bool) -> u64 {
        if !self.is_held(feed, offset) {
            return 0;
        }
        let mut changed = 0;
        // What was attempted and then given up is covered by the client's word, also where it was trimmed.
        for (of, id, attempted) in self.letters.clone() {
            let place = self.place_of(&id, user);
            let here = place.is_some_and(|(at, place)| at == *feed && place <= offset);
            if of == user && attempted && here && !read && !self.notes[&id].first {
                changed += u64::from(self.settle_one(user, &id, false));
            }
        }
        let log = &self.feeds[feed];
        let held = (log.first..offset).filter_map(|at| Some((log.ids[at].clone()?, at + 1)));
        let mut ids = Vec::new();
        for (id, at) in held {
            let here = self.place_of(&id, user) == Some((feed.clone(), at));
            let dead = self.states.get(&(id.clone(), user.to_owned())) == Some(&State::Dead);
            if here && !self.notes[&id].first && (read || !dead) {
                ids.push(id);
            }
        }
        changed + self.settle(user, ids, read)
    }

    fn trim(&mut self, feed: &FeedId, before: usize) {
        let log = self.log(feed);
        let first = log.first.max(before.saturating_sub(1).min(log.entries.len()));
        let before = log.first;
        let gone: Vec<_> = log.ids[before..first].to_vec();
        log.first = first;
        let gone = gone
            .into_iter()
            .enumerate()
            .filter_map(|(n, id)| Some((before + n + 1, id?)));
        for (at, id) in gone {
            for user in self.readers(feed, &id) {
                if self.place_of(&id, &user) != Some((feed.clone(), at)) {
                    continue;
                }
                let state = self.states.get_mut(&(id.clone(), user)).unwrap();
                if *state == State::Pending {
                    *state = State::Expired;
                }
            }
        }
    }
}

/// A session that reads forward in pages, with its own cursor.
#[derive(Default)]
struct Session {
    places: BTreeMap<FeedId, Position>,
}

struct World {
    kit: Kit,
    model: Model,
    sessions: BTreeMap<String, Session>,
    floors: BTreeMap<(String, FeedId), u64>,
}

impl World {
    async fn step(&mut self, (kind, a, b, c): Step) {
        let user = USERS[usize::from(a) % USERS.len()];
        let id = format!("n-{}", usize::from(b) % IDS);
        let feed = match c % 4 {
            0 => FeedId::All,
            1 => topic(),
            2 if b > 128 => named("s"),
            _ => own(user),
        };
        match kind % 20 {
            0..=5 => self.publish(&id, a, c, kind).await,
            6 => {
                let ids = [id, format!("n-{}", usize::from(c) % IDS)];
                let names = [ids[0].as_str(), ids[1].as_str()];
                let found = self.kit.ack(user, &names).await.unwrap();
                assert_eq!(found, self.model.settle(user, ids.to_vec(), false), "acked");
            }
            7 => {
                let found = self.kit.read(user, &[&id]).await.unwrap();
                assert_eq!(found, self.model.settle(user, vec![id], true), "read");
            }
            8 | 9 => {
                let read = kind % 20 == 9 && c > 128;
                self.through(user, &feed, usize::from(b) % 12, read, c & 8 == 0)
                    .await
            }
            10 => {
                self.kit.pass(Millis(u64::from(b % 30))).await;
                self.model.pass(u64::from(b % 30));
            }
            11 => {
                let found = self.kit.cancel(&id).await.unwrap();
                assert_eq!(found, self.model.cancel(&id), "cancelled {id}");
            }
            12 if c > 100 => {
                self.kit.engine().trim(&feed, u64::from(b % 8)).await.unwrap();
                self.model.trim(&feed, usize::from(b % 8));
            }
            13 if c > 100 => drop(self.kit.restart().await),
            14 | 16 | 17 => self.attempt(user, &feed, b, kind % 20 == 14).await,
            18 | 19 => {
                self.moves(user, if b % 3 == 0 { "s" } else { "t" }, c < 160)
                    .await
            }
            15 => {
                let letters = self.kit.letters(&DeadLetterFilter::default()).await.unwrap();
                let at = usize::from(b) % letters.len().max(1);
                if let Some(letter) = letters.get(at) {
                    let found = self.kit.engine().redrive(vec![letter.id]).await.unwrap();
                    assert_eq!(found, [self.model.redrive(at)], "redriven {letter:?}");
                }
            }
            _ => self.resume(user, usize::from(b % 4)).await,
        }
    }

    async fn moves(&mut self, user: &str, to: &str, joins: bool) {
        let row = (named(to), user.to_owned());
        let changed = match joins {
            true => self.model.members.insert(row),
            false => self.model.members.remove(&row),
        };
        assert_eq!(
            self.kit.moves(user, to, joins).await.unwrap(),
            changed,
            "{user} and {to}"
        );
    }

    /// Attempts on one entry that is held: one, or as often as is allowed.
    async fn attempt(&mut self, user: &str, feed: &FeedId, b: u8, once: bool) {
        let log = self.model.log(feed);
        let held = log.entries.len() - log.first;
        let offset = log.first + 1 + usize::from(b) % held.max(1);
        for _ in 0..if once { 1 } else { ATTEMPTS } {
            self.kit.attempt(user, feed, offset as u64).await.unwrap();
            self.model.attempt(user, feed, offset);
            if !once {
                self.kit.pass(Millis(TIMEOUT)).await;
                self.model.pass(TIMEOUT);
            }
        }
    }

    async fn publish(&mut self, id: &str, a: u8, c: u8, kind: u8) {
        let make = Make::new(id).data(format!("{}", a % 3));
        let mut make = match c % 5 {
            0 if a % 3 == 1 => make.topics(&["t", "s"]),
            0 => make.topics(&["t"]),
            1 => make,
            2 => make.users(USERS),
            n => make.user(USERS[usize::from(n) % USERS.len()]),
        };
        if a.is_multiple_of(5) {
            make = make.exclude(&["bob"]);
        }
        let collapse = (c % 7 < 3).then_some(c % 2);
        if let Some(key) = collapse {
            make = make.collapse(&format!("k{key}"));
        }
        let first = is_first(a, c);
        if first {
            make = make.first();
        }
        // As it is kept, by default; or less; or for ever.
        let ttl = match a % 4 {
            0 | 3 => Some(AGE),
            1 => Some(u64::from(kind % 40) + 1),
            _ => None,
        };
        if let Some(ttl) = ttl {
            make = make.ttl(Millis(ttl));
        }
        let delay = (a % 6 == 2).then_some(u64::from(c % 30) + 1);
        if let Some(delay) = delay {
            make = make.deliver_in(Millis(delay));
        }
        let publication = make.publication(self.kit.now());
        let exclude = publication.notification.exclude.iter();
        let note = Note {
            content: publication.content,
            feeds: publication.feeds.clone(),
            exclude: exclude.map(ToString::to_string).collect(),
            collapse,
            expires_at: ttl.map(|ttl| self.model.now + ttl),
            deliver_at: delay.map(|delay| self.model.now + delay),
            placed: false,
            cancelled: false,
            cancelled_in_time: false,
            first,
            kept_from: self.model.now + delay.unwrap_or(0),
            redriven: BTreeSet::new(),
        };
        let found = self.kit.publish(make).await;
        let found = found.map(|receipt| receipt.repeated).map_err(|_| ());
        assert_eq!(found, self.model.publish(id, note), "published {id}");
    }

    /// Nobody counts what evidence changes: floors move without a look at each entry.
    async fn through(&mut self, user: &str, feed: &FeedId, offset: usize, read: bool, is_counted: bool) {
        let place = self.kit.place(feed, offset as u64).await.unwrap_or(Position {
            offset: offset as u64,
            ..Position::START
        });
        let kind = if read {
            SettleKind::Read
        } else {
            SettleKind::Delivered
        };
        let target = SettleTarget::Through(vec![(feed.clone(), place)]);
        let changed = self.model.through(user, feed, offset, read);
        if is_counted {
            let found = self.kit.settle(user, kind, target).await.unwrap();
            assert_eq!(found, changed, "through {offset} of {feed}");
        } else {
            let batch = vec![settlement(user, kind, target).unwrap()];
            self.kit.engine().settle(batch, crate::Sync::Lazy).await.unwrap();
            // It is done before what is waited for next.
            self.kit.pass(Millis(0)).await;
            self.model.pass(0);
        }
    }

    /// Goes on from the session's cursor by a few pages, then it is gone again.
    async fn resume(&mut self, user: &str, pages: usize) {
        let session = self.sessions.entry(user.to_owned()).or_default();
        for feed in [own(user), FeedId::All, topic()] {
            let log = self.model.feeds.entry(feed.clone()).or_default();
            let mut at = session.places.get(&feed).copied().unwrap_or(Position::START);
            let held = self.kit.engine().holds(&[(feed.clone(), at)]).await.unwrap()[0];
            assert_eq!(
                held,
                at.offset as usize >= log.first,
                "whether {at:?} of {feed} is held"
            );
            if !held {
                at = Position {
                    offset: log.first as u64,
                    ..Position::START
                };
            }
            for _ in 0..pages {
                let limit = ReadLimit {
                    entries: 3,
                    bytes: usize::MAX,
                };
                let page = self.kit.engine().read(&feed, at.offset, limit).await.unwrap();
                for entry in page.entries {
                    assert_eq!(entry.position.offset, at.offset + 1, "the next entry of {feed}");
                    at = entry.position;
                    let id = entry
                        .notification()
                        .map(|notification| notification.id.to_string());
                    assert_eq!(
                        id,
                        log.ids[at.offset as usize - 1],
                        "the entry at {at:?} of {feed}"
                    );
                }
            }
            // After a gap only an entry gives it a place again.
            if at.epoch != Position::START.epoch {
                session.places.insert(feed, at);
            }
        }
    }

    async fn compare(&mut self) {
        let letters = self.kit.letters(&DeadLetterFilter::default()).await.unwrap();
        let found: Vec<_> = letters
            .iter()
            .map(|letter| {
                let user = letter.user.as_ref().unwrap().to_string();
                let id = letter.notification.as_ref().unwrap().to_string();
                (user, id, letter.attempts > 0)
            })
            .collect();
        assert_eq!(found, self.model.letters, "dead letters");
        assert_eq!(
            self.kit.engine().count_dead_letters().await.unwrap(),
            found.len() as u64
        );
        for (feed, log) in &self.model.feeds {
            assert_eq!(
                self.kit.told(feed).await.unwrap(),
                log.entries[log.first..],
                "{feed}"
            );
        }
        for id in self.model.notes.keys() {
            for user in USERS {
                let wanted = self.model.states.get(&(id.clone(), user.to_owned())).copied();
                let wanted = wanted.or_else(|| self.model.prospect(id, user));
                assert_eq!(self.kit.state(id, user).await.unwrap(), wanted, "{id} for {user}");
            }
        }
        for user in USERS {
            for feed in [own(user), FeedId::All, topic(), named("s")] {
                self.compare_inbox(user, &feed).await;
            }
            let engine = self.kit.engine();
            super::hot::agrees::judge(&engine, user, self.kit.now()).await;
        }
        // One user after the other: each step asks a little.
        let user = USERS[self
            .model
            .feeds
            .values()
            .map(|log| log.entries.len())
            .sum::<usize>()
            % USERS.len()];
        let (engine, topics) = (self.kit.engine(), [topic(), named("s")]);
        super::hot::agrees::judge_topics(&engine, user, &topics, self.kit.now()).await;
    }

    async fn compare_inbox(&mut self, user: &str, feed: &FeedId) {
        let page = self.kit.inbox(user, feed).await.unwrap();
        let is_topic = matches!(feed, FeedId::Topic(_));
        if is_topic && !self.model.members.contains(&(feed.clone(), user.to_owned())) {
            // Who left stands nowhere, but has what was there before.
            self.floors.remove(&(user.to_owned(), feed.clone()));
        }
        let before = self.floors.insert((user.to_owned(), feed.clone()), page.floor);
        assert!(
            before.unwrap_or(0) <= page.floor,
            "the floor of {user} in {feed} went back"
        );
        assert!(
            page.floor <= page.span.head.offset,
            "the floor of {user} in {feed} is above the head"
        );
        for one in page.entries {
            let (offset, Some(notification)) = (one.entry.position.offset, one.entry.notification()) else {
                continue;
            };
            let key = (notification.id.to_string(), user.to_owned());
            if is_topic {
                let home = self.model.homes.get(&key);
                assert_eq!(
                    one.shown,
                    home == Some(feed),
                    "whether {key:?} is shown in {feed}"
                );
                if !one.shown {
                    continue;
                }
            }
            if self
                .model
                .moved
                .contains(&(user.to_owned(), feed.clone(), offset as usize))
            {
                assert_eq!(
                    (one.state, one.dismissed),
                    (Some(State::Dead), true),
                    "the old place of {key:?}"
                );
                continue;
            }
            let Some(wanted) = self.model.states.get(&key) else {
                assert!(
                    notification.excludes(&UserId::new(user).unwrap()),
                    "{key:?} has no state"
                );
                continue;
            };
            assert_eq!(one.state, Some(*wanted), "{key:?} in {feed}");
            assert!(
                *wanted != State::Pending || offset > page.floor || self.model.notes[&key.0].first,
                "{key:?} is pending below the floor"
            );
            let dismissed = self.model.dismissed.contains(&key)
                || self.model.withdrawn.contains(&(feed.clone(), offset as usize));
            assert_eq!(one.dismissed, dismissed, "whether {key:?} is taken off");
        }
    }
}

fn is_first(a: u8, c: u8) -> bool {
    a % 7 == 3 && c > 80
}

fn live(steps: &[Step], on_disk: bool) {
    live_over(steps, |rules| Box::new(Here::with(on_disk, Kit::BEGIN, rules)));
}

/// The same over any engine that is opened so.
pub(crate) fn live_over(steps: &[Step], open: impl FnOnce(Rules) -> Box<dyn Instance>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let instance = open(rules());
        let mut world = World {
            kit: Kit::new(instance),
            model: Model::default(),
            sessions: BTreeMap::new(),
            floors: BTreeMap::new(),
        };
        for step in steps {
            world.step(*step).await;
            world.compare().await;
        }
    });
}

/// How many sequences are tried; more where the variable says so.
pub(crate) fn cases(usual: u32) -> u32 {
    let asked = std::env::var("MODEL_CASES").ok();
    asked.map_or(usual, |asked| asked.parse().expect("a number of cases"))
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(any::<Step>(), 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(150), max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn in_memory_it_does_what_the_model_does(steps in steps()) {
        live(&steps, false);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(25), max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn on_disk_it_does_what_the_model_does(steps in steps()) {
        live(&steps, true);
    }
}

/// A topic's notification that its member was given up on can be redriven, though it was replaced in another topic.
#[test]
fn what_was_replaced_in_another_topic_is_redriven() {
    let steps = [
        (18, 44, 3, 0),
        (60, 10, 0, 0),
        (40, 8, 1, 30),
        (116, 140, 129, 22),
        (175, 0, 0, 0),
    ];
    live(&steps, false);
}
