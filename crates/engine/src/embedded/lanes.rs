//! Who of several nodes does what is due.
//!
//! What is put into one feed when it falls due has the *lane* of that feed, a 64th of all feeds, so that one node does
//! it in the order in which it falls due. What is put into several feeds at once has no lane: it is done where nothing
//! that was due before it is left, and nothing that is due after it is done before it. Whatever else is due (expiry,
//! giving up) needs no order, and has the lane of its notification.
//!
//! Invariant: two nodes that hold the same lane at a time do each thing once, and in order, all the same: each does the
//! first of what it sees, and a store that is shared refuses whoever does what was done. So lanes spare work, and
//! nothing depends on who holds them.

use super::codec::{Reader, Writer};
use super::store::StoreFault;
use postrider_model::{FeedId, NotificationId};
use xxhash_rust::xxh3::xxh3_64;

/// How many lanes there are. Part of what is stored.
pub const LANES: u8 = 64;
/// What is written in the place of a lane where there is none.
const NO_LANE: u8 = 0xff;

/// One of the [`LANES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lane(u8);

impl Lane {
    /// The one of what is put into these feeds. `None`: they have not one in common.
    pub fn of_feeds(feeds: &[FeedId]) -> Option<Lane> {
        let of = |feed: &FeedId| {
            let mut key = Vec::with_capacity(64);
            feed.write_key(&mut key);
            Lane::hashed(&key)
        };
        let first = of(feeds.first()?);
        feeds[1..].iter().all(|feed| of(feed) == first).then_some(first)
    }

    /// The one of what needs no order.
    pub fn of_id(id: &NotificationId) -> Lane {
        Lane::hashed(id.as_str().as_bytes())
    }

    fn hashed(name: &[u8]) -> Lane {
        Lane((xxh3_64(name) % u64::from(LANES)) as u8)
    }
}

/// A lane as the row of what is to be put into feeds holds it.
pub(super) fn encode(lane: Option<Lane>) -> Vec<u8> {
    Writer::new().u8(lane.map_or(NO_LANE, |lane| lane.0)).done()
}

/// Rows that were written before there were lanes have none.
pub(super) fn decode(value: &[u8]) -> Result<Option<Lane>, StoreFault> {
    let mut r = Reader::new("due", value)?;
    if r.is_done() {
        return Ok(None);
    }
    Ok(Some(r.u8()?).filter(|lane| *lane < LANES).map(Lane))
}

/// What falls to one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Share {
    lanes: u64,
    keeps_house: bool,
}

impl Share {
    /// All there is.
    pub const ALL: Share = Share {
        lanes: u64::MAX,
        keeps_house: true,
    };
    /// Nothing.
    pub const NONE: Share = Share {
        lanes: 0,
        keeps_house: false,
    };

    /// These lanes, by their numbers; and, where it keeps house, what has no lane.
    pub fn new(lanes: impl IntoIterator<Item = u8>, keeps_house: bool) -> Share {
        let lanes = lanes.into_iter().filter(|lane| *lane < LANES);
        Share {
            lanes: lanes.fold(0, |all, lane| all | 1 << lane),
            keeps_house,
        }
    }

    /// The numbers of its lanes.
    pub fn lanes(self) -> impl Iterator<Item = u8> {
        (0..LANES).filter(move |lane| self.has(Lane(*lane)))
    }

    /// How many lanes.
    pub fn len(self) -> usize {
        self.lanes.count_ones() as usize
    }

    /// Nothing is in it.
    pub fn is_empty(self) -> bool {
        self == Share::NONE
    }

    /// What only one node should do falls to this one.
    pub fn keeps_house(self) -> bool {
        self.keeps_house
    }

    fn has(self, lane: Lane) -> bool {
        self.lanes & (1 << lane.0) != 0
    }
}

/// What of some rows falls to a node, and what of them it waits for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Choice {
    /// By their places, rising.
    pub chosen: Vec<usize>,
    /// What stands next and falls to this node waits for what others are to do first, or the other way round.
    pub waits: bool,
    /// Not all that falls to this node is chosen.
    pub more: bool,
}

/// Of rows in the order in which they fell due, those that a node does now: not more than `most`.
pub(super) fn choose(rows: &[Option<Lane>], share: Share, most: usize) -> Choice {
    let mut choice = Choice::default();
    let mut others_first = false;
    for (at, lane) in rows.iter().enumerate() {
        let is_mine = match lane {
            Some(lane) => share.has(*lane),
            None if share.keeps_house && !others_first => true,
            None => {
                choice.waits = true;
                return choice;
            }
        };
        if !is_mine {
            others_first = true;
        } else if choice.chosen.len() == most {
            choice.more = true;
            return choice;
        } else {
            choice.chosen.push(at);
        }
    }
    choice
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_model::UserId;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn feed(user: &str) -> FeedId {
        FeedId::User(UserId::new(user).unwrap())
    }

    #[test]
    fn lanes_are_what_they_were() {
        let id = Lane::of_id(&NotificationId::new("n1").unwrap());
        let feeds = [feed("ada"), FeedId::All].map(|feed| Lane::of_feeds(&[feed]).unwrap());
        assert_eq!([feeds[0], feeds[1], id], [35, 57, 20].map(Lane));
        assert_eq!(Lane::of_feeds(&[]), None);
        let all: Vec<_> = (0..100).map(|n| feed(&format!("u{n}"))).collect();
        assert_eq!(Lane::of_feeds(&all), None);
        let lanes: BTreeSet<_> = all
            .iter()
            .map(|one| Lane::of_feeds(std::slice::from_ref(one)))
            .collect();
        assert!(lanes.len() > 40, "{}", lanes.len());
    }

    #[test]
    fn a_lane_reads_back() {
        for lane in [None, Some(Lane(0)), Some(Lane(63))] {
            assert_eq!(decode(&encode(lane)).unwrap(), lane);
        }
        let before = Writer::new().done();
        assert_eq!(decode(&before).unwrap(), None);
    }

    #[test]
    fn what_has_no_lane_is_done_between_what_is_before_and_after_it() {
        let (mine, other) = (Some(Lane(1)), Some(Lane(2)));
        let rows = [mine, other, mine, None, mine, None];
        let chosen = |share, most| choose(&rows, share, most);
        let one = Share::new([1], false);
        assert_eq!(
            chosen(one, 9),
            Choice {
                chosen: vec![0, 2],
                waits: true,
                more: false
            }
        );
        assert_eq!(chosen(one, 1).chosen, [0]);
        assert!(chosen(one, 1).more);
        // Whoever keeps house waits for what another is to do before.
        assert_eq!(chosen(Share::new([1], true), 9), chosen(one, 9));
        assert_eq!(chosen(Share::ALL, 9).chosen, [0, 1, 2, 3, 4, 5]);
        assert_eq!(chosen(Share::new([2], true), 9).chosen, [1]);
        assert_eq!(
            chosen(Share::NONE, 9),
            Choice {
                waits: true,
                ..Choice::default()
            }
        );
    }

    fn some_row() -> impl Strategy<Value = Option<Lane>> {
        prop_oneof![6 => (0..LANES).prop_map(|lane| Some(Lane(lane))), 1 => Just(None)]
    }

    proptest! {
        /// Nodes that do what they choose, one after the other in any order, two of which hold the same lanes for a while:
        /// all is done, once, in the order of each lane; and what has no lane in its place among all.
        #[test]
        fn any_turns_do_all_once_and_in_order(
            mut rows in proptest::collection::vec(some_row(), 0..80),
            of in proptest::collection::vec(0..3_usize, usize::from(LANES)),
            house in 0..3_usize,
            doubled in 0..3_usize,
            turns in proptest::collection::vec((0..4_usize, 1..6_usize), 0..60),
        ) {
            let mut left: Vec<(usize, Option<Lane>)> = rows.drain(..).enumerate().collect();
            let share = |node: usize| {
                // The fourth holds what another holds too.
                let node = if node == 3 { doubled } else { node };
                let lanes = (0..LANES).filter(|lane| of[usize::from(*lane)] == node);
                Share::new(lanes.collect::<Vec<_>>(), node == house)
            };
            let shares: Vec<_> = (0..4).map(share).collect();
            let ends = (0..80).flat_map(|_| (0..3).map(|node| (node, 5)));
            for (node, most) in turns.into_iter().chain(ends) {
                let lanes: Vec<_> = left.iter().map(|(_, lane)| *lane).collect();
                let choice = choose(&lanes, shares[node], most);
                for &at in &choice.chosen {
                    let before = left[..at].iter().enumerate().filter(|(at, _)| !choice.chosen.contains(at));
                    for (_, (_, lane)) in before {
                        prop_assert!(lane.is_some() && left[at].1.is_some(), "past what has no lane");
                        prop_assert!(*lane != left[at].1, "out of order");
                    }
                }
                for at in choice.chosen.into_iter().rev() {
                    left.remove(at);
                }
            }
            prop_assert!(left.is_empty(), "{left:?} is nobody's");
        }
    }
}
