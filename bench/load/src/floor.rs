//! The floor: the least a server can do that sends messages to many WebSockets. No tokens, no store, no acks, no
//! bound for slow clients; all for everyone that arrived in one turn goes to each socket in one send, what is for one
//! user goes to that one at once.
//!
//! What it is for: the ratio of the product's cost to this one's says what the product's promises cost, on any
//! machine. It is no server for anything else.

use anyhow::Result;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use postrider_bench_load::requests::{FLOOR_PUBLISHER, SWITCHING};
use slab::Slab;
use std::io::{self, Read, Write};

const LISTENER: Token = Token(usize::MAX);
const READ_BYTES: usize = 64 << 10;
const EVENTS: usize = 1024;
/// No user has so many.
const NOBODY: usize = usize::MAX;

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
    /// Where each user's socket is.
    users: Vec<usize>,
    /// Frames for everyone that came in this turn.
    batch: Vec<u8>,
    buffer: Vec<u8>,
    frame: Vec<u8>,
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
        users: Vec::new(),
        batch: Vec::new(),
        buffer: vec![0; READ_BYTES],
        frame: Vec::new(),
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
            alive = self.read(slot);
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

    /// Reads all there is. False if the peer is gone.
    fn read(&mut self, slot: usize) -> bool {
        let mut buffer = std::mem::take(&mut self.buffer);
        let alive = loop {
            match self.peers[slot].stream.read(&mut buffer) {
                Ok(0) => break false,
                Ok(n) => self.received(slot, &buffer[..n]),
                Err(error) => break error.kind() == io::ErrorKind::WouldBlock,
            }
        };
        self.buffer = buffer;
        alive
    }

    /// A publisher's lines become frames.
    fn received(&mut self, slot: usize, bytes: &[u8]) {
        let peer = &mut self.peers[slot];
        if peer.stage == Stage::Session {
            return;
        }
        peer.held.extend_from_slice(bytes);
        if peer.stage == Stage::Head && peer.held.windows(4).any(|four| four == b"\r\n\r\n") {
            if peer.held.starts_with(FLOOR_PUBLISHER) {
                peer.stage = Stage::Publisher;
                peer.held.drain(..FLOOR_PUBLISHER.len());
            } else {
                peer.stage = Stage::Session;
                let user = number(&std::mem::take(&mut peer.held)[b"GET /".len()..]);
                peer.send(SWITCHING);
                if self.users.len() <= user {
                    self.users.resize(user + 1, NOBODY);
                }
                self.users[user] = slot;
            }
        }
        if self.peers[slot].stage == Stage::Publisher {
            let held = std::mem::take(&mut self.peers[slot].held);
            let taken = self.lines(&held);
            self.peers[slot].held.extend_from_slice(&held[taken..]);
        }
    }

    /// Takes whole lines; how many bytes they were.
    fn lines(&mut self, held: &[u8]) -> usize {
        let mut taken = 0;
        while let Some(length) = memchr::memchr(b'\n', &held[taken..]) {
            let line = &held[taken..taken + length];
            taken += length + 1;
            if line.first() != Some(&b'@') {
                push_frame(&mut self.batch, line);
                continue;
            }
            let text = memchr::memchr(b' ', line).map_or(line, |space| &line[space + 1..]);
            self.frame.clear();
            push_frame(&mut self.frame, text);
            let slot = self.users.get(number(&line[1..])).copied().unwrap_or(NOBODY);
            if let Some(peer) = self.peers.get_mut(slot)
                && !peer.send(&self.frame)
            {
                self.peers.remove(slot);
            }
        }
        taken
    }
}

/// The number that these bytes begin with.
fn number(bytes: &[u8]) -> usize {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'))
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
