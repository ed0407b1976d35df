//! Reads a user's share of a feed: the entries, each with its state for that user.

use crate::{Engine, EngineError, PageWanted};
use postrider_model::{Entry, EntryKind, FeedSpan, MarkKind, Standing, Timestamp, state_of};
pub use postrider_model::{InboxEntry, InboxPage};
use std::sync::Arc;

/// [`crate::Inboxes::pages`] of one.
pub async fn read_inbox(
    engine: &dyn Engine,
    wanted: PageWanted,
    now: Timestamp,
) -> Result<InboxPage, EngineError> {
    let page = engine.pages(&[wanted], now).await.pop();
    page.unwrap_or(Err(EngineError::Closed))
}

/// The first and the last offset of a page; of an empty one, an empty stretch.
pub(crate) fn stretch(entries: &[Arc<Entry>]) -> (u64, u64) {
    match entries {
        [first, .., last] => (first.position.offset, last.position.offset),
        [only] => (only.position.offset, only.position.offset),
        [] => (1, 0),
    }
}

/// What these entries are for a user who stands so.
pub(crate) fn share(
    entries: Vec<Arc<Entry>>,
    span: FeedSpan,
    standing: &Standing,
    now: Timestamp,
) -> InboxPage {
    let entries = entries
        .into_iter()
        .map(|entry| {
            let offset = entry.position.offset;
            let (state, dismissed) = match &entry.kind {
                EntryKind::Notification(notification, withdrawn) => (
                    Some(state_of(notification, *withdrawn, offset, standing, now)),
                    withdrawn.is_some() || standing.has(offset, MarkKind::Dismissed),
                ),
                _ => (None, false),
            };
            InboxEntry {
                entry,
                shown: true,
                state,
                dismissed,
                attempts: standing.attempts_at(offset),
            }
        })
        .collect();
    InboxPage {
        entries,
        span,
        floor: standing.floor,
    }
}
