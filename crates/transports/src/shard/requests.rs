//! Requests: reads heads, refers what is no inbox request, answers what cannot be, begins sessions.

use super::*;
use crate::head::Head;

impl Shard {
    /// Looks whether the head is complete, and acts on it.
    pub(super) fn try_head(&mut self, slot: usize) {
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        let Stage::Head { buffer, .. } = &mut connection.stage else {
            return;
        };
        // One request at a time: the next is served once the answer before it is out.
        if buffer.is_empty() || connection.out.waiting() > 0 {
            return;
        }
        let bytes = std::mem::take(buffer);
        if !self.take_head(slot, &bytes)
            && let Some(connection) = self.connections.get_mut(slot)
            && let Stage::Head { buffer, .. } = &mut connection.stage
        {
            *buffer = bytes;
        }
    }

    /// Acts on what a client sent where a head is expected; false where the rest of that has yet to come, as soon as
    /// that of any head.
    pub(super) fn take_head(&mut self, slot: usize, bytes: &[u8]) -> bool {
        let Some(connection) = self.connections.get(slot) else {
            return true;
        };
        if head::is_http2_preface(bytes) || connection.socket.speaks_http2() {
            let is_whole = !head::is_partial_http2_preface(bytes);
            if is_whole {
                self.refer(slot, bytes.to_vec());
            }
            return is_whole;
        }
        match head::parse(bytes) {
            Parsed::Partial => return false,
            Parsed::Invalid(problem) => self.answer(slot, &problem, false, &[]),
            Parsed::Complete(head, length) if self.is_notify(&head) => {
                return self.take_notify_head(slot, &head, length, &bytes[length..]);
            }
            Parsed::Complete(head, length) if self.is_raw(&head) => {
                return self.take_raw_head(slot, &head, &bytes[length..], 0);
            }
            Parsed::Complete(head, length) => match head::inbox_route(head.method, head.path) {
                None if connection.socket.is_direct() => {
                    if !self.try_publish(slot, &head, length, bytes) {
                        self.refer(slot, bytes.to_vec());
                    }
                }
                None => self.answer(slot, &Problem::not_found(), false, &[]),
                Some(route) => self.take_inbox_head(slot, &head, route, &bytes[length..]),
            },
        }
        true
    }

    /// Acts on a request for an inbox; `rest` is what the client sent after it.
    fn take_inbox_head(&mut self, slot: usize, head: &Head<'_>, route: InboxRoute, rest: &[u8]) {
        let client = self
            .connections
            .get(slot)
            .and_then(|connection| connection.client);
        let cors = head
            .header("origin")
            .and_then(|origin| self.shared.gate.cors(origin))
            .unwrap_or_default();
        let (gate, max_feeds) = (&*self.shared.gate, self.turn.rules.bounds.max_feeds);
        match connect::read(head, route, client, gate, self.turn.wall, max_feeds) {
            Ok(request) => self.begin(slot, request, cors, rest.to_vec()),
            Err(problem) => {
                let keep_alive = head.keep_alive() && !head.has_body();
                self.answer(slot, &problem, keep_alive, &cors);
                if keep_alive {
                    self.next_request(slot, rest.to_vec());
                }
            }
        }
    }

    /// Hands the connection over, with what was read of it.
    pub(super) fn refer(&mut self, slot: usize, already_read: Vec<u8>) {
        let Some(mut connection) = self.connections.try_remove(slot) else {
            return;
        };
        self.leave_stage(slot, &connection.stage, &connection.seats);
        if let Err(error) = self.poller.registry().deregister(connection.socket.source()) {
            tracing::debug!(%error, "a socket was not watched");
        }
        self.turn.stats.disconnected();
        let refer: &dyn Refer = &*self.shared.refer;
        match connection.socket {
            Socket::Tcp(socket) => refer.refer(Link::Plain(socket.into()), already_read),
            Socket::Tls(tls) => refer.refer(Link::Tls(tls.tcp.into(), Box::new(tls.layer)), already_read),
            Socket::Bridged(_) => {}
        }
    }

    /// Answers with a problem, and ends the connection unless it may go on.
    pub(super) fn answer(
        &mut self,
        slot: usize,
        problem: &Problem,
        keep_alive: bool,
        cors: &[(&'static str, String)],
    ) {
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
    pub(super) fn close(&mut self, slot: usize) {
        self.last_evidence(slot);
        let deadline = self.turn.now.plus(CLOSING_TIMEOUT);
        self.enter(slot, Stage::Closing { deadline });
        self.set_timer(slot, deadline);
        self.touch(slot);
    }

    /// Reads on for the next request, part of which may have arrived; it is looked at when the turn ends.
    pub(super) fn next_request(&mut self, slot: usize, rest: Vec<u8>) {
        let wait = if rest.is_empty() {
            self.turn.rules.bounds.idle_timeout
        } else {
            self.turn.rules.bounds.head_timeout
        };
        let deadline = self.turn.now.plus(wait);
        let kept = self.end_poll(slot);
        // A poll's turn is being finished as it is.
        let is_finishing = kept.is_some();
        let kept = kept.and_then(|kept| self.keep_seats(slot, kept));
        let head = Stage::Head {
            buffer: rest,
            deadline,
            kept,
        };
        match self.connections.get_mut(slot) {
            Some(connection) if is_finishing => connection.stage = head,
            _ => {
                self.enter(slot, head);
                self.touch(slot);
            }
        }
        self.set_timer(slot, deadline);
    }

    pub(super) fn push_upgrade(
        &mut self,
        slot: usize,
        handshake: &websocket::Handshake,
        cors: &[(&'static str, String)],
    ) {
        let extra: Vec<_> = cors.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let subprotocol = handshake.subprotocol.then_some(websocket::SUBPROTOCOL);
        if let Some(connection) = self.connections.get_mut(slot) {
            connection.out.append(|bytes| {
                response::push_switching_protocols(bytes, &handshake.accept, subprotocol, &extra);
            });
        }
    }
}
