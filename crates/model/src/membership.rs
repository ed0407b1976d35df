//! Membership in a topic, as intervals of the topic's feed. What stands inside an interval is the user's, also after
//! leaving; what stands outside never was. Pure: the feed's head is given.
//!
//! Invariant: stays rise, do not touch each other, and none is empty; only the last may be open.

use crate::Topic;

/// One stay of a user among a topic's members: what stands after `after`, up to and including `through`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stay {
    /// The topic's head when the user joined.
    pub after: u64,
    /// The topic's head when the user left; `None`: the user is a member now.
    pub through: Option<u64>,
}

impl Stay {
    /// Whether what stands at `offset` is the user's.
    pub fn covers(&self, offset: u64) -> bool {
        offset > self.after && self.through.is_none_or(|through| offset <= through)
    }

    /// Whether nothing of it stands at `first` or after it.
    fn is_before(&self, first: u64) -> bool {
        self.through.is_some_and(|through| through < first)
    }
}

/// A user's membership in a topic, now or once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// Which topic.
    pub topic: Topic,
    /// By rising offset.
    pub stays: Vec<Stay>,
}

impl Membership {
    /// In a topic that the user never was in.
    pub fn new(topic: Topic) -> Membership {
        Membership {
            topic,
            stays: Vec::new(),
        }
    }

    /// Whether the user is a member now.
    pub fn is_current(&self) -> bool {
        self.stays.last().is_some_and(|stay| stay.through.is_none())
    }

    /// Whether what stands at `offset` is the user's.
    pub fn covers(&self, offset: u64) -> bool {
        let at = self.stays.partition_point(|stay| stay.after < offset);
        at > 0 && self.stays[at - 1].covers(offset)
    }

    /// Whether the user has any of `from..=to`.
    pub fn covers_any(&self, from: u64, to: u64) -> bool {
        let begins = |stay: &Stay| from.max(stay.after.saturating_add(1));
        self.stays
            .iter()
            .any(|stay| begins(stay) <= to && stay.covers(begins(stay)))
    }

    /// The user joins where the topic's head is `head`. False where the user is a member already.
    pub fn join(&mut self, head: u64) -> bool {
        match self.stays.last_mut() {
            Some(Stay { through: None, .. }) => return false,
            // Nothing came meanwhile: it is as if the user had not left.
            Some(Stay { through, .. }) if *through == Some(head) => *through = None,
            _ => self.stays.push(Stay {
                after: head,
                through: None,
            }),
        }
        true
    }

    /// The user leaves where the topic's head is `head`. False where the user is no member.
    pub fn leave(&mut self, head: u64) -> bool {
        let Some(last) = self.stays.last_mut().filter(|stay| stay.through.is_none()) else {
            return false;
        };
        last.through = Some(head);
        if head <= last.after {
            self.stays.pop();
        }
        true
    }

    /// Where a floor stands that is, by the user's own words, at `delivered`: what is not the user's is no obstacle to
    /// it.
    pub fn floor(&self, delivered: u64) -> u64 {
        match self
            .stays
            .iter()
            .find(|stay| !stay.is_before(delivered.saturating_add(1)))
        {
            Some(stay) => delivered.max(stay.after),
            None => delivered,
        }
    }

    /// The last offset that is the user's; `None` where that is still open, or nothing is.
    pub fn end(&self) -> Option<u64> {
        self.stays.last()?.through
    }

    /// The last offset up to `to` that is the user's.
    pub fn newest_at(&self, to: u64) -> Option<u64> {
        let stay = self.stays.iter().rev().find(|stay| stay.after < to)?;
        Some(stay.through.map_or(to, |through| through.min(to)))
    }

    /// Whether anything of a feed that holds what stands from `first` on is the user's, or may be.
    pub fn holds(&self, first: u64) -> bool {
        self.stays.last().is_some_and(|stay| !stay.is_before(first))
    }

    /// Forgets the stays that ended before `first`.
    pub fn forget_before(&mut self, first: u64) {
        self.stays.retain(|stay| !stay.is_before(first));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(stays: &[(u64, Option<u64>)]) -> Membership {
        let mut membership = Membership::new(Topic::new("t").unwrap());
        let stays = stays.iter().map(|(after, through)| Stay {
            after: *after,
            through: *through,
        });
        membership.stays.extend(stays);
        membership
    }

    #[test]
    fn what_came_during_a_stay_is_the_users() {
        let membership = of(&[(2, Some(4)), (7, None)]);
        let covered: Vec<_> = (0..=10).filter(|offset| membership.covers(*offset)).collect();
        assert_eq!(covered, [3, 4, 8, 9, 10]);
        assert_eq!(
            [(1, 2), (4, 9), (5, 7), (8, 8)].map(|(a, b)| membership.covers_any(a, b)),
            [false, true, false, true]
        );
    }

    #[test]
    fn a_floor_passes_over_what_is_not_the_users() {
        let membership = of(&[(2, Some(4)), (7, Some(9))]);
        let floors = [0, 2, 3, 4, 5, 7, 8, 9, 12].map(|delivered| membership.floor(delivered));
        assert_eq!(floors, [2, 2, 3, 7, 7, 7, 8, 9, 12]);
        assert_eq!(of(&[]).floor(3), 3);
    }

    #[test]
    fn coming_back_before_anything_came_is_never_having_left() {
        let mut membership = of(&[]);
        assert!(membership.join(5) && !membership.join(6));
        assert!(
            membership.leave(5) && membership.stays.is_empty(),
            "an empty stay vanishes"
        );
        assert!(membership.join(5) && membership.leave(8) && membership.join(8));
        assert_eq!(membership, of(&[(5, None)]));
        assert!(membership.leave(9) && !membership.leave(9) && membership.join(11));
        assert_eq!(membership, of(&[(5, Some(9)), (11, None)]));
        membership.forget_before(10);
        assert_eq!(membership, of(&[(11, None)]));
    }

    proptest! {
        /// Whoever joins and leaves as a topic grows has what came while there, and the stays stay in order.
        #[test]
        fn stays_are_what_happened(steps in proptest::collection::vec(0u8..4, 0..60)) {
            let (mut membership, mut head, mut mine) = (of(&[]), 0, Vec::new());
            for step in steps {
                match step {
                    0 => prop_assert_eq!(!membership.is_current(), membership.join(head)),
                    1 => prop_assert_eq!(membership.is_current(), membership.leave(head)),
                    _ => {
                        head += 1;
                        mine.extend(membership.is_current().then_some(head));
                    }
                }
                let covered: Vec<_> = (1..=head).filter(|at| membership.covers(*at)).collect();
                prop_assert_eq!(&covered, &mine);
                for to in 0..=head {
                    let newest = mine.iter().copied().filter(|at| *at <= to).max();
                    prop_assert_eq!(membership.newest_at(to), newest);
                }
                let stays = &membership.stays;
                prop_assert!(stays.iter().all(|stay| stay.through.is_none_or(|through| through > stay.after)));
                prop_assert!(stays.windows(2).all(|two| two[0].through.is_some_and(|through| through < two[1].after)));
                for delivered in 0..=head {
                    let floor = membership.floor(delivered);
                    prop_assert!(floor >= delivered && floor <= head);
                    prop_assert!(!membership.covers_any(delivered + 1, floor), "a floor passed what is the user's");
                }
            }
        }
    }
}
