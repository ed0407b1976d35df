//! What a session is sent. For each of its feeds it knows up to where everything was sent; an entry goes
//! out only if it is the very next one. What cannot go out (a full outbox, a read under way, a missed wake)
//! is not kept but read forward later, so replay joins live without a hole, a repeat or a reordering, and a
//! slow client costs no memory.
//!
//! Under `explicit`, what is not acknowledged is sent again, beside this: neither waits for the other.
//!
//! Invariant: per feed, `sent` only rises, by one entry at a time, save over a gap that the client is told.
//! Knows nothing of transports; a transport is an [`Outbox`].

mod again;
mod opening;
mod progress;

pub use opening::{AckMode, FeedStart, Opening};

use postrider_model::{
    Cursor, Entry, EntryKind, FeedId, InboxEntry, InboxPage, NotificationId, Position, SessionId, State,
    Timestamp, UserId, WithdrawReason,
};
use progress::Progress;
use std::sync::Arc;

/// One moment, by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// By the wall clock: times to live go by it.
    pub wall: Timestamp,
    /// By the clock that never jumps: timers go by it.
    pub steady: Timestamp,
}

/// What a session reads of a feed, and what for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// What comes after this offset, to be sent for the first time.
    Forward {
        /// The last offset that was sent.
        after: u64,
    },
    /// What is still pending of a stretch that was sent before. Where nothing of it can be, the page is empty.
    Again {
        /// The stretch's first offset.
        first: u64,
        /// And its last.
        last: u64,
    },
}

/// An entry as this user has it: from a wake, or of a page.
struct Share<'a> {
    entry: &'a Arc<Entry>,
    /// Pending for a mark, which has none.
    state: State,
    dismissed: bool,
    attempts: u32,
}

impl<'a> Share<'a> {
    fn of(read: &'a InboxEntry) -> Share<'a> {
        Share {
            entry: &read.entry,
            state: read.state.unwrap_or(State::Pending),
            dismissed: read.dismissed,
            attempts: read.attempts,
        }
    }
}

/// Where a session's effects go.
pub trait Outbox {
    /// Whether one more entry may be sent. Asked before every entry.
    fn has_room(&self) -> bool;
    /// Whether entries that the client had before may still be sent. Where not, those left are passed over.
    fn takes_repeats(&self) -> bool {
        true
    }
    /// Send this entry. Where only the client's word settles it, `attempt` says which attempt this is: it is to be
    /// counted, and the client is told from 2 on.
    fn send(&mut self, entry: &Arc<Entry>, attempt: Option<u32>);
    /// Tell the client that entries are missing; what is held begins at `oldest`.
    fn gap(&mut self, oldest: Timestamp);
    /// Tell the client that these are not sent to it any more, though it has not acknowledged them.
    fn stalled(&mut self, ids: &[NotificationId]);
    /// Read this and give the page back to [`Session::page`].
    fn read(&mut self, feed: &FeedId, reading: Reading);
    /// Record that everything in `feed` up to `through` is delivered.
    fn settle(&mut self, feed: &FeedId, through: Position);
}

/// A live session.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    user: UserId,
    ack: AckMode,
    feeds: Vec<Progress>,
    moved: bool,
}

impl Session {
    /// Opens a session where `starts` says, in the order of [`Opening::feeds`]. Under `auto` a cursor settles
    /// what it covers.
    pub fn open(opening: &Opening, starts: &[FeedStart], outbox: &mut impl Outbox) -> Session {
        let place = |feed: &FeedId| opening.cursor.as_ref().and_then(|cursor| cursor.get(feed));
        let feeds = opening.feeds().into_iter().zip(starts).map(|(feed, start)| {
            let place = place(&feed);
            Progress::open(feed, *start, opening.ack, opening.redelivery, place)
        });
        let mut session = Session {
            id: opening.session.clone(),
            user: opening.user.clone(),
            ack: opening.ack,
            feeds: feeds.collect(),
            moved: false,
        };
        if session.ack == AckMode::Auto {
            for progress in &mut session.feeds {
                let through = progress
                    .place
                    .filter(|_| opening.cursor.is_some() && progress.settles && !progress.gap);
                if let Some(through) = through.filter(|through| through.offset > progress.floor) {
                    progress.floor = through.offset;
                    outbox.settle(&progress.feed, through);
                }
            }
        }
        session.catch_up(outbox);
        session
    }

    /// Whose it is.
    pub fn user(&self) -> &UserId {
        &self.user
    }

    /// Its id.
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// How it acknowledges.
    pub fn ack(&self) -> AckMode {
        self.ack
    }

    /// Its feeds.
    pub fn feeds(&self) -> impl Iterator<Item = &FeedId> {
        self.feeds.iter().map(|progress| &progress.feed)
    }

    /// Asks for every feed that is not read to its end. Called when an outbox has room again.
    pub fn catch_up(&mut self, outbox: &mut impl Outbox) {
        for progress in &mut self.feeds {
            progress.ask(outbox);
        }
    }

    /// Whether anything that exists is still to be sent, or is due again and waits for room.
    pub fn is_behind(&self) -> bool {
        self.feeds
            .iter()
            .any(|progress| progress.is_behind() || progress.is_late())
    }

    /// Wakes may have been lost: looks at every feed once more.
    pub fn suspect(&mut self, outbox: &mut impl Outbox) {
        for progress in &mut self.feeds {
            progress.suspect = true;
            progress.ask(outbox);
        }
    }

    /// Whether a page of what comes next was asked for and has not come.
    pub fn is_reading(&self) -> bool {
        self.feeds.iter().any(|progress| progress.reading)
    }

    /// Entries were appended and are durable: sends those that come next.
    pub fn appended(&mut self, entries: &[Arc<Entry>], now: Moment, outbox: &mut impl Outbox) {
        for entry in entries {
            let Some(at) = self.feeds.iter().position(|progress| progress.feed == entry.feed) else {
                continue;
            };
            let progress = &mut self.feeds[at];
            progress.head = progress.head.max(entry.position.offset);
            let next = !progress.reading && !progress.gap && entry.position.offset == progress.sent + 1;
            if next && outbox.has_room() {
                let expired = entry
                    .notification()
                    .and_then(|n| n.expires_at)
                    .is_some_and(|at| at <= now.wall);
                let state = if expired { State::Expired } else { State::Pending };
                let fresh = Share {
                    entry,
                    state,
                    dismissed: false,
                    attempts: 0,
                };
                self.offer(at, fresh, now, outbox);
            } else {
                progress.ask(outbox);
            }
        }
    }

    /// A transient notification: sent if there is room, otherwise gone. True if it was for this session.
    pub fn transient(&mut self, entry: &Arc<Entry>, outbox: &mut impl Outbox) -> bool {
        let holds = |feed: &FeedId| self.feeds.iter().any(|progress| progress.feed == *feed);
        if !holds(&entry.feed) || !entry.is_for(&self.user, holds) {
            return false;
        }
        if outbox.has_room() {
            outbox.send(entry, None);
        }
        true
    }

    /// A page that was asked for.
    pub fn page(
        &mut self,
        feed: &FeedId,
        reading: Reading,
        page: &InboxPage,
        now: Moment,
        outbox: &mut impl Outbox,
    ) {
        let Some(at) = self.feeds.iter().position(|progress| progress.feed == *feed) else {
            return;
        };
        match reading {
            Reading::Forward { .. } => self.page_forward(at, page, now, outbox),
            Reading::Again { .. } => self.page_again(at, page, now, outbox),
        }
        self.feeds[at].ask(outbox);
    }

    fn page_forward(&mut self, at: usize, page: &InboxPage, now: Moment, outbox: &mut impl Outbox) {
        let progress = &mut self.feeds[at];
        progress.reading = false;
        progress.head = progress.head.max(page.span.head.offset);
        progress.floor = progress.floor.max(page.floor);
        progress.judged = progress.judged.max(page.floor);
        let missing = page.span.first > progress.sent + 1;
        if progress.gap || missing {
            let oldest = page
                .entries
                .iter()
                .find_map(|e| e.entry.notification().map(|n| n.time));
            outbox.gap(oldest.unwrap_or(now.wall));
            if std::mem::take(&mut progress.gap) {
                progress.place = None;
            }
            progress.sent = progress.sent.max(page.span.first.saturating_sub(1));
            self.moved = true;
        }
        for read in &page.entries {
            if !outbox.has_room() {
                break;
            }
            let progress = &mut self.feeds[at];
            if progress.sent < progress.had && !outbox.takes_repeats() {
                // The rest of the repeats stays pending; what is new must not wait behind them.
                progress.sent = progress.had;
            }
            if read.entry.position.offset == self.feeds[at].sent + 1 {
                self.offer(at, Share::of(read), now, outbox);
            }
        }
        let progress = &mut self.feeds[at];
        if progress.place.is_none() && progress.sent == page.span.head.offset {
            // All that was left had been trimmed away: the head is a place all the same.
            progress.place = Some(page.span.head);
            self.moved = true;
        }
    }

    /// A page could not be read; asks again.
    pub fn page_failed(&mut self, feed: &FeedId, reading: Reading, outbox: &mut impl Outbox) {
        if let Some(progress) = self.feeds.iter_mut().find(|progress| progress.feed == *feed) {
            match (reading, &mut progress.redelivery) {
                (Reading::Forward { .. }, _) => progress.reading = false,
                (Reading::Again { .. }, Some(redelivery)) => {
                    redelivery.page_came();
                }
                (Reading::Again { .. }, None) => {}
            }
            progress.ask(outbox);
        }
    }

    /// Sends the next entry of a feed, or passes over it.
    fn offer(&mut self, at: usize, share: Share<'_>, now: Moment, outbox: &mut impl Outbox) {
        let entry = share.entry;
        let offset = entry.position.offset;
        let progress = &self.feeds[at];
        let wanted = match &entry.kind {
            EntryKind::Notification(..) => {
                let open = match share.state {
                    State::Pending => true,
                    State::Delivered => offset > progress.pending_only,
                    State::Read | State::Expired | State::Cancelled | State::Dead => false,
                };
                open && self.shows(&share)
            }
            EntryKind::Read { origin, .. } => {
                offset > progress.marks_after && origin.as_ref() != Some(&self.id)
            }
            EntryKind::Withdrawn {
                target,
                reason,
                origin,
                ..
            } => {
                // A user's own feed is told only of what was pending for this user.
                let wide = progress.feed == FeedId::All;
                let acknowledged = wide && *reason == WithdrawReason::Expired && *target <= progress.judged;
                let own = origin.as_ref() == Some(&self.id);
                offset > progress.marks_after && !acknowledged && !own
            }
        };
        let progress = &mut self.feeds[at];
        progress.sent = offset;
        if progress.place.is_none_or(|place| place.offset <= offset) {
            progress.place = Some(entry.position);
        }
        self.moved = true;
        if entry.notification().is_none() {
            let all = self
                .feeds
                .iter_mut()
                .filter_map(|progress| progress.redelivery.as_mut());
            all.for_each(|redelivery| redelivery.doubt());
        }
        let progress = &mut self.feeds[at];
        if !wanted {
            return;
        }
        let pending = entry.notification().is_some() && share.state != State::Delivered;
        let counts = progress.counts && pending;
        // The engine may not have counted yet what the client says that it had.
        let least = if offset <= progress.had { 2 } else { 1 };
        outbox.send(entry, counts.then(|| share.attempts.saturating_add(1).max(least)));
        if let Some(redelivery) = progress.redelivery.as_mut().filter(|_| counts) {
            redelivery.sent(offset, 1, now.steady);
        }
    }

    /// Whether the user's screens show this notification here, whatever its state.
    fn shows(&self, share: &Share<'_>) -> bool {
        let holds = |feed: &FeedId| self.feeds.iter().any(|progress| progress.feed == *feed);
        let kept = matches!(&share.entry.kind, EntryKind::Notification(_, None)) && !share.dismissed;
        kept && share.entry.is_for(&self.user, holds)
    }

    /// The session's cursor, where it changed since it was last taken.
    pub fn take_cursor(&mut self) -> Option<String> {
        std::mem::take(&mut self.moved).then(|| self.cursor())
    }

    /// The session's cursor.
    pub fn cursor(&self) -> String {
        let places = self
            .feeds
            .iter()
            .filter_map(|progress| Some((&progress.feed, progress.place?)));
        Cursor::new(places).encode(&self.user)
    }

    /// What was sent and is not settled: the places to settle once there is evidence. Empty unless the
    /// session acknowledges by evidence.
    pub fn unsettled(&self) -> Vec<(FeedId, Position)> {
        if self.ack != AckMode::Auto {
            return Vec::new();
        }
        let open = self
            .feeds
            .iter()
            .filter(|progress| progress.settles && !progress.gap);
        let sent = open.filter_map(|progress| {
            let place = progress.place.filter(|place| place.offset == progress.sent)?;
            (place.offset > progress.floor).then(|| (progress.feed.clone(), place))
        });
        sent.collect()
    }

    /// Whether [`Session::unsettled`] would name anything.
    pub fn is_unsettled(&self) -> bool {
        self.ack == AckMode::Auto
            && self.feeds.iter().any(|progress| {
                progress.settles
                    && !progress.gap
                    && progress
                        .place
                        .is_some_and(|place| place.offset == progress.sent && place.offset > progress.floor)
            })
    }

    /// There is evidence that the client has everything up to these places.
    pub fn settled(&mut self, places: &[(FeedId, Position)], outbox: &mut impl Outbox) {
        for (feed, place) in places {
            let Some(progress) = self.feeds.iter_mut().find(|progress| progress.feed == *feed) else {
                continue;
            };
            if place.offset > progress.floor {
                progress.floor = place.offset;
                outbox.settle(feed, *place);
            }
        }
    }

    /// The places that a client's cursor names in the feeds that carry state.
    pub fn places_of(&self, cursor: &Cursor) -> Vec<(FeedId, Position)> {
        let feeds = self.feeds.iter().filter(|progress| progress.settles);
        feeds
            .filter_map(|progress| Some((progress.feed.clone(), cursor.get(&progress.feed)?)))
            .collect()
    }
}

#[cfg(test)]
mod again_tests;
#[cfg(test)]
mod tests;
