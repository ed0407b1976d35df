//! A shard's TCP socket with TLS on it: ciphertext from and to the kernel, and where in it a place of the
//! plaintext lies.
//!
//! Invariant: plaintext is taken only once the ciphertext before it is with the kernel, so what this holds is
//! bounded, and a client that takes nothing is noticed as without TLS.

use super::Layer;
use mio::net::TcpStream;
use std::io::{self, IoSlice, Write};

/// A socket and the TLS on it.
pub(crate) struct TlsSocket {
    pub tcp: TcpStream,
    pub layer: Layer,
    /// It counts among its shard's handshakes.
    pub counts_as_handshake: bool,
    /// Bytes of plaintext that were taken.
    taken: u64,
    /// Bytes of ciphertext that the kernel has taken.
    sent: u64,
    watched: Option<Watched>,
}

/// A place of the plaintext whose arrival someone waits for.
struct Watched {
    place: u64,
    /// Where its ciphertext ends, once that is with the kernel.
    wire: Option<u64>,
}

impl TlsSocket {
    pub fn new(tcp: TcpStream, layer: Layer) -> TlsSocket {
        TlsSocket {
            tcp,
            layer,
            counts_as_handshake: true,
            taken: 0,
            sent: 0,
            watched: None,
        }
    }

    /// From now on [`TlsSocket::has_reached`] can tell of this place. One place at a time.
    pub fn watch(&mut self, place: u64) {
        self.watched = Some(Watched { place, wire: None });
        self.note_place();
    }

    /// Whether the client's TCP has acknowledged all up to the watched place, where `unacknowledged` bytes of
    /// ciphertext are still on their way.
    pub fn has_reached(&self, place: u64, unacknowledged: u32) -> bool {
        let wire = self.watched.as_ref().filter(|watched| watched.place >= place);
        wire.and_then(|watched| watched.wire)
            .is_some_and(|wire| self.sent.saturating_sub(u64::from(unacknowledged)) >= wire)
    }

    /// Says goodbye as far as the socket takes it. True when it is said.
    pub fn goodbye(&mut self) -> io::Result<bool> {
        self.layer.goodbye();
        match self.flush() {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Where all ciphertext is with the kernel, so is that of the watched place.
    fn note_place(&mut self) {
        if self.layer.unsent().is_empty()
            && let Some(watched) = &mut self.watched
            && watched.wire.is_none()
            && watched.place <= self.taken
        {
            watched.wire = Some(self.sent);
        }
    }
}

impl Write for TlsSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.flush()?;
        let taken = self.layer.encrypt(slices)?;
        self.taken += taken as u64;
        match self.flush() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(taken),
        }
    }

    /// Gives the kernel what waits; [`io::ErrorKind::WouldBlock`] where it does not take all.
    fn flush(&mut self) -> io::Result<()> {
        while !self.layer.unsent().is_empty() {
            match self.tcp.write(self.layer.unsent()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    self.sent += n as u64;
                    self.layer.sent(n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.note_place();
        Ok(())
    }
}
