//! Keeping within bounds: what is too old, or too much, is forgotten, a little in each transaction.
//!
//! A notification is *kept* until its age is over: then its entries leave the feeds, what was pending is
//! expired, and its body goes. Of what is left, the *record*, one can still tell what became of it, until
//! that is too old as well.
//!
//! Invariant: nothing that is pending vanishes: it becomes expired (age, total bytes) or dead (a full feed)
//! before its entry is removed.

use super::{Apply, Stage};
use crate::embedded::codec::{Record, Writer, key};
use crate::embedded::store::{Row, Table, View};
use crate::embedded::{StoreFault, tables};
use postrider_model::{
    DeadLetterId, Devices, FeedId, MarkKind, Millis, Notification, NotificationId, Timestamp, UserId,
};

/// Rows of `ages` looked at in one transaction.
const MAX_ROWS: usize = 64;
/// Recipients touched in one transaction: others wait meanwhile.
const MAX_RECIPIENTS: usize = 512;
/// Entries that one look takes off one feed.
const MAX_TRIMMED: usize = 1024;
/// What a kept notification, and each of its recipients, counts beside its body. Bytes.
const NOTIFICATION_COST: u64 = 256;
const RECIPIENT_COST: u64 = 256;
/// What an entry counts towards its feed beside its body. Bytes.
const ENTRY_COST: u64 = 64;
/// What a notification counts once only the record is left.
const RECORD_COST: u64 = 160;
const RECORD_RECIPIENT_COST: u64 = 128;

/// What is counted over all rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::embedded) struct Counts {
    /// Bytes that notifications hold, by [`cost`].
    pub held: u64,
    /// Dead letters.
    pub letters: u64,
    /// The newest dead letter's id.
    pub last_letter: u64,
}

impl Counts {
    pub fn read(view: &dyn View) -> Result<Counts, StoreFault> {
        let Some(value) = view.get(Table::Meta, COUNTS)? else {
            return Ok(Counts::default());
        };
        let mut r = crate::embedded::codec::Reader::new("meta", &value)?;
        Ok(Counts {
            held: r.u64()?,
            letters: r.u64()?,
            last_letter: r.u64()?,
        })
    }

    pub fn row(&self) -> Row {
        let value = Writer::new()
            .u64(self.held)
            .u64(self.letters)
            .u64(self.last_letter);
        (COUNTS.to_vec(), value.done())
    }

    /// Ids rise even where the clock goes back.
    pub(super) fn next_letter(&mut self, now: Timestamp) -> DeadLetterId {
        self.last_letter = (self.last_letter + 1).max(now.0 << 20);
        self.letters += 1;
        DeadLetterId(self.last_letter)
    }
}

const COUNTS: &[u8] = b"counts";

/// What a notification counts towards the bytes that are held.
pub(in crate::embedded) fn cost(record: &Record) -> u64 {
    let users = record.recipients.unwrap_or(1);
    if record.bodiless {
        return RECORD_COST + users * RECORD_RECIPIENT_COST;
    }
    let notification = &record.notification;
    let subject = notification.subject.as_deref().unwrap_or_default();
    (notification.data.len() + subject.len()) as u64 + NOTIFICATION_COST + users * RECIPIENT_COST
}

impl Apply<'_> {
    /// Forgets some of what is too old or too much. True if there may be more.
    pub fn sweep(&mut self) -> Result<bool, StoreFault> {
        let rules = self.rules;
        let full = rules.total_bytes > 0 && self.counts.held > rules.total_bytes;
        let mut more = self.sweep_stage(Stage::Kept, rules.age, full)?;
        let full = full && !more && self.counts.held > rules.total_bytes;
        more |= self.sweep_stage(Stage::Record, rules.record_age(), full)?;
        more |= self.sweep_stage(Stage::Request, rules.dedupe, false)?;
        more |= self.sweep_stage(Stage::Marks, rules.age, false)?;
        more |= self.clean()?;
        Ok(more)
    }

    /// `full`: also what is not too old, oldest first, until no more than allowed is held.
    fn sweep_stage(&mut self, stage: Stage, age: Millis, full: bool) -> Result<bool, StoreFault> {
        let old = Timestamp(self.now.0.saturating_sub(age.0));
        let until = if full { self.now } else { old };
        let end = key::age(stage as u8, Timestamp(until.0.saturating_add(1)), &[]);
        let rows = self.txn.scan(Table::Ages, &[stage as u8], &end, MAX_ROWS)?;
        let mut room = MAX_RECIPIENTS;
        for (row, value) in &rows {
            let damaged = StoreFault::Corrupt {
                table: "ages",
                detail: "the key has no time",
            };
            let (at, what) = key::age_parts(row).ok_or(damaged)?;
            if at > old && self.counts.held <= self.rules.total_bytes {
                return Ok(false);
            }
            let done = match stage {
                Stage::Kept => self.stop_keeping(row, what, at, value, &mut room)?,
                Stage::Record => match tables::record(&self.txn, &age_id(what)?)? {
                    Some(record) => self.forget(&record, &mut room)?,
                    None => true,
                },
                Stage::Request => {
                    self.txn.remove(Table::Requests, what.to_vec());
                    true
                }
                Stage::Marks => self.trim_marks(what, value)?,
            };
            if !done {
                return Ok(true);
            }
            self.txn.remove(Table::Ages, row.clone());
            if room == 0 {
                return Ok(true);
            }
        }
        Ok(rows.len() == MAX_ROWS)
    }

    /// Takes a notification off its feeds, as far as there is room. The row in `ages` says with whom to go on.
    fn stop_keeping(
        &mut self,
        row: &[u8],
        id: &[u8],
        at: Timestamp,
        next: &[u8],
        room: &mut usize,
    ) -> Result<bool, StoreFault> {
        let id = age_id(id)?;
        let Some(mut record) = tables::record(&self.txn, &id)? else {
            return Ok(true);
        };
        for (feed, position) in record.placements.clone() {
            if self.trim(&feed, position.offset + 1, MAX_TRIMMED)? {
                return Ok(false);
            }
        }
        let prefix = key::recipients(&id);
        let from = tables::age_next(next)?.unwrap_or(prefix.clone());
        let rows = self
            .txn
            .scan(Table::Recipients, &from, &key::after(&prefix), *room)?;
        for recipient in &rows {
            let (user, position) = tables::recipient_of_row(prefix.len(), recipient)?;
            if self.trim(&FeedId::User(user), position.offset + 1, MAX_TRIMMED)? {
                let next = Writer::new().bytes(&recipient.0).done();
                self.txn.put(Table::Ages, row.to_vec(), next);
                return Ok(false);
            }
        }
        let full = rows.len() == *room;
        *room -= rows.len();
        if let Some((last, _)) = rows.last().filter(|_| full) {
            let next = Writer::new().bytes(&[last.as_slice(), &[0]].concat()).done();
            self.txn.put(Table::Ages, row.to_vec(), next);
            return Ok(false);
        }
        let row = key::age(Stage::Record as u8, at, id.as_str().as_bytes());
        self.txn.put(Table::Ages, row, Writer::new().done());
        if !self.has_letters(&id)? {
            self.drop_body(&mut record);
        }
        Ok(true)
    }

    fn drop_body(&mut self, record: &mut Record) {
        let before = cost(record);
        record.notification.data = bytes::Bytes::new();
        record.notification.subject = None;
        record.bodiless = true;
        self.counts.held = (self.counts.held + cost(record)).saturating_sub(before);
        self.put_record(record);
    }

    /// Drops the body that was kept for dead letters only.
    pub(super) fn drop_unneeded_body(&mut self, id: &NotificationId) -> Result<(), StoreFault> {
        let Some(mut record) = tables::record(&self.txn, id)?.filter(|record| !record.bodiless) else {
            return Ok(());
        };
        let row = key::age(Stage::Kept as u8, record.kept_from, id.as_str().as_bytes());
        if self.txn.get(Table::Ages, &row)?.is_none() && !self.has_letters(id)? {
            self.drop_body(&mut record);
        }
        Ok(())
    }

    /// The notification's age counts anew.
    pub(super) fn keep_from_now(&mut self, record: &mut Record) -> Result<(), StoreFault> {
        let id = record.notification.id.as_str().as_bytes();
        for stage in [Stage::Kept, Stage::Record] {
            self.txn
                .remove(Table::Ages, key::age(stage as u8, record.kept_from, id));
        }
        record.kept_from = self.now;
        let row = key::age(Stage::Kept as u8, self.now, id);
        self.txn.put(Table::Ages, row, Writer::new().done());
        self.put_record(record);
        Ok(())
    }

    /// Forgets a notification before its time.
    pub(super) fn forget_for_good(&mut self, record: &Record) -> Result<(), StoreFault> {
        let id = record.notification.id.as_str().as_bytes();
        for stage in [Stage::Kept, Stage::Record] {
            self.txn
                .remove(Table::Ages, key::age(stage as u8, record.kept_from, id));
        }
        let mut room = usize::MAX;
        self.forget(record, &mut room)?;
        Ok(())
    }

    /// Removes all that is known of a notification, as far as there is room. True when nothing is left.
    pub(super) fn forget(&mut self, record: &Record, room: &mut usize) -> Result<bool, StoreFault> {
        let id = &record.notification.id;
        let prefix = key::recipients(id);
        let end = key::after(&prefix);
        let letters = self.txn.scan(Table::LetterFor, &prefix, &end, *room)?;
        *room -= letters.len();
        for (_, value) in letters {
            self.discard(DeadLetterId(tables::one_u64("letter_for", &value)?))?;
        }
        let recipients = self.txn.scan(Table::Recipients, &prefix, &end, *room)?;
        *room -= recipients.len();
        for recipient in recipients {
            let (user, position) = tables::recipient_of_row(prefix.len(), &recipient)?;
            self.forget_place(&user, FeedId::User(user.clone()), position.offset)?;
            self.txn.remove(Table::Recipients, recipient.0);
        }
        if *room == 0 {
            return Ok(false);
        }
        for (feed, position) in &record.placements {
            let row = key::entry(feed, position.offset);
            self.txn.remove(Table::Dropped, row.clone());
            self.txn.remove(Table::Firsts, row);
            if *feed == FeedId::All {
                self.clean_up_to(position.offset)?;
            }
        }
        if let Some(at) = record.notification.expires_at {
            self.txn
                .remove(Table::Due, key::due(at, super::Due::Expire as u8, id));
        }
        if let Some(at) = record.notification.deliver_at.filter(|_| record.scheduled) {
            self.txn
                .remove(Table::Due, key::due(at, super::Due::Deliver as u8, id));
        }
        // It may have been dropped with the last letter just now.
        let held = tables::record(&self.txn, id)?.map_or(0, |record| cost(&record));
        self.counts.held = self.counts.held.saturating_sub(held);
        self.txn
            .remove(Table::Notifications, id.as_str().as_bytes().to_vec());
        Ok(true)
    }

    /// Removes what is recorded for a user about one place of a feed, and about those it was redriven from.
    pub(super) fn forget_place(
        &mut self,
        user: &UserId,
        mut feed: FeedId,
        mut offset: u64,
    ) -> Result<(), StoreFault> {
        while offset > 0 {
            let standing = tables::standing(&self.txn, user, &feed, offset, offset)?;
            for mark in &standing.marks {
                self.txn
                    .remove(Table::Marks, key::mark(user, &feed, offset, mark.kind as u8));
            }
            let row = key::range(user, &feed, offset);
            for table in [Table::Attempts, Table::Opens] {
                self.txn.remove(table, row.clone());
            }
            let prefix = key::user_feed(user, &feed);
            let to = key::range(user, &feed, offset.saturating_add(1));
            for (range, _) in self.txn.scan(Table::Ranges, &prefix, &to, MAX_TRIMMED)? {
                self.txn.remove(Table::Ranges, range);
            }
            if !feed.is_wide() {
                self.txn.remove(Table::Past, key::entry(&feed, offset));
            }
            let redriven = standing.marks.iter().find(|mark| mark.kind == MarkKind::Redriven);
            match redriven.and_then(|mark| tables::place_before(&mark.why)) {
                Some((before, at)) => (feed, offset) = (before, at),
                None => return Ok(()),
            }
        }
        Ok(())
    }

    fn trim_marks(&mut self, feed: &[u8], value: &[u8]) -> Result<bool, StoreFault> {
        let Some((feed, _)) = FeedId::read_key(feed) else {
            return Ok(true);
        };
        let offset = tables::one_u64("ages", value)?;
        Ok(!self.trim(&feed, offset + 1, MAX_TRIMMED)?)
    }

    /// Notes that a mark was appended, so that it goes when it is too old though nothing else comes.
    pub(super) fn age_mark(&mut self, feed: &FeedId, offset: u64) {
        const LEAST: u64 = 1000;
        const MOST: u64 = 3_600_000;
        let step = (self.rules.age.0 / 32).clamp(LEAST, MOST);
        let end = Timestamp((self.now.0 / step + 1) * step);
        let row = key::age(Stage::Marks as u8, end, &key::feed(feed));
        self.txn.put(Table::Ages, row, Writer::new().u64(offset).done());
    }

    /// Notes that an entry is for the first device that takes it.
    pub(super) fn note_first(&mut self, feed: &FeedId, offset: u64, notification: &Notification) {
        if notification.devices == Devices::First {
            self.txn
                .put(Table::Firsts, key::entry(feed, offset), Writer::new().done());
        }
    }

    /// Keeps a feed within its bounds after an append.
    pub(super) fn bound(&mut self, feed: &FeedId) -> Result<(), StoreFault> {
        /// More than one, so that a bound that was lowered is reached in the end.
        const STEPS: usize = 8;
        let most = self.rules.entries_per_feed;
        for _ in 0..STEPS {
            let span = *self.span(feed)?;
            let held = (span.head.offset + 1).saturating_sub(span.first);
            let too_many = most > 0 && held > most;
            if held > 1 && (too_many || self.too_large(feed)?) {
                self.overflow(feed, span.first)?;
            } else {
                return Ok(());
            }
        }
        Ok(())
    }

    fn too_large(&mut self, feed: &FeedId) -> Result<bool, StoreFault> {
        let most = self.rules.bytes_per_feed;
        Ok(most > 0 && self.size(feed)?.is_some_and(|size| size > most))
    }

    /// Bytes of a feed; `None` where they were never counted.
    fn size(&self, feed: &FeedId) -> Result<Option<u64>, StoreFault> {
        let value = self.txn.get(Table::Sizes, &key::feed(feed))?;
        value.map(|value| tables::one_u64("sizes", &value)).transpose()
    }

    fn entry_size(&self, feed: &FeedId, offset: u64) -> Result<u64, StoreFault> {
        let Some(id) = self.notification_at(feed, offset)? else {
            return Ok(ENTRY_COST);
        };
        let record = tables::record(&self.txn, &id)?;
        Ok(ENTRY_COST + record.map_or(0, |record| record.notification.data.len() as u64))
    }

    fn put_size(&mut self, feed: &FeedId, size: u64) {
        self.txn
            .put(Table::Sizes, key::feed(feed), Writer::new().u64(size).done());
    }

    /// An entry came (`added`), or is about to go.
    pub(super) fn resize(
        &mut self,
        feed: &FeedId,
        offset: u64,
        bytes: u64,
        added: bool,
    ) -> Result<(), StoreFault> {
        if self.rules.bytes_per_feed == 0 {
            return Ok(());
        }
        let size = match (self.size(feed)?, added) {
            (Some(size), true) => size + bytes + ENTRY_COST,
            (Some(size), false) => size.saturating_sub(self.entry_size(feed, offset)?),
            (None, false) => return Ok(()),
            (None, true) => {
                // Counted once: the bound was not set when the feed began.
                let first = self.span(feed)?.first;
                let before = (first..offset).map(|at| self.entry_size(feed, at));
                before.sum::<Result<u64, _>>()? + bytes + ENTRY_COST
            }
        };
        self.put_size(feed, size);
        Ok(())
    }
}

fn age_id(what: &[u8]) -> Result<NotificationId, StoreFault> {
    let id = std::str::from_utf8(what).ok();
    id.and_then(|text| NotificationId::new(text).ok())
        .ok_or(StoreFault::Corrupt {
            table: "ages",
            detail: "the key has no id",
        })
}
