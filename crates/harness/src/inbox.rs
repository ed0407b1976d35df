//! A client's session on any of the three transports, behind one trait, so that a test runs unchanged over all.
//!
//! Invariant: what a session yields is what the wire carried, in that order; [`Inbox::next`] that ends at its
//! deadline loses nothing. A session reads only inside `next`: one that is not asked is a slow client.
//!
//! It does not reconnect (that is [`crate::reader`]) and does not judge (that is [`crate::account`]).

mod frame;
mod long_poll;
mod sse;
mod websocket;

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::http::{Answer, Cut, escape};
use crate::node::{AWAY, Endpoint};

/// The wire that a session uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// `GET /v1/inbox`
    LongPoll,
    /// `GET /v1/inbox/stream`
    Sse,
    /// `GET /v1/inbox/ws`
    WebSocket,
}

/// All transports, in the order in which a test should try them.
pub const TRANSPORTS: [Transport; 3] = [Transport::LongPoll, Transport::Sse, Transport::WebSocket];

/// What a session yields.
#[derive(Clone, Debug, PartialEq)]
pub enum Received {
    /// An entry.
    Notification(Notification),
    /// The session's position after the batch before it.
    Cursor(String),
    /// Read on another device.
    Read(Vec<String>),
    /// No longer to be shown.
    Withdrawn {
        /// Which.
        id: String,
        /// `cancelled`, `collapsed`, `expired` or `taken`.
        reason: String,
    },
    /// Something was missed; the time of the oldest that is held, where it was told.
    Gap(Option<String>),
    /// The user's state.
    State(Value),
    /// A WebSocket's greeting, with the session's name.
    Hello(String),
    /// A comment, an empty poll or a ping: the wire is alive.
    KeepAlive,
    /// SSE's `retry:`, in milliseconds.
    Retry(u64),
    /// These are not sent to this session any more, although they were not acknowledged.
    Stalled(Vec<String>),
    /// An error told inside a session, by its code; an event stream tells only `transient_dropped`.
    Error(String),
    /// A WebSocket's ack or read is durable: its `ref`, and how many entries it settled.
    Settled {
        /// What the client called it.
        reference: u64,
        /// How many entries changed.
        count: u64,
    },
    /// The session is over; nothing follows.
    End(End),
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// A WebSocket close frame: code, and its reason as text.
    Closed(u16, String),
    /// The stream ended as its framing says.
    Orderly,
    /// The connection broke; what broke it.
    Broken(String),
    /// A later poll of this session was refused.
    Refused(u16, String),
}

/// An entry as it came.
#[derive(Clone, Debug, PartialEq)]
pub struct Notification {
    /// The notification's id.
    pub id: String,
    /// Its topic, where it has one.
    pub topic: Option<String>,
    /// Its subject, where it has one.
    pub subject: Option<String>,
    /// When it was accepted.
    pub time: String,
    /// Which attempt, from 2 on.
    pub attempt: Option<u64>,
    /// The exact bytes of `data`.
    pub data: String,
    /// The whole entry as it came.
    pub raw: String,
}

/// How a session acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckMode {
    /// The server's default: no parameter is sent.
    Default,
    /// `ack=auto`
    Auto,
    /// `ack=explicit`
    Explicit,
    /// `ack=none`
    None,
}

/// What a session asks for.
#[derive(Clone)]
pub struct Connect {
    endpoint: Endpoint,
    token: String,
    query: Vec<(String, String)>,
    /// Where to go on from.
    pub cursor: Option<String>,
    /// `SO_RCVBUF` of the client's socket in bytes, for a client that is to be slow.
    pub recv_buffer: Option<usize>,
    /// Most entries in one poll.
    pub poll_limit: u32,
    /// Seconds that one poll may wait.
    pub poll_wait: u32,
    /// Whether a poll under `explicit` yields what an earlier one of the session had.
    pub repeats: bool,
}

impl Connect {
    /// A session with a token in `Authorization`.
    pub fn new(endpoint: &Endpoint, token: &str) -> Connect {
        Connect {
            endpoint: endpoint.clone(),
            token: token.into(),
            query: Vec::new(),
            cursor: None,
            recv_buffer: None,
            poll_limit: 100,
            poll_wait: 20,
            repeats: false,
        }
    }

    /// Resumes from a cursor.
    #[must_use]
    pub fn cursor(mut self, cursor: &str) -> Connect {
        self.cursor = Some(cursor.into());
        self
    }

    /// Chooses the acknowledgement.
    #[must_use]
    pub fn ack(mut self, mode: AckMode) -> Connect {
        let value = match mode {
            AckMode::Default => return self,
            AckMode::Auto => "auto",
            AckMode::Explicit => "explicit",
            AckMode::None => "none",
        };
        self.query.push(("ack".into(), value.into()));
        self
    }

    /// Asks for session topics.
    #[must_use]
    pub fn topics<S: AsRef<str>>(mut self, topics: &[S]) -> Connect {
        if !topics.is_empty() {
            let list: Vec<&str> = topics.iter().map(AsRef::as_ref).collect();
            self.query.push(("topics".into(), list.join(",")));
        }
        self
    }

    /// Adds any query parameter.
    #[must_use]
    pub fn query(mut self, name: &str, value: &str) -> Connect {
        self.query.push((name.into(), value.into()));
        self
    }

    /// Sends no token (a ticket may be in the query).
    #[must_use]
    pub fn without_token(mut self) -> Connect {
        self.token.clear();
        self
    }

    /// Opens the session. A server that refuses is an [`Refused`] inside the error.
    pub fn open(&self, transport: Transport) -> Result<Box<dyn Inbox>> {
        Ok(match transport {
            Transport::LongPoll => Box::new(long_poll::LongPoll::open(self)?),
            Transport::Sse => Box::new(sse::Sse::open(self)?),
            Transport::WebSocket => Box::new(websocket::WebSocket::open(self)?),
        })
    }

    /// Opens a session that must be refused, and returns the refusal.
    pub fn refusal(&self, transport: Transport) -> Result<Answer> {
        match self.open(transport) {
            Ok(_) => bail!("{transport} let in a session that it must refuse"),
            Err(e) => e.downcast::<Refused>().map(|refused| refused.0),
        }
    }

    fn target(&self, path: &str, extra: &[(&str, String)]) -> String {
        let own = self.query.iter().map(|(n, v)| (n.as_str(), v.clone()));
        let query: Vec<String> = own
            .chain(extra.iter().cloned())
            .map(|(name, value)| format!("{name}={}", escape(&value)))
            .collect();
        if query.is_empty() {
            path.to_owned()
        } else {
            format!("{path}?{}", query.join("&"))
        }
    }

    fn request(&self, path: &str, extra: &[(&str, String)]) -> crate::http::Request {
        let request = crate::http::Request::new("GET", &self.target(path, extra));
        if self.token.is_empty() {
            request
        } else {
            request.bearer(&self.token)
        }
    }

    fn opening_deadline(&self) -> Instant {
        Instant::now() + Duration::from_secs(30)
    }
}

/// A refusal of a session or a poll.
#[derive(Debug)]
pub struct Refused(pub Answer);

impl Refused {
    /// Whether an error is one that says to come again.
    pub fn is_for_now(e: &anyhow::Error) -> bool {
        e.downcast_ref::<Refused>()
            .is_some_and(|refused| AWAY.contains(&refused.0.status()))
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refused with {}: {}", self.0.status(), self.0.text())
    }
}

impl std::error::Error for Refused {}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Transport::LongPoll => "long_poll",
            Transport::Sse => "sse",
            Transport::WebSocket => "websocket",
        })
    }
}

/// A session.
pub trait Inbox: Send {
    /// The next thing, or `None` at the deadline. After [`Received::End`] it goes on returning that.
    fn next(&mut self, deadline: Instant) -> Result<Option<Received>>;

    /// Sends a client's frame. Only a WebSocket can; elsewhere it is an error.
    fn send(&mut self, frame: &Value) -> Result<()>;

    /// Ends the connection from this side.
    fn cut(self: Box<Self>, how: Cut);
}

/// Reads until a notification comes; other things are passed over. Fails at the deadline or at the session's end.
pub fn next_notification(inbox: &mut dyn Inbox, deadline: Instant) -> Result<Notification> {
    let seen = |r: &Received| match r {
        Received::Notification(n) => Some(n.clone()),
        _ => None,
    };
    wait_for(inbox, deadline, "a notification", seen)
}

/// Reads until `seen` finds what it wants. Fails at the deadline or at the session's end.
pub fn wait_for<T>(
    inbox: &mut dyn Inbox,
    deadline: Instant,
    what: &str,
    seen: impl Fn(&Received) -> Option<T>,
) -> Result<T> {
    loop {
        let received = inbox
            .next(deadline)?
            .with_context(|| format!("{what} did not come in time"))?;
        if let Some(found) = seen(&received) {
            return Ok(found);
        }
        if let Received::End(end) = received {
            bail!("the session ended while waiting for {what}: {end:?}");
        }
    }
}

/// Whether an error only says that the peer went away, as it does when it is killed. Anything else that goes wrong
/// with a session is a fault of the server's wire format and must not pass for a cut.
fn is_cut(e: &anyhow::Error) -> bool {
    e.downcast_ref::<std::io::Error>().is_some() || e.to_string().starts_with("connection closed")
}
