//! Reads the tables for callers other than the writer, each time from one consistent view.

use super::StoreFault;
use super::codec::{EntryKindRecord, EntryRecord, Record, key};
use super::store::{Table, View};
use super::tables::{self, ALL_ROWS};
use crate::{Page, ReadLimit, RecipientState, Recipients};
use postrider_model::{
    Entry, EntryKind, FeedId, Forms, MarkKind, NotificationId, Position, State, Timestamp, UserId,
};
use std::sync::Arc;

/// One look at the store.
pub(super) struct Reader<'s> {
    pub view: Box<dyn View + 's>,
    pub now: Timestamp,
}

impl Reader<'_> {
    pub fn read_page(&self, feed: &FeedId, after: u64, limit: ReadLimit) -> Result<Page, StoreFault> {
        let span = tables::span(&*self.view, feed)?;
        let from = key::entry(feed, after.saturating_add(1).max(span.first));
        let to = key::entry(feed, span.head.offset + 1);
        let mut entries = Vec::new();
        let mut bytes = 0;
        for (row, value) in self.view.scan(Table::Entries, &from, &to, limit.entries.max(1))? {
            let record = EntryRecord::decode(&value)?;
            let position = Position {
                epoch: record.epoch,
                offset: tables::offset(&row)?,
            };
            let kind = match record.kind {
                EntryKindRecord::Notification { id, withdrawn } => {
                    let notification = tables::body(&*self.view, &id)?.notification;
                    bytes += notification.data.len();
                    EntryKind::Notification(Arc::new(notification), withdrawn)
                }
                EntryKindRecord::Read { ids, origin } => EntryKind::Read { ids, origin },
                EntryKindRecord::Withdrawn { id, target, reason } => {
                    EntryKind::Withdrawn { id, target, reason }
                }
            };
            entries.push(Arc::new(Entry {
                feed: feed.clone(),
                position,
                kind,
                forms: Arc::<Forms>::default(),
            }));
            if bytes >= limit.bytes {
                break;
            }
        }
        Ok(Page { entries, span })
    }

    pub fn is_held(&self, feed: &FeedId, place: Position) -> Result<bool, StoreFault> {
        let span = tables::span(&*self.view, feed)?;
        if place.offset == 0 {
            return Ok(span.first <= 1);
        }
        if place == span.head {
            return Ok(true);
        }
        if place.offset < span.first {
            let trimmed = tables::trimmed(&*self.view, feed)?;
            return Ok(trimmed.is_some_and(|(_, before)| before == place));
        }
        let entry = tables::entry(&*self.view, feed, place.offset)?;
        Ok(entry.is_some_and(|entry| entry.epoch == place.epoch))
    }

    pub fn recipient_states(
        &self,
        id: &NotificationId,
        which: Recipients,
    ) -> Result<Vec<RecipientState>, StoreFault> {
        let Some(record) = tables::record(&*self.view, id)? else {
            return Ok(Vec::new());
        };
        if record.recipients.is_some() {
            let named = self.named_recipients(id, &which)?;
            return named
                .into_iter()
                .map(|(user, position)| {
                    let feed = FeedId::User(user.clone());
                    Ok(self.recipient_state(&record, user, &feed, position)?.0)
                })
                .collect();
        }
        let Some((feed, position)) = record.placements.iter().find(|(feed, _)| *feed == FeedId::All) else {
            return Ok(Vec::new());
        };
        let (users, all) = match which {
            Recipients::One(user) => (vec![user], false),
            Recipients::All => (self.settlers(feed)?, true),
        };
        let mut states = Vec::new();
        for user in users {
            if !record.notification.excludes(&user) {
                let (state, has_word) = self.recipient_state(&record, user, feed, *position)?;
                states.extend((has_word || !all).then_some(state));
            }
        }
        Ok(states)
    }

    fn named_recipients(
        &self,
        id: &NotificationId,
        which: &Recipients,
    ) -> Result<Vec<(UserId, Position)>, StoreFault> {
        let prefix = key::recipients(id);
        let rows = match which {
            Recipients::All => self
                .view
                .scan(Table::Recipients, &prefix, &key::after(&prefix), ALL_ROWS)?,
            Recipients::One(user) => {
                let row = key::recipient(id, user);
                let value = self.view.get(Table::Recipients, &row)?;
                value.map(|value| (row, value)).into_iter().collect()
            }
        };
        rows.iter()
            .map(|row| tables::recipient_of_row(prefix.len(), row))
            .collect()
    }

    /// The state, and whether anything is recorded for this user.
    fn recipient_state(
        &self,
        record: &Record,
        user: UserId,
        feed: &FeedId,
        position: Position,
    ) -> Result<(RecipientState, bool), StoreFault> {
        let (offset, notification) = (position.offset, &record.notification);
        if offset == 0 {
            let state = self.unplaced_state(record);
            let marks = Vec::new();
            return Ok((RecipientState { user, state, marks }, false));
        }
        let (state, standing) = tables::state(&*self.view, &user, feed, offset, notification, self.now)?;
        let below_floor = offset <= standing.floor;
        let mut marks = standing.marks;
        let has_word = below_floor || !marks.is_empty();
        let single = marks.iter().any(|mark| mark.kind == MarkKind::Delivered);
        if below_floor && !single {
            let read_at = marks
                .iter()
                .find(|mark| mark.kind == MarkKind::Read)
                .map(|m| m.time);
            let range = tables::range_at(&*self.view, &user, feed, offset)?;
            marks.extend(range.filter(|range| match state {
                State::Delivered => range.kind == MarkKind::Delivered,
                State::Read => range.kind == MarkKind::Delivered && read_at.is_none_or(|at| range.time <= at),
                State::Expired => range.kind == MarkKind::Expired && marks.is_empty(),
                _ => false,
            }));
        }
        marks.sort_by_key(|mark| (mark.time, mark.kind));
        Ok((RecipientState { user, state, marks }, has_word))
    }

    /// The state of what was never put into a feed: still scheduled, cancelled, or expired before its time.
    fn unplaced_state(&self, record: &Record) -> State {
        let expires_at = record.notification.expires_at;
        match record.cancelled_at {
            Some(at) if expires_at.is_none_or(|end| end > at) => State::Cancelled,
            Some(_) => State::Expired,
            None if expires_at.is_some_and(|end| end <= self.now) => State::Expired,
            None => State::Pending,
        }
    }

    /// Every user with anything recorded in a wide feed.
    fn settlers(&self, feed: &FeedId) -> Result<Vec<UserId>, StoreFault> {
        let prefix = key::feed(feed);
        let rows = self
            .view
            .scan(Table::Settlers, &prefix, &key::after(&prefix), ALL_ROWS)?;
        rows.iter()
            .map(|(row, _)| tables::user_at_end("settlers", prefix.len(), row))
            .collect()
    }
}
