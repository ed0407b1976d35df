//! Keeping within bounds: what is too old, or too much, is forgotten, a little in each transaction.
//!
//! A notification is *kept* until its age is over: then its entries leave the feeds, what was pending is
//! expired, and its body goes. Of what is left, the *record*, one can still tell what became of it, until
//! that is too old as well.
//!
//! Invariant: nothing that is pending vanishes: it becomes expired (age, total bytes) or dead (a full feed)
//! before its entry is removed.

use super::cleaning;
use super::{Apply, Stage};
use crate::embedded::codec::{Record, Writer, key};
use crate::embedded::store::{Row, Table, Tally, View, Wanted};
use crate::embedded::{StoreFault, tables, wants};
use postrider_model::{
    DeadLetterId, Devices, FeedId, MarkKind, Millis, Notification, NotificationId, Timestamp, UserId,
};
use std::sync::Arc;

/// Rows of `ages` looked at in one transaction.
const MAX_ROWS: usize = 64;
/// Recipients of each of them for whom all is read before.
const FORESEEN: usize = 8;
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

/// How much more than allowed may be held while the oldest is being forgotten: this part of it.
const SLACK: u64 = 8;

/// What is counted over all rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::embedded) struct Counts {
    /// Bytes that notifications hold, by [`cost`].
    pub held: u64,
    /// Those of them that only tell what became of something, and those that wait for their time.
    pub records: u64,
    pub scheduled: u64,
    /// Dead letters.
    pub letters: u64,
    /// The newest dead letter's id.
    pub last_letter: u64,
    /// Cohorts that there ever were.
    pub cohorts: u64,
    /// By how much the counts changed since they were read.
    pub moved: Tally,
}

impl Counts {
    pub fn read(view: &dyn View) -> Result<Counts, StoreFault> {
        if let Some(tally) = view.tally()? {
            return Ok(Counts::of_tally(&tally));
        }
        let Some(value) = view.get(Table::Meta, COUNTS)? else {
            return Ok(Counts::default());
        };
        let mut r = crate::embedded::codec::Reader::new("meta", &value)?;
        Ok(Counts {
            held: r.u64()?,
            records: r.u64()?,
            scheduled: r.u64()?,
            letters: r.u64()?,
            last_letter: r.u64()?,
            cohorts: if r.is_done() { 0 } else { r.u64()? },
            moved: Tally::default(),
        })
    }

    /// As a store counts them that several nodes write. What two nodes did at once may be counted in any order, so that
    /// a count can be below nothing for a moment.
    pub fn of_tally(tally: &Tally) -> Counts {
        let at_least = |count: i64| u64::try_from(count).unwrap_or(0);
        Counts {
            held: at_least(tally.held),
            records: at_least(tally.records),
            scheduled: at_least(tally.scheduled),
            letters: at_least(tally.letters),
            ..Counts::default()
        }
    }

    pub fn row(&self) -> Row {
        let value = Writer::new()
            .u64(self.held)
            .u64(self.records)
            .u64(self.scheduled)
            .u64(self.letters)
            .u64(self.last_letter)
            .u64(self.cohorts);
        (COUNTS.to_vec(), value.done())
    }

    /// A notification's record was made, changed or removed.
    pub fn changed(&mut self, before: Option<&Record>, after: Option<&Record>) {
        for (record, added) in [(after, true), (before, false)] {
            let Some(record) = record else { continue };
            let bytes = cost(record);
            let scheduled = if record.scheduled { bytes } else { 0 };
            let records = if record.bodiless { bytes } else { 0 };
            let moved = &mut self.moved;
            let counts = [
                (&mut self.held, &mut moved.held, bytes),
                (&mut self.records, &mut moved.records, records),
                (&mut self.scheduled, &mut moved.scheduled, scheduled),
            ];
            for (count, moved, bytes) in counts {
                (*count, *moved) = match added {
                    true => (*count + bytes, *moved + bytes.cast_signed()),
                    false => (count.saturating_sub(bytes), *moved - bytes.cast_signed()),
                };
            }
        }
    }

    /// Bytes of what can be delivered now. Only this gives way to what is new.
    fn deliverable(&self) -> u64 {
        self.held
            .saturating_sub(self.records)
            .saturating_sub(self.scheduled)
    }

    /// Whether the oldest should give way: not where the rest alone fills half of what is allowed.
    fn gives_way(&self, most: u64) -> bool {
        most > 0 && self.held > most && self.deliverable() > most / 2
    }

    /// Whether nothing more may be accepted: nothing gives way, or not fast enough.
    pub(super) fn is_full(&self, most: u64) -> bool {
        let late = most.saturating_add(most / SLACK);
        self.held > late || (self.held > most && !self.gives_way(most))
    }

    /// Ids rise even where the clock goes back.
    pub(super) fn next_letter(&mut self, now: Timestamp) -> DeadLetterId {
        self.last_letter = (self.last_letter + 1).max(now.0 << 20);
        self.letters += 1;
        self.moved.letters += 1;
        DeadLetterId(self.last_letter)
    }

    /// A dead letter is gone.
    pub(super) fn lost_letter(&mut self) {
        self.letters = self.letters.saturating_sub(1);
        self.moved.letters -= 1;
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

/// Behind what came to a stage by then.
fn end_of_stage(stage: Stage, until: Timestamp) -> Vec<u8> {
    key::age(stage as u8, Timestamp(until.0.saturating_add(1)), &[])
}

impl Apply<'_> {
    /// Forgets some of what is too old or too much. True if there may be more.
    pub fn sweep(&mut self) -> Result<bool, StoreFault> {
        let rules = self.rules;
        let most = rules.total_bytes;
        self.foresee_sweep()?;
        let mut more = self.break_up_old(rules.age)?;
        more |= self.sweep_stage(Stage::Kept, rules.age, |_| false)?;
        more |= self.sweep_stage(Stage::Record, rules.record_age(), |_| false)?;
        // Where there is too much, first what only tells of the past; never what still guards its id.
        let full = |counts: &Counts| most > 0 && counts.held > most;
        let guarded = rules.age.max(rules.dedupe);
        if full(&self.counts) && guarded < rules.record_age() {
            let before = self.counts.held;
            self.sweep_until(Stage::Record, guarded, |counts| !full(counts))?;
            more |= self.counts.held < before;
        }
        if self.counts.gives_way(most) {
            self.break_up_oldest(MAX_ROWS)?;
            more |= self.sweep_stage(Stage::Kept, rules.age, |counts| counts.gives_way(most))?;
        }
        more |= self.sweep_stage(Stage::Request, rules.dedupe, |_| false)?;
        more |= self.sweep_stage(Stage::Marks, rules.age, |_| false)?;
        more |= self.clean()?;
        Ok(more)
    }

    /// What a sweep begins with, most often all that it reads: there is mostly nothing to forget.
    fn foresee_sweep(&self) -> Result<(), StoreFault> {
        if !self.is_shared {
            return Ok(());
        }
        let rules = self.rules;
        let mut wanted = wants::of_cohorts(rules.age);
        for (stage, age) in [
            (Stage::Kept, rules.age),
            (Stage::Record, rules.record_age()),
            (Stage::Request, rules.dedupe),
            (Stage::Marks, rules.age),
        ] {
            let end = end_of_stage(stage, Timestamp(self.now.0.saturating_sub(age.0)));
            wanted.push(Wanted::Scan(Table::Ages, vec![stage as u8], end, MAX_ROWS));
        }
        wanted.extend(cleaning::wanted());
        self.txn.prefetch(&wanted)
    }

    /// What is older than `age`; and while `also` says so what is younger, oldest first.
    fn sweep_stage(
        &mut self,
        stage: Stage,
        age: Millis,
        also: impl Fn(&Counts) -> bool,
    ) -> Result<bool, StoreFault> {
        let old = Timestamp(self.now.0.saturating_sub(age.0));
        let until = if also(&self.counts) { self.now } else { old };
        self.sweep_rows(stage, until, |at, counts| at > old && !also(counts))
    }

    /// What is older than `age`, oldest first, until `enough` says so.
    fn sweep_until(
        &mut self,
        stage: Stage,
        age: Millis,
        enough: impl Fn(&Counts) -> bool,
    ) -> Result<bool, StoreFault> {
        let old = Timestamp(self.now.0.saturating_sub(age.0));
        self.sweep_rows(stage, old, |_, counts| enough(counts))
    }

    fn sweep_rows(
        &mut self,
        stage: Stage,
        until: Timestamp,
        enough: impl Fn(Timestamp, &Counts) -> bool,
    ) -> Result<bool, StoreFault> {
        let end = end_of_stage(stage, until);
        let rows = self.txn.scan(Table::Ages, &[stage as u8], &end, MAX_ROWS)?;
        let mut room = MAX_RECIPIENTS;
        self.foresee_aging(stage, &rows)?;
        for (row, value) in &rows {
            let damaged = StoreFault::Corrupt {
                table: "ages",
                detail: "the key has no time",
            };
            let (at, what) = key::age_parts(row).ok_or(damaged)?;
            if enough(at, &self.counts) {
                return Ok(false);
            }
            let done = match self.grow_old(stage, row, value, (at, what), &mut room) {
                Err(fault @ StoreFault::Corrupt { .. }) if matches!(stage, Stage::Kept | Stage::Record) => {
                    let id = age_id(what)?;
                    tracing::error!(%id, %fault, "a notification is lost: it cannot grow old");
                    self.lose(&id)?;
                    true
                }
                done => done?,
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

    /// What comes of a notification that is old, for the first recipients of each.
    fn foresee_aging(&mut self, stage: Stage, rows: &[Row]) -> Result<(), StoreFault> {
        if !self.is_shared || !matches!(stage, Stage::Kept | Stage::Record) {
            return Ok(());
        }
        let ids = rows.iter().filter_map(|(row, _)| key::age_parts(row));
        // What cannot be read is met by the walk itself.
        let ids: Vec<_> = ids.filter_map(|(_, what)| age_id(what).ok()).collect();
        let places = self.foresee_places_of(&ids, FORESEEN)?;
        match stage {
            Stage::Kept => self.foresee_trims(&places),
            _ => self.foresee_stories(&places, MAX_TRIMMED),
        }
    }

    fn grow_old(
        &mut self,
        stage: Stage,
        row: &[u8],
        value: &[u8],
        (at, what): (Timestamp, &[u8]),
        room: &mut usize,
    ) -> Result<bool, StoreFault> {
        match stage {
            Stage::Kept => self.stop_keeping(row, what, at, value, room),
            Stage::Record => match tables::record(&self.txn, &age_id(what)?)? {
                Some(record) => self.forget(&record, room),
                None => Ok(true),
            },
            Stage::Request => {
                self.txn.remove(Table::Requests, what.to_vec());
                Ok(true)
            }
            // Those are broken up before.
            Stage::Cohort => Ok(true),
            Stage::Marks => self.trim_marks(what, value),
        }
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
        self.leave_home(&mut record)?;
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
        let places = places_of(prefix.len(), &rows);
        self.foresee_trims(&places)?;
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
            self.drop_body(&mut record)?;
        }
        Ok(true)
    }

    fn drop_body(&mut self, record: &mut Record) -> Result<(), StoreFault> {
        let before = record.clone();
        let notification = Arc::make_mut(&mut record.notification);
        notification.data = bytes::Bytes::new();
        notification.subject = None;
        record.bodiless = true;
        self.counts.changed(Some(&before), Some(record));
        self.put_record(record)
    }

    /// Drops the body that was kept for dead letters only.
    pub(super) fn drop_unneeded_body(&mut self, id: &NotificationId) -> Result<(), StoreFault> {
        let Some(mut record) = tables::record(&self.txn, id)?.filter(|record| !record.bodiless) else {
            return Ok(());
        };
        // It is not kept any more once only its record is to grow old.
        let row = key::age(Stage::Record as u8, record.kept_from, id.as_str().as_bytes());
        if self.txn.get(Table::Ages, &row)?.is_some() && !self.has_letters(id)? {
            self.drop_body(&mut record)?;
        }
        Ok(())
    }

    /// The notification's age counts anew.
    pub(super) fn keep_from_now(&mut self, record: &mut Record) -> Result<(), StoreFault> {
        self.stop_aging(record)?;
        if let Some(at) = record.notification.expires_at {
            self.put_due(at, super::Due::Expire, &record.notification.id);
        }
        record.kept_from = self.now;
        let id = record.notification.id.as_str().as_bytes();
        let row = key::age(Stage::Kept as u8, self.now, id);
        self.txn.put(Table::Ages, row, Writer::new().done());
        self.put_record(record)
    }

    /// Forgets a notification before its time.
    pub(super) fn forget_for_good(&mut self, record: &Record) -> Result<(), StoreFault> {
        self.stop_aging(record)?;
        let mut room = usize::MAX;
        self.forget(record, &mut room)?;
        Ok(())
    }

    /// Takes it out of what says when it grows old.
    fn stop_aging(&mut self, record: &Record) -> Result<(), StoreFault> {
        let id = record.notification.id.as_str().as_bytes();
        for stage in [Stage::Kept, Stage::Record] {
            self.txn
                .remove(Table::Ages, key::age(stage as u8, record.kept_from, id));
        }
        self.leave_cohort(record)
    }

    /// Removes all that is known of a notification, as far as there is room. True when nothing is left.
    pub(super) fn forget(&mut self, record: &Record, room: &mut usize) -> Result<bool, StoreFault> {
        let mut record = record.clone();
        self.leave_home(&mut record)?;
        let (record, id) = (&record, &record.notification.id);
        let prefix = key::recipients(id);
        let end = key::after(&prefix);
        let letters = self.txn.scan(Table::LetterFor, &prefix, &end, *room)?;
        *room -= letters.len();
        let which = letters.iter();
        let which = which.filter_map(|(_, value)| tables::one_u64("letter_for", value).ok());
        self.foresee_letters(&which.map(DeadLetterId).collect::<Vec<_>>())?;
        for (row, value) in letters {
            let letter = DeadLetterId(tables::one_u64("letter_for", &value)?);
            match tables::letter(&self.txn, letter.0)? {
                Some(record) => self.remove_letter(letter, &record),
                None => self.txn.remove(Table::LetterFor, row),
            }
        }
        let recipients = self.txn.scan(Table::Recipients, &prefix, &end, *room)?;
        *room -= recipients.len();
        self.foresee_stories(&places_of(prefix.len(), &recipients), MAX_TRIMMED)?;
        for recipient in recipients {
            let (user, position) = tables::recipient_of_row(prefix.len(), &recipient)?;
            let own = FeedId::User(user.clone());
            if position.offset == 0 {
                self.txn.remove(Table::Past, key::unplaced(&own, id));
            }
            self.forget_place(&user, own, position.offset)?;
            self.txn.remove(Table::Recipients, recipient.0);
        }
        if *room == 0 {
            return Ok(false);
        }
        for (feed, position) in &record.placements {
            let row = key::entry(feed, position.offset);
            self.txn.remove(Table::Dropped, row.clone());
            self.txn.remove(Table::Firsts, row);
            self.clean_up_to(feed, position.offset)?;
        }
        if let Some(at) = record.notification.expires_at {
            self.txn
                .remove(Table::Due, key::due(at, super::Due::Expire as u8, id));
        }
        if let Some(at) = record.notification.deliver_at.filter(|_| record.scheduled) {
            self.txn
                .remove(Table::Due, key::due(at, super::Due::Deliver as u8, id));
        }
        self.forget_renewed(record);
        self.counts.changed(Some(record), None);
        self.forget_head(id);
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
        let step = self.mark_step();
        let end = Timestamp((self.now.0 / step + 1) * step);
        let row = key::age(Stage::Marks as u8, end, &key::feed(feed));
        self.txn.put(Table::Ages, row, Writer::new().u64(offset).done());
    }

    /// The rows of [`Apply::age_mark`] name their feed.
    pub(super) fn erase_mark_ages(&mut self, feed: &FeedId) {
        let step = self.mark_step();
        let first = self.now.0.saturating_sub(self.rules.age.0) / step;
        for end in first..=self.now.0 / step + 1 {
            let row = key::age(Stage::Marks as u8, Timestamp(end * step), &key::feed(feed));
            self.txn.remove(Table::Ages, row);
        }
    }

    /// Marks of so many milliseconds grow old together.
    fn mark_step(&self) -> u64 {
        const LEAST: u64 = 1000;
        const MOST: u64 = 24 * 3_600_000;
        (self.rules.age.0 / 32).clamp(LEAST, MOST)
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
        /// So many entries at most make room for one.
        const STEPS: usize = 1024;
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
        let span = *self.span(feed)?;
        let size = match most {
            0 => None,
            _ => self.size(feed, span.first, span.head.offset)?,
        };
        Ok(size.is_some_and(|size| size > most))
    }

    /// Bytes of a feed whose entries are `first..=head`; `None` where they were not counted, or something came
    /// or went while they were not.
    fn size(&self, feed: &FeedId, first: u64, head: u64) -> Result<Option<u64>, StoreFault> {
        let Some(value) = self.txn.get(Table::Sizes, &key::feed(feed))? else {
            return Ok(None);
        };
        let mut r = crate::embedded::codec::Reader::new("sizes", &value)?;
        let (size, counted) = (r.u64()?, (r.u64()?, r.u64()?));
        Ok((counted == (first, head)).then_some(size))
    }

    fn entry_size(&self, feed: &FeedId, offset: u64) -> Result<u64, StoreFault> {
        let Some(id) = self.notification_at(feed, offset)? else {
            return Ok(ENTRY_COST);
        };
        let record = tables::record(&self.txn, &id)?;
        Ok(ENTRY_COST + record.map_or(0, |record| record.notification.data.len() as u64))
    }

    fn put_size(&mut self, feed: &FeedId, size: u64, first: u64, head: u64) {
        let value = Writer::new().u64(size).u64(first).u64(head).done();
        self.txn.put(Table::Sizes, key::feed(feed), value);
    }

    /// An entry was numbered `offset`.
    pub(super) fn grew(&mut self, feed: &FeedId, offset: u64, bytes: u64) -> Result<(), StoreFault> {
        if self.rules.bytes_per_feed == 0 {
            return Ok(());
        }
        let first = self.span(feed)?.first;
        let before = match self.size(feed, first, offset - 1)? {
            Some(size) => size,
            None => {
                let sizes = (first..offset).map(|at| self.entry_size(feed, at));
                sizes.sum::<Result<u64, _>>()?
            }
        };
        self.put_size(feed, before + bytes + ENTRY_COST, first, offset);
        Ok(())
    }

    /// The oldest entry, at `offset`, is about to go.
    pub(super) fn shrinks(&mut self, feed: &FeedId, offset: u64) -> Result<(), StoreFault> {
        if self.rules.bytes_per_feed == 0 {
            return Ok(());
        }
        let head = self.span(feed)?.head.offset;
        if let Some(size) = self.size(feed, offset, head)? {
            let left = size.saturating_sub(self.entry_size(feed, offset)?);
            self.put_size(feed, left, offset + 1, head);
        }
        Ok(())
    }
}

/// Where recipients stand, by their rows; what cannot be read is met by the walk itself.
fn places_of(prefix: usize, rows: &[Row]) -> Vec<(UserId, u64)> {
    let places = rows
        .iter()
        .filter_map(|row| tables::recipient_of_row(prefix, row).ok());
    places.map(|(user, position)| (user, position.offset)).collect()
}

fn age_id(what: &[u8]) -> Result<NotificationId, StoreFault> {
    let id = std::str::from_utf8(what).ok();
    id.and_then(|text| NotificationId::new(text).ok())
        .ok_or(StoreFault::Corrupt {
            table: "ages",
            detail: "the key has no id",
        })
}
