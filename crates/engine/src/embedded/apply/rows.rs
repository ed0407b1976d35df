//! The rows of one transaction, read and written.

use super::{Apply, By, MAX_HEADS};
use crate::embedded::codec::{
    EntryKindRecord, EntryRecord, Home, Record, Writer, encode_mark, encode_range, key,
};
use crate::embedded::store::{Table, View};
use crate::embedded::tables::{self, FLOOR_JOINED};
use crate::embedded::{StoreFault, people};
use bytes::Bytes;
use postrider_model::{
    Audience, Devices, FeedId, FeedSpan, Mark, MarkKind, Notification, NotificationId, Position, Standing,
    State, UserId,
};
use std::sync::Arc;

impl Apply<'_> {
    /// Where `id` stands for `user`, if the user is one of its recipients. In a topic that is a member's alone: session
    /// topics carry no delivery state.
    pub(super) fn find(
        &mut self,
        user: &UserId,
        id: &NotificationId,
    ) -> Result<Option<(FeedId, u64)>, StoreFault> {
        if let Some(position) = tables::recipient(&self.txn, id, user)? {
            return Ok((position.offset > 0).then(|| (FeedId::User(user.clone()), position.offset)));
        }
        let Some(record) = tables::record(&self.txn, id)? else {
            return Ok(None);
        };
        if record.recipients.is_some() || record.notification.excludes(user) {
            return Ok(None);
        }
        if let Audience::Topics(_) = &record.notification.audience {
            let memberships = self.memberships(user)?;
            let place = people::place(&record, &memberships);
            return Ok(place.map(|(feed, at)| (feed.clone(), at.offset)));
        }
        let placed = record
            .placements
            .iter()
            .find(|(feed, position)| *feed == FeedId::All && position.offset > 0);
        let Some((feed, at)) = placed else {
            return Ok(None);
        };
        let joined = tables::floor(&self.txn, user, feed, FLOOR_JOINED)?;
        Ok((at.offset > joined).then(|| (feed.clone(), at.offset)))
    }

    /// The state of `id` at this place for a user; one who is no recipient has nothing to settle.
    pub(super) fn state(
        &mut self,
        user: &UserId,
        feed: &FeedId,
        offset: u64,
        id: &NotificationId,
    ) -> Result<(State, Standing), StoreFault> {
        let head = self.head(id)?;
        if !self.is_shown(user, feed, offset, &head)? {
            return Ok((State::Delivered, Standing::default()));
        }
        tables::state(&self.txn, user, feed, offset, &head, self.now)
    }

    /// Whether a notification is the user's where it stands.
    pub(super) fn is_shown(
        &mut self,
        user: &UserId,
        feed: &FeedId,
        offset: u64,
        notification: &Notification,
    ) -> Result<bool, StoreFault> {
        if notification.excludes(user) {
            return Ok(false);
        }
        let FeedId::Topic(topic) = feed else {
            return Ok(true);
        };
        let memberships = self.memberships(user)?;
        people::is_shown(&self.txn, &memberships, topic, offset, notification)
    }

    /// A notification without its data.
    pub(super) fn head(&mut self, id: &NotificationId) -> Result<Arc<Notification>, StoreFault> {
        if let Some(head) = self.heads.get(id) {
            return Ok(head.clone());
        }
        let mut notification = tables::body(&self.txn, id)?.notification;
        Arc::make_mut(&mut notification).data = Bytes::new();
        let head = notification;
        if self.heads.len() >= MAX_HEADS {
            self.heads.clear();
        }
        self.heads.insert(id.clone(), head.clone());
        Ok(head)
    }

    /// What was remembered of it is not so any more.
    pub(super) fn forget_head(&mut self, id: &NotificationId) {
        self.heads.remove(id);
    }

    pub(super) fn notification_at(
        &self,
        feed: &FeedId,
        offset: u64,
    ) -> Result<Option<NotificationId>, StoreFault> {
        Ok(
            match tables::entry(&self.txn, feed, offset)?.map(|entry| entry.kind) {
                Some(EntryKindRecord::Notification { id, .. }) => Some(id),
                _ => None,
            },
        )
    }

    pub(super) fn recipients(&self, id: &NotificationId) -> Result<Vec<(UserId, Position)>, StoreFault> {
        tables::recipients(&self.txn, id)
    }

    pub(super) fn span(&mut self, feed: &FeedId) -> Result<&mut FeedSpan, StoreFault> {
        if !self.spans.contains_key(feed) {
            let span = tables::span(&self.txn, feed)?;
            self.spans.insert(feed.clone(), span);
        }
        // It is there; the borrow checker cannot tell.
        self.spans.get_mut(feed).ok_or(StoreFault::Corrupt {
            table: "feeds",
            detail: "a feed was not remembered",
        })
    }

    pub(super) fn mark(
        &mut self,
        user: &UserId,
        feed: &FeedId,
        offset: u64,
        kind: MarkKind,
        by: &By<'_>,
    ) -> Result<(), StoreFault> {
        if feed.is_wide() {
            self.note_settler(user, feed)?;
        }
        let value = encode_mark(&self.mark_value(offset, offset, kind, by));
        self.txn
            .put(Table::Marks, key::mark(user, feed, offset, kind as u8), value);
        Ok(())
    }

    /// The user's part in an entry that is for the first device is over.
    pub(super) fn close(
        &mut self,
        user: &UserId,
        feed: &FeedId,
        offset: u64,
        id: &NotificationId,
    ) -> Result<(), StoreFault> {
        if self.head(id)?.devices == Devices::First {
            self.txn.remove(Table::Opens, key::range(user, feed, offset));
        }
        Ok(())
    }

    /// Records something about the entries `after + 1..=to` at once.
    pub(super) fn put_range(
        &mut self,
        user: &UserId,
        feed: &FeedId,
        after: u64,
        to: u64,
        kind: MarkKind,
        by: &By<'_>,
    ) {
        let value = encode_range(&self.mark_value(after + 1, to, kind, by));
        self.txn.put(Table::Ranges, key::range(user, feed, to), value);
    }

    fn mark_value(&self, from: u64, offset: u64, kind: MarkKind, by: &By<'_>) -> Mark {
        Mark {
            offset,
            from,
            kind,
            time: self.now,
            session: by.settlement.and_then(|s| s.session.clone()),
            transport: by.settlement.and_then(|s| s.transport),
            why: by.why.to_owned(),
        }
    }

    /// Remembers that the user has something recorded in a wide feed, so that these users can be found.
    pub(super) fn note_settler(&mut self, user: &UserId, feed: &FeedId) -> Result<(), StoreFault> {
        let row = key::settler(feed, user);
        if self.txn.get(Table::Settlers, &row)?.is_none() {
            self.txn.put(Table::Settlers, row, Writer::new().done());
        }
        Ok(())
    }

    pub(super) fn put_floor(&mut self, user: &UserId, feed: &FeedId, kind: u8, offset: u64) {
        let value = Writer::new().u64(offset).done();
        self.txn.put(Table::Floors, key::floor(user, feed, kind), value);
    }

    /// Writes a record under its id. If it stood whole in an entry, that is over: what happens to it from here
    /// on happens to rows of its own.
    pub(super) fn put_record(&mut self, record: &Record) -> Result<(), StoreFault> {
        let id = &record.notification.id;
        if let Some((user, position)) = self.home_of(record)? {
            let kind = EntryKindRecord::Notification {
                id: id.clone(),
                withdrawn: None,
            };
            let entry = EntryRecord {
                epoch: position.epoch,
                kind,
            };
            let row = key::entry(&FeedId::User(user.clone()), position.offset);
            self.txn.put(Table::Entries, row, entry.encode());
            self.put_recipient(id, &user, position);
        }
        let row = id.as_str().as_bytes().to_vec();
        self.txn.put(Table::Notifications, row, record.encode());
        Ok(())
    }

    /// The record with rows of its own: see [`Apply::put_record`].
    pub(super) fn leave_home(&mut self, record: &mut Record) -> Result<(), StoreFault> {
        if self.home_of(record)?.is_some() {
            self.put_record(record)?;
        }
        record.home = None;
        Ok(())
    }

    /// Where it stands whole; it may have left since it was read.
    fn home_of(&self, record: &Record) -> Result<Option<Home>, StoreFault> {
        match &record.home {
            None => Ok(None),
            Some(_) => tables::home(&self.txn, &record.notification.id),
        }
    }

    pub(super) fn put_recipient(&mut self, id: &NotificationId, user: &UserId, position: Position) {
        let value = Writer::new().u32(position.epoch.0).u64(position.offset).done();
        self.txn.put(Table::Recipients, key::recipient(id, user), value);
    }
}
