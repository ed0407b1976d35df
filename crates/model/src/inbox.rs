//! A user's share of a feed: where it begins for that user, and its entries, each with its state.

use crate::{Entry, FeedSpan, State};
use std::sync::Arc;

/// An entry as one user's inbox has it.
#[derive(Debug, Clone)]
pub struct InboxEntry {
    /// The entry.
    pub entry: Arc<Entry>,
    /// Whether it is this user's: not where it stands outside the user's membership in a topic, excludes the user, or is
    /// shown at another place of the inbox. It is passed over.
    pub shown: bool,
    /// Its state for the user; `None` for a mark, and for what is not shown.
    pub state: Option<State>,
    /// Whether it has been taken off the screens, whatever its state.
    pub dismissed: bool,
    /// How often it was attempted before, where only the client's word settles.
    pub attempts: u32,
}

/// A stretch of a feed as one user's inbox has it.
#[derive(Debug, Clone)]
pub struct InboxPage {
    /// By rising offset, without holes.
    pub entries: Vec<InboxEntry>,
    /// What the feed held when it was read.
    pub span: FeedSpan,
    /// The user's floor in it.
    pub floor: u64,
}

/// What the engine knows of one of the feeds at the moment a session opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedStart {
    /// What is held.
    pub span: FeedSpan,
    /// The user's floor; 0 for a session topic.
    pub floor: u64,
    /// Everything at or below is settled: where a session without a cursor begins. Below the floor where an entry
    /// that is for the first device is still to be taken.
    pub begins: u64,
    /// Whether the cursor's position in this feed is a place of it; `None` where the cursor has none.
    pub held: Option<bool>,
}

impl FeedStart {
    /// A feed without entries.
    pub const EMPTY: FeedStart = FeedStart {
        span: FeedSpan::EMPTY,
        floor: 0,
        begins: 0,
        held: None,
    };
}
