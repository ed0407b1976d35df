//! A waiting poll's answer: what it holds so far, and when it may go.

use super::POLL_BYTES;
use crate::sse::with_attempt;
use bytes::Bytes;
use postrider_delivery::Session;
use postrider_model::{Cursor, Entry, Timestamp};
use std::sync::Arc;

/// A waiting poll's answer, as it grows.
pub(crate) struct Poll {
    /// Each with which attempt it is: from 2 on the client is told.
    pub entries: Vec<(Arc<Entry>, u32)>,
    pub bytes: usize,
    pub limit: usize,
    pub gap: bool,
    pub state: bool,
    /// Where the client said it is: an entry at or below is one that it had before.
    pub cursor: Option<Cursor>,
    /// How many entries are new to the client.
    pub news: usize,
    /// When an answer of nothing but repeats may go.
    pub repeats_at: Timestamp,
    /// Transient notifications were dropped for want of room.
    pub dropped_transient: bool,
    pub deadline: Timestamp,
    pub keep_alive: bool,
    pub cors: Vec<(&'static str, String)>,
    /// What the client sent after the request: the next one.
    pub rest: Vec<u8>,
}

impl Poll {
    /// Whether one more entry fits.
    pub fn has_room(&self) -> bool {
        self.entries.len() < self.limit && self.bytes < POLL_BYTES
    }

    /// Whether one more of those that the client had fits: they take at most half of an answer, so that a client that
    /// does not acknowledge still gets what is new.
    pub fn takes_repeats(&self) -> bool {
        self.entries.len() - self.news < self.limit.div_ceil(2)
    }

    /// Adds an entry.
    pub fn add(&mut self, entry: &Arc<Entry>, attempt: u32) {
        self.bytes += entry.json().len();
        let had = self.cursor.as_ref().and_then(|cursor| cursor.get(&entry.feed));
        let transient = entry.position.offset == 0;
        let new = transient || had.is_none_or(|had| entry.position.offset > had.offset);
        self.news += usize::from(new);
        self.entries.push((entry.clone(), attempt));
    }

    /// The answer, in pieces: large entries are not copied for each of those who wait for them.
    pub fn body(&self, session: &Session) -> Vec<Bytes> {
        let mut notifications = Vec::new();
        let mut events: Vec<Bytes> = Vec::new();
        if self.state {
            events.push(Bytes::from_static(br#"{"type":"state","state":{}}"#));
        }
        if self.dropped_transient {
            events.push(Bytes::from_static(
                br#"{"type":"error","code":"transient_dropped"}"#,
            ));
        }
        for (entry, attempt) in &self.entries {
            let json = entry.json().clone();
            match entry.notification() {
                Some(_) if *attempt > 1 => notifications.push(with_attempt(&json, *attempt).into()),
                Some(_) => notifications.push(json),
                None => events.push(json),
            }
        }
        let mut body = Pieces::default();
        body.own(br#"{"notifications":["#);
        body.list(notifications);
        body.own(br#"],"events":["#);
        body.list(events);
        body.own(br#"],"cursor":""#);
        body.own(session.cursor().as_bytes());
        body.own(br#"","gap":"#);
        body.own(if self.gap { b"true}" } else { b"false}" });
        body.done()
    }
}

/// From so many bytes on an entry is shared, and not copied: below, a piece more costs as much as the copy.
const SHARED: usize = 4 << 10;

/// An answer under construction.
#[derive(Default)]
struct Pieces {
    done: Vec<Bytes>,
    last: Vec<u8>,
}

impl Pieces {
    fn own(&mut self, bytes: &[u8]) {
        self.last.extend_from_slice(bytes);
    }

    fn list(&mut self, items: Vec<Bytes>) {
        for (i, json) in items.into_iter().enumerate() {
            if i > 0 {
                self.own(b",");
            }
            if json.len() < SHARED {
                self.own(&json);
            } else {
                self.done.push(std::mem::take(&mut self.last).into());
                self.done.push(json);
            }
        }
    }

    fn done(mut self) -> Vec<Bytes> {
        self.done.push(self.last.into());
        self.done
    }
}
