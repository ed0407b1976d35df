//! Memberships change while sessions are there: whoever joins a topic hears it from then on, whoever leaves hears
//! nothing more of it.
//!
//! An import brings a hundred thousand changes at once. They are gone through in parts, a part in a turn; while some
//! wait, no topic's ring goes on, so that nothing that was appended after a change goes out by the seats before it.
//!
//! Invariant: changes are done in the order in which they were made, and before anything that was appended after
//! them is sent by seats. Where some may have been lost, nothing of a member's topic is sent unless the engine says
//! that it is the user's, until it was asked who is a member.

use super::*;
use crate::mailbox::Relook;
use postrider_engine::{MemberWake, Starts, StartsWanted};
use std::collections::{HashMap, HashSet};

/// What one turn may spend on changes: each costs one for finding out whether its user is here, and so many more for
/// each of the user's sessions.
const CHANGE_BUDGET: usize = 1024;
const SESSION_COST: usize = 16;
/// Sessions whose memberships are asked for in one task, and such tasks of one loop at a time.
const RELOOKS_AT_ONCE: usize = 256;
const RELOOK_TASKS: usize = 2;

/// Changes that wait, and sessions whose memberships are to be looked up.
#[derive(Default)]
pub(super) struct Members {
    changes: VecDeque<(Arc<[MemberWake]>, usize)>,
    unsure: VecDeque<Key>,
    /// The same, to have each once.
    queued: HashSet<Key>,
    /// Those that are being looked up, none of which is unsure: whether something changed meanwhile.
    looking: HashMap<Key, bool>,
    tasks: usize,
}

impl Members {
    /// Whether changes wait for a turn.
    pub fn is_busy(&self) -> bool {
        !self.changes.is_empty()
    }

    /// Memberships changed.
    pub fn changed(&mut self, changes: Arc<[MemberWake]>) {
        self.changes.push_back((changes, 0));
    }

    /// A session's memberships are to be looked up.
    fn doubt(&mut self, key: Key) {
        if !self.touch(key) && self.queued.insert(key) {
            self.unsure.push_back(key);
        }
    }

    /// Where a session is being looked up, what comes of that may be of before, and it will be again. Says whether it
    /// is.
    fn touch(&mut self, key: Key) -> bool {
        let looking = self.looking.get_mut(&key);
        looking.map(|changed| *changed = true).is_some()
    }

    /// The next that are to be looked up; [`Members::looks`] says of which that begins.
    fn next_unsure(&mut self) -> Vec<Key> {
        let many = self.unsure.len().min(RELOOKS_AT_ONCE);
        let keys: Vec<_> = self.unsure.drain(..many).collect();
        for key in &keys {
            self.queued.remove(key);
        }
        if self.unsure.is_empty() {
            // At rest it keeps no memory.
            (self.unsure, self.queued) = Default::default();
        }
        keys
    }

    fn looks(&mut self, key: Key) {
        self.looking.insert(key, false);
    }

    /// A session was looked up. Says whether something changed meanwhile.
    fn looked(&mut self, key: Key) -> bool {
        self.looking.remove(&key).unwrap_or(true) || self.is_busy()
    }
}

impl Shard {
    /// Goes through the changes that wait, as far as one turn may.
    pub(super) fn change_members(&mut self) {
        let mut left = CHANGE_BUDGET;
        while let Some((changes, done)) = self.members.changes.pop_front() {
            for (nth, change) in changes.iter().enumerate().skip(done) {
                if left == 0 {
                    return self.members.changes.push_front((changes.clone(), nth));
                }
                left = left.saturating_sub(1 + self.change_member(change) * SESSION_COST);
            }
        }
        // At rest it keeps no memory.
        self.members.changes = VecDeque::new();
    }

    /// Says how many sessions it concerned.
    fn change_member(&mut self, change: &MemberWake) -> usize {
        let slots = self.hearers.slots_of(&change.user);
        for slot in &slots {
            self.change_session(*slot as usize, change);
        }
        slots.len()
    }

    pub(super) fn change_session(&mut self, slot: usize, change: &MemberWake) {
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        let key = connection.key;
        match &mut connection.stage {
            Stage::Live(_) => {}
            Stage::Opening(opening) => return opening.member_changed(change),
            _ => return,
        }
        self.members.touch(key);
        let (topic, at) = (&change.topic, change.at);
        let effect = match change.joins {
            true => Effect::Joined(topic, at),
            false => Effect::Left(topic, at),
        };
        self.apply(slot, effect);
        self.reseat_and_look(slot);
    }

    /// [`Shard::reseat`]; where feeds are followed, what came to a new one before it was is found by one look.
    fn reseat_and_look(&mut self, slot: usize) {
        if self.reseat(slot) && self.shared.follows.is_on() {
            self.apply(slot, Effect::SuspectMembers);
        }
    }

    /// Gives a session the seats of the topics that it hears, and takes those of others. Says whether some are new.
    pub(super) fn reseat(&mut self, slot: usize) -> bool {
        let Some(connection) = self.connections.get_mut(slot) else {
            return false;
        };
        let Stage::Live(live) = &connection.stage else {
            return false;
        };
        let (user, heard) = (live.session.user(), live.session.heard_topics());
        self.hearers.reseat(slot, user, &mut connection.seats, heard)
    }

    /// Changes were lost: who is a member of what has to be looked up for everyone.
    pub(super) fn members_lost(&mut self) {
        for slot in self.live_slots() {
            match self
                .connections
                .get_mut(slot)
                .map(|connection| &mut connection.stage)
            {
                Some(Stage::Live(live)) => live.session.doubt_members(),
                Some(Stage::Opening(opening)) => opening.meanwhile.members_unsure = true,
                _ => continue,
            }
            self.look_up_members(slot);
        }
    }

    /// Looks up the memberships of a session, which may not be as it knows them.
    pub(super) fn look_up_members(&mut self, slot: usize) {
        if let Some(connection) = self.connections.get(slot)
            && matches!(connection.stage, Stage::Live(_))
        {
            self.members.doubt(connection.key);
        }
    }

    /// Hands what is to be looked up to tasks, as far as there may be more of them.
    pub(super) fn start_relooks(&mut self) {
        // A change that waits may be older than the answer, and must not come after it.
        while self.members.tasks < RELOOK_TASKS && !self.members.unsure.is_empty() && !self.members.is_busy()
        {
            let keys = self.members.next_unsure().into_iter();
            let (relooks, wanted): (Vec<_>, Vec<_>) = keys.filter_map(|key| self.relook(key)).unzip();
            if relooks.is_empty() {
                continue;
            }
            self.members.tasks += 1;
            let (shared, mailbox) = (self.shared.clone(), self.mailbox.clone());
            self.shared.spawn(async move {
                let starts = shared.engine.starts(&wanted).await;
                if starts.iter().any(Result::is_err) {
                    tokio::time::sleep(SETTLE_PAUSE * 10).await;
                }
                mailbox.post(Post::Members(relooks.into_iter().zip(starts).collect()));
            });
        }
    }

    fn relook(&mut self, key: Key) -> Option<(Relook, StartsWanted)> {
        let connection = self.connections.get(key.slot).filter(|at| at.key == key)?;
        let Stage::Live(live) = &connection.stage else {
            return None;
        };
        self.members.looks(key);
        let relook = Relook {
            key,
            session: live.session.id().clone(),
        };
        let wanted = StartsWanted {
            user: live.session.user().clone(),
            places: Vec::new(),
            // The client goes on: of a topic that is new to it, it lacks all that came since the join.
            cursor: Some(Cursor::default()),
            state: false,
        };
        Some((relook, wanted))
    }

    /// The engine said who is a member of what.
    pub(super) fn members_known(
        &mut self,
        known: Vec<(Relook, Result<Starts, postrider_engine::EngineError>)>,
    ) {
        self.members.tasks = self.members.tasks.saturating_sub(1);
        for (relook, starts) in known {
            let changed = self.members.looked(relook.key);
            let slot = relook.key.slot;
            if !self.is_current(relook.key) {
                continue;
            }
            match starts {
                _ if !self.is_session(slot, &relook.session) => {
                    if changed {
                        // It may be the connection's next session that is to be looked up.
                        self.look_up_members(slot);
                    }
                }
                Ok(starts) if !changed => {
                    self.apply(slot, Effect::MembersAre(&member_feeds(starts.members)));
                    self.reseat_and_look(slot);
                }
                outcome => {
                    if let Err(error) = outcome
                        && let Some(unsaid) = self.turn.complaints.members.due(self.turn.now)
                    {
                        tracing::warn!(%error, unsaid, "memberships could not be looked up; they will be again");
                    }
                    self.look_up_members(slot);
                }
            }
        }
    }
}

/// Where the topics of a user stand, as a session takes it.
pub(super) fn member_feeds(
    members: Vec<postrider_engine::MemberStart>,
) -> Vec<postrider_delivery::MemberFeed> {
    members
        .into_iter()
        .map(|member| postrider_delivery::MemberFeed {
            topic: member.topic,
            is_current: member.is_current,
            place: member.place,
            start: member.start,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(slot: usize) -> Key {
        Key { slot, generation: 1 }
    }

    #[test]
    fn what_was_asked_before_a_change_is_not_believed_though_it_was_doubted_again() {
        let mut members = Members::default();
        members.doubt(key(1));
        assert_eq!(members.next_unsure(), [key(1)]);
        members.looks(key(1));
        // A change, and then another loss while the first is being looked up.
        assert!(members.touch(key(1)));
        members.doubt(key(1));
        assert_eq!(members.next_unsure(), [], "it is looked up once at a time");
        assert!(members.looked(key(1)), "it is of before the change");
        members.doubt(key(1));
        assert_eq!(members.next_unsure(), [key(1)]);
        members.looks(key(1));
        assert!(!members.looked(key(1)));
    }

    #[test]
    fn who_is_doubted_again_and_again_waits_once_and_in_order() {
        let mut members = Members::default();
        let all: Vec<_> = (0..RELOOKS_AT_ONCE + 2).map(key).collect();
        for _ in 0..3 {
            all.iter().for_each(|key| members.doubt(*key));
            assert_eq!(members.unsure.len(), all.len());
        }
        assert_eq!(members.next_unsure(), all[..RELOOKS_AT_ONCE]);
        members.doubt(key(0));
        assert_eq!(
            members.next_unsure(),
            [all[all.len() - 2], all[all.len() - 1], key(0)]
        );
        assert!(members.queued.is_empty());
    }
}
