//! The judge: keeps the books of what was published and accepted, and of what every reader got, and compares them.
//!
//! What is checked of each reader:
//! 1. everything of its own that was accepted has come, with the bytes of `data` as published;
//! 2. nothing has come that was not its own or was never sent;
//! 3. order: within a feed, what one publisher sent one after the other comes first in that order, and any two
//!    readers of a feed see the same first deliveries in the same order;
//! 4. a repeat is of something that came after the last cursor before a reconnect, once for each reconnect.
//!
//! An id in several of a reader's feeds is left out of the order of each, since its place in one may be before its
//! place in the other.
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
    /// Accepted notifications that a recipient did not get, counted per recipient.
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

    /// How many were accepted so far.
    pub fn accepted_count(&self) -> u64 {
        self.lock().accepted
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
        let lost = books.find_lost();
        let out_of_order = books.find_publisher_disorder() + books.find_disagreement();
        Report {
            accepted: books.accepted,
            deliveries: books.readers.iter().map(|r| r.firsts.len() as u64).sum(),
            repeats: books.readers.iter().map(|r| r.repeats).sum(),
            reconnects: books.readers.iter().map(|r| r.reconnects).sum(),
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
            "accepted {}, deliveries {}, reconnects {}, repeats {}, lost {}, out of order {}, violations {}",
            self.accepted,
            self.deliveries,
            self.reconnects,
            self.repeats,
            self.lost,
            self.out_of_order,
            self.violation_count
        );
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
}
