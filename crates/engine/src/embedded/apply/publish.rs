//! Accepting notifications, and appending them to feeds at once or when they are due.

use super::{Apply, Due, Stage};
use crate::EngineError;
use crate::embedded::codec::people::MEMBERSHIPS;
use crate::embedded::codec::{EntryRecord, Held, Record, Writer, key};
use crate::embedded::store::{Table, View};
use crate::embedded::{StoreFault, tables};
use postrider_model::{
    Entry, EntryKind, FeedId, Forms, Millis, NotificationId, Position, Publication, Receipt, Timestamp,
    WithdrawReason,
};
use std::sync::Arc;

/// Recipients of each of them for whom all is read before.
const FORESEEN: usize = 8;
/// Due notifications handled in one transaction.
const MAX_DUE: usize = 64;
/// When what could not be put into a damaged feed is tried again.
const DUE_AGAIN: Millis = Millis::from_secs(60);
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
            self.put_due(at, Due::Deliver, &notification.id);
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
    fn place(&mut self, record: &mut Record, feeds: &[FeedId]) -> Result<(), StoreFault> {
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

    /// Does what is due by now, or a good part of it; notes in `behind` whether there may be more.
    pub fn due(&mut self) -> Result<(), StoreFault> {
        if self.now < self.calm_until {
            return Ok(());
        }
        self.behind = self.break_up_due()?;
        // Never what comes after a cohort that is still to be broken up.
        let whole = self.next_cohort_end()?.filter(|end| *end <= self.now);
        self.do_due_before(whole.unwrap_or(Timestamp(self.now.0.saturating_add(1))))?;
        if !self.behind {
            self.calm_until = self.next_due()?;
        }
        Ok(())
    }

    fn do_due_before(&mut self, end: Timestamp) -> Result<(), StoreFault> {
        let rows = self.txn.scan(Table::Due, &[], &end.0.to_be_bytes(), MAX_DUE)?;
        let mut feeds = 0;
        let ids = rows.iter().filter_map(|(row, _)| tables::due_parts(row).ok());
        let ids: Vec<_> = ids.map(|(.., id)| id).collect();
        let places = self.foresee_places_of(&ids, FORESEEN)?;
        self.foresee_places(&places)?;
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
        self.behind |= rows.len() == MAX_DUE;
        Ok(())
    }

    /// Before this nothing more becomes due.
    fn next_due(&self) -> Result<Timestamp, StoreFault> {
        let single = self.txn.scan(Table::Due, &[], &[0xff; 16], 1)?;
        let single = single
            .first()
            .map(|(row, _)| tables::due_parts(row))
            .transpose()?;
        let single = single.map_or(Timestamp(u64::MAX), |(at, ..)| at);
        Ok(self.next_cohort_end()?.map_or(single, |end| end.min(single)))
    }

    /// Notes that something becomes due.
    pub(super) fn put_due(&mut self, at: Timestamp, kind: Due, id: &NotificationId) {
        self.put_due_row(at, key::due(at, kind as u8, id));
    }

    pub(super) fn put_due_row(&mut self, at: Timestamp, row: Vec<u8>) {
        self.calm_until = self.calm_until.min(at);
        self.txn.put(Table::Due, row, Writer::new().done());
    }

    /// Does one thing that is due; returns how many feeds that touched.
    fn do_due(&mut self, row: &[u8], kind: Due, id: &NotificationId) -> Result<u64, StoreFault> {
        if kind == Due::GiveUp {
            match self.attempts_ended(&tables::due_user(row)?, id) {
                // That is this user's trouble alone: the notification is whole.
                Err(
                    fault @ StoreFault::Corrupt {
                        table: MEMBERSHIPS, ..
                    },
                ) => {
                    tracing::error!(%id, %fault, "a user's last attempt cannot be judged");
                }
                done => done?,
            }
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

    /// Whether the end of each feed can be read, so that something can be put behind it. Where one is damaged, that
    /// is no reason to lose what is whole.
    fn have_ends(&mut self, feeds: &[FeedId]) -> Result<bool, StoreFault> {
        for feed in feeds {
            match self.span(feed) {
                Ok(_) => {}
                Err(fault @ StoreFault::Corrupt { .. }) => {
                    tracing::error!(%feed, %fault, "what is due for a damaged feed waits");
                    return Ok(false);
                }
                Err(fault) => return Err(fault),
            }
        }
        Ok(true)
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
            let collapse_key = record.notification.collapse_key.as_deref();
            self.foresee_ends(&feeds, collapse_key)?;
            if !self.have_ends(&feeds)? {
                self.put_due(self.now.plus(DUE_AGAIN), Due::Deliver, &record.notification.id);
                return Ok(());
            }
            self.place(&mut record, &feeds)?;
        } else {
            self.note_unplaced(&record.notification.id)?;
        }
        self.counts.changed(Some(&before), Some(&record));
        self.put_record(&record)
    }
}
