//! A wide feed's hearers, and what they have yet to get: who is passed next, and with what.
//!
//! The hearers stand in a ring. What was appended waits in the feed's *window* while the ring goes round once; each
//! hearer that is passed gets all of the window at once. So what is appended while the ring goes round costs no send
//! of its own to those who are yet to be passed.
//!
//! Invariant: every hearer is passed once with each entry that came while it was there, in order, unless there were
//! more entries than the window takes: then it is passed once while [`Ring::is_lost`]. Does not know sessions.

use crate::roll::Roll;
use crate::volley::{Form, Volley};
use postrider_delivery::Stretch;
use postrider_model::{Entry, FeedId, Timestamp};
use slab::Slab;
use std::ops::Range;
use std::sync::Arc;

/// Entries in one window, and their bytes; the last may exceed it. Where more come, hearers look for themselves.
const MAX_WINDOW: usize = 1024;
const MAX_WINDOW_BYTES: usize = 4 << 20;

/// A wide feed's ring.
pub(crate) struct Ring {
    pub feed: FeedId,
    /// Each at its seat.
    hearers: Slab<Hearer>,
    /// No seat that is taken, or was, is at or above.
    seats: usize,
    /// The next seat to be passed, in this round.
    at: Place,
    pub window: Vec<Arc<Entry>>,
    /// Of each entry of the window: where the ring stood when it came.
    marks: Vec<Mark>,
    bytes: usize,
    /// The number of the window's first entry, counting all that ever were in it.
    first: u32,
    /// How many of the window's marks are odd, and how many of its entries can expire.
    odd: usize,
    expiring: usize,
    /// Since the ring stood here, something came for which there was no room.
    lost: Option<Place>,
    /// How many transient ones were among that, which nobody can look for.
    pub lost_transients: u64,
    /// Hearers that have kept their seats without a session.
    pub resting: usize,
    /// While the topic is watched: its roll, and below which seat whoever sits is on it.
    pub roll: Option<(Arc<Roll>, usize)>,
    pub volleys: [Volley; 2],
}

struct Hearer {
    slot: u32,
    /// The number of the first entry that came after it.
    since: u32,
}

/// A seat, in a round of the ring.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Place {
    round: u64,
    seat: usize,
}

impl Place {
    /// Whether the ring, which stands here, has been all round since it stood there.
    fn is_round_since(self, then: Place) -> bool {
        self.round > then.round + 1 || (self.round > then.round && self.seat >= then.seat)
    }
}

#[derive(Clone, Copy)]
struct Mark {
    came: Place,
    /// Not everyone is to have it in the same way, or it does not follow on the one before.
    odd: bool,
}

impl Ring {
    pub fn new(feed: FeedId) -> Ring {
        Ring {
            feed,
            hearers: Slab::new(),
            seats: 0,
            at: Place::default(),
            window: Vec::new(),
            marks: Vec::new(),
            bytes: 0,
            first: 0,
            odd: 0,
            expiring: 0,
            lost: None,
            lost_transients: 0,
            resting: 0,
            roll: None,
            volleys: [Volley::new(Form::Sse), Volley::new(Form::WebSocket)],
        }
    }

    pub fn is_busy(&self) -> bool {
        !self.window.is_empty() || self.lost.is_some()
    }

    /// Takes a seat. Whether its hearer is passed with what is in the window already does not matter where that is
    /// stored: it has it otherwise. Of what is transient, [`Ring::hearer`] says from where on it is the hearer's.
    pub fn sit(&mut self, slot: u32) -> u32 {
        let since = self.first.wrapping_add(self.window.len() as u32);
        let seat = self.hearers.insert(Hearer { slot, since });
        self.seats = self.seats.max(seat + 1);
        seat as u32
    }

    pub fn push(&mut self, entry: &Arc<Entry>) {
        if self.hearers.is_empty() {
            return;
        }
        if self.window.len() >= MAX_WINDOW || self.bytes >= MAX_WINDOW_BYTES {
            let gone = self.window.iter().chain([entry]);
            self.lost_transients += gone.filter(|entry| entry.position.offset == 0).count() as u64;
            self.forget(self.window.len());
            self.lost = Some(self.at);
            return;
        }
        // An engine that fell back numbers anew from where it was: then each session judges for itself.
        let follows = |last: &Arc<Entry>| {
            let (last, this) = (last.position, entry.position);
            last.offset + 1 == this.offset && last.epoch == this.epoch
        };
        let transient = entry.position.offset == 0;
        let odd = transient || !entry.is_for_everyone() || !self.window.last().is_none_or(follows);
        self.odd += usize::from(odd);
        self.expiring += usize::from(expires_at(entry).is_some());
        self.bytes += bytes_of(entry);
        self.window.push(entry.clone());
        self.marks.push(Mark { came: self.at, odd });
    }

    /// Takes the first entries out of the window.
    fn forget(&mut self, count: usize) {
        for (entry, mark) in self.window.drain(..count).zip(self.marks.drain(..count)) {
            self.bytes -= bytes_of(&entry);
            self.odd -= usize::from(mark.odd);
            self.expiring -= usize::from(expires_at(&entry).is_some());
        }
        self.first = self.first.wrapping_add(count as u32);
        self.volleys.iter_mut().for_each(|volley| volley.forget(count));
    }

    /// Passes the next hearers, of at most so many seats: those to give all of the window to. `None` once everyone has
    /// everything.
    pub fn pass(&mut self, most: usize) -> Option<Range<usize>> {
        if self.at.seat >= self.seats {
            self.at = Place {
                round: self.at.round + 1,
                seat: 0,
            };
        }
        let at = self.at;
        if self.lost.take_if(|lost| at.is_round_since(*lost)).is_some() {
            self.lost_transients = 0;
        }
        let done = self.marks.partition_point(|mark| at.is_round_since(mark.came));
        if done > 0 {
            self.forget(done);
        }
        if !self.is_busy() {
            return None;
        }
        // What came in the round before is done at the seat where it came.
        let oldest = [self.marks.first().map(|mark| mark.came), self.lost];
        let due = oldest.into_iter().flatten().filter(|came| came.round < at.round);
        let due = due.map(|came| came.seat).min().unwrap_or(usize::MAX);
        let end = self.seats.min(due.max(at.seat)).min(at.seat.saturating_add(most));
        self.at.seat = end;
        Some(at.seat..end)
    }

    /// Who has this seat, and which of the window's entries was the first to come after it sat down.
    pub fn hearer(&self, seat: usize) -> Option<(usize, usize)> {
        let Hearer { slot, since } = self.hearers.get(seat)?;
        // Numbers wrap; what is far ahead is behind.
        let heard = since.wrapping_sub(self.first).cast_signed().max(0);
        Some((*slot as usize, heard as usize))
    }

    pub fn leave(&mut self, seat: u32) {
        self.hearers.try_remove(seat as usize);
    }

    pub fn is_empty(&self) -> bool {
        self.hearers.is_empty()
    }

    /// How many hearers there are, and below which seat they sit.
    pub fn extent(&self) -> (usize, usize) {
        (self.hearers.len(), self.seats)
    }

    /// Whether those who are passed have to look for themselves.
    pub fn is_lost(&self) -> bool {
        self.lost.is_some()
    }

    /// When the first entry of the window expires, if one does.
    pub fn soonest_expiry(&self) -> Option<Timestamp> {
        if self.expiring == 0 {
            return None;
        }
        self.window.iter().filter_map(|entry| expires_at(entry)).min()
    }

    /// The window, where everyone gets all of it alike.
    pub fn stretch(&self, wall: Timestamp) -> Option<Stretch> {
        let (first, last) = (self.window.first()?, self.window.last()?);
        let alike = self.odd == 0 && self.lost.is_none();
        let lasting = self.soonest_expiry().is_none_or(|at| at > wall);
        (alike && lasting).then_some(Stretch {
            first: first.position.offset,
            last: last.position,
        })
    }
}

fn expires_at(entry: &Entry) -> Option<Timestamp> {
    entry.notification()?.expires_at
}

/// About what an entry takes.
fn bytes_of(entry: &Entry) -> usize {
    const BESIDE_DATA: usize = 256;
    entry.notification().map_or(0, |n| n.data.len()) + BESIDE_DATA
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::websocket::tests::notification;
    use postrider_model::{Epoch, Position};
    use proptest::prelude::*;

    fn entry(offset: u64) -> Arc<Entry> {
        let mut entry = notification();
        entry.feed = FeedId::All;
        entry.position = Position {
            offset,
            ..Position::START
        };
        Arc::new(entry)
    }

    /// Passes hearers until so many had their turn, or everyone has everything.
    fn pass(ring: &mut Ring, most: usize, got: &mut [Option<Vec<u64>>]) {
        let mut passed = 0;
        while passed < most
            && let Some(seats) = ring.pass(most - passed)
        {
            for (slot, heard) in seats.filter_map(|seat| ring.hearer(seat)) {
                passed += 1;
                let got = got[slot].as_mut().unwrap();
                let window = ring.window.iter().map(|entry| entry.position.offset);
                let own: Vec<_> = ring.window[heard.min(ring.window.len())..]
                    .iter()
                    .map(|entry| entry.position.offset)
                    .collect();
                let before = got[0];
                // What is the hearer's own, and only that, came after it.
                assert!(
                    window
                        .clone()
                        .all(|offset| (offset > before) == own.contains(&offset))
                );
                got.extend(window);
            }
        }
    }

    proptest! {
        #[test]
        fn everyone_gets_everything_once_whoever_comes_and_goes(
            steps in proptest::collection::vec((0u8..4, 0usize..7), 0..120),
        ) {
            let mut ring = Ring::new(FeedId::All);
            // Of each slot: what it got, its seat, and how many entries there were before it.
            let (mut got, mut seats, mut head) = (Vec::new(), Vec::new(), 0);
            for (step, n) in steps {
                match step {
                    0 => {
                        seats.push((ring.sit(got.len() as u32), head));
                        got.push(Some(vec![head]));
                    }
                    1 if !got.is_empty() => {
                        let slot = n * 31 % got.len();
                        if got[slot].take().is_some() {
                            ring.leave(seats[slot].0);
                        }
                    }
                    2 => {
                        (head + 1..=head + n as u64).for_each(|offset| ring.push(&entry(offset)));
                        head += n as u64;
                    }
                    _ => pass(&mut ring, n, &mut got),
                }
            }
            pass(&mut ring, usize::MAX, &mut got);
            prop_assert!(!ring.is_busy() && ring.window.is_empty() && ring.bytes == 0);
            for (got, (_, before)) in got.iter().zip(&seats).filter_map(|(got, seat)| Some((got.as_ref()?, seat))) {
                let news: Vec<_> = got.iter().copied().filter(|offset| offset > before).collect();
                prop_assert_eq!(news, (before + 1..=head).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn beyond_its_bounds_everyone_is_told_once() {
        let mut ring = Ring::new(FeedId::All);
        (0..5).for_each(|slot| _ = ring.sit(slot));
        assert_eq!(ring.pass(2), None, "nothing to give");
        (1..=MAX_WINDOW as u64).for_each(|offset| ring.push(&entry(offset)));
        assert!(!ring.is_lost() && ring.stretch(Timestamp(0)).is_some());
        assert_eq!(ring.pass(2), Some(0..2));
        ring.push(&entry(MAX_WINDOW as u64 + 1));
        assert!(ring.is_lost() && ring.window.is_empty() && ring.stretch(Timestamp(0)).is_none());
        let told: Vec<_> = std::iter::from_fn(|| ring.pass(2)).flatten().collect();
        assert_eq!(told, [2, 3, 4, 0, 1]);
        assert!(!ring.is_busy());
    }

    #[test]
    fn alike_is_only_what_everyone_gets() {
        let mut ring = Ring::new(FeedId::All);
        ring.sit(0);
        ring.push(&entry(4));
        ring.push(&entry(5));
        let stretch = ring.stretch(Timestamp(0)).unwrap();
        assert_eq!((stretch.first, stretch.last.offset), (4, 5));
        ring.push(&entry(7));
        assert!(ring.stretch(Timestamp(0)).is_none(), "one is missing");
        let mut numbered_anew = Ring::new(FeedId::All);
        numbered_anew.sit(0);
        numbered_anew.push(&entry(4));
        let mut next = Entry::clone(&entry(5));
        next.position.epoch = Epoch(9);
        numbered_anew.push(&Arc::new(next));
        assert!(numbered_anew.stretch(Timestamp(0)).is_none(), "of two epochs");
        let mut other = Ring::new(FeedId::All);
        other.sit(0);
        other.push(&entry(0));
        assert!(
            other.stretch(Timestamp(0)).is_none(),
            "a transient one has no place"
        );
    }
}
