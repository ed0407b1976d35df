//! Acknowledging and marking as read, by ids and through positions.

use super::withdraw::final_mark;
use super::{Apply, By};
use crate::embedded::StoreFault;
use crate::embedded::codec::{Writer, key};
use crate::embedded::hot::{Asked, Found, Ground};
use crate::embedded::rules::Broadcasts;
use crate::embedded::store::{Table, View};
use crate::embedded::tables::{self, ALL_ROWS, FLOOR_DELIVERED, FLOOR_JOINED, FLOOR_READ};
use postrider_model::{
    Devices, EntryKind, Evidence, FeedId, MarkKind, Membership, NotificationId, Position, SessionId,
    SettleKind, SettleTarget, Settlement, State, UserId, WithdrawReason,
};
use std::sync::Arc;

/// How many entries one settlement may walk to move a floor over what is settled already. A floor left
/// behind costs only time at the next read; it moves on with the next settlement.
const MAX_FLOOR_STEPS: u64 = 1024;
/// Dead letters that one settlement through a position looks at; later ones take another, or an ack by id.
const MAX_LATE: usize = 256;
/// Ids in one read mark.
const MAX_READ_IDS: usize = 500;

/// How far one transaction got with a settlement.
pub(in crate::embedded) struct Settled {
    /// Entries changed.
    pub changed: u64,
    /// Entries looked at.
    pub walked: usize,
    /// Whether it is done; if not, the same settlement goes on where the floor stands.
    pub done: bool,
}

impl Apply<'_> {
    /// Records what one user says, over at most `steps` entries. `count` asks how many entries it changed,
    /// which has to be looked up.
    pub fn settle(
        &mut self,
        settlement: &Settlement,
        count: bool,
        steps: u64,
    ) -> Result<Settled, StoreFault> {
        let places = match &settlement.target {
            SettleTarget::Ids(ids) => {
                let changed = self.settle_ids(settlement, ids)?;
                return Ok(Settled {
                    changed,
                    walked: ids.len(),
                    done: true,
                });
            }
            SettleTarget::Through(places) => places,
        };
        let mut all = Settled {
            changed: 0,
            walked: 0,
            done: true,
        };
        for (feed, position) in places {
            let Some(most) = self.settles_through(&settlement.user, feed)? else {
                continue;
            };
            if self.is_place(feed, *position)? {
                let through = position.offset.min(most);
                all.changed += self.settle_dead(settlement, feed, through)?;
                let settled = self.settle_through(settlement, feed, through, count, steps)?;
                all.changed += settled.changed;
                all.walked += settled.walked;
                all.done = settled.done;
                if !all.done {
                    break;
                }
            }
        }
        Ok(all)
    }

    /// Up to which offset a user's word can settle something in a feed; `None` where it cannot.
    fn settles_through(&mut self, user: &UserId, feed: &FeedId) -> Result<Option<u64>, StoreFault> {
        Ok(match feed {
            FeedId::All => Some(u64::MAX),
            FeedId::User(of) => (of == user).then_some(u64::MAX),
            FeedId::Topic(topic) if self.hot.is_member(self.asked(user), topic) => Some(u64::MAX),
            FeedId::Topic(_) => {
                let membership = self.membership(user, feed)?;
                membership.map(|one| one.end().unwrap_or(u64::MAX))
            }
        })
    }

    fn settle_ids(&mut self, settlement: &Settlement, ids: &[NotificationId]) -> Result<u64, StoreFault> {
        let user = &settlement.user;
        let mut changed = Vec::new();
        for id in ids {
            if let Some(is_new) = self.settle_next(settlement, id)? {
                changed.extend(is_new.then(|| id.clone()));
                continue;
            }
            let Some((feed, offset)) = self.find(user, id)? else {
                continue;
            };
            if self.settle_one(settlement, &feed, offset, id, true)? {
                changed.push(id.clone());
                self.advance_floor(user, &feed)?;
            }
        }
        if settlement.kind == SettleKind::Read {
            self.tell_read(user, &changed, settlement.session.as_ref())?;
        }
        Ok(changed.len() as u64)
    }

    /// An entry stands at this place.
    fn is_place(&mut self, feed: &FeedId, position: Position) -> Result<bool, StoreFault> {
        let span = *self.span(feed)?;
        if position == span.head && span.head.offset >= span.first {
            return Ok(true);
        }
        let entry = tables::entry(&self.txn, feed, position.offset)?;
        Ok(entry.is_some_and(|entry| entry.epoch == position.epoch))
    }

    /// An acknowledgement of what comes right above the user's floor, as most are: the floor moves, and in a wide feed
    /// that is all that is recorded. Says whether it changed something, or nothing where it is not as simple as that.
    fn settle_next(
        &mut self,
        settlement: &Settlement,
        id: &NotificationId,
    ) -> Result<Option<bool>, StoreFault> {
        let user = &settlement.user;
        if settlement.kind != SettleKind::Delivered {
            return Ok(None);
        }
        let Some(found) = self.hot.find(self.asked(user), id) else {
            return Ok(None);
        };
        let Found {
            feed,
            offset,
            notification,
            ground: Ground { place, plain, stops },
        } = found;
        if place.open || offset <= place.marked {
            return Ok(None);
        }
        if offset <= place.floor {
            return Ok(Some(false));
        }
        let is_next = offset == place.floor + 1 && plain && stops;
        let is_pending = notification.expires_at.is_none_or(|at| at > self.now);
        if !is_next || !is_pending || notification.excludes(user) {
            return Ok(None);
        }
        if !feed.is_wide() {
            self.mark(user, &feed, offset, MarkKind::Delivered, &By::said(settlement))?;
        } else if !place.has_floor {
            self.note_settler(user, &feed)?;
        }
        self.put_floor(user, &feed, FLOOR_DELIVERED, offset);
        Ok(Some(true))
    }

    /// Moves the floor over what was sent and is as it was: most evidence is about that. Says how far it got, or
    /// nothing where it is not as simple as that.
    fn settle_plainly(
        &mut self,
        settlement: &Settlement,
        feed: &FeedId,
        to: u64,
    ) -> Result<Option<Settled>, StoreFault> {
        let user = &settlement.user;
        let Some(Ground { place, plain, stops }) = self.hot.ground(self.asked(user), feed, to) else {
            return Ok(None);
        };
        if to > place.floor {
            if !plain || !stops {
                return Ok(None);
            }
            if !feed.is_wide() {
                let by = By::said(settlement);
                self.put_range(user, feed, place.floor, to, MarkKind::Delivered, &by);
            } else if !place.has_floor {
                self.note_settler(user, feed)?;
            }
            self.put_floor(user, feed, FLOOR_DELIVERED, to);
        }
        Ok(Some(Settled {
            changed: 0,
            walked: 1,
            done: true,
        }))
    }

    pub(super) fn asked<'s>(&'s self, user: &'s UserId) -> Asked<'s> {
        Asked {
            user,
            batch: self.txn.batch(),
            now: self.now,
        }
    }

    /// A client's word also covers what was sent to it before it was given up.
    fn settle_dead(&mut self, settlement: &Settlement, feed: &FeedId, to: u64) -> Result<u64, StoreFault> {
        if settlement.evidence != Evidence::Client || settlement.kind != SettleKind::Delivered {
            return Ok(0);
        }
        let user = &settlement.user;
        let mut changed = 0;
        let prefix = key::letters_of(user);
        let rows = self
            .txn
            .scan(Table::LettersOf, &prefix, &key::after(&prefix), MAX_LATE)?;
        for (row, _) in rows {
            let letter = tables::letter(&self.txn, tables::offset(&row)?)?;
            let Some(id) = letter.filter(|l| l.attempts > 0).and_then(|l| l.notification) else {
                continue;
            };
            if let Some((at, offset)) = self.find(user, &id)?
                && at == *feed
                && offset <= to
                && self.settle_one(settlement, feed, offset, &id, false)?
            {
                changed += 1;
            }
        }
        Ok(changed)
    }

    fn settle_one(
        &mut self,
        settlement: &Settlement,
        feed: &FeedId,
        offset: u64,
        id: &NotificationId,
        by_id: bool,
    ) -> Result<bool, StoreFault> {
        let (user, head) = (&settlement.user, self.head(id)?);
        let first = head.devices == Devices::First;
        if (first && !by_id) || !self.is_shown(user, feed, offset, &head)? {
            return Ok(false);
        }
        let (state, standing) = self.state(user, feed, offset, id)?;
        if state == State::Dead && standing.has(offset, MarkKind::Dismissed) {
            // Redriven: it stands elsewhere now.
            return Ok(false);
        }
        let kind = match (settlement.kind, state) {
            (SettleKind::Delivered, State::Pending | State::Dead) => MarkKind::Delivered,
            (SettleKind::Read, State::Pending | State::Dead | State::Delivered) => MarkKind::Read,
            _ => return Ok(false),
        };
        self.mark(user, feed, offset, kind, &By::said(settlement))?;
        if state == State::Dead {
            self.no_longer_dead(user, id)?;
        }
        if first && matches!(state, State::Pending | State::Dead) {
            self.take(settlement, feed, offset, id)?;
        }
        Ok(true)
    }

    /// The first device took it: the user's others are told, and later ones do not get it.
    fn take(
        &mut self,
        settlement: &Settlement,
        feed: &FeedId,
        offset: u64,
        id: &NotificationId,
    ) -> Result<(), StoreFault> {
        let user = &settlement.user;
        let by = By::reason(WithdrawReason::Taken);
        self.mark(user, feed, offset, MarkKind::Dismissed, &by)?;
        self.close(user, feed, offset, id)?;
        let kind = EntryKind::Withdrawn {
            id: id.clone(),
            target: offset,
            reason: WithdrawReason::Taken,
            origin: settlement.session.clone(),
        };
        self.append(&FeedId::User(user.clone()), kind, Arc::default())?;
        Ok(())
    }

    fn settle_through(
        &mut self,
        settlement: &Settlement,
        feed: &FeedId,
        offset: u64,
        count: bool,
        steps: u64,
    ) -> Result<Settled, StoreFault> {
        let user = &settlement.user;
        let read = settlement.kind == SettleKind::Read;
        let walk = count || self.behind || read;
        if !walk && let Some(settled) = self.settle_plainly(settlement, feed, offset)? {
            return Ok(settled);
        }
        let kind = if read { FLOOR_READ } else { FLOOR_DELIVERED };
        let floor = self.floor(user, feed, kind)?;
        if offset <= floor {
            return Ok(Settled {
                changed: 0,
                walked: 0,
                done: true,
            });
        }
        let to = match walk || feed.is_wide() {
            true => offset.min(floor.saturating_add(steps)),
            false => self.as_far_as_open(feed, floor, offset, steps)?,
        };
        let changed = if read {
            self.read_between(settlement, feed, floor, to)?
        } else {
            let changed = if walk {
                self.count_between(user, feed, floor, to)?
            } else {
                0
            };
            self.keep_open(user, feed, floor, to)?;
            self.move_floor(user, feed, floor, to)?;
            if !feed.is_wide() {
                self.put_range(user, feed, floor, to, MarkKind::Delivered, &By::said(settlement));
            }
            changed
        };
        self.advance_floor(user, feed)?;
        Ok(Settled {
            changed,
            walked: if walk { (to - floor) as usize } else { 1 },
            done: to == offset,
        })
    }

    fn read_between(
        &mut self,
        settlement: &Settlement,
        feed: &FeedId,
        floor: u64,
        to: u64,
    ) -> Result<u64, StoreFault> {
        let user = &settlement.user;
        let mut changed = Vec::new();
        for at in self.span(feed)?.first.max(floor + 1)..=to {
            let Some(id) = self.notification_at(feed, at)? else {
                continue;
            };
            if self.settle_one(settlement, feed, at, &id, false)? {
                changed.push(id);
            }
        }
        self.put_floor(user, feed, FLOOR_READ, to);
        self.tell_read(user, &changed, settlement.session.as_ref())?;
        Ok(changed.len() as u64)
    }

    /// How many of `floor + 1..=to` the floor would make delivered. What has run out but is not recorded
    /// as such is recorded, so that the floor does not.
    fn count_between(
        &mut self,
        user: &UserId,
        feed: &FeedId,
        floor: u64,
        to: u64,
    ) -> Result<u64, StoreFault> {
        let mut changed = 0;
        for offset in self.span(feed)?.first.max(floor + 1)..=to {
            let Some(id) = self.notification_at(feed, offset)? else {
                continue;
            };
            let (state, standing) = self.state(user, feed, offset, &id)?;
            match state {
                State::Pending if self.head(&id)?.devices == Devices::All => changed += 1,
                State::Expired if !standing.has(offset, MarkKind::Expired) => {
                    let by = By::reason(WithdrawReason::Expired);
                    self.mark(user, feed, offset, MarkKind::Expired, &by)?;
                }
                _ => {}
            }
        }
        Ok(changed)
    }

    /// A session of the user begins: where the rules say so, the first decides from where on the user is a
    /// recipient of what is for everyone.
    pub fn arrive(&mut self, user: &UserId) -> Result<(), StoreFault> {
        let row = key::floor(user, &FeedId::All, FLOOR_JOINED);
        if self.rules.broadcasts == Broadcasts::FromFirstSession
            && self.txn.get(Table::Floors, &row)?.is_none()
        {
            let head = self.span(&FeedId::All)?.head.offset;
            self.put_floor(user, &FeedId::All, FLOOR_JOINED, head);
        }
        Ok(())
    }

    /// How far one step may go over entries that are for the first device: each is looked at.
    fn as_far_as_open(&self, feed: &FeedId, floor: u64, to: u64, steps: u64) -> Result<u64, StoreFault> {
        let (from, end) = (key::entry(feed, floor + 1), key::entry(feed, to + 1));
        let most = usize::try_from(steps).unwrap_or(usize::MAX).max(1);
        let firsts = self.txn.scan(Table::Firsts, &from, &end, most)?;
        match firsts.last() {
            Some((row, _)) if firsts.len() == most => tables::offset(row),
            _ => Ok(to),
        }
    }

    /// What is for the first device that takes it stays pending though the floor passes it.
    fn keep_open(&mut self, user: &UserId, feed: &FeedId, floor: u64, to: u64) -> Result<(), StoreFault> {
        let (from, end) = (key::entry(feed, floor + 1), key::entry(feed, to + 1));
        for (row, _) in self.txn.scan(Table::Firsts, &from, &end, ALL_ROWS)? {
            let offset = tables::offset(&row)?;
            if let Some(id) = self.notification_at(feed, offset)?
                && self.state(user, feed, offset, &id)?.0 == State::Pending
            {
                self.txn
                    .put(Table::Opens, key::range(user, feed, offset), Writer::new().done());
            }
        }
        Ok(())
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

    /// Sets the floor. In a wide feed it must not make delivered what was trimmed, or withdrawn from
    /// everyone, before the user had it.
    fn move_floor(&mut self, user: &UserId, feed: &FeedId, old: u64, to: u64) -> Result<(), StoreFault> {
        if feed.is_wide() {
            let trimmed = to.min(self.span(feed)?.first.saturating_sub(1));
            if trimmed > old {
                let by = By::rule("retention");
                self.put_range(user, feed, old, trimmed, MarkKind::Expired, &by);
            }
            self.keep_dropped(user, feed, old, to)?;
            self.note_settler(user, feed)?;
        }
        self.put_floor(user, feed, FLOOR_DELIVERED, to);
        Ok(())
    }

    fn keep_dropped(&mut self, user: &UserId, feed: &FeedId, floor: u64, to: u64) -> Result<(), StoreFault> {
        let (from, end) = (key::entry(feed, floor + 1), key::entry(feed, to + 1));
        let dropped = self.txn.scan(Table::Dropped, &from, &end, ALL_ROWS)?;
        if dropped.is_empty() {
            return Ok(());
        }
        let own = tables::standing(&self.txn, user, feed, floor + 1, to)?;
        for (row, value) in dropped {
            let offset = tables::offset(&row)?;
            let reason = tables::dropped_reason(&value)?;
            // The user's own word came first.
            if own.at(offset).next().is_none() {
                self.mark(user, feed, offset, final_mark(reason), &By::reason(reason))?;
            }
        }
        Ok(())
    }

    /// Moves the floor over what is settled right above it.
    fn advance_floor(&mut self, user: &UserId, feed: &FeedId) -> Result<(), StoreFault> {
        let span = *self.span(feed)?;
        let membership = self.membership(user, feed)?;
        // What is not the user's is passed over at once.
        let lifted = |floor: u64| membership.as_ref().map_or(floor, |one| one.floor(floor));
        let old = lifted(tables::floor(&self.txn, user, feed, FLOOR_DELIVERED)?);
        let end = membership.as_ref().and_then(Membership::end);
        let head = span.head.offset.min(end.unwrap_or(u64::MAX));
        let mut floor = lifted(old.max(span.first.saturating_sub(1))).min(head);
        for _ in 0..MAX_FLOOR_STEPS {
            let next = floor + 1;
            if next > head {
                break;
            }
            if let Some(id) = self.notification_at(feed, next)? {
                let (state, standing) = self.state(user, feed, next, &id)?;
                let settled = match state {
                    State::Pending => false,
                    // By the clock only: the sweep has yet to say so, or a floor would make it delivered.
                    State::Expired => !self.behind || standing.has(next, MarkKind::Expired),
                    _ => true,
                };
                if !settled {
                    break;
                }
            }
            floor = lifted(next);
        }
        if floor > old {
            self.move_floor(user, feed, old, floor)?;
        }
        Ok(())
    }
}
