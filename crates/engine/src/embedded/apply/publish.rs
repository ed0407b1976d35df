//! Accepting notifications, and appending them to feeds at once or when they are due.

use super::{Apply, Due, Stage};
use crate::EngineError;
use crate::embedded::codec::{EntryRecord, Record, Writer, key};
use crate::embedded::store::{Table, View};
use crate::embedded::{StoreFault, tables};
use postrider_model::{
    Entry, EntryKind, FeedId, Forms, Notification, NotificationId, Position, Publication, Receipt,
    WithdrawReason,
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
                    let key = request.key.clone().into_bytes();
                    let value = Writer::new().u128(request.content).u64(self.now.0).done();
                    self.txn.put(
                        Table::Ages,
                        key::age(Stage::Request as u8, self.now, &key),
                        Writer::new().done(),
                    );
                    self.txn.put(Table::Requests, key, value);
                }
            }
        }
        Ok(match tables::record(&self.txn, &id)? {
            Some(known) if known.content == publication.content => Ok(Receipt { id, repeated: true }),
            Some(_) => Err(EngineError::IdConflict(id)),
            None => match self.room() {
                Ok(()) => {
                    self.accept(publication)?;
                    Ok(Receipt { id, repeated: false })
                }
                Err(error) => Err(error),
            },
        })
    }

    /// Whether more may be accepted.
    fn room(&self) -> Result<(), EngineError> {
        let most = self.rules.total_bytes;
        if self.rules.dead_letters > 0 && self.counts.letters >= self.rules.dead_letters {
            Err(EngineError::DeadLettersFull)
        } else if most > 0 && self.counts.is_full(most) {
            Err(EngineError::Full)
        } else {
            Ok(())
        }
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
            kept_from: scheduled_at.unwrap_or(self.now),
            bodiless: false,
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
        let id = notification.id.as_str().as_bytes();
        let row = key::age(Stage::Kept as u8, record.kept_from, id);
        self.txn.put(Table::Ages, row, Writer::new().done());
        self.counts.changed(None, Some(&record));
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
            self.note_first(feed, position.offset, notification);
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
        let empty = (span.head.offset < span.first && span.first > 1).then_some(*span);
        span.head = position;
        if let Some(span) = empty {
            // Where nothing is held only this row says that the feed does not begin at 1.
            let value = tables::encode_trimmed(span, span.head.epoch);
            self.txn.put(Table::Feeds, key::feed(feed), value);
        }
        let bytes = match &kind {
            EntryKind::Notification(notification, _) => notification.data.len() as u64,
            EntryKind::Read { .. } | EntryKind::Withdrawn { .. } => {
                self.age_mark(feed, position.offset);
                0
            }
        };
        self.grew(feed, position.offset, bytes)?;
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
        self.bound(feed)?;
        Ok(position)
    }

    /// Replaces the last entry with this key in this feed, judged per recipient.
    fn collapse(&mut self, feed: &FeedId, collapse_key: &str) -> Result<(), StoreFault> {
        let row = key::collapse(feed, collapse_key);
        let Some(value) = self.txn.get(Table::Collapse, &row)? else {
            return Ok(());
        };
        let offset = tables::one_u64("collapse", &value)?;
        self.mend(feed, offset)?;
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
            match self.do_due(row, kind, &id) {
                Ok(touched) => feeds += touched,
                Err(fault @ StoreFault::Corrupt { .. }) => {
                    tracing::error!(%id, %fault, "a notification is lost: what is due of it cannot be done");
                    self.lose(&id)?;
                }
                Err(fault) => return Err(fault),
            }
            if feeds >= MAX_DUE_FEEDS && i + 1 < rows.len() {
                self.behind = true;
                return Ok(());
            }
        }
        self.behind = rows.len() == MAX_DUE;
        Ok(())
    }

    /// Does one thing that is due; returns how many feeds that touched.
    fn do_due(&mut self, row: &[u8], kind: Due, id: &NotificationId) -> Result<u64, StoreFault> {
        if kind == Due::GiveUp {
            self.attempts_ended(&tables::due_user(row)?, id)?;
            return Ok(1);
        }
        let Some(record) = tables::record(&self.txn, id)? else {
            return Ok(0);
        };
        if record.cancelled_at.is_some() {
            return Ok(0);
        }
        let feeds = record.recipients.unwrap_or(1);
        match kind {
            Due::Deliver if record.scheduled => self.deliver(record)?,
            Due::Deliver | Due::GiveUp => {}
            Due::Expire => drop(self.withdraw_all(&record, WithdrawReason::Expired)?),
        }
        Ok(feeds)
    }

    /// Puts a scheduled notification into its feeds, unless its time has run out meanwhile.
    fn deliver(&mut self, mut record: Record) -> Result<(), StoreFault> {
        let before = record.clone();
        record.scheduled = false;
        let expired = record.notification.expires_at.is_some_and(|at| at <= self.now);
        if !expired {
            let mut feeds: Vec<_> = record.placements.iter().map(|place| place.0.clone()).collect();
            let users = self.recipients(&record.notification.id)?;
            feeds.extend(users.into_iter().map(|(user, _)| FeedId::User(user)));
            let notification = Arc::new(record.notification.clone());
            self.place(&mut record, &notification, &feeds)?;
        } else {
            self.note_unplaced(&record.notification.id)?;
        }
        self.counts.changed(Some(&before), Some(&record));
        self.put_record(&record);
        Ok(())
    }
}
