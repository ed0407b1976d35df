//! Reads a user's share of a feed: the entries, each with its state for that user.

use crate::{Engine, EngineError, ReadLimit};
use postrider_model::{Entry, EntryKind, FeedId, FeedSpan, MarkKind, Standing, Timestamp, UserId, state_of};
pub use postrider_model::{InboxEntry, InboxPage};
use std::sync::Arc;

/// Reads forward from after `after` and joins what is recorded for the user.
pub async fn read_inbox(
    engine: &dyn Engine,
    user: &UserId,
    feed: &FeedId,
    after: u64,
    limit: ReadLimit,
    now: Timestamp,
) -> Result<InboxPage, EngineError> {
    let page = engine.read(feed, after, limit).await?;
    let (from, to) = stretch(&page.entries);
    let standing = engine.standing(user, feed, from, to).await?;
    Ok(share(page.entries, page.span, &standing, now))
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
