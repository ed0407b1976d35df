//! Accepting notifications, and appending them to feeds.

use super::{Apply, Stage};
use crate::EngineError;
use crate::embedded::codec::{EntryRecord, Held, Record, Writer, key};
use crate::embedded::store::{Table, View};
use crate::embedded::{StoreFault, tables};
use postrider_model::{Entry, EntryKind, FeedId, Forms, Position, Publication, Receipt, WithdrawReason};
use std::sync::Arc;

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
            notification: notification.clone(),
            content: publication.content,
            cancelled_at: None,
            scheduled: scheduled_at.is_some(),
            recipients: (!wide).then_some(publication.feeds.len() as u64),
            placements: Vec::new(),
            kept_from: scheduled_at.unwrap_or(self.now),
            bodiless: false,
            home: None,
        };
        self.begin_to_age(&mut record);
        if let Some(at) = scheduled_at {
            self.put_delivery(at, &notification.id, &publication.feeds);
            for feed in &publication.feeds {
                match feed {
                    FeedId::User(user) => self.put_recipient(&notification.id, user, Position::START),
                    _ => record.placements.push((feed.clone(), Position::START)),
                }
            }
        } else {
            self.place(&mut record, &publication.feeds)?;
        }
        self.counts.changed(None, Some(&record));
        if let Some(home) = &record.home {
            let row = notification.id.as_str().as_bytes().to_vec();
            self.txn.put(Table::Notifications, row, Held::encode_home(home));
            return Ok(());
        }
        self.put_record(&record)
    }

    /// Appends a notification to its feeds. For one user it stands whole in the entry, unless it has rows of
    /// its own already.
    pub(super) fn place(&mut self, record: &mut Record, feeds: &[FeedId]) -> Result<(), StoreFault> {
        record.placements.clear();
        let notification = &record.notification.clone();
        let whole = notification.deliver_at.is_none() && matches!(feeds, [FeedId::User(_)]);
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
            let position = match whole {
                true => {
                    let value = record.encode_entry(self.epoch);
                    self.append_row(feed, kind, forms, value)?
                }
                false => self.append(feed, kind, forms)?,
            };
            self.note_first(feed, position.offset, notification);
            match feed {
                FeedId::User(user) if whole => record.home = Some((user.clone(), position)),
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
        let record = EntryRecord {
            epoch: self.epoch,
            kind: tables::kind_record(&kind),
        };
        self.append_row(feed, kind, forms, record.encode())
    }

    /// Appends an entry that is written so.
    fn append_row(
        &mut self,
        feed: &FeedId,
        kind: EntryKind,
        forms: Arc<Forms>,
        value: Vec<u8>,
    ) -> Result<Position, StoreFault> {
        let epoch = self.epoch;
        let bounded = self.rules.bytes_per_feed > 0;
        let most = self.rules.entries_per_feed;
        let span = self.span(feed)?;
        let position = Position {
            epoch,
            offset: span.head.offset + 1,
        };
        let empty = (span.head.offset < span.first && span.first > 1).then_some(*span);
        span.head = position;
        let held = (position.offset + 1).saturating_sub(span.first);
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
        self.txn
            .put(Table::Entries, key::entry(feed, position.offset), value);
        self.appended.push(Arc::new(Entry {
            feed: feed.clone(),
            position,
            kind,
            forms,
        }));
        if bounded || (most > 0 && held > most) {
            self.bound(feed)?;
        }
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
}
