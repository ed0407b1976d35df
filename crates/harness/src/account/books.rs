//! The entries of the account, and the checks over them.
//!
//! Invariant: notes are numbered in the order of sending, and a reader's first deliveries in the order of coming.
//!
//! It does not lock or wait; [`super::Account`] does.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::inbox::Notification;

/// Most violations kept word for word; the rest is counted.
const VIOLATIONS_KEPT: usize = 50;

#[derive(Default)]
pub(super) struct Books {
    pub(super) notes: Vec<Note>,
    pub(super) by_id: HashMap<String, usize>,
    pub(super) readers: Vec<ReaderBook>,
    pub(super) violations: Vec<String>,
    pub(super) violation_count: u64,
    pub(super) accepted: u64,
    pub(super) store_may_lose: bool,
}

pub(super) struct Note {
    pub(super) id: String,
    pub(super) publisher: usize,
    pub(super) data_hash: u64,
    pub(super) feeds: Vec<String>,
    pub(super) excluded: Vec<String>,
    pub(super) accepted: bool,
    /// Sent more than once until it was accepted.
    pub(super) is_retried: bool,
    pub(super) is_store_lost: bool,
}

#[derive(Default)]
pub(super) struct ReaderBook {
    pub(super) name: String,
    pub(super) user: String,
    pub(super) feeds: HashSet<String>,
    /// First deliveries, in order, as indices of notes.
    pub(super) firsts: Vec<usize>,
    pub(super) seen: HashSet<usize>,
    /// What came since the last cursor, so that a cut now may repeat it.
    pub(super) since_cursor: HashSet<usize>,
    /// What earlier sessions were sent after their last cursor, and no session has sent again.
    pub(super) repeatable: HashSet<usize>,
    /// Whether it acknowledges by itself, and what it has not.
    pub(super) is_explicit: bool,
    pub(super) unacked: HashSet<usize>,
    pub(super) repeats: u64,
    pub(super) resent: u64,
    pub(super) reconnects: u64,
    pub(super) gaps: u64,
    /// How many gaps it had been told when a note came last: whether one was told since.
    pub(super) gaps_when: HashMap<usize, u64>,
}

impl Note {
    pub(super) fn is_for(&self, reader: &ReaderBook) -> bool {
        self.feeds.iter().any(|f| reader.feeds.contains(f)) && !self.excluded.contains(&reader.user)
    }

    /// The one feed by which it reaches a reader; none if there are several.
    fn sole_feed(&self, reader: &ReaderBook) -> Option<&String> {
        let mut own = self.feeds.iter().filter(|f| reader.feeds.contains(*f));
        own.next().filter(|_| own.next().is_none())
    }
}

impl Books {
    /// The feed in whose order its place is judged.
    fn ordered_feed<'a>(&self, note: &'a Note, reader: &ReaderBook) -> Option<&'a String> {
        let is_open = self.store_may_lose && note.is_retried;
        note.sole_feed(reader).filter(|_| !is_open)
    }

    /// Enters a delivery and judges what can be judged at once.
    pub(super) fn received(&mut self, reader: usize, notification: &Notification) {
        let book = &mut self.readers[reader];
        let Some(&at) = self.by_id.get(&notification.id) else {
            let what = format!("{}: got {}, which was never sent", book.name, notification.id);
            return self.violate(what);
        };
        let note = &self.notes[at];
        let mut wrong = Vec::new();
        if !note.is_for(book) {
            wrong.push(format!(
                "{}: got {}, which is not for it ({:?})",
                book.name, note.id, note.feeds
            ));
        }
        if note.data_hash != hash(&notification.data) {
            wrong.push(format!(
                "{}: data of {} changed: {}",
                book.name, note.id, notification.data
            ));
        }
        let gaps_then = book.gaps_when.insert(at, book.gaps).unwrap_or_default();
        if book.seen.insert(at) {
            book.firsts.push(at);
        } else if book.repeatable.remove(&at) {
            book.repeats += 1;
        } else if book.is_explicit && notification.attempt.is_some() {
            book.resent += 1;
        } else {
            // For who has to find out what it was: by a failover, by a second attempt of the publisher, or by neither.
            wrong.push(format!(
                "{}: {} of {:?} repeated though it came before the cursor (reconnects so far: {}, gaps: {}, {gaps_then} of \
                 them when it came last, sent again by its publisher: {}, then accepted: {}, attempt {:?})",
                book.name,
                note.id,
                note.feeds,
                book.reconnects,
                book.gaps,
                note.is_retried,
                note.accepted,
                notification.attempt
            ));
        }
        book.since_cursor.insert(at);
        if book.is_explicit {
            book.unacked.insert(at);
        }
        wrong.into_iter().for_each(|what| self.violate(what));
    }

    /// After a gap a session begins with the oldest that is held.
    pub(super) fn gap(&mut self, reader: usize, what: &str) {
        let book = &mut self.readers[reader];
        book.gaps += 1;
        if self.store_may_lose {
            book.repeatable.extend(&book.seen);
            return;
        }
        let what = format!("{}: {what}", book.name);
        self.violate(what);
    }

    pub(super) fn violate(&mut self, what: String) {
        self.violation_count += 1;
        if self.violations.len() < VIOLATIONS_KEPT {
            self.violations.push(what);
        }
    }

    pub(super) fn expected<'a>(&'a self, reader: &'a ReaderBook) -> impl Iterator<Item = usize> + 'a {
        let own = move |(at, note): (usize, &Note)| (note.accepted && note.is_for(reader)).then_some(at);
        self.notes.iter().enumerate().filter_map(own)
    }

    pub(super) fn missing<'a>(&'a self, reader: &'a ReaderBook) -> impl Iterator<Item = usize> + 'a {
        self.expected(reader).filter(|at| !reader.seen.contains(at))
    }

    /// What is missing without an excuse, and what the store lost before the reader had it: that nobody can be told.
    /// Who had something that the store lost must have been told a gap.
    pub(super) fn find_lost(&mut self) -> (u64, u64) {
        let mut found = Vec::new();
        let mut excused = 0;
        for reader in &self.readers {
            for at in self.missing(reader) {
                let note = &self.notes[at];
                if note.is_store_lost {
                    excused += 1;
                    continue;
                }
                found.push(format!("{}: lost {} of {:?}", reader.name, note.id, note.feeds));
            }
            let had = reader.seen.iter().map(|at| &self.notes[*at]);
            if let Some(note) = had.filter(|note| note.is_store_lost).min_by_key(|note| &note.id)
                && reader.gaps == 0
            {
                let (name, id) = (&reader.name, &note.id);
                found.push(format!(
                    "{name}: had {id}, which the store lost, and was told no gap"
                ));
            }
        }
        let lost = found.len() as u64;
        found.into_iter().for_each(|what| self.violate(what));
        (lost, excused)
    }

    /// Notes are numbered in the order of sending, so that one publisher's must come in rising numbers.
    pub(super) fn find_publisher_disorder(&mut self) -> u64 {
        let mut found = Vec::new();
        for reader in &self.readers {
            let mut last: HashMap<(usize, &String), usize> = HashMap::new();
            for &at in &reader.firsts {
                let note = &self.notes[at];
                let Some(feed) = self.ordered_feed(note, reader) else {
                    continue;
                };
                let before = last.entry((note.publisher, feed)).or_insert(at);
                if *before > at {
                    let later = &self.notes[*before].id;
                    found.push(format!(
                        "{}: {} came after {later} in {feed}",
                        reader.name, note.id
                    ));
                }
                *before = (*before).max(at);
            }
        }
        let count = found.len() as u64;
        found.into_iter().for_each(|what| self.violate(what));
        count
    }

    /// The first reader of a feed sets its order; every other must agree on what both have.
    pub(super) fn find_disagreement(&mut self) -> u64 {
        let mut found = Vec::new();
        let mut order: HashMap<&String, (&String, HashMap<usize, usize>)> = HashMap::new();
        for reader in &self.readers {
            let mut own: HashMap<&String, Vec<usize>> = HashMap::new();
            for &at in &reader.firsts {
                if let Some(feed) = self.ordered_feed(&self.notes[at], reader) {
                    own.entry(feed).or_default().push(at);
                }
            }
            for (feed, list) in own {
                let places = || list.iter().enumerate().map(|(place, &at)| (at, place)).collect();
                let (first, places) = order.entry(feed).or_insert_with(|| (&reader.name, places()));
                let mut last = 0;
                for (at, &place) in list
                    .iter()
                    .filter_map(|at| places.get(at).map(|place| (at, place)))
                {
                    if place < last {
                        let id = &self.notes[*at].id;
                        found.push(format!(
                            "{} and {first} disagree on the place of {id} in {feed}",
                            reader.name
                        ));
                    }
                    last = last.max(place);
                }
            }
        }
        let count = found.len() as u64;
        found.into_iter().for_each(|what| self.violate(what));
        count
    }
}

/// Stands for the bytes of `data`.
pub(super) fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}
