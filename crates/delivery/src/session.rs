//! What a session is sent. For each of its feeds it knows up to where everything was sent; an entry goes
//! out only if it is the very next one. What cannot go out (a full outbox, a read under way, a missed wake)
//! is not kept but read forward later, so replay joins live without a hole, a repeat or a reordering, and a
//! slow client costs no memory.
//!
//! Under `explicit`, what is not acknowledged is sent again, beside this: neither waits for the other.
//!
//! Invariant: per feed, `sent` only rises, by one entry at a time, save over a gap that the client is told; where the
//! engine has lost what was sent, it begins again, with a gap.
//! Knows nothing of transports; a transport is an [`Outbox`].

mod again;
mod fallen_back;
mod opening;
mod progress;
mod topics;

pub use opening::{AckMode, Opening};
pub use postrider_model::FeedStart;
pub use topics::MemberFeed;

use postrider_model::{
    Cursor, CursorSeal, Entry, EntryKind, FeedId, InboxEntry, InboxPage, NotificationId, Position, SessionId,
    State, Timestamp, UserId, WithdrawReason,
};
use progress::Progress;
use std::sync::Arc;
use topics::TopicPlace;

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
    /// Whether the engine says that it is this user's here; `None` where the session has to know.
    shown: Option<bool>,
    /// Pending for a mark, which has none.
    state: State,
    dismissed: bool,
    attempts: u32,
}

impl<'a> Share<'a> {
    /// Of a page, which was read as a member's or not.
    fn of(read: &'a InboxEntry, member: bool) -> Share<'a> {
        Share {
            entry: &read.entry,
            shown: (member || !read.shown).then_some(read.shown),
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
    /// The engine lost where this feed stood, and all of it is sent anew behind a gap: what was sent of it and has not
    /// gone to the client yet need not go.
    fn take_back(&mut self, _feed: &FeedId) {}
    /// Tell the client that entries are missing; what is held begins at `oldest`.
    fn gap(&mut self, oldest: Timestamp);
    /// Tell the client that these are not sent to it any more, though it has not acknowledged them.
    fn stalled(&mut self, ids: &[NotificationId]);
    /// Read this and give the page back to [`Session::page`]. `member`: it is a topic that the inbox has by membership.
    fn read(&mut self, feed: &FeedId, reading: Reading, member: bool);
    /// Record that everything in `feed` up to `through` is delivered.
    fn settle(&mut self, feed: &FeedId, through: Position);
}

/// A stretch of a wide feed, without holes, of which every entry is shown to whoever hears the feed
/// ([`Entry::is_for_everyone`]) and has not expired.
#[derive(Debug, Clone, Copy)]
pub struct Stretch {
    /// The offset of its first entry.
    pub first: u64,
    /// Where its last stands.
    pub last: Position,
}

/// Which of a session's feeds: [`OWN`], [`ALL`], or a topic's place among its topics after these.
type At = usize;
const OWN: At = 0;
const ALL: At = 1;

/// A live session.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    user: UserId,
    seal: CursorSeal,
    /// The user's own feed, and `all`.
    main: [Progress; 2],
    topics: Box<[TopicPlace]>,
    ack: AckMode,
    moved: bool,
    /// News of memberships may have been lost.
    members_in_doubt: bool,
    /// The engine may lose what it had while the session is there.
    may_fall_back: bool,
}

impl Session {
    /// Opens a session where `starts` says, in the order of [`Opening::feeds`], with the topics that its user is a member
    /// of. Under `auto` a cursor settles what it covers.
    pub fn open(
        opening: &Opening,
        starts: &[FeedStart],
        members: &[MemberFeed],
        outbox: &mut impl Outbox,
    ) -> Session {
        // A feed that the engine said nothing of has nothing.
        let start = |at: At| starts.get(at).copied().unwrap_or(FeedStart::EMPTY);
        let cursor = opening.cursor.as_ref();
        let open = |settles: bool, start: FeedStart, place: Option<Position>| {
            Progress::open(settles, start, opening.ack, opening.redelivery, place)
        };
        let main = |at: At, feed: FeedId| open(true, start(at), cursor.and_then(|cursor| cursor.get(&feed)));
        let mut session = Session {
            id: opening.session.clone(),
            user: opening.user.clone(),
            seal: CursorSeal::of(&opening.user),
            main: [
                main(OWN, FeedId::User(opening.user.clone())),
                main(ALL, FeedId::All),
            ],
            topics: Session::open_topics(&opening.topics, starts, members, cursor, open),
            ack: opening.ack,
            moved: false,
            members_in_doubt: false,
            may_fall_back: false,
        };
        if session.ack == AckMode::Auto && opening.cursor.is_some() {
            session.settle_through_cursor(outbox);
        }
        session.catch_up(outbox);
        session
    }

    fn settle_through_cursor(&mut self, outbox: &mut impl Outbox) {
        for at in self.ats() {
            let progress = self.progress_mut(at);
            let through = progress.place().filter(|_| progress.settles && !progress.gap);
            if let Some(through) = through.filter(|through| through.offset > progress.floor) {
                progress.floor = through.offset;
                outbox.settle(&self.feed(at), through);
            }
        }
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

    fn ats(&self) -> std::ops::Range<At> {
        0..self.main.len() + self.topics.len()
    }

    fn at(&self, feed: &FeedId) -> Option<At> {
        match feed {
            FeedId::All => Some(ALL),
            FeedId::User(user) => (*user == self.user).then_some(OWN),
            FeedId::Topic(topic) => {
                let nth = self.topics.iter().position(|place| place.topic == *topic)?;
                Some(ALL + 1 + nth)
            }
        }
    }

    fn feed(&self, at: At) -> FeedId {
        match at {
            OWN => FeedId::User(self.user.clone()),
            ALL => FeedId::All,
            topic => FeedId::Topic(self.topics[topic - ALL - 1].topic.clone()),
        }
    }

    fn progress(&self, at: At) -> &Progress {
        match at {
            OWN | ALL => &self.main[at],
            topic => &self.topics[topic - ALL - 1].progress,
        }
    }

    fn progress_mut(&mut self, at: At) -> &mut Progress {
        match at {
            OWN | ALL => &mut self.main[at],
            topic => &mut self.topics[topic - ALL - 1].progress,
        }
    }

    fn all(&self) -> impl Iterator<Item = &Progress> {
        self.main
            .iter()
            .chain(self.topics.iter().map(|place| &place.progress))
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Progress> {
        self.main
            .iter_mut()
            .chain(self.topics.iter_mut().map(|place| &mut place.progress))
    }

    /// Reads on in a feed, where there is more and room for it.
    fn ask(&mut self, at: At, outbox: &mut impl Outbox) {
        if at > ALL {
            self.go_on(at);
        }
        if !outbox.has_room() {
            return;
        }
        for reading in self.progress_mut(at).wanted().into_iter().flatten() {
            outbox.read(&self.feed(at), reading, self.reads_as_member(at, reading));
        }
    }

    fn reads_as_member(&self, at: At, reading: Reading) -> bool {
        let after = match reading {
            Reading::Forward { after } => after,
            Reading::Again { .. } => u64::MAX,
        };
        self.topic(at).is_some_and(|place| place.reads_as_member(after))
    }

    /// Asks for every feed that is not read to its end. Called when an outbox has room again.
    pub fn catch_up(&mut self, outbox: &mut impl Outbox) {
        for at in self.ats() {
            self.ask(at, outbox);
        }
    }

    /// Whether anything that exists is still to be sent, or is due again and waits for room.
    pub fn is_behind(&self) -> bool {
        self.all()
            .any(|progress| progress.is_behind() || progress.is_late())
    }

    /// Wakes may have been lost: looks at every feed once more.
    pub fn suspect(&mut self, outbox: &mut impl Outbox) {
        for at in self.ats() {
            self.doubt(at, outbox);
        }
    }

    /// Wakes of one feed may have been lost: looks at it once more.
    pub fn suspect_feed(&mut self, feed: &FeedId, outbox: &mut impl Outbox) {
        if let Some(at) = self.at(feed) {
            self.doubt(at, outbox);
        }
    }

    fn doubt(&mut self, at: At, outbox: &mut impl Outbox) {
        let (progress, may_fall_back) = (self.progress(at), self.may_fall_back);
        let ends = self
            .topic(at)
            .map_or(u64::MAX, |place| place.ends(progress.sent()).1);
        if progress.sent() < ends {
            let progress = self.progress_mut(at);
            progress.suspect = true;
            progress.check |= may_fall_back;
        }
        self.ask(at, outbox);
    }

    /// Whether a page of what comes next was asked for and has not come.
    pub fn is_reading(&self) -> bool {
        self.all().any(|progress| progress.reading)
    }

    /// Takes a stretch of a feed as it is, which costs next to nothing: everything from the offset that this
    /// returns is sent (nothing, where that is beyond the stretch). `None` where the session has to look at each
    /// entry: give them to [`Session::appended`]. The outcome is the same. The caller has seen to it that there is
    /// room for all of the stretch.
    pub fn advance(&mut self, feed: &FeedId, stretch: Stretch) -> Option<u64> {
        let at = self.at(feed)?;
        if !self.is_live(at) {
            return None;
        }
        let may_fall_back = self.may_fall_back;
        let progress = self.progress_mut(at);
        let next = progress.sent() + 1;
        let last = stretch.last.offset;
        let is_plain = progress.is_sure() && !progress.counts;
        if !is_plain || (may_fall_back && progress.differs(stretch.last)) || next < stretch.first {
            return None;
        }
        progress.head = progress.head.max(last);
        if next <= last {
            progress.pass(last);
            progress.move_place(stretch.last);
            self.moved = true;
        }
        Some(next)
    }

    /// Entries were appended and are durable: sends those that come next.
    pub fn appended(&mut self, entries: &[Arc<Entry>], now: Moment, outbox: &mut impl Outbox) {
        for entry in entries {
            let Some(at) = self.at(&entry.feed) else {
                continue;
            };
            // Mostly it is no topic's, and nothing of this has to be looked at.
            let live = at <= ALL || self.is_live(at);
            if !live && self.has_ended(at, entry.position.offset) {
                continue;
            }
            let may_fall_back = self.may_fall_back;
            let progress = self.progress_mut(at);
            progress.head = progress.head.max(entry.position.offset);
            progress.check |= may_fall_back && progress.differs(entry.position);
            let next = progress.is_sure() && entry.position.offset == progress.sent() + 1;
            if at > ALL && live && self.may_be_elsewhere(entry) {
                self.doubt(at, outbox);
                continue;
            }
            if next && live && outbox.has_room() {
                let expired = entry
                    .notification()
                    .and_then(|n| n.expires_at)
                    .is_some_and(|at| at <= now.wall);
                let state = if expired { State::Expired } else { State::Pending };
                let fresh = Share {
                    entry,
                    shown: None,
                    state,
                    dismissed: false,
                    attempts: 0,
                };
                self.offer(at, fresh, now, outbox);
            } else {
                self.ask(at, outbox);
            }
        }
    }

    /// A transient notification: sent if there is room, otherwise gone. True if it was for this session.
    pub fn transient(&mut self, entry: &Arc<Entry>, outbox: &mut impl Outbox) -> bool {
        let is_heard = self.at(&entry.feed).is_some_and(|at| self.is_live(at));
        if !is_heard || !self.takes_now(entry) {
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
        let Some(at) = self.at(feed) else {
            return;
        };
        match reading {
            Reading::Forward { after } => self.page_forward(at, after, page, now, outbox),
            Reading::Again { .. } => self.page_again(at, page, now, outbox),
        }
        self.ask(at, outbox);
    }

    fn page_forward(&mut self, at: At, after: u64, page: &InboxPage, now: Moment, outbox: &mut impl Outbox) {
        let topic = self.topic(at);
        let member = topic.is_some_and(|place| place.reads_as_member(after));
        let (last, ends) = topic.map_or((u64::MAX, u64::MAX), |place| place.ends(after));
        let asked = std::mem::take(&mut self.progress_mut(at).reading);
        if asked && self.may_fall_back && !self.stands(at, after, ends, page, outbox) {
            return;
        }
        let progress = self.progress_mut(at);
        progress.head = progress.head.max(page.span.head.offset.min(ends));
        progress.floor = progress.floor.max(page.floor);
        progress.judged = progress.judged.max(page.floor);
        let missing = page.span.first > progress.sent() + 1 && progress.sent() < ends;
        if progress.gap || missing {
            let oldest = page
                .entries
                .iter()
                .find_map(|e| e.entry.notification().map(|n| n.time));
            outbox.gap(oldest.unwrap_or(now.wall));
            if progress.gap {
                progress.told_gap();
            }
            progress.pass(progress.sent().max(page.span.first.saturating_sub(1).min(ends)));
            self.moved = true;
        }
        let offered = page.entries.iter();
        for read in offered.take_while(|read| read.entry.position.offset <= last) {
            if !outbox.has_room() {
                break;
            }
            let progress = self.progress_mut(at);
            let had = progress.past().had;
            if progress.sent() < had && !outbox.takes_repeats() {
                // The rest of the repeats stays pending; what is new must not wait behind them.
                progress.pass(had);
            }
            if read.entry.position.offset == progress.sent() + 1 {
                self.offer(at, Share::of(read, member), now, outbox);
            }
        }
        let progress = self.progress_mut(at);
        if progress.place().is_none() && progress.sent() == page.span.head.offset {
            // All that was left had been trimmed away: the head is a place all the same.
            progress.set_place(page.span.head);
            self.moved = true;
        }
    }

    /// A page could not be read; asks again.
    pub fn page_failed(&mut self, feed: &FeedId, reading: Reading, outbox: &mut impl Outbox) {
        if let Some(at) = self.at(feed) {
            let may_fall_back = self.may_fall_back;
            let progress = self.progress_mut(at);
            match (reading, &mut progress.redelivery) {
                (Reading::Forward { .. }, _) => {
                    progress.reading = false;
                    // Perhaps it was to tell.
                    progress.check |= may_fall_back;
                }
                (Reading::Again { .. }, Some(redelivery)) => {
                    redelivery.page_came();
                }
                (Reading::Again { .. }, None) => {}
            }
            self.ask(at, outbox);
        }
    }

    /// Sends the next entry of a feed, or passes over it.
    fn offer(&mut self, at: At, share: Share<'_>, now: Moment, outbox: &mut impl Outbox) {
        let entry = share.entry;
        let offset = entry.position.offset;
        let progress = self.progress(at);
        let past = progress.past();
        let wanted = match &entry.kind {
            EntryKind::Notification(..) => {
                let open = match share.state {
                    State::Pending => true,
                    State::Delivered => offset > past.pending_only,
                    State::Read | State::Expired | State::Cancelled | State::Dead => false,
                };
                open && self.shows(&share)
            }
            _ if share.shown == Some(false) => false,
            EntryKind::Read { origin, .. } => offset > past.marks_after && origin.as_ref() != Some(&self.id),
            EntryKind::Withdrawn {
                target,
                reason,
                origin,
                ..
            } => {
                // A user's own feed is told only of what was pending for this user.
                let wide = at != OWN && progress.settles;
                let acknowledged = wide && *reason == WithdrawReason::Expired && *target <= progress.judged;
                let own = origin.as_ref() == Some(&self.id);
                offset > past.marks_after && !acknowledged && !own && self.may_have_had(at, *target)
            }
        };
        let progress = self.progress_mut(at);
        progress.pass(offset);
        progress.move_place(entry.position);
        self.moved = true;
        if entry.notification().is_none() {
            let all = self.all_mut();
            let all = all.filter_map(|progress| progress.redelivery.as_mut());
            all.for_each(|redelivery| redelivery.doubt());
        }
        let progress = self.progress_mut(at);
        if !wanted {
            return;
        }
        let pending = entry.notification().is_some() && share.state != State::Delivered;
        let counts = progress.counts && pending;
        // The engine may not have counted yet what the client says that it had.
        let least = if offset <= past.had { 2 } else { 1 };
        outbox.send(entry, counts.then(|| share.attempts.saturating_add(1).max(least)));
        if let Some(redelivery) = progress.redelivery.as_mut().filter(|_| counts) {
            redelivery.sent(offset, 1, now.steady);
        }
    }

    /// Whether the user's screens show this notification here, whatever its state.
    fn shows(&self, share: &Share<'_>) -> bool {
        let kept = matches!(&share.entry.kind, EntryKind::Notification(_, None)) && !share.dismissed;
        kept && match share.shown {
            Some(shown) => shown && share.entry.is_for(&self.user, |feed| *feed == share.entry.feed),
            // Mostly: then no topic has to be looked at.
            None => share.entry.is_for_everyone() || self.takes(share.entry),
        }
    }

    /// Whether the session's cursor changed since this was last asked.
    pub fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// Appends the session's cursor.
    pub fn push_cursor(&self, out: &mut Vec<u8>) {
        let [own, all] = &self.main;
        if self.topics.is_empty() {
            return self.seal.push(out, all.named(), own.named());
        }
        out.extend_from_slice(self.cursor().as_bytes());
    }

    /// Appends the session's cursor with the version of the state map that its client has.
    pub fn push_cursor_with_state(&self, out: &mut Vec<u8>, version: u64) {
        let cursor = self.position().with_state(Some(version));
        out.extend_from_slice(cursor.encode(&self.user).as_bytes());
    }

    /// The session's cursor.
    pub fn cursor(&self) -> String {
        self.position().encode(&self.user)
    }

    fn position(&self) -> Cursor {
        let feeds = self.ats().map(|at| (self.feed(at), self.progress(at).named()));
        let feeds: Vec<_> = feeds.collect();
        Cursor::new(feeds.iter().filter_map(|(feed, place)| Some((feed, (*place)?))))
    }

    /// Whether something was sent that is not settled and would be once there is evidence.
    pub fn is_unsettled(&self) -> bool {
        self.ack == AckMode::Auto && self.all().any(|progress| progress.unsettled().is_some())
    }

    /// A probe begins: its answer proves that the client has what was sent so far.
    pub fn begin_probe(&mut self) {
        if self.ack == AckMode::Auto {
            self.all_mut().for_each(Progress::begin_probe);
        }
    }

    /// The probe that was begun last is answered: settles what it proves.
    pub fn proven(&mut self, outbox: &mut impl Outbox) {
        for at in self.ats() {
            if let Some(place) = self.progress_mut(at).proven() {
                outbox.settle(&self.feed(at), place);
            }
        }
    }

    /// The places that a client's cursor names in the feeds that carry state.
    pub fn places_of(&self, cursor: &Cursor) -> Vec<(FeedId, Position)> {
        let feeds = self.ats().filter(|at| self.progress(*at).settles);
        let feeds = feeds.map(|at| self.feed(at));
        feeds
            .filter_map(|feed| {
                let place = cursor.get(&feed)?;
                Some((feed, place))
            })
            .collect()
    }
}

#[cfg(test)]
mod again_tests;
#[cfg(test)]
mod fallen_back_tests;
#[cfg(test)]
mod member_tests;
#[cfg(test)]
mod tests;
