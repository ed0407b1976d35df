//! Cohorts: what was accepted at about the same time grows old together, and one row says so for many
//! notifications. Where a notification lives as long as it is kept, as it does by default, that row also stands
//! for the due time at which it expires.
//!
//! A cohort whose time has come is *broken up*: each of its notifications gets the rows that it would have had
//! without one, and everything goes on from there.
//!
//! Invariant: a notification that is kept stands in one cohort or has a row of its own in `ages`, by its
//! `kept_from`. If it expires and is in a cohort without a time to live, it has a row of its own in `due`.

use super::{Apply, Due, Stage};
use crate::embedded::codec::{Reader, Record, Writer, key};
use crate::embedded::store::{Row, Table, View};
use crate::embedded::{StoreFault, tables};
use postrider_model::{Millis, NotificationId, Timestamp};
use std::collections::BTreeMap;

/// The time to live of what does not expire, or not when it stops being kept.
const OTHER: Millis = Millis(u64::MAX);
/// How much later than it was made a notification may be accepted and still count from then.
const MAX_LATE: u64 = 60_000;
/// Notifications in one row.
const MAX_COHORT: usize = 256;
/// Cohorts that one transaction breaks up.
const MAX_BROKEN: usize = 8;

/// By time to live, and time: what no row stands for yet.
pub(super) type Young = BTreeMap<(u64, u64), Vec<NotificationId>>;

impl Apply<'_> {
    /// A notification was accepted: sees to it that it grows old, and expires in its time.
    pub(super) fn begin_to_age(&mut self, record: &mut Record) {
        let notification = record.notification.clone();
        let (id, end) = (&notification.id, notification.expires_at);
        if record.scheduled {
            let row = key::age(Stage::Kept as u8, record.kept_from, id.as_str().as_bytes());
            self.txn.put(Table::Ages, row, Writer::new().done());
            end.inspect(|end| self.put_due(*end, Due::Expire, id));
            return;
        }
        let (made, age) = (notification.time, self.rules.age);
        let recent = made <= self.now && self.now.0 - made.0 <= MAX_LATE;
        let span = if recent && end == Some(made.plus(age)) {
            record.kept_from = made;
            age
        } else {
            end.inspect(|end| self.put_due(*end, Due::Expire, id));
            OTHER
        };
        let cohort = self.young.entry((span.0, record.kept_from.0)).or_default();
        cohort.push(id.clone());
    }

    /// Writes the rows of what was accepted in this transaction.
    pub fn note_young(&mut self) {
        for ((span, at), ids) in std::mem::take(&mut self.young) {
            let (span, at) = (Millis(span), Timestamp(at));
            for ids in ids.chunks(MAX_COHORT) {
                self.counts.cohorts = self.counts.cohorts.wrapping_add(1);
                let row = key::cohort(Stage::Cohort as u8, span, at, self.counts.cohorts);
                self.txn.put(Table::Ages, row, encode(ids));
            }
            self.calm_until = self.calm_until.min(end_of(span, at));
        }
    }

    /// Breaks up cohorts that have come to the end of their life. True if there may be more.
    pub fn break_up_due(&mut self) -> Result<bool, StoreFault> {
        let now = self.now;
        passed_over(self.break_up(MAX_BROKEN, |span, at| end_of(span, at) <= now))
    }

    /// Breaks up cohorts that are not kept any more. True if there may be more.
    pub(super) fn break_up_old(&mut self, age: Millis) -> Result<bool, StoreFault> {
        let now = self.now;
        passed_over(self.break_up(MAX_BROKEN, |_, at| at.plus(age) <= now))
    }

    /// Breaks up the oldest cohorts, until so many notifications have rows of their own that are older than
    /// any cohort.
    pub(super) fn break_up_oldest(&mut self, enough: usize) -> Result<(), StoreFault> {
        passed_over(self.break_up_first(enough))
    }

    fn break_up_first(&mut self, enough: usize) -> Result<(), StoreFault> {
        for _ in 0..enough {
            let firsts = self.first_cohorts()?;
            let Some((at, row)) = firsts
                .into_iter()
                .map(|(_, at, row)| (at, row))
                .min_by_key(|(at, _)| *at)
            else {
                return Ok(());
            };
            let before = key::age(Stage::Kept as u8, at, &[]);
            let older = self
                .txn
                .scan(Table::Ages, &[Stage::Kept as u8], &before, enough)?;
            if older.len() == enough {
                return Ok(());
            }
            self.break_up_row(&row)?;
        }
        Ok(())
    }

    fn break_up(
        &mut self,
        most: usize,
        is_ripe: impl Fn(Millis, Timestamp) -> bool,
    ) -> Result<bool, StoreFault> {
        self.note_young();
        for _ in 0..most {
            let firsts = self.first_cohorts()?;
            let Some((.., row)) = firsts.into_iter().find(|(span, at, _)| is_ripe(*span, *at)) else {
                return Ok(false);
            };
            self.break_up_row(&row)?;
        }
        Ok(true)
    }

    fn break_up_row(&mut self, (row, value): &Row) -> Result<(), StoreFault> {
        let (span, at) = parts(row)?;
        for id in decode(value)? {
            if span != OTHER {
                self.put_due(end_of(span, at), Due::Expire, &id);
            }
            let own = key::age(Stage::Kept as u8, at, id.as_str().as_bytes());
            self.txn.put(Table::Ages, own, Writer::new().done());
        }
        self.txn.remove(Table::Ages, row.clone());
        Ok(())
    }

    /// It has rows of its own from now on, or is forgotten.
    pub(super) fn leave_cohort(&mut self, record: &Record) -> Result<(), StoreFault> {
        passed_over(self.leave(record))
    }

    fn leave(&mut self, record: &Record) -> Result<(), StoreFault> {
        self.note_young();
        let id = &record.notification.id;
        for span in self.spans_of_cohorts()? {
            let from = key::cohort(Stage::Cohort as u8, span, record.kept_from, 0);
            let to = key::cohort(Stage::Cohort as u8, span, record.kept_from, u64::MAX);
            for (row, value) in self.txn.scan(Table::Ages, &from, &to, tables::ALL_ROWS)? {
                let mut ids = decode(&value)?;
                let Some(at) = ids.iter().position(|other| other == id) else {
                    continue;
                };
                ids.remove(at);
                match ids.is_empty() {
                    true => self.txn.remove(Table::Ages, row),
                    false => self.txn.put(Table::Ages, row, encode(&ids)),
                }
                return Ok(());
            }
        }
        Ok(())
    }

    /// When the next cohort comes to the end of its life.
    pub(super) fn next_cohort_end(&self) -> Result<Option<Timestamp>, StoreFault> {
        let firsts = passed_over(self.first_cohorts())?;
        Ok(firsts.into_iter().map(|(span, at, _)| end_of(span, at)).min())
    }

    /// The oldest cohort of each time to live. There are as many of those as `retention.age` had values within
    /// its own length.
    fn first_cohorts(&self) -> Result<Vec<(Millis, Timestamp, Row)>, StoreFault> {
        let mut firsts = Vec::new();
        let mut from = vec![Stage::Cohort as u8];
        let end = [Stage::Cohort as u8 + 1];
        while let Some(row) = self.txn.scan(Table::Ages, &from, &end, 1)?.pop() {
            let (span, at) = parts(&row.0)?;
            from = key::after(&row.0[..9]);
            firsts.push((span, at, row));
        }
        Ok(firsts)
    }

    fn spans_of_cohorts(&self) -> Result<Vec<Millis>, StoreFault> {
        let firsts = self.first_cohorts()?;
        Ok(firsts.into_iter().map(|(span, ..)| span).collect())
    }
}

/// A damaged cohort holds up nobody else: what is due by rows of its own is done, and what stands in cohorts that
/// cannot be got at grows no older until that row is gone.
fn passed_over<T: Default>(outcome: Result<T, StoreFault>) -> Result<T, StoreFault> {
    match outcome {
        Err(fault @ StoreFault::Corrupt { .. }) => {
            tracing::error!(%fault, "what says when notifications grow old cannot be read; they stay");
            Ok(T::default())
        }
        outcome => outcome,
    }
}

fn end_of(span: Millis, at: Timestamp) -> Timestamp {
    Timestamp(at.0.saturating_add(span.0))
}

fn parts(row: &[u8]) -> Result<(Millis, Timestamp), StoreFault> {
    key::cohort_parts(row).ok_or(StoreFault::Corrupt {
        table: "ages",
        detail: "a cohort has no time",
    })
}

fn encode(ids: &[NotificationId]) -> Vec<u8> {
    Writer::new().list(ids, |out, id| out.text(id.as_str())).done()
}

fn decode(value: &[u8]) -> Result<Vec<NotificationId>, StoreFault> {
    Reader::new("ages", value)?.list(|r| r.id(NotificationId::new))
}
