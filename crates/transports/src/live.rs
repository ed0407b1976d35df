//! A session and its wire: turns what the session decides into bytes, and what the client sends into what
//! the session is told. One for all transports; they differ in [`Wire`] alone.

mod poll;
mod sink;

pub(crate) use poll::Poll;

use crate::connection::{Key, Socket};
use crate::outgoing::Outgoing;
use crate::problem::Problem;
use crate::shard::Turn;
use crate::websocket::Decoder;
use crate::{response, sse, websocket};
use bytes::Bytes;
use postrider_delivery::{Lifetime, LifetimeEvent, LifetimeRules, Outbox, Probe, Probing, Reading, Session};
use postrider_model::{Entry, Evidence, FeedId, InboxPage, Millis, Position, Timestamp, Transport};
use sink::Sink;
use std::sync::Arc;

/// Bytes of entries in one long-poll answer; at least one entry goes whatever its size.
const POLL_BYTES: usize = 1 << 20;
/// Acks of one WebSocket session that may wait for the disk; above it the socket is not read.
pub(crate) const MAX_SETTLING: usize = 256;
/// Under `explicit` a poll begins with what is pending at or below its cursor. An answer of nothing else waits
/// so long, or a client that polls before it acknowledges would get the same at once, over and over.
pub(crate) const REPEAT_PAUSE: Millis = Millis(1000);
/// How soon after a write to look whether the client's TCP has acknowledged it.
const TCP_LOOK: Millis = Millis(100);
/// How often the pause between two such looks doubles.
const TCP_LOOK_DOUBLINGS: u32 = 6;
/// A poll whose page has not come ends so long after its time.
const READ_GRACE: Millis = Millis(2000);
/// A browser waits so long before it reconnects to an event stream.
const SSE_RETRY: Millis = Millis(2000);

pub(crate) struct Live {
    pub session: Session,
    pub lifetime: Lifetime,
    pub probing: Probing,
    pub wire: Wire,
    /// Acks of this session that wait for the disk.
    pub settling: usize,
    /// The socket is not read until those have been answered.
    pub paused: bool,
    /// The socket held bytes back when a turn ended.
    held_back: bool,
    /// Transient notifications were dropped, and the client has not been told.
    pub dropped_transient: bool,
    pings: u64,
    /// Bytes the socket had taken when it last took any, and when that was.
    progress: (u64, Timestamp),
    /// Looks for TCP's acknowledgement since the probe began.
    looks: u32,
}

pub(crate) enum Wire {
    Poll(Poll),
    Sse { tcp_evidence: bool },
    WebSocket { decoder: Decoder },
}

/// What a finished turn asks of the loop.
pub(crate) enum Next {
    /// Look again at this time, at the latest.
    At(Timestamp),
    /// The poll was answered: read the next request, which may have arrived already.
    Answered { keep_alive: bool, rest: Vec<u8> },
    /// End the connection.
    End,
}

impl Live {
    fn new(session: Session, lifetime: Lifetime, wire: Wire) -> Live {
        Live {
            session,
            lifetime,
            probing: Probing::default(),
            wire,
            settling: 0,
            paused: false,
            held_back: false,
            dropped_transient: false,
            pings: 0,
            progress: (0, Timestamp(0)),
            looks: 0,
        }
    }

    /// Opens a session on this wire.
    pub fn open(
        key: Key,
        opening: &postrider_delivery::Opening,
        starts: &[postrider_delivery::FeedStart],
        lifetime: Lifetime,
        mut wire: Wire,
        out: &mut Outgoing,
        turn: &mut Turn,
    ) -> Live {
        let transport = wire.transport();
        let by = (&opening.user, &opening.session, Evidence::Cursor, transport);
        let mut sink = Sink {
            key,
            wire: &mut wire,
            out,
            turn,
            by,
            sent: 0,
        };
        let session = Session::open(opening, starts, &mut sink);
        let mut live = Live::new(session, lifetime, wire);
        // Where nothing is to be sent, the client has a place to come back to all the same.
        if !live.session.is_reading() {
            let cursor = live.session.cursor();
            live.push_cursor(&cursor, out);
        }
        live
    }

    pub fn transport(&self) -> Transport {
        self.wire.transport()
    }
}

impl Wire {
    pub fn transport(&self) -> Transport {
        match self {
            Wire::Poll(_) => Transport::LongPoll,
            Wire::Sse { .. } => Transport::Sse,
            Wire::WebSocket { .. } => Transport::WebSocket,
        }
    }
}

impl Live {
    /// One thing happens to the session; what it decides goes to the wire and to the loop.
    pub fn apply(
        &mut self,
        key: Key,
        out: &mut Outgoing,
        turn: &mut Turn,
        evidence: Evidence,
        effect: Effect<'_>,
    ) {
        let transport = self.transport();
        let now = turn.moment();
        let (user, id) = (self.session.user().clone(), self.session.id().clone());
        let by = (&user, &id, evidence, transport);
        let mut sink = Sink {
            key,
            wire: &mut self.wire,
            out,
            turn,
            by,
            sent: 0,
        };
        match effect {
            Effect::Appended(entries) => self.session.appended(entries, now, &mut sink),
            Effect::Transient(entry) => {
                let room = sink.has_room();
                if self.session.transient(entry, &mut sink) && !room {
                    sink.turn.stats.dropped_transient();
                    self.dropped_transient = true;
                }
            }
            Effect::Page(feed, reading, page) => self.session.page(feed, reading, page, now, &mut sink),
            Effect::PageFailed(feed, reading) => self.session.page_failed(feed, reading, &mut sink),
            Effect::CatchUp => self.session.catch_up(&mut sink),
            Effect::Suspect => self.session.suspect(&mut sink),
            Effect::Redeliver => self.session.redeliver(now, &mut sink),
            Effect::Settled(places) => self.session.settled(places, &mut sink),
        }
        let sent = sink.sent;
        if sent > 0 {
            turn.stats.delivered(transport, sent);
        }
    }

    /// Ends a turn: the cursor after what was sent, a probe behind it, an answer that is complete.
    pub fn finish(
        &mut self,
        key: Key,
        held_back: bool,
        socket: &mut Socket,
        out: &mut Outgoing,
        turn: &mut Turn,
    ) -> Next {
        if let Wire::Poll(poll) = &mut self.wire {
            let dropped = std::mem::take(&mut self.dropped_transient);
            poll.dropped_transient |= dropped;
            let repeats = !poll.entries.is_empty() && turn.now >= poll.repeats_at;
            let something = poll.news > 0 || poll.gap || poll.dropped_transient || repeats;
            let complete = (!self.session.is_reading() && (something || turn.now >= poll.deadline))
                || turn.draining
                || turn.now >= poll.deadline.plus(READ_GRACE);
            let expired = self.lifetime.due(&turn.rules.poll, turn.now) == Some(LifetimeEvent::TokenExpired);
            if complete || expired {
                let extra: Vec<_> = poll
                    .cors
                    .iter()
                    .map(|(name, value)| (*name, value.as_str()))
                    .collect();
                let keep_alive = poll.keep_alive && !turn.draining;
                let overdue = self.session.is_reading() && turn.now >= poll.deadline;
                out.push(
                    if overdue && !something && poll.entries.is_empty() && !turn.draining {
                        // What could not be read must not pass for an inbox that holds nothing more.
                        response::problem(&Problem::unavailable(1), keep_alive, &extra)
                    } else {
                        response::json(&poll.body(&self.session), keep_alive, &extra)
                    },
                );
                return Next::Answered {
                    keep_alive,
                    rest: std::mem::take(&mut poll.rest),
                };
            }
            let next = if self.session.is_reading() {
                // The page ends this turn's wait; the grace bounds it.
                poll.deadline.plus(READ_GRACE)
            } else if poll.entries.is_empty() {
                poll.deadline
            } else {
                poll.deadline.min(poll.repeats_at)
            };
            return Next::At(next.min(self.lifetime.next_at(&turn.rules.poll)));
        }
        if self.dropped_transient && out.waiting() < turn.rules.bounds.outbox {
            self.dropped_transient = false;
            match self.wire {
                Wire::WebSocket { .. } => out.push(websocket::error_frame("transient_dropped")),
                _ => out.push(sse::transient_dropped()),
            }
        }
        if let Some(cursor) = self.session.take_cursor() {
            self.push_cursor(&cursor, out);
        }
        self.probe(key, socket, out, turn);
        // What a client has not taken is not sent to it again.
        if !held_back && self.session.redeliver_at().is_some_and(|at| at <= turn.now) {
            self.apply(key, out, turn, Evidence::Cursor, Effect::Redeliver);
        }
        self.keep_alive(held_back, out, turn)
    }

    pub fn push_cursor(&mut self, cursor: &str, out: &mut Outgoing) {
        match self.wire {
            Wire::Poll(_) => {}
            Wire::Sse { .. } => out.push(sse::cursor_block(cursor)),
            Wire::WebSocket { .. } => out.push(websocket::cursor_frame(cursor)),
        }
    }

    /// Looks for evidence that the client has what it was sent.
    fn probe(&mut self, key: Key, socket: &mut Socket, out: &mut Outgoing, turn: &mut Turn) {
        let by_tcp = matches!(self.wire, Wire::Sse { tcp_evidence: true });
        if by_tcp
            && let Some(token) = self.probing.under_way()
            && socket.has_reached(token, out.written())
        {
            self.evidence(token, Evidence::Tcp, key, out, turn);
        }
        let due = self
            .probing
            .next_at(turn.rules.probe)
            .is_some_and(|at| at <= turn.now);
        if !due || !self.session.is_unsettled() {
            return;
        }
        let token = match self.wire {
            Wire::WebSocket { .. } => {
                self.pings += 1;
                out.push(websocket::ping(&self.pings.to_be_bytes()));
                self.pings
            }
            Wire::Sse { tcp_evidence: true } => {
                socket.watch(out.end());
                out.end()
            }
            _ => return,
        };
        self.looks = 0;
        self.probing.begin(
            turn.now,
            Probe {
                token,
                places: self.session.unsettled(),
            },
        );
    }

    /// An answer to a probe.
    pub fn evidence(
        &mut self,
        token: u64,
        evidence: Evidence,
        key: Key,
        out: &mut Outgoing,
        turn: &mut Turn,
    ) {
        if let Some(probe) = self.probing.answered(token) {
            self.apply(key, out, turn, evidence, Effect::Settled(&probe.places));
        }
    }

    /// A pong: an answer to a probe if it carries one's number.
    pub fn pong(&mut self, payload: &[u8], key: Key, out: &mut Outgoing, turn: &mut Turn) {
        if let Ok(token) = payload.try_into().map(u64::from_be_bytes)
            && token <= self.pings
        {
            self.evidence(token, Evidence::Pong, key, out, turn);
        }
    }

    fn keep_alive(&mut self, held_back: bool, out: &mut Outgoing, turn: &Turn) -> Next {
        let mut rules = *self.rules(turn);
        if out.waiting() > 0 {
            self.lifetime.sent(turn.now);
        }
        if out.written() != self.progress.0 {
            self.progress = (out.written(), turn.now);
        }
        let stalled_at = self.progress.1.plus(turn.rules.bounds.stall_timeout);
        if held_back {
            // It is slow and not gone: a ping behind all that waits cannot have reached it.
            rules.silence = None;
            if turn.now >= stalled_at {
                return Next::End;
            }
        } else if self.held_back {
            self.lifetime.heard(turn.now);
        }
        if self.paused {
            // What it said is left in its socket.
            self.lifetime.heard(turn.now);
        }
        self.held_back = held_back;
        let rules = &rules;
        match self.lifetime.due(rules, turn.now) {
            Some(LifetimeEvent::TokenExpired) => {
                self.close(out, 4001, "token_expired", Millis(0));
                return Next::End;
            }
            Some(LifetimeEvent::Silent) => return Next::End,
            Some(LifetimeEvent::KeepAlive) => {
                match self.wire {
                    // Numbered like a probe: a client may answer only the newest ping.
                    Wire::WebSocket { .. } => {
                        self.pings += 1;
                        out.push(websocket::ping(&self.pings.to_be_bytes()));
                    }
                    _ => out.push(sse::KEEP_ALIVE),
                }
                self.lifetime.sent(turn.now);
            }
            None => {}
        }
        let mut next = self.lifetime.next_at(rules);
        if held_back {
            next = next.min(stalled_at);
        } else if let Some(at) = self.session.redeliver_at() {
            next = next.min(at);
        }
        let by_tcp = matches!(self.wire, Wire::Sse { tcp_evidence: true });
        if by_tcp && self.probing.under_way().is_some() {
            next = next.min(
                turn.now
                    .plus(Millis(TCP_LOOK.0 << self.looks.min(TCP_LOOK_DOUBLINGS))),
            );
            self.looks += 1;
        } else if let Some(at) = self
            .probing
            .next_at(turn.rules.probe)
            .filter(|_| self.session.is_unsettled())
        {
            let probes = by_tcp || matches!(self.wire, Wire::WebSocket { .. });
            next = if probes {
                next.min(at.max(turn.now.plus(Millis(1))))
            } else {
                next
            };
        }
        Next::At(next)
    }

    fn rules<'t>(&self, turn: &'t Turn) -> &'t LifetimeRules {
        match self.wire {
            Wire::Poll(_) => &turn.rules.poll,
            Wire::Sse { .. } => &turn.rules.sse,
            Wire::WebSocket { .. } => &turn.rules.websocket,
        }
    }

    /// The last words to the client: why it ends, and when to come back.
    pub fn close(&mut self, out: &mut Outgoing, code: u16, reason: &str, retry: Millis) {
        match self.wire {
            Wire::Poll(_) => {}
            Wire::Sse { .. } if retry.0 > 0 => out.push(sse::retry(retry.0)),
            Wire::Sse { .. } => {}
            Wire::WebSocket { .. } => out.push(close_frame(code, reason, retry)),
        }
    }
}

/// One thing that happens to a session.
pub(crate) enum Effect<'a> {
    Appended(&'a [Arc<Entry>]),
    Transient(&'a Arc<Entry>),
    Page(&'a FeedId, Reading, &'a InboxPage),
    PageFailed(&'a FeedId, Reading),
    CatchUp,
    Suspect,
    Redeliver,
    Settled(&'a [(FeedId, Position)]),
}

/// A close frame whose reason is JSON. Codes from 4500 on tell the client not to come back.
pub(crate) fn close_frame(code: u16, reason: &str, retry: Millis) -> Bytes {
    let text = if code < 4500 {
        format!(r#"{{"code":"{reason}","retry_ms":{}}}"#, retry.0)
    } else {
        format!(r#"{{"code":"{reason}"}}"#)
    };
    websocket::close(code, &text)
}

/// What a stream begins with.
pub(crate) fn stream_start(cors: &[(&'static str, String)]) -> [Bytes; 2] {
    let extra: Vec<_> = cors.iter().map(|(name, value)| (*name, value.as_str())).collect();
    [response::event_stream(&extra), sse::retry(SSE_RETRY.0)]
}
