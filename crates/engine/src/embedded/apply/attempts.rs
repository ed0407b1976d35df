//! Counting attempts where only the client's word settles, and giving up after the last.

use super::{Apply, Due};
use crate::embedded::codec::{Writer, key};
use crate::embedded::store::{Table, View};
use crate::embedded::{StoreFault, tables};
use postrider_model::{Attempt, DeadReason, NotificationId, State, Timestamp, UserId};

impl Apply<'_> {
    /// Counts an attempt, unless one was counted within the ack timeout, or nothing is pending there.
    pub fn attempt(&mut self, attempt: &Attempt) -> Result<(), StoreFault> {
        let Attempt { user, feed, offset } = attempt;
        let place = self.hot.place(self.asked(user), feed);
        if place.is_some_and(|place| !place.open && *offset <= place.floor) {
            // It was acknowledged meanwhile, as most are; whatever else befell it, it is not pending.
            return Ok(());
        }
        let row = key::range(user, feed, *offset);
        let before = self.txn.get(Table::Attempts, &row)?;
        let (count, last) = before.map_or(Ok((0, Timestamp(0))), |value| tables::attempts(&value))?;
        if count > 0 && self.now < last.plus(self.rules.ack_timeout) {
            return Ok(());
        }
        let Some(id) = self.notification_at(feed, *offset)? else {
            return Ok(());
        };
        if count >= self.rules.max_total_attempts || self.state(user, feed, *offset, &id)?.0 != State::Pending
        {
            return Ok(());
        }
        if feed.is_wide() {
            self.note_settler(user, feed)?;
        }
        let value = Writer::new().u32(count + 1).u64(self.now.0).done();
        self.txn.put(Table::Attempts, row, value);
        if count + 1 >= self.rules.max_total_attempts {
            let at = self.now.plus(self.rules.ack_timeout);
            self.put_give_up(at, key::give_up(at, Due::GiveUp as u8, &id, user));
        }
        Ok(())
    }

    /// The last attempt had its time.
    pub(super) fn attempts_ended(&mut self, user: &UserId, id: &NotificationId) -> Result<(), StoreFault> {
        let Some((feed, offset)) = self.find(user, id)? else {
            return Ok(());
        };
        let row = key::range(user, &feed, offset);
        // None here: it was redriven meanwhile, and begins anew.
        let Some(value) = self.txn.get(Table::Attempts, &row)? else {
            return Ok(());
        };
        let (count, at) = tables::attempts(&value)?;
        // Less of either: it was redriven to where it was attempted again.
        let last = count >= self.rules.max_total_attempts && self.now >= at.plus(self.rules.ack_timeout);
        if last && self.state(user, &feed, offset, id)?.0 == State::Pending {
            self.give_up(user, &feed, offset, id, DeadReason::MaxAttempts, count)?;
        }
        Ok(())
    }
}
