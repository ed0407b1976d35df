//! Sending again what the client has not acknowledged. Whether it still may is read from the engine when the time
//! has come; nothing of single entries is kept.

use super::{AckMode, At, Moment, Outbox, Reading, Session, Share};
use crate::redelivery::{Due, Redelivery};
use postrider_model::{InboxPage, State, Timestamp};

/// Ids in one word about stalled entries.
const MAX_STALLED_IDS: usize = 256;

impl Session {
    /// When something is due again, if nothing waits for a page or for room already.
    pub fn redeliver_at(&self) -> Option<Timestamp> {
        if self.ack != AckMode::Explicit {
            return None;
        }
        self.all()
            .filter_map(|progress| progress.redelivery.as_ref()?.next_at())
            .min()
    }

    /// Begins to send again what is due.
    pub fn redeliver(&mut self, now: Moment, outbox: &mut impl Outbox) {
        for at in self.ats() {
            if let Some(redelivery) = &mut self.progress_mut(at).redelivery {
                redelivery.begin(now.steady);
                self.ask(at, outbox);
            }
        }
    }

    /// A page of what is due: sends what is still pending, as far as there is room; the rest is read again then.
    pub(super) fn page_again(&mut self, at: At, page: &InboxPage, now: Moment, outbox: &mut impl Outbox) {
        let member = self.reads_as_member(at, Reading::Again { first: 0, last: 0 });
        let progress = self.progress_mut(at);
        progress.floor = progress.floor.max(page.floor);
        progress.judged = progress.judged.max(page.floor);
        let fresh = |redelivery: &mut Box<Redelivery>| redelivery.page_came();
        let Some(mut redelivery) = progress.redelivery.take_if(fresh) else {
            return;
        };
        let mut stalled = Vec::new();
        // What the page leaves out at its end is not held, or below the floor.
        let mut through = page
            .entries
            .last()
            .map_or(u64::MAX, |read| read.entry.position.offset);
        for read in &page.entries {
            let offset = read.entry.position.offset;
            let pending = read.state == Some(State::Pending) && self.shows(&Share::of(read, member));
            let Some(due) = redelivery.due(offset).filter(|_| pending) else {
                continue;
            };
            if !outbox.has_room() {
                through = offset - 1;
                break;
            }
            match due {
                Due::Send { attempt } => {
                    let counted = read.attempts.saturating_add(1);
                    outbox.send(&read.entry, Some(attempt.max(counted)));
                    redelivery.sent(offset, attempt, now.steady);
                }
                Due::Stall => stalled.extend(read.entry.notification().map(|n| n.id.clone())),
            }
        }
        stalled
            .chunks(MAX_STALLED_IDS)
            .for_each(|ids| outbox.stalled(ids));
        redelivery.passed(through);
        self.progress_mut(at).redelivery = Some(redelivery);
    }
}
