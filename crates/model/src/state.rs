//! The state of a notification for one user, as a function: no state is stored for a user who did nothing.
//!
//! Invariant: [`state_of`] is total, and read, expired and cancelled are final: nothing that is recorded
//! later outranks them.

use crate::{Notification, SessionId, Timestamp, Transport};

/// In what state a notification is for one recipient. Exactly one at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Not yet acknowledged.
    Pending,
    /// Acknowledged from some device.
    Delivered,
    /// Read by the person; implies delivered. Final.
    Read,
    /// Its time ran out before anyone acknowledged it. Final.
    Expired,
    /// Taken back, or replaced, before anyone acknowledged it. Final.
    Cancelled,
    /// Given up; a late acknowledgement still makes it delivered.
    Dead,
}

impl State {
    /// All states, in the order in which the interface lists them.
    pub const ALL: [State; 6] = [
        State::Pending,
        State::Delivered,
        State::Read,
        State::Expired,
        State::Cancelled,
        State::Dead,
    ];

    /// The word for it in the interface.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Pending => "pending",
            State::Delivered => "delivered",
            State::Read => "read",
            State::Expired => "expired",
            State::Cancelled => "cancelled",
            State::Dead => "dead",
        }
    }

    /// Whether nothing can change it any more.
    pub fn is_final(self) -> bool {
        matches!(self, State::Read | State::Expired | State::Cancelled)
    }
}

/// Why sessions are told to take a notification off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum WithdrawReason {
    /// The publisher took it back.
    Cancelled = 1,
    /// A newer one with the same collapse key replaced it.
    Collapsed = 2,
    /// Its time ran out.
    Expired = 3,
    /// Another device took it.
    Taken = 4,
}

impl WithdrawReason {
    /// The word for it in the interface.
    pub fn as_str(self) -> &'static str {
        match self {
            WithdrawReason::Cancelled => "cancelled",
            WithdrawReason::Collapsed => "collapsed",
            WithdrawReason::Expired => "expired",
            WithdrawReason::Taken => "taken",
        }
    }

    /// Reads the byte that is kept in stores.
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::Cancelled, Self::Collapsed, Self::Expired, Self::Taken]
            .into_iter()
            .find(|r| *r as u8 == byte)
    }
}

/// What can be recorded about one entry for one user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum MarkKind {
    /// Acknowledged.
    Delivered = 1,
    /// Read.
    Read = 2,
    /// Cancelled (or collapsed, or taken) while pending.
    Cancelled = 3,
    /// Expired while pending.
    Expired = 4,
    /// Given up.
    Dead = 5,
    /// Taken off the screens after it was delivered; its state stays.
    Dismissed = 6,
    /// Put here anew after it was given up: the story goes on at this entry.
    Redriven = 7,
}

impl MarkKind {
    /// Reads the byte that is kept in stores.
    pub fn from_byte(byte: u8) -> Option<Self> {
        [
            Self::Delivered,
            Self::Read,
            Self::Cancelled,
            Self::Expired,
            Self::Dead,
            Self::Dismissed,
            Self::Redriven,
        ]
        .into_iter()
        .find(|k| *k as u8 == byte)
    }
}

/// A recorded fact about the entries `from..=offset` of a feed for one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The last entry it speaks of.
    pub offset: u64,
    /// The first; less than `offset` only below the floor, where many were acknowledged at once.
    pub from: u64,
    /// What happened.
    pub kind: MarkKind,
    /// When.
    pub time: Timestamp,
    /// By which session, where one did it.
    pub session: Option<SessionId>,
    /// Over which transport.
    pub transport: Option<Transport>,
    /// On what evidence, or for what reason.
    pub why: String,
}

/// What is recorded for one user about a stretch of one feed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Everything at or below it is acknowledged, save where a mark says otherwise.
    pub floor: u64,
    /// Marks on single entries of the stretch, by rising offset.
    pub marks: Vec<Mark>,
    /// Entries of the stretch that are pending although the floor passed them, by rising offset: they are for
    /// the first device that takes them.
    pub open: Vec<u64>,
    /// The oldest such entry of the whole feed: there a session without a cursor begins.
    pub first_open: Option<u64>,
    /// Up to here the user is no recipient of what stands in a wide feed.
    pub joined: u64,
    /// How often entries of the stretch were attempted where only the client's word settles, by rising
    /// offset; what is not here was never.
    pub attempts: Vec<(u64, u32)>,
}

impl Standing {
    /// Where a session without a cursor begins: right after this offset.
    pub fn start(&self) -> u64 {
        let open = self.first_open.map_or(u64::MAX, |open| open.saturating_sub(1));
        self.floor.min(open)
    }

    /// Whether the floor covers entry `offset`.
    pub fn covers(&self, offset: u64) -> bool {
        offset <= self.floor && self.open.binary_search(&offset).is_err()
    }

    /// Whether entry `offset` has a mark of this kind.
    pub fn has(&self, offset: u64, kind: MarkKind) -> bool {
        self.at(offset).any(|mark| mark.kind == kind)
    }

    /// How often entry `offset` was attempted.
    pub fn attempts_at(&self, offset: u64) -> u32 {
        let at = self.attempts.binary_search_by_key(&offset, |(at, _)| *at);
        at.map_or(0, |at| self.attempts[at].1)
    }

    /// The marks on entry `offset`.
    pub fn at(&self, offset: u64) -> impl Iterator<Item = &Mark> {
        let start = self.marks.partition_point(|mark| mark.offset < offset);
        self.marks[start..]
            .iter()
            .take_while(move |mark| mark.offset == offset)
    }
}

/// The state of `notification`, which stands at `offset`, for a user who is one of its recipients.
/// A user's own mark first, then the floor, then what befell the whole feed, then the clock. A floor that
/// passed what was given up does not deliver it: only a word about that entry does.
pub fn state_of(
    notification: &Notification,
    withdrawn: Option<WithdrawReason>,
    offset: u64,
    standing: &Standing,
    now: Timestamp,
) -> State {
    let has = |kind| standing.has(offset, kind);
    if has(MarkKind::Read) {
        State::Read
    } else if has(MarkKind::Cancelled) {
        State::Cancelled
    } else if has(MarkKind::Expired) {
        State::Expired
    } else if has(MarkKind::Delivered) {
        State::Delivered
    } else if has(MarkKind::Dead) {
        State::Dead
    } else if standing.covers(offset) {
        State::Delivered
    } else {
        match withdrawn {
            Some(WithdrawReason::Expired) => State::Expired,
            Some(_) => State::Cancelled,
            None if notification.expires_at.is_some_and(|at| at <= now) => State::Expired,
            None => State::Pending,
        }
    }
}
