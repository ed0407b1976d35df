//! Users' state maps on their way to sessions that asked for them: the map first, then every change in order. A
//! session whose socket takes no more gets the newest once it takes some again, and none of those between.
//!
//! Invariant: of one session, versions only rise. Sessions that did not ask cost nothing.

use super::*;
use crate::mailbox::Relook;
use crate::sse;
use bytes::Bytes;
use postrider_engine::EngineError;
use postrider_model::UserState;
use std::collections::HashMap;

/// State maps looked up in one task, and such tasks of one loop at a time.
const LOOKED_UP_AT_ONCE: usize = 64;
const TASKS: usize = 2;

/// Who follows a state map.
#[derive(Default)]
pub(super) struct States {
    /// By slot.
    followers: HashMap<usize, Follower>,
    /// How many of them are owed a newer version.
    owed: usize,
    /// Those whose map is to be looked up.
    wanted: VecDeque<Key>,
    tasks: usize,
}

#[derive(Default)]
struct Follower {
    /// What was sent last.
    version: u64,
    /// There is a newer one, which it had no room for.
    owed: bool,
}

/// A map as the wires say it, each made at its first use.
struct Frames<'a> {
    state: &'a Arc<UserState>,
    sse: Option<Bytes>,
    websocket: Option<Bytes>,
}

impl<'a> Frames<'a> {
    fn new(state: &'a Arc<UserState>) -> Frames<'a> {
        Frames {
            state,
            sse: None,
            websocket: None,
        }
    }
}

impl States {
    /// A session that was told this version follows from now on.
    pub fn follow(&mut self, slot: usize, version: u64) {
        self.forget(slot);
        let owed = false;
        self.followers.insert(slot, Follower { version, owed });
    }

    /// A session ended.
    pub fn forget(&mut self, slot: usize) {
        if self.followers.is_empty() {
            return;
        }
        if let Some(gone) = self.followers.remove(&slot) {
            self.owed -= usize::from(gone.owed);
        }
        if self.followers.is_empty() {
            // At rest it keeps no memory.
            self.followers = HashMap::new();
        }
    }

    fn owe(&mut self, slot: usize, owed: bool) {
        if let Some(follower) = self.followers.get_mut(&slot)
            && follower.owed != owed
        {
            follower.owed = owed;
            self.owed = if owed { self.owed + 1 } else { self.owed - 1 };
        }
    }

    /// Its socket has taken what waited: if it is owed a version, that is to be looked up.
    pub fn has_room(&mut self, key: Key) {
        if self.owed > 0
            && self
                .followers
                .get(&key.slot)
                .is_some_and(|follower| follower.owed)
        {
            self.owe(key.slot, false);
            self.wanted.push_back(key);
        }
    }
}

impl Shard {
    /// A user's state map changed.
    pub(super) fn state_changed(&mut self, user: &UserId, state: &Arc<UserState>) {
        let mut frames = Frames::new(state);
        for slot in self.hearers.slots_of(user) {
            self.tell_state(slot as usize, &mut frames);
        }
    }

    fn tell_state(&mut self, slot: usize, frames: &mut Frames<'_>) {
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        let (state, version) = (frames.state, frames.state.version());
        let live = match &mut connection.stage {
            Stage::Live(live) => live,
            Stage::Opening(opening) => return opening.state_changed(state),
            _ => return,
        };
        let Some(follower) = self.states.followers.get_mut(&slot) else {
            return;
        };
        if version <= follower.version {
            return;
        }
        let has_room = connection.out.waiting() < self.turn.rules.bounds.outbox;
        match &mut live.wire {
            Wire::Poll(poll) => poll.state_changed(state),
            _ if !has_room => return self.states.owe(slot, true),
            Wire::Sse { .. } => {
                let block = frames.sse.get_or_insert_with(|| sse::state(state.json()));
                connection.out.push(block.clone());
            }
            Wire::WebSocket { .. } => {
                let frame = frames
                    .websocket
                    .get_or_insert_with(|| websocket::state_frame(state.json()));
                connection.out.push(frame.clone());
            }
        }
        follower.version = version;
        self.states.owe(slot, false);
        self.touch(slot);
    }

    /// As [`Shard::state_changed`], for one session.
    pub(super) fn state_came(&mut self, slot: usize, state: &Arc<UserState>) {
        self.tell_state(slot, &mut Frames::new(state));
    }

    /// Changes were lost: everyone who follows one is to look.
    pub(super) fn states_lost(&mut self) {
        for slot in self.live_slots() {
            let Some(connection) = self.connections.get_mut(slot) else {
                continue;
            };
            match &mut connection.stage {
                Stage::Opening(opening) => opening.meanwhile.state_unsure = true,
                _ => self.look_up_state(slot),
            }
        }
    }

    /// Looks up the state map that a session follows, if it does.
    pub(super) fn look_up_state(&mut self, slot: usize) {
        if self.states.followers.contains_key(&slot)
            && let Some(connection) = self.connections.get(slot)
        {
            self.states.wanted.push_back(connection.key);
        }
    }

    /// Hands what is to be looked up to tasks, as far as there may be more of them.
    pub(super) fn start_state_looks(&mut self) {
        while self.states.tasks < TASKS && !self.states.wanted.is_empty() {
            let many = self.states.wanted.len().min(LOOKED_UP_AT_ONCE);
            let keys: Vec<_> = self.states.wanted.drain(..many).collect();
            let wanted: Vec<_> = keys.into_iter().filter_map(|key| self.who_follows(key)).collect();
            if wanted.is_empty() {
                continue;
            }
            self.states.tasks += 1;
            let (shared, mailbox) = (self.shared.clone(), self.mailbox.clone());
            self.shared.spawn(async move {
                let mut found = Vec::with_capacity(wanted.len());
                for (relook, user) in wanted {
                    let state = shared.engine.state(&user).await;
                    if state.is_err() {
                        tokio::time::sleep(SETTLE_PAUSE).await;
                    }
                    found.push((relook, state.map(Arc::new)));
                }
                mailbox.post(Post::States(found));
            });
        }
    }

    fn who_follows(&self, key: Key) -> Option<(Relook, UserId)> {
        let connection = self.connections.get(key.slot).filter(|at| at.key == key)?;
        let Stage::Live(live) = &connection.stage else {
            return None;
        };
        let session = live.session.id().clone();
        Some((Relook { key, session }, live.session.user().clone()))
    }

    /// State maps that were looked up.
    pub(super) fn states_came(&mut self, found: Vec<(Relook, Result<Arc<UserState>, EngineError>)>) {
        self.states.tasks = self.states.tasks.saturating_sub(1);
        for (relook, state) in found {
            let slot = relook.key.slot;
            if !self.is_current(relook.key) || !self.is_session(slot, &relook.session) {
                continue;
            }
            match state {
                Ok(state) => self.state_came(slot, &state),
                Err(error) => {
                    tracing::warn!(%error, "a state could not be looked up; it will be again");
                    self.look_up_state(slot);
                }
            }
        }
    }
}
