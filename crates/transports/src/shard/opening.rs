//! Sessions begin: limits, seats, the engine's word where their feeds stand, and what the client is told first.
//!
//! A client that polls comes back on its connection again and again: between two of its polls no session is counted,
//! but the seats and the memory of the last one are kept, up to [`MAX_KEPT_SEATS`], and serve the next.
//!
//! Invariant: a connection that opens a session is counted for its user and its address, and has its seats.

use super::members::member_feeds;
use super::*;
use crate::addresses::Place;
use crate::connection::{Cors, Meanwhile};
use crate::live::{Followed, Whereabouts};
use postrider_delivery::{Opening as Asked, Session};
use postrider_engine::{EngineError, Starts};
use postrider_model::UserState;

/// With more seats of one user in a loop, its sessions' among them, a connection keeps none between two polls:
/// `limits.sessions_per_user` counts sessions only.
const MAX_KEPT_SEATS: usize = 64;
/// A client over WebSocket whose user has too many sessions comes back so much later, where nothing else is known.
const LIMIT_RETRY: Millis = Millis(30_000);

impl Shard {
    /// Begins a session: asks the engine where its feeds stand.
    pub(super) fn begin(&mut self, slot: usize, request: Request, cors: Cors, rest: Vec<u8>) {
        if self.turn.draining {
            return self.refuse(slot, &request.wire, &Problem::unavailable(1), &cors);
        }
        let client = self
            .connections
            .get(slot)
            .and_then(|connection| connection.client);
        let Some(place) = self.shared.addresses.take(client) else {
            return self.refuse(slot, &request.wire, &too_many_of_address(), &cors);
        };
        let user = &request.identity.user;
        let Some(came) = self.shared.sessions.take(user) else {
            return self.refuse_session(slot, &request.wire, &Problem::session_limit(), &cors);
        };
        // The last check: a request that was refused has not used its ticket up.
        let spent = request.ticket.as_ref().map_or(Ok(()), |(ticket, resumes)| {
            self.shared.gate.spend(ticket, *resumes, self.turn.wall)
        });
        if let Err(problem) = spent {
            self.session_refused(user, &came);
            return self.refuse(slot, &request.wire, &problem, &cors);
        }
        self.shared.sessions.tell(user, &came, self.roll_now());
        self.turn.stats.opened(request.wire.transport());
        let entrance = self.entrance(&request, came.sessions);
        let opening = self.opening(request, cors, rest);
        let kept = self.take_seats(slot, &opening.asked);
        self.greet_notify(slot, &opening.wire, &opening.asked.user);
        let starts = self.starts_at_once(&opening.asked, opening.state);
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        connection.place = place;
        match starts {
            Ok(starts) => {
                self.open(slot, opening, starts, kept, false);
                self.read_from_memory();
            }
            Err(wanted) => {
                let key = connection.key;
                let notify = opening.dialect() == Some(Dialect::Notify);
                let topics = notify.then(|| opening.asked.topics.clone());
                connection.stage = Stage::Opening(Box::new(opening));
                self.ask_to_begin(key, wanted, topics, entrance);
            }
        }
    }

    /// `limits.sessions_per_user` is reached.
    pub(super) fn refuse_session(&mut self, slot: usize, wire: &WireRequest, problem: &Problem, cors: &Cors) {
        let WireRequest::WebSocket(handshake, Dialect::Postrider) = wire else {
            return self.refuse(slot, wire, problem, cors);
        };
        let retry = problem
            .retry_after
            .map_or(LIMIT_RETRY, |s| Millis::from_secs(s.into()));
        self.push_upgrade(slot, handshake, cors);
        if let Some(connection) = self.connections.get_mut(slot) {
            connection.out.push(close_frame(4002, "session_limit", retry));
            self.close(slot);
        }
    }

    fn opening(&self, request: Request, cors: Cors, rest: Vec<u8>) -> Opening {
        let over_time = request.ack == AckMode::Explicit && request.wire.transport() != Transport::LongPoll;
        Opening {
            asked: Asked {
                session: self.shared.new_session_id(),
                user: request.identity.user,
                ack: request.ack,
                redelivery: over_time.then_some(self.turn.rules.redelivery),
                cursor: request.cursor,
                topics: request.topics,
            },
            expires_at: request.identity.expires_at,
            state: request.state,
            wire: request.wire,
            cors,
            rest,
            meanwhile: Meanwhile::default(),
        }
    }

    /// Seats a session: where the connection's poll before it sat, if that heard the same. What is left of that poll
    /// lends its memory.
    fn take_seats(&mut self, slot: usize, asked: &Asked) -> Option<Box<Live>> {
        let connection = self.connections.get_mut(slot)?;
        let kept = match &mut connection.stage {
            Stage::Head { kept, .. } => kept.take(),
            _ => None,
        };
        let hears = |session: &Session| *session.user() == asked.user && session.topics().eq(&asked.topics);
        if kept.as_ref().is_some_and(|kept| hears(&kept.session)) {
            self.hearers.rest(&asked.user, &mut connection.seats, false);
            return kept;
        }
        if let Some(kept) = &kept {
            self.hearers.leave(slot, kept.session.user(), &connection.seats);
        }
        connection.seats = self.hearers.join(slot, &asked.user, &asked.topics);
        kept
    }

    /// The engine said where the feeds of a session that waited for it stand.
    pub(super) fn opened(&mut self, key: Key, starts: Result<Starts, EngineError>) {
        let slot = key.slot;
        let Some(connection) = self.connections.get_mut(slot).filter(|at| at.key == key) else {
            return;
        };
        let Stage::Opening(opening) = &connection.stage else {
            return;
        };
        // A drain that began meanwhile has told only those who were there.
        let late = self.turn.draining && opening.wire.transport() != Transport::LongPoll;
        let starts = match starts {
            Ok(starts) if !late => starts,
            outcome => {
                if let Err(error) = outcome
                    && let Some(unsaid) = self.turn.complaints.opening.due(self.turn.now)
                {
                    tracing::warn!(%error, unsaid, "a session could not be opened");
                }
                let is_open = opening.dialect() == Some(Dialect::Notify);
                let trace = match &opening.wire {
                    WireRequest::Raw { trace, .. } => Some(trace.clone()),
                    _ => None,
                };
                return match (is_open, trace) {
                    (true, _) => self.end_notify(slot, &Problem::unavailable(1)),
                    (false, Some(trace)) => {
                        self.refuse_raw(slot, &trace, &Problem::unavailable(1), &Vec::new())
                    }
                    (false, None) => self.answer(slot, &Problem::unavailable(1), false, &[]),
                };
            }
        };
        let closing = Stage::Closing {
            deadline: self.turn.now.plus(CLOSING_TIMEOUT),
        };
        if let Stage::Opening(opening) = std::mem::replace(&mut connection.stage, closing) {
            self.open(slot, *opening, starts, None, true);
        }
    }

    /// The session is there: its client is greeted, and gets what is in memory for it. `is_late`: the engine said `starts`
    /// some time ago.
    fn open(
        &mut self,
        slot: usize,
        opening: Opening,
        starts: Starts,
        mut kept: Option<Box<Live>>,
        is_late: bool,
    ) {
        let Opening {
            asked,
            expires_at,
            state,
            wire,
            cors,
            rest,
            meanwhile,
        } = opening;
        let state = state.then(|| starts.state.unwrap_or_default());
        let starts = Whereabouts {
            feeds: starts.feeds,
            members: member_feeds(starts.members),
        };
        let mut frames = Vec::new();
        // Its clients are told their state once.
        let is_notify = matches!(wire, WireRequest::WebSocket(_, Dialect::Notify));
        let wire = match wire {
            WireRequest::WebSocket(handshake, dialect) => {
                if dialect == Dialect::Postrider {
                    self.push_upgrade(slot, &handshake, &cors);
                }
                frames = rest;
                let decoder = None;
                Wire::WebSocket { dialect, decoder }
            }
            WireRequest::Stream => self.begin_stream(slot, &cors),
            WireRequest::Raw { trace, is_chunked } => self.begin_raw(slot, &trace, is_chunked, &cors),
            WireRequest::Poll {
                wait_s,
                limit,
                keep_alive,
            } => {
                let poll = Poll {
                    entries: Vec::new(),
                    room: self.poll_room(slot),
                    limit: u16::try_from(limit).unwrap_or(u16::MAX),
                    gap: false,
                    dropped_transient: false,
                    keep_alive,
                    news: 0,
                    deadline: self.turn.now.plus(Millis::from_secs(u64::from(wait_s))),
                    more: More {
                        // Only what its client acknowledges by id comes to it again.
                        had: asked.cursor.clone().filter(|_| asked.ack == AckMode::Explicit),
                        repeats_at: self.turn.now.plus(REPEAT_PAUSE),
                        cors,
                        state: state.as_ref().map(|state| {
                            let had = asked.cursor.as_ref().and_then(Cursor::state);
                            Followed::new(state, had)
                        }),
                        rest,
                    }
                    .any(),
                };
                Live::poll_in(kept.as_mut(), poll)
            }
        };
        let lifetime = Lifetime::new(expires_at.map(|at| self.turn.steady(at)), self.turn.now);
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        let (key, out, turn) = (connection.key, &mut connection.out, &mut self.turn);
        greet(&wire, &asked, state.as_deref(), out);
        let mut live = Live::open(key, &asked, &starts, lifetime, wire, out, turn);
        if self.shared.follows.is_on() {
            // The engine may be shared by nodes, and outlive what it was told.
            live.session.expect_fall_back();
        }
        connection.stage = Stage::Live(match kept {
            Some(mut kept) => {
                *kept = live;
                kept
            }
            None => Box::new(live),
        });
        if let Some(state) = state.filter(|_| !is_notify) {
            self.states.follow(slot, &state);
        }
        self.hear_what_was_missed(slot, meanwhile, is_late);
        self.touch(slot);
        if !frames.is_empty() {
            self.received_frames(slot, &mut frames);
        }
        self.read_what_was_left(slot);
    }

    /// What happened while it was opening: first who is a member of what, as the entries that came are judged by that.
    fn hear_what_was_missed(&mut self, slot: usize, meanwhile: Meanwhile, is_late: bool) {
        if self.reseat(slot) && is_late {
            // What came before it had these seats is found by one look.
            self.apply(slot, Effect::SuspectMembers);
        }
        for change in &meanwhile.members {
            self.change_session(slot, change);
        }
        if meanwhile.members_unsure
            && let Some(live) = self.connections.get_mut(slot).and_then(Connection::live)
        {
            live.session.doubt_members();
            self.look_up_members(slot);
        }
        if !meanwhile.entries.is_empty() {
            self.apply(slot, Effect::Appended(&meanwhile.entries));
        }
        if meanwhile.more {
            self.apply(slot, Effect::Suspect);
        }
        for entry in &meanwhile.transients {
            self.apply(slot, Effect::Transient(entry));
        }
        self.turn.stats.dropped_transients(meanwhile.transients_lost);
        if let Some(state) = &meanwhile.state {
            self.state_came(slot, state);
        }
        if meanwhile.state_unsure {
            self.look_up_state(slot);
        }
    }

    fn begin_stream(&mut self, slot: usize, cors: &Cors) -> Wire {
        let Some(connection) = self.connections.get_mut(slot) else {
            return Wire::Sse { tcp_evidence: false };
        };
        stream_start(cors)
            .into_iter()
            .for_each(|bytes| connection.out.push(bytes));
        Wire::Sse {
            tcp_evidence: self.shared.tcp_evidence && connection.socket.is_direct(),
        }
    }

    /// Bytes of entries in a poll's answer.
    fn poll_room(&self, slot: usize) -> i32 {
        let is_direct = |connection: &Connection| connection.socket.is_direct();
        let room = match self.connections.get(slot).is_some_and(is_direct) {
            true => POLL_BYTES,
            // It is copied on its way, and waits beside others of the same client.
            false => BRIDGED_POLL_BYTES.min(self.turn.rules.bounds.outbox),
        };
        i32::try_from(room).unwrap_or(i32::MAX)
    }

    /// A poll was answered: its session ends. What is left of it is for the next one.
    pub(super) fn end_poll(&mut self, slot: usize) -> Option<Box<Live>> {
        let connection = self.connections.get_mut(slot)?;
        if connection.live()?.transport() != Transport::LongPoll {
            return None;
        }
        let closing = Stage::Closing {
            deadline: self.turn.now,
        };
        let Stage::Live(mut live) = std::mem::replace(&mut connection.stage, closing) else {
            return None;
        };
        live.rest();
        self.states.forget(slot);
        connection.place = Place::default();
        self.session_ended(live.session.user());
        self.turn.stats.ended(Transport::LongPoll);
        Some(live)
    }

    /// What is left of a poll, with its seats, unless its user has many; then the seats are left.
    pub(super) fn keep_seats(&mut self, slot: usize, live: Box<Live>) -> Option<Box<Live>> {
        let user = live.session.user();
        if self.hearers.seats_of(user) <= MAX_KEPT_SEATS {
            let seats = &mut self.connections.get_mut(slot)?.seats;
            self.hearers.rest(user, seats, true);
            return Some(live);
        }
        let seats = std::mem::take(&mut self.connections.get_mut(slot)?.seats);
        self.hearers.leave(slot, user, &seats);
        None
    }
}

/// What a session over time says before anything else.
fn greet(wire: &Wire, asked: &Asked, state: Option<&UserState>, out: &mut Outgoing) {
    let state = state.map(UserState::json);
    match wire {
        Wire::Poll(_) | Wire::Raw { .. } => {}
        Wire::Sse { .. } => state
            .into_iter()
            .for_each(|state| out.push(crate::sse::state(state))),
        Wire::WebSocket {
            dialect: Dialect::Notify,
            ..
        } => state
            .into_iter()
            .for_each(|state| out.push(crate::notify::state_frame(state))),
        Wire::WebSocket { .. } => {
            if cfg!(not(feature = "echo")) {
                out.append(|bytes| websocket::push_hello_frame(bytes, asked.session.as_str()));
            }
            state
                .into_iter()
                .for_each(|state| out.push(websocket::state_frame(state)));
        }
    }
}

/// `limits.sessions_per_address` is reached.
fn too_many_of_address() -> Problem {
    const RETRY_S: u32 = 30;
    Problem {
        detail: "Too many sessions come from this address. Close one, then connect again.".into(),
        ..Problem::rate_limited(RETRY_S)
    }
}
