//! A user's share of a feed: entries, each with its state for that user.

use crate::{Entry, FeedSpan, State};
use std::sync::Arc;

/// An entry as one user's inbox has it.
#[derive(Debug, Clone)]
pub struct InboxEntry {
    /// The entry.
    pub entry: Arc<Entry>,
    /// Its state for the user; `None` for a mark.
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
