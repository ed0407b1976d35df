//! Accepting notifications, and appending them to feeds at once or when they are due.

use super::{Apply, Due};
use crate::EngineError;
use crate::embedded::codec::{EntryRecord, Record, Writer, key};
use crate::embedded::store::{Table, View};
use crate::embedded::{StoreFault, tables};
use postrider_model::{
    Entry, EntryKind, FeedId, Forms, Notification, Position, Publication, Receipt, WithdrawReason,
};
use std::sync::Arc;

/// Due notifications handled in one transaction.
const MAX_DUE: usize = 64;
/// Feeds that due notifications touch in one transaction; the last may exceed it.
const MAX_DUE_FEEDS: u64 = 4096;

impl Apply<'_> {
    pub fn publish(&mut self, publication: &Publication) -> Result<Result<Receipt, EngineError>, StoreFault> {
        let id = publication.notification.id.clone();
        if let Some(request) = &publication.request {
            match self.txn.get(Table::Requests, request.key.as_bytes())? {
                Some(value) if tables::request_content(&value)? != request.content => {
                    return Ok(Err(EngineError::RequestConflict));
                }
                Some(_) => {}
                None => {
                    let value = Writer::new().u128(request.content).u64(self.now.0).done();
                    self.txn
                        .put(Table::Requests, request.key.clone().into_bytes(), value);
                }
            }
        }
        Ok(match tables::record(&self.txn, &id)? {
            Some(known) if known.content == publication.content => Ok(Receipt { id, repeated: true }),
            Some(_) => Err(EngineError::IdConflict(id)),
            None => {
                self.accept(publication)?;
                Ok(Receipt { id, repeated: false })
            }
        })
    }

    fn accept(&mut self, publication: &Publication) -> Result<(), StoreFault> {
        let notification = &publication.notification;
        let wide = publication.feeds.iter().any(FeedId::is_wide);
        let scheduled_at = notification.deliver_at.filter(|at| *at > self.now);
        let mut record = Record {
            notification: (**notification).clone(),
            content: publication.content,
            cancelled_at: None,
            scheduled: scheduled_at.is_some(),
            recipients: (!wide).then_some(publication.feeds.len() as u64),
            placements: Vec::new(),
        };
        if let Some(at) = scheduled_at {
            let row = key::due(at, Due::Deliver as u8, &notification.id);
            self.txn.put(Table::Due, row, Writer::new().done());
            for feed in &publication.feeds {
                match feed {
                    FeedId::User(user) => self.put_recipient(&notification.id, user, Position::START),
                    _ => record.placements.push((feed.clone(), Position::START)),
                }
            }
        } else {
            self.place(&mut record, notification, &publication.feeds)?;
        }
        if let Some(at) = notification.expires_at {
            let row = key::due(at, Due::Expire as u8, &notification.id);
            self.txn.put(Table::Due, row, Writer::new().done());
        }
        self.put_record(&record);
        Ok(())
    }

    /// Appends a notification to its feeds.
    fn place(
        &mut self,
        record: &mut Record,
        notification: &Arc<Notification>,
        feeds: &[FeedId],
    ) -> Result<(), StoreFault> {
        record.placements.clear();
        let forms: Arc<Forms> = Arc::default();
        for feed in feeds {
            if let Some(collapse_key) = &notification.collapse_key {
                self.collapse(feed, collapse_key)?;
            }
            let kind = EntryKind::Notification(notification.clone(), None);
            // A topic's entry names the topic, so its bytes differ from another topic's.
            let forms = if feed.is_wide() {
                Arc::default()
            } else {
                forms.clone()
            };
            let position = self.append(feed, kind, forms)?;
            match feed {
                FeedId::User(user) => self.put_recipient(&notification.id, user, position),
                _ => record.placements.push((feed.clone(), position)),
            }
            if let Some(collapse_key) = &notification.collapse_key {
                let value = Writer::new().u64(position.offset).done();
                self.txn
                    .put(Table::Collapse, key::collapse(feed, collapse_key), value);
            }
        }
        Ok(())
    }

    pub(super) fn append(
        &mut self,
        feed: &FeedId,
        kind: EntryKind,
        forms: Arc<Forms>,
    ) -> Result<Position, StoreFault> {
        let epoch = self.epoch;
        let span = self.span(feed)?;
        let position = Position {
            epoch,
            offset: span.head.offset + 1,
        };
        span.head = position;
        let record = EntryRecord {
            epoch,
            kind: tables::kind_record(&kind),
        };
        self.txn
            .put(Table::Entries, key::entry(feed, position.offset), record.encode());
        self.appended.push(Arc::new(Entry {
            feed: feed.clone(),
            position,
            kind,
            forms,
        }));
        Ok(position)
    }

    /// Replaces the last entry with this key in this feed, judged per recipient.
    fn collapse(&mut self, feed: &FeedId, collapse_key: &str) -> Result<(), StoreFault> {
        let row = key::collapse(feed, collapse_key);
        let Some(value) = self.txn.get(Table::Collapse, &row)? else {
            return Ok(());
        };
        let offset = tables::one_u64("collapse", &value)?;
        if let Some(id) = self.notification_at(feed, offset)? {
            self.withdraw(feed, offset, &id, WithdrawReason::Collapsed)?;
        }
        Ok(())
    }

    /// Does what is due by now, or a good part of it; notes in `behind` whether there may be more.
    pub fn due(&mut self) -> Result<(), StoreFault> {
        let end = self.now.0.saturating_add(1).to_be_bytes();
        let rows = self.txn.scan(Table::Due, &[], &end, MAX_DUE)?;
        let mut feeds = 0;
        for (i, (row, _)) in rows.iter().enumerate() {
            let (_, kind, id) = tables::due_parts(row)?;
            self.txn.remove(Table::Due, row.clone());
            let Some(record) = tables::record(&self.txn, &id)? else {
                continue;
            };
            if record.cancelled_at.is_some() {
                continue;
            }
            feeds += record.recipients.unwrap_or(1);
            match kind {
                Due::Deliver if record.scheduled => self.deliver(record)?,
                Due::Deliver => {}
                Due::Expire => drop(self.withdraw_all(&record, WithdrawReason::Expired)?),
            }
            if feeds >= MAX_DUE_FEEDS && i + 1 < rows.len() {
                self.behind = true;
                return Ok(());
            }
        }
        self.behind = rows.len() == MAX_DUE;
        Ok(())
    }

    /// Puts a scheduled notification into its feeds, unless its time has run out meanwhile.
    fn deliver(&mut self, mut record: Record) -> Result<(), StoreFault> {
        record.scheduled = false;
        let expired = record.notification.expires_at.is_some_and(|at| at <= self.now);
        if !expired {
            let mut feeds: Vec<_> = record.placements.iter().map(|place| place.0.clone()).collect();
            let users = self.recipients(&record.notification.id)?;
            feeds.extend(users.into_iter().map(|(user, _)| FeedId::User(user)));
            let notification = Arc::new(record.notification.clone());
            self.place(&mut record, &notification, &feeds)?;
        }
        self.put_record(&record);
        Ok(())
    }
}
