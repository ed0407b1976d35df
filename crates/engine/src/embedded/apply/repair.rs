//! What was damaged in a feed is given up, so that the rest of the feed can be read.
//!
//! Invariant: nothing is passed over in silence: each damaged entry becomes a dead letter (`lost`), or for
//! everyone's feeds one dead letter and a withdrawal, and a line in the log. What can be read is not changed.

use super::{Apply, Stage};
use crate::embedded::codec::{EntryKindRecord, EntryRecord, Held, LetterRecord, Record, Writer, key};
use crate::embedded::store::{Table, View};
use crate::embedded::{StoreFault, tables};
use bytes::Bytes;
use postrider_model::{
    Audience, DeadReason, FeedId, MarkKind, Notification, NotificationId, Position, State, Timestamp,
    WithdrawReason,
};
use std::sync::Arc;

impl Apply<'_> {
    /// Gives up what stands at this place, if it cannot be read.
    pub fn repair(&mut self, feed: &FeedId, offset: u64) -> Result<(), StoreFault> {
        match tables::entry(&self.txn, feed, offset) {
            Err(fault @ StoreFault::Corrupt { .. }) => {
                tracing::error!(%feed, offset, %fault, "an entry is lost");
                self.lose_entry(feed, offset)
            }
            Err(fault) => Err(fault),
            Ok(Some(EntryRecord {
                kind: EntryKindRecord::Notification { id, .. },
                epoch,
            })) => match tables::record(&self.txn, &id) {
                Ok(Some(record)) if record.bodiless && tables::is_stray(&self.txn, &id, feed)? => {
                    tracing::error!(%feed, offset, %id, "a notification is lost");
                    self.lose_stray(feed, Position { epoch, offset }, record)
                }
                Ok(Some(_)) => Ok(()),
                Ok(None) | Err(StoreFault::Corrupt { .. }) if self.find_home(feed, offset, &id)? => Ok(()),
                Ok(None) => {
                    tracing::error!(%feed, offset, %id, "a notification is lost: it is missing");
                    self.lose_notification(&id, feed, offset)
                }
                Err(fault @ StoreFault::Corrupt { .. }) => {
                    tracing::error!(%feed, offset, %id, %fault, "a notification is lost");
                    self.lose_notification(&id, feed, offset)
                }
                Err(fault) => Err(fault),
            },
            Ok(Some(_)) => Ok(()),
            Ok(None) => {
                let span = *self.span(feed)?;
                if (span.first..=span.head.offset).contains(&offset) {
                    tracing::error!(%feed, offset, "an entry is lost: it is missing");
                    self.lose_entry(feed, offset)?;
                }
                Ok(())
            }
        }
    }

    /// Says anew where a notification stands that stands whole in this entry. False if it does not.
    fn find_home(&mut self, feed: &FeedId, offset: u64, id: &NotificationId) -> Result<bool, StoreFault> {
        let FeedId::User(user) = feed else {
            return Ok(false);
        };
        let value = self.txn.get(Table::Entries, &key::entry(feed, offset))?;
        let record = value.map(|value| Record::of_entry(&value, user, offset));
        let home = record.transpose()?.flatten().and_then(|record| record.home);
        if let Some(home) = &home {
            tracing::error!(%feed, offset, %id, "the row that says where a notification stands was lost; it is written anew");
            let row = id.as_str().as_bytes().to_vec();
            self.txn.put(Table::Notifications, row, Held::encode_home(home));
        }
        Ok(home.is_some())
    }

    /// Nobody can tell any more what stood there.
    fn lose_entry(&mut self, feed: &FeedId, offset: u64) -> Result<(), StoreFault> {
        // A mark that says nothing keeps the place.
        let record = EntryRecord {
            epoch: self.epoch,
            kind: EntryKindRecord::Read {
                ids: Vec::new(),
                origin: None,
            },
        };
        self.txn
            .put(Table::Entries, key::entry(feed, offset), record.encode());
        let user = match feed {
            FeedId::User(user) => {
                let by = super::By::dead(DeadReason::Lost);
                self.mark(user, feed, offset, MarkKind::Dead, &by)?;
                Some(user.clone())
            }
            FeedId::All | FeedId::Topic(_) => None,
        };
        self.put_letter(&LetterRecord {
            notification: None,
            user,
            reason: DeadReason::Lost,
            source: feed.to_string(),
            attempts: 0,
            time: self.now,
            raw: None,
            detail: None,
        })?;
        Ok(())
    }

    /// It was given up before, and this recipient could not be found then.
    fn lose_stray(
        &mut self,
        feed: &FeedId,
        position: Position,
        mut record: Record,
    ) -> Result<(), StoreFault> {
        let FeedId::User(user) = feed else {
            return Ok(());
        };
        record.recipients = record.recipients.map(|count| count + 1);
        self.put_record(&record)?;
        let id = &record.notification.id;
        self.put_recipient(id, user, position);
        if self.state(user, feed, position.offset, id)?.0 == State::Pending {
            self.give_up(user, feed, position.offset, id, DeadReason::Lost, 0)?;
        }
        Ok(())
    }

    /// The id is known, and not where it stands.
    pub(super) fn lose(&mut self, id: &NotificationId) -> Result<(), StoreFault> {
        match self.recipients(id)?.into_iter().next() {
            Some((user, position)) => self.lose_notification(id, &FeedId::User(user), position.offset),
            None => self.lose_notification(id, &FeedId::All, 0),
        }
    }

    /// Makes sure that what stands at a place can be read, or gives it up.
    pub(super) fn mend(&mut self, feed: &FeedId, offset: u64) -> Result<(), StoreFault> {
        let read = match self.notification_at(feed, offset) {
            Ok(Some(id)) => self.head(&id).map(drop),
            other => other.map(drop),
        };
        match read {
            Err(StoreFault::Corrupt { .. }) => self.repair(feed, offset),
            read => read,
        }
    }

    /// The id is known; nothing else is.
    fn lose_notification(
        &mut self,
        id: &NotificationId,
        feed: &FeedId,
        offset: u64,
    ) -> Result<(), StoreFault> {
        let recipients = self.recipients(id)?;
        let mut placements = Vec::new();
        if feed.is_wide()
            && let Some(entry) = tables::entry(&self.txn, feed, offset)?
        {
            let epoch = entry.epoch;
            placements.push((feed.clone(), Position { epoch, offset }));
        }
        for (user, position) in &recipients {
            self.put_recipient(id, user, *position);
        }
        let record = Record {
            notification: Arc::new(nothing(id, feed, self.now)),
            content: 0,
            cancelled_at: None,
            scheduled: false,
            recipients: placements.is_empty().then_some(recipients.len() as u64),
            placements,
            kept_from: self.now,
            bodiless: true,
            home: None,
        };
        self.put_record(&record)?;
        let row = key::age(Stage::Record as u8, self.now, id.as_str().as_bytes());
        self.txn.put(Table::Ages, row, Writer::new().done());
        self.forget_head(id);
        for (user, position) in recipients {
            let own = FeedId::User(user.clone());
            if position.offset > 0
                && let Err(StoreFault::Corrupt { .. }) = self.notification_at(&own, position.offset)
            {
                // It stood whole in an entry that cannot be read.
                self.lose_entry(&own, position.offset)?;
            }
            if position.offset > 0 && self.state(&user, &own, position.offset, id)?.0 == State::Pending {
                self.give_up(&user, &own, position.offset, id, DeadReason::Lost, 0)?;
            }
        }
        if feed.is_wide() {
            if offset > 0 {
                self.withdraw(feed, offset, id, WithdrawReason::Cancelled)?;
            }
            self.put_letter(&LetterRecord {
                notification: Some(id.clone()),
                user: None,
                reason: DeadReason::Lost,
                source: feed.to_string(),
                attempts: 0,
                time: self.now,
                raw: None,
                detail: None,
            })?;
        }
        Ok(())
    }
}

/// All that is left of a notification: its id.
fn nothing(id: &NotificationId, feed: &FeedId, now: Timestamp) -> Notification {
    Notification::plain(
        id.clone(),
        now,
        match feed {
            FeedId::User(_) => Audience::Users(Vec::new()),
            FeedId::Topic(topic) => Audience::Topics(vec![topic.clone()]),
            FeedId::All => Audience::Everyone,
        },
        Bytes::new(),
    )
}
