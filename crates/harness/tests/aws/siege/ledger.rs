//! The account: what was sent to the queue, and where each message ended.
//!
//! Invariant: a message has ended when it was delivered, lies in the dead-letter queue, or has a dead letter; which of
//! these it may be depends on what it was. More than one is told, and is allowed to who promises at least once.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

/// How many faults are spelled out.
const SHOWN: usize = 10;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sort {
    /// For a user who has a session whenever a node is up.
    ForListener,
    /// For a user who never has one.
    ForNobody,
    /// It lacks what it needs.
    Broken,
}

#[derive(Default)]
pub struct Ledger(Mutex<Book>);

#[derive(Default)]
struct Book {
    sent: BTreeMap<u64, (Sort, String)>,
    /// By message: the ids under which it came, and how often it came in all.
    delivered: HashMap<u64, (HashSet<String>, u64)>,
    in_dlq: HashMap<u64, u64>,
    letters: HashMap<u64, HashSet<String>>,
    faults: Vec<String>,
}

impl Ledger {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next message of this sort, as the producer sends it. Bodies are objects, texts, and texts that look like JSON.
    pub fn next(&self, sort: Sort, user: &str) -> Value {
        let mut book = self.book();
        let n = book.sent.len() as u64;
        let body = match n % 5 {
            0 => format!("message {n}, grüße"),
            1 => format!("{{ \"n\": {n},\n \"spaced\": true }}"),
            2 => format!("\"{n} in quotes\""),
            _ => format!("{{\"n\":{n},\"pad\":\"é\"}}"),
        };
        book.sent.insert(n, (sort, body.clone()));
        let attributes = match sort {
            Sort::Broken => json!({"subject": "siege"}),
            Sort::ForListener | Sort::ForNobody => json!({"addressee": user, "subject": "siege"}),
        };
        json!({"body": body, "attributes": attributes})
    }

    pub fn delivered(&self, id: &str, text: &str) {
        let mut book = self.book();
        let Some(n) = book.known(text) else {
            return;
        };
        let (ids, times) = book.delivered.entry(n).or_default();
        ids.insert(id.to_owned());
        *times += 1;
    }

    pub fn in_dlq(&self, text: &str) {
        let mut book = self.book();
        if let Some(n) = book.known(text) {
            *book.in_dlq.entry(n).or_default() += 1;
        }
    }

    pub fn letter(&self, id: &str, text: &str) {
        let mut book = self.book();
        if let Some(n) = book.known(text) {
            book.letters.entry(n).or_default().insert(id.to_owned());
        }
    }

    pub fn fault(&self, what: String) {
        self.book().faults.push(what);
    }

    /// How many of those that listeners are to get have come.
    pub fn delivered_count(&self) -> usize {
        self.book().delivered.len()
    }

    /// Those that have not ended yet.
    pub fn missing(&self) -> Vec<u64> {
        let book = self.book();
        book.sent
            .keys()
            .copied()
            .filter(|n| !book.has_ended(*n))
            .collect()
    }

    /// Whether each has ended, where it may.
    pub fn is_clean(&self) -> bool {
        self.book().judge().is_empty()
    }

    /// The account, for people.
    pub fn text(&self) -> String {
        let book = self.book();
        let of = |sort: Sort| book.sent.values().filter(|(own, _)| *own == sort).count();
        let twice = book.delivered.values().filter(|(_, times)| *times > 1).count();
        let both = book
            .in_dlq
            .keys()
            .filter(|n| book.delivered.contains_key(n))
            .count();
        let mut text = format!(
            "sent {} (to listeners {}, to nobody {}, broken {})\n\
             ended {}: delivered {}, in the dead-letter queue {}, dead letters {}\n\
             of these more than one: delivered more than once {twice}, delivered and in the dead-letter queue {both}",
            book.sent.len(),
            of(Sort::ForListener),
            of(Sort::ForNobody),
            of(Sort::Broken),
            book.sent.keys().filter(|n| book.has_ended(**n)).count(),
            book.delivered.len(),
            book.in_dlq.len(),
            book.letters.len(),
        );
        let faults = book.judge();
        for fault in faults.iter().take(SHOWN) {
            write!(text, "\nFAULT {fault}").unwrap();
        }
        if faults.len() > SHOWN {
            write!(text, "\n… and {} more", faults.len() - SHOWN).unwrap();
        }
        text
    }
}

impl Book {
    /// The number of the message that this is, byte for byte.
    fn known(&mut self, text: &str) -> Option<u64> {
        let digits = text.chars().skip_while(|c| !c.is_ascii_digit());
        let digits: String = digits.take_while(char::is_ascii_digit).collect();
        let n = digits.parse().ok();
        let known = n.filter(|n| self.sent.get(n).is_some_and(|(_, body)| body == text));
        if known.is_none() {
            self.faults.push(format!("nobody sent {text:?}"));
        }
        known
    }

    fn has_ended(&self, n: u64) -> bool {
        self.delivered.contains_key(&n) || self.in_dlq.contains_key(&n) || self.letters.contains_key(&n)
    }

    fn judge(&self) -> BTreeSet<String> {
        let mut faults: BTreeSet<String> = self.faults.iter().cloned().collect();
        for (n, (sort, _)) in &self.sent {
            let (delivered, in_dlq) = (self.delivered.get(n), self.in_dlq.contains_key(n));
            let letters = self.letters.get(n);
            if !self.has_ended(*n) {
                faults.insert(format!("{n} ({sort:?}) is lost"));
            }
            if delivered.is_some_and(|(ids, _)| ids.len() > 1) {
                faults.insert(format!("{n} came under several ids: {delivered:?}"));
            }
            let is_wrong = match sort {
                Sort::ForListener => letters.is_some(),
                Sort::ForNobody => delivered.is_some() || letters.is_some() || !in_dlq,
                Sort::Broken => delivered.is_some() || letters.is_none(),
            };
            if is_wrong && self.has_ended(*n) {
                faults.insert(format!(
                    "{n} ({sort:?}) ended wrongly: delivered {delivered:?}, in the dead-letter queue {in_dlq}, letters {letters:?}"
                ));
            }
        }
        faults
    }
}
