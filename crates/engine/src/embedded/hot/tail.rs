//! What of one feed is held, and its newest entries. Pure: told of rows that were written, and of the entries
//! that stand in them.
//!
//! Invariant: the entries have no holes, none is above the head, and each says what its row says. Where a row
//! that changes cannot be followed the whole tail is given up, never a part of it left wrong.

use crate::ReadLimit;
use postrider_model::{Audience, Entry, FeedSpan, NotificationId, Position};
use std::collections::VecDeque;
use std::sync::Arc;

/// Entries of one feed: as many as one page has.
const MAX_ENTRIES: usize = 256;
/// Of them, as many as are looked at to find one by its id: the store finds an older one at less cost.
const MAX_SOUGHT: usize = 16;
/// What they may take in memory.
const MAX_BYTES: usize = 512 << 10;
/// An entry beside its data, and each of its encoded forms beside theirs.
const ENTRY_OVERHEAD: usize = 512;
/// The data itself, and its copies in two encoded forms.
const COPIES: usize = 3;
/// A notification for more named users keeps all their names in memory: it is read from the store.
const MAX_NAMED: usize = 16;

/// The newest entries of a feed.
#[derive(Debug)]
pub(super) struct Tail {
    span: FeedSpan,
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
    /// What is at or below it may not be as it was appended.
    changed: u64,
}

/// A row was written or taken away in a way that cannot be followed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lost;

impl Tail {
    /// A feed as a view shows it. Of what stands in it then nothing is taken later: it may have changed since it was
    /// appended.
    pub fn new(span: FeedSpan) -> Tail {
        Tail {
            span,
            entries: VecDeque::new(),
            bytes: 0,
            changed: span.head.offset,
        }
    }

    /// The same, with its newest entries as that view shows them.
    pub fn with(span: FeedSpan, entries: &[Arc<Entry>]) -> Tail {
        let mut tail = Tail::new(span);
        tail.changed = 0;
        entries.iter().for_each(|entry| tail.push(entry));
        tail.changed = span.head.offset;
        tail
    }

    /// Fills what is known of a feed with what a view shows. Entries that are more than what is there take its place.
    pub fn fill(tail: &mut Option<Tail>, span: FeedSpan, entries: &[Arc<Entry>]) {
        let tail = tail.get_or_insert_with(|| Tail::new(span));
        let is_end = entries.last().is_some_and(|last| last.position == span.head);
        let is_more = entries
            .first()
            .is_some_and(|first| tail.begins_after(first.position.offset));
        if is_end && is_more && tail.span() == span {
            *tail = Tail::with(span, entries);
        }
    }

    pub fn span(&self) -> FeedSpan {
        self.span
    }

    /// What the entries take in memory.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_nothing(&self) -> bool {
        self.span == FeedSpan::EMPTY && self.entries.is_empty()
    }

    /// Trimming wrote down what is held. Said before anything of the same commit about single rows.
    pub fn trimmed(&mut self, span: FeedSpan) -> Result<(), Lost> {
        if span.first < self.span.first {
            return Err(Lost);
        }
        self.span.first = span.first;
        if span.head.offset > self.span.head.offset {
            self.span.head = span.head;
        }
        while let Some(oldest) = self.entries.front()
            && oldest.position.offset < span.first
        {
            self.pop();
        }
        Ok(())
    }

    /// An entry's row was written, by rising offset. `plain`: as it is when it is appended.
    pub fn written(&mut self, position: Position, plain: bool) -> Result<(), Lost> {
        let next = self.span.head.offset + 1;
        if position.offset > next {
            return Err(Lost);
        }
        if position.offset == next {
            self.span.head = position;
        }
        if position.offset < next || !plain {
            self.forget_through(position.offset);
        }
        Ok(())
    }

    /// An entry's row was taken away.
    pub fn removed(&mut self, offset: u64) -> Result<(), Lost> {
        if offset < self.span.first {
            Ok(())
        } else {
            Err(Lost)
        }
    }

    /// The user whose feed it is has acknowledged everything up to here. Nobody begins before it, mostly: those before
    /// it are left to the store, as there is more use for their memory.
    pub fn settled(&mut self, floor: u64) {
        while let Some(oldest) = self.entries.front()
            && oldest.position.offset < floor
        {
            self.pop();
        }
        if self.entries.capacity() > 4 * self.entries.len().max(4) {
            self.entries.shrink_to(2 * self.entries.len());
        }
    }

    /// What stands in a row that was written.
    pub fn push(&mut self, entry: &Arc<Entry>) {
        let offset = entry.position.offset;
        let end = self.entries.back().map(|last| last.position.offset);
        let is_known = end.is_some_and(|end| offset <= end);
        let is_held = (self.span.first..=self.span.head.offset).contains(&offset);
        if is_known || !is_held || offset <= self.changed {
            return;
        }
        if end.is_some_and(|end| offset > end + 1) {
            self.clear();
        }
        match cost(entry) {
            None => self.clear(),
            Some(cost) => {
                self.bytes += cost;
                self.entries.push_back(entry.clone());
            }
        }
        while self.entries.len() > MAX_ENTRIES || self.bytes > MAX_BYTES {
            self.pop();
        }
    }

    /// Whether a place is one of the feed, if that can be told.
    pub fn holds(&self, place: Position) -> Option<bool> {
        if place.offset == 0 {
            return Some(self.span.first <= 1);
        }
        if place == self.span.head {
            return Some(true);
        }
        if place.offset > self.span.head.offset {
            return Some(false);
        }
        Some(self.at(place.offset)?.position.epoch == place.epoch)
    }

    /// The entries that a read would return, if they are all here.
    pub fn page(&self, after: u64, limit: ReadLimit) -> Option<Vec<Arc<Entry>>> {
        let first = after.saturating_add(1).max(self.span.first);
        if first > self.span.head.offset {
            return Some(Vec::new());
        }
        let front = self.entries.front()?.position.offset;
        let at = usize::try_from(first.checked_sub(front)?).ok()?;
        let (mut page, mut bytes) = (Vec::new(), 0);
        for entry in self.entries.range(at.min(self.entries.len())..) {
            bytes += entry.notification().map_or(0, |n| n.data.len());
            page.push(entry.clone());
            if page.len() >= limit.entries.max(1) || bytes >= limit.bytes {
                return Some(page);
            }
        }
        let is_whole = page.last().map(|last| last.position) == Some(self.span.head);
        is_whole.then_some(page)
    }

    /// The newest notification with this id, if it is among the last.
    pub fn find(&self, id: &NotificationId) -> Option<&Arc<Entry>> {
        let has_id = |entry: &&Arc<Entry>| entry.notification().is_some_and(|n| n.id == *id);
        self.entries.iter().rev().take(MAX_SOUGHT).find(has_id)
    }

    /// The entry at an offset, if it is here.
    pub fn at(&self, offset: u64) -> Option<&Arc<Entry>> {
        let front = self.entries.front()?.position.offset;
        let at = usize::try_from(offset.checked_sub(front)?).ok()?;
        self.entries.get(at)
    }

    /// Whether the entry at this offset is older than all that are here.
    pub fn begins_after(&self, offset: u64) -> bool {
        self.entries
            .front()
            .is_none_or(|oldest| oldest.position.offset > offset)
    }

    fn forget_through(&mut self, offset: u64) {
        self.changed = self.changed.max(offset);
        while let Some(oldest) = self.entries.front()
            && oldest.position.offset <= offset
        {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some(oldest) = self.entries.pop_front() {
            self.bytes = self.bytes.saturating_sub(cost(&oldest).unwrap_or(0));
        }
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }
}

/// What an entry takes in memory, about; `None` where that is too much.
fn cost(entry: &Entry) -> Option<usize> {
    let Some(notification) = entry.notification() else {
        return Some(ENTRY_OVERHEAD);
    };
    let names = match &notification.audience {
        Audience::Users(users) => users.len(),
        Audience::Topics(topics) => topics.len(),
        Audience::Everyone => 0,
    } + notification.exclude.len();
    (names <= MAX_NAMED).then_some(ENTRY_OVERHEAD + COPIES * notification.data.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Make;
    use postrider_model::{EntryKind, Epoch, FeedId, Timestamp};

    fn at(offset: u64) -> Position {
        Position {
            epoch: Epoch(7),
            offset,
        }
    }

    fn entry(offset: u64) -> Arc<Entry> {
        let publication = Make::new(format!("n-{offset}")).publication(Timestamp(0));
        Arc::new(Entry {
            feed: FeedId::All,
            position: at(offset),
            kind: EntryKind::Notification(publication.notification, None),
            forms: Arc::default(),
        })
    }

    fn append(tail: &mut Tail, offset: u64) {
        assert_eq!(tail.written(at(offset), true), Ok(()));
        tail.push(&entry(offset));
    }

    fn page(tail: &Tail, after: u64, entries: usize) -> Option<Vec<u64>> {
        let limit = ReadLimit {
            entries,
            bytes: usize::MAX,
        };
        let page = tail.page(after, limit)?;
        Some(page.iter().map(|entry| entry.position.offset).collect())
    }

    #[test]
    fn it_answers_what_it_has_and_nothing_else() {
        let mut tail = Tail::new(FeedSpan {
            first: 1,
            head: at(4),
        });
        assert_eq!(page(&tail, 4, 9), Some(vec![]), "the end is known");
        assert_eq!(page(&tail, 3, 9), None, "what was before is not");
        (5..=9).for_each(|offset| append(&mut tail, offset));
        assert_eq!(page(&tail, 4, 9), Some(vec![5, 6, 7, 8, 9]));
        assert_eq!(page(&tail, 6, 2), Some(vec![7, 8]));
        assert_eq!(page(&tail, 3, 1), None);
        assert_eq!(
            [0, 4, 5, 9, 10].map(|offset| tail.holds(at(offset))),
            [Some(true), None, Some(true), Some(true), Some(false)]
        );
        let other = Position {
            epoch: Epoch(8),
            offset: 9,
        };
        assert_eq!(tail.holds(other), Some(false), "numbered in another life");
    }

    #[test]
    fn an_entry_whose_row_was_written_and_that_did_not_come_is_not_passed_over() {
        let mut tail = Tail::new(FeedSpan::EMPTY);
        append(&mut tail, 1);
        assert_eq!(tail.written(at(2), true), Ok(()));
        assert_eq!(page(&tail, 0, 9), None, "the second is not here");
        assert_eq!(page(&tail, 0, 1), Some(vec![1]));
        append(&mut tail, 3);
        assert_eq!(page(&tail, 1, 9), None, "what came before the hole went");
        assert_eq!(page(&tail, 2, 9), Some(vec![3]));
    }

    #[test]
    fn what_changes_is_forgotten_with_all_before_it() {
        let mut tail = Tail::new(FeedSpan::EMPTY);
        (1..=5).for_each(|offset| append(&mut tail, offset));
        assert_eq!(tail.written(at(3), false), Ok(()));
        assert_eq!(page(&tail, 2, 9), None);
        assert_eq!(page(&tail, 3, 9), Some(vec![4, 5]));
        // Appended and withdrawn in one commit: the entry that was appended is not what stands there.
        assert_eq!(tail.written(at(6), false), Ok(()));
        tail.push(&entry(6));
        assert_eq!(page(&tail, 5, 9), None);
        assert_eq!(tail.written(at(9), true), Err(Lost), "a hole");
    }

    #[test]
    fn what_a_view_shows_counts_and_not_what_was_appended_before_it() {
        let span = FeedSpan {
            first: 1,
            head: at(3),
        };
        let mut tail = Tail::new(span);
        tail.push(&entry(3));
        assert_eq!(page(&tail, 2, 9), None, "it may have been withdrawn by then");
        let mut tail = Tail::with(span, &[entry(2), entry(3)]);
        assert_eq!(page(&tail, 1, 9), Some(vec![2, 3]));
        append(&mut tail, 4);
        assert_eq!(page(&tail, 1, 9), Some(vec![2, 3, 4]));
    }

    #[test]
    fn trimming_is_followed_where_it_says_how_far_it_went() {
        let mut tail = Tail::new(FeedSpan::EMPTY);
        (1..=5).for_each(|offset| append(&mut tail, offset));
        assert_eq!(tail.removed(1), Err(Lost), "nothing said that it would go");
        let span = FeedSpan {
            first: 3,
            head: at(5),
        };
        assert_eq!(tail.trimmed(span), Ok(()));
        assert_eq!((tail.removed(1), tail.removed(2)), (Ok(()), Ok(())));
        assert_eq!(
            page(&tail, 0, 9),
            Some(vec![3, 4, 5]),
            "it begins where the feed does"
        );
        assert_eq!(tail.holds(at(2)), None, "only the store knows what was there");
    }

    #[test]
    fn what_is_acknowledged_is_left_to_the_store_but_for_the_last() {
        let mut tail = Tail::new(FeedSpan::EMPTY);
        (1..=5).for_each(|offset| append(&mut tail, offset));
        tail.settled(4);
        assert_eq!(page(&tail, 2, 9), None);
        assert_eq!(page(&tail, 4, 9), Some(vec![5]));
        assert_eq!(
            [3, 4, 5].map(|offset| tail.holds(at(offset))),
            [None, Some(true), Some(true)]
        );
        append(&mut tail, 6);
        assert_eq!(page(&tail, 4, 9), Some(vec![5, 6]));
    }

    #[test]
    fn the_last_are_found_by_their_ids() {
        let mut tail = Tail::new(FeedSpan::EMPTY);
        (1..=40).for_each(|offset| append(&mut tail, offset));
        let find = |tail: &Tail, offset: u64| {
            let id = NotificationId::new(&format!("n-{offset}")).unwrap();
            tail.find(&id).map(|entry| entry.position.offset)
        };
        let oldest = 40 - MAX_SOUGHT as u64 + 1;
        assert_eq!(
            [40, oldest].map(|offset| find(&tail, offset)),
            [Some(40), Some(oldest)]
        );
        assert_eq!([41, oldest - 1].map(|offset| find(&tail, offset)), [None, None]);
        assert_eq!(tail.written(at(39), false), Ok(()), "withdrawn");
        assert_eq!([39, 40].map(|offset| find(&tail, offset)), [None, Some(40)]);
    }

    #[test]
    fn it_is_bounded() {
        let mut tail = Tail::new(FeedSpan::EMPTY);
        (1..=2 * MAX_ENTRIES as u64).for_each(|offset| append(&mut tail, offset));
        assert_eq!(tail.entries.len(), MAX_ENTRIES);
        let bytes: usize = tail.entries.iter().filter_map(|entry| cost(entry)).sum();
        assert_eq!(tail.bytes(), bytes);
        assert!(bytes <= MAX_BYTES);
    }
}
