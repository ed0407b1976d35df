//! Requests: reads heads, refers what is no inbox request, answers what cannot be, begins sessions.

use super::*;

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
        if head::is_http2_preface(&bytes) || connection.socket.speaks_http2() {
            if head::is_partial_http2_preface(&bytes) {
                // The rest has to come as soon as that of any head.
                *buffer = bytes;
                return;
            }
            return self.refer(slot, bytes);
        }
        match head::parse(&bytes) {
            Parsed::Partial => *buffer = bytes,
            Parsed::Invalid(problem) => self.answer(slot, &problem, false, &[]),
            Parsed::Complete(head, length) => match head::inbox_route(head.method, head.path) {
                None if connection.socket.is_direct() => {
                    if !self.try_publish(slot, &head, length, &bytes) {
                        self.refer(slot, bytes);
                    }
                }
                None => self.answer(slot, &Problem::not_found(), false, &[]),
                Some(route) => {
                    let cors = head
                        .header("origin")
                        .and_then(|origin| self.shared.gate.cors(origin))
                        .unwrap_or_default();
                    let keep_alive = head.keep_alive() && !head.has_body();
                    let (gate, max_feeds) = (&*self.shared.gate, self.turn.rules.bounds.max_feeds);
                    match connect::read(&head, route, connection.client, gate, self.turn.wall, max_feeds) {
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
    pub(super) fn refer(&mut self, slot: usize, already_read: Vec<u8>) {
        let Some(mut connection) = self.connections.try_remove(slot) else {
            return;
        };
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
        self.enter(
            slot,
            Stage::Head {
                buffer: rest,
                deadline,
            },
        );
        self.set_timer(slot, deadline);
        self.touch(slot);
    }

    /// Begins a session: asks the engine where its feeds stand.
    pub(super) fn begin(
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
        let client = self
            .connections
            .get(slot)
            .and_then(|connection| connection.client);
        let Some(place) = self.shared.addresses.take(client) else {
            return self.answer(slot, &too_many_of_address(), false, &cors);
        };
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
        // The last check: a request that was refused has not used its ticket up.
        let spent = request.ticket.as_ref().map_or(Ok(()), |(ticket, resumes)| {
            self.shared.gate.spend(ticket, *resumes, self.turn.wall)
        });
        if let Err(problem) = spent {
            self.shared.sessions.release(&user);
            return self.answer(slot, &problem, false, &cors);
        }
        let transport = request.wire.transport();
        self.turn.stats.opened(transport);
        let session = self.shared.new_session_id();
        let opening = Opening {
            request,
            session,
            cors,
            rest,
            missed: Vec::new(),
            missed_more: false,
        };
        let asked = opening.asked();
        let seats = self.hearers.join(slot, &asked.user, &asked.topics);
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        connection.stage = Stage::Opening(Box::new(opening));
        connection.place = place;
        connection.seats = seats;
        let key = connection.key;
        self.ask_starts(key, &asked);
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
            connection.out.push(response::switching_protocols(
                &handshake.accept,
                subprotocol,
                &extra,
            ));
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
