//! TLS on a shard's sockets: handshakes begun, bounded and ended; what arrives deciphered; faults answered.
//!
//! Invariant: [`Handshakes::under_way`] is the number of this shard's connections whose handshake is not
//! complete. A handshake costs the loop most of a millisecond, so a turn makes only a few steps of them.

use super::*;
use crate::tls::{Layer, TlsFault, TlsSocket};
use rustls::ServerConfig;

/// Handshakes under way in one shard. With so many, no more connections are accepted: they wait in the listener's
/// queue for some to end.
const MAX_HANDSHAKES: usize = 1024;
/// While there are so many, one that has taken this long is dropped, so that clients that only connect do not
/// keep the others out.
const PRESSED_TIMEOUT: Millis = Millis(2_000);
/// Reads of unfinished handshakes in one turn, so that a crowd that arrives does not keep the sessions waiting.
const MAX_STEPS: usize = 16;

/// The handshakes of a shard.
#[derive(Default)]
pub(super) struct Handshakes {
    /// What its listener's connections begin with; `None` for HTTP in the clear.
    pub config: Option<Arc<ServerConfig>>,
    under_way: usize,
    /// Oldest first, and among them some that have ended.
    order: VecDeque<(Key, Timestamp)>,
    /// Left for this turn.
    steps: usize,
}

impl Handshakes {
    pub fn begin_turn(&mut self) {
        self.steps = MAX_STEPS;
    }

    /// Whether this turn can look at one more.
    pub fn may_step(&mut self) -> bool {
        let may = self.steps > 0;
        self.steps = self.steps.saturating_sub(1);
        may
    }

    /// A socket as this listener's clients expect it.
    pub fn wrap(&self, socket: mio::net::TcpStream) -> Option<Socket> {
        let Some(config) = &self.config else {
            return Some(Socket::Tcp(socket));
        };
        match Layer::new(config.clone()) {
            Ok(layer) => Some(Socket::Tls(Box::new(TlsSocket::new(socket, layer)))),
            Err(error) => {
                tracing::error!(%error, "TLS cannot be begun");
                None
            }
        }
    }
}

impl Shard {
    /// Whether one more handshake may begin; makes room by dropping those that take too long.
    pub(super) fn has_room_for_handshake(&mut self) -> bool {
        if self.tls.under_way < MAX_HANDSHAKES {
            return true;
        }
        let now = self.turn.now;
        while let Some(&(key, since)) = self.tls.order.front() {
            let open = self.is_handshaking(key);
            if open && since.plus(PRESSED_TIMEOUT) > now {
                break;
            }
            self.tls.order.pop_front();
            if open {
                self.drop_connection(key.slot);
            }
        }
        self.tls.under_way < MAX_HANDSHAKES
    }

    fn is_handshaking(&self, key: Key) -> bool {
        let connection = self.connections.get(key.slot).filter(|found| found.key == key);
        connection.is_some_and(|connection| connection.socket.is_handshaking())
    }

    /// A new connection counts, if it begins with a handshake.
    pub(super) fn count_handshake(&mut self, slot: usize) {
        let Some(connection) = self.connections.get(slot) else {
            return;
        };
        if !connection.socket.is_handshaking() {
            return;
        }
        let key = connection.key;
        if self.tls.order.len() >= MAX_HANDSHAKES * 2 {
            let mut order = std::mem::take(&mut self.tls.order);
            order.retain(|(key, _)| self.is_handshaking(*key));
            self.tls.order = order;
        }
        self.tls.under_way += 1;
        self.tls.order.push_back((key, self.turn.now));
    }

    /// Takes what a socket gave; with TLS, what that says. An error ends the connection.
    pub(super) fn arrived(&mut self, slot: usize, bytes: &mut [u8]) -> Result<(), ()> {
        let Some(connection) = self.connections.get_mut(slot) else {
            return Ok(());
        };
        let Socket::Tls(tls) = &mut connection.socket else {
            self.received(slot, bytes);
            return Ok(());
        };
        let mut plain = std::mem::take(&mut self.plain);
        let outcome = tls.layer.receive(bytes, &mut plain);
        let is_over = tls.layer.peer_has_ended();
        let complete = tls.counts_as_handshake && !tls.layer.is_handshaking();
        if !tls.layer.unsent().is_empty() {
            self.touch(slot);
        }
        if complete {
            // Before anything is received: that may hand the connection over.
            self.handshake_ended(slot, outcome.is_ok());
        }
        if !plain.is_empty() {
            self.received(slot, &mut plain);
            plain.clear();
        }
        self.plain = plain;
        match outcome {
            Ok(()) if is_over => {
                self.last_evidence(slot);
                Err(())
            }
            Ok(()) => Ok(()),
            Err(fault) => {
                self.tls_failed(slot, &fault);
                Ok(())
            }
        }
    }

    /// Nothing more can be said in confidence: an alert is the last word, or for a client that speaks no TLS
    /// an answer that it can read.
    fn tls_failed(&mut self, slot: usize, fault: &TlsFault) {
        tracing::debug!(%fault, "a TLS connection failed");
        self.turn.stats.faulted();
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        connection.out = Outgoing::default();
        if let (Socket::Tls(tls), TlsFault::NotTls) = (&mut connection.socket, fault) {
            let problem =
                Problem::invalid_request("This port speaks TLS. Use a URL that begins with https://.");
            tls.layer.last_words(&response::problem(&problem, false, &[]));
        }
        self.close(slot);
    }

    /// It no longer counts, whether it came to keys or to a fault.
    fn handshake_ended(&mut self, slot: usize, well: bool) {
        if well {
            self.turn.stats.shook_hands();
        }
        if let Some(connection) = self.connections.get_mut(slot)
            && let Socket::Tls(tls) = &mut connection.socket
            && std::mem::replace(&mut tls.counts_as_handshake, false)
        {
            self.make_room();
        }
    }

    fn make_room(&mut self) {
        self.tls.under_way -= 1;
        // Whoever waits to be accepted need not wait for the timer.
        if self.accept_again.is_some() {
            self.accept_again = Some(self.turn.now);
        }
    }

    /// A connection goes: its client is told so where everything before was said.
    pub(super) fn leave_tls(&mut self, connection: &mut Connection) {
        let Socket::Tls(tls) = &mut connection.socket else {
            return;
        };
        if tls.counts_as_handshake {
            self.turn.stats.faulted();
            self.make_room();
        } else if connection.out.waiting() == 0
            && let Err(error) = tls.goodbye()
        {
            tracing::debug!(%error, "a client did not wait for the goodbye");
        }
    }
}
