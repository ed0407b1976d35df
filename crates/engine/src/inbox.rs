//! Reads a user's share of a feed: the entries, each with its state for that user.

use crate::{Engine, EngineError, ReadLimit};
use postrider_model::{EntryKind, FeedId, MarkKind, Timestamp, UserId, state_of};
pub use postrider_model::{InboxEntry, InboxPage};

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
    let (from, to) = match (page.entries.first(), page.entries.last()) {
        (Some(first), Some(last)) => (first.position.offset, last.position.offset),
        _ => (1, 0),
    };
    let standing = engine.standing(user, feed, from, to).await?;
    let entries = page
        .entries
        .into_iter()
        .map(|entry| {
            let offset = entry.position.offset;
            let (state, dismissed) = match &entry.kind {
                EntryKind::Notification(notification, withdrawn) => (
                    Some(state_of(notification, *withdrawn, offset, &standing, now)),
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
    Ok(InboxPage {
        entries,
        span: page.span,
        floor: standing.floor,
    })
}
