//! What is done when its time has come: notifications that waited for it, expiry, giving up.
//!
//! Invariant: what is due is done at most once: its row goes in the transaction that does it. Where several nodes
//! share a store each does what falls to it; see [`lanes`].

use super::{Apply, Due};
use crate::embedded::codec::people::MEMBERSHIPS;
use crate::embedded::codec::{Record, Writer, key};
use crate::embedded::lanes::{self, Lane, Share};
use crate::embedded::store::{Row, Table, View};
use crate::embedded::{StoreFault, tables, wants};
use postrider_model::{FeedId, Millis, NotificationId, Timestamp, WithdrawReason};

/// Recipients of each of them for whom all is read before.
const FORESEEN: usize = 8;
/// Due notifications handled in one transaction.
const MAX_DUE: usize = 64;
/// Where several nodes do what is due each does so many at once: a transaction costs it some ways there and back.
const MAX_DUE_SHARED: usize = 256;
/// Rows that one look goes through for those that fall to a node.
const MAX_WINDOW: usize = 2048;
/// When what could not be put into a damaged feed is tried again.
const DUE_AGAIN: Millis = Millis::from_secs(60);
/// Feeds that due notifications touch in one transaction; the last may exceed it.
const MAX_DUE_FEEDS: u64 = 4096;

/// What one look found of what is due by now.
#[derive(Debug)]
pub(in crate::embedded) struct Upcoming {
    /// What falls to this node, in its order, with its keys.
    pub rows: Vec<Row>,
    /// Cohorts have come to the end of their life.
    pub is_ripe: bool,
    /// There is more that falls to this node.
    pub more: bool,
    /// Others are to do something before what falls to this node.
    pub waits: bool,
    /// Nothing is left to be done, by any node, that was due before this.
    pub undone: Timestamp,
}

impl Apply<'_> {
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
        self.behind |= self.do_rows(&rows)? || rows.len() == MAX_DUE;
        Ok(())
    }

    /// Looks what is due by now and falls to a node, of several that share a store. `crowd`: how often in a row others
    /// were in the way of what it did; it does less then. Changes nothing.
    pub fn upcoming(&mut self, share: Share, crowd: u32) -> Result<Upcoming, StoreFault> {
        let most = (MAX_DUE_SHARED >> crowd.min(8)).max(1);
        // Of so many rows, as many as it may do fall to it, about.
        let window = most * usize::from(lanes::LANES) / share.len().max(1);
        let window = window.clamp(MAX_DUE, MAX_WINDOW);
        let wanted = wants::of_chores(self.now, self.rules.age, window);
        self.txn.prefetch(&wanted)?;
        let end = Timestamp(self.now.0.saturating_add(1)).0.to_be_bytes();
        let rows = self.txn.scan(Table::Due, &[], &end, window)?;
        let lanes: Vec<_> = rows.iter().map(lane).collect();
        let choice = lanes::choose(&lanes, share, most);
        let cohort = self.next_cohort_end()?;
        let first = match rows.first() {
            Some(first) => Some(tables::due_parts(&first.0)?.0),
            None => self.first_after(&end)?,
        };
        let is_full = rows.len() == window;
        let mut chosen = choice.chosen.iter().peekable();
        let rows = rows.into_iter().enumerate();
        let rows: Vec<_> = rows
            .filter_map(|(at, row)| chosen.next_if_eq(&&at).map(|_| row))
            .collect();
        Ok(Upcoming {
            more: choice.more || (is_full && !rows.is_empty()),
            waits: choice.waits || (is_full && rows.is_empty()),
            is_ripe: cohort.is_some_and(|end| end <= self.now),
            undone: first
                .into_iter()
                .chain(cohort)
                .min()
                .unwrap_or(Timestamp(u64::MAX)),
            rows,
        })
    }

    /// Does what a look before this transaction found. True if some of it is left.
    pub fn do_upcoming(&mut self, upcoming: &Upcoming) -> Result<bool, StoreFault> {
        let ids = upcoming
            .rows
            .iter()
            .filter_map(|(row, _)| tables::due_parts(row).ok());
        let ids: Vec<_> = ids.map(|(.., id)| id).collect();
        let mut wanted = wants::of_records(&ids, FORESEEN);
        for (row, _) in &upcoming.rows {
            wants::get(&mut wanted, Table::Due, row.clone());
        }
        self.txn.prefetch(&wanted)?;
        let mut rows = Vec::with_capacity(upcoming.rows.len());
        for (row, value) in &upcoming.rows {
            // Else another node did it since.
            if self.txn.get(Table::Due, row)?.is_some() {
                rows.push((row.clone(), value.clone()));
            }
        }
        self.do_rows(&rows)
    }

    /// Does these, in order. True if some are left.
    fn do_rows(&mut self, rows: &[Row]) -> Result<bool, StoreFault> {
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
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Before this nothing more becomes due.
    fn next_due(&self) -> Result<Timestamp, StoreFault> {
        let single = self.first_after(&[])?;
        let all = single.into_iter().chain(self.next_cohort_end()?);
        Ok(all.min().unwrap_or(Timestamp(u64::MAX)))
    }

    fn first_after(&self, from: &[u8]) -> Result<Option<Timestamp>, StoreFault> {
        let first = self.txn.scan(Table::Due, from, &wants::END_OF_DUE, 1)?;
        let first = first.first().map(|(row, _)| tables::due_parts(row));
        Ok(first.transpose()?.map(|(at, ..)| at))
    }

    /// Notes that something becomes due.
    pub(super) fn put_due(&mut self, at: Timestamp, kind: Due, id: &NotificationId) {
        self.put_due_row(at, key::due(at, kind as u8, id), Writer::new().done());
    }

    /// Notes when a notification is to be put into these feeds.
    pub(super) fn put_delivery(&mut self, at: Timestamp, id: &NotificationId, feeds: &[FeedId]) {
        let row = key::due(at, Due::Deliver as u8, id);
        self.put_due_row(at, row, lanes::encode(Lane::of_feeds(feeds)));
    }

    /// Notes when the last attempt has ended.
    pub(super) fn put_give_up(&mut self, at: Timestamp, row: Vec<u8>) {
        self.put_due_row(at, row, Writer::new().done());
    }

    fn put_due_row(&mut self, at: Timestamp, row: Vec<u8>, value: Vec<u8>) {
        self.calm_until = self.calm_until.min(at);
        self.txn.put(Table::Due, row, value);
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
            // Another node, whose clock is behind, has yet to put it into its feeds; or they are damaged.
            Due::Expire if record.scheduled => self.pass_over(record)?,
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
        if record.notification.expires_at.is_some_and(|at| at <= self.now) {
            return self.pass_over(record);
        }
        let before = record.clone();
        record.scheduled = false;
        let mut feeds: Vec<_> = record.placements.iter().map(|place| place.0.clone()).collect();
        let users = self.recipients(&record.notification.id)?;
        feeds.extend(users.into_iter().map(|(user, _)| FeedId::User(user)));
        let collapse_key = record.notification.collapse_key.as_deref();
        self.foresee_ends(&feeds, collapse_key)?;
        if !self.have_ends(&feeds)? {
            self.put_delivery(self.now.plus(DUE_AGAIN), &record.notification.id, &feeds);
            return Ok(());
        }
        self.place(&mut record, &feeds)?;
        self.counts.changed(Some(&before), Some(&record));
        self.put_record(&record)
    }

    /// A scheduled notification whose time has run out comes into no feed.
    fn pass_over(&mut self, mut record: Record) -> Result<(), StoreFault> {
        let before = record.clone();
        record.scheduled = false;
        self.note_unplaced(&record.notification.id)?;
        self.counts.changed(Some(&before), Some(&record));
        self.put_record(&record)
    }
}

/// The lane of a row: whose order it stands in. One that cannot be read, damaged or of a newer version, is none: it
/// is done all the same, in its turn, by whoever keeps house.
fn lane((row, value): &Row) -> Option<Lane> {
    match tables::due_parts(row).ok()? {
        (_, Due::Deliver, _) => lanes::decode(value).unwrap_or_default(),
        (_, Due::Expire | Due::GiveUp, id) => Some(Lane::of_id(&id)),
    }
}
