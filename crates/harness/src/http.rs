//! A small blocking HTTP/1.1 client over one TCP connection, in which every byte is under the test's control.
//!
//! Invariant: reading is resumable. Bytes stay in the connection's buffer until a whole answer (or a whole piece of
//! a streamed body) is there, so that a read that ends at its deadline loses nothing.
//!
//! It does not follow redirects, pool, retry or compress, and it never corrects what a test wants to send.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustls::ClientConfig;
use serde_json::Value;

use crate::tls::Stream;

mod wire;

use wire::{Framing, framing, parse_head, take_piece, whole_answer};

/// How much is read from the socket at once.
const READ_BYTES: usize = 64 * 1024;

/// Status line and headers of an answer.
#[derive(Clone, Debug)]
pub struct Head {
    /// Three-digit status.
    pub status: u16,
    /// Names in lower case, in the order received.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// First value of a header; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    fn is_chunked(&self) -> bool {
        self.header("transfer-encoding")
            .is_some_and(|v| v.to_ascii_lowercase().contains("chunked"))
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status line and headers.
    pub head: Head,
    /// The body, transfer coding removed.
    pub body: Vec<u8>,
}

impl Answer {
    /// The status code.
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("status {}, body is not JSON: {}", self.status(), self.text()))
    }

    /// The body as text, for reports.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The problem's `code`, if the body is a problem document.
    pub fn code(&self) -> Option<String> {
        self.json().ok()?.get("code")?.as_str().map(str::to_owned)
    }
}

/// What a step of reading a streamed body brought.
#[derive(Debug, PartialEq)]
pub enum Piece {
    /// Some bytes of the body, never empty.
    Bytes(Vec<u8>),
    /// The body ended as its framing says.
    End,
    /// The deadline passed first; nothing is lost.
    Timeout,
}

/// How to leave a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// An orderly close of both directions.
    Close,
    /// A reset: `SO_LINGER` of zero, so that the peer sees `ECONNRESET`.
    Reset,
}

/// One connection.
pub struct Conn {
    stream: Stream,
    buffer: Vec<u8>,
    framing: Framing,
}

impl Conn {
    /// Connects; `recv_buffer` sets `SO_RCVBUF` before the connection is made.
    pub fn open(addr: SocketAddr, recv_buffer: Option<usize>) -> Result<Conn> {
        Conn::open_with(addr, recv_buffer, None)
    }

    /// As [`Conn::open`], with TLS where there is a configuration for it.
    pub fn open_with(
        addr: SocketAddr,
        recv_buffer: Option<usize>,
        tls: Option<Arc<ClientConfig>>,
    ) -> Result<Conn> {
        let socket = socket2::Socket::new(socket2::Domain::for_address(addr), socket2::Type::STREAM, None)?;
        if let Some(bytes) = recv_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        socket.set_tcp_nodelay(true)?;
        socket
            .connect_timeout(&addr.into(), Duration::from_secs(30))
            .with_context(|| format!("connect {addr}"))?;
        Ok(Conn {
            stream: Stream::new(socket.into(), tls)?,
            buffer: Vec::new(),
            framing: Framing::Done,
        })
    }

    /// Writes bytes as they are; gives up after `30 s` without progress.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream
            .socket()
            .set_write_timeout(Some(Duration::from_secs(30)))?;
        self.stream.write_all(bytes).context("write request")?;
        self.stream.flush().context("write request")
    }

    /// Writes one piece of a chunked body; an empty one ends the body.
    pub fn write_chunk(&mut self, bytes: &[u8]) -> Result<()> {
        let mut out = format!("{:x}\r\n", bytes.len()).into_bytes();
        out.extend_from_slice(bytes);
        out.extend_from_slice(b"\r\n");
        self.write(&out)
    }

    /// Sends a request and waits for its whole answer.
    pub fn call(&mut self, request: &Request, deadline: Instant) -> Result<Answer> {
        self.write(&request.bytes())?;
        self.answer(deadline)?.context("no answer before the deadline")
    }

    /// Reads a whole answer with a body of known length, chunked, or up to the close. `None` at the deadline.
    pub fn answer(&mut self, deadline: Instant) -> Result<Option<Answer>> {
        loop {
            if let Some((answer, used)) = whole_answer(&self.buffer, false)? {
                self.buffer.drain(..used);
                return Ok(Some(answer));
            }
            match self.fill(deadline)? {
                Fill::Some => {}
                Fill::Timeout => return Ok(None),
                Fill::Closed => {
                    let Some((answer, used)) = whole_answer(&self.buffer, true)? else {
                        bail!(
                            "connection closed before a whole answer ({} bytes held)",
                            self.buffer.len()
                        );
                    };
                    self.buffer.drain(..used);
                    return Ok(Some(answer));
                }
            }
        }
    }

    /// Reads only the head; the body is then taken with [`Conn::piece`]. `None` at the deadline.
    pub fn head(&mut self, deadline: Instant) -> Result<Option<Head>> {
        loop {
            if let Some((head, used)) = parse_head(&self.buffer)? {
                self.buffer.drain(..used);
                self.framing = framing(&head);
                return Ok(Some(head));
            }
            match self.fill(deadline)? {
                Fill::Some => {}
                Fill::Timeout => return Ok(None),
                Fill::Closed => bail!("connection closed before the head ended"),
            }
        }
    }

    /// The next bytes of a streamed body.
    pub fn piece(&mut self, deadline: Instant) -> Result<Piece> {
        loop {
            if let Some(piece) = take_piece(&mut self.buffer, &mut self.framing)? {
                return Ok(piece);
            }
            match self.fill(deadline)? {
                Fill::Some => {}
                Fill::Timeout => return Ok(Piece::Timeout),
                Fill::Closed if self.framing == Framing::UntilClose => self.framing = Framing::Done,
                Fill::Closed => bail!("connection closed inside a body"),
            }
        }
    }

    /// All of the rest of a streamed body, for the body of a refusal.
    pub fn rest(&mut self, deadline: Instant) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            match self.piece(deadline)? {
                Piece::Bytes(bytes) => body.extend(bytes),
                Piece::End => return Ok(body),
                Piece::Timeout => bail!("body did not end before the deadline"),
            }
        }
    }

    /// True once the peer has closed or reset, all that it sent before being discarded.
    pub fn closed_by(&mut self, deadline: Instant) -> bool {
        loop {
            match self.fill(deadline) {
                Ok(Fill::Some) => self.buffer.clear(),
                Ok(Fill::Timeout) => return false,
                Ok(Fill::Closed) | Err(_) => return true,
            }
        }
    }

    /// Ends the connection.
    pub fn cut(self, how: Cut) {
        cut(self.stream.socket(), how);
    }

    /// Goes as a client does that is done: with TLS it says so.
    pub fn leave(mut self) -> Result<()> {
        if let Stream::Tls(tls) = &mut self.stream {
            tls.conn.send_close_notify();
            // Not by `flush`, which reads too, and so waits.
            while tls.conn.wants_write() {
                tls.conn.write_tls(&mut tls.sock)?;
            }
        }
        self.cut(Cut::Close);
        Ok(())
    }

    /// Gives up the framing: the socket of a connection without TLS, and what was read beyond the last head.
    pub fn into_parts(self) -> (TcpStream, Vec<u8>) {
        match self.stream {
            Stream::Plain(socket) => (socket, self.buffer),
            Stream::Tls(_) => panic!("the socket of a connection with TLS is of no use by itself"),
        }
    }

    /// Gives up the framing: the bytes to come, and what was read beyond the last head.
    pub fn into_stream(self) -> (Stream, Vec<u8>) {
        (self.stream, self.buffer)
    }

    fn fill(&mut self, deadline: Instant) -> Result<Fill> {
        let left = deadline
            .saturating_duration_since(Instant::now())
            .max(Duration::from_millis(1));
        self.stream.socket().set_read_timeout(Some(left))?;
        let start = self.buffer.len();
        self.buffer.resize(start + READ_BYTES, 0);
        let got = self.stream.read(&mut self.buffer[start..]);
        self.buffer.truncate(start + got.as_ref().copied().unwrap_or(0));
        match got {
            Ok(0) => Ok(Fill::Closed),
            Ok(_) => Ok(Fill::Some),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(Fill::Timeout),
            Err(e) if e.kind() == ErrorKind::Interrupted => Ok(Fill::Some),
            Err(e) => Err(e).context("read answer"),
        }
    }
}

enum Fill {
    Some,
    Timeout,
    Closed,
}

/// Ends a socket the given way. Errors mean that it is gone already, which is what was asked for.
pub fn cut(stream: &TcpStream, how: Cut) {
    let done = match how {
        Cut::Reset => socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)),
        Cut::Close => stream.shutdown(Shutdown::Both),
    };
    if let Err(gone) = done {
        eprintln!("harness: cutting a connection that is gone: {gone}");
    }
}

/// A request, built part by part; nothing is added but `Host` and, for a body, `Content-Length`.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

impl Request {
    /// A request without a body.
    pub fn new(method: &str, target: &str) -> Request {
        Request {
            method: method.into(),
            target: target.into(),
            headers: Vec::new(),
            body: None,
        }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Request {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Adds `Authorization: Bearer`.
    #[must_use]
    pub fn bearer(self, credential: &str) -> Request {
        self.header("Authorization", &format!("Bearer {credential}"))
    }

    /// Sets a body and its content type.
    #[must_use]
    pub fn body(mut self, content_type: &str, body: impl Into<Vec<u8>>) -> Request {
        self.body = Some(body.into());
        self.header("Content-Type", content_type)
    }

    /// What goes on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = format!(
            "{} {} HTTP/1.1\r\nHost: postrider.test\r\n",
            self.method, self.target
        );
        for (name, value) in &self.headers {
            out.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = &self.body {
            out.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        out.push_str("\r\n");
        let mut out = out.into_bytes();
        out.extend_from_slice(self.body.as_deref().unwrap_or_default());
        out
    }
}

/// One request on a connection of its own.
pub fn once(addr: SocketAddr, request: &Request) -> Result<Answer> {
    Conn::open(addr, None)?.call(request, Instant::now() + Duration::from_secs(30))
}

/// Escapes a query value: everything but the unreserved characters of RFC 3986.
pub fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte as char),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
