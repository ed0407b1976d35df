//! Taking back: cancel, collapse, expire; and forgetting what is older than is kept.

use super::{Apply, By, Due, ahead};
use crate::embedded::codec::{EntryKindRecord, EntryRecord, Record, Writer, key};
use crate::embedded::store::{Table, View};
use crate::embedded::{StoreFault, tables};
use postrider_model::{
    DeadReason, Devices, EntryKind, FeedId, MarkKind, Notification, NotificationId, State, Timestamp, UserId,
    WithdrawReason,
};
use std::sync::Arc;

impl Apply<'_> {
    /// Takes the entry at `offset` off: of one user (a user's feed), or of everyone who has not had it. True
    /// if a pending recipient's state changed for this reason.
    pub(super) fn withdraw(
        &mut self,
        feed: &FeedId,
        offset: u64,
        id: &NotificationId,
        reason: WithdrawReason,
    ) -> Result<bool, StoreFault> {
        // The clock may be ahead of the sweep: what has run out is expired, whoever comes for it later.
        let expired = is_expired(&*self.head(id)?, self.now);
        let wide_reason = if expired { WithdrawReason::Expired } else { reason };
        let (withdrawn, reason) = match feed {
            FeedId::User(user) => self.withdraw_from_user(user, feed, offset, id, reason)?,
            _ => (self.withdraw_from_all(feed, offset, wide_reason)?, wide_reason),
        };
        let Some(changed) = withdrawn else {
            return Ok(false);
        };
        let kind = EntryKind::Withdrawn {
            id: id.clone(),
            target: offset,
            reason,
            origin: None,
        };
        self.append(feed, kind, Arc::default())?;
        Ok(changed)
    }

    /// `None` where there is nothing to take off; else whether a pending recipient's state changed.
    fn withdraw_from_user(
        &mut self,
        user: &UserId,
        feed: &FeedId,
        offset: u64,
        id: &NotificationId,
        reason: WithdrawReason,
    ) -> Result<(Option<bool>, WithdrawReason), StoreFault> {
        let (state, standing) = self.state(user, feed, offset, id)?;
        let has = |kind| standing.has(offset, kind);
        let (kind, reason) = match state {
            // Its dead letter can still be looked at.
            State::Dead if reason == WithdrawReason::Expired => return Ok((None, reason)),
            State::Pending | State::Dead => (final_mark(reason), reason),
            State::Expired if !has(MarkKind::Expired) => (MarkKind::Expired, WithdrawReason::Expired),
            State::Delivered if reason != WithdrawReason::Expired && !has(MarkKind::Dismissed) => {
                (MarkKind::Dismissed, reason)
            }
            _ => return Ok((None, reason)),
        };
        self.mark(user, feed, offset, kind, &By::reason(reason))?;
        self.close(user, feed, offset, id)?;
        if state == State::Dead {
            self.no_longer_dead(user, id)?;
        }
        Ok((Some(matches!(state, State::Pending | State::Dead)), reason))
    }

    fn withdraw_from_all(
        &mut self,
        feed: &FeedId,
        offset: u64,
        reason: WithdrawReason,
    ) -> Result<Option<bool>, StoreFault> {
        let Some(mut entry) = tables::entry(&self.txn, feed, offset)? else {
            return Ok(None);
        };
        match &mut entry.kind {
            EntryKindRecord::Notification {
                withdrawn: withdrawn @ None,
                ..
            } => *withdrawn = Some(reason),
            _ => return Ok(None),
        }
        let row = key::entry(feed, offset);
        self.txn.put(Table::Entries, row.clone(), entry.encode());
        let value = Writer::new().u8(reason as u8).u64(self.now.0).done();
        self.txn.put(Table::Dropped, row, value);
        Ok(Some(false))
    }

    pub fn cancel(&mut self, id: &NotificationId) -> Result<Option<Option<u64>>, StoreFault> {
        let Some(record) = tables::record(&self.txn, id)? else {
            return Ok(None);
        };
        if record.cancelled_at.is_some() {
            return Ok(Some(record.recipients.map(|_| 0)));
        }
        let cancelled = self.withdraw_all(&record, WithdrawReason::Cancelled)?;
        if let Some(at) = record.notification.deliver_at.filter(|_| record.scheduled) {
            self.txn.remove(Table::Due, key::due(at, Due::Deliver as u8, id));
            self.note_unplaced(id)?;
        }
        // Read anew: the body may just have gone with the last dead letter.
        let mut record = tables::body(&self.txn, id)?;
        record.cancelled_at = Some(self.now);
        self.put_record(&record)?;
        Ok(Some(record.recipients.map(|_| cancelled)))
    }

    /// What never came into a feed can still be found by the user it was for.
    pub(super) fn note_unplaced(&mut self, id: &NotificationId) -> Result<(), StoreFault> {
        for (user, position) in self.recipients(id)? {
            if position.offset == 0 {
                let row = key::unplaced(&FeedId::User(user), id);
                self.txn
                    .put(Table::Past, row, Writer::new().text(id.as_str()).done());
            }
        }
        Ok(())
    }

    /// Withdraws a notification wherever it stands; counts the recipients whose state changed.
    pub(super) fn withdraw_all(
        &mut self,
        record: &Record,
        reason: WithdrawReason,
    ) -> Result<u64, StoreFault> {
        let id = &record.notification.id;
        for (feed, position) in &record.placements {
            if position.offset > 0 {
                self.withdraw(feed, position.offset, id, reason)?;
            }
        }
        let expired = is_expired(&record.notification, self.now);
        let mut changed = 0;
        for some in self.recipients(id)?.chunks(ahead::AT_ONCE) {
            let placed = some.iter().filter(|(_, position)| position.offset > 0);
            let placed: Vec<_> = placed
                .map(|(user, position)| (user.clone(), position.offset))
                .collect();
            self.foresee_places(&placed)?;
            for (user, position) in some {
                let done = match position.offset {
                    // Not placed: the record alone says what became of it.
                    0 => !expired,
                    offset => self.withdraw(&FeedId::User(user.clone()), offset, id, reason)?,
                };
                changed += u64::from(done);
            }
        }
        Ok(changed)
    }

    /// The oldest entry of a full feed goes; if it was pending, it is dead.
    pub(super) fn overflow(&mut self, feed: &FeedId, oldest: u64) -> Result<(), StoreFault> {
        self.mend(feed, oldest)?;
        if let FeedId::User(user) = feed
            && let Some(id) = self.notification_at(feed, oldest)?
            && self.state(user, feed, oldest, &id)?.0 == State::Pending
        {
            self.give_up(user, feed, oldest, &id, DeadReason::Overflow, 0)?;
        }
        self.trim(feed, oldest + 1, 1)?;
        Ok(())
    }

    /// Forgets a feed's entries below `before`, at most `limit` of them; true if there may be more. Who
    /// had not had one of them will not get it any more: for that user it is expired.
    pub fn trim(&mut self, feed: &FeedId, before: u64, limit: usize) -> Result<bool, StoreFault> {
        let span = *self.span(feed)?;
        let before = before.min(span.head.offset + 1);
        let (from, to) = (key::entry(feed, span.first), key::entry(feed, before));
        let rows = match self.txn.scan(Table::Entries, &from, &to, limit) {
            Err(StoreFault::Corrupt { .. }) => {
                let end = before.min(span.first.saturating_add(limit as u64));
                for offset in span.first..end {
                    self.mend(feed, offset)?;
                }
                self.txn.scan(Table::Entries, &from, &to, limit)?
            }
            rows => rows?,
        };
        self.foresee_taken(feed, &rows)?;
        let mut last = None;
        for (row, value) in &rows {
            let offset = tables::offset(row)?;
            let entry = EntryRecord::decode(value)?;
            if let EntryKindRecord::Notification { id, .. } = &entry.kind {
                self.mend(feed, offset)?;
                if self.head(id)?.devices == Devices::First {
                    self.txn.remove(Table::Firsts, row.clone());
                }
                if let FeedId::User(user) = feed {
                    if let Some(mut whole) = Record::of_entry(value, user, offset)? {
                        self.leave_home(&mut whole)?;
                    }
                    self.expire_trimmed(user, feed, offset, id)?;
                    let past = Writer::new().text(id.as_str()).done();
                    self.txn.put(Table::Past, row.clone(), past);
                }
                self.leave_collapse(feed, offset, id)?;
            }
            self.shrinks(feed, offset)?;
            self.txn.remove(Table::Entries, row.clone());
            last = Some((offset, entry.epoch));
        }
        let Some((offset, epoch)) = last else {
            return Ok(false);
        };
        let span = self.span(feed)?;
        span.first = offset + 1;
        let value = tables::encode_trimmed(*span, epoch);
        self.txn.put(Table::Feeds, key::feed(feed), value);
        Ok(rows.len() == limit)
    }

    /// Nothing collapses into what is not there any more.
    fn leave_collapse(&mut self, feed: &FeedId, offset: u64, id: &NotificationId) -> Result<(), StoreFault> {
        let Some(collapse_key) = self.head(id)?.collapse_key.clone() else {
            return Ok(());
        };
        let row = key::collapse(feed, &collapse_key);
        if let Some(value) = self.txn.get(Table::Collapse, &row)?
            && tables::one_u64("collapse", &value)? == offset
        {
            self.txn.remove(Table::Collapse, row);
        }
        Ok(())
    }

    fn expire_trimmed(
        &mut self,
        user: &UserId,
        feed: &FeedId,
        offset: u64,
        id: &NotificationId,
    ) -> Result<(), StoreFault> {
        let (state, standing) = self.state(user, feed, offset, id)?;
        let unmarked = state == State::Expired && !standing.has(offset, MarkKind::Expired);
        if state == State::Pending || unmarked {
            let by = By::rule(if unmarked { "expired" } else { "retention" });
            self.mark(user, feed, offset, MarkKind::Expired, &by)?;
            self.close(user, feed, offset, id)?;
        }
        Ok(())
    }
}

pub(super) fn final_mark(reason: WithdrawReason) -> MarkKind {
    match reason {
        WithdrawReason::Expired => MarkKind::Expired,
        _ => MarkKind::Cancelled,
    }
}

fn is_expired(notification: &Notification, now: Timestamp) -> bool {
    notification.expires_at.is_some_and(|at| at <= now)
}
