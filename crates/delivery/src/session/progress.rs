//! Where a session stands in one feed.

use super::{AckMode, FeedStart, Outbox, Reading};
use crate::redelivery::{Redelivery, RedeliveryRules};
use postrider_model::{FeedId, Position};

/// Where a session stands in one feed.
#[derive(Debug)]
pub(super) struct Progress {
    pub feed: FeedId,
    /// Everything at or below is sent, or not for this session. The epoch is unknown until the first entry.
    pub sent: u64,
    /// The place to name in a cursor; `None` while it is not known.
    pub place: Option<Position>,
    /// The newest offset that is known to exist.
    pub head: u64,
    /// A page was asked for and has not come.
    pub reading: bool,
    /// A wake may have been lost: only a page can tell whether there is more.
    pub suspect: bool,
    /// The client must be told that entries are missing before it gets the next.
    pub gap: bool,
    /// Whether entries here have a delivery state for the user.
    pub settles: bool,
    /// What is settled, as far as this session knows.
    pub floor: u64,
    /// The floor as the engine told it. What this session settled itself may still be judged otherwise.
    pub judged: u64,
    /// At or below this only pending entries are sent; above, all that is not final.
    pub pending_only: u64,
    /// At or below this the client says that it had the entries: they are repeats.
    pub had: u64,
    /// Whether every sending of an entry counts as an attempt: only the client's word settles it.
    pub counts: bool,
    /// What was sent and may have to be sent again.
    pub redelivery: Option<Box<Redelivery>>,
    /// Marks at or below this speak of nothing that this client ever had.
    pub marks_after: u64,
}

impl Progress {
    pub fn open(
        feed: FeedId,
        start: FeedStart,
        ack: AckMode,
        rules: Option<RedeliveryRules>,
        place: Option<Position>,
    ) -> Progress {
        let settles = !matches!(feed, FeedId::Topic(_));
        let counts = settles && ack == AckMode::Explicit;
        let head = start.span.head;
        let oldest = start.span.first.saturating_sub(1);
        let mut progress = Progress {
            feed,
            sent: 0,
            place: None,
            head: head.offset,
            reading: false,
            suspect: false,
            gap: false,
            settles,
            floor: start.floor,
            judged: start.floor,
            pending_only: 0,
            had: 0,
            counts,
            redelivery: rules
                .filter(|_| counts)
                .map(|rules| Box::new(Redelivery::new(rules))),
            marks_after: 0,
        };
        match (place, start.held) {
            (Some(place), Some(true)) => {
                progress.place = Some(place);
                progress.marks_after = place.offset;
                if counts {
                    progress.sent = start.begins.max(oldest).min(place.offset);
                    progress.pending_only = place.offset;
                    progress.had = place.offset;
                } else {
                    progress.sent = place.offset;
                }
            }
            (Some(place), _) => {
                // Until the client was told of the gap its cursor names the old place, and so finds it again.
                progress.place = Some(place);
                progress.gap = true;
                progress.sent = oldest;
            }
            (None, _) if settles => {
                progress.sent = start.begins.max(oldest).min(head.offset);
                progress.pending_only = head.offset;
                progress.marks_after = head.offset;
                progress.place = (progress.sent == head.offset).then_some(head);
            }
            (None, _) => {
                progress.sent = head.offset;
                progress.place = Some(head);
                progress.marks_after = head.offset;
            }
        }
        progress
    }

    pub fn is_behind(&self) -> bool {
        self.sent < self.head || self.gap || self.suspect
    }

    /// Whether entries that are due again wait for room.
    pub fn is_late(&self) -> bool {
        self.redelivery
            .as_ref()
            .is_some_and(|redelivery| redelivery.wants_page())
    }

    /// Asks for what comes next, and for what is due again, where there is room.
    pub fn ask(&mut self, outbox: &mut impl Outbox) {
        if !self.reading && self.is_behind() && outbox.has_room() {
            self.reading = true;
            self.suspect = false;
            outbox.read(&self.feed, Reading::Forward { after: self.sent });
        }
        if let Some(redelivery) = self.redelivery.as_mut().filter(|_| outbox.has_room())
            && let Some((first, last)) = redelivery.page_wanted()
        {
            outbox.read(&self.feed, Reading::Again { first, last });
        }
    }
}
