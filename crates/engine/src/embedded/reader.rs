//! Reads the tables for callers other than the writer, each time from one consistent view.

use super::apply::{FLOOR_DELIVERED, MARK_DELIVERED_RANGE};
use super::codec::{EntryKindRecord, EntryRecord, Record, key};
use super::store::{Table, View};
use super::{StoreFault, tables};
use crate::{Page, ReadLimit, RecipientState, Recipients};
use postrider_model::{
    Entry, EntryKind, FeedId, FeedSpan, Forms, Mark, MarkKind, NotificationId, Position, Standing, State,
    Timestamp, UserId, state_of,
};
use std::sync::Arc;

/// One look at the store.
pub(super) struct Reader<'s> {
    pub view: Box<dyn View + 's>,
    pub now: Timestamp,
}

impl Reader<'_> {
    pub fn record(&self, id: &NotificationId) -> Result<Option<Record>, StoreFault> {
        let value = self.view.get(Table::Notifications, id.as_str().as_bytes())?;
        value.map(|value| Record::decode(id, &value)).transpose()
    }

    pub fn span(&self, feed: &FeedId) -> Result<FeedSpan, StoreFault> {
        tables::span(
            feed,
            |key| self.view.get(Table::Feeds, key),
            |table, from, to| self.view.last(table, from, to),
        )
    }

    pub fn read_page(&self, feed: &FeedId, after: u64, limit: ReadLimit) -> Result<Page, StoreFault> {
        let span = self.span(feed)?;
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
                    let body = self.record(&id)?;
                    let body = body.ok_or(StoreFault::Corrupt {
                        table: "notifications",
                        detail: "a body is missing",
                    })?;
                    bytes += body.notification.data.len();
                    EntryKind::Notification(Arc::new(body.notification), withdrawn)
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
        let span = self.span(feed)?;
        if place.offset == 0 || place == span.head {
            return Ok(place.offset > 0 || span.first <= 1);
        }
        if place.offset > span.head.offset || place.offset < span.first {
            return Ok(false);
        }
        let value = self.view.get(Table::Entries, &key::entry(feed, place.offset))?;
        Ok(value
            .map(|value| EntryRecord::decode(&value))
            .transpose()?
            .is_some_and(|e| e.epoch == place.epoch))
    }

    pub fn read_standing(
        &self,
        user: &UserId,
        feed: &FeedId,
        from: u64,
        to: u64,
    ) -> Result<Standing, StoreFault> {
        let floor = tables::floor(
            self.view
                .get(Table::Floors, &key::floor(user, feed, FLOOR_DELIVERED))?,
        )?;
        let range = (
            key::mark(user, feed, from, 0),
            key::mark(user, feed, to.saturating_add(1), 0),
        );
        let rows = self.view.scan(Table::Marks, &range.0, &range.1, usize::MAX / 2)?;
        let single = rows
            .iter()
            .filter(|(row, _)| row.last() != Some(&MARK_DELIVERED_RANGE));
        Ok(Standing {
            floor,
            marks: single.map(tables::mark_of_row).collect::<Result<_, _>>()?,
        })
    }

    pub fn recipient_state(
        &self,
        record: &Record,
        user: UserId,
        feed: &FeedId,
        position: Position,
    ) -> Result<RecipientState, StoreFault> {
        let notification = &record.notification;
        if position.offset == 0 {
            let expired = notification.expires_at.is_some_and(|at| at <= self.now);
            let state = match record.cancelled_at {
                Some(_) => State::Cancelled,
                None if expired => State::Expired,
                None => State::Pending,
            };
            return Ok(RecipientState {
                user,
                state,
                marks: Vec::new(),
            });
        }
        let entry = self
            .view
            .get(Table::Entries, &key::entry(feed, position.offset))?;
        let withdrawn = match entry
            .map(|value| EntryRecord::decode(&value))
            .transpose()?
            .map(|entry| entry.kind)
        {
            Some(EntryKindRecord::Notification { withdrawn, .. }) => withdrawn,
            _ => None,
        };
        let mut standing = self.read_standing(&user, feed, position.offset, position.offset)?;
        let state = state_of(notification, withdrawn, position.offset, &standing, self.now);
        let single = standing.marks.iter().any(|mark| mark.kind == MarkKind::Delivered);
        if !single && position.offset <= standing.floor {
            standing
                .marks
                .extend(self.range_mark(&user, feed, position.offset)?);
        }
        standing.marks.sort_by_key(|mark| mark.time);
        Ok(RecipientState {
            user,
            state,
            marks: standing.marks,
        })
    }

    /// The settlement of many entries at once that covers this one.
    pub fn range_mark(&self, user: &UserId, feed: &FeedId, offset: u64) -> Result<Option<Mark>, StoreFault> {
        let mut from = key::mark(user, feed, offset, 0);
        let to = key::after(&key::user_feed(user, feed));
        loop {
            let rows = self.view.scan(Table::Marks, &from, &to, 64)?;
            let Some((last, _)) = rows.last() else {
                return Ok(None);
            };
            if let Some(row) = rows
                .iter()
                .find(|(row, _)| row.last() == Some(&MARK_DELIVERED_RANGE))
            {
                let mark = tables::mark_of_row(row)?;
                return Ok((mark.from <= offset).then_some(mark));
            }
            from = last.clone();
            from.push(0);
        }
    }

    pub fn recipient_states(
        &self,
        id: &NotificationId,
        which: Recipients,
    ) -> Result<Vec<RecipientState>, StoreFault> {
        let Some(record) = self.record(id)? else {
            return Ok(Vec::new());
        };
        if record.recipients.is_some() {
            let prefix = key::recipients(id);
            let rows = match &which {
                Recipients::All => {
                    self.view
                        .scan(Table::Recipients, &prefix, &key::after(&prefix), usize::MAX / 2)?
                }
                Recipients::One(user) => {
                    let row = key::recipient(id, user);
                    self.view
                        .get(Table::Recipients, &row)?
                        .map(|value| (row, value))
                        .into_iter()
                        .collect()
                }
            };
            let mut states = Vec::with_capacity(rows.len());
            for row in &rows {
                let (user, position) = tables::recipient_of_row(prefix.len(), row)?;
                let feed = FeedId::User(user.clone());
                states.push(self.recipient_state(&record, user, &feed, position)?);
            }
            return Ok(states);
        }
        let Some((feed, position)) = record.placements.iter().find(|(feed, _)| *feed == FeedId::All) else {
            return Ok(Vec::new());
        };
        let users = match which {
            Recipients::One(user) => vec![user],
            Recipients::All => self.users_with_floor(feed)?,
        };
        let users = users
            .into_iter()
            .filter(|user| !record.notification.excludes(user));
        users
            .map(|user| self.recipient_state(&record, user, feed, *position))
            .collect()
    }

    /// Every user with anything recorded in a wide feed.
    pub fn users_with_floor(&self, feed: &FeedId) -> Result<Vec<UserId>, StoreFault> {
        let mut users = std::collections::BTreeSet::new();
        let wanted = key::feed(feed);
        for table in [Table::Floors, Table::Marks] {
            let mut from = Vec::new();
            loop {
                let rows = self.view.scan(table, &from, &[0xff; 300], 4096)?;
                let Some((last, _)) = rows.last() else { break };
                from = last.clone();
                from.push(0);
                for (row, _) in &rows {
                    let Some(end) = row.iter().position(|b| *b == 0) else {
                        continue;
                    };
                    if row[end + 1..].starts_with(&wanted)
                        && let Some(user) = std::str::from_utf8(&row[..end])
                            .ok()
                            .and_then(|t| UserId::new(t).ok())
                    {
                        users.insert(user);
                    }
                }
            }
        }
        Ok(users.into_iter().collect())
    }
}
