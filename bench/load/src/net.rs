//! Every connection of a load, in one epoll loop: bytes out, messages in. Knows nothing of what is measured.
//!
//! Invariant: a connection at rest holds no buffer. What the server says is parsed in the one shared read buffer;
//! only the beginning of an incomplete message is kept with its connection.

mod reader;
#[cfg(test)]
mod tests;

pub use reader::{Message, Wire};

use crate::clock;
use anyhow::{Context as _, Result, bail};
use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};
use reader::Reader;
use slab::Slab;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

/// Bytes read at once, by all connections in turn.
const READ_BYTES: usize = 256 << 10;
/// Sockets looked at in one turn: few, so that what is due to be published waits for few.
const EVENTS: usize = 64;
/// The connections that are looked at first, as the others' poll knows them.
const FIRST: Token = Token(usize::MAX);
/// How long a connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// A connection of this load. Its number is not used again while the load runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Conn(usize, u32);

/// What a scenario does with what arrives.
pub trait Load {
    /// A whole message came. `tag` is what the connection was opened with.
    ///
    /// # Errors
    /// The message is not what it should be: the run is over.
    fn message(&mut self, net: &mut Net, conn: Conn, tag: usize, message: Message<'_>) -> Result<()>;

    /// The server closed a connection, with no message begun on it; its number is not used again.
    ///
    /// # Errors
    /// The load needs it: the run is over.
    fn closed(&mut self, _conn: Conn, tag: usize) -> Result<()> {
        bail!("the server closed connection {tag}")
    }
}

struct Peer {
    stream: TcpStream,
    tag: usize,
    generation: u32,
    reader: Reader,
    /// The beginning of a message.
    partial: Vec<u8>,
    /// What the socket has not taken yet.
    out: Vec<u8>,
}

/// The connections and their poll.
pub struct Net {
    poll: Poll,
    events: Option<Events>,
    peers: Slab<Peer>,
    buffer: Vec<u8>,
    generation: u32,
    server: SocketAddr,
    now: Instant,
    /// Those that are looked at first, which the other poll watches as one.
    first: Poll,
    preferred: Range<usize>,
}

impl Net {
    /// No connections yet; all will go to `server`.
    ///
    /// # Errors
    /// The system has no poll to give.
    pub fn new(server: SocketAddr) -> Result<Net> {
        Ok(Net {
            poll: Poll::new()?,
            first: Poll::new()?,
            preferred: 0..0,
            events: Some(Events::with_capacity(EVENTS)),
            peers: Slab::new(),
            buffer: vec![0; READ_BYTES],
            generation: 0,
            server,
            now: clock::now(),
        })
    }

    /// When the socket was read whose messages the load is given now: the clock, without asking it each time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Connections with these tags, opened from now on, are looked at first in every turn: what they get is not
    /// late because the load has thousands of others to read.
    ///
    /// # Errors
    /// The poll cannot watch another.
    pub fn prefer(&mut self, tags: Range<usize>) -> Result<()> {
        let first = self.first.as_raw_fd();
        let registry = self.poll.registry();
        registry.register(&mut SourceFd(&first), FIRST, Interest::READABLE)?;
        self.preferred = tags;
        Ok(())
    }

    /// Connects and sends the first request.
    ///
    /// # Errors
    /// There is no connection to be had.
    pub fn open(&mut self, tag: usize, wire: Wire, request: &[u8]) -> Result<Conn> {
        self.open_at(self.server, tag, wire, request)
    }

    /// Connects to another address than the usual.
    ///
    /// # Errors
    /// There is no connection to be had.
    pub fn open_at(&mut self, server: SocketAddr, tag: usize, wire: Wire, request: &[u8]) -> Result<Conn> {
        // On loopback this ends at once, or when the server has accepted some of those before.
        let stream = std::net::TcpStream::connect_timeout(&server, CONNECT_LIMIT)
            .with_context(|| format!("connect to {server}"))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        let both = Interest::READABLE | Interest::WRITABLE;
        let token = Token(self.peers.vacant_key());
        self.registry(tag).register(&mut stream, token, both)?;
        let entry = self.peers.vacant_entry();
        self.generation += 1;
        let conn = Conn(entry.key(), self.generation);
        entry.insert(Peer {
            stream,
            tag,
            generation: self.generation,
            reader: Reader::new(wire),
            partial: Vec::new(),
            out: Vec::new(),
        });
        self.send(conn, request)?;
        Ok(conn)
    }

    /// Sends now what the socket takes, and the rest as it takes more.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn send(&mut self, conn: Conn, bytes: &[u8]) -> Result<()> {
        let peer = self
            .peers
            .get_mut(conn.0)
            .filter(|peer| peer.generation == conn.1);
        let peer = peer.context("the connection was closed")?;
        let taken = if peer.out.is_empty() {
            write(&mut peer.stream, bytes)?
        } else {
            0
        };
        peer.out.extend_from_slice(&bytes[taken..]);
        Ok(())
    }

    /// Bytes that the socket has not taken.
    pub fn waiting(&self, conn: Conn) -> usize {
        self.peers.get(conn.0).map_or(0, |peer| peer.out.len())
    }

    /// Closes a connection, if it is open.
    ///
    /// # Errors
    /// The poll does not let go of it.
    pub fn close(&mut self, conn: Conn) -> Result<()> {
        if self.is_open(conn) {
            let mut peer = self.peers.remove(conn.0);
            self.registry(peer.tag).deregister(&mut peer.stream)?;
        }
        Ok(())
    }

    fn is_open(&self, conn: Conn) -> bool {
        self.peers
            .get(conn.0)
            .is_some_and(|peer| peer.generation == conn.1)
    }

    /// Waits for sockets, at most `wait`, and gives what came to the load.
    ///
    /// # Errors
    /// A connection broke, or the load refused a message.
    pub fn turn(&mut self, wait: Duration, load: &mut impl Load) -> Result<()> {
        let Some(mut events) = self.events.take() else {
            bail!("a turn within a turn");
        };
        poll(&mut self.poll, &mut events, wait)?;
        if !self.preferred.is_empty() {
            self.serve_first(load)?;
        }
        self.serve(&events, load)?;
        self.events = Some(events);
        Ok(())
    }

    /// Until nothing is left: the other poll tells of what comes, not of what is still there.
    fn serve_first(&mut self, load: &mut impl Load) -> Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            poll(&mut self.first, &mut events, Duration::ZERO)?;
            self.serve(&events, load)?;
            if events.iter().count() < EVENTS {
                return Ok(());
            }
        }
    }

    fn serve(&mut self, events: &Events, load: &mut impl Load) -> Result<()> {
        for event in events.iter().filter(|event| event.token() != FIRST) {
            let slot = event.token().0;
            if event.is_writable() {
                self.flush(slot)?;
            }
            if event.is_readable() {
                self.read(slot, event.is_read_closed(), load)?;
            }
        }
        Ok(())
    }

    /// The poll that watches the connections of a tag.
    fn registry(&self, tag: usize) -> &Registry {
        let poll = if self.preferred.contains(&tag) {
            &self.first
        } else {
            &self.poll
        };
        poll.registry()
    }

    /// Turns until the load says it is done; when that was.
    ///
    /// # Errors
    /// It is not, in time; `what` names what was waited for.
    pub fn run<L: Load>(
        &mut self,
        load: &mut L,
        limit: Duration,
        what: &str,
        mut done: impl FnMut(&mut Net, &mut L) -> Result<bool>,
    ) -> Result<Instant> {
        let start = clock::now();
        while !done(self, load)? {
            if start.elapsed() > limit {
                bail!("not done within {limit:?}: {what}");
            }
            self.turn(Duration::from_millis(50), load)?;
        }
        Ok(clock::now())
    }

    fn flush(&mut self, slot: usize) -> Result<()> {
        let Some(peer) = self.peers.get_mut(slot) else {
            return Ok(());
        };
        if !peer.out.is_empty() {
            let taken = write(&mut peer.stream, &peer.out)?;
            peer.out.drain(..taken);
            if peer.out.is_empty() {
                peer.out = Vec::new();
            }
        }
        Ok(())
    }

    fn read(&mut self, slot: usize, ended: bool, load: &mut impl Load) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        while let Some(peer) = self.peers.get_mut(slot) {
            let conn = Conn(slot, peer.generation);
            let mut filled = peer.partial.len();
            if buffer.len() < filled + READ_BYTES {
                buffer.resize(filled + READ_BYTES, 0);
            }
            buffer[..filled].copy_from_slice(&peer.partial);
            match peer.stream.read(&mut buffer[filled..]) {
                Ok(0) if filled > 0 => bail!("the server closed connection {} in a message", peer.tag),
                Ok(0) => {
                    let tag = peer.tag;
                    self.close(conn)?;
                    load.closed(conn, tag)?;
                    break;
                }
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("read"),
            }
            peer.partial = Vec::new();
            self.now = clock::now();
            let short = filled < buffer.len();
            self.received(conn, &buffer[..filled], load)?;
            // Edge-triggered: a read that did not fill the buffer has emptied the socket, but for its end.
            if short && !ended {
                break;
            }
        }
        self.buffer = buffer;
        Ok(())
    }

    fn received(&mut self, conn: Conn, bytes: &[u8], load: &mut impl Load) -> Result<()> {
        let mut at = 0;
        loop {
            // The load may have closed this connection.
            let Some(peer) = self
                .peers
                .get_mut(conn.0)
                .filter(|peer| peer.generation == conn.1)
            else {
                return Ok(());
            };
            let tag = peer.tag;
            let Some((length, message)) = peer.reader.next(&bytes[at..])? else {
                peer.partial = bytes[at..].to_vec();
                return Ok(());
            };
            at += length;
            if let Message::Ping(payload) = message {
                self.send(conn, &reader::pong(payload))?;
            }
            load.message(self, conn, tag, message)?;
        }
    }
}

/// Waits, at most so long. An interrupted wait found nothing.
fn poll(poll: &mut Poll, events: &mut Events, wait: Duration) -> Result<()> {
    match poll.poll(events, Some(wait)) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => events.clear(),
        polled => polled?,
    }
    Ok(())
}

/// Writes what the socket takes.
fn write(stream: &mut TcpStream, bytes: &[u8]) -> Result<usize> {
    let mut taken = 0;
    while taken < bytes.len() {
        match stream.write(&bytes[taken..]) {
            Ok(n) => taken += n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("write"),
        }
    }
    Ok(taken)
}
