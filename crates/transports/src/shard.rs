//! One loop per core: its sockets, its sessions, which sessions hear which feed. A turn takes what the
//! sockets and the mailbox bring, lets the sessions decide, and then makes one send per touched socket.

mod admitting;
mod complaints;
mod fan;
mod handing;
mod members;
#[cfg(test)]
mod members_tests;
mod notify;
mod opening;
mod presence;
mod publishing;
mod raw;
mod reading;
mod requests;
mod sessions;
mod sockets;
mod states;
mod tls;
mod words;

use crate::addresses::Address;
use crate::client_frame::{ClientFrame, Said};
use crate::connect::{self, Request, WireRequest};
use crate::connection::{Connection, Key, Opening, Socket, Stage};
use crate::head::{self, InboxRoute, Parsed};
use crate::hub::{Link, Refer, Rules, Shared};
use crate::live::{
    BRIDGED_POLL_BYTES, Effect, Live, MAX_SETTLING, More, Next, POLL_BYTES, Poll, REPEAT_PAUSE, Wire,
    close_frame, stream_start,
};
use crate::mailbox::{Mailbox, PageWanted, Post};
use crate::notify::Dialect;
use crate::outgoing::Outgoing;
use crate::problem::Problem;
use crate::stats::HubStats;
use crate::websocket::Message;
use crate::wheel::Wheel;
use crate::{response, websocket};
use mio::{Events, Interest, Poll as Poller, Token};
use postrider_delivery::{AckMode, Lifetime, Moment};
use postrider_engine::{ReadLimit, Sync, Wake, read_inbox};
use postrider_model::{
    Attempt, Cursor, Entry, Evidence, FeedId, Millis, SessionId, SettleTarget, Settlement, Timestamp,
    Transport, UserId,
};
use slab::Slab;
use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write as _};
use std::sync::Arc;
use std::time::Duration;

const WAKER: Token = Token(usize::MAX);
const LISTENER: Token = Token(usize::MAX - 1);
/// One receive buffer per loop.
const READ_BUFFER: usize = 64 << 10;
/// Reads of one socket in one turn, so that a fast sender does not keep the others waiting.
const MAX_READS: usize = 1;
/// After the last word, the other side has this long to take it and close.
const CLOSING_TIMEOUT: Millis = Millis(5_000);
/// Bytes that a client may send ahead of the answer to its poll.
const MAX_AHEAD: usize = head::MAX_HEAD;
/// A client that takes nothing of its answer for so long is gone.
const UNTAKEN_TIMEOUT: Millis = Millis(60_000);
/// How soon to accept again after the system refused (too many open files).
const ACCEPT_RETRY: Millis = Millis(100);
/// Answers to a WebSocket client's own frames (pongs, settled) may take the place of entries up to so many
/// outboxes; then its socket is not read until it has taken some.
const MAX_ANSWERS: usize = 4;
/// Of the pings that one read brings so many are answered, the newest.
const MAX_PONGS: usize = 16;
/// One page that a session reads.
const PAGE: ReadLimit = ReadLimit {
    entries: 256,
    bytes: 128 << 10,
};
/// The pause before something is tried again for which the store had no time.
const SETTLE_PAUSE: Duration = Duration::from_millis(50);
/// Settlements by evidence that may wait for a busy store; more are dropped, and those entries come again.
pub(crate) const MAX_UNFLUSHED: usize = 100_000;
/// Attempts that may wait for the engine; more are not counted, and those entries are given up later.
const MAX_UNCOUNTED: usize = 100_000;
/// An attempt is counted so long after it was made, or a quarter of the ack timeout: what the client acknowledges at
/// once, as most do, needs no count. Each waits equally long, as what lies between two attempts is an ack timeout.
const COUNTED_AFTER: Millis = Millis(100);

/// What a turn gathers and what it goes by.
pub(crate) struct Turn {
    /// By the steady clock: for timers.
    pub now: Timestamp,
    /// By the wall clock: for tokens and times to live.
    pub wall: Timestamp,
    pub draining: bool,
    pub rules: Rules,
    pub stats: Arc<HubStats>,
    /// Pages to read.
    pub reads: Vec<PageWanted>,
    /// Attempts, not yet handed to the engine.
    pub attempts: VecDeque<(Timestamp, Attempt)>,
    /// Settlements by evidence, not yet handed to the engine.
    pub settlements: Vec<Settlement>,
    /// The soonest end of anything sent that has a time to live.
    pub soonest_expiry: Option<Timestamp>,
    /// Last words to the connection that is being finished, behind all that waits for it.
    pub tail: Vec<u8>,
    pub complaints: Complaints,
    /// Entries handed to sockets, by transport, not yet counted.
    delivered: [u64; 3],
}

impl Turn {
    /// When a time of the wall clock comes by the steady one, as things stand now.
    pub fn steady(&self, wall: Timestamp) -> Timestamp {
        self.now.plus(wall.since(self.wall))
    }

    /// Now, by both clocks.
    pub fn moment(&self) -> Moment {
        Moment {
            wall: self.wall,
            steady: self.now,
        }
    }

    /// So many entries were handed to a socket, or into a poll's answer.
    pub fn delivered(&mut self, transport: Transport, entries: u64) {
        self.delivered[transport as usize - 1] += entries;
    }

    fn count_deliveries(&mut self) {
        for (transport, entries) in Transport::ALL
            .into_iter()
            .zip(std::mem::take(&mut self.delivered))
        {
            if entries > 0 {
                self.stats.delivered(transport, entries);
            }
        }
    }

    /// An entry was sent that only its client's word settles.
    pub fn attempted(&mut self, attempt: Attempt) {
        if self.attempts.len() < MAX_UNCOUNTED {
            let ack_timeout = self.rules.redelivery.ack_timeout;
            let due = self.now.plus(COUNTED_AFTER.min(Millis(ack_timeout.0 / 4)));
            self.attempts.push_back((due, attempt));
        }
    }
}

pub(crate) use admitting::Waiting;
pub(crate) use complaints::Complaints;
pub(crate) use fan::Seats;
pub(crate) use publishing::{Ordered, Publishing};
pub(crate) use words::Word;

pub(crate) struct Shard {
    poller: Poller,
    shared: Arc<Shared>,
    mailbox: Arc<Mailbox>,
    listener: Option<mio::net::TcpListener>,
    accept_again: Option<Timestamp>,
    /// This turn has accepted connections.
    has_accepted: bool,
    tls: tls::Handshakes,
    connections: Slab<Connection>,
    generation: u64,
    hearers: fan::Hearers,
    members: members::Members,
    states: states::States,
    presences: presence::Presences,
    /// Each connection's timer: its slot, and which use of the slot it was.
    wheel: Wheel<(u32, u32)>,
    touched: Vec<usize>,
    /// Sockets with more to read than one turn took.
    unread: VecDeque<Key>,
    /// Connections whose next request came with the last: each has one request in a turn.
    pipelined: Vec<Key>,
    turn: Turn,
    questions: reading::Questions,
    admissions: admitting::Admissions,
    welcomes: notify::Welcomes,
    raw: raw::RawDesk,
    flush_at: Option<Timestamp>,
    flushing: handing::Flushing,
    /// The engine is counting attempts; those that come meanwhile wait.
    counting: bool,
    publishes: publishing::Publishes,
    words: words::Words,
    /// What one socket's frames said, while it is being heard.
    heard: Vec<sessions::Heard>,
    buffer: Box<[u8]>,
    /// What TLS made of what was read.
    plain: Vec<u8>,
    stopping: bool,
}

impl Shard {
    /// A loop with its mailbox, not yet running.
    pub fn new(shared: Arc<Shared>) -> io::Result<(Shard, Arc<Mailbox>)> {
        let poller = Poller::new()?;
        let waker = mio::Waker::new(poller.registry(), WAKER)?;
        let mailbox = Arc::new(Mailbox::new(waker, shared.stats.clone()));
        let turn = Turn {
            now: (shared.steady)(),
            wall: (shared.clock)(),
            draining: false,
            rules: shared.rules,
            stats: shared.stats.clone(),
            reads: Vec::new(),
            attempts: VecDeque::new(),
            settlements: Vec::new(),
            soonest_expiry: None,
            tail: Vec::new(),
            complaints: Complaints::default(),
            delivered: [0; 3],
        };
        let wheel = Wheel::new(turn.now);
        let hearers = fan::Hearers::new(shared.follows.clone());
        let shard = Shard {
            poller,
            shared,
            mailbox: mailbox.clone(),
            listener: None,
            accept_again: None,
            has_accepted: false,
            tls: tls::Handshakes::default(),
            connections: Slab::new(),
            generation: 0,
            hearers,
            members: members::Members::default(),
            states: states::States::default(),
            presences: presence::Presences::default(),
            wheel,
            touched: Vec::new(),
            unread: VecDeque::new(),
            pipelined: Vec::new(),
            turn,
            questions: reading::Questions::default(),
            admissions: admitting::Admissions::default(),
            welcomes: notify::Welcomes::default(),
            raw: raw::RawDesk::default(),
            flush_at: None,
            flushing: handing::Flushing::default(),
            counting: false,
            publishes: publishing::Publishes::default(),
            words: words::Words::default(),
            heard: Vec::new(),
            buffer: vec![0; READ_BUFFER].into(),
            plain: Vec::new(),
            stopping: false,
        };
        Ok((shard, mailbox))
    }

    pub fn run(self) {
        let mailbox = self.mailbox.clone();
        self.run_loop();
        mailbox.close();
    }

    fn run_loop(mut self) {
        let mut events = Events::with_capacity(1024);
        while !self.stopping {
            let wait = self.wait();
            if let Err(error) = self.poller.poll(&mut events, wait)
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "a shard cannot poll its sockets");
                return;
            }
            self.turn.now = (self.shared.steady)();
            self.turn.wall = (self.shared.clock)();
            self.has_accepted = false;
            self.tls.begin_turn();
            for event in &events {
                match event.token() {
                    WAKER => {}
                    LISTENER => self.accept(),
                    Token(slot) => self.socket_event(slot, event),
                }
            }
            for key in std::mem::take(&mut self.unread) {
                if self.is_current(key) {
                    self.readable(key.slot, true);
                }
            }
            for key in std::mem::take(&mut self.pipelined) {
                if self.is_current(key) {
                    self.try_head(key.slot);
                }
            }
            self.open_mail();
            self.change_members();
            self.run_timers();
            if self.hearers.is_busy() {
                // What is for one user does not wait for a slice of what is for all.
                self.finish_touched();
                self.fan_out();
            }
            self.finish_touched();
            if self.read_from_memory() {
                self.finish_touched();
            }
            self.turn.count_deliveries();
            self.hand_in();
            self.hand_words();
            self.start_admissions();
            self.start_reads();
            self.start_welcomes();
            self.start_relooks();
            self.start_state_looks();
            self.run_presence();
            self.flush_settlements(false);
            self.flush_attempts();
            if self.hearers.is_busy() {
                // Where this core is also the engine's, what others publish need not wait for the end of a fan-out.
                std::thread::yield_now();
            }
        }
        self.flush_settlements(true);
        self.flush_last_attempts();
    }

    fn wait(&self) -> Option<Duration> {
        // What is to be read may have been wanted by the last sends of the turn.
        if !self.unread.is_empty()
            || !self.pipelined.is_empty()
            || self.hearers.is_busy()
            || self.members.is_busy()
            || self.presences.is_busy()
            || !self.turn.reads.is_empty()
        {
            return Some(Duration::ZERO);
        }
        if self.accept_again.is_some_and(|at| at <= self.turn.now) {
            return Some(Duration::ZERO);
        }
        let count_at = self.turn.attempts.front().filter(|_| !self.counting);
        let count_at = count_at.map(|(due, _)| *due);
        let look_at = self.presences.next_at();
        let next = [
            self.wheel.next_at(),
            self.flush_at,
            self.accept_again,
            count_at,
            look_at,
        ]
        .into_iter()
        .flatten()
        .min()?;
        // A millisecond more, so that a timer is due when it is looked at.
        Some(next.since((self.shared.steady)()).as_duration() + Duration::from_millis(1))
    }

    fn is_current(&self, key: Key) -> bool {
        self.connections
            .get(key.slot)
            .is_some_and(|connection| connection.key == key)
    }

    fn is_session(&mut self, slot: usize, id: &SessionId) -> bool {
        let live = self.connections.get_mut(slot).and_then(Connection::live);
        live.is_some_and(|live| live.session.id() == id)
    }

    fn open_mail(&mut self) {
        let (posts, lost) = self.mailbox.take();
        for post in posts {
            match post {
                Post::Wake(Wake::Appended(entries)) => self.woken(&entries),
                Post::Wake(Wake::Transient(entries)) => self.woken(&entries),
                Post::Wake(Wake::Members(changes)) => self.members.changed(changes),
                Post::Wake(Wake::State(user, state)) => self.state_changed(&user, &state),
                // The mailbox says that by what `take` gives beside the posts.
                Post::Wake(Wake::Missed) => {}
                Post::Admitted(admitted) => self.admitted(admitted),
                Post::KeysWaited(key, waited) => self.keys_waited(key, waited),
                Post::AskAgain(waiting) => self.admissions.ask_again(waiting),
                Post::Opened(opened) => self.opened_together(opened),
                Post::Welcomed(opened) => self.welcomed(opened),
                Post::Members(known) => self.members_known(known),
                Post::WhoIs(user, reply) => {
                    if reply.send(self.who_is(&user)).is_err() {
                        tracing::trace!("whoever asked had gone before the answer");
                    }
                }
                Post::WhoHears(asked) => self.count_hearers(asked),
                Post::Watched(topic, roll) => self.watched(topic, roll),
                Post::States(found) => self.states_came(found),
                Post::Pages(pages) => self.pages_came(pages),
                Post::Page(wanted, page, permit) => {
                    self.page_came(&wanted, page);
                    drop(permit);
                }
                Post::Attempted(left) => {
                    self.counting = false;
                    left.into_iter().for_each(|attempt| self.turn.attempted(attempt));
                }
                Post::Settled(said, settled) => self.words_settled(&said, &settled),
                Post::Flushed(left) => self.flushed(left),
                Post::Published(orders, receipts) => self.published(orders, receipts),
                Post::Adopt(socket, client, already_read) => match socket.set_nonblocking(true) {
                    Ok(()) => self.adopt(
                        Socket::Bridged(mio::net::UnixStream::from_std(socket)),
                        client,
                        already_read,
                    ),
                    Err(error) => {
                        if let Some(unsaid) = self.turn.complaints.socket.due(self.turn.now) {
                            tracing::warn!(%error, unsaid, "cannot take over a connection");
                        }
                    }
                },
                Post::Listen(listener, tls) => self.listen(listener, tls),
                Post::Drain => self.drain(),
                Post::Stop => self.stopping = true,
            }
        }
        if lost.members {
            self.members_lost();
        }
        if lost.states {
            self.states_lost();
        }
        if lost.entries {
            for slot in self.live_slots() {
                self.apply(slot, Effect::Suspect);
            }
        }
    }

    fn live_slots(&self) -> Vec<usize> {
        self.connections.iter().map(|(slot, _)| slot).collect()
    }

    fn listen(&mut self, listener: std::net::TcpListener, tls: Option<Arc<rustls::ServerConfig>>) {
        self.tls.config = tls;
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
                Stage::Publishing(_) => self.hasten_body(slot),
                _ => {}
            }
        }
    }

    fn run_timers(&mut self) {
        if !self.has_accepted && self.accept_again.is_some_and(|at| at <= self.turn.now) {
            self.accept();
        }
        while let Some(due) = self.wheel.take_due(self.turn.now) {
            for (slot, generation) in due {
                self.run_timer(slot as usize, generation);
            }
        }
        self.wheel.turn_to(self.turn.now);
    }

    fn run_timer(&mut self, slot: usize, generation: u32) {
        let now = self.turn.now;
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        if connection.key.generation as u32 != generation || connection.armed > now {
            // It was for another connection, or a sooner one took its place.
            return;
        }
        connection.armed = Timestamp::MAX;
        let at = std::mem::replace(&mut connection.timer, Timestamp::MAX);
        if at > now {
            // It was put off meanwhile.
            return self.set_timer(slot, at);
        }
        // While an answer is still being taken, its client is slow and not late.
        let patience = if self.turn.draining {
            CLOSING_TIMEOUT
        } else {
            UNTAKEN_TIMEOUT
        };
        let untaken = (connection.out.waiting() > 0 && !connection.socket.is_handshaking())
            .then(|| connection.progress_at.plus(patience));
        let (deadline, unread) = match &connection.stage {
            Stage::Head { buffer, deadline, .. } => (*deadline, !buffer.is_empty()),
            Stage::Closing { deadline } => (*deadline, false),
            Stage::Opening(_) | Stage::Live(_) => return self.touch(slot),
            Stage::Publishing(_) => return self.publish_late(slot),
        };
        match untaken {
            Some(until) if until > now => self.set_timer(slot, until),
            None if deadline > now => self.set_timer(slot, deadline),
            None if unread => self.answer(slot, &Problem::head_timeout(), false, &[]),
            _ => self.drop_connection(slot),
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
            self.turn.tail.clear();
            if let Stage::Live(live) = &mut connection.stage {
                let (socket, out) = (&mut connection.socket, &mut connection.out);
                let (blocked, progress_at) = (connection.blocked, connection.progress_at);
                next = Some(live.finish(key, blocked, progress_at, socket, out, &mut self.turn));
            }
            // A poll's session ends before its client hears of it: the next one must not count beside it.
            if let Some(Next::Answered { keep_alive, rest }) = &mut next {
                match keep_alive {
                    true => {
                        let rest = std::mem::take(rest);
                        self.next_request(slot, rest);
                    }
                    false => self.close(slot),
                }
            }
            let Some(connection) = self.connections.get_mut(slot) else {
                continue;
            };
            let held = connection.out.waiting() > 0 || !self.turn.tail.is_empty();
            let (tail, now) = (&mut self.turn.tail, self.turn.now);
            if connection.blocked {
                connection.out.push(bytes::Bytes::copy_from_slice(tail));
            } else if connection.flush(tail, now).is_err() {
                self.drop_connection(slot);
                continue;
            }
            let drained = held && connection.out.waiting() == 0;
            let has_room = connection.out.waiting() <= self.turn.rules.bounds.outbox / 2;
            if has_room {
                self.states.has_room(key);
            }
            if let Stage::Live(live) = &mut connection.stage
                && live.session.is_behind()
                && has_room
            {
                live.apply(
                    key,
                    &mut connection.out,
                    &mut self.turn,
                    Evidence::Cursor,
                    Effect::CatchUp,
                );
            }
            if matches!(connection.stage, Stage::Closing { .. }) && connection.end_writing().is_err() {
                self.drop_connection(slot);
                continue;
            }
            self.after_flush(slot, drained);
            self.watch_writes(slot);
            match next {
                None | Some(Next::Answered { .. }) => {}
                Some(Next::At(at)) => self.set_timer(slot, at),
                Some(Next::End) => self.close(slot),
                // What waits would be waited for, and its last bytes for as long again.
                Some(Next::Stalled) => self.drop_connection(slot),
            }
        }
    }

    /// It has room again: what came meanwhile is read in the next turn.
    fn read_what_was_left(&mut self, slot: usize) {
        if let Some(connection) = self.connections.get_mut(slot)
            && std::mem::take(&mut connection.left_unread)
        {
            self.unread.push_back(connection.key);
        }
    }

    /// What waited for the socket to take the bytes before it.
    fn after_flush(&mut self, slot: usize, drained: bool) {
        let now = self.turn.now;
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        let key = connection.key;
        match &mut connection.stage {
            Stage::Closing { deadline } if drained => {
                *deadline = now.plus(CLOSING_TIMEOUT);
                let at = *deadline;
                self.set_timer(slot, at);
            }
            Stage::Head { buffer, deadline, .. } if connection.out.waiting() == 0 => {
                let is_next_here = !buffer.is_empty();
                if drained && !connection.socket.is_handshaking() {
                    *deadline = now.plus(if buffer.is_empty() {
                        self.turn.rules.bounds.idle_timeout
                    } else {
                        self.turn.rules.bounds.head_timeout
                    });
                    let at = *deadline;
                    self.set_timer(slot, at);
                }
                if is_next_here {
                    self.pipelined.push(key);
                }
                self.read_what_was_left(slot);
            }
            Stage::Live(live)
                if live.paused
                    && live.settling < MAX_SETTLING
                    && connection.out.waiting() <= self.turn.rules.bounds.outbox =>
            {
                live.paused = false;
                self.unread.push_back(key);
            }
            // There was no room to say that something was dropped; now there is.
            Stage::Live(live) if drained && live.dropped_transient => self.touch(slot),
            _ => {}
        }
    }
}

/// The most letters of a session's id: two numbers in hexadecimal, and a hyphen.
const SESSION_ID: usize = 33;

/// Makes a session id that no other session of this process has.
pub(crate) fn session_id(prefix: u64, count: u64) -> SessionId {
    let mut text = [0; SESSION_ID];
    let mut left = &mut text[..];
    // Letters and digits only, within the length: always an id.
    let written = write!(left, "{prefix:x}-{count:x}").is_ok();
    let rest = left.len();
    let id = str::from_utf8(&text[..SESSION_ID - rest])
        .ok()
        .filter(|_| written);
    id.and_then(|id| SessionId::new(id).ok())
        .unwrap_or_else(|| unreachable!("hexadecimal is an id"))
}
