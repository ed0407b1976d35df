//! Where publications go in: a stream, arrays, or a request for each, and what peers have instead.
//!
//! Invariant: `accepted` counts what the server has answered for, where it answers at all.

use crate::net::{Conn, Message, Net, Wire};
use crate::payload::Payload;
use crate::requests;
use crate::stream::Stream;
use crate::target::{Kind, Target};
use anyhow::{Context as _, Result, bail};
use memchr::memmem;
use std::collections::VecDeque;

/// Bytes that may wait for a socket before more is pushed.
const AHEAD: usize = 256 << 10;

/// How publications go in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// One connection that carries all: NDJSON, or what the server has in its place.
    Stream,
    /// So many connections with one request at a time each, of so many notifications.
    Requests {
        /// Connections.
        connections: usize,
        /// Notifications in a request.
        batch: usize,
    },
}

/// Publishes in one way.
pub struct Publisher {
    target: Target,
    door: Door,
    /// Notifications given to it.
    pub sent: u64,
}

enum Door {
    Ndjson(Stream),
    /// Connections that wait for nothing, the longest first, so that each has its turn; the tags of those that the
    /// server closed while nobody asked anything of them, to be opened when they are needed; notifications in a
    /// request, and those being gathered.
    Requests {
        idle: VecDeque<Conn>,
        closed: Vec<usize>,
        batch: usize,
        body: Vec<u8>,
        gathered: usize,
        accepted: u64,
    },
    /// Lines to a server that does not answer.
    Lines(Conn, Vec<u8>),
}

impl Publisher {
    /// Opens its connections, with tags from `tag` on.
    ///
    /// # Errors
    /// There is no connection to be had.
    pub fn open(net: &mut Net, target: &Target, way: Way, tag: usize) -> Result<Publisher> {
        let door = match (way, target.kind) {
            (Way::Stream, Kind::Postrider) => Door::Ndjson(Stream::open(net, target, tag)?),
            (Way::Stream, Kind::Floor) => {
                let conn = net.open_at(target.intake, tag, Wire::Lines, requests::FLOOR_PUBLISHER)?;
                Door::Lines(conn, Vec::new())
            }
            (Way::Stream, Kind::Nats) => {
                let hello = b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\n";
                let conn = net.open_at(target.intake, tag, Wire::Lines, hello)?;
                Door::Lines(conn, Vec::new())
            }
            (Way::Requests { connections, batch }, Kind::Postrider | Kind::Nchan) => {
                let open = |n| net.open_at(target.intake, tag + n, Wire::Http, b"");
                Door::Requests {
                    idle: (0..connections).map(open).collect::<Result<_>>()?,
                    closed: Vec::new(),
                    batch,
                    body: Vec::new(),
                    gathered: 0,
                    accepted: 0,
                }
            }
            (way, kind) => bail!("{kind:?} has no {way:?}"),
        };
        Ok(Publisher {
            target: target.clone(),
            door,
            sent: 0,
        })
    }

    /// Whether one more may be pushed now.
    pub fn has_room(&self, net: &Net) -> bool {
        match &self.door {
            Door::Ndjson(stream) => stream.waiting(net) < AHEAD,
            Door::Requests { idle, closed, .. } => !idle.is_empty() || !closed.is_empty(),
            Door::Lines(conn, _) => net.waiting(*conn) < AHEAD,
        }
    }

    /// Adds a publication: for a user, by index and name, or for everyone.
    ///
    /// # Errors
    /// A connection is gone, or there was no room.
    pub fn push(
        &mut self,
        net: &mut Net,
        payload: &Payload,
        user: Option<(usize, &str)>,
        number: u64,
    ) -> Result<()> {
        self.sent += 1;
        let name = user.map(|(_, name)| name);
        match &mut self.door {
            Door::Ndjson(stream) => stream.push(payload, name, number),
            Door::Lines(_, lines) if self.target.kind == Kind::Nats => {
                let mut body = Vec::new();
                payload.push(&mut body, None, number);
                requests::push_nats(lines, &body, name);
            }
            Door::Lines(_, lines) => {
                requests::push_floor_line(lines, payload, user.map(|(index, _)| index), number);
            }
            Door::Requests {
                idle,
                closed,
                batch,
                body,
                gathered,
                ..
            } => {
                if *batch > 1 {
                    body.push(if *gathered == 0 { b'[' } else { b',' });
                }
                let named = name.filter(|_| self.target.kind == Kind::Postrider);
                payload.push(body, named, number);
                *gathered += 1;
                if gathered == batch {
                    if *batch > 1 {
                        body.push(b']');
                    }
                    let conn = match idle.pop_front() {
                        Some(conn) => conn,
                        None => {
                            let tag = closed.pop().context("no connection is free to publish")?;
                            net.open_at(self.target.intake, tag, Wire::Http, b"")?
                        }
                    };
                    let mut request = Vec::with_capacity(body.len() + 256);
                    requests::publish(&mut request, &self.target, body, name);
                    net.send(conn, &request)?;
                    body.clear();
                    *gathered = 0;
                }
            }
        }
        Ok(())
    }

    /// Whether a request has been begun that more must be pushed to.
    pub fn is_gathering(&self) -> bool {
        matches!(&self.door, Door::Requests { gathered, .. } if *gathered > 0)
    }

    /// Sends what was pushed.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn flush(&mut self, net: &mut Net) -> Result<()> {
        match &mut self.door {
            Door::Ndjson(stream) => stream.flush(net),
            Door::Lines(conn, lines) if !lines.is_empty() => net.send(*conn, &std::mem::take(lines)),
            Door::Lines(..) | Door::Requests { .. } => Ok(()),
        }
    }

    /// Whether the server has answered for all that was sent, if it answers at all.
    pub fn is_settled(&self) -> bool {
        match &self.door {
            Door::Ndjson(stream) => stream.accepted == self.sent,
            Door::Requests { accepted, .. } => *accepted == self.sent,
            Door::Lines(..) => true,
        }
    }

    /// What the server said on one of its connections.
    ///
    /// # Errors
    /// It did not accept.
    pub fn message(&mut self, net: &mut Net, conn: Conn, message: Message<'_>) -> Result<()> {
        match &mut self.door {
            Door::Ndjson(stream) => stream.message(message),
            Door::Lines(..) => match message {
                Message::Line(b"PING") => net.send(conn, b"PONG\r\n"),
                Message::Line(line) if line.starts_with(b"-ERR") => {
                    bail!("a publish was refused: {}", String::from_utf8_lossy(line))
                }
                _ => Ok(()),
            },
            Door::Requests {
                idle,
                batch,
                accepted,
                ..
            } => {
                *accepted += count_accepted(self.target.kind, *batch, &message)?;
                idle.push_back(conn);
                Ok(())
            }
        }
    }

    /// The server closed one of its connections.
    ///
    /// # Errors
    /// Something had been asked on it.
    pub fn closed(&mut self, conn: Conn, tag: usize) -> Result<()> {
        if let Door::Requests { idle, closed, .. } = &mut self.door
            && let Some(at) = idle.iter().position(|idle| *idle == conn)
        {
            idle.remove(at);
            closed.push(tag);
            return Ok(());
        }
        bail!("the server closed connection {tag}, on which a publish was under way")
    }
}

/// How many notifications an answer accepts: all of them, or the run is over.
fn count_accepted(kind: Kind, batch: usize, message: &Message<'_>) -> Result<u64> {
    let all = match (kind, message) {
        (Kind::Nchan, Message::Answer { status, .. }) => matches!(status, 201 | 202),
        (
            _,
            Message::Answer {
                status: 202, body, ..
            },
        ) if batch == 1 => memmem::find(body, b"\"accepted\":true").is_some(),
        (
            _,
            Message::Answer {
                status: 202, body, ..
            },
        ) => {
            memmem::find(body, b"\"rejected\":[]").is_some()
                && memmem::find_iter(body, b"\"index\":").count() == batch
        }
        _ => false,
    };
    if !all {
        if let Message::Answer { status, body, .. } = message {
            bail!(
                "a publish was answered with {status}: {}",
                String::from_utf8_lossy(body)
            );
        }
        bail!("a publish was answered with {message:?}");
    }
    Ok(batch as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(kind: Kind, batch: usize, status: u16, body: &[u8]) -> Result<u64> {
        let head = b"";
        count_accepted(kind, batch, &Message::Answer { status, head, body })
    }

    #[test]
    fn only_an_answer_that_accepts_all_counts() {
        let one = br#"{"id":"a","accepted":true}"#;
        assert_eq!(accepted(Kind::Postrider, 1, 202, one).unwrap(), 1);
        assert!(accepted(Kind::Postrider, 1, 503, one).is_err());
        let two = br#"{"accepted":[{"index":0,"id":"a"},{"index":1,"id":"b"}],"rejected":[]}"#;
        assert_eq!(accepted(Kind::Postrider, 2, 202, two).unwrap(), 2);
        assert!(accepted(Kind::Postrider, 3, 202, two).is_err());
        assert_eq!(accepted(Kind::Nchan, 1, 201, b"queued").unwrap(), 1);
        assert!(accepted(Kind::Nchan, 1, 403, b"").is_err());
    }
}
