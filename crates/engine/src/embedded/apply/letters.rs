//! Dead letters: giving up, redriving, throwing away.
//!
//! Invariant: a recipient whose state is dead has one dead letter, until it is thrown away; whoever stops
//! being dead has none.

use super::{Apply, By};
use crate::Redriven;
use crate::embedded::codec::{LetterRecord, Writer, key};
use crate::embedded::store::{Table, View};
use crate::embedded::{StoreFault, tables};
use postrider_model::{
    DeadBody, DeadLetter, DeadLetterId, DeadReason, EntryKind, FeedId, MarkKind, Notification,
    NotificationId, UserId,
};
use std::sync::Arc;

/// Why a place is dismissed whose notification stands elsewhere now.
pub(in crate::embedded) const REDRIVEN: &str = "redriven";

impl Apply<'_> {
    /// Gives a pending entry up for this user.
    pub(super) fn give_up(
        &mut self,
        user: &UserId,
        feed: &FeedId,
        offset: u64,
        id: &NotificationId,
        reason: DeadReason,
        attempts: u32,
    ) -> Result<(), StoreFault> {
        self.mark(user, feed, offset, MarkKind::Dead, &By::dead(reason))?;
        self.close(user, feed, offset, id)?;
        let record = LetterRecord {
            notification: Some(id.clone()),
            user: Some(user.clone()),
            reason,
            source: self.head(id)?.publisher.clone(),
            attempts,
            time: self.now,
            raw: None,
            detail: None,
        };
        self.put_letter(&record)?;
        Ok(())
    }

    /// Keeps a message that no notification could be made of.
    pub fn bury(&mut self, letter: &DeadLetter) -> Result<DeadLetterId, StoreFault> {
        self.put_letter(&LetterRecord {
            notification: letter.notification.clone(),
            user: letter.user.clone(),
            reason: letter.reason,
            source: letter.source.clone(),
            attempts: letter.attempts,
            time: self.now,
            raw: match &letter.body {
                DeadBody::Raw(raw) => Some(raw.clone()),
                DeadBody::Data(_) | DeadBody::Missing => None,
            },
            detail: letter.detail.as_deref().and_then(DeadLetter::detail_of),
        })
    }

    pub(super) fn put_letter(&mut self, record: &LetterRecord) -> Result<DeadLetterId, StoreFault> {
        let mut id = self.counts.next_letter(self.now);
        // Another node may have given it.
        while self.is_shared && self.txn.get(Table::Letters, &id.0.to_be_bytes())?.is_some() {
            self.counts.lost_letter();
            id = self.counts.next_letter(self.now);
        }
        let row = id.0.to_be_bytes().to_vec();
        if let Some(user) = &record.user {
            self.txn
                .put(Table::LettersOf, key::letter_of(user, id.0), Writer::new().done());
            if let Some(notification) = &record.notification {
                let value = Writer::new().u64(id.0).done();
                self.txn
                    .put(Table::LetterFor, key::recipient(notification, user), value);
            }
        }
        self.txn.put(Table::Letters, row, record.encode());
        Ok(id)
    }

    /// The newest dead letter there is.
    pub fn newest_letter(&self) -> Result<u64, StoreFault> {
        let newest = self.txn.last(Table::Letters, &[], &[0xff; 9])?;
        newest.map_or(Ok(0), |(row, _)| tables::offset(&row))
    }

    /// Throws a dead letter away. False where there is none.
    pub fn discard(&mut self, id: DeadLetterId) -> Result<bool, StoreFault> {
        let Some(letter) = tables::letter(&self.txn, id.0)? else {
            return Ok(false);
        };
        self.remove_letter(id, &letter);
        if let Some(notification) = &letter.notification {
            self.drop_unneeded_body(notification)?;
        }
        Ok(true)
    }

    pub(super) fn remove_letter(&mut self, id: DeadLetterId, letter: &LetterRecord) {
        self.txn.remove(Table::Letters, id.0.to_be_bytes().to_vec());
        if let Some(user) = &letter.user {
            self.txn.remove(Table::LettersOf, key::letter_of(user, id.0));
            if let Some(notification) = &letter.notification {
                self.txn
                    .remove(Table::LetterFor, key::recipient(notification, user));
            }
        }
        self.counts.lost_letter();
    }

    /// The recipient is not dead any more.
    pub(super) fn no_longer_dead(&mut self, user: &UserId, id: &NotificationId) -> Result<(), StoreFault> {
        if let Some(value) = self.txn.get(Table::LetterFor, &key::recipient(id, user))? {
            self.discard(DeadLetterId(tables::one_u64("letter_for", &value)?))?;
        }
        Ok(())
    }

    /// Whether anyone's dead letter needs the body of this notification.
    pub(super) fn has_letters(&self, id: &NotificationId) -> Result<bool, StoreFault> {
        let prefix = key::recipients(id);
        let rows = self
            .txn
            .scan(Table::LetterFor, &prefix, &key::after(&prefix), 1)?;
        Ok(!rows.is_empty())
    }

    /// Appends a dead letter's notification anew to its user's feed.
    pub fn redrive(&mut self, letter_id: DeadLetterId) -> Result<Redriven, StoreFault> {
        let Some(letter) = tables::letter(&self.txn, letter_id.0)? else {
            return Ok(Redriven::Unknown);
        };
        let (Some(id), Some(user)) = (&letter.notification, &letter.user) else {
            return Ok(Redriven::Impossible);
        };
        let Some(mut record) = tables::record(&self.txn, id)?.filter(|record| !record.bodiless) else {
            return Ok(Redriven::Impossible);
        };
        if record.notification.expires_at.is_some_and(|at| at <= self.now) {
            return Ok(Redriven::Expired);
        }
        let before = self.find(user, id)?;
        if record.cancelled_at.is_some() || self.is_withdrawn(before.as_ref())? {
            return Ok(Redriven::Impossible);
        }
        self.leave_home(&mut record)?;
        let feed = FeedId::User(user.clone());
        let kind = EntryKind::Notification(record.notification.clone(), None);
        self.remove_letter(letter_id, &letter);
        let position = self.append(&feed, kind, Arc::default())?;
        self.note_first(&feed, position.offset, &record.notification);
        self.put_recipient(id, user, position);
        self.collapse_here(&record.notification, &feed, position.offset, before.as_ref())?;
        if let Some((feed, offset)) = &before {
            // Seen in one place only.
            self.mark(user, feed, *offset, MarkKind::Dismissed, &By::rule(REDRIVEN))?;
        }
        let place = before.map(|(feed, offset)| format!("{offset} {feed}"));
        let by = By::rule(place.as_deref().unwrap_or_default());
        self.mark(user, &feed, position.offset, MarkKind::Redriven, &by)?;
        self.keep_from_now(&mut record)?;
        self.note_renewed(&record);
        Ok(Redriven::Yes)
    }

    /// Whether what stands at this place was taken back from everyone who has it there. It may have been replaced in another
    /// topic.
    fn is_withdrawn(&self, place: Option<&(FeedId, u64)>) -> Result<bool, StoreFault> {
        let Some((feed, offset)) = place else {
            return Ok(false);
        };
        let row = key::entry(feed, *offset);
        Ok(self.txn.get(Table::Dropped, &row)?.is_some())
    }

    /// What comes with the same key replaces it where it stands now, unless something newer has the key.
    fn collapse_here(
        &mut self,
        notification: &Notification,
        feed: &FeedId,
        offset: u64,
        before: Option<&(FeedId, u64)>,
    ) -> Result<(), StoreFault> {
        let Some(collapse_key) = &notification.collapse_key else {
            return Ok(());
        };
        let row = key::collapse(feed, collapse_key);
        let newest = self.txn.get(Table::Collapse, &row)?;
        let newest = newest
            .map(|value| tables::one_u64("collapse", &value))
            .transpose()?;
        let newer = newest.filter(|at| before.is_none_or(|(place, old)| place != feed || old != at));
        if newer.is_none() {
            self.txn
                .put(Table::Collapse, row, Writer::new().u64(offset).done());
        }
        Ok(())
    }
}
