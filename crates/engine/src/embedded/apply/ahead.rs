//! What walks over many recipients are about to read, brought in a few goes: where the store is far away each row that
//! is read by itself costs a way there and back, and a walk has thousands.
//!
//! Invariant: it changes nothing, and what it does not foresee is read when it is asked for. Does nothing where the
//! store is near.

use super::Apply;
use crate::embedded::codec::key;
use crate::embedded::store::{Row, Table, View, Wanted};
use crate::embedded::tables::FLOOR_DELIVERED;
use crate::embedded::{StoreFault, tables, wants};
use postrider_model::{DeadLetterId, FeedId, NotificationId, UserId};

/// Recipients of whom what is needed is brought in one go.
pub(super) const AT_ONCE: usize = 512;
/// Entries of one feed that are brought at most.
const MAX_ENTRIES: u64 = 256;

impl Apply<'_> {
    /// Where these feeds end.
    pub(super) fn foresee_ends(&self, feeds: &[FeedId], collapse: Option<&str>) -> Result<(), StoreFault> {
        if !self.is_shared || feeds.len() < 2 {
            return Ok(());
        }
        for feeds in feeds.chunks(AT_ONCE) {
            let mut wanted = Vec::new();
            for feed in feeds {
                self.of_end(feed, &mut wanted);
                if let Some(collapse_key) = collapse {
                    wants::get(&mut wanted, Table::Collapse, key::collapse(feed, collapse_key));
                }
            }
            self.txn.prefetch(&wanted)?;
        }
        Ok(())
    }

    /// What withdrawing at these places of the users' own feeds reads; not more than [`AT_ONCE`] of them.
    pub(super) fn foresee_places(&self, places: &[(UserId, u64)]) -> Result<(), StoreFault> {
        if !self.is_shared {
            return Ok(());
        }
        let mut wanted = Vec::new();
        for (user, offset) in places {
            let feed = FeedId::User(user.clone());
            self.of_end(&feed, &mut wanted);
            wants::get(&mut wanted, Table::Entries, key::entry(&feed, *offset));
            of_word(user, &feed, *offset, *offset, &mut wanted);
        }
        self.txn.prefetch(&wanted)
    }

    /// What taking all up to these places off the users' own feeds reads.
    pub(super) fn foresee_trims(&mut self, places: &[(UserId, u64)]) -> Result<(), StoreFault> {
        if !self.is_shared {
            return Ok(());
        }
        let feeds: Vec<_> = places
            .iter()
            .map(|(user, _)| FeedId::User(user.clone()))
            .collect();
        let mut wanted = Vec::new();
        feeds.iter().for_each(|feed| self.of_end(feed, &mut wanted));
        self.txn.prefetch(&wanted)?;
        let (mut wanted, mut ranges) = (Vec::new(), Vec::new());
        for ((user, to), feed) in places.iter().zip(&feeds) {
            // One that is damaged is met by the walk itself.
            let Ok(first) = tables::span(&self.txn, feed).map(|span| span.first) else {
                continue;
            };
            let to = (*to).min(first.saturating_add(MAX_ENTRIES - 1));
            let range = (key::entry(feed, first), key::entry(feed, to.saturating_add(1)));
            let limit = MAX_ENTRIES as usize;
            wanted.push(Wanted::Scan(
                Table::Entries,
                range.0.clone(),
                range.1.clone(),
                limit,
            ));
            of_word(user, feed, first, to, &mut wanted);
            ranges.push(range);
        }
        self.txn.prefetch(&wanted)?;
        let mut wanted = Vec::new();
        for (from, to) in ranges {
            wanted.extend(wants::of_bodies(&self.txn.scan(
                Table::Entries,
                &from,
                &to,
                MAX_ENTRIES as usize,
            )?));
        }
        self.txn.prefetch(&wanted)
    }

    /// What is known of these notifications, and their first recipients.
    pub(super) fn foresee_records(
        &self,
        ids: &[NotificationId],
        recipients: usize,
    ) -> Result<(), StoreFault> {
        if !self.is_shared {
            return Ok(());
        }
        self.txn.prefetch(&wants::of_records(ids, recipients))
    }

    /// The same, of notifications with few recipients, with where those stand.
    pub(super) fn foresee_places_of(
        &self,
        ids: &[NotificationId],
        recipients: usize,
    ) -> Result<Vec<(UserId, u64)>, StoreFault> {
        self.foresee_records(ids, recipients)?;
        let mut places = Vec::new();
        for id in ids {
            // What cannot be read is met by the walk itself.
            match tables::home(&self.txn, id) {
                Ok(Some((user, position))) => places.push((user, position.offset)),
                Ok(None) => {
                    let prefix = key::recipients(id);
                    let end = key::after(&prefix);
                    for row in self.txn.scan(Table::Recipients, &prefix, &end, recipients)? {
                        let place = tables::recipient_of_row(prefix.len(), &row);
                        places.extend(place.ok().map(|(user, position)| (user, position.offset)));
                    }
                }
                Err(StoreFault::Conflict) => return Err(StoreFault::Conflict),
                Err(_) => {}
            }
            if places.len() >= AT_ONCE {
                break;
            }
        }
        places.truncate(AT_ONCE);
        Ok(places)
    }

    /// What is recorded for these users at these places of their own feeds, to be forgotten.
    pub(super) fn foresee_stories(&self, places: &[(UserId, u64)], most: usize) -> Result<(), StoreFault> {
        if !self.is_shared {
            return Ok(());
        }
        let mut wanted = Vec::new();
        for (user, offset) in places {
            let feed = FeedId::User(user.clone());
            of_word(user, &feed, *offset, *offset, &mut wanted);
            let (from, to) = (key::user_feed(user, &feed), key::range(user, &feed, offset + 1));
            wanted.push(Wanted::Scan(Table::Ranges, from, to, most));
        }
        self.txn.prefetch(&wanted)
    }

    /// What redriving these dead letters reads.
    pub fn foresee_letters(&self, ids: &[DeadLetterId]) -> Result<(), StoreFault> {
        if !self.is_shared {
            return Ok(());
        }
        let mut wanted = Vec::new();
        for id in ids {
            wants::get(&mut wanted, Table::Letters, id.0.to_be_bytes().to_vec());
        }
        self.txn.prefetch(&wanted)?;
        let letters = ids.iter().filter_map(|id| tables::letter(&self.txn, id.0).ok()?);
        let of_whom = letters.filter_map(|letter| Some((letter.notification?, letter.user?)));
        let of_whom: Vec<_> = of_whom.collect();
        let mut wanted = Vec::new();
        for (id, user) in &of_whom {
            wants::of_notification(id, &mut wanted);
            wants::get(&mut wanted, Table::Recipients, key::recipient(id, user));
            self.of_end(&FeedId::User(user.clone()), &mut wanted);
        }
        self.txn.prefetch(&wanted)?;
        let mut wanted = Vec::new();
        for (id, user) in &of_whom {
            if let Ok(Some(position)) = tables::recipient(&self.txn, id, user) {
                let row = key::entry(&FeedId::User(user.clone()), position.offset);
                wants::get(&mut wanted, Table::Entries, row.clone());
                wants::get(&mut wanted, Table::Dropped, row);
            }
        }
        self.txn.prefetch(&wanted)
    }

    /// What erasing these entries of a user's own feed reads.
    pub(super) fn foresee_erasing(&self, user: &UserId, entries: &[Row]) -> Result<(), StoreFault> {
        if !self.is_shared {
            return Ok(());
        }
        let mut wanted = Vec::new();
        for id in wants::ids_of(entries) {
            wants::of_notification(&id, &mut wanted);
            wants::get(&mut wanted, Table::Recipients, key::recipient(&id, user));
        }
        self.txn.prefetch(&wanted)
    }

    /// What taking these entries off their feed reads.
    pub(super) fn foresee_taken(&self, feed: &FeedId, entries: &[Row]) -> Result<(), StoreFault> {
        if !self.is_shared || entries.len() < 2 {
            return Ok(());
        }
        let mut wanted = wants::of_bodies(entries);
        if let (FeedId::User(user), Some(first), Some(last)) = (feed, entries.first(), entries.last())
            && let (Ok(first), Ok(last)) = (tables::offset(&first.0), tables::offset(&last.0))
        {
            for offset in first..=last.min(first.saturating_add(MAX_ENTRIES)) {
                of_word(user, feed, offset, offset, &mut wanted);
            }
        }
        self.txn.prefetch(&wanted)
    }

    fn of_end(&self, feed: &FeedId, wanted: &mut Vec<Wanted>) {
        wants::of_span(feed, wanted);
        if self.rules.bytes_per_feed > 0 {
            wants::get(wanted, Table::Sizes, key::feed(feed));
        }
    }
}

/// What is recorded for a user at `from..=to` of a feed.
fn of_word(user: &UserId, feed: &FeedId, from: u64, to: u64, wanted: &mut Vec<Wanted>) {
    wants::get(wanted, Table::Floors, key::floor(user, feed, FLOOR_DELIVERED));
    let next = to.saturating_add(1);
    let all = tables::ALL_ROWS;
    let marks = (key::mark(user, feed, from, 0), key::mark(user, feed, next, 0));
    wanted.push(Wanted::Scan(Table::Marks, marks.0, marks.1, all));
    let opens = (key::range(user, feed, from), key::range(user, feed, next));
    wanted.push(Wanted::Scan(Table::Opens, opens.0, opens.1, all));
}
