//! Random sequences of everything users and publishers do, against a plain model: each feed a list, each
//! user's state of each notification a word that is changed when something happens to it. No floors, no
//! marks, nothing worked out later.

use super::tests::Here;
use crate::ReadLimit;
use crate::contract::{Instance, Kit, Make};
use postrider_model::{FeedId, Millis, Position, SettleKind, SettleTarget, State, Topic, UserId};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const USERS: [&str; 3] = ["ada", "bob", "cyd"];
const IDS: usize = 14;

/// What happens, as numbers that shrink well.
type Step = (u8, u8, u8, u8);

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
    dismissed: BTreeSet<(String, String)>,
    withdrawn: BTreeSet<(FeedId, usize)>,
    collapse: BTreeMap<(FeedId, u8), usize>,
    /// Times, first deliveries then expiries, by id.
    due: BTreeSet<(u64, u8, String)>,
}

fn own(user: &str) -> FeedId {
    FeedId::User(UserId::new(user).unwrap())
}

fn topic() -> FeedId {
    FeedId::Topic(Topic::new("t").unwrap())
}

impl Model {
    fn log(&mut self, feed: &FeedId) -> &mut Log {
        self.feeds.entry(feed.clone()).or_default()
    }

    fn append(&mut self, feed: &FeedId, text: String, id: Option<&str>) -> usize {
        let log = self.log(feed);
        log.entries.push(text);
        log.ids.push(id.map(str::to_owned));
        log.entries.len()
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
            FeedId::Topic(_) => Vec::new(),
            FeedId::All => USERS
                .iter()
                .map(|user| (*user).to_owned())
                .filter(|user| !self.notes[id].exclude.contains(user))
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
            Some(at) => drop(self.due.insert((at, 1, id.to_owned()))),
            None => self.place(id),
        }
        if let Some(at) = note.expires_at {
            self.due.insert((at, 2, id.to_owned()));
        }
        Ok(false)
    }

    fn place(&mut self, id: &str) {
        let note = self.notes.get_mut(id).unwrap();
        note.placed = true;
        let mut feeds = note.feeds.clone();
        let key = note.collapse;
        if note.deliver_at.is_some() {
            feeds.sort();
        }
        for feed in feeds {
            if let Some(key) = key
                && let Some(&offset) = self.collapse.get(&(feed.clone(), key))
                && self.is_held(&feed, offset)
            {
                let old = self.feeds[&feed].ids[offset - 1].clone().unwrap();
                self.withdraw(&feed, offset, &old, "collapsed", State::Cancelled);
            }
            let offset = self.append(&feed, id.to_owned(), Some(id));
            if let Some(key) = key {
                self.collapse.insert((feed, key), offset);
            }
        }
    }

    fn withdraw(&mut self, feed: &FeedId, offset: usize, id: &str, reason: &str, to: State) -> u64 {
        let mut changed = 0;
        let mut tell = false;
        // What collapses it may itself be late: by now its time has run out.
        let expired = self.notes[id].expires_at.is_some_and(|end| end <= self.now);
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
        let mut changed = 0;
        for feed in feeds {
            if note.placed {
                let at = self.feeds[&feed]
                    .ids
                    .iter()
                    .position(|at| at.as_deref() == Some(id))
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
        let changed = if again {
            0
        } else {
            self.withdraw_all(id, "cancelled", State::Cancelled)
        };
        Some((!wide).then_some(changed))
    }

    fn pass(&mut self, span: u64) {
        self.now += span;
        while let Some((at, kind, id)) = self.due.first().cloned() {
            if at > self.now {
                break;
            }
            self.due.pop_first();
            let note = &self.notes[&id];
            let expired = note.expires_at.is_some_and(|end| end <= self.now);
            match kind {
                _ if note.cancelled => {}
                1 if !expired => self.place(&id),
                1 => {}
                _ => drop(self.withdraw_all(&id, "expired", State::Expired)),
            }
        }
    }

    fn settle_one(&mut self, user: &str, id: &str, read: bool) -> bool {
        let Some(state) = self.states.get_mut(&(id.to_owned(), user.to_owned())) else {
            return false;
        };
        let to = match (read, *state) {
            (false, State::Pending) => State::Delivered,
            (true, State::Pending | State::Delivered) => State::Read,
            _ => return false,
        };
        *state = to;
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
        let ids = self.feeds[feed].ids[self.feeds[feed].first..offset]
            .iter()
            .flatten()
            .cloned()
            .collect();
        self.settle(user, ids, read)
    }

    fn trim(&mut self, feed: &FeedId, before: usize) {
        let log = self.log(feed);
        let first = log.first.max(before.saturating_sub(1).min(log.entries.len()));
        let gone: Vec<String> = log.ids[log.first..first].iter().flatten().cloned().collect();
        log.first = first;
        for id in gone {
            for user in self.readers(feed, &id) {
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
            _ => own(user),
        };
        match kind % 16 {
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
                self.through(user, &feed, usize::from(b) % 12, kind % 16 == 9 && c > 128)
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
            _ => self.resume(user, usize::from(b % 4)).await,
        }
    }

    async fn publish(&mut self, id: &str, a: u8, c: u8, kind: u8) {
        let make = Make::new(id).data(format!("{}", a % 3));
        let mut make = match c % 5 {
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
        let ttl = (a % 4 == 1).then_some(u64::from(kind % 40) + 1);
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
        };
        let found = self.kit.publish(make).await;
        let found = found.map(|receipt| receipt.repeated).map_err(|_| ());
        assert_eq!(found, self.model.publish(id, note), "published {id}");
    }

    async fn through(&mut self, user: &str, feed: &FeedId, offset: usize, read: bool) {
        if matches!(feed, FeedId::Topic(_)) {
            return;
        }
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
        let found = self.kit.settle(user, kind, target).await.unwrap();
        assert_eq!(
            found,
            self.model.through(user, feed, offset, read),
            "through {offset} of {feed}"
        );
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
                assert_eq!(self.kit.state(id, user).await.unwrap(), wanted, "{id} for {user}");
            }
        }
        for user in USERS {
            for feed in [own(user), FeedId::All] {
                self.compare_inbox(user, &feed).await;
            }
        }
    }

    async fn compare_inbox(&mut self, user: &str, feed: &FeedId) {
        let page = self.kit.inbox(user, feed).await.unwrap();
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
            let Some(wanted) = self.model.states.get(&key) else {
                assert!(
                    notification.excludes(&UserId::new(user).unwrap()),
                    "{key:?} has no state"
                );
                continue;
            };
            assert_eq!(one.state, Some(*wanted), "{key:?} in {feed}");
            assert!(
                *wanted != State::Pending || offset > page.floor,
                "{key:?} is pending below the floor"
            );
            let dismissed = self.model.dismissed.contains(&key)
                || self.model.withdrawn.contains(&(feed.clone(), offset as usize));
            assert_eq!(one.dismissed, dismissed, "whether {key:?} is taken off");
        }
    }
}

fn live(steps: &[Step], on_disk: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let instance: Box<dyn Instance> = Box::new(Here::open(on_disk, Kit::BEGIN));
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

fn steps() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(any::<Step>(), 1..70)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn in_memory_it_does_what_the_model_does(steps in steps()) {
        live(&steps, false);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn on_disk_it_does_what_the_model_does(steps in steps()) {
        live(&steps, true);
    }
}
