//! Sessions of the notify dialect begin: what a request for one comes to, and the welcome that its client waits for
//! between its first two frames.
//!
//! A welcome is asked for many at a time, by few tasks: a reconnect storm costs a handful of them.

use super::*;
use crate::connection::Cors;
use crate::head::Head;
use crate::notify::{self, Reading};
use crate::outside::{Unavailable, Welcome};
use postrider_engine::{EngineError, Starts, StartsWanted};
use postrider_model::{Topic, UserState};
use std::collections::BTreeMap;

/// Sessions that one task has welcomed, and such tasks of one loop at a time.
const WELCOMED_AT_ONCE: usize = 256;
const TASKS: usize = 2;

/// What the welcome of a session needs.
type Wanted = (Key, StartsWanted, Vec<Topic>);

/// Sessions that wait for their welcome; no more than connections.
#[derive(Default)]
pub(super) struct Welcomes {
    wanted: VecDeque<Wanted>,
    tasks: usize,
}

impl Shard {
    /// Whether a request asks for the dialect.
    pub(super) fn is_notify(&self, head: &Head<'_>) -> bool {
        let rules = self.shared.notify.get();
        head.method == "GET" && rules.is_some_and(|rules| rules.path == head.path)
    }

    /// Acts on such a request, whose head has so many bytes; `rest` is what the client sent after the head. False where its form has yet to come.
    pub(super) fn take_notify_head(
        &mut self,
        slot: usize,
        head: &Head<'_>,
        head_length: usize,
        rest: &[u8],
    ) -> bool {
        let Some(rules) = self.shared.notify.get() else {
            return true;
        };
        let length = match notify::form_length(head, head_length) {
            Ok(length) => length,
            Err(problem) => {
                self.answer(slot, &problem, false, &[]);
                return true;
            }
        };
        let Some((form, rest)) = rest.split_at_checked(length) else {
            return false;
        };
        let client = self.connections.get(slot).and_then(|at| at.client);
        let (gate, max_feeds) = (&*self.shared.gate, self.turn.rules.bounds.max_feeds);
        match notify::read(head, form, client, rules, gate, self.turn.wall, max_feeds) {
            Reading::Open(request) => self.begin(slot, *request, Vec::new(), rest.to_vec()),
            Reading::Refused(handshake, problem) => self.refuse_notify(slot, &handshake, &problem),
            Reading::Unanswerable(problem) => self.answer(slot, &problem, false, &[]),
        }
        true
    }

    /// No session comes of this request: its client is told so, as it understands it.
    pub(super) fn refuse(&mut self, slot: usize, wire: &WireRequest, problem: &Problem, cors: &Cors) {
        match wire {
            WireRequest::WebSocket(handshake, Dialect::Notify) => {
                self.refuse_notify(slot, handshake, problem);
            }
            WireRequest::Raw { trace, .. } => self.refuse_raw(slot, trace, problem, cors),
            _ => self.answer(slot, problem, false, cors),
        }
    }

    fn refuse_notify(&mut self, slot: usize, handshake: &websocket::Handshake, problem: &Problem) {
        self.push_upgrade(slot, handshake, &[]);
        self.end_notify(slot, problem);
    }

    /// The last words over a WebSocket that has been opened, and is no session yet.
    pub(super) fn end_notify(&mut self, slot: usize, problem: &Problem) {
        if let Some(connection) = self.connections.get_mut(slot) {
            connection.out.push(notify::error_frame(problem));
            connection.out.push(notify::refusal_close(problem));
            self.close(slot);
        }
    }

    /// The client is told at once who it is; where it stands takes a moment.
    pub(super) fn greet_notify(&mut self, slot: usize, wire: &WireRequest, user: &UserId) {
        let WireRequest::WebSocket(handshake, Dialect::Notify) = wire else {
            return;
        };
        self.push_upgrade(slot, handshake, &[]);
        if let Some(connection) = self.connections.get_mut(slot) {
            connection.out.append(|out| notify::push_connect_frame(out, user));
        }
        self.touch(slot);
    }

    /// Asks where the feeds of an opening session stand: of the dialect's also for the welcome, if anybody gives one.
    pub(super) fn ask_to_open(&mut self, key: Key, wanted: StartsWanted, topics: Option<Vec<Topic>>) {
        match topics.filter(|_| self.shared.welcome.get().is_some()) {
            Some(topics) => {
                // The welcome says what its state is.
                let wanted = StartsWanted {
                    state: false,
                    ..wanted
                };
                self.welcomes.wanted.push_back((key, wanted, topics));
            }
            None => self.ask_starts(key, wanted),
        }
    }

    /// Hands those that wait for a welcome to tasks, as far as there may be more of them.
    pub(super) fn start_welcomes(&mut self) {
        let Some(welcome) = self.shared.welcome.get() else {
            return;
        };
        while self.welcomes.tasks < TASKS && !self.welcomes.wanted.is_empty() {
            self.welcomes.tasks += 1;
            let many = self.welcomes.wanted.len().min(WELCOMED_AT_ONCE);
            let wanted: Vec<_> = self.welcomes.wanted.drain(..many).collect();
            let (shared, mailbox, welcome) = (self.shared.clone(), self.mailbox.clone(), welcome.clone());
            self.shared.spawn(async move {
                mailbox.post(Post::Welcomed(welcomed(&shared, &*welcome, wanted).await));
            });
        }
    }

    /// Sessions that were welcomed together.
    pub(super) fn welcomed(&mut self, opened: Vec<(Key, Result<Starts, EngineError>)>) {
        self.welcomes.tasks = self.welcomes.tasks.saturating_sub(1);
        for (key, starts) in opened {
            self.opened(key, starts);
        }
    }
}

async fn welcomed(
    shared: &Shared,
    welcome: &dyn Welcome,
    wanted: Vec<Wanted>,
) -> Vec<(Key, Result<Starts, EngineError>)> {
    let (mut keys, mut whom, mut asked) = (Vec::new(), Vec::new(), Vec::new());
    for (key, starts, topics) in wanted {
        keys.push(key);
        whom.push((starts.user.clone(), topics));
        asked.push(starts);
    }
    let (starts, states) = tokio::join!(super::reading::starts(shared, &asked), welcome.welcome(&whom));
    let mut states = states.into_iter();
    let both = starts.into_iter().map(|starts| {
        let state = states.next();
        starts.and_then(|starts| with_state(starts, state))
    });
    keys.into_iter().zip(both).collect()
}

fn with_state(
    starts: Starts,
    state: Option<Result<BTreeMap<String, String>, Unavailable>>,
) -> Result<Starts, EngineError> {
    let unanswered = || Unavailable("no answer".into());
    match state.unwrap_or_else(|| Err(unanswered())) {
        Ok(map) => Ok(Starts {
            state: Some(Arc::new(UserState::new(0, map))),
            ..starts
        }),
        Err(error) => Err(EngineError::Store(format!("a user's welcome: {error}"))),
    }
}
