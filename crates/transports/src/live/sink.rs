//! Gives a session's effects to its wire and to the loop: bytes to the one, reads, settlements and attempts to the
//! other, which hands them to the engine when the turn ends.

use super::Wire;
use crate::connection::Key;
use crate::mailbox::PageWanted;
use crate::notify::Dialect;
use crate::outgoing::Outgoing;
use crate::shard::{MAX_UNFLUSHED, Turn};
use crate::{raw, sse, websocket};
use postrider_delivery::{Outbox, Reading};
use postrider_model::{
    Attempt, Audience, Entry, Evidence, FeedId, NotificationId, Position, SessionId, SettleKind,
    SettleTarget, Settlement, Timestamp, Transport, UserId,
};
use std::sync::Arc;

/// Gives the session's effects to the wire and to the loop.
pub(super) struct Sink<'a> {
    pub key: Key,
    pub wire: &'a mut Wire,
    pub out: &'a mut Outgoing,
    pub turn: &'a mut Turn,
    /// Who settles, and on what ground.
    pub by: (&'a UserId, &'a SessionId, Evidence, Transport),
    pub sent: u64,
}

impl Sink<'_> {
    /// Whether the client gets data and nothing around it.
    fn is_bare(&self) -> bool {
        matches!(
            self.wire,
            Wire::WebSocket {
                dialect: Dialect::Notify,
                ..
            } | Wire::Raw { .. }
        )
    }
}

impl Outbox for Sink<'_> {
    fn has_room(&self) -> bool {
        match &*self.wire {
            Wire::Poll(poll) => poll.has_room(),
            _ => self.out.waiting() < self.turn.rules.bounds.outbox,
        }
    }

    fn takes_repeats(&self) -> bool {
        match &*self.wire {
            Wire::Poll(poll) => poll.takes_repeats(),
            _ => true,
        }
    }

    fn send(&mut self, entry: &Arc<Entry>, attempt: Option<u32>) {
        if self.is_bare() && entry.notification().is_none() {
            // It has no word for a mark.
            return;
        }
        self.sent += 1;
        if let Some(at) = entry
            .notification()
            .and_then(|notification| notification.expires_at)
        {
            let soonest = &mut self.turn.soonest_expiry;
            *soonest = Some(soonest.map_or(at, |soonest| soonest.min(at)));
        }
        if attempt.is_some() {
            self.turn.attempted(Attempt {
                user: self.by.0.clone(),
                feed: entry.feed.clone(),
                offset: entry.position.offset,
            });
        }
        match (&mut *self.wire, attempt.unwrap_or(1)) {
            (Wire::Poll(poll), attempt) => poll.add(entry, attempt),
            (Wire::Raw { is_chunked, .. }, _) => {
                self.out.append(|bytes| raw::push_body(bytes, entry, *is_chunked));
            }
            (Wire::Sse { .. }, 0..=1) if is_for_few(entry) => {
                self.out.append(|bytes| sse::push_entry_block(bytes, entry));
            }
            (Wire::Sse { .. }, 0..=1) => self.out.push(sse::entry_block(entry)),
            (Wire::Sse { .. }, attempt) => self.out.push(sse::entry_block_again(entry, attempt)),
            (Wire::WebSocket { dialect, .. }, _) if *dialect == Dialect::Notify => match is_for_few(entry) {
                true => self.out.append(|bytes| websocket::push_bare_frame(bytes, entry)),
                false => self.out.push(websocket::bare_frame(entry)),
            },
            (Wire::WebSocket { .. }, 0..=1) if is_for_few(entry) => {
                self.out.append(|bytes| websocket::push_entry_frame(bytes, entry));
            }
            (Wire::WebSocket { .. }, 0..=1) => self.out.push(websocket::entry_frame(entry)),
            (Wire::WebSocket { .. }, attempt) => self.out.push(websocket::entry_frame_again(entry, attempt)),
        }
    }

    fn take_back(&mut self, feed: &FeedId) {
        if let Wire::Poll(poll) = &mut *self.wire {
            poll.take_back(feed);
        }
    }

    fn gap(&mut self, oldest: Timestamp) {
        match &mut *self.wire {
            Wire::Poll(poll) => poll.gap = true,
            Wire::Sse { .. } => self.out.push(sse::gap(oldest)),
            Wire::WebSocket {
                dialect: Dialect::Notify,
                ..
            }
            | Wire::Raw { .. } => {}
            Wire::WebSocket { .. } => self.out.push(websocket::gap_frame(oldest)),
        }
    }

    fn stalled(&mut self, ids: &[NotificationId]) {
        match &*self.wire {
            // A poll is no session over time: nothing is sent again within it.
            Wire::Poll(_) | Wire::Raw { .. } => {}
            Wire::Sse { .. } => self.out.push(sse::stalled(ids)),
            Wire::WebSocket { .. } if self.is_bare() => {}
            Wire::WebSocket { .. } => self.out.push(websocket::stalled_frame(ids)),
        }
    }

    fn read(&mut self, feed: &FeedId, reading: Reading, member: bool) {
        self.turn.reads.push(PageWanted {
            key: self.key,
            user: self.by.0.clone(),
            session: self.by.1.clone(),
            feed: feed.clone(),
            reading,
            member,
        });
    }

    fn settle(&mut self, feed: &FeedId, through: Position) {
        let (user, session, evidence, transport) = self.by;
        if self.turn.settlements.len() >= MAX_UNFLUSHED {
            // Later evidence covers it; without any it is sent again.
            return;
        }
        self.turn.settlements.push(Settlement {
            user: user.clone(),
            kind: SettleKind::Delivered,
            target: SettleTarget::Through(vec![(feed.clone(), through)]),
            evidence,
            session: Some(session.clone()),
            transport: Some(transport),
        });
    }
}

/// Whether to keep the entry's encoded form would serve no one, or hardly anyone: nobody else holds the entry, as
/// those of a page that was read from the store for one session; or it is for one user, whose sessions are few, and
/// the memory would be given back by another thread, which costs more than to encode it again.
fn is_for_few(entry: &Arc<Entry>) -> bool {
    Arc::strong_count(entry) == 1
        || entry.notification().is_some_and(
            |notification| matches!(&notification.audience, Audience::Users(users) if users.len() == 1),
        )
}
