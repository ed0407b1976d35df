//! A shard's sockets: accepted, adopted, read, dropped; and each connection's one timer.

use super::*;
use crate::addresses::Place;

/// Connections accepted in one turn, so that a crowd that arrives does not keep the sessions waiting.
const MAX_ACCEPTED: usize = 256;

impl Shard {
    pub(super) fn accept(&mut self) {
        self.accept_again = None;
        self.has_accepted = true;
        for _ in 0..MAX_ACCEPTED {
            if self.listener.is_some() && !self.has_room_for_handshake() {
                self.accept_again = Some(self.turn.now.plus(ACCEPT_RETRY));
                return;
            }
            let Some(listener) = &self.listener else { return };
            match listener.accept() {
                Ok((socket, peer)) => {
                    // Elsewhere it does not come from the listener.
                    if !cfg!(target_os = "linux")
                        && let Err(error) = socket.set_nodelay(true)
                    {
                        tracing::debug!(%error, "a new connection was gone at once");
                        continue;
                    }
                    if let Some(socket) = self.tls.wrap(socket) {
                        self.adopt(socket, Some(peer.ip().into()), Vec::new());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted
                    ) => {}
                Err(error) => {
                    if let Some(unsaid) = self.turn.complaints.socket.due(self.turn.now) {
                        tracing::warn!(%error, unsaid, "cannot accept connections");
                    }
                    self.accept_again = Some(self.turn.now.plus(ACCEPT_RETRY));
                    return;
                }
            }
        }
        // The rest in the next turn.
        self.accept_again = Some(self.turn.now);
    }

    pub(super) fn adopt(&mut self, mut socket: Socket, client: Option<Address>, already_read: Vec<u8>) {
        if self.turn.stats.connected() > self.shared.max_connections {
            self.turn.stats.disconnected();
            if let Some(unsaid) = self.turn.complaints.crowd.due(self.turn.now) {
                tracing::warn!(unsaid, "too many connections; one was refused");
            }
            return;
        }
        // What waits for its handshake has its turn later.
        let is_plain = matches!(socket, Socket::Tcp(_));
        let entry = self.connections.vacant_entry();
        let slot = entry.key();
        if let Err(error) = self
            .poller
            .registry()
            .register(socket.source(), Token(slot), Interest::READABLE)
        {
            self.turn.stats.disconnected();
            if let Some(unsaid) = self.turn.complaints.socket.due(self.turn.now) {
                tracing::warn!(%error, unsaid, "cannot watch a socket");
            }
            return;
        }
        self.generation += 1;
        entry.insert(Connection {
            key: Key {
                slot,
                generation: self.generation,
            },
            socket,
            client,
            place: Place::default(),
            seats: Seats::default(),
            out: Outgoing::default(),
            stage: Stage::Head {
                buffer: already_read,
                deadline: self.turn.now.plus(self.turn.rules.bounds.head_timeout),
                kept: None,
            },
            blocked: false,
            watches_writes: false,
            timer: Timestamp::MAX,
            armed: Timestamp::MAX,
            touched: false,
            left_unread: false,
            shut: false,
            progress_at: self.turn.now,
        });
        self.count_handshake(slot);
        if is_plain {
            // Mostly its first request came with it.
            self.readable(slot, false);
        } else {
            self.try_head(slot);
        }
        let is_reading = |connection: &Connection| matches!(connection.stage, Stage::Head { .. });
        if self.connections.get(slot).is_some_and(is_reading) {
            self.set_timer(slot, self.turn.now.plus(self.turn.rules.bounds.head_timeout));
        }
    }

    /// A socket that took less than it was given will say when it takes more. Most never come to that, and to watch
    /// them for it costs an event each when they begin.
    pub(super) fn watch_writes(&mut self, slot: usize) {
        let waits = |connection: &&mut Connection| connection.blocked && !connection.watches_writes;
        let Some(connection) = self.connections.get_mut(slot).filter(waits) else {
            return;
        };
        let interest = Interest::READABLE | Interest::WRITABLE;
        let source = connection.socket.source();
        match self.poller.registry().reregister(source, Token(slot), interest) {
            Ok(()) => connection.watches_writes = true,
            // Its client counts as one that takes nothing, until it is gone.
            Err(error) => {
                if let Some(unsaid) = self.turn.complaints.socket.due(self.turn.now) {
                    tracing::warn!(%error, unsaid, "cannot watch a socket");
                }
            }
        }
    }

    pub(super) fn socket_event(&mut self, slot: usize, event: &mio::event::Event) {
        if event.is_writable()
            && let Some(connection) = self.connections.get_mut(slot)
            && connection.blocked
        {
            connection.blocked = false;
            self.touch(slot);
        }
        if event.is_readable() || event.is_read_closed() {
            self.readable(slot, event.is_read_closed());
        }
    }

    /// Reads what a socket has. Once it gives less than was asked for it has no more, and the next event says when it
    /// has again; to learn of its end, `through`, it is read until there is one.
    pub(super) fn readable(&mut self, slot: usize, through: bool) {
        for _ in 0..MAX_READS {
            let Some(connection) = self.connections.get_mut(slot) else {
                return;
            };
            if connection.is_full() {
                connection.left_unread = true;
                return;
            }
            if connection.socket.is_handshaking() && !self.tls.may_step() {
                self.unread.push_back(connection.key);
                return;
            }
            let mut buffer = std::mem::take(&mut self.buffer);
            let read = connection.socket.read(&mut buffer);
            let mut all = false;
            let outcome = match read {
                Ok(0) => {
                    self.last_evidence(slot);
                    Err(())
                }
                Ok(n) => {
                    all = n < buffer.len() && !through;
                    self.arrived(slot, &mut buffer[..n])
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
            if all {
                return;
            }
        }
        if let Some(connection) = self.connections.get(slot) {
            self.unread.push_back(connection.key);
        }
    }

    /// A session is about to end in order, from this side or from its client's: settles what its client has.
    pub(super) fn last_evidence(&mut self, slot: usize) {
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        // What a turn that is not finished added is not written yet.
        if connection.touched {
            return;
        }
        let key = connection.key;
        if let Stage::Live(live) = &mut connection.stage {
            live.last_evidence(key, &mut connection.socket, &mut connection.out, &mut self.turn);
        }
    }

    pub(super) fn received(&mut self, slot: usize, bytes: &mut [u8]) {
        let now = self.turn.now;
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        match &mut connection.stage {
            Stage::Head { buffer, .. } => {
                // Mostly a head comes whole, and nothing of it has to be kept.
                let is_next = buffer.is_empty() && connection.out.waiting() == 0;
                if is_next && self.take_head(slot, bytes) {
                    return;
                }
                self.keep_head(slot, bytes);
                if !is_next {
                    self.try_head(slot);
                }
            }
            Stage::Opening(opening) => opening.rest.extend_from_slice(bytes),
            Stage::Live(live) => {
                live.lifetime.heard(now);
                match &mut live.wire {
                    Wire::Poll(poll) => poll.keep_rest(bytes),
                    // A stream's client has nothing to say.
                    Wire::Sse { .. } | Wire::Raw { .. } => {}
                    Wire::WebSocket { .. } => self.received_frames(slot, bytes),
                }
            }
            Stage::Publishing(_) => self.publish_received(slot, bytes),
            Stage::Closing { .. } => {}
        }
    }

    /// Keeps the beginning of a head, or a request whose turn has not come.
    fn keep_head(&mut self, slot: usize, bytes: &[u8]) {
        if let Some(connection) = self.connections.get_mut(slot)
            && let Stage::Head { buffer, .. } = &mut connection.stage
        {
            buffer.extend_from_slice(bytes);
        }
    }

    pub(super) fn drop_connection(&mut self, slot: usize) {
        let Some(mut connection) = self.connections.try_remove(slot) else {
            return;
        };
        self.leave_stage(slot, &connection.stage, &connection.seats);
        self.leave_tls(&mut connection);
        // It is closed here, and with that watched no longer.
        drop(connection);
        self.turn.stats.disconnected();
    }

    /// Undoes what a stage holds outside its connection: its seats, and its part of its user's count.
    pub(super) fn leave_stage(&mut self, slot: usize, stage: &Stage, seats: &Seats) {
        let (user, transport) = match stage {
            Stage::Live(live) => (live.session.user(), live.transport()),
            Stage::Opening(opening) => (&opening.asked.user, opening.wire.transport()),
            Stage::Head { kept: Some(kept), .. } => {
                return self.hearers.leave(slot, kept.session.user(), seats);
            }
            Stage::Publishing(publishing) => return self.leave_publishing(publishing),
            Stage::Head { .. } | Stage::Closing { .. } => return,
        };
        self.hearers.leave(slot, user, seats);
        self.states.forget(slot);
        self.session_ended(user);
        self.turn.stats.ended(transport);
    }

    /// Moves a connection to another stage.
    pub(super) fn enter(&mut self, slot: usize, stage: Stage) {
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        let old = std::mem::replace(&mut connection.stage, stage);
        let seats = std::mem::take(&mut connection.seats);
        connection.place = Place::default();
        self.leave_stage(slot, &old, &seats);
    }

    /// Looks at a connection again at this time. One that is put off stays in the wheel where it is, and is put back
    /// when it comes out.
    pub(super) fn set_timer(&mut self, slot: usize, at: Timestamp) {
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        connection.timer = at;
        if at < connection.armed {
            let timer = (slot as u32, connection.key.generation as u32);
            connection.armed = self.wheel.insert(at, timer);
        }
    }

    pub(super) fn touch(&mut self, slot: usize) {
        if let Some(connection) = self.connections.get_mut(slot)
            && !connection.touched
        {
            connection.touched = true;
            self.touched.push(slot);
        }
    }
}
