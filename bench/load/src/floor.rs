//! The floor: the least a server can do that sends one message to many WebSockets. No tokens, no store, no acks, no
//! bound for slow clients; all that arrived in one turn goes to each socket in one send.
//!
//! What it is for: the ratio of the product's cost to this one's says what the product's promises cost, on any
//! machine. It is no server for anything else.

use crate::payload::Payload;
use anyhow::Result;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use std::io::{self, Read, Write};

/// What a publisher sends first; lines follow, each of them a message.
pub const PUBLISHER: &[u8] = b"PUBLISH\r\n\r\n";
const LISTENER: Token = Token(usize::MAX);
const READ_BYTES: usize = 64 << 10;
const EVENTS: usize = 1024;
/// The answer to the one nonce that the load uses.
const SWITCHING: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// A message of the size that the product would send for the same publication, as a line.
pub fn push_line(out: &mut Vec<u8>, payload: &Payload, number: u64) {
    let mut notification = Vec::new();
    payload.push(&mut notification, None, number);
    out.extend_from_slice(br#"{"type":"notification","id":"01234567-89ab-7def-8123-456789abcdef","time":"2026-01-01T00:00:00.000Z","#);
    out.extend_from_slice(&notification[1..]);
    out.push(b'\n');
}

/// A publisher's first bytes with one message.
pub fn push_publisher(out: &mut Vec<u8>, payload: &Payload, number: u64) {
    out.extend_from_slice(PUBLISHER);
    push_line(out, payload, number);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Head,
    Session,
    Publisher,
}

struct Peer {
    stream: TcpStream,
    stage: Stage,
    /// What the socket did not take, or what it has not sent whole. Empty at rest.
    held: Vec<u8>,
}

struct Floor {
    poll: Poll,
    listener: TcpListener,
    peers: Slab<Peer>,
    /// Frames that came in this turn.
    batch: Vec<u8>,
    buffer: Vec<u8>,
}

/// Serves until it is killed.
pub fn serve() -> Result<()> {
    let poll = Poll::new()?;
    let mut listener = TcpListener::bind(([127, 0, 0, 1], 0).into())?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    println!("{{\"event\":\"ready\",\"http\":\"{}\"}}", listener.local_addr()?);
    let mut floor = Floor {
        poll,
        listener,
        peers: Slab::new(),
        batch: Vec::new(),
        buffer: vec![0; READ_BYTES],
    };
    let mut events = Events::with_capacity(EVENTS);
    loop {
        match floor.poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for event in &events {
            match event.token() {
                LISTENER => floor.accept()?,
                Token(slot) => floor.ready(slot, event.is_readable(), event.is_writable()),
            }
        }
        floor.fan_out();
    }
}

impl Floor {
    fn accept(&mut self) -> Result<()> {
        loop {
            match self.listener.accept() {
                Ok((mut stream, _)) => {
                    stream.set_nodelay(true)?;
                    let entry = self.peers.vacant_entry();
                    let both = Interest::READABLE | Interest::WRITABLE;
                    self.poll
                        .registry()
                        .register(&mut stream, Token(entry.key()), both)?;
                    entry.insert(Peer {
                        stream,
                        stage: Stage::Head,
                        held: Vec::new(),
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn ready(&mut self, slot: usize, readable: bool, writable: bool) {
        let Some(peer) = self.peers.get_mut(slot) else {
            return;
        };
        let mut alive = true;
        if writable && peer.stage == Stage::Session && !peer.held.is_empty() {
            let bytes = std::mem::take(&mut peer.held);
            alive = peer.send(&bytes);
        }
        if readable && alive {
            alive = peer.read(&mut self.buffer, &mut self.batch);
        }
        if !alive {
            // The socket leaves the poll as it is closed.
            self.peers.remove(slot);
        }
    }

    fn fan_out(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.batch);
        self.peers
            .retain(|_, peer| peer.stage != Stage::Session || peer.send(&batch));
    }
}

impl Peer {
    /// Sends what the socket takes and holds the rest. False if the peer is gone.
    fn send(&mut self, bytes: &[u8]) -> bool {
        let mut taken = 0;
        while self.held.is_empty() && taken < bytes.len() {
            match self.stream.write(&bytes[taken..]) {
                Ok(n) => taken += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return false,
            }
        }
        self.held.extend_from_slice(&bytes[taken..]);
        true
    }

    /// Reads all there is; a publisher's lines become frames. False if the peer is gone.
    fn read(&mut self, buffer: &mut [u8], batch: &mut Vec<u8>) -> bool {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return false,
                Ok(n) => self.received(&buffer[..n], batch),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
        }
    }

    fn received(&mut self, bytes: &[u8], batch: &mut Vec<u8>) {
        if self.stage == Stage::Session {
            return;
        }
        self.held.extend_from_slice(bytes);
        if self.stage == Stage::Head && self.held.windows(4).any(|four| four == b"\r\n\r\n") {
            if self.held.starts_with(PUBLISHER) {
                self.stage = Stage::Publisher;
                self.held.drain(..PUBLISHER.len());
            } else {
                self.stage = Stage::Session;
                self.held = Vec::new();
                self.send(SWITCHING);
            }
        }
        while self.stage == Stage::Publisher
            && let Some(end) = memchr::memchr(b'\n', &self.held)
        {
            push_frame(batch, &self.held[..end]);
            self.held.drain(..=end);
        }
    }
}

fn push_frame(out: &mut Vec<u8>, text: &[u8]) {
    // Messages of a measurement are between 126 and 65,535 bytes or shorter; longer ones are never published.
    match u16::try_from(text.len()).unwrap_or(u16::MAX) {
        short @ 0..=125 => out.extend_from_slice(&[0x81, short as u8]),
        long => {
            out.extend_from_slice(&[0x81, 126]);
            out.extend_from_slice(&long.to_be_bytes());
        }
    }
    out.extend_from_slice(text);
}
