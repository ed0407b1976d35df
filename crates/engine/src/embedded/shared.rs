//! Entries of wide feeds that somebody holds. Thousands of sessions that are behind read the same ones, and
//! what waits for their sockets must not be there once for each of them.
//!
//! Invariant: what is handed out says the same as what was read. Keeps nothing alive by itself.

use crate::Page;
use foldhash::HashMap;
use postrider_model::{Entry, EntryKind, FeedId};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Entries that are remembered. Where there are more, those that nobody holds are forgotten; where that does not
/// help, all, and they are there twice for a while.
const MAX_ENTRIES: usize = 4096;

#[derive(Default)]
pub(super) struct Shared(Mutex<HashMap<FeedId, HashMap<u64, Weak<Entry>>>>);

impl Shared {
    /// Puts what others hold already in the place of what was read.
    pub fn unify(&self, feed: &FeedId, page: &mut Page) {
        if !feed.is_wide() || page.entries.is_empty() {
            return;
        }
        let mut feeds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let held: usize = feeds.values().map(HashMap::len).sum();
        if held + page.entries.len() > MAX_ENTRIES {
            forget(&mut feeds, page.entries.len());
        }
        let known = feeds.entry(feed.clone()).or_default();
        for entry in &mut page.entries {
            let weak = known.entry(entry.position.offset).or_default();
            match weak.upgrade().filter(|held| is_same(held, entry)) {
                Some(held) => *entry = held,
                None => *weak = Arc::downgrade(entry),
            }
        }
    }
}

/// Makes room for so many.
fn forget(feeds: &mut HashMap<FeedId, HashMap<u64, Weak<Entry>>>, more: usize) {
    for known in feeds.values_mut() {
        known.retain(|_, entry| entry.strong_count() > 0);
    }
    feeds.retain(|_, known| !known.is_empty());
    if feeds.values().map(HashMap::len).sum::<usize>() + more > MAX_ENTRIES {
        feeds.clear();
    }
}

/// Whether two entries at the same offset say the same: one may have been withdrawn since it was read.
fn is_same(one: &Entry, other: &Entry) -> bool {
    let kinds = match (&one.kind, &other.kind) {
        (EntryKind::Notification(one, withdrawn), EntryKind::Notification(other, later)) => {
            one == other && withdrawn == later
        }
        // Marks are small.
        _ => false,
    };
    kinds && one.position == other.position
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_model::{
        Audience, Epoch, FeedSpan, Forms, Notification, NotificationId, Position, Timestamp, UserId,
        WithdrawReason,
    };

    fn page(feed: &FeedId, offset: u64, withdrawn: Option<WithdrawReason>) -> Page {
        let notification = Notification::plain(
            NotificationId::new("n").unwrap(),
            Timestamp(1),
            Audience::Everyone,
            "{}",
        );
        let epoch = Epoch(1);
        let entry = Entry {
            feed: feed.clone(),
            position: Position { epoch, offset },
            kind: EntryKind::Notification(Arc::new(notification), withdrawn),
            forms: Arc::<Forms>::default(),
        };
        Page {
            entries: vec![Arc::new(entry)],
            span: FeedSpan::EMPTY,
        }
    }

    fn read(shared: &Shared, feed: &FeedId, offset: u64, withdrawn: Option<WithdrawReason>) -> Arc<Entry> {
        let mut page = page(feed, offset, withdrawn);
        shared.unify(feed, &mut page);
        page.entries.remove(0)
    }

    #[test]
    fn what_is_held_is_there_once_and_never_stale() {
        let shared = Shared::default();
        let first = read(&shared, &FeedId::All, 7, None);
        assert!(Arc::ptr_eq(&first, &read(&shared, &FeedId::All, 7, None)));
        assert!(!Arc::ptr_eq(&first, &read(&shared, &FeedId::All, 8, None)));
        let withdrawn = read(&shared, &FeedId::All, 7, Some(WithdrawReason::Cancelled));
        assert!(!Arc::ptr_eq(&first, &withdrawn));
        let own = FeedId::User(UserId::new("ada").unwrap());
        let first = read(&shared, &own, 7, None);
        assert!(!Arc::ptr_eq(&first, &read(&shared, &own, 7, None)));
    }

    #[test]
    fn it_keeps_nothing_alive_and_is_bounded() {
        let shared = Shared::default();
        let held: Vec<_> = (1..=10).map(|n| read(&shared, &FeedId::All, n, None)).collect();
        for n in 11..3 * MAX_ENTRIES as u64 {
            assert_eq!(Arc::strong_count(&read(&shared, &FeedId::All, n, None)), 1);
        }
        assert!(shared.0.lock().unwrap().values().map(HashMap::len).sum::<usize>() <= MAX_ENTRIES);
        assert!(Arc::ptr_eq(&held[9], &read(&shared, &FeedId::All, 10, None)));
    }
}
