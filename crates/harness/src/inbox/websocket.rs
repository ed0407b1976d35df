//! A session by WebSocket, subprotocol `postrider.v1`.
//!
//! Invariant: a ping is answered while `next` reads, and only then, so that a session that is not asked gives the
//! server no evidence. The handshake is checked (RFC 6455, section 4.1) and a refusal is kept whole.
//!
//! It does not fragment, compress or send pings of its own.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base64::Engine;
use serde_json::Value;
use tungstenite::error::ProtocolError;
use tungstenite::protocol::{Message, Role, WebSocketConfig};

use super::frame::frame;
use super::{Connect, End, Inbox, Received, Refused};
use crate::http::{Answer, Cut, cut};
use crate::tls::Stream;

/// A WebSocket session.
pub struct WebSocket {
    socket: tungstenite::WebSocket<Stream>,
    end: Option<End>,
}

impl WebSocket {
    /// Makes the handshake.
    pub fn open(connect: &Connect) -> Result<WebSocket> {
        let mut conn = connect.endpoint.connect(connect.recv_buffer)?;
        let key = base64::engine::general_purpose::STANDARD.encode(rand::random::<[u8; 16]>());
        let extra: Vec<(&str, String)> = connect.cursor.iter().map(|c| ("cursor", c.clone())).collect();
        let request = connect
            .request("/v1/inbox/ws", &extra)
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", &key)
            .header("Sec-WebSocket-Protocol", "postrider.v1");
        conn.write(&request.bytes())?;
        let deadline = connect.opening_deadline();
        let head = conn.head(deadline)?.context("no answer to the handshake")?;
        if head.status != 101 {
            let body = conn.rest(deadline)?;
            return Err(Refused(Answer { head, body }).into());
        }
        let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
        if head.header("sec-websocket-accept") != Some(accept.as_str()) {
            bail!("wrong Sec-WebSocket-Accept: {head:?}");
        }
        if head.header("sec-websocket-protocol") != Some("postrider.v1") {
            bail!("the offered subprotocol was not chosen: {head:?}");
        }
        let (stream, rest) = conn.into_stream();
        stream.socket().set_write_timeout(Some(Duration::from_secs(30)))?;
        let config = WebSocketConfig::default();
        let socket = tungstenite::WebSocket::from_partially_read(stream, rest, Role::Client, Some(config));
        Ok(WebSocket { socket, end: None })
    }

    fn received(&mut self, message: Message) -> Result<Option<Received>> {
        Ok(Some(match message {
            Message::Text(text) => frame(text.as_str())?,
            Message::Ping(_) => {
                // The pong was queued by the library and must not wait for the next read.
                if let Err(e) = self.socket.flush() {
                    self.end = Some(End::Broken(e.to_string()));
                }
                Received::KeepAlive
            }
            Message::Close(frame) => {
                let (code, reason) = frame
                    .map(|f| (f.code.into(), f.reason.to_string()))
                    .unwrap_or((1005, String::new()));
                self.end = Some(End::Closed(code, reason));
                // The answering close frame leaves with the next read or flush; the peer may be gone already.
                if let Err(gone) = self.socket.flush() {
                    eprintln!("harness: close frame not answered: {gone}");
                }
                return Ok(None);
            }
            Message::Pong(_) => return Ok(None),
            other => bail!("a frame that the protocol does not have: {other:?}"),
        }))
    }
}

impl Inbox for WebSocket {
    fn next(&mut self, deadline: Instant) -> Result<Option<Received>> {
        loop {
            if let Some(end) = &self.end {
                return Ok(Some(Received::End(end.clone())));
            }
            let left = deadline
                .saturating_duration_since(Instant::now())
                .max(Duration::from_millis(1));
            self.socket.get_ref().socket().set_read_timeout(Some(left))?;
            match self.socket.read() {
                Ok(message) => {
                    if let Some(received) = self.received(message)? {
                        return Ok(Some(received));
                    }
                }
                Err(tungstenite::Error::Io(e))
                    if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    if Instant::now() >= deadline {
                        return Ok(None);
                    }
                }
                Err(
                    e @ (tungstenite::Error::Io(_)
                    | tungstenite::Error::ConnectionClosed
                    | tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)),
                ) => self.end = Some(End::Broken(e.to_string())),
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn send(&mut self, frame: &Value) -> Result<()> {
        Ok(self.socket.send(Message::text(frame.to_string()))?)
    }

    fn cut(self: Box<Self>, how: Cut) {
        cut(self.socket.get_ref().socket(), how);
    }
}
