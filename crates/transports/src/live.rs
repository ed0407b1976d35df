//! A session and its wire: turns what the session decides into bytes, and what the client sends into what
//! the session is told. One for all transports; they differ in [`Wire`] alone.

mod poll;
mod salvo;
mod sink;

pub(crate) use poll::{Followed, More, Poll};
pub(crate) use salvo::{Alike, Salvo};

use crate::connection::{Key, Socket};
use crate::notify::{self, Dialect};
use crate::outgoing::Outgoing;
use crate::shard::Turn;
use crate::websocket::Decoder;
use crate::{raw, response, sse, websocket};
use bytes::Bytes;
use postrider_delivery::{
    Lifetime, LifetimeEvent, LifetimeRules, MemberFeed, Outbox, Probing, Reading, Session,
};
use postrider_model::{Entry, Evidence, FeedId, InboxPage, Millis, Timestamp, Topic, Transport};
use sink::Sink;
use std::sync::Arc;

/// Bytes of entries in one long-poll answer; the last may exceed it, so at least one entry goes whatever its size.
pub(crate) const POLL_BYTES: usize = 1 << 20;
/// The same over the bridge, where an answer waits beside others of its client; at most an outbox.
pub const BRIDGED_POLL_BYTES: usize = 32 << 10;
/// Acks of one WebSocket session that may wait for the disk; above it the socket is not read.
pub(crate) const MAX_SETTLING: u32 = 256;
/// Under `explicit` a poll begins with what is pending at or below its cursor. An answer of nothing else waits
/// so long, or a client that polls before it acknowledges would get the same at once, over and over.
pub(crate) const REPEAT_PAUSE: Millis = Millis(1000);
/// How soon after a write to look whether the client's TCP has acknowledged it.
const TCP_LOOK: Millis = Millis(100);
/// How often the pause between two such looks doubles.
const TCP_LOOK_DOUBLINGS: u8 = 6;
/// A poll whose page has not come ends so long after its time.
const READ_GRACE: Millis = Millis(2000);
/// Tokens that a client may send in so many seconds: each costs a check of its signature. One more ends the session.
const MAX_RENEWALS: u8 = 60;
const RENEWALS_SECONDS: u16 = 60;
/// A browser waits so long before it reconnects to an event stream.
const SSE_RETRY: Millis = Millis(2000);

pub(crate) struct Live {
    pub session: Session,
    pub lifetime: Lifetime,
    pub probing: Probing,
    pub wire: Wire,
    pings: u32,
    /// Acks of this session that wait for the disk, by weight.
    pub settling: u32,
    /// The socket is not read until those have been answered.
    pub paused: bool,
    /// The socket held bytes back when a turn ended.
    held_back: bool,
    /// Transient notifications were dropped, and the client has not been told.
    pub dropped_transient: bool,
    /// Looks for TCP's acknowledgement since the probe began.
    looks: u8,
    /// How much longer than others it waits between two probes: see [`Live::probe_interval`].
    phase: u8,
    /// Tokens that the client sent in the minute that began at this second, of those of 18 hours.
    renewals_since: u16,
    renewals: u8,
}

/// Where the feeds of a session stand that begins.
pub(crate) struct Whereabouts {
    pub feeds: Vec<postrider_delivery::FeedStart>,
    pub members: Vec<MemberFeed>,
}

pub(crate) enum Wire {
    Poll(Box<Poll>),
    Sse {
        tcp_evidence: bool,
    },
    /// Bare bodies, and not a word beside.
    Raw {
        tcp_evidence: bool,
        is_chunked: bool,
    },
    WebSocket {
        dialect: Dialect,
        /// Where the client has begun a frame or a message.
        decoder: Option<Box<Decoder>>,
    },
}

/// What a finished turn asks of the loop.
pub(crate) enum Next {
    /// Look again at this time, at the latest.
    At(Timestamp),
    /// The poll was answered: read the next request, which may have arrived already.
    Answered { keep_alive: bool, rest: Vec<u8> },
    /// End the connection, once what waits is written.
    End,
    /// End the connection: its client takes nothing.
    Stalled,
}

impl Live {
    fn new(session: Session, lifetime: Lifetime, wire: Wire) -> Live {
        Live {
            session,
            lifetime,
            probing: Probing::default(),
            wire,
            pings: 0,
            settling: 0,
            paused: false,
            held_back: false,
            dropped_transient: false,
            looks: 0,
            phase: 0,
            renewals_since: 0,
            renewals: 0,
        }
    }

    /// Whether the client may send a new token now; counts it.
    pub fn may_renew(&mut self, now: Timestamp) -> bool {
        let second = (now.0 / 1000) as u16;
        if second.wrapping_sub(self.renewals_since) >= RENEWALS_SECONDS {
            (self.renewals_since, self.renewals) = (second, 0);
        }
        self.renewals = self.renewals.saturating_add(1);
        self.renewals <= MAX_RENEWALS
    }

    /// Opens a session on this wire.
    pub fn open(
        key: Key,
        opening: &postrider_delivery::Opening,
        starts: &Whereabouts,
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
        let session = Session::open(opening, &starts.feeds, &starts.members, &mut sink);
        let mut live = Live::new(session, lifetime, wire);
        live.phase = phase(key.slot);
        // Where nothing is to be sent, the client has a place to come back to all the same.
        if !live.session.is_reading() {
            let mut cursor = Vec::new();
            live.push_cursor(&mut cursor);
            out.push(cursor.into());
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
            Wire::Sse { .. } | Wire::Raw { .. } => Transport::Sse,
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
                    sink.turn.stats.dropped_transients(1);
                    self.dropped_transient = true;
                }
            }
            Effect::Page(feed, reading, page) => self.session.page(feed, reading, page, now, &mut sink),
            Effect::PageFailed(feed, reading) => self.session.page_failed(feed, reading, &mut sink),
            Effect::CatchUp => self.session.catch_up(&mut sink),
            Effect::Suspect => self.session.suspect(&mut sink),
            Effect::SuspectFeed(feed) => self.session.suspect_feed(feed, &mut sink),
            Effect::Joined(topic, head) => self.session.join(topic, head, &mut sink),
            Effect::Left(topic, head) => self.session.leave(topic, head, &mut sink),
            Effect::MembersAre(members) => self.session.members_are(members, &mut sink),
            Effect::SuspectMembers => self.session.suspect_members(&mut sink),
            Effect::Redeliver => self.session.redeliver(now, &mut sink),
            Effect::Proven => self.session.proven(&mut sink),
        }
        let sent = sink.sent;
        if sent > 0 {
            turn.delivered(transport, sent);
        }
    }

    /// Ends a turn: the cursor after what was sent, a probe behind it, an answer that is complete. Last words go to
    /// the turn's tail, behind all that waits. `progress_at` is when the socket last took bytes.
    pub fn finish(
        &mut self,
        key: Key,
        held_back: bool,
        progress_at: Timestamp,
        socket: &mut Socket,
        out: &mut Outgoing,
        turn: &mut Turn,
    ) -> Next {
        if matches!(self.wire, Wire::Poll(_)) {
            return self.finish_poll(out, turn);
        }
        if self.dropped_transient && out.waiting() < turn.rules.bounds.outbox {
            self.dropped_transient = false;
            match self.wire {
                Wire::WebSocket {
                    dialect: Dialect::Notify,
                    ..
                }
                | Wire::Raw { .. } => {}
                Wire::WebSocket { .. } => out.push(websocket::error_frame("transient_dropped")),
                _ => out.push(sse::transient_dropped()),
            }
        }
        self.look_for_evidence(key, socket, out, turn);
        self.end_batch(socket, out.end(), turn);
        // What a client has not taken is not sent to it again.
        if !held_back && self.session.redeliver_at().is_some_and(|at| at <= turn.now) {
            self.apply(key, out, turn, Evidence::Cursor, Effect::Redeliver);
        }
        self.keep_alive(held_back, progress_at, socket, out, turn)
    }

    fn push_cursor(&self, tail: &mut Vec<u8>) {
        match self.wire {
            Wire::Poll(_) | Wire::Raw { .. } => {}
            Wire::Sse { .. } => sse::push_cursor_block(tail, |tail| self.session.push_cursor(tail)),
            Wire::WebSocket {
                dialect: Dialect::Notify,
                ..
            } => {}
            Wire::WebSocket { .. } if cfg!(feature = "echo") => {}
            Wire::WebSocket { .. } => {
                websocket::push_cursor_frame(tail, |tail| self.session.push_cursor(tail));
            }
        }
    }

    /// Looks whether the client's TCP has acknowledged what a probe asks for.
    fn look_for_evidence(&mut self, key: Key, socket: &Socket, out: &mut Outgoing, turn: &mut Turn) {
        if self.is_by_tcp()
            && let Some(token) = self.probing.under_way()
            && socket.has_reached(token, out.written())
        {
            self.evidence(token, Evidence::Tcp, key, out, turn);
        }
    }

    /// The session ends in order, with nothing left to be written: what the client's TCP has acknowledged by now the
    /// client has, though no probe asked.
    pub fn last_evidence(&mut self, key: Key, socket: &mut Socket, out: &mut Outgoing, turn: &mut Turn) {
        self.look_for_evidence(key, socket, out, turn);
        // Behind a bridge whoever took it may throw it away, as the client has gone.
        let can_tell = self.is_by_tcp() && socket.is_direct() && out.waiting() == 0;
        if !can_tell || !self.session.is_unsettled() {
            return;
        }
        let end = out.written();
        socket.watch(end);
        if socket.has_reached(end, end) {
            self.session.begin_probe();
            self.probing.begin(turn.now, end);
            self.evidence(end, Evidence::Tcp, key, out, turn);
        }
    }

    /// Puts the session's own words behind a batch: its cursor where that moved, and a probe where one is due.
    /// `end` is where the stream stands before them.
    fn end_batch(&mut self, socket: &mut Socket, end: u64, turn: &mut Turn) {
        let interval = self.probe_interval(turn);
        let due = if self.session.take_moved() {
            self.push_cursor(&mut turn.tail);
            self.probing.next_at(interval)
        } else {
            self.probing.alone_at(interval, self.lifetime.last_sent())
        };
        if due.is_none_or(|at| at > turn.now) || !self.session.is_unsettled() {
            return;
        }
        let token = match self.wire {
            Wire::WebSocket { .. } => {
                self.push_ping(&mut turn.tail);
                self.lifetime.sent(turn.now);
                u64::from(self.pings)
            }
            Wire::Sse { tcp_evidence: true }
            | Wire::Raw {
                tcp_evidence: true, ..
            } => {
                let end = end + turn.tail.len() as u64;
                socket.watch(end);
                end
            }
            _ => return,
        };
        self.looks = 0;
        self.session.begin_probe();
        self.probing.begin(turn.now, token);
    }

    /// The time between two of its probes: no shorter than the rule, and up to half as long again, as sessions that
    /// got the same broadcast would otherwise be probed by the same later one, and all answer at once, for ever.
    fn probe_interval(&self, turn: &Turn) -> Millis {
        stretched(turn.rules.probe, self.phase)
    }

    /// Something was sent to the client. Only a ping asks a WebSocket's for a sign of life.
    fn said(&mut self, now: Timestamp) {
        match self.wire {
            Wire::WebSocket { .. } => self.lifetime.sent_without_asking(now),
            _ => self.lifetime.sent(now),
        }
    }

    fn push_ping(&mut self, tail: &mut Vec<u8>) {
        self.pings += 1;
        websocket::push_ping(tail, u64::from(self.pings));
    }

    fn is_by_tcp(&self) -> bool {
        matches!(
            self.wire,
            Wire::Sse { tcp_evidence: true }
                | Wire::Raw {
                    tcp_evidence: true,
                    ..
                }
        )
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
        if self.probing.answered(token) {
            self.apply(key, out, turn, evidence, Effect::Proven);
        }
    }

    /// A pong: an answer to a probe if it carries one's number.
    pub fn pong(&mut self, token: u64, key: Key, out: &mut Outgoing, turn: &mut Turn) {
        if token <= u64::from(self.pings) {
            self.evidence(token, Evidence::Pong, key, out, turn);
        }
    }

    fn keep_alive(
        &mut self,
        held_back: bool,
        progress_at: Timestamp,
        socket: &Socket,
        out: &mut Outgoing,
        turn: &mut Turn,
    ) -> Next {
        let rules = *self.rules(turn);
        if out.waiting() > 0 || !turn.tail.is_empty() {
            self.said(turn.now);
        }
        let stalled_at = progress_at.plus(turn.rules.bounds.stall_timeout);
        if held_back && turn.now >= stalled_at {
            return Next::Stalled;
        }
        if self.held_back && !held_back {
            self.lifetime.heard(turn.now);
        }
        if self.paused && !held_back {
            // What it said is left in its socket.
            self.lifetime.heard(turn.now);
        }
        self.held_back = held_back;
        let rules = &rules;
        let must_speak = matches!(self.wire, Wire::WebSocket { .. }) && !held_back;
        let due = match must_speak {
            true => self.lifetime.due(rules, turn.now),
            // It need not speak; or it is slow, and a ping behind all that waits cannot have reached it.
            false => self.lifetime.due_by_sign(rules, turn.now, || socket.last_sign()),
        };
        match due {
            Some(LifetimeEvent::TokenExpired) => {
                // Nothing follows the last word.
                out.push(std::mem::take(&mut turn.tail).into());
                self.close(out, 4001, "token_expired", Millis(0));
                return Next::End;
            }
            Some(LifetimeEvent::Silent) => return Next::End,
            Some(LifetimeEvent::KeepAlive) => {
                match self.wire {
                    // Numbered like a probe: a client may answer only the newest ping.
                    Wire::WebSocket { .. } => self.push_ping(&mut turn.tail),
                    Wire::Raw { .. } => {}
                    _ => turn.tail.extend_from_slice(&sse::KEEP_ALIVE),
                }
                self.lifetime.sent(turn.now);
            }
            None => {}
        }
        let next = if held_back {
            self.lifetime
                .next_at(rules)
                .min(stalled_at)
                .min(self.probe_at(turn))
        } else {
            self.look_at(turn)
        };
        if self.is_by_tcp() && self.probing.under_way().is_some() {
            self.looks = self.looks.saturating_add(1);
        }
        Next::At(next)
    }

    /// When to look at a session again whose socket takes what it is sent.
    pub fn look_at(&self, turn: &Turn) -> Timestamp {
        let mut next = self.lifetime.next_at(self.rules(turn));
        if let Some(at) = self.session.redeliver_at() {
            next = next.min(at);
        }
        next.min(self.probe_at(turn))
    }

    /// When a probe is due, or a look whether one is answered.
    fn probe_at(&self, turn: &Turn) -> Timestamp {
        let probes = self.is_by_tcp() || matches!(self.wire, Wire::WebSocket { .. });
        match self
            .probing
            .alone_at(self.probe_interval(turn), self.lifetime.last_sent())
        {
            Some(at) if probes && self.session.is_unsettled() => at.max(turn.now.plus(Millis(1))),
            None if self.is_by_tcp() => {
                let wait = TCP_LOOK.0 << self.looks.min(TCP_LOOK_DOUBLINGS);
                turn.now.plus(Millis(wait))
            }
            _ => Timestamp::MAX,
        }
    }

    fn rules<'t>(&self, turn: &'t Turn) -> &'t LifetimeRules {
        match self.wire {
            Wire::Poll(_) => &turn.rules.poll,
            Wire::Sse { .. } | Wire::Raw { .. } => &turn.rules.sse,
            Wire::WebSocket { .. } => &turn.rules.websocket,
        }
    }

    /// The last words to the client: why it ends, and when to come back.
    pub fn close(&mut self, out: &mut Outgoing, code: u16, reason: &str, retry: Millis) {
        match self.wire {
            Wire::Raw { is_chunked: true, .. } => out.push(Bytes::from_static(raw::LAST_CHUNK)),
            Wire::Poll(_) | Wire::Raw { .. } => {}
            Wire::Sse { .. } if retry.0 > 0 => out.push(sse::retry(retry.0)),
            Wire::Sse { .. } => {}
            Wire::WebSocket { dialect, .. } => out.push(last_frame(dialect, code, reason, retry)),
        }
    }
}

/// Neighbours' phases lie far apart, and all of them evenly.
fn phase(slot: usize) -> u8 {
    // A multiple of the golden ratio's fraction.
    ((slot as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// An interval and a part of its half.
fn stretched(least: Millis, phase: u8) -> Millis {
    Millis(least.0 + (least.0 / 2) * u64::from(phase) / 256)
}

/// One thing that happens to a session.
pub(crate) enum Effect<'a> {
    Appended(&'a [Arc<Entry>]),
    Transient(&'a Arc<Entry>),
    Page(&'a FeedId, Reading, &'a InboxPage),
    PageFailed(&'a FeedId, Reading),
    CatchUp,
    Suspect,
    SuspectFeed(&'a FeedId),
    /// Its user joined a topic that had so many entries.
    Joined(&'a Topic, u64),
    /// Its user left a topic that had so many.
    Left(&'a Topic, u64),
    /// Its user is a member of these, says the engine.
    MembersAre(&'a [MemberFeed]),
    /// Something may have been appended to the topics that its user is a member of.
    SuspectMembers,
    Redeliver,
    Proven,
}

/// The last word to a WebSocket client, as its dialect says it.
pub(crate) fn last_frame(dialect: Dialect, code: u16, reason: &str, retry: Millis) -> Bytes {
    match dialect {
        Dialect::Postrider => close_frame(code, reason, retry),
        Dialect::Notify => notify::close_frame(code, reason),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::Connection;

    #[test]
    fn probes_of_many_sessions_spread_and_none_comes_too_soon() {
        let mut counts = [0; 256];
        (0..10_000).for_each(|slot| counts[usize::from(phase(slot))] += 1);
        assert!(counts.iter().all(|count| (35..=44).contains(count)), "{counts:?}");
        let second = Millis(1000);
        assert_eq!(
            (stretched(second, 0), stretched(second, 128)),
            (second, Millis(1250))
        );
        assert!(stretched(second, u8::MAX) < Millis(1500));
    }

    /// Beside its user's name, its seat and its timer this is what a session at rest takes.
    #[test]
    fn a_session_at_rest_is_small() {
        let (connection, live) = (size_of::<Connection>(), size_of::<Live>());
        assert!(connection <= 160 && live <= 304, "{connection} + {live} bytes");
    }
}
