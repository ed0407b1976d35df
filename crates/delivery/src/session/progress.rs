//! Where a session stands in one feed. There are millions of these, and a fan-out touches one for every session, so
//! they are small: what only some need for some time is in boxes of its own.

use super::{AckMode, FeedStart, Reading};
use crate::redelivery::{Redelivery, RedeliveryRules};
use postrider_model::{Epoch, FeedSpan, Position};

/// Where a session stands in one feed.
#[derive(Debug)]
pub(super) struct Progress {
    /// Everything at or below is sent, or not for this session. The epoch is unknown until the first entry.
    sent: u64,
    /// The newest offset that is known to exist.
    pub head: u64,
    /// What is settled, as far as this session knows.
    pub floor: u64,
    /// The floor as the engine told it. What this session settled itself may still be judged otherwise.
    pub judged: u64,
    /// With its epoch the place of what was sent last, if it is `placed`.
    place: u64,
    /// With its epoch the place up to which the probe under way proves.
    probed: u64,
    place_epoch: Epoch,
    probed_epoch: Epoch,
    placed: bool,
    /// A page was asked for and has not come.
    pub reading: bool,
    /// A wake may have been lost: only a page can tell whether there is more.
    pub suspect: bool,
    /// The engine may not hold its place any more: the next page begins there, and tells.
    pub check: bool,
    /// The client must be told that entries are missing before it gets the next.
    pub gap: bool,
    /// It was told: while there is no place, this is right behind the gap.
    behind_gap: bool,
    /// Whether entries here have a delivery state for the user.
    pub settles: bool,
    /// Whether every sending of an entry counts as an attempt: only the client's word settles it.
    pub counts: bool,
    /// How what was there when the session opened is judged, until that is sent.
    past: Option<Box<Past>>,
    /// What was sent and may have to be sent again.
    pub redelivery: Option<Box<Redelivery>>,
}

/// What held when the session opened. It says something of offsets at or below these alone.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Past {
    /// At or below this only pending entries are sent; above, all that is not final.
    pub pending_only: u64,
    /// At or below this the client says that it had the entries: they are repeats.
    pub had: u64,
    /// Marks at or below this speak of nothing that this client ever had.
    pub marks_after: u64,
}

impl Past {
    fn end(&self) -> u64 {
        self.pending_only.max(self.had).max(self.marks_after)
    }
}

impl Progress {
    pub fn open(
        settles: bool,
        start: FeedStart,
        ack: AckMode,
        rules: Option<RedeliveryRules>,
        place: Option<Position>,
    ) -> Progress {
        let counts = settles && ack == AckMode::Explicit;
        let head = start.span.head;
        let oldest = start.span.first.saturating_sub(1);
        let mut progress = Progress {
            sent: 0,
            head: head.offset,
            floor: start.floor,
            judged: start.floor,
            place: 0,
            probed: 0,
            place_epoch: Epoch::default(),
            probed_epoch: Epoch::default(),
            placed: false,
            reading: false,
            suspect: false,
            check: false,
            gap: false,
            behind_gap: false,
            settles,
            counts,
            past: None,
            redelivery: rules
                .filter(|_| counts)
                .map(|rules| Box::new(Redelivery::new(rules))),
        };
        let mut past = Past::default();
        match (place, start.held) {
            (Some(place), Some(true)) => {
                progress.set_place(place);
                past.marks_after = place.offset;
                if counts {
                    progress.sent = start.begins.max(oldest).min(place.offset);
                    past.pending_only = place.offset;
                    past.had = place.offset;
                } else {
                    progress.sent = place.offset;
                }
            }
            (Some(place), _) => {
                // Until the client was told of the gap its cursor names the old place, and so finds it again.
                progress.set_place(place);
                progress.gap = true;
                progress.sent = oldest;
            }
            (None, _) if settles => {
                progress.sent = start.begins.max(oldest).min(head.offset);
                past.pending_only = head.offset;
                past.marks_after = head.offset;
                if progress.sent == head.offset {
                    progress.set_place(head);
                }
            }
            (None, _) => {
                progress.sent = head.offset;
                progress.set_place(head);
                past.marks_after = head.offset;
            }
        }
        progress.past = (progress.sent < past.end()).then(|| Box::new(past));
        progress
    }

    /// Where a user stands who joins a topic whose head is `head`. Its place has yet to be learned.
    pub fn joining(head: u64, ack: AckMode, rules: Option<RedeliveryRules>) -> Progress {
        let position = Position {
            offset: head,
            ..Position::START
        };
        let start = FeedStart {
            span: FeedSpan {
                first: head.saturating_add(1),
                head: position,
            },
            floor: head,
            begins: head,
            held: None,
        };
        let mut progress = Progress::open(true, start, ack, rules, None);
        if head > 0 {
            progress.forget_place();
        }
        progress
    }

    /// By which rules it sends again what is not acknowledged, if it does.
    pub fn redelivery_rules(&self) -> Option<RedeliveryRules> {
        Some(self.redelivery.as_ref()?.rules())
    }

    /// What stands after `head` is the user's from now on, with a state.
    pub fn begin_to_settle(&mut self, head: u64, counts: bool, rules: Option<RedeliveryRules>) {
        (self.settles, self.counts) = (true, counts);
        self.head = self.head.max(head);
        self.floor = self.floor.max(head);
        self.judged = self.judged.max(head);
        let rules = rules.filter(|_| counts);
        self.redelivery = rules.map(|rules| Box::new(Redelivery::new(rules)));
    }

    /// Nothing after `through` is the user's any more.
    pub fn end_at(&mut self, through: u64) {
        self.head = self.sent.max(through);
        self.suspect = false;
    }

    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Everything up to here is sent, or passed over.
    pub fn pass(&mut self, through: u64) {
        self.sent = through;
        if self.past.as_ref().is_some_and(|past| past.end() <= through) {
            self.past = None;
        }
    }

    /// What held when the session opened. Says nothing any more of offsets above what was sent.
    pub fn past(&self) -> Past {
        self.past.as_deref().copied().unwrap_or_default()
    }

    /// The place of what was sent last; `None` while it is not known.
    pub fn place(&self) -> Option<Position> {
        self.placed.then_some(Position {
            epoch: self.place_epoch,
            offset: self.place,
        })
    }

    /// The place to name in a cursor, if it has one to name. Right behind a gap it is the gap's end: a cursor without
    /// the feed would begin a session topic at its end, and another feed with what is pending. The epoch there is not
    /// known, so that where anything was trimmed its client is told the gap once more.
    pub fn named(&self) -> Option<Position> {
        let end = Position {
            offset: self.sent,
            ..Position::START
        };
        self.place().or(self.behind_gap.then_some(end))
    }

    /// The place of an entry that the client has, as far as that is known. Where a gap is to be told it has none.
    pub fn known_place(&self) -> Option<Position> {
        self.place().filter(|place| place.offset > 0 && !self.gap)
    }

    /// Whether this was numbered in another epoch than what stands at its place.
    pub fn differs(&self, from: Position) -> bool {
        self.known_place().is_some_and(|place| place.epoch != from.epoch)
    }

    pub fn set_place(&mut self, place: Position) {
        (self.place, self.place_epoch, self.placed) = (place.offset, place.epoch, true);
    }

    pub fn forget_place(&mut self) {
        (self.placed, self.behind_gap) = (false, false);
    }

    /// The client was told of the gap: its old place is no one's any more.
    pub fn told_gap(&mut self) {
        self.forget_place();
        (self.gap, self.behind_gap) = (false, true);
    }

    /// As [`Progress::set_place`], unless the place is beyond already.
    pub fn move_place(&mut self, to: Position) {
        if !self.placed || self.place <= to.offset {
            self.set_place(to);
        }
    }

    /// Up to where entries were sent that evidence could settle.
    pub fn unsettled(&self) -> Option<Position> {
        // Below what was sent: what came after it was not for this session.
        let place = self.place().filter(|place| place.offset <= self.sent)?;
        (self.settles && !self.gap && place.offset > self.floor).then_some(place)
    }

    /// What a probe that begins now would prove; nothing of this feed where nothing is unsettled.
    pub fn begin_probe(&mut self) {
        let place = self.unsettled().unwrap_or(Position::START);
        (self.probed, self.probed_epoch) = (place.offset, place.epoch);
    }

    /// The probe was answered: up to where that settles something.
    pub fn proven(&mut self) -> Option<Position> {
        let proven = Position {
            epoch: self.probed_epoch,
            offset: std::mem::take(&mut self.probed),
        };
        let news = proven.offset > self.floor;
        self.floor = self.floor.max(proven.offset);
        news.then_some(proven)
    }

    pub fn is_behind(&self) -> bool {
        self.sent < self.head || self.gap || self.suspect || self.check
    }

    /// Whether what comes next can be sent as it comes.
    pub fn is_sure(&self) -> bool {
        !self.reading && !self.gap && !self.suspect && !self.check
    }

    /// Whether entries that are due again wait for room.
    pub fn is_late(&self) -> bool {
        self.redelivery
            .as_ref()
            .is_some_and(|redelivery| redelivery.wants_page())
    }

    /// What to read now that there is room: what comes next, and what is due again.
    pub fn wanted(&mut self) -> [Option<Reading>; 2] {
        let next = !self.reading && self.is_behind();
        if next {
            self.reading = true;
            self.suspect = false;
        }
        let check = next && std::mem::take(&mut self.check);
        let from_place = self.known_place().filter(|_| check);
        let after = from_place.map_or(self.sent, |place| place.offset - 1);
        let again = self.redelivery.as_mut().and_then(|redelivery| {
            let (first, last) = redelivery.page_wanted()?;
            Some(Reading::Again { first, last })
        });
        [next.then_some(Reading::Forward { after }), again]
    }
}
