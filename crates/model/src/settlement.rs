//! What a client, or its transport, says of entries it has: delivered, or read.

use crate::{FeedId, NotificationId, Position, SessionId, UserId};

/// The wire a session uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Transport {
    /// Repeated `GET`.
    LongPoll = 1,
    /// Server-sent events.
    Sse = 2,
    /// WebSocket.
    WebSocket = 3,
}

impl Transport {
    /// All of them.
    pub const ALL: [Transport; 3] = [Transport::LongPoll, Transport::Sse, Transport::WebSocket];

    /// The word for it in the interface.
    pub fn as_str(self) -> &'static str {
        match self {
            Transport::LongPoll => "long_poll",
            Transport::Sse => "sse",
            Transport::WebSocket => "websocket",
        }
    }

    /// Reads the byte that is kept in stores.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|t| *t as u8 == byte)
    }
}

/// On what ground an entry counts as delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Evidence {
    /// The pong to a ping sent after it.
    Pong,
    /// The peer's TCP acknowledged its last byte.
    Tcp,
    /// The client came back with a cursor at or after it.
    Cursor,
    /// The client said so.
    Client,
}

impl Evidence {
    /// The word for it in the interface.
    pub fn as_str(self) -> &'static str {
        match self {
            Evidence::Pong => "pong",
            Evidence::Tcp => "tcp",
            Evidence::Cursor => "cursor",
            Evidence::Client => "client",
        }
    }
}

/// Acknowledge, or mark as read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SettleKind {
    /// Delivered to this user.
    Delivered,
    /// Read by this user; implies delivered.
    Read,
}

/// Which entries a settlement speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettleTarget {
    /// These notifications, wherever they stand. Unknown ids are no error.
    Ids(Vec<NotificationId>),
    /// Everything up to these positions. One that is no valid place of its feed settles nothing there.
    Through(Vec<(FeedId, Position)>),
}

/// One user's word, or evidence, about some entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// Whose inbox.
    pub user: UserId,
    /// Delivered or read.
    pub kind: SettleKind,
    /// Which entries.
    pub target: SettleTarget,
    /// On what ground.
    pub evidence: Evidence,
    /// By which session, where it was one.
    pub session: Option<SessionId>,
    /// Over which transport.
    pub transport: Option<Transport>,
}

/// An entry is being sent to a session that settles only by its word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// To whom.
    pub user: UserId,
    /// In which feed it stands.
    pub feed: FeedId,
    /// Where.
    pub offset: u64,
}
