//! What each command does to the tables. Runs on the writer's thread inside one transaction; decides
//! nothing by the wall clock (`now` is given) and does no I/O but reads of the transaction.
//!
//! Invariant: offsets of a feed are appended without holes; a user's final mark (read, expired, cancelled)
//! is never followed by another; a floor never passes the head and never goes back.

use super::codec::{EntryKindRecord, EntryRecord, Record, Writer, encode_mark, key};
use super::store::{Table, Txn};
use super::{StoreFault, tables};
use crate::EngineError;
use postrider_model::{
    Entry, EntryKind, Epoch, FeedId, FeedSpan, Forms, Mark, MarkKind, Notification, NotificationId, Position,
    Publication, Receipt, SessionId, SettleKind, SettleTarget, Settlement, Standing, State, Timestamp,
    UserId, WithdrawReason, state_of,
};
use std::collections::HashMap;
use std::sync::Arc;

/// How many entries one settlement may walk to move a floor over what is settled already. A floor left
/// behind costs only time at the next read; it moves on with the next settlement.
const MAX_FLOOR_STEPS: u64 = 1024;
/// Ids in one read mark.
const MAX_READ_IDS: usize = 500;

/// Delivered by a floor moving over many entries at once: kept beside single marks, for the timeline.
pub(super) const MARK_DELIVERED_RANGE: u8 = 7;
pub(super) const FLOOR_DELIVERED: u8 = 1;
const FLOOR_READ: u8 = 2;

/// What becomes due at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Due {
    Deliver = 1,
    Expire = 2,
}

/// One transaction with what the commands in it share.
pub(super) struct Apply<'a> {
    pub txn: Txn<'a>,
    pub epoch: Epoch,
    pub now: Timestamp,
    /// Spans of the feeds this transaction, or earlier ones, touched.
    pub spans: &'a mut HashMap<FeedId, FeedSpan>,
    /// What was appended, in order.
    pub appended: Vec<Arc<Entry>>,
}

/// Who did it, as marks keep it.
struct By<'s> {
    settlement: Option<&'s Settlement>,
    why: &'s str,
}

impl Apply<'_> {
    // ---- publishing ----

    pub fn publish(&mut self, publication: &Publication) -> Result<Receipt, EngineError> {
        let notification = &publication.notification;
        let id = notification.id.clone();
        if let Some(request) = &publication.request {
            let known = self
                .txn
                .get(Table::Requests, request.key.as_bytes())
                .map_err(store_error)?;
            match known {
                Some(value) if tables::request_content(&value).map_err(store_error)? != request.content => {
                    return Err(EngineError::RequestConflict);
                }
                Some(_) => {}
                None => {
                    let value = Writer::new().u128(request.content).u64(self.now.0).done();
                    self.txn
                        .put(Table::Requests, request.key.clone().into_bytes(), value);
                }
            }
        }
        if let Some(record) = self.record(&id).map_err(store_error)? {
            return if record.content == publication.content {
                Ok(Receipt { id, repeated: true })
            } else {
                Err(EngineError::IdConflict(id))
            };
        }
        self.accept(publication).map_err(store_error)?;
        Ok(Receipt { id, repeated: false })
    }

    fn accept(&mut self, publication: &Publication) -> Result<(), StoreFault> {
        let notification = &publication.notification;
        let wide = publication.feeds.iter().any(FeedId::is_wide);
        let scheduled = notification.deliver_at.is_some_and(|at| at > self.now);
        let mut record = Record {
            notification: (**notification).clone(),
            content: publication.content,
            cancelled_at: None,
            scheduled,
            recipients: (!wide).then_some(publication.feeds.len() as u64),
            placements: Vec::new(),
        };
        if let Some(at) = notification.deliver_at.filter(|_| scheduled) {
            self.txn.put(
                Table::Due,
                key::due(at, Due::Deliver as u8, &notification.id),
                Writer::new().done(),
            );
            record.placements = publication
                .feeds
                .iter()
                .filter(|feed| feed.is_wide())
                .map(|feed| (feed.clone(), Position::START))
                .collect();
            for feed in &publication.feeds {
                if let FeedId::User(user) = feed {
                    self.put_recipient(&notification.id, user, Position::START);
                }
            }
        } else {
            self.place(&mut record, notification, &publication.feeds)?;
        }
        if let Some(at) = notification.expires_at {
            self.txn.put(
                Table::Due,
                key::due(at, Due::Expire as u8, &notification.id),
                Writer::new().done(),
            );
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

    fn append(&mut self, feed: &FeedId, kind: EntryKind, forms: Arc<Forms>) -> Result<Position, StoreFault> {
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
        let Some(value) = self
            .txn
            .get(Table::Collapse, &key::collapse(feed, collapse_key))?
        else {
            return Ok(());
        };
        let offset = tables::one_u64("collapse", &value)?;
        let Some(id) = self.notification_at(feed, offset)? else {
            return Ok(());
        };
        self.withdraw(feed, offset, &id, WithdrawReason::Collapsed)
            .map(|_| ())
    }

    // ---- taking back ----

    /// Takes the entry at `offset` off: of one user (a user's feed), or of everyone who has not had it. True
    /// if a pending recipient's state changed.
    fn withdraw(
        &mut self,
        feed: &FeedId,
        offset: u64,
        id: &NotificationId,
        reason: WithdrawReason,
    ) -> Result<bool, StoreFault> {
        let mut changed = false;
        match feed {
            FeedId::User(user) => {
                let state = self.state(user, feed, offset)?;
                let kind = match state {
                    State::Pending | State::Dead => Some(final_mark(reason)),
                    // The clock may be ahead of the sweep that records it.
                    State::Expired if !self.has_mark(user, feed, offset, MarkKind::Expired)? => {
                        Some(MarkKind::Expired)
                    }
                    State::Delivered if reason == WithdrawReason::Expired => None,
                    State::Delivered if self.has_mark(user, feed, offset, MarkKind::Dismissed)? => None,
                    State::Delivered => Some(MarkKind::Dismissed),
                    _ => None,
                };
                let Some(kind) = kind else { return Ok(false) };
                changed = kind != MarkKind::Dismissed && state != State::Expired;
                self.mark(
                    user,
                    feed,
                    offset,
                    kind,
                    &By {
                        settlement: None,
                        why: reason.as_str(),
                    },
                );
            }
            _ => {
                let entry_key = key::entry(feed, offset);
                let Some(value) = self.txn.get(Table::Entries, &entry_key)? else {
                    return Ok(false);
                };
                let mut entry = EntryRecord::decode(&value)?;
                match &mut entry.kind {
                    EntryKindRecord::Notification {
                        withdrawn: withdrawn @ None,
                        ..
                    } => *withdrawn = Some(reason),
                    _ => return Ok(false),
                }
                self.txn.put(Table::Entries, entry_key.clone(), entry.encode());
                let value = Writer::new().u8(reason as u8).u64(self.now.0).done();
                self.txn.put(Table::Dropped, entry_key, value);
            }
        }
        self.append(
            feed,
            EntryKind::Withdrawn {
                id: id.clone(),
                target: offset,
                reason,
            },
            Arc::default(),
        )?;
        Ok(changed)
    }

    pub fn cancel(&mut self, id: &NotificationId) -> Result<Option<Option<u64>>, StoreFault> {
        let Some(mut record) = self.record(id)? else {
            return Ok(None);
        };
        if record.cancelled_at.is_some() {
            return Ok(Some(record.recipients.map(|_| 0)));
        }
        let cancelled = self.withdraw_all(&record, WithdrawReason::Cancelled)?;
        if let Some(at) = record.notification.deliver_at.filter(|_| record.scheduled) {
            self.txn.remove(Table::Due, key::due(at, Due::Deliver as u8, id));
        }
        record.cancelled_at = Some(self.now);
        self.put_record(&record);
        Ok(Some(record.recipients.map(|_| cancelled)))
    }

    /// Withdraws a notification wherever it stands; counts the recipients whose state changed.
    fn withdraw_all(&mut self, record: &Record, reason: WithdrawReason) -> Result<u64, StoreFault> {
        let id = &record.notification.id;
        for (feed, position) in &record.placements {
            if position.offset > 0 {
                self.withdraw(feed, position.offset, id, reason)?;
            }
        }
        let mut changed = 0;
        for (user, position) in self.recipients(id)? {
            // Not yet placed: the record alone says that it is cancelled.
            let done =
                position.offset == 0 || self.withdraw(&FeedId::User(user), position.offset, id, reason)?;
            changed += u64::from(done);
        }
        Ok(changed)
    }

    /// Does everything that is due by now, at most `limit` of it; true if there may be more.
    pub fn due(&mut self, limit: usize) -> Result<bool, StoreFault> {
        let end = (self.now.0 + 1).to_be_bytes();
        let rows = self.txn.scan(Table::Due, &[], &end, limit)?;
        for (row, _) in &rows {
            let (_, kind, id) = tables::due_parts(row)?;
            self.txn.remove(Table::Due, row.clone());
            let Some(mut record) = self.record(&id)? else {
                continue;
            };
            match kind {
                Due::Deliver if record.scheduled && record.cancelled_at.is_none() => {
                    record.scheduled = false;
                    if record.notification.expires_at.is_some_and(|at| at <= self.now) {
                        self.put_record(&record);
                        continue;
                    }
                    let users = self
                        .recipients(&id)?
                        .into_iter()
                        .map(|(user, _)| FeedId::User(user));
                    let feeds: Vec<_> = record
                        .placements
                        .iter()
                        .map(|p| p.0.clone())
                        .chain(users)
                        .collect();
                    let notification = Arc::new(record.notification.clone());
                    self.place(&mut record, &notification, &feeds)?;
                    self.put_record(&record);
                }
                Due::Expire if record.cancelled_at.is_none() => {
                    self.withdraw_all(&record, WithdrawReason::Expired)?;
                }
                _ => {}
            }
        }
        Ok(rows.len() == limit)
    }

    /// Forgets a feed's entries below `before`, at most `limit` rows; true if there may be more.
    pub fn trim(&mut self, feed: &FeedId, before: u64, limit: usize) -> Result<bool, StoreFault> {
        let before = before.min(self.span(feed)?.head.offset + 1);
        let rows = self.txn.scan(
            Table::Entries,
            &key::entry(feed, 0),
            &key::entry(feed, before),
            limit,
        )?;
        for (row, _) in &rows {
            self.txn.remove(Table::Entries, row.clone());
        }
        let Some(last) = rows.last().and_then(|(row, _)| key::offset_of(row)) else {
            return Ok(false);
        };
        let span = self.span(feed)?;
        span.first = last + 1;
        let span = *span;
        self.txn
            .put(Table::Feeds, key::feed(feed), tables::encode_span(span));
        Ok(rows.len() == limit)
    }

    // ---- settling ----

    /// Records what one user says. `count` asks how many entries it changed, which has to be looked up.
    pub fn settle(&mut self, settlement: &Settlement, count: bool) -> Result<u64, StoreFault> {
        match &settlement.target {
            SettleTarget::Ids(ids) => self.settle_ids(settlement, ids),
            SettleTarget::Through(places) => {
                let mut changed = 0;
                for (feed, position) in places {
                    let own = !matches!(feed, FeedId::User(user) if *user != settlement.user);
                    if own && position.offset > 0 && self.is_place(feed, *position)? {
                        changed += self.settle_through(settlement, feed, position.offset, count)?;
                    }
                }
                Ok(changed)
            }
        }
    }

    fn settle_ids(&mut self, settlement: &Settlement, ids: &[NotificationId]) -> Result<u64, StoreFault> {
        let user = &settlement.user;
        let mut changed = Vec::new();
        for id in ids {
            let Some((feed, offset)) = self.find(user, id)? else {
                continue;
            };
            if self.settle_one(settlement, &feed, offset)? {
                changed.push(id.clone());
            }
            self.advance_floor(user, &feed)?;
        }
        if settlement.kind == SettleKind::Read {
            self.tell_read(user, &changed, settlement.session.as_ref())?;
        }
        Ok(changed.len() as u64)
    }

    fn settle_one(
        &mut self,
        settlement: &Settlement,
        feed: &FeedId,
        offset: u64,
    ) -> Result<bool, StoreFault> {
        let state = self.state(&settlement.user, feed, offset)?;
        let kind = match (settlement.kind, state) {
            (SettleKind::Delivered, State::Pending | State::Dead) => MarkKind::Delivered,
            (SettleKind::Read, State::Pending | State::Dead | State::Delivered) => MarkKind::Read,
            _ => return Ok(false),
        };
        let by = By {
            settlement: Some(settlement),
            why: settlement.evidence.as_str(),
        };
        self.mark(&settlement.user, feed, offset, kind, &by);
        Ok(true)
    }

    fn settle_through(
        &mut self,
        settlement: &Settlement,
        feed: &FeedId,
        offset: u64,
        count: bool,
    ) -> Result<u64, StoreFault> {
        let user = &settlement.user;
        let changed = match settlement.kind {
            SettleKind::Read => return self.read_through(settlement, feed, offset),
            SettleKind::Delivered => {
                let floor = self.floor(user, feed, FLOOR_DELIVERED)?;
                if offset <= floor {
                    return Ok(0);
                }
                let changed = if count {
                    self.pending_between(user, feed, floor, offset)?
                } else {
                    0
                };
                self.keep_dropped(user, feed, floor, offset)?;
                self.put_floor(user, feed, FLOOR_DELIVERED, offset);
                if !feed.is_wide() {
                    let why = settlement.evidence.as_str();
                    let mark = self.mark_value(
                        floor + 1,
                        offset,
                        MarkKind::Delivered,
                        &By {
                            settlement: Some(settlement),
                            why,
                        },
                    );
                    let row = key::mark(user, feed, offset, MARK_DELIVERED_RANGE);
                    self.txn.put(Table::Marks, row, encode_mark(&mark));
                }
                changed
            }
        };
        self.advance_floor(user, feed)?;
        Ok(changed)
    }

    fn read_through(
        &mut self,
        settlement: &Settlement,
        feed: &FeedId,
        offset: u64,
    ) -> Result<u64, StoreFault> {
        let user = &settlement.user;
        let from = self.floor(user, feed, FLOOR_READ)?;
        let mut changed = Vec::new();
        for at in from + 1..=offset {
            let Some(id) = self.notification_at(feed, at)? else {
                continue;
            };
            if self.settle_one(settlement, feed, at)? {
                changed.push(id);
            }
        }
        if offset > from {
            self.put_floor(user, feed, FLOOR_READ, offset);
        }
        self.advance_floor(user, feed)?;
        self.tell_read(user, &changed, settlement.session.as_ref())?;
        Ok(changed.len() as u64)
    }

    /// Tells the user's other sessions, by a mark in the user's own feed.
    fn tell_read(
        &mut self,
        user: &UserId,
        ids: &[NotificationId],
        origin: Option<&SessionId>,
    ) -> Result<(), StoreFault> {
        for ids in ids.chunks(MAX_READ_IDS) {
            let kind = EntryKind::Read {
                ids: ids.to_vec(),
                origin: origin.cloned(),
            };
            self.append(&FeedId::User(user.clone()), kind, Arc::default())?;
        }
        Ok(())
    }

    /// A floor that moves over entries that were withdrawn from everyone must not make them delivered.
    fn keep_dropped(&mut self, user: &UserId, feed: &FeedId, floor: u64, to: u64) -> Result<(), StoreFault> {
        if !feed.is_wide() {
            return Ok(());
        }
        let (from, end) = (key::entry(feed, floor + 1), key::entry(feed, to + 1));
        for (row, value) in self.txn.scan(Table::Dropped, &from, &end, usize::MAX / 2)? {
            let Some(offset) = key::offset_of(&row) else {
                continue;
            };
            let reason = tables::dropped_reason(&value)?;
            let settled =
                [MarkKind::Read, MarkKind::Delivered].map(|kind| self.has_mark(user, feed, offset, kind));
            let [read, delivered] = settled;
            if !read? && !delivered? {
                self.mark(
                    user,
                    feed,
                    offset,
                    final_mark(reason),
                    &By {
                        settlement: None,
                        why: reason.as_str(),
                    },
                );
            }
        }
        Ok(())
    }

    /// Moves the floor over what is settled right above it.
    fn advance_floor(&mut self, user: &UserId, feed: &FeedId) -> Result<(), StoreFault> {
        let old = self.floor(user, feed, FLOOR_DELIVERED)?;
        let head = self.span(feed)?.head.offset;
        let first = self.span(feed)?.first;
        let mut floor = old.max(first.saturating_sub(1).min(head));
        for next in floor + 1..=head.min(floor + MAX_FLOOR_STEPS) {
            let settled = match self.notification_at(feed, next)? {
                None => true,
                Some(_) => {
                    let state = self.state(user, feed, next)?;
                    !matches!(state, State::Pending | State::Dead)
                        && (state != State::Expired || self.has_mark(user, feed, next, MarkKind::Expired)?)
                }
            };
            if !settled {
                break;
            }
            floor = next;
        }
        if floor > old {
            self.keep_dropped(user, feed, old, floor)?;
            self.put_floor(user, feed, FLOOR_DELIVERED, floor);
        }
        Ok(())
    }

    fn pending_between(
        &mut self,
        user: &UserId,
        feed: &FeedId,
        floor: u64,
        to: u64,
    ) -> Result<u64, StoreFault> {
        let mut pending = 0;
        for offset in floor + 1..=to {
            if self.notification_at(feed, offset)?.is_some()
                && self.state(user, feed, offset)? == State::Pending
            {
                pending += 1;
            }
        }
        Ok(pending)
    }

    // ---- rows ----

    /// Where `id` stands for `user`, if the user is one of its recipients. Topics carry no delivery state.
    fn find(&mut self, user: &UserId, id: &NotificationId) -> Result<Option<(FeedId, u64)>, StoreFault> {
        if let Some(value) = self.txn.get(Table::Recipients, &key::recipient(id, user))? {
            let position = tables::decode_position(&value)?;
            return Ok((position.offset > 0).then(|| (FeedId::User(user.clone()), position.offset)));
        }
        let Some(record) = self.record(id)? else {
            return Ok(None);
        };
        let placed = record
            .placements
            .iter()
            .find(|(feed, position)| *feed == FeedId::All && position.offset > 0);
        Ok(placed
            .filter(|_| !record.notification.excludes(user))
            .map(|(feed, at)| (feed.clone(), at.offset)))
    }

    fn state(&mut self, user: &UserId, feed: &FeedId, offset: u64) -> Result<State, StoreFault> {
        let Some(value) = self.txn.get(Table::Entries, &key::entry(feed, offset))? else {
            return Ok(State::Expired);
        };
        let EntryKindRecord::Notification { id, withdrawn } = EntryRecord::decode(&value)?.kind else {
            return Ok(State::Delivered);
        };
        let record = self.record(&id)?.ok_or(StoreFault::Corrupt {
            table: "notifications",
            detail: "a body is missing",
        })?;
        if record.notification.excludes(user) {
            return Ok(State::Delivered);
        }
        let rows = self.txn.scan(
            Table::Marks,
            &key::mark(user, feed, offset, 0),
            &key::mark(user, feed, offset, MARK_DELIVERED_RANGE),
            8,
        )?;
        let marks = rows.iter().map(tables::mark_of_row).collect::<Result<_, _>>()?;
        let standing = Standing {
            floor: self.floor(user, feed, FLOOR_DELIVERED)?,
            marks,
        };
        Ok(state_of(
            &record.notification,
            withdrawn,
            offset,
            &standing,
            self.now,
        ))
    }

    fn has_mark(
        &self,
        user: &UserId,
        feed: &FeedId,
        offset: u64,
        kind: MarkKind,
    ) -> Result<bool, StoreFault> {
        Ok(self
            .txn
            .get(Table::Marks, &key::mark(user, feed, offset, kind as u8))?
            .is_some())
    }

    fn mark(&mut self, user: &UserId, feed: &FeedId, offset: u64, kind: MarkKind, by: &By<'_>) {
        let mark = self.mark_value(offset, offset, kind, by);
        self.txn.put(
            Table::Marks,
            key::mark(user, feed, offset, kind as u8),
            encode_mark(&mark),
        );
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

    fn floor(&self, user: &UserId, feed: &FeedId, kind: u8) -> Result<u64, StoreFault> {
        tables::floor(self.txn.get(Table::Floors, &key::floor(user, feed, kind))?)
    }

    fn put_floor(&mut self, user: &UserId, feed: &FeedId, kind: u8, offset: u64) {
        self.txn.put(
            Table::Floors,
            key::floor(user, feed, kind),
            Writer::new().u64(offset).done(),
        );
    }

    fn record(&self, id: &NotificationId) -> Result<Option<Record>, StoreFault> {
        self.txn
            .get(Table::Notifications, id.as_str().as_bytes())?
            .map(|value| Record::decode(id, &value))
            .transpose()
    }

    fn put_record(&mut self, record: &Record) {
        let id = record.notification.id.as_str().as_bytes().to_vec();
        self.txn.put(Table::Notifications, id, record.encode());
    }

    fn put_recipient(&mut self, id: &NotificationId, user: &UserId, position: Position) {
        let value = Writer::new().u32(position.epoch.0).u64(position.offset).done();
        self.txn.put(Table::Recipients, key::recipient(id, user), value);
    }

    fn recipients(&self, id: &NotificationId) -> Result<Vec<(UserId, Position)>, StoreFault> {
        let prefix = key::recipients(id);
        let rows = self
            .txn
            .scan(Table::Recipients, &prefix, &key::after(&prefix), usize::MAX / 2)?;
        rows.iter()
            .map(|row| tables::recipient_of_row(prefix.len(), row))
            .collect()
    }

    fn notification_at(&self, feed: &FeedId, offset: u64) -> Result<Option<NotificationId>, StoreFault> {
        let Some(value) = self.txn.get(Table::Entries, &key::entry(feed, offset))? else {
            return Ok(None);
        };
        Ok(match EntryRecord::decode(&value)?.kind {
            EntryKindRecord::Notification { id, .. } => Some(id),
            _ => None,
        })
    }

    fn is_place(&mut self, feed: &FeedId, position: Position) -> Result<bool, StoreFault> {
        let value = self.txn.get(Table::Entries, &key::entry(feed, position.offset))?;
        Ok(value
            .map(|value| EntryRecord::decode(&value))
            .transpose()?
            .is_some_and(|e| e.epoch == position.epoch))
    }

    fn span(&mut self, feed: &FeedId) -> Result<&mut FeedSpan, StoreFault> {
        if !self.spans.contains_key(feed) {
            let read = |table, from: &[u8], to: &[u8]| self.txn.last(table, from, to);
            let span = tables::span(feed, |key| self.txn.get(Table::Feeds, key), read)?;
            self.spans.insert(feed.clone(), span);
        }
        Ok(self.spans.entry(feed.clone()).or_insert(FeedSpan::EMPTY))
    }
}

fn final_mark(reason: WithdrawReason) -> MarkKind {
    match reason {
        WithdrawReason::Expired => MarkKind::Expired,
        _ => MarkKind::Cancelled,
    }
}

fn store_error(fault: StoreFault) -> EngineError {
    EngineError::Store(fault.to_string())
}
