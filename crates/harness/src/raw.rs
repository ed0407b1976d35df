//! A socket without manners: it writes without reading, reads as slowly as it likes, and speaks WebSocket by hand.
//!
//! Invariant: nothing is sent, read or ended but at the test's word, beyond the handshake of [`Socket::open`].
//!
//! It does not judge: whether the node bore it is seen by [`unharmed`], [`crate::bystanders`] and [`crate::gauge`].

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::http::{Conn, Request};
use crate::inbox::Refused;
use crate::node::{KEY, Node};
use crate::publish::Publisher;
use crate::token;
use crate::user::User;
use crate::wait::{until, within};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

/// A receive buffer so small that the server is left with what is not read.
pub const SMALL_BUFFER: usize = 4096;

/// How long a connection may take to be made, also where the node's queue is full for a while.
const CONNECT_WITHIN: Duration = Duration::from_secs(60);

/// A request of a user.
pub fn as_user(user: &str, method: &str, target: &str) -> Result<Request> {
    Ok(Request::new(method, target).bearer(&token::user(user)?))
}

/// A connected socket with a receive buffer of so many bytes.
pub fn connect(node: &Node, recv_buffer: Option<usize>) -> Result<TcpStream> {
    Ok(Conn::open(node.endpoint.addr()?, recv_buffer)?.into_parts().0)
}

/// As [`connect`], from an address of the loopback network: 127.0.0.`host`.
pub fn connect_from(addr: SocketAddr, host: u8, recv_buffer: Option<usize>) -> Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    if let Some(bytes) = recv_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.set_tcp_nodelay(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0)).into())?;
    let connected = socket.connect_timeout(&addr.into(), CONNECT_WITHIN);
    connected.with_context(|| format!("connect {addr} from 127.0.0.{host}"))?;
    Ok(socket.into())
}

/// Writes the same bytes again and again until the other side takes no more for a second, or cuts the connection,
/// or has taken `most`. Returns how many bytes it took.
pub fn flood(stream: &mut TcpStream, bytes: &[u8], most: usize) -> Result<usize> {
    stream.set_write_timeout(Some(Duration::from_secs(1)))?;
    let mut taken = 0;
    let mut from = 0;
    while taken < most {
        match stream.write(&bytes[from..]) {
            Ok(written) => {
                taken += written;
                from = (from + written) % bytes.len();
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    Ok(taken)
}

/// The node takes and delivers a notification.
pub fn unharmed(node: &Node, user: &str) -> Result<()> {
    let id = Publisher::new(&node.endpoint, KEY).accepted(&json!({"users": [user], "data": 1}))?;
    let asker = User::new(&node.endpoint, user)?;
    // One whom a busy node puts off comes again, as it is told to.
    let pending = until("reading", within(60), || match asker.pending() {
        Err(e) if Refused::is_for_now(&e) => Ok(None),
        told => told.map(Some),
    })?;
    ensure!(pending.contains(&id), "{user} has {pending:?}, without {id}");
    Ok(())
}

/// By how much the node's memory grows while something is done, in bytes.
pub fn growth(node: &Node, done: impl FnOnce() -> Result<()>) -> Result<u64> {
    let before = node.rss_bytes()?;
    done()?;
    Ok(node.rss_bytes()?.saturating_sub(before))
}

/// A WebSocket whose every frame the test writes and reads itself.
pub struct Socket {
    stream: TcpStream,
    held: Vec<u8>,
}

/// A frame as it came.
pub enum Frame {
    /// JSON.
    Text(Value),
    /// With its payload.
    Ping(Vec<u8>),
    /// With code and reason.
    Close(Vec<u8>),
    /// Any other.
    Other,
}

impl Socket {
    /// Makes the handshake.
    pub fn open(node: &Node, user: &str, query: &str, recv_buffer: Option<usize>) -> Result<Socket> {
        let mut conn = Conn::open(node.endpoint.addr()?, recv_buffer)?;
        let request = as_user(user, "GET", &format!("/v1/inbox/ws{query}"))?
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
        conn.write(&request.bytes())?;
        let head = conn
            .head(Instant::now() + Duration::from_secs(30))?
            .context("no answer to the handshake")?;
        ensure!(head.status == 101, "the handshake was answered {}", head.status);
        let (stream, held) = conn.into_parts();
        Ok(Socket { stream, held })
    }

    /// A second handle, to write from another thread.
    pub fn writer(&self) -> Result<TcpStream> {
        Ok(self.stream.try_clone()?)
    }

    /// Sends a frame.
    pub fn send(&mut self, opcode: u8, payload: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(&frame(opcode, payload))?)
    }

    /// Sends a frame with any first byte, such as a fragment.
    pub fn send_part(&mut self, first: u8, payload: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(&part(first, payload))?)
    }

    /// The next frame; `None` at the deadline.
    pub fn next(&mut self, deadline: Instant) -> Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut piece = [0; 64 * 1024];
            match self.stream.read(&mut piece) {
                Ok(0) => bail!("the server closed the socket"),
                Ok(read) => self.held.extend_from_slice(&piece[..read]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(None),
                Err(e) => return Err(e).context("reading a frame"),
            }
        }
    }

    fn take(&mut self) -> Result<Option<Frame>> {
        let [first, second, ..] = *self.held else {
            return Ok(None);
        };
        // A server does not mask (RFC 6455, 5.1).
        let (length, from) = match second & 0x7f {
            126 if self.held.len() >= 4 => (usize::from(u16::from_be_bytes([self.held[2], self.held[3]])), 4),
            127 if self.held.len() >= 10 => {
                let bytes: [u8; 8] = self.held[2..10].try_into()?;
                (usize::try_from(u64::from_be_bytes(bytes))?, 10)
            }
            126 | 127 => return Ok(None),
            short => (usize::from(short), 2),
        };
        if self.held.len() < from + length {
            return Ok(None);
        }
        let payload: Vec<u8> = self.held.drain(..from + length).skip(from).collect();
        Ok(Some(match first & 0x0f {
            1 => Frame::Text(serde_json::from_slice(&payload)?),
            8 => Frame::Close(payload),
            9 => Frame::Ping(payload),
            _ => Frame::Other,
        }))
    }
}

/// A client's frame, whole, masked with zeroes.
pub fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    part(0x80 | opcode, payload)
}

/// A client's frame with any first byte, for fragments; masked with zeroes.
pub fn part(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        short @ 0..=125 => bytes.push(0x80 | short as u8),
        long => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(long as u16).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(payload);
    bytes
}

/// The test's own sockets need files, too: as many as it may have.
pub fn room_for_files() -> Result<()> {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    Ok(rustix::process::setrlimit(
        rustix::process::Resource::Nofile,
        limit,
    )?)
}
