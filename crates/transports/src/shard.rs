//! One loop per core: its sockets, its sessions, which sessions hear which feed. A turn takes what the
//! sockets and the mailbox bring, lets the sessions decide, and then makes one send per touched socket.

use crate::client_frame::{ClientFrame, Said};
use crate::connect::{self, Request, WireRequest};
use crate::connection::{Connection, Key, Opening, Socket, Stage};
use crate::head::{self, InboxRoute, Parsed};
use crate::hub::{Refer, Rules, Shared};
use crate::live::{
    Effect, Live, MAX_SETTLING, Next, OUTBOX_BYTES, Poll, REPEAT_PAUSE, Wire, close_frame, stream_start,
};
use crate::mailbox::{Mailbox, Post};
use crate::outgoing::Outgoing;
use crate::problem::Problem;
use crate::stats::HubStats;
use crate::websocket::{Decoder, Message};
use crate::{response, websocket};
use mio::{Events, Interest, Poll as Poller, Token};
use postrider_delivery::{AckMode, FeedStart, Lifetime};
use postrider_engine::{ReadLimit, Sync, Wake, read_inbox};
use postrider_model::{
    Cursor, Entry, Evidence, FeedId, Millis, SessionId, SettleTarget, Settlement, Timestamp, Transport,
    UserId,
};
use slab::Slab;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

const WAKER: Token = Token(usize::MAX);
const LISTENER: Token = Token(usize::MAX - 1);
/// One receive buffer per loop.
const READ_BUFFER: usize = 64 << 10;
/// Reads of one socket in one turn, so that a fast sender does not keep the others waiting.
const MAX_READS: usize = 8;
/// A request's head must be complete this soon.
const HEAD_TIMEOUT: Millis = Millis(10_000);
/// A connection between two requests may rest this long.
const KEEP_ALIVE_TIMEOUT: Millis = Millis(75_000);
/// After the last word, the other side has this long to take it and close.
const CLOSING_TIMEOUT: Millis = Millis(5_000);
/// Bytes that a client may send ahead of the answer to its poll.
const MAX_AHEAD: usize = head::MAX_HEAD;
/// How soon to accept again after the system refused (too many open files).
const ACCEPT_RETRY: Millis = Millis(100);
/// One page that a session reads.
const PAGE: ReadLimit = ReadLimit {
    entries: 256,
    bytes: OUTBOX_BYTES,
};
/// Tries to make a client's ack durable while the store is busy, and the pause between them.
const SETTLE_TRIES: u32 = 40;
const SETTLE_PAUSE: Duration = Duration::from_millis(50);
/// Settlements by evidence that may wait for a busy store; more are dropped, and those entries come again.
const MAX_UNFLUSHED: usize = 100_000;

/// What a turn gathers and what it goes by.
pub(crate) struct Turn {
    pub now: Timestamp,
    pub draining: bool,
    pub rules: Rules,
    pub stats: Arc<HubStats>,
    /// Pages to read: for whom, whose share, of what, after which offset.
    pub reads: Vec<(Key, UserId, FeedId, u64)>,
    /// Settlements by evidence, not yet handed to the engine.
    pub settlements: Vec<Settlement>,
}

pub(crate) struct Shard {
    poller: Poller,
    shared: Arc<Shared>,
    mailbox: Arc<Mailbox>,
    listener: Option<mio::net::TcpListener>,
    accept_again: Option<Timestamp>,
    connections: Slab<Connection>,
    generation: u64,
    /// Which slots hear a feed.
    feeds: HashMap<FeedId, Vec<usize>>,
    timers: BTreeSet<(Timestamp, usize)>,
    touched: Vec<usize>,
    /// Sockets with more to read than one turn took.
    unread: VecDeque<Key>,
    turn: Turn,
    flush_at: Option<Timestamp>,
    buffer: Box<[u8]>,
    stopping: bool,
}

impl Shard {
    /// A loop with its mailbox, not yet running.
    pub fn new(shared: Arc<Shared>) -> io::Result<(Shard, Arc<Mailbox>)> {
        let poller = Poller::new()?;
        let waker = mio::Waker::new(poller.registry(), WAKER)?;
        let mailbox = Arc::new(Mailbox::new(waker, shared.stats.clone()));
        let turn = Turn {
            now: (shared.clock)(),
            draining: false,
            rules: shared.rules,
            stats: shared.stats.clone(),
            reads: Vec::new(),
            settlements: Vec::new(),
        };
        let shard = Shard {
            poller,
            shared,
            mailbox: mailbox.clone(),
            listener: None,
            accept_again: None,
            connections: Slab::new(),
            generation: 0,
            feeds: HashMap::new(),
            timers: BTreeSet::new(),
            touched: Vec::new(),
            unread: VecDeque::new(),
            turn,
            flush_at: None,
            buffer: vec![0; READ_BUFFER].into(),
            stopping: false,
        };
        Ok((shard, mailbox))
    }

    pub fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        while !self.stopping {
            let wait = self.wait();
            if let Err(error) = self.poller.poll(&mut events, wait)
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "a shard cannot poll its sockets");
                return;
            }
            self.turn.now = (self.shared.clock)();
            for event in &events {
                match event.token() {
                    WAKER => {}
                    LISTENER => self.accept(),
                    Token(slot) => self.socket_event(
                        slot,
                        event.is_readable() || event.is_read_closed(),
                        event.is_writable(),
                    ),
                }
            }
            for key in std::mem::take(&mut self.unread) {
                if self.is_current(key) {
                    self.readable(key.slot);
                }
            }
            self.open_mail();
            self.run_timers();
            self.finish_touched();
            self.start_reads();
            self.flush_settlements(false);
        }
        self.flush_settlements(true);
    }

    fn wait(&self) -> Option<Duration> {
        if !self.unread.is_empty() {
            return Some(Duration::ZERO);
        }
        let next = self.timers.first().map(|(at, _)| *at);
        let next = [next, self.flush_at, self.accept_again]
            .into_iter()
            .flatten()
            .min()?;
        // A millisecond more, so that a timer is due when it is looked at.
        Some(next.since((self.shared.clock)()).as_duration() + Duration::from_millis(1))
    }

    fn is_current(&self, key: Key) -> bool {
        self.connections
            .get(key.slot)
            .is_some_and(|connection| connection.key == key)
    }

    // ---- sockets ----

    fn accept(&mut self) {
        self.accept_again = None;
        loop {
            let Some(listener) = &self.listener else { return };
            match listener.accept() {
                Ok((socket, _)) => {
                    if let Err(error) = socket.set_nodelay(true) {
                        tracing::debug!(%error, "a new connection was gone at once");
                        continue;
                    }
                    self.adopt(Socket::Tcp(socket), Vec::new());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted
                    ) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections");
                    self.accept_again = Some(self.turn.now.plus(ACCEPT_RETRY));
                    return;
                }
            }
        }
    }

    fn adopt(&mut self, mut socket: Socket, already_read: Vec<u8>) {
        if self.turn.stats.connected() > self.shared.max_connections {
            self.turn.stats.disconnected();
            tracing::warn!("too many connections; one was refused");
            return;
        }
        let entry = self.connections.vacant_entry();
        let slot = entry.key();
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self
            .poller
            .registry()
            .register(socket.source(), Token(slot), interest)
        {
            self.turn.stats.disconnected();
            tracing::warn!(%error, "cannot watch a socket");
            return;
        }
        self.generation += 1;
        entry.insert(Connection {
            key: Key {
                slot,
                generation: self.generation,
            },
            socket,
            out: Outgoing::default(),
            stage: Stage::Head {
                buffer: already_read,
                deadline: self.turn.now.plus(HEAD_TIMEOUT),
            },
            blocked: false,
            timer: None,
            touched: false,
            shut: false,
        });
        self.set_timer(slot, self.turn.now.plus(HEAD_TIMEOUT));
        self.try_head(slot);
    }

    fn socket_event(&mut self, slot: usize, readable: bool, writable: bool) {
        if writable
            && let Some(connection) = self.connections.get_mut(slot)
            && connection.blocked
        {
            connection.blocked = false;
            self.touch(slot);
        }
        if readable {
            self.readable(slot);
        }
    }

    fn readable(&mut self, slot: usize) {
        for _ in 0..MAX_READS {
            let Some(connection) = self.connections.get_mut(slot) else {
                return;
            };
            if matches!(&connection.stage, Stage::Live(live) if live.paused) {
                return;
            }
            let mut buffer = std::mem::take(&mut self.buffer);
            let read = connection.socket.read(&mut buffer);
            let outcome = match read {
                Ok(0) => Err(()),
                Ok(n) => {
                    self.received(slot, &mut buffer[..n]);
                    Ok(())
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.buffer = buffer;
                    return;
                }
                Err(_) => Err(()),
            };
            self.buffer = buffer;
            if outcome.is_err() {
                self.drop_connection(slot);
                return;
            }
        }
        if let Some(connection) = self.connections.get(slot) {
            self.unread.push_back(connection.key);
        }
    }

    fn received(&mut self, slot: usize, bytes: &mut [u8]) {
        let now = self.turn.now;
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        match &mut connection.stage {
            Stage::Head { buffer, .. } => {
                buffer.extend_from_slice(bytes);
                self.try_head(slot);
            }
            Stage::Opening(opening) => {
                opening.rest.extend_from_slice(bytes);
                if opening.rest.len() > MAX_AHEAD {
                    self.drop_connection(slot);
                }
            }
            Stage::Live(live) => {
                live.lifetime.heard(now);
                match &mut live.wire {
                    Wire::Poll(poll) => {
                        poll.rest.extend_from_slice(bytes);
                        if poll.rest.len() > MAX_AHEAD {
                            self.drop_connection(slot);
                        }
                    }
                    // A stream's client has nothing to say.
                    Wire::Sse { .. } => {}
                    Wire::WebSocket { .. } => self.received_frames(slot, bytes),
                }
            }
            Stage::Closing { .. } => {}
        }
    }

    fn drop_connection(&mut self, slot: usize) {
        let Some(mut connection) = self.connections.try_remove(slot) else {
            return;
        };
        if let Some(at) = connection.timer {
            self.timers.remove(&(at, slot));
        }
        self.leave_stage(slot, &connection.stage);
        if let Err(error) = self.poller.registry().deregister(connection.socket.source()) {
            tracing::debug!(%error, "a socket was not watched");
        }
        self.turn.stats.disconnected();
    }

    /// Undoes what a stage holds outside its connection: its place in the feeds, and in its user's count.
    fn leave_stage(&mut self, slot: usize, stage: &Stage) {
        let (feeds, user, transport): (Vec<FeedId>, &UserId, Transport) = match stage {
            Stage::Live(live) => (
                live.session.feeds().cloned().collect(),
                live.session.user(),
                live.transport(),
            ),
            Stage::Opening(opening) => {
                let asked = opening_of(opening);
                (
                    asked.feeds(),
                    &opening.request.identity.user,
                    opening.request.wire.transport(),
                )
            }
            Stage::Head { .. } | Stage::Closing { .. } => return,
        };
        for feed in feeds {
            if let Some(slots) = self.feeds.get_mut(&feed) {
                if let Some(at) = slots.iter().position(|held| *held == slot) {
                    slots.swap_remove(at);
                }
                if slots.is_empty() {
                    self.feeds.remove(&feed);
                }
            }
        }
        self.shared.sessions.release(user);
        self.turn.stats.ended(transport);
    }

    /// Moves a connection to another stage.
    fn enter(&mut self, slot: usize, stage: Stage) {
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        let old = std::mem::replace(&mut connection.stage, stage);
        self.leave_stage(slot, &old);
    }

    fn set_timer(&mut self, slot: usize, at: Timestamp) {
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        if connection.timer == Some(at) {
            return;
        }
        if let Some(old) = connection.timer.replace(at) {
            self.timers.remove(&(old, slot));
        }
        self.timers.insert((at, slot));
    }

    fn touch(&mut self, slot: usize) {
        if let Some(connection) = self.connections.get_mut(slot)
            && !connection.touched
        {
            connection.touched = true;
            self.touched.push(slot);
        }
    }

    // ---- requests ----

    /// Looks whether the head is complete, and acts on it.
    fn try_head(&mut self, slot: usize) {
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        let Stage::Head { buffer, .. } = &mut connection.stage else {
            return;
        };
        if buffer.is_empty() {
            return;
        }
        let bytes = std::mem::take(buffer);
        if head::is_http2_preface(&bytes) {
            return self.refer(slot, bytes);
        }
        match head::parse(&bytes) {
            Parsed::Partial => *buffer = bytes,
            Parsed::Invalid(problem) => self.answer(slot, &problem, false, &[]),
            Parsed::Complete(head, length) => match head::inbox_route(head.method, head.path) {
                None if connection.socket.is_direct() => self.refer(slot, bytes),
                None => self.answer(slot, &Problem::not_found(), false, &[]),
                Some(route) => {
                    let cors = head
                        .header("origin")
                        .and_then(|origin| self.shared.gate.cors(origin))
                        .unwrap_or_default();
                    let keep_alive = head.keep_alive() && !head.has_body();
                    match connect::read(&head, route, &*self.shared.gate, self.turn.now) {
                        Ok(request) => {
                            let rest = bytes[length..].to_vec();
                            self.begin(slot, request, route, cors, rest);
                        }
                        Err(problem) => {
                            let rest = bytes[length..].to_vec();
                            self.answer(slot, &problem, keep_alive, &cors);
                            if keep_alive {
                                self.next_request(slot, rest);
                            }
                        }
                    }
                }
            },
        }
    }

    /// Hands the connection over, with what was read of it.
    fn refer(&mut self, slot: usize, already_read: Vec<u8>) {
        let Some(mut connection) = self.connections.try_remove(slot) else {
            return;
        };
        if let Some(at) = connection.timer {
            self.timers.remove(&(at, slot));
        }
        if let Err(error) = self.poller.registry().deregister(connection.socket.source()) {
            tracing::debug!(%error, "a socket was not watched");
        }
        self.turn.stats.disconnected();
        if let Socket::Tcp(socket) = connection.socket {
            let refer: &dyn Refer = &*self.shared.refer;
            refer.refer(socket.into(), already_read);
        }
    }

    /// Answers with a problem, and ends the connection unless it may go on.
    fn answer(&mut self, slot: usize, problem: &Problem, keep_alive: bool, cors: &[(&'static str, String)]) {
        let extra: Vec<_> = cors.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        connection
            .out
            .push(response::problem(problem, keep_alive, &extra));
        if !keep_alive {
            self.close(slot);
        }
        self.touch(slot);
    }

    /// Everything is said: the rest is written, then the connection ends.
    fn close(&mut self, slot: usize) {
        let deadline = self.turn.now.plus(CLOSING_TIMEOUT);
        self.enter(slot, Stage::Closing { deadline });
        self.set_timer(slot, deadline);
        self.touch(slot);
    }

    fn next_request(&mut self, slot: usize, rest: Vec<u8>) {
        let wait = if rest.is_empty() {
            KEEP_ALIVE_TIMEOUT
        } else {
            HEAD_TIMEOUT
        };
        let deadline = self.turn.now.plus(wait);
        self.enter(
            slot,
            Stage::Head {
                buffer: rest,
                deadline,
            },
        );
        self.set_timer(slot, deadline);
        self.try_head(slot);
    }

    /// Begins a session: asks the engine where its feeds stand.
    fn begin(
        &mut self,
        slot: usize,
        request: Request,
        route: InboxRoute,
        cors: Vec<(&'static str, String)>,
        rest: Vec<u8>,
    ) {
        if self.turn.draining {
            return self.answer(slot, &Problem::unavailable(1), false, &cors);
        }
        let user = request.identity.user.clone();
        if !self.shared.sessions.take(&user) {
            return match (route, &request.wire) {
                (InboxRoute::WebSocket, WireRequest::WebSocket(handshake)) => {
                    self.push_upgrade(slot, handshake, &cors);
                    let Some(connection) = self.connections.get_mut(slot) else {
                        return;
                    };
                    connection
                        .out
                        .push(close_frame(4002, "session_limit", Millis(30_000)));
                    self.close(slot);
                }
                _ => self.answer(slot, &Problem::session_limit(), false, &cors),
            };
        }
        let transport = request.wire.transport();
        self.turn.stats.opened(transport);
        let session = self.shared.new_session_id();
        let opening = Opening {
            request,
            session,
            cors,
            rest,
            missed_wake: false,
        };
        let asked = opening_of(&opening);
        for feed in asked.feeds() {
            self.feeds.entry(feed).or_default().push(slot);
        }
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        connection.stage = Stage::Opening(Box::new(opening));
        let key = connection.key;
        let (shared, mailbox) = (self.shared.clone(), self.mailbox.clone());
        self.shared.spawn(async move {
            let starts = starts(&shared, &asked).await;
            mailbox.post(Post::Opened(key, starts));
        });
    }

    fn push_upgrade(
        &mut self,
        slot: usize,
        handshake: &websocket::Handshake,
        cors: &[(&'static str, String)],
    ) {
        let extra: Vec<_> = cors.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let subprotocol = handshake.subprotocol.then_some(websocket::SUBPROTOCOL);
        if let Some(connection) = self.connections.get_mut(slot) {
            connection.out.push(response::switching_protocols(
                &handshake.accept,
                subprotocol,
                &extra,
            ));
        }
    }

    // ---- sessions ----

    /// The engine said where the feeds stand: the session begins.
    fn opened(&mut self, key: Key, starts: Result<Vec<FeedStart>, postrider_engine::EngineError>) {
        if !self.is_current(key) {
            return;
        }
        let slot = key.slot;
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        let closing = Stage::Closing {
            deadline: self.turn.now.plus(CLOSING_TIMEOUT),
        };
        let opening = match std::mem::replace(&mut connection.stage, closing) {
            Stage::Opening(opening) => *opening,
            other => {
                connection.stage = other;
                return;
            }
        };
        // A drain that began meanwhile has told only those who were there.
        let late = self.turn.draining && opening.request.wire.transport() != Transport::LongPoll;
        let starts = match starts {
            Ok(starts) if !late => starts,
            outcome => {
                if let Err(error) = outcome {
                    tracing::warn!(%error, "a session could not be opened");
                }
                connection.stage = Stage::Opening(Box::new(opening));
                return self.answer(slot, &Problem::unavailable(1), false, &[]);
            }
        };
        let asked = opening_of(&opening);
        let Opening {
            request,
            cors,
            rest,
            missed_wake,
            session,
        } = opening;
        let state = request.state.then_some(&b"{}"[..]);
        let mut frames = Vec::new();
        let wire = match request.wire {
            WireRequest::WebSocket(handshake) => {
                self.push_upgrade(slot, &handshake, &cors);
                let Some(connection) = self.connections.get_mut(slot) else {
                    return;
                };
                connection.out.push(websocket::hello_frame(session.as_str()));
                state
                    .into_iter()
                    .for_each(|state| connection.out.push(websocket::state_frame(state)));
                frames = rest;
                Wire::WebSocket {
                    decoder: Decoder::default(),
                }
            }
            WireRequest::Stream => {
                let tcp_evidence = self.shared.tcp_evidence && connection.socket.is_direct();
                stream_start(&cors)
                    .into_iter()
                    .for_each(|bytes| connection.out.push(bytes));
                state
                    .into_iter()
                    .for_each(|state| connection.out.push(crate::sse::state(state)));
                Wire::Sse { tcp_evidence }
            }
            WireRequest::Poll {
                wait_s,
                limit,
                keep_alive,
            } => Wire::Poll(Poll {
                entries: Vec::new(),
                bytes: 0,
                limit,
                gap: false,
                state: request.state,
                cursor: asked.cursor.clone(),
                news: false,
                repeats_at: self.turn.now.plus(REPEAT_PAUSE),
                deadline: self.turn.now.plus(Millis::from_secs(u64::from(wait_s))),
                keep_alive,
                cors,
                rest,
            }),
        };
        let lifetime = Lifetime::new(request.identity.expires_at, self.turn.now);
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        let (out, turn) = (&mut connection.out, &mut self.turn);
        let mut live = Live::open(key, &asked, &starts, lifetime, wire, out, turn);
        if missed_wake {
            live.apply(key, out, turn, Evidence::Cursor, Effect::Suspect);
        }
        connection.stage = Stage::Live(Box::new(live));
        self.touch(slot);
        if !frames.is_empty() {
            self.received_frames(slot, &mut frames);
        }
    }

    /// Lets something happen to a live session.
    fn apply(&mut self, slot: usize, effect: Effect<'_>) {
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        let key = connection.key;
        match &mut connection.stage {
            Stage::Live(live) => {
                live.apply(key, &mut connection.out, &mut self.turn, Evidence::Cursor, effect);
                self.touch(slot);
            }
            Stage::Opening(opening) => opening.missed_wake = true,
            _ => {}
        }
    }

    /// Entries of any feeds: each run of one feed goes to the sessions that hear it.
    fn woken(&mut self, entries: &[Arc<Entry>]) {
        for run in entries.chunk_by(|a, b| a.feed == b.feed) {
            let Some(slots) = self.feeds.get(&run[0].feed) else {
                continue;
            };
            for slot in slots.clone() {
                self.apply(slot, Effect::Appended(run));
            }
        }
    }

    fn transient(&mut self, entries: &[Arc<Entry>]) {
        for entry in entries {
            let Some(slots) = self.feeds.get(&entry.feed) else {
                continue;
            };
            for slot in slots.clone() {
                self.apply(slot, Effect::Transient(entry));
            }
        }
    }

    /// Frames from a WebSocket client.
    fn received_frames(&mut self, slot: usize, bytes: &mut [u8]) {
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        let key = connection.key;
        let Some(live) = connection.live() else { return };
        let Wire::WebSocket { decoder } = &mut live.wire else {
            return;
        };
        let user = live.session.user().clone();
        let mut said = Vec::new();
        let fault = decoder
            .feed(bytes, |message| said.push(Heard::from(message, &user)))
            .err();
        for heard in said {
            if !self.is_current(key) {
                return;
            }
            self.heard(slot, heard);
        }
        if let Some(fault) = fault
            && self.is_current(key)
        {
            self.end_websocket(slot, websocket::close(fault.code, fault.reason));
        }
        self.touch(slot);
    }

    fn heard(&mut self, slot: usize, heard: Heard) {
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        let key = connection.key;
        let Stage::Live(live) = &mut connection.stage else {
            return;
        };
        match heard {
            Heard::Pong(payload) => live.pong(&payload, key, &mut connection.out, &mut self.turn),
            Heard::Ping(payload) => {
                connection.out.push(websocket::pong(&payload));
                if connection.out.waiting() > OUTBOX_BYTES * 4 {
                    // It pings and pings and takes no answer.
                    self.drop_connection(slot);
                }
            }
            Heard::Close(code) => self.end_websocket(slot, websocket::close_reply(code)),
            Heard::Frame(ClientFrame::Token(token)) => {
                match self.shared.gate.renew(live.session.user(), &token, self.turn.now) {
                    Ok(expires_at) => live.lifetime.expires_at = Some(expires_at),
                    Err(_) => self.end_websocket(slot, close_frame(4500, "token_invalid", Millis(0))),
                }
            }
            Heard::Frame(ClientFrame::Settle {
                kind,
                target,
                reference,
            }) => {
                let target = match target {
                    Said::Ids(ids) => SettleTarget::Ids(ids),
                    Said::Through(cursor) => SettleTarget::Through(live.session.places_of(&cursor)),
                };
                let settlement = Settlement {
                    user: live.session.user().clone(),
                    kind,
                    target,
                    evidence: Evidence::Client,
                    session: Some(live.session.id().clone()),
                    transport: Some(Transport::WebSocket),
                };
                if live.session.ack() == AckMode::None {
                    // It only watches: what it says is answered, and settles nothing.
                    self.settled(key, reference, Ok(0));
                    return;
                }
                live.settling += 1;
                live.paused = live.settling >= MAX_SETTLING;
                let (shared, mailbox) = (self.shared.clone(), self.mailbox.clone());
                self.shared.spawn(async move {
                    let outcome = settle_durably(&shared, settlement).await;
                    mailbox.post(Post::Settled(key, reference, outcome));
                });
            }
            Heard::Nonsense(why) => {
                tracing::debug!(why, "a client broke the protocol");
                self.end_websocket(slot, close_frame(4501, "protocol", Millis(0)));
            }
        }
    }

    fn end_websocket(&mut self, slot: usize, last: bytes::Bytes) {
        if let Some(connection) = self.connections.get_mut(slot) {
            connection.out.push(last);
            self.close(slot);
        }
    }

    /// A client's own word is durable, or could not be made so.
    fn settled(
        &mut self,
        key: Key,
        reference: Option<u64>,
        outcome: Result<u64, postrider_engine::EngineError>,
    ) {
        if !self.is_current(key) {
            return;
        }
        let Some(connection) = self.connections.get_mut(key.slot) else {
            return;
        };
        let Stage::Live(live) = &mut connection.stage else {
            return;
        };
        live.settling = live.settling.saturating_sub(1);
        match (outcome, reference) {
            (Ok(count), Some(reference)) => {
                let frame = format!(r#"{{"type":"settled","ref":{reference},"settled":{count}}}"#);
                connection.out.push(websocket::text_frame(frame.as_bytes()));
            }
            (Ok(_), None) => {}
            (Err(_), _) => connection.out.push(websocket::error_frame("unavailable")),
        }
        let resume = std::mem::take(&mut live.paused) && live.settling < MAX_SETTLING;
        self.touch(key.slot);
        if resume {
            self.unread.push_back(key);
        }
    }

    // ---- the turn ----

    fn open_mail(&mut self) {
        let (posts, lost) = self.mailbox.take();
        for post in posts {
            match post {
                Post::Wake(Wake::Appended(entries)) => self.woken(&entries),
                Post::Wake(Wake::Transient(entries)) => self.transient(&entries),
                Post::Opened(key, starts) => self.opened(key, starts),
                Post::Page(key, feed, page, permit) => {
                    if self.is_current(key) {
                        match page {
                            Ok(page) => self.apply(key.slot, Effect::Page(&feed, &page)),
                            Err(error) => {
                                tracing::warn!(%error, %feed, "a page could not be read");
                                self.apply(key.slot, Effect::PageFailed(&feed));
                            }
                        }
                    }
                    drop(permit);
                }
                Post::Settled(key, reference, outcome) => self.settled(key, reference, outcome),
                Post::Unsettled(settlements) => {
                    let room = MAX_UNFLUSHED.saturating_sub(self.turn.settlements.len());
                    self.turn.settlements.extend(settlements.into_iter().take(room));
                }
                Post::Adopt(socket, already_read) => match socket.set_nonblocking(true) {
                    Ok(()) => self.adopt(
                        Socket::Bridged(mio::net::UnixStream::from_std(socket)),
                        already_read,
                    ),
                    Err(error) => tracing::warn!(%error, "cannot take over a connection"),
                },
                Post::Listen(listener) => self.listen(listener),
                Post::Drain => self.drain(),
                Post::Stop => self.stopping = true,
            }
        }
        if lost {
            for slot in self.live_slots() {
                self.apply(slot, Effect::Suspect);
            }
        }
    }

    fn live_slots(&self) -> Vec<usize> {
        self.connections.iter().map(|(slot, _)| slot).collect()
    }

    fn listen(&mut self, listener: std::net::TcpListener) {
        let mut listener = mio::net::TcpListener::from_std(listener);
        match self
            .poller
            .registry()
            .register(&mut listener, LISTENER, Interest::READABLE)
        {
            Ok(()) => {
                self.listener = Some(listener);
                self.accept();
            }
            Err(error) => tracing::error!(%error, "cannot watch the listener"),
        }
    }

    /// No new sessions; those there are told to come back, spread over a while.
    fn drain(&mut self) {
        self.turn.draining = true;
        self.listener = None;
        let spread = self.shared.drain_spread.0.max(1);
        for (nth, slot) in self.live_slots().into_iter().enumerate() {
            // Multiples of the golden ratio's fraction lie evenly in the window, however many there are.
            let share = (nth as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let retry = Millis(((u128::from(share) * u128::from(spread)) >> 64) as u64 + 1);
            let Some(connection) = self.connections.get_mut(slot) else {
                continue;
            };
            match &mut connection.stage {
                // A poll is answered when its turn ends.
                Stage::Live(live) if live.transport() == Transport::LongPoll => self.touch(slot),
                Stage::Live(live) => {
                    live.close(&mut connection.out, 4000, "drain", retry);
                    self.close(slot);
                }
                Stage::Head { buffer, .. } if buffer.is_empty() && connection.out.waiting() == 0 => {
                    self.drop_connection(slot);
                }
                _ => {}
            }
        }
    }

    fn run_timers(&mut self) {
        if self.accept_again.is_some_and(|at| at <= self.turn.now) {
            self.accept();
        }
        while let Some(&(at, slot)) = self.timers.first() {
            if at > self.turn.now {
                break;
            }
            self.timers.pop_first();
            let Some(connection) = self.connections.get_mut(slot) else {
                continue;
            };
            connection.timer = None;
            match &connection.stage {
                Stage::Head { buffer, deadline } if *deadline <= self.turn.now => {
                    if buffer.is_empty() {
                        self.drop_connection(slot);
                    } else {
                        self.answer(slot, &Problem::head_timeout(), false, &[]);
                    }
                }
                Stage::Closing { deadline } if *deadline <= self.turn.now => self.drop_connection(slot),
                _ => self.touch(slot),
            }
        }
    }

    /// One send per touched socket; whoever's socket has taken enough goes on reading.
    fn finish_touched(&mut self) {
        while let Some(slot) = self.touched.pop() {
            let Some(connection) = self.connections.get_mut(slot) else {
                continue;
            };
            connection.touched = false;
            let key = connection.key;
            let mut next = None;
            if let Stage::Live(live) = &mut connection.stage {
                let (socket, blocked) = (&connection.socket, connection.blocked);
                next = Some(live.finish(key, blocked, socket, &mut connection.out, &mut self.turn));
            }
            if !connection.blocked && connection.flush().is_err() {
                self.drop_connection(slot);
                continue;
            }
            if let Stage::Live(live) = &mut connection.stage
                && live.session.is_behind()
                && connection.out.waiting() <= OUTBOX_BYTES / 2
            {
                live.apply(
                    key,
                    &mut connection.out,
                    &mut self.turn,
                    Evidence::Cursor,
                    Effect::CatchUp,
                );
            }
            if matches!(connection.stage, Stage::Closing { .. })
                && connection.out.waiting() == 0
                && !std::mem::replace(&mut connection.shut, true)
                && connection.socket.shutdown_write().is_err()
            {
                self.drop_connection(slot);
                continue;
            }
            match next {
                None => {}
                Some(Next::At(at)) => self.set_timer(slot, at),
                Some(Next::End) => self.close(slot),
                Some(Next::Answered {
                    keep_alive: true,
                    rest,
                }) => self.next_request(slot, rest),
                Some(Next::Answered {
                    keep_alive: false, ..
                }) => self.close(slot),
            }
        }
    }

    fn start_reads(&mut self) {
        for (key, user, feed, after) in self.turn.reads.drain(..) {
            let (shared, mailbox) = (self.shared.clone(), self.mailbox.clone());
            self.shared.spawn(async move {
                let permit = shared.reading.clone().acquire_owned().await.ok();
                let now = (shared.clock)();
                let mut page = read_inbox(&*shared.engine, &user, &feed, after, PAGE, now).await;
                if page.is_err() {
                    // The session asks again as soon as it hears: not before the store had a moment.
                    tokio::time::sleep(SETTLE_PAUSE * 10).await;
                    page = read_inbox(&*shared.engine, &user, &feed, after, PAGE, (shared.clock)()).await;
                }
                mailbox.post(Post::Page(key, feed, page, permit));
            });
        }
    }

    /// Hands settlements by evidence to the engine, all of an interval at once.
    fn flush_settlements(&mut self, at_once: bool) {
        let now = self.turn.now;
        if self.turn.settlements.is_empty() {
            self.flush_at = None;
            return;
        }
        let due = *self.flush_at.get_or_insert(now.plus(self.shared.ack_flush));
        if due > now && !at_once && !self.turn.draining {
            return;
        }
        self.flush_at = None;
        let batch = std::mem::take(&mut self.turn.settlements);
        self.turn.stats.add_settled(batch.len() as u64);
        let (shared, mailbox) = (self.shared.clone(), self.mailbox.clone());
        self.shared.spawn(async move {
            if let Err(error) = shared.engine.settle(batch.clone(), Sync::Lazy).await {
                tracing::debug!(%error, "settlements will be tried again");
                mailbox.post(Post::Unsettled(batch));
            }
        });
    }
}

/// What a WebSocket client sent.
enum Heard {
    Frame(ClientFrame),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>),
    Nonsense(&'static str),
}

impl Heard {
    fn from(message: Message<'_>, user: &UserId) -> Heard {
        match message {
            Message::Text(text) => match ClientFrame::parse(text, user) {
                Ok(frame) => Heard::Frame(frame),
                Err(why) => Heard::Nonsense(why),
            },
            Message::Ping(payload) => Heard::Ping(payload.to_vec()),
            Message::Pong(payload) => Heard::Pong(payload.to_vec()),
            Message::Close(code, _) => Heard::Close(code),
        }
    }
}

/// What the session machine needs of a request.
fn opening_of(opening: &Opening) -> postrider_delivery::Opening {
    postrider_delivery::Opening {
        session: opening.session.clone(),
        user: opening.request.identity.user.clone(),
        ack: opening.request.ack,
        cursor: opening.request.cursor.clone(),
        topics: opening.request.topics.clone(),
    }
}

/// Where each feed of an inbox stands, and which places of the cursor are places.
async fn starts(
    shared: &Shared,
    asked: &postrider_delivery::Opening,
) -> Result<Vec<FeedStart>, postrider_engine::EngineError> {
    let feeds = asked.feeds();
    let place = |feed: &FeedId| asked.cursor.as_ref().and_then(|cursor: &Cursor| cursor.get(feed));
    let places: Vec<_> = feeds
        .iter()
        .filter_map(|feed| Some((feed.clone(), place(feed)?)))
        .collect();
    let spans = shared.engine.spans(&feeds).await?;
    let held = shared.engine.holds(&places).await?;
    let mut held = held.into_iter();
    let mut starts = Vec::with_capacity(feeds.len());
    for (feed, span) in feeds.iter().zip(spans) {
        let floor = match feed {
            FeedId::Topic(_) => 0,
            _ => shared.engine.standing(&asked.user, feed, 1, 0).await?.floor,
        };
        let held = place(feed).and_then(|_| held.next());
        starts.push(FeedStart { span, floor, held });
    }
    Ok(starts)
}

/// A client's word must not be lost because the store is busy for a moment.
async fn settle_durably(
    shared: &Shared,
    settlement: Settlement,
) -> Result<u64, postrider_engine::EngineError> {
    let mut tries = 0;
    loop {
        match shared
            .engine
            .settle(vec![settlement.clone()], Sync::Durable)
            .await
        {
            Ok(counts) => return Ok(counts.into_iter().sum()),
            Err(error) if error.is_transient() && tries < SETTLE_TRIES => {
                tries += 1;
                tokio::time::sleep(SETTLE_PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Makes a session id that no other session of this process has.
pub(crate) fn session_id(prefix: u64, count: u64) -> SessionId {
    // Letters and digits only, within the length: always an id.
    SessionId::new(&format!("{prefix:x}-{count:x}")).unwrap_or_else(|_| unreachable!("hexadecimal is an id"))
}
