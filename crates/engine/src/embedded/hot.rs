//! What sessions ask first, in memory: where feeds stand, a user's floors, and the newest entries. A hit spares a
//! look at the store, and a change of threads; what is not here, or not simple, is read from the store as before.
//!
//! Invariant: what is answered is what a view of the store would have said at one moment, not older than the
//! question. It holds because every commit goes through [`Watched`]: before the commit, what it will change is
//! marked as moving and not looked at; after it, each changed row is followed, or the slot is dropped. Whoever
//! fills a slot puts a number into it before taking the view to fill it from; a commit that begins meanwhile
//! takes the number away, and one that was under way is known by its [`Moving`] bits.
//!
//! What an entry says of its notification is not watched: that never changes while the entry stands. Nor is what
//! erasing leaves behind: it counts only where no entry and no word of trimming does, and both are watched.
//! Of several topics of one answer each is as of a moment of its own.

#[cfg(test)]
pub(super) mod agrees;
mod ground;
mod known;
mod members;
mod slots;
mod tail;
mod topics;
mod watched;

pub(super) use ground::{Asked, Found, Ground};
pub(super) use known::Outline;
pub(super) use watched::Watched;

use super::StoreFault;
use super::store::{Batch, Table, View};
use crate::{ReadLimit, Starts, StartsWanted};
use known::{Known, Owner, Place, Slot};
use postrider_model::{Entry, FeedId, FeedSpan, FeedStart, InboxPage, Standing, Timestamp, Topic, UserId};
use slots::{Fate, Slots};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tail::Tail;
use topics::TopicSlot;

/// Bytes that users, and topics, may take.
const MAX_USER_BYTES: usize = 48 << 20;
const MAX_TOPIC_BYTES: usize = 16 << 20;
/// Parts of each, with a lock of their own. A topic takes up to half a megabyte, so they are few.
const USER_STRIPES: usize = 64;
const TOPIC_STRIPES: usize = 8;
/// Bits that name the users whom a commit under way changes.
const MOVING_BITS: usize = 1 << 15;

/// What is in memory.
pub(super) struct Hot {
    users: Slots<UserId, Slot>,
    topics: Slots<Topic, TopicSlot>,
    all: Mutex<All>,
    moving: Moving,
    fillings: AtomicU64,
    /// Nothing is ever kept here.
    off: bool,
}

/// The feed `all`, which every inbox has.
#[derive(Default)]
struct All {
    /// A commit that changes it is under way.
    moving: bool,
    /// How many commits have changed it.
    version: u64,
    tail: Option<Tail>,
}

/// The users whom the commit under way changes; another may be taken for one of them.
struct Moving(Box<[AtomicU64]>);

/// Who a commit changes of those that are in memory.
pub(super) struct Touched<'b> {
    users: Vec<&'b str>,
    topics: Vec<&'b str>,
    all: bool,
}

/// The right to fill a user's slot with what is read from a view that is taken after this.
pub(super) struct Filling<'h> {
    hot: &'h Hot,
    user: &'h UserId,
    number: u64,
}

impl Hot {
    pub fn new() -> Hot {
        Hot {
            users: Slots::new(MAX_USER_BYTES, USER_STRIPES),
            topics: Slots::new(MAX_TOPIC_BYTES, TOPIC_STRIPES),
            all: Mutex::default(),
            moving: Moving((0..MOVING_BITS / 64).map(|_| AtomicU64::new(0)).collect()),
            fillings: AtomicU64::new(0),
            off: false,
        }
    }

    /// One that never knows anything: for a store that changes without it.
    pub fn off() -> Hot {
        Hot {
            off: true,
            ..Hot::new()
        }
    }

    /// Where a user's feeds stand, if all of it is here.
    pub fn starts(&self, wanted: &StartsWanted) -> Option<Starts> {
        let user = &wanted.user;
        self.with(user, |known, all| {
            let starts = wanted.places.iter().map(|(feed, place)| {
                if let FeedId::Topic(topic) = feed {
                    return self.topic_start(topic, *place);
                }
                let (tail, stands) = parts(known, all, user, feed)?;
                let held = match place {
                    None => None,
                    Some(place) => Some(tail.holds(*place)?),
                };
                (!stands.open).then_some(FeedStart {
                    span: tail.span(),
                    floor: stands.floor,
                    begins: stands.floor,
                    held,
                })
            });
            Some(Starts {
                feeds: starts.collect::<Option<_>>()?,
                members: self.member_starts(known, wanted)?,
                state: None,
            })
        })
    }

    /// A user's share of what comes after a place, if all of it is here.
    pub fn page(
        &self,
        user: &UserId,
        feed: &FeedId,
        member: bool,
        after: u64,
        limit: ReadLimit,
        now: Timestamp,
    ) -> Option<InboxPage> {
        match feed {
            FeedId::Topic(topic) if member => return self.member_page(user, topic, after, limit, now),
            FeedId::Topic(topic) => {
                // A session topic carries no delivery state.
                let found = self.in_topic(topic, |tail| Some((tail.span(), tail.page(after, limit)?)));
                let (span, entries) = found?;
                // Which of several topics it is shown in only the store can tell.
                let is_simple = !entries.iter().any(|entry| entry.is_for_several());
                return is_simple.then(|| crate::inbox::share(entries, span, &Standing::default(), now));
            }
            FeedId::User(_) | FeedId::All => {}
        }
        let (span, floor, entries) = self.with(user, |known, all| {
            let (tail, stands) = parts(known, all, user, feed)?;
            let entries = tail.page(after, limit)?;
            let first = entries.first().map(|entry| entry.position.offset);
            let told = stands.marked.max(stands.attempted);
            let is_simple = !stands.open && first.is_none_or(|first| first > told);
            is_simple.then_some((tail.span(), stands.floor, entries))
        })?;
        let standing = Standing {
            floor,
            ..Standing::default()
        };
        Some(crate::inbox::share(entries, span, &standing, now))
    }

    /// Looks at a user and at `all` as of one moment.
    fn with<R>(&self, user: &UserId, look: impl FnOnce(&Known, &Tail) -> Option<R>) -> Option<R> {
        let found = self.users.look(user.as_str(), true, |slot| {
            let found = slot.known().and_then(|known| {
                let all = self.all();
                let tail = all.tail.as_ref().filter(|_| !all.moving)?;
                match known {
                    Some(known) => look(known, tail),
                    None => look(&Known::nothing(), tail),
                }
            });
            (Fate::Keep, found)
        });
        found.flatten()
    }

    /// Begins to fill a user's slot, unless it is filled, or about to be changed.
    pub fn filling<'h>(&'h self, user: &'h UserId) -> Option<Filling<'h>> {
        if self.off {
            return None;
        }
        let number = self.fillings.fetch_add(1, Ordering::Relaxed);
        if !self.users.add(user.clone(), Slot::Filling(number)) {
            return None;
        }
        let filling = Filling {
            hot: self,
            user,
            number,
        };
        (!self.moving.has(self.users.hash(user.as_str()))).then_some(filling)
    }

    /// Which version of `all` a view that is taken after this shows at least; `None` while it changes.
    pub fn version_of_all(&self) -> Option<u64> {
        let all = self.all();
        (!all.moving && !self.off).then_some(all.version)
    }

    /// Whether nothing is known of `all`.
    pub fn lacks_all(&self) -> bool {
        self.all().tail.is_none()
    }

    /// What `all` held, and its newest entries, in a view that was taken at this version.
    pub fn fill_all(&self, version: u64, span: FeedSpan, entries: &[Arc<Entry>]) {
        let mut all = self.all();
        if all.moving || all.version != version {
            return;
        }
        Tail::fill(&mut all.tail, span, entries);
    }

    /// A commit begins: what it changes is not looked at until it has ended.
    fn begin<'b>(&self, batch: &'b Batch) -> Touched<'b> {
        let mut touched = Touched {
            users: Vec::new(),
            topics: Vec::new(),
            all: false,
        };
        let (mut last, mut topics) = (None, Vec::new());
        let mut touch = |user: &'b str| {
            if last.replace(user) == Some(user) {
                return;
            }
            self.moving.add(self.users.hash(user));
            let is_there = self.users.look(user, false, |slot| {
                let fate = slot.begin();
                (fate, fate == Fate::Keep)
            });
            if is_there == Some(true) {
                touched.users.push(user);
            }
        };
        for table in [Table::Entries, Table::Feeds] {
            for row in batch.table(table).keys() {
                match known::owner(row) {
                    Some(Owner::User(user)) => touch(user),
                    Some(Owner::All) => touched.all = true,
                    Some(Owner::Topic(name)) => topics.push(name),
                    None => {}
                }
            }
        }
        for table in [Table::Floors, Table::Marks, Table::Opens, Table::Attempts] {
            batch
                .table(table)
                .keys()
                .filter_map(|row| known::user_of(row))
                .for_each(&mut touch);
        }
        let members = batch.table(Table::Memberships);
        members
            .keys()
            .filter_map(|row| std::str::from_utf8(row).ok())
            .for_each(&mut touch);
        touched.users.sort_unstable();
        touched.users.dedup();
        topics.sort_unstable();
        topics.dedup();
        topics.retain(|name| self.begin_topic(name));
        touched.topics = topics;
        if touched.all {
            let mut all = self.all();
            (all.moving, all.version) = (true, all.version + 1);
        }
        touched
    }

    /// It ended. Where it failed nobody knows what the store will say.
    fn end(&self, touched: &Touched<'_>, batch: &Batch, is_done: bool) {
        for user in &touched.users {
            self.users.look(user, false, |slot| {
                let fate = if is_done {
                    slot.end(user, batch)
                } else {
                    Fate::Drop
                };
                (fate, ())
            });
        }
        for name in &touched.topics {
            self.end_topic(name, batch, is_done);
        }
        if touched.all {
            let mut all = self.all();
            all.moving = false;
            let feed = super::codec::key::feed(&FeedId::All);
            let followed = all
                .tail
                .as_mut()
                .map(|tail| known::follow_feed(tail, &feed, batch));
            if !is_done || followed.is_some_and(|followed| followed.is_err()) {
                all.tail = None;
            }
        }
        self.moving.clear();
    }

    /// These stand in rows that a commit wrote, which has ended.
    pub fn appended(&self, entries: &[Arc<Entry>]) {
        for entry in entries {
            match &entry.feed {
                FeedId::User(user) => {
                    // It counts as used: what grows must stand where it is bounded.
                    self.users.look(user.as_str(), true, |slot| {
                        if let Slot::Filled {
                            known: Some(known), ..
                        } = slot
                        {
                            known.tail.push(entry);
                        }
                        (Fate::Keep, ())
                    });
                }
                FeedId::All => {
                    if let Some(tail) = &mut self.all().tail {
                        tail.push(entry);
                    }
                }
                FeedId::Topic(topic) => self.appended_to_topic(topic, entry),
            }
        }
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Filling<'_> {
    /// Reads what is to be known from a view that was taken after this began, and keeps it.
    pub fn fill(self, view: &dyn View) -> Result<Outline, StoreFault> {
        let known = Known::read(view, self.user)?;
        let outline = known.as_deref().map_or(Outline::default(), Known::outline);
        self.hot.users.look(self.user.as_str(), true, |slot| {
            if matches!(slot, Slot::Filling(number) if *number == self.number) {
                *slot = Slot::Filled { moving: false, known };
            }
            (Fate::Keep, ())
        });
        Ok(outline)
    }
}

impl Drop for Filling<'_> {
    /// Whatever was not filled is given up.
    fn drop(&mut self) {
        self.hot.users.look(self.user.as_str(), false, |slot| {
            let is_own = matches!(slot, Slot::Filling(number) if *number == self.number);
            (if is_own { Fate::Drop } else { Fate::Keep }, ())
        });
    }
}

impl Moving {
    fn has(&self, hash: u64) -> bool {
        let (word, bit) = self.place(hash);
        word.load(Ordering::SeqCst) & bit != 0
    }

    fn add(&self, hash: u64) {
        let (word, bit) = self.place(hash);
        word.fetch_or(bit, Ordering::SeqCst);
    }

    fn clear(&self) {
        self.0.iter().for_each(|word| word.store(0, Ordering::SeqCst));
    }

    fn place(&self, hash: u64) -> (&AtomicU64, u64) {
        // Other bits than those that choose the stripe.
        let at = (hash >> 32) as usize % MOVING_BITS;
        (&self.0[at / 64], 1 << (at % 64))
    }
}

/// A user's part in a feed of the own inbox; `None` for a topic.
fn parts<'k>(known: &'k Known, all: &'k Tail, user: &UserId, feed: &FeedId) -> Option<(&'k Tail, Place)> {
    match feed {
        FeedId::User(own) if own == user => Some((&known.tail, known.own)),
        FeedId::All => Some((all, known.all)),
        FeedId::User(_) | FeedId::Topic(_) => None,
    }
}
