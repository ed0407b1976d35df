//! Users' state maps on their way to sessions that asked for them: the map first, then every change in order. A
//! session whose socket takes no more gets the newest once it takes some again, and none of those between. Where changes
//! may have been lost it is looked up, and told if it is another one, also where the engine went back to an older one.
//!
//! Invariant: of one session, versions only rise, but where a look found that the engine has an older one. A session that
//! is to be looked up stands in the queue for that once. Sessions that did not ask cost nothing.

use super::*;
use crate::mailbox::{Relook, StateLook};
use crate::sse;
use bytes::Bytes;
use postrider_delivery::{StateStep, StateTold};
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

struct Follower {
    /// What was sent last.
    told: StateTold,
    /// There is another one, which it had no room for.
    owed: bool,
    /// It stands among those whose map is to be looked up.
    wanted: bool,
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
    /// A session that was told this map follows from now on.
    pub fn follow(&mut self, slot: usize, state: &UserState) {
        self.forget(slot);
        let follower = Follower {
            told: StateTold::begin(state),
            owed: false,
            wanted: false,
        };
        self.followers.insert(slot, follower);
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
            self.want(key);
        }
    }

    /// The map is to be looked up, if this session follows it.
    fn want(&mut self, key: Key) {
        if let Some(follower) = self.followers.get_mut(&key.slot)
            && !std::mem::replace(&mut follower.wanted, true)
        {
            self.wanted.push_back(key);
        }
    }

    /// It is looked up now: what its client has before that.
    fn looks(&mut self, slot: usize) -> Option<StateTold> {
        let follower = self.followers.get_mut(&slot)?;
        follower.wanted = false;
        Some(follower.told)
    }
}

impl Shard {
    /// A user's state map changed.
    pub(super) fn state_changed(&mut self, user: &UserId, state: &Arc<UserState>) {
        let mut frames = Frames::new(state);
        for slot in self.hearers.slots_of(user) {
            self.state_woken(slot as usize, &mut frames);
        }
    }

    fn state_woken(&mut self, slot: usize, frames: &mut Frames<'_>) {
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        if let Stage::Opening(opening) = &mut connection.stage {
            return opening.state_changed(frames.state);
        }
        if let Some(follower) = self.states.followers.get(&slot) {
            let step = follower.told.woken(frames.state);
            self.state_step(slot, step, frames);
        }
    }

    fn state_step(&mut self, slot: usize, step: StateStep, frames: &mut Frames<'_>) {
        match step {
            StateStep::Nothing => {}
            StateStep::Tell => self.tell_state(slot, frames),
            StateStep::Look => self.look_up_state(slot),
        }
    }

    fn tell_state(&mut self, slot: usize, frames: &mut Frames<'_>) {
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        let state = frames.state;
        let Stage::Live(live) = &mut connection.stage else {
            return;
        };
        let Some(follower) = self.states.followers.get_mut(&slot) else {
            return;
        };
        let has_room = connection.out.waiting() < self.turn.rules.bounds.outbox;
        match &mut live.wire {
            Wire::Poll(poll) => poll.state_changed(state),
            _ if !has_room => return self.states.owe(slot, true),
            // Its clients ask for none.
            Wire::Raw { .. } => {}
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
        follower.told.tell(state);
        self.states.owe(slot, false);
        self.touch(slot);
    }

    /// As [`Shard::state_changed`], for one session.
    pub(super) fn state_came(&mut self, slot: usize, state: &Arc<UserState>) {
        self.state_woken(slot, &mut Frames::new(state));
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
        if let Some(connection) = self.connections.get(slot) {
            self.states.want(connection.key);
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
                for look in wanted {
                    let state = shared.engine.state(&look.user).await;
                    if state.is_err() {
                        tokio::time::sleep(SETTLE_PAUSE).await;
                    }
                    found.push((look, state.map(Arc::new)));
                }
                mailbox.post(Post::States(found));
            });
        }
    }

    fn who_follows(&mut self, key: Key) -> Option<StateLook> {
        let connection = self.connections.get(key.slot).filter(|at| at.key == key)?;
        let Stage::Live(live) = &connection.stage else {
            return None;
        };
        let session = live.session.id().clone();
        Some(StateLook {
            relook: Relook { key, session },
            user: live.session.user().clone(),
            before: self.states.looks(key.slot)?,
        })
    }

    /// State maps that were looked up.
    pub(super) fn states_came(&mut self, found: Vec<(StateLook, Result<Arc<UserState>, EngineError>)>) {
        self.states.tasks = self.states.tasks.saturating_sub(1);
        for (look, state) in found {
            let slot = look.relook.key.slot;
            if !self.is_current(look.relook.key) || !self.is_session(slot, &look.relook.session) {
                continue;
            }
            match state {
                Ok(state) => self.state_looked(slot, &look.before, &state),
                Err(error) => {
                    if let Some(unsaid) = self.turn.complaints.state.due(self.turn.now) {
                        tracing::warn!(%error, unsaid, "a state could not be looked up; it will be again");
                    }
                    self.look_up_state(slot);
                }
            }
        }
    }

    fn state_looked(&mut self, slot: usize, before: &StateTold, state: &Arc<UserState>) {
        if let Some(follower) = self.states.followers.get_mut(&slot) {
            let step = follower.told.looked(before, state);
            self.state_step(slot, step, &mut Frames::new(state));
        }
    }
}
