//! Sessions of many users, one each, over one transport: opened a few at a time, and what they are sent.
//!
//! Invariant: what is neither one of this run's numbers nor allowed beside them ends the run.

mod nats;
mod peers;

use crate::clock;
use crate::histogram::Histogram;
use crate::net::{Conn, Message, Net, Wire};
use crate::payload::{Numbers, Payload};
use crate::requests;
use crate::target::{Kind, Target, Users};
use anyhow::{Context as _, Result, bail};
use memchr::memmem;
use std::time::Instant;

/// Connections that are being opened at the same time: fewer than a listener's backlog, since one that does not
/// fit there waits a second for TCP to try again.
pub const OPENING: usize = 64;

/// How a session is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Waiting polls, each with the cursor of the answer before it.
    LongPoll,
    /// A stream of events.
    Sse,
    /// A WebSocket.
    WebSocket,
}

impl Transport {
    /// All of them.
    pub const ALL: [Transport; 3] = [Transport::LongPoll, Transport::Sse, Transport::WebSocket];

    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Transport::LongPoll => "long poll",
            Transport::Sse => "SSE",
            Transport::WebSocket => "WebSocket",
        }
    }
}

/// How a session acknowledges, where the server is one that wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acks {
    /// By what the transport shows of itself.
    Auto,
    /// Each notification by its id, over the WebSocket.
    ById,
    /// Not at all.
    None,
}

/// What sessions are like.
#[derive(Debug, Clone)]
pub struct Hold {
    /// What they use.
    pub transport: Transport,
    /// How they acknowledge.
    pub acks: Acks,
    /// Of peers, which have one channel each: their own, not everyone's.
    pub own: bool,
    /// The session topic that they ask for, where broadcasts go to one.
    pub topic: Option<String>,
    /// At most so many are being opened at a time.
    pub opening: usize,
}

impl Hold {
    /// Sessions over a transport that hear what goes to everyone, and acknowledge of themselves.
    pub fn new(transport: Transport) -> Hold {
        Hold {
            transport,
            acks: Acks::Auto,
            own: false,
            topic: None,
            opening: OPENING,
        }
    }

    /// Of peers: those that hear what goes to their user alone.
    #[must_use]
    pub fn own(mut self) -> Hold {
        self.own = true;
        self
    }

    fn query(&self, cursor: &str) -> String {
        let acks = match self.acks {
            Acks::Auto => "ack=auto",
            Acks::ById => "ack=explicit",
            Acks::None => "ack=none",
        };
        let mut query = String::from(acks);
        for (name, value) in [
            ("topics", self.topic.as_deref().unwrap_or_default()),
            ("cursor", cursor),
        ] {
            if !value.is_empty() {
                query.extend(["&", name, "=", value]);
            }
        }
        query
    }
}

/// One session for each user; a connection's tag is its user's number.
pub struct Sessions<'a> {
    target: &'a Target,
    users: &'a Users,
    hold: Hold,
    numbers: Numbers,
    conns: Vec<Conn>,
    /// When each was begun, and how long it took until it was open.
    began: Vec<Instant>,
    took: Histogram,
    opened: usize,
    /// Where a poll has been answered for the first time.
    polled: Vec<bool>,
    /// Where each session stands, as far as the server has told.
    cursors: Vec<String>,
    keeps_cursors: bool,
    peers: peers::Peers,
}

impl<'a> Sessions<'a> {
    /// None is open yet. `payload` is what they will be sent.
    pub fn new(target: &'a Target, users: &'a Users, payload: &Payload, hold: Hold) -> Sessions<'a> {
        Sessions {
            target,
            users,
            hold,
            numbers: payload.numbers(),
            conns: Vec::with_capacity(users.count()),
            began: Vec::with_capacity(users.count()),
            took: Histogram::default(),
            opened: 0,
            polled: vec![false; users.count()],
            cursors: Vec::new(),
            keeps_cursors: false,
            peers: peers::Peers::default(),
        }
    }

    /// Remembers every cursor, to come back with it.
    pub fn keep_cursors(&mut self) {
        self.keeps_cursors = true;
        self.cursors.resize(self.users.count(), String::new());
    }

    /// How many there will be.
    pub fn count(&self) -> usize {
        self.users.count()
    }

    /// How many are open.
    pub fn opened(&self) -> usize {
        self.opened
    }

    /// How long each took from connecting until it was open.
    pub fn took(&self) -> &Histogram {
        &self.took
    }

    fn is_open(&mut self, net: &Net, user: usize) {
        self.opened += 1;
        self.took
            .record(net.now().saturating_duration_since(self.began[user]));
    }

    /// How many have been told where they stand.
    pub fn placed(&self) -> usize {
        self.cursors.iter().filter(|cursor| !cursor.is_empty()).count()
    }

    /// The tag of the connection that asks a peer how many it has; those of publishers lie above it.
    pub fn status_tag(&self) -> usize {
        self.users.count()
    }

    /// Closes all, as if the network had gone. They may be opened again, each with its cursor.
    ///
    /// # Errors
    /// The poll does not let go of one.
    pub fn drop_all(&mut self, net: &mut Net) -> Result<()> {
        for conn in self.conns.drain(..) {
            net.close(conn)?;
        }
        self.opened = 0;
        self.began.clear();
        self.took = Histogram::default();
        self.polled.fill(false);
        self.peers = peers::Peers::default();
        Ok(())
    }

    /// Opens more, if few are being opened. True when all are open.
    ///
    /// # Errors
    /// There is no connection to be had.
    pub fn open_more(&mut self, net: &mut Net) -> Result<bool> {
        let confirmed = self.confirmed(net)?;
        while self.conns.len() < self.count() && self.conns.len() - confirmed < self.hold.opening {
            let user = self.conns.len();
            let (wire, request) = self.request(user);
            self.began.push(clock::now());
            let conn = net.open(user, wire, &request)?;
            self.conns.push(conn);
        }
        Ok(self.opened == self.count())
    }

    fn request(&self, user: usize) -> (Wire, Vec<u8>) {
        if self.target.kind != Kind::Postrider {
            return self.peer_request(user);
        }
        let (target, token) = (self.target, &self.users.tokens[user]);
        let query = self.hold.query(self.cursors.get(user).map_or("", String::as_str));
        match self.hold.transport {
            // The first poll does not wait: its answer says that the inbox is known.
            Transport::LongPoll => {
                let request = requests::poll(target, token, &format!("{query}&wait=0"));
                (Wire::Http, request)
            }
            Transport::Sse => (Wire::Events, requests::events(target, token, &query)),
            Transport::WebSocket => (Wire::WebSocket, requests::websocket(target, token, &query)),
        }
    }

    /// Takes what came on a session's connection; `received` is told each number.
    ///
    /// # Errors
    /// The server refused something, told of a loss, or said what it should not.
    pub fn message(
        &mut self,
        net: &mut Net,
        conn: Conn,
        user: usize,
        message: Message<'_>,
        mut received: impl FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        if self.target.kind != Kind::Postrider {
            return self.peer_message(net, conn, user, message, received);
        }
        match message {
            Message::Opened => self.is_open(net, user),
            Message::Text(text) | Message::Event(text) => match self.numbers.only(text) {
                Some(number) => {
                    if self.hold.acks == Acks::ById {
                        net.send(conn, &ack(text)?)?;
                    }
                    received(number)?;
                }
                None => self.other(user, text)?,
            },
            Message::Answer {
                status: 200, body, ..
            } => {
                self.other(user, body)?;
                self.numbers.all(body).try_for_each(received)?;
                let query = self.hold.query(cursor(body)?);
                let next = requests::poll(
                    self.target,
                    &self.users.tokens[user],
                    &format!("{query}&wait=120"),
                );
                net.send(conn, &next)?;
                if !std::mem::replace(&mut self.polled[user], true) {
                    self.is_open(net, user);
                }
            }
            Message::Ping(_) => {}
            Message::Answer { status, body, .. } => {
                bail!(
                    "a poll was answered with {status}: {}",
                    String::from_utf8_lossy(body)
                )
            }
            other => bail!("unexpected for user {user}: {other:?}"),
        }
        Ok(())
    }

    /// Hellos, cursors and the like are no deliveries; anything that tells of a loss ends the run.
    fn other(&mut self, user: usize, text: &[u8]) -> Result<()> {
        const BAD: [&[u8]; 4] = [
            b"\"gap\":true",
            b"\"type\":\"gap\"",
            b"\"type\":\"error\"",
            b"event: gap",
        ];
        const CURSOR: &[u8] = b"{\"type\":\"cursor\",\"cursor\":\"";
        if BAD.iter().any(|bad| memmem::find(text, bad).is_some()) {
            bail!("the server told of a loss: {}", String::from_utf8_lossy(text));
        }
        if self.keeps_cursors
            && let Some(cursor) = text.strip_prefix(CURSOR).or(text.strip_prefix(b"id: "))
        {
            let end = memchr::memchr(b'"', cursor).unwrap_or(cursor.len());
            self.cursors[user] = std::str::from_utf8(&cursor[..end])?.trim().to_owned();
        }
        Ok(())
    }
}

/// The ack of a notification by its id.
fn ack(notification: &[u8]) -> Result<Vec<u8>> {
    const ID: &[u8] = b"\"id\":\"";
    let start = memmem::find(notification, ID).context("a notification without an id")? + ID.len();
    let end = memchr::memchr(b'"', &notification[start..]).context("an id without an end")?;
    let mut text = br#"{"type":"ack","ids":[""#.to_vec();
    text.extend_from_slice(&notification[start..start + end]);
    text.extend_from_slice(b"\"]}");
    Ok(requests::client_frame(0x1, &text))
}

/// The cursor of a poll's answer, which comes after its lists.
///
/// # Errors
/// There is none.
pub fn cursor(body: &[u8]) -> Result<&str> {
    const NAME: &[u8] = b"\"cursor\":\"";
    let start = memmem::rfind(body, NAME).context("an answer without a cursor")? + NAME.len();
    let length = memchr::memchr(b'"', &body[start..]).context("a cursor without an end")?;
    Ok(std::str::from_utf8(&body[start..start + length])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ack_names_the_notification() {
        let frame = ack(br#"{"type":"notification","id":"n-1","data":{"id":"other"}}"#).unwrap();
        assert_eq!(&frame[6..], br#"{"type":"ack","ids":["n-1"]}"#);
        assert_eq!(frame[..2], [0x81, 0x80 | 28]);
        assert!(ack(b"{}").is_err());
    }

    #[test]
    fn a_query_says_how_and_from_where() {
        let mut hold = Hold::new(Transport::WebSocket);
        assert_eq!(hold.query(""), "ack=auto");
        hold.acks = Acks::ById;
        hold.topic = Some("bench-a".into());
        assert_eq!(hold.query("AQ"), "ack=explicit&topics=bench-a&cursor=AQ");
    }

    #[test]
    fn the_cursor_of_an_answer() {
        let body = br#"{"notifications":[{"data":{"cursor":"no"}}],"events":[],"cursor":"AQI","gap":false}"#;
        assert_eq!(cursor(body).unwrap(), "AQI");
        assert!(cursor(b"{}").is_err());
    }
}
