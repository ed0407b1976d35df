//! What several nodes say of who is there, as one. Pure.
//!
//! Invariant: a user is there as long as one node says so. Whoever follows what [`Merge`] tells knows who is there on
//! all nodes whose beginning has come.

#[cfg(doc)]
use crate::Marks;
use crate::{PresenceNews, TopicPresence, TopicShare};
use postrider_model::{Timestamp, UserId};
use std::collections::{BTreeSet, HashMap, HashSet};

/// Who hears a topic on all of these nodes, with a page of at most `limit`.
///
/// Users who hear it on several nodes are counted once: exactly where no node has more than [`Marks::MOST`], else as
/// the share of them in a sample of so many, which is off by about one in a hundred.
pub(super) fn joined(shares: Vec<TopicShare>, limit: usize) -> TopicPresence {
    let zeros = shares.iter().map(|share| share.marks.zeros()).max().unwrap_or(0);
    let (mut distinct, mut marked) = (HashSet::new(), 0u64);
    let (mut told, mut page) = (TopicPresence::default(), BTreeSet::new());
    for TopicShare { presence, mut marks } in shares {
        told.sessions += presence.sessions;
        told.users += presence.users;
        told.more |= presence.more;
        page.extend(presence.page);
        marks.thin(zeros);
        marked += marks.digests().count() as u64;
        distinct.extend(marks.digests());
    }
    let distinct = distinct.len() as u64;
    if let Some(users) = told.users.saturating_mul(distinct).checked_div(marked) {
        told.users = users;
    }
    // Each page has the first of its node, so that the first of them all are among these.
    told.more |= page.len() > limit;
    told.page = page.into_iter().take(limit).collect();
    told
}

/// Nodes that one watch can follow, this one among them.
pub(super) const MAX_NODES: usize = 128;

/// Users of one part of a beginning.
const PART: usize = 1_000;

/// Who is there, by node.
#[derive(Debug, Default)]
pub(super) struct Merge {
    nodes: Vec<Option<String>>,
    users: HashMap<UserId, There>,
    /// Nodes whose beginning has come whole.
    begun: u128,
}

/// On which nodes a user is; each is one bit.
#[derive(Debug, Default, Clone, Copy)]
struct There {
    now: u128,
    /// Of those nodes that began anew, by what they said before.
    before: u128,
}

impl Merge {
    fn bit(&mut self, node: &str) -> Option<u128> {
        let known = self.nodes.iter().position(|known| known.as_deref() == Some(node));
        let nth = known.or_else(|| {
            let free = self.nodes.iter().position(Option::is_none);
            let nth = free.unwrap_or(self.nodes.len());
            if nth >= MAX_NODES {
                return None;
            }
            match free {
                Some(free) => self.nodes[free] = Some(node.to_owned()),
                None => self.nodes.push(Some(node.to_owned())),
            }
            Some(nth)
        })?;
        Some(1 << nth)
    }

    /// Whether a node's beginning has come whole.
    pub fn has_begun(&self, node: &str) -> bool {
        let nth = self.nodes.iter().position(|known| known.as_deref() == Some(node));
        nth.is_some_and(|nth| self.begun & (1 << nth) != 0)
    }

    /// What comes next will be a node's beginning: what it said before holds until that is whole.
    pub fn begins(&mut self, node: &str) {
        let Some(bit) = self.bit(node) else { return };
        self.begun &= !bit;
        for there in self.users.values_mut() {
            there.before |= there.now & bit;
            there.now &= !bit;
        }
    }

    /// What a node tells. Says what that means for all of them.
    pub fn hear(&mut self, node: &str, news: PresenceNews, now: Timestamp) -> Vec<PresenceNews> {
        let Some(bit) = self.bit(node) else {
            return Vec::new();
        };
        match news {
            PresenceNews::Lagged => {
                self.begins(node);
                Vec::new()
            }
            PresenceNews::Change {
                user,
                online: true,
                at,
            } => self.comes(user, bit, at).into_iter().collect(),
            PresenceNews::Change {
                user,
                online: false,
                at,
            } => self.goes(&user, bit, at).into_iter().collect(),
            PresenceNews::Present { users, last } => {
                let came = |user| self.comes(user, bit, now);
                let mut told: Vec<_> = users.into_iter().filter_map(came).collect();
                if last {
                    self.begun |= bit;
                    told.extend(self.forget_before(bit, now));
                }
                told
            }
        }
    }

    /// A node is gone, and all that it said.
    pub fn gone(&mut self, node: &str, now: Timestamp) -> Vec<PresenceNews> {
        let Some(nth) = self.nodes.iter().position(|known| known.as_deref() == Some(node)) else {
            return Vec::new();
        };
        self.begins(node);
        self.nodes[nth] = None;
        self.forget_before(1 << nth, now)
    }

    /// Everyone who is there, in parts.
    pub fn everyone(&self) -> Vec<PresenceNews> {
        let users: Vec<_> = self.users.keys().cloned().collect();
        let mut parts: Vec<_> = users
            .chunks(PART)
            .map(|part| PresenceNews::Present {
                users: part.to_vec(),
                last: false,
            })
            .collect();
        match parts.last_mut() {
            Some(PresenceNews::Present { last, .. }) => *last = true,
            _ => parts.push(PresenceNews::Present {
                users: Vec::new(),
                last: true,
            }),
        }
        parts
    }

    fn comes(&mut self, user: UserId, bit: u128, at: Timestamp) -> Option<PresenceNews> {
        let there = self.users.entry(user.clone()).or_default();
        let is_new = there.now | there.before == 0;
        there.now |= bit;
        there.before &= !bit;
        is_new.then_some(PresenceNews::Change {
            user,
            online: true,
            at,
        })
    }

    fn goes(&mut self, user: &UserId, bit: u128, at: Timestamp) -> Option<PresenceNews> {
        let there = self.users.get_mut(user)?;
        there.now &= !bit;
        there.before &= !bit;
        if there.now | there.before != 0 {
            return None;
        }
        let (user, _) = self.users.remove_entry(user)?;
        Some(PresenceNews::Change {
            user,
            online: false,
            at,
        })
    }

    /// What a node said before it began anew, and did not say again, no longer holds.
    fn forget_before(&mut self, bit: u128, at: Timestamp) -> Vec<PresenceNews> {
        let mut left = Vec::new();
        self.users.retain(|user, there| {
            there.before &= !bit;
            let stays = there.now | there.before != 0;
            if !stays {
                left.push(PresenceNews::Change {
                    user: user.clone(),
                    online: false,
                    at,
                });
            }
            stays
        });
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn user(n: u32) -> UserId {
        UserId::new(&format!("u{n:06}")).unwrap()
    }

    fn share(users: impl Iterator<Item = u32> + Clone, limit: usize) -> TopicShare {
        let mut share = TopicShare::default();
        let all: BTreeSet<_> = users.map(user).collect();
        all.iter().for_each(|user| share.marks.add(user));
        share.presence = TopicPresence {
            sessions: all.len() as u64,
            users: all.len() as u64,
            more: all.len() > limit,
            page: all.into_iter().take(limit).collect(),
        };
        share
    }

    #[test]
    fn who_is_on_two_nodes_is_counted_once() {
        let told = joined(vec![share(0..10, 3), share(5..12, 3)], 3);
        assert_eq!((told.sessions, told.users, told.more), (17, 12, true));
        assert_eq!(told.page, [0, 1, 2].map(user));
        assert_eq!(joined(Vec::new(), 3), TopicPresence::default());
        let all = joined(vec![share(0..2, 3), share(1..3, 3)], 3);
        assert_eq!((all.page, all.more), (vec![user(0), user(1), user(2)], false));
    }

    #[test]
    fn of_many_users_the_count_is_about_right() {
        let told = joined(
            vec![share(0..60_000, 0), share(30_000..90_000, 0), share(0..10, 0)],
            0,
        );
        let off = told.users.abs_diff(90_000);
        assert!(off < 2_700, "{} of 90000", told.users);
    }

    /// What a follower knows.
    fn apply(here: &mut BTreeSet<UserId>, news: Vec<PresenceNews>) {
        for news in news {
            match news {
                PresenceNews::Present { users, .. } => here.extend(users),
                PresenceNews::Change {
                    user, online: true, ..
                } => assert!(here.insert(user), "came twice"),
                PresenceNews::Change {
                    user, online: false, ..
                } => assert!(here.remove(&user), "was not there"),
                PresenceNews::Lagged => here.clear(),
            }
        }
    }

    proptest! {
        /// Three nodes say what they like; whoever follows knows the union of what they said last.
        #[test]
        fn a_user_is_there_as_long_as_one_node_says_so(
            steps in proptest::collection::vec((0usize..3, 0u8..6, 0u32..5), 0..80)
        ) {
            let names = ["a", "b", "c"];
            let (mut merge, mut here) = (Merge::default(), BTreeSet::new());
            let mut truth: [BTreeSet<UserId>; 3] = Default::default();
            for (nth, step, n) in steps {
                let (node, at, who) = (names[nth], Timestamp(1), user(n));
                let news = match step {
                    0 | 1 => {
                        truth[nth].insert(who.clone());
                        merge.hear(node, PresenceNews::Change { user: who, online: true, at }, at)
                    }
                    2 | 3 => {
                        truth[nth].remove(&who);
                        merge.hear(node, PresenceNews::Change { user: who, online: false, at }, at)
                    }
                    4 => {
                        truth[nth].clear();
                        let news = merge.gone(node, at);
                        prop_assert!(!merge.has_begun(node));
                        news
                    }
                    _ => {
                        // It begins anew, and is heard whole.
                        truth[nth] = [who].into();
                        let mut told = merge.hear(node, PresenceNews::Lagged, at);
                        let users = truth[nth].iter().cloned().collect();
                        told.extend(merge.hear(node, PresenceNews::Present { users, last: true }, at));
                        prop_assert!(merge.has_begun(node));
                        told
                    }
                };
                apply(&mut here, news);
                let all: BTreeSet<_> = truth.iter().flatten().cloned().collect();
                prop_assert_eq!(&here, &all);
                let mut anew = BTreeSet::new();
                apply(&mut anew, merge.everyone());
                prop_assert_eq!(anew, all);
            }
        }
    }

    #[test]
    fn what_a_node_said_holds_until_its_new_beginning_is_whole() {
        let (mut merge, at) = (Merge::default(), Timestamp(1));
        let present = |users: Vec<UserId>, last| PresenceNews::Present { users, last };
        merge.hear("a", present(vec![user(1), user(2)], true), at);
        merge.begins("a");
        assert_eq!(merge.hear("a", present(vec![user(1)], false), at), []);
        let left = merge.hear("a", present(vec![user(3)], true), at);
        assert_eq!(left.len(), 2, "u3 came, u2 left: {left:?}");
    }
}
