//! What a session is sent. For each of its feeds it knows up to where everything was sent; an entry goes
//! out only if it is the very next one. What cannot go out (a full outbox, a read under way, a missed wake)
//! is not kept but read forward later, so replay joins live without a hole, a repeat or a reordering, and a
//! slow client costs no memory.
//!
//! Invariant: per feed, `sent` only rises, by one entry at a time, save over a gap that the client is told.
//! Knows nothing of transports; a transport is an [`Outbox`].

use postrider_model::{
    Cursor, Entry, EntryKind, FeedId, FeedSpan, InboxPage, Position, SessionId, State, Timestamp, Topic,
    UserId, WithdrawReason,
};
use std::sync::Arc;

/// How a session acknowledges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AckMode {
    /// On the evidence that its transport gives.
    #[default]
    Auto,
    /// Only on the client's word.
    Explicit,
    /// Never; it only watches.
    None,
}

impl AckMode {
    /// Reads the `ack` parameter.
    pub fn parse(text: &str) -> Option<AckMode> {
        match text {
            "auto" => Some(AckMode::Auto),
            "explicit" => Some(AckMode::Explicit),
            "none" => Some(AckMode::None),
            _ => None,
        }
    }
}

/// What a client asked for when it connected.
#[derive(Debug, Clone)]
pub struct Opening {
    /// This session's id.
    pub session: SessionId,
    /// Whose inbox.
    pub user: UserId,
    /// How it acknowledges.
    pub ack: AckMode,
    /// Where it goes on from.
    pub cursor: Option<Cursor>,
    /// Session topics: they carry no delivery state.
    pub topics: Vec<Topic>,
}

impl Opening {
    /// The feeds of its inbox: the user's own, `all`, and the session topics.
    pub fn feeds(&self) -> Vec<FeedId> {
        let own = [FeedId::User(self.user.clone()), FeedId::All];
        own.into_iter()
            .chain(self.topics.iter().cloned().map(FeedId::Topic))
            .collect()
    }
}

/// What the engine knows of one of the feeds at the moment a session opens.
#[derive(Debug, Clone, Copy)]
pub struct FeedStart {
    /// What is held.
    pub span: FeedSpan,
    /// The user's floor; 0 for a session topic.
    pub floor: u64,
    /// Whether the cursor's position in this feed is a place of it; `None` where the cursor has none.
    pub held: Option<bool>,
}

/// Where a session's effects go.
pub trait Outbox {
    /// Whether one more entry may be sent. Asked before every entry.
    fn has_room(&self) -> bool;
    /// Whether entries that the client had before may still be sent. Where not, those left are passed over.
    fn takes_repeats(&self) -> bool {
        true
    }
    /// Send this entry.
    fn send(&mut self, entry: &Arc<Entry>);
    /// Tell the client that entries are missing; what is held begins at `oldest`.
    fn gap(&mut self, oldest: Timestamp);
    /// Read this feed forward from after `after` and give the page back to [`Session::page`].
    fn read(&mut self, feed: &FeedId, after: u64);
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

/// Where a session stands in one feed.
#[derive(Debug)]
struct Progress {
    feed: FeedId,
    /// Everything at or below is sent, or not for this session. The epoch is unknown until the first entry.
    sent: u64,
    /// The place to name in a cursor; `None` while it is not known.
    place: Option<Position>,
    /// The newest offset that is known to exist.
    head: u64,
    /// A page was asked for and has not come.
    reading: bool,
    /// A wake may have been lost: only a page can tell whether there is more.
    suspect: bool,
    /// The client must be told that entries are missing before it gets the next.
    gap: bool,
    /// Whether entries here have a delivery state for the user.
    settles: bool,
    /// What is settled, as far as this session knows.
    floor: u64,
    /// The floor as the engine told it. What this session settled itself may still be judged otherwise.
    judged: u64,
    /// At or below this only pending entries are sent; above, all that is not final.
    pending_only: u64,
    /// At or below this the client says that it had the entries: they are repeats.
    had: u64,
    /// Marks at or below this speak of nothing that this client ever had.
    marks_after: u64,
}

impl Progress {
    fn open(feed: FeedId, start: FeedStart, ack: AckMode, place: Option<Position>) -> Progress {
        let settles = !matches!(feed, FeedId::Topic(_));
        let head = start.span.head;
        let oldest = start.span.first.saturating_sub(1);
        let mut progress = Progress {
            feed,
            sent: 0,
            place: None,
            head: head.offset,
            reading: false,
            suspect: false,
            gap: false,
            settles,
            floor: start.floor,
            judged: start.floor,
            pending_only: 0,
            had: 0,
            marks_after: 0,
        };
        match (place, start.held) {
            (Some(place), Some(true)) => {
                progress.place = Some(place);
                progress.marks_after = place.offset;
                if ack == AckMode::Explicit && settles {
                    progress.sent = start.floor.max(oldest).min(place.offset);
                    progress.pending_only = place.offset;
                    progress.had = place.offset;
                } else {
                    progress.sent = place.offset;
                }
            }
            (Some(place), _) => {
                // Until the client was told of the gap its cursor names the old place, and so finds it again.
                progress.place = Some(place);
                progress.gap = true;
                progress.sent = oldest;
            }
            (None, _) if settles => {
                progress.sent = start.floor.max(oldest).min(head.offset);
                progress.pending_only = head.offset;
                progress.marks_after = head.offset;
                progress.place = (progress.sent == head.offset).then_some(head);
            }
            (None, _) => {
                progress.sent = head.offset;
                progress.place = Some(head);
                progress.marks_after = head.offset;
            }
        }
        progress
    }

    fn is_behind(&self) -> bool {
        self.sent < self.head || self.gap || self.suspect
    }

    fn ask(&mut self, outbox: &mut impl Outbox) {
        if !self.reading && self.is_behind() && outbox.has_room() {
            self.reading = true;
            self.suspect = false;
            outbox.read(&self.feed, self.sent);
        }
    }
}

impl Session {
    /// Opens a session where `starts` says, in the order of [`Opening::feeds`]. Under `auto` a cursor settles
    /// what it covers.
    pub fn open(opening: &Opening, starts: &[FeedStart], outbox: &mut impl Outbox) -> Session {
        let place = |feed: &FeedId| opening.cursor.as_ref().and_then(|cursor| cursor.get(feed));
        let feeds = opening.feeds().into_iter().zip(starts).map(|(feed, start)| {
            let place = place(&feed);
            Progress::open(feed, *start, opening.ack, place)
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

    /// Whether anything that exists is still to be sent.
    pub fn is_behind(&self) -> bool {
        self.feeds.iter().any(Progress::is_behind)
    }

    /// Wakes may have been lost: looks at every feed once more.
    pub fn suspect(&mut self, outbox: &mut impl Outbox) {
        for progress in &mut self.feeds {
            progress.suspect = true;
            progress.ask(outbox);
        }
    }

    /// Whether a page that was asked for has not come yet.
    pub fn is_reading(&self) -> bool {
        self.feeds.iter().any(|progress| progress.reading)
    }

    /// Entries were appended and are durable: sends those that come next.
    pub fn appended(&mut self, entries: &[Arc<Entry>], now: Timestamp, outbox: &mut impl Outbox) {
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
                    .is_some_and(|at| at <= now);
                self.offer(
                    at,
                    entry,
                    if expired { State::Expired } else { State::Pending },
                    false,
                    outbox,
                );
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
            outbox.send(entry);
        }
        true
    }

    /// A page that was asked for.
    pub fn page(&mut self, feed: &FeedId, page: &InboxPage, now: Timestamp, outbox: &mut impl Outbox) {
        let Some(at) = self.feeds.iter().position(|progress| progress.feed == *feed) else {
            return;
        };
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
            outbox.gap(oldest.unwrap_or(now));
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
                self.offer(
                    at,
                    &read.entry,
                    read.state.unwrap_or(State::Pending),
                    read.dismissed,
                    outbox,
                );
            }
        }
        let progress = &mut self.feeds[at];
        if progress.place.is_none() && progress.sent == page.span.head.offset {
            // All that was left had been trimmed away: the head is a place all the same.
            progress.place = Some(page.span.head);
            self.moved = true;
        }
        progress.ask(outbox);
    }

    /// A page could not be read; asks again.
    pub fn page_failed(&mut self, feed: &FeedId, outbox: &mut impl Outbox) {
        if let Some(progress) = self.feeds.iter_mut().find(|progress| progress.feed == *feed) {
            progress.reading = false;
            progress.ask(outbox);
        }
    }

    /// Sends the next entry of a feed, or passes over it.
    fn offer(
        &mut self,
        at: usize,
        entry: &Arc<Entry>,
        state: State,
        dismissed: bool,
        outbox: &mut impl Outbox,
    ) {
        let offset = entry.position.offset;
        let progress = &self.feeds[at];
        let wanted = match &entry.kind {
            EntryKind::Notification(_, withdrawn) => {
                let open = match state {
                    State::Pending => true,
                    State::Delivered => offset > progress.pending_only,
                    State::Read | State::Expired | State::Cancelled | State::Dead => false,
                };
                let holds = |feed: &FeedId| self.feeds.iter().any(|progress| progress.feed == *feed);
                open && !dismissed && withdrawn.is_none() && entry.is_for(&self.user, holds)
            }
            EntryKind::Read { origin, .. } => {
                offset > progress.marks_after && origin.as_ref() != Some(&self.id)
            }
            EntryKind::Withdrawn { target, reason, .. } => {
                let acknowledged = *reason == WithdrawReason::Expired && *target <= progress.judged;
                offset > progress.marks_after && !acknowledged
            }
        };
        let progress = &mut self.feeds[at];
        progress.sent = offset;
        if progress.place.is_none_or(|place| place.offset <= offset) {
            progress.place = Some(entry.position);
        }
        self.moved = true;
        if wanted {
            outbox.send(entry);
        }
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
mod tests;
