//! A shard's sockets: accepted, adopted, read, dropped; and each connection's one timer.

use super::*;

impl Shard {
    pub(super) fn accept(&mut self) {
        self.accept_again = None;
        loop {
            if self.listener.is_some() && !self.has_room_for_handshake() {
                self.accept_again = Some(self.turn.now.plus(ACCEPT_RETRY));
                return;
            }
            let Some(listener) = &self.listener else { return };
            match listener.accept() {
                Ok((socket, peer)) => {
                    if let Err(error) = socket.set_nodelay(true) {
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
                    tracing::warn!(%error, "cannot accept connections");
                    self.accept_again = Some(self.turn.now.plus(ACCEPT_RETRY));
                    return;
                }
            }
        }
    }

    pub(super) fn adopt(&mut self, mut socket: Socket, client: Option<Address>, already_read: Vec<u8>) {
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
            client,
            place: None,
            out: Outgoing::default(),
            stage: Stage::Head {
                buffer: already_read,
                deadline: self.turn.now.plus(self.turn.rules.bounds.head_timeout),
            },
            blocked: false,
            timer: None,
            touched: false,
            shut: false,
            progress_at: self.turn.now,
        });
        self.set_timer(slot, self.turn.now.plus(self.turn.rules.bounds.head_timeout));
        self.count_handshake(slot);
        self.try_head(slot);
    }

    pub(super) fn socket_event(&mut self, slot: usize, readable: bool, writable: bool) {
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

    pub(super) fn readable(&mut self, slot: usize) {
        for _ in 0..MAX_READS {
            let Some(connection) = self.connections.get_mut(slot) else {
                return;
            };
            if connection.is_full() {
                return;
            }
            if connection.socket.is_handshaking() && !self.tls.may_step() {
                self.unread.push_back(connection.key);
                return;
            }
            let mut buffer = std::mem::take(&mut self.buffer);
            let read = connection.socket.read(&mut buffer);
            let outcome = match read {
                Ok(0) => Err(()),
                Ok(n) => self.arrived(slot, &mut buffer[..n]),
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

    pub(super) fn received(&mut self, slot: usize, bytes: &mut [u8]) {
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

    pub(super) fn drop_connection(&mut self, slot: usize) {
        let Some(mut connection) = self.connections.try_remove(slot) else {
            return;
        };
        if let Some(at) = connection.timer {
            self.timers.remove(&(at, slot));
        }
        self.leave_stage(slot, &connection.stage);
        self.leave_tls(&mut connection);
        if let Err(error) = self.poller.registry().deregister(connection.socket.source()) {
            tracing::debug!(%error, "a socket was not watched");
        }
        self.turn.stats.disconnected();
    }

    /// Undoes what a stage holds outside its connection: its place in the feeds, and in its user's count.
    pub(super) fn leave_stage(&mut self, slot: usize, stage: &Stage) {
        let (feeds, user, transport): (Vec<FeedId>, &UserId, Transport) = match stage {
            Stage::Live(live) => (
                live.session.feeds().cloned().collect(),
                live.session.user(),
                live.transport(),
            ),
            Stage::Opening(opening) => {
                let asked = opening.asked();
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
    pub(super) fn enter(&mut self, slot: usize, stage: Stage) {
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        let old = std::mem::replace(&mut connection.stage, stage);
        connection.place = None;
        self.leave_stage(slot, &old);
    }

    pub(super) fn set_timer(&mut self, slot: usize, at: Timestamp) {
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

    pub(super) fn touch(&mut self, slot: usize) {
        if let Some(connection) = self.connections.get_mut(slot)
            && !connection.touched
        {
            connection.touched = true;
            self.touched.push(slot);
        }
    }
}
