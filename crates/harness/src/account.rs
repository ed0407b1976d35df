//! The judge: keeps the books of what was published and accepted, and of what every reader got, and compares them.
//!
//! What is checked of each reader:
//! 1. everything of its own that was accepted has come, with the bytes of `data` as published;
//! 2. nothing has come that was not its own or was never sent;
//! 3. order: within a feed, what one publisher sent one after the other comes first in that order, and any two
//!    readers of a feed see the same first deliveries in the same order;
//! 4. a repeat is of something that came after the last cursor before a reconnect, once for each reconnect; where a
//!    reader acknowledges by itself ([`Account::explicit`]), also of what it had not acknowledged before a reconnect,
//!    and of what says itself that it is a further attempt;
//! 5. nobody is told a gap, unless the store may have lost its tail ([`Account::store_may_lose`]): then all that a
//!    reader had may come again after a gap, and what the store is known to have lost ([`Account::store_lost`]) may be
//!    missing, and who had some of that must have been told a gap.
//!
//! An id in several of a reader's feeds is left out of the order of each, since its place in one may be before its
//! place in the other. So is, where the store may have lost its tail, what was sent more than once until it was
//! accepted: a second time may have brought it back at another place.
//!
//! It does not talk to the server, and it holds ids and hashes only, never bodies.

use std::collections::HashSet;
use std::fmt::Write;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::inbox::Notification;

mod books;

use books::{Books, Note, ReaderBook, hash};

/// Whom a notification is for, as the account sees it.
#[derive(Clone, Debug)]
pub enum Audience {
    /// These users.
    Users(Vec<String>),
    /// Sessions that asked for one of these topics.
    Topics(Vec<String>),
    /// Everyone.
    Everyone,
}

/// Names a reader in the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReaderId(usize);

/// The books.
#[derive(Default)]
pub struct Account {
    books: Mutex<Books>,
    changed: Condvar,
}

/// The closing figures.
#[derive(Clone, Debug)]
pub struct Report {
    /// Notifications accepted.
    pub accepted: u64,
    /// First deliveries, over all readers.
    pub deliveries: u64,
    /// Legitimate repeats.
    pub repeats: u64,
    /// Sessions opened after the first of each reader.
    pub reconnects: u64,
    /// Legitimate repeats of what was not acknowledged in time, which say that they are further attempts.
    pub resent: u64,
    /// Gaps that readers were told.
    pub gaps: u64,
    /// What the store itself lost before a recipient had it, counted per recipient.
    pub store_lost: u64,
    /// Accepted notifications that a recipient did not get and nothing excuses, counted per recipient.
    pub lost: u64,
    /// First deliveries out of the order of their feed.
    pub out_of_order: u64,
    /// All violations, the two above included, in words (the first of them).
    pub violations: Vec<String>,
    /// How many violations there were.
    pub violation_count: u64,
}

impl Account {
    /// Notes that a notification is about to be sent by a publisher; call once for an id, in the order of sending.
    pub fn sent(&self, publisher: usize, id: &str, data: &str, audience: &Audience, excluded: &[String]) {
        let feeds = match audience {
            Audience::Users(users) => users.iter().map(|u| format!("user/{u}")).collect(),
            Audience::Topics(topics) => topics.iter().map(|t| format!("topic/{t}")).collect(),
            Audience::Everyone => vec!["all".to_owned()],
        };
        let mut books = self.lock();
        let at = books.notes.len();
        books.notes.push(Note {
            id: id.to_owned(),
            publisher,
            data_hash: hash(data),
            feeds,
            excluded: excluded.to_vec(),
            accepted: false,
            is_retried: false,
            is_store_lost: false,
        });
        if books.by_id.insert(id.to_owned(), at).is_some() {
            books.violate(format!("the test itself sent the id {id} twice"));
        }
    }

    /// Notes that the server accepted an id.
    pub fn accepted(&self, id: &str) {
        let mut books = self.lock();
        let Some(&at) = books.by_id.get(id) else {
            return books.violate(format!("accepted under an id that was never sent: {id}"));
        };
        if !std::mem::replace(&mut books.notes[at].accepted, true) {
            books.accepted += 1;
        }
    }

    /// Notes that an id is sent once more, because nobody knows what became of it.
    pub fn retried(&self, id: &str) {
        let mut books = self.lock();
        if let Some(&at) = books.by_id.get(id) {
            books.notes[at].is_retried = true;
        }
    }

    /// The store may lose what it said last: gaps are not a violation from now on.
    pub fn store_may_lose(&self) {
        self.lock().store_may_lose = true;
    }

    /// The store is known to have lost this id, so that it may be missing; who had it must be told a gap.
    pub fn store_lost(&self, id: &str) {
        let mut books = self.lock();
        if let Some(&at) = books.by_id.get(id) {
            books.notes[at].is_store_lost = true;
        }
    }

    /// What was accepted and is missing somewhere now.
    pub fn missing(&self) -> Vec<String> {
        let books = self.lock();
        let missing: HashSet<usize> = books.readers.iter().flat_map(|r| books.missing(r)).collect();
        missing.into_iter().map(|at| books.notes[at].id.clone()).collect()
    }

    /// How many were accepted so far.
    pub fn accepted_count(&self) -> u64 {
        self.lock().accepted
    }

    /// The readers by name, each with how often it had to come back.
    pub fn reconnects(&self) -> Vec<(String, u64)> {
        let books = self.lock();
        let readers = books.readers.iter();
        readers.map(|r| (r.name.clone(), r.reconnects)).collect()
    }

    /// Opens the book of a reader: a user with session topics. It must exist before anything is published that it
    /// is to get.
    pub fn reader(&self, name: &str, user: &str, topics: &[String]) -> ReaderId {
        let mut feeds = HashSet::from([format!("user/{user}"), "all".to_owned()]);
        feeds.extend(topics.iter().map(|t| format!("topic/{t}")));
        let mut books = self.lock();
        books.readers.push(ReaderBook {
            name: name.into(),
            user: user.into(),
            feeds,
            ..Default::default()
        });
        ReaderId(books.readers.len() - 1)
    }

    /// A reader's session was lost or left, and a new one goes on from its last cursor.
    pub fn reconnected(&self, reader: ReaderId) {
        let mut books = self.lock();
        let book = &mut books.readers[reader.0];
        book.reconnects += 1;
        // A cursor covers what its own session was sent. What an earlier one was sent after its last cursor may be
        // repeated until a session has sent it again and then a cursor, however many are cut before.
        let since_cursor = std::mem::take(&mut book.since_cursor);
        book.repeatable.extend(since_cursor);
        let unacked = std::mem::take(&mut book.unacked);
        book.repeatable.extend(unacked);
    }

    /// A reader acknowledges by itself: its cursors settle nothing.
    pub fn explicit(&self, reader: ReaderId) {
        self.lock().readers[reader.0].is_explicit = true;
    }

    /// A reader's acknowledgement was answered.
    pub fn acked<S: AsRef<str>>(&self, reader: ReaderId, ids: &[S]) {
        let mut books = self.lock();
        for id in ids {
            if let Some(at) = books.by_id.get(id.as_ref()).copied() {
                books.readers[reader.0].unacked.remove(&at);
            }
        }
    }

    /// A reader was told that it missed something.
    pub fn gap(&self, reader: ReaderId, what: &str) {
        self.lock().gap(reader.0, what);
    }

    /// A reader got a cursor.
    pub fn cursor(&self, reader: ReaderId) {
        self.lock().readers[reader.0].since_cursor.clear();
    }

    /// A reader got a notification.
    pub fn received(&self, reader: ReaderId, notification: &Notification) {
        self.lock().received(reader.0, notification);
        self.changed.notify_all();
    }

    /// Notes a violation that a test found itself.
    pub fn violation(&self, what: String) {
        self.lock().violate(what);
    }

    /// Waits until every reader has everything of its own. All publishing must be over. Returns false at the
    /// deadline; what is missing is then in the report.
    pub fn wait_complete(&self, deadline: Instant) -> bool {
        let mut books = self.lock();
        let wanted: Vec<usize> = books.readers.iter().map(|r| books.expected(r).count()).collect();
        loop {
            let complete = |(reader, wanted): (&ReaderBook, &usize)| {
                reader.firsts.len() >= *wanted
                    && reader
                        .firsts
                        .iter()
                        .filter(|&&at| books.notes[at].accepted)
                        .count()
                        >= *wanted
            };
            if books.readers.iter().zip(&wanted).all(complete) {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            let step = Duration::from_millis(100);
            books = self
                .changed
                .wait_timeout(books, step)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Judges. Call when publishing is over and the readers have had their time.
    pub fn report(&self) -> Report {
        let mut books = self.lock();
        let (lost, store_lost) = books.find_lost();
        let out_of_order = books.find_publisher_disorder() + books.find_disagreement();
        Report {
            accepted: books.accepted,
            deliveries: books.readers.iter().map(|r| r.firsts.len() as u64).sum(),
            repeats: books.readers.iter().map(|r| r.repeats).sum(),
            reconnects: books.readers.iter().map(|r| r.reconnects).sum(),
            resent: books.readers.iter().map(|r| r.resent).sum(),
            gaps: books.readers.iter().map(|r| r.gaps).sum(),
            store_lost,
            lost,
            out_of_order,
            violations: books.violations.clone(),
            violation_count: books.violation_count,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Report {
    /// True when nothing was violated.
    pub fn is_clean(&self) -> bool {
        self.violation_count == 0
    }

    /// The figures in one line, and the violations after it.
    pub fn text(&self) -> String {
        let mut text = format!(
            "accepted {}, deliveries {}, reconnects {}, repeats {}, resent {}, lost {}, out of order {}, violations {}",
            self.accepted,
            self.deliveries,
            self.reconnects,
            self.repeats,
            self.resent,
            self.lost,
            self.out_of_order,
            self.violation_count
        );
        if self.gaps + self.store_lost > 0 {
            let (gaps, lost) = (self.gaps, self.store_lost);
            write!(text, "; gaps told {gaps}, lost by the store {lost}").unwrap_or_default();
        }
        for what in &self.violations {
            write!(text, "\n  {what}").unwrap_or_default();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn got(id: &str, data: &str) -> Notification {
        Notification {
            id: id.into(),
            topic: None,
            subject: None,
            time: String::new(),
            attempt: None,
            data: data.into(),
            raw: String::new(),
        }
    }

    /// Two readers of one user; `ids` accepted for it by one publisher.
    fn account(ids: &[&str]) -> (Account, ReaderId, ReaderId) {
        let account = Account::default();
        let (a, b) = (account.reader("a", "ada", &[]), account.reader("b", "ada", &[]));
        for id in ids {
            account.sent(0, id, "1", &Audience::Users(vec!["ada".into()]), &[]);
            account.accepted(id);
        }
        (account, a, b)
    }

    #[test]
    fn a_clean_run_is_clean() {
        let (account, a, b) = account(&["x", "y"]);
        for reader in [a, b] {
            account.received(reader, &got("x", "1"));
            account.reconnected(reader);
            account.received(reader, &got("x", "1"));
            account.received(reader, &got("y", "1"));
        }
        assert!(account.wait_complete(Instant::now()));
        let report = account.report();
        assert!(report.is_clean(), "{}", report.text());
        assert_eq!((report.deliveries, report.repeats), (4, 2));
    }

    #[test]
    fn every_kind_of_violation_is_found() {
        let (account, a, b) = account(&["x", "y", "z"]);
        account.received(a, &got("y", "1"));
        account.received(a, &got("x", "2")); // late, and changed
        account.cursor(a);
        account.reconnected(a);
        account.received(a, &got("x", "1")); // repeated from before the cursor
        account.received(a, &got("never", "1"));
        for id in ["x", "y", "z"] {
            account.received(b, &got(id, "1"));
        }
        assert!(!account.wait_complete(Instant::now()));
        let report = account.report();
        // changed, repeated, never sent, lost z, x after y, and the two readers disagree
        assert_eq!(
            (report.lost, report.out_of_order, report.violation_count),
            (1, 2, 6),
            "{}",
            report.text()
        );
    }

    /// What the first of two readers is told, and whether that is a violation.
    fn told(told: impl FnOnce(&Account, ReaderId)) -> Report {
        let (account, a, b) = account(&["x"]);
        for reader in [a, b] {
            account.received(reader, &got("x", "1"));
            account.cursor(reader);
        }
        told(&account, a);
        account.report()
    }

    #[test]
    fn an_acknowledgement_ends_repeats() {
        let again = |acked: bool, attempt: Option<u64>| {
            told(|account, a| {
                account.explicit(a);
                account.reconnected(a);
                account.received(a, &got("x", "1"));
                if acked {
                    account.acked(a, &["x"]);
                }
                account.cursor(a);
                account.reconnected(a);
                let more = Notification {
                    attempt,
                    ..got("x", "1")
                };
                account.received(a, &more);
            })
        };
        // The first repeat is a violation in all: it came when the reader was not yet an explicit one.
        assert_eq!(again(false, None).violation_count, 1);
        assert_eq!(again(true, None).violation_count, 2);
        let resent = again(true, Some(2));
        assert_eq!((resent.violation_count, resent.resent), (1, 1));
        // Who does not acknowledge by itself has no further attempts.
        let auto = told(|account, a| {
            let more = Notification {
                attempt: Some(2),
                ..got("x", "1")
            };
            account.received(a, &more);
        });
        assert_eq!((auto.violation_count, auto.resent), (1, 0));
    }

    #[test]
    fn a_gap_excuses_what_the_store_lost_and_nothing_else() {
        let lost = |may_lose: bool, is_lost: bool, gap: bool| {
            let (account, a, b) = account(&["x", "y"]);
            if may_lose {
                account.store_may_lose();
            }
            for reader in [a, b] {
                account.received(reader, &got("x", "1"));
                account.cursor(reader);
            }
            account.received(b, &got("y", "1"));
            assert_eq!(account.missing(), ["y"]);
            if is_lost {
                account.store_lost("y");
            }
            if gap {
                account.gap(b, "a gap");
                account.received(b, &got("x", "1"));
            }
            account.report()
        };
        let excused = lost(true, true, true);
        assert!(excused.is_clean(), "{}", excused.text());
        assert_eq!((excused.store_lost, excused.gaps, excused.lost), (1, 1, 0));
        // Somebody had it, and was not told; though the store has it; a gap where nothing can have been lost, and the repeat after it.
        assert_eq!(lost(true, true, false).lost, 1);
        assert_eq!(lost(true, false, true).lost, 1);
        assert_eq!(lost(false, false, true).violation_count, 3);
    }

    #[test]
    fn the_place_of_what_was_sent_twice_is_open_only_if_the_store_may_lose() {
        for (may_lose, violations) in [(false, 2), (true, 0)] {
            let (account, a, b) = account(&["x", "y"]);
            account.retried("x");
            if may_lose {
                account.store_may_lose();
            }
            for id in ["y", "x"] {
                account.received(a, &got(id, "1"));
            }
            for id in ["x", "y"] {
                account.received(b, &got(id, "1"));
            }
            assert_eq!(account.report().violation_count, violations);
        }
    }
}
