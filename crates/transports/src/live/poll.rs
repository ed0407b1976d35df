//! A waiting poll's answer: what it holds so far, when it may go, and what stays of it for the next poll.

use super::{Live, Next, READ_GRACE, Wire};
use crate::connection::Cors;
use crate::head::MAX_HEAD;
use crate::outgoing::Outgoing;
use crate::problem::Problem;
use crate::response;
use crate::shard::Turn;
use crate::sse::with_attempt;
use bytes::Bytes;
use postrider_delivery::{LifetimeEvent, Session};
use postrider_model::{Cursor, Entry, FeedId, Timestamp, UserState};
use std::sync::Arc;

/// A waiting poll's answer, as it grows.
pub(crate) struct Poll {
    /// Each with which attempt it is: from 2 on the client is told.
    pub entries: Vec<(Arc<Entry>, u32)>,
    /// Bytes of entries that there is room for. The last may be longer: then it is below 0.
    pub room: i32,
    /// How many of them may be in one answer.
    pub limit: u16,
    pub gap: bool,
    /// Transient notifications were dropped for want of room.
    pub dropped_transient: bool,
    pub keep_alive: bool,
    /// How many entries are new to the client.
    pub news: u32,
    pub deadline: Timestamp,
    /// What most have not.
    pub more: Option<Box<More>>,
}

/// What few polls have.
#[derive(Default)]
pub(crate) struct More {
    /// Where the client said it is, if it may get what it had: an entry at or below is one that it had before.
    pub had: Option<Cursor>,
    /// Where there is that: when an answer of nothing but repeats may go.
    pub repeats_at: Timestamp,
    pub cors: Cors,
    /// The user's state map, where the client follows it.
    pub state: Option<Followed>,
    /// What the client sent after the request: the next one.
    pub rest: Vec<u8>,
}

/// A state map that a poll's client follows.
pub(crate) struct Followed {
    /// The version that it has, once it has the answer.
    version: u64,
    /// What it is to be told.
    news: Option<Arc<UserState>>,
}

impl Followed {
    /// By a client that has this version, or none.
    pub fn new(state: &Arc<UserState>, had: Option<u64>) -> Followed {
        let version = state.version();
        Followed {
            version,
            news: (had != Some(version)).then(|| state.clone()),
        }
    }
}

impl More {
    /// This, if there is anything.
    pub fn any(self) -> Option<Box<More>> {
        let has_some =
            self.had.is_some() || self.state.is_some() || !self.cors.is_empty() || !self.rest.is_empty();
        has_some.then(|| Box::new(self))
    }
}

impl Poll {
    /// Whether the client has sent so much behind this request that the rest can wait in its socket.
    pub fn is_ahead(&self) -> bool {
        self.more.as_ref().is_some_and(|more| more.rest.len() >= MAX_HEAD)
    }

    /// Whether one more entry fits.
    pub fn has_room(&self) -> bool {
        self.entries.len() < usize::from(self.limit) && self.room > 0
    }

    /// Whether one more of those that the client had fits: they take at most half of an answer, so that a client that
    /// does not acknowledge still gets what is new.
    pub fn takes_repeats(&self) -> bool {
        self.entries.len() - (self.news as usize) < usize::from(self.limit.div_ceil(2))
    }

    /// Adds an entry.
    pub fn add(&mut self, entry: &Arc<Entry>, attempt: u32) {
        self.room = self.room.saturating_sub(size(entry));
        self.news += u32::from(self.is_new(entry));
        self.entries.push((entry.clone(), attempt));
    }

    /// This feed is sent anew: of what it brought only what is transient stays, as nothing comes twice in one answer.
    pub fn take_back(&mut self, feed: &FeedId) {
        let entries = std::mem::take(&mut self.entries);
        let is_kept = |entry: &Entry| entry.position.offset == 0 || entry.feed != *feed;
        for (entry, attempt) in entries {
            if is_kept(&entry) {
                self.entries.push((entry, attempt));
            } else {
                self.room = self.room.saturating_add(size(&entry));
                self.news -= u32::from(self.is_new(&entry));
            }
        }
    }

    /// Whether the client has not had it.
    fn is_new(&self, entry: &Entry) -> bool {
        let had = self.more.as_ref().and_then(|more| more.had.as_ref());
        let had = had.and_then(|cursor| cursor.get(&entry.feed));
        let transient = entry.position.offset == 0;
        transient || had.is_none_or(|had| entry.position.offset > had.offset)
    }

    fn followed(&self) -> Option<&Followed> {
        self.more.as_ref()?.state.as_ref()
    }

    /// The user's state map, if the client is to be told.
    fn state(&self) -> Option<&Arc<UserState>> {
        self.followed()?.news.as_ref()
    }

    /// The user's state map changed, and the client follows it.
    pub fn state_changed(&mut self, state: &Arc<UserState>) {
        if let Some(followed) = self.more.as_mut().and_then(|more| more.state.as_mut()) {
            let (version, news) = (state.version(), Some(state.clone()));
            *followed = Followed { version, news };
        }
    }

    /// The client sent this behind its request.
    pub fn keep_rest(&mut self, bytes: &[u8]) {
        let more = self.more.get_or_insert_default();
        more.rest.extend_from_slice(bytes);
    }

    /// Says the answer: in `tail`, which is empty, or where it has large entries, which are not copied for each of
    /// those who wait for them, in pieces.
    fn answer(&self, session: &Session, keep_alive: bool, out: &mut Outgoing, tail: &mut Vec<u8>) {
        let mut body = Pieces {
            done: Vec::new(),
            last: std::mem::take(tail),
        };
        self.push_body(&mut body, session);
        let Pieces { done, last } = body;
        *tail = last;
        let (behind, large) = (tail.len(), done.iter().map(Bytes::len).sum::<usize>());
        let extra = self.extra();
        if done.is_empty() {
            response::push_json_head(tail, behind, keep_alive, &extra);
            tail.rotate_left(behind);
        } else {
            let mut head = Vec::new();
            response::push_json_head(&mut head, large + behind, keep_alive, &extra);
            out.push(head.into());
            done.into_iter().for_each(|piece| out.push(piece));
        }
    }

    /// The headers of CORS.
    fn extra(&self) -> Vec<(&str, &str)> {
        let cors = self.more.iter().flat_map(|more| &more.cors);
        cors.map(|(name, value)| (*name, value.as_str())).collect()
    }

    fn push_body(&self, body: &mut Pieces, session: &Session) {
        body.own(br#"{"notifications":["#);
        let mut separator: &[u8] = b"";
        for (entry, attempt) in &self.entries {
            if entry.notification().is_some() {
                body.own(separator);
                match *attempt {
                    0..=1 => body.shared(entry.json()),
                    again => body.own(&with_attempt(entry.json(), again)),
                }
                separator = b",";
            }
        }
        body.own(br#"],"events":["#);
        separator = b"";
        if let Some(state) = self.state() {
            body.own(br#"{"type":"state","state":"#);
            body.shared(state.json());
            body.own(b"}");
            separator = b",";
        }
        if self.dropped_transient {
            body.own(separator);
            body.own(br#"{"type":"error","code":"transient_dropped"}"#);
            separator = b",";
        }
        for (entry, _) in &self.entries {
            if entry.notification().is_none() {
                body.own(separator);
                body.shared(entry.json());
                separator = b",";
            }
        }
        body.own(br#"],"cursor":""#);
        match self.followed() {
            Some(followed) => session.push_cursor_with_state(&mut body.last, followed.version),
            None => session.push_cursor(&mut body.last),
        }
        body.own(br#"","gap":"#);
        body.own(if self.gap { b"true}" } else { b"false}" });
    }
}

/// From so many bytes on an entry is shared, and not copied: below, a piece more costs as much as the copy.
const SHARED: usize = 4 << 10;

/// An answer under construction.
struct Pieces {
    done: Vec<Bytes>,
    last: Vec<u8>,
}

impl Pieces {
    fn own(&mut self, bytes: &[u8]) {
        self.last.extend_from_slice(bytes);
    }

    fn shared(&mut self, json: &Bytes) {
        if json.len() < SHARED {
            self.own(json);
        } else {
            self.done.push(Bytes::copy_from_slice(&self.last));
            self.last.clear();
            self.done.push(json.clone());
        }
    }
}

/// What an entry takes of an answer.
fn size(entry: &Entry) -> i32 {
    i32::try_from(entry.json().len()).unwrap_or(i32::MAX)
}

impl Live {
    /// Ends a turn of a poll: answers it, where that is due.
    pub(super) fn finish_poll(&mut self, out: &mut Outgoing, turn: &mut Turn) -> Next {
        let Wire::Poll(poll) = &mut self.wire else {
            return Next::End;
        };
        poll.dropped_transient |= std::mem::take(&mut self.dropped_transient);
        let is_reading = self.session.is_reading();
        let repeats_at = poll.more.as_ref().map_or(Timestamp::MAX, |more| more.repeats_at);
        let repeats = !poll.entries.is_empty() && turn.now >= repeats_at;
        let something =
            poll.news > 0 || poll.gap || poll.dropped_transient || repeats || poll.state().is_some();
        let complete = (!is_reading && (something || turn.now >= poll.deadline))
            || turn.draining
            || turn.now >= poll.deadline.plus(READ_GRACE);
        let expired = self.lifetime.due(&turn.rules.poll, turn.now) == Some(LifetimeEvent::TokenExpired);
        if complete || expired {
            let keep_alive = poll.keep_alive && !turn.draining;
            let overdue = is_reading && turn.now >= poll.deadline;
            if overdue && !something && poll.entries.is_empty() && !turn.draining {
                // What could not be read must not pass for an inbox that holds nothing more.
                let problem = response::problem(&Problem::unavailable(1), keep_alive, &poll.extra());
                out.push(problem);
            } else {
                poll.answer(&self.session, keep_alive, out, &mut turn.tail);
            }
            return Next::Answered {
                keep_alive,
                rest: poll
                    .more
                    .as_mut()
                    .map(|more| std::mem::take(&mut more.rest))
                    .unwrap_or_default(),
            };
        }
        let next = if is_reading {
            // The page ends this turn's wait; the grace bounds it.
            poll.deadline.plus(READ_GRACE)
        } else if poll.entries.is_empty() {
            poll.deadline
        } else {
            poll.deadline.min(repeats_at)
        };
        Next::At(next.min(self.lifetime.next_at(&turn.rules.poll)))
    }

    /// A poll was answered: what it held goes, its memory stays for the next one of its connection.
    pub fn rest(&mut self) {
        if let Wire::Poll(poll) = &mut self.wire {
            (poll.entries, poll.more) = (Vec::new(), None);
        }
    }

    /// A poll in its place: in the memory of the one before it, where there was one.
    pub fn poll_in(kept: Option<&mut Box<Live>>, poll: Poll) -> Wire {
        let over = Wire::Sse { tcp_evidence: false };
        match kept.map(|kept| std::mem::replace(&mut kept.wire, over)) {
            Some(Wire::Poll(mut place)) => {
                *place = poll;
                Wire::Poll(place)
            }
            _ => Wire::Poll(Box::new(poll)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::websocket::tests::notification;
    use postrider_model::{Position, UserId};

    fn entry(feed: &FeedId, offset: u64) -> Arc<Entry> {
        Arc::new(Entry {
            feed: feed.clone(),
            position: Position {
                offset,
                ..Position::START
            },
            ..notification()
        })
    }

    #[test]
    fn what_is_sent_anew_does_not_come_twice_in_one_answer() {
        let own = FeedId::User(UserId::new("ada").unwrap());
        let had = Position {
            offset: 3,
            ..Position::START
        };
        let mut poll = Poll {
            entries: Vec::new(),
            room: 100_000,
            limit: 10,
            gap: false,
            dropped_transient: false,
            keep_alive: true,
            news: 0,
            deadline: Timestamp(0),
            more: More {
                had: Some(Cursor::new([(&own, had)])),
                ..More::default()
            }
            .any(),
        };
        let whole = poll.room;
        for (feed, offset) in [(&own, 3), (&own, 4), (&own, 0), (&FeedId::All, 4)] {
            poll.add(&entry(feed, offset), 1);
        }
        assert_eq!((poll.entries.len(), poll.news), (4, 3));
        poll.take_back(&own);
        let left: Vec<_> = poll
            .entries
            .iter()
            .map(|(entry, _)| entry.position.offset)
            .collect();
        assert_eq!(
            (left, poll.news),
            (vec![0, 4], 2),
            "a transient one comes once only"
        );
        poll.take_back(&FeedId::All);
        let transient = size(&poll.entries[0].0);
        assert_eq!(poll.room, whole - transient);
    }
}
