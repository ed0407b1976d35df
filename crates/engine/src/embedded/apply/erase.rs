//! Forgetting a user: all rows that name the user, and the notifications that were for nobody else.
//!
//! What stays: the head of the user's feed, and the version of the state map, under digests of the user's name, so
//! that no place and no version is ever given twice; and the user's id in the exclusions of others' notifications, for as long as those are kept.

use super::{Apply, Due};
use crate::embedded::codec::{EntryKindRecord, EntryRecord, Writer, key};
use crate::embedded::store::{Row, Table, View};
use crate::embedded::{StoreFault, tables};
use postrider_model::{DeadLetterId, FeedId, NotificationId, UserId};

/// How far the erasing of one user got.
#[derive(Debug, Clone, Default)]
pub(in crate::embedded) struct Erasing {
    /// Whether anything was known.
    pub known: bool,
    /// Where to go on among what is scheduled; `None` once that was looked through.
    due: Option<Vec<u8>>,
    due_done: bool,
}

impl Apply<'_> {
    /// Goes on with erasing, over at most about `steps` rows. True when it is done.
    pub fn erase(&mut self, user: &UserId, erasing: &mut Erasing, steps: usize) -> Result<bool, StoreFault> {
        let feed = FeedId::User(user.clone());
        let done = self.erase_letters(user, erasing, steps)?
            && self.erase_feed(user, &feed, erasing, steps)?
            && self.erase_scheduled(user, erasing, steps)?
            && self.erase_rows(user, erasing, steps)?;
        if done {
            erasing.known |= self.erase_from_directory(user)?;
            erasing.known |= self.erase_state(user)?;
            self.erase_head(user, &feed)?;
        }
        Ok(done)
    }

    fn erase_letters(
        &mut self,
        user: &UserId,
        erasing: &mut Erasing,
        steps: usize,
    ) -> Result<bool, StoreFault> {
        let prefix = key::letters_of(user);
        let rows = self.erased(Table::LettersOf, &prefix, erasing, steps)?;
        for (row, _) in &rows {
            self.discard(DeadLetterId(tables::offset(row)?))?;
        }
        Ok(rows.len() < steps)
    }

    fn erase_feed(
        &mut self,
        user: &UserId,
        feed: &FeedId,
        erasing: &mut Erasing,
        steps: usize,
    ) -> Result<bool, StoreFault> {
        // Remembered before the entries go.
        let head = self.span(feed)?.head;
        if head.offset > 0 {
            let value = Writer::new().u32(head.epoch.0).u64(head.offset).done();
            self.txn.put(Table::Erased, key::erased(feed), value);
        }
        let prefix = key::feed(feed);
        let entries = self.erased(Table::Entries, &prefix, erasing, steps)?;
        self.foresee_erasing(user, &entries)?;
        for (row, value) in &entries {
            if let EntryKindRecord::Notification { id, .. } = EntryRecord::decode(value)?.kind {
                self.erase_recipient(&id, user)?;
            }
            self.txn.remove(Table::Entries, row.clone());
        }
        let past = self.erased(Table::Past, &prefix, erasing, steps)?;
        for (row, value) in &past {
            self.erase_recipient(&tables::past_id(value)?, user)?;
            self.txn.remove(Table::Past, row.clone());
        }
        self.span(feed)?.first = head.offset + 1;
        Ok(entries.len() < steps && past.len() < steps)
    }

    /// What waits for its time stands in no feed: every such notification is asked whether it is for the user.
    fn erase_scheduled(
        &mut self,
        user: &UserId,
        erasing: &mut Erasing,
        steps: usize,
    ) -> Result<bool, StoreFault> {
        if erasing.due_done {
            return Ok(true);
        }
        let from = erasing.due.clone().unwrap_or_default();
        let rows = self.txn.scan(Table::Due, &from, &[0xff; 16], steps)?;
        for (row, _) in &rows {
            let (_, kind, id) = tables::due_parts(row)?;
            match kind {
                Due::Deliver => erasing.known |= self.erase_recipient(&id, user)?,
                Due::GiveUp if tables::due_user(row)? == *user => self.txn.remove(Table::Due, row.clone()),
                Due::GiveUp | Due::Expire => {}
            }
        }
        erasing.due = rows.last().map(|(row, _)| [row.as_slice(), &[0]].concat());
        erasing.due_done = rows.len() < steps;
        Ok(erasing.due_done)
    }

    fn erase_rows(&mut self, user: &UserId, erasing: &mut Erasing, steps: usize) -> Result<bool, StoreFault> {
        let mut prefix = user.as_str().as_bytes().to_vec();
        prefix.push(0);
        let tables = [
            Table::Marks,
            Table::Ranges,
            Table::Attempts,
            Table::Opens,
            Table::Floors,
        ];
        for table in tables {
            let rows = self.erased(table, &prefix, erasing, steps)?;
            for (row, _) in &rows {
                self.txn.remove(table, row.clone());
                if let Some((feed, _)) = row.get(prefix.len()..).and_then(FeedId::read_key) {
                    self.txn.remove(Table::Settlers, key::settler(&feed, user));
                }
            }
            if rows.len() == steps {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn erase_head(&mut self, user: &UserId, feed: &FeedId) -> Result<(), StoreFault> {
        self.txn.remove(Table::Settlers, key::settler(&FeedId::All, user));
        self.erase_mark_ages(feed);
        let prefix = key::feed(feed);
        for table in [Table::Collapse, Table::Sizes, Table::Feeds, Table::Firsts] {
            for (row, _) in self
                .txn
                .scan(table, &prefix, &key::after(&prefix), tables::ALL_ROWS)?
            {
                self.txn.remove(table, row);
            }
        }
        Ok(())
    }

    fn erased(
        &self,
        table: Table,
        prefix: &[u8],
        erasing: &mut Erasing,
        steps: usize,
    ) -> Result<Vec<Row>, StoreFault> {
        let rows = self.txn.scan(table, prefix, &key::after(prefix), steps)?;
        erasing.known |= !rows.is_empty();
        Ok(rows)
    }

    /// The user is no recipient any more. What was for nobody else is forgotten. True if the user was one.
    fn erase_recipient(&mut self, id: &NotificationId, user: &UserId) -> Result<bool, StoreFault> {
        if tables::recipient(&self.txn, id, user)?.is_none() {
            return Ok(false);
        }
        let record = tables::record(&self.txn, id)?;
        let Some(mut record) = record else {
            self.txn.remove(Table::Recipients, key::recipient(id, user));
            return Ok(true);
        };
        self.leave_home(&mut record)?;
        self.txn.remove(Table::Recipients, key::recipient(id, user));
        // A broadcast that was redriven for this user has no count.
        let before = record.clone();
        match record.recipients {
            None => {}
            Some(0 | 1) => self.forget_for_good(&record)?,
            Some(count) => {
                record.recipients = Some(count - 1);
                self.put_record(&record)?;
                self.counts.changed(Some(&before), Some(&record));
            }
        }
        Ok(true)
    }
}
