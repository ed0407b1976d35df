//! How other threads reach a shard: a queue and a waker. Wakes are lossy: when too many wait they are
//! dropped and the shard is told so; answers that a connection waits for are never dropped, and there are
//! no more of them than were asked for.

use crate::addresses::Address;
use crate::connection::Key;
use crate::presence::WhoHears;
use crate::problem::Problem;
use crate::roll::Roll;
use crate::shard::{Ordered, Waiting, Word};
use crate::stats::HubStats;
use postrider_delivery::{Reading, StateTold};
use postrider_engine::{EngineError, PresentSession, Starts, Wake};
use postrider_model::{Attempt, FeedId, InboxPage, Receipt, SessionId, Settlement, Topic, UserId, UserState};
use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// Wakes that may wait in one mailbox.
const MAX_WAKES: usize = 1024;

/// A page that a session needs.
pub(crate) struct PageWanted {
    /// Whose connection.
    pub key: Key,
    /// Whose share of the feed.
    pub user: UserId,
    /// Which session of the connection.
    pub session: SessionId,
    pub feed: FeedId,
    /// From where, and what for.
    pub reading: Reading,
    /// It is a topic that the inbox has by membership.
    pub member: bool,
}

/// A session for which something is looked up.
pub(crate) struct Relook {
    pub key: Key,
    /// Which session of the connection.
    pub session: SessionId,
}

/// A state map that is looked up for a session.
pub(crate) struct StateLook {
    pub relook: Relook,
    /// Whose map.
    pub user: UserId,
    /// What the session's client had when the look began.
    pub before: StateTold,
}

/// What was dropped of the wakes since a shard last looked.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Lost {
    pub entries: bool,
    pub members: bool,
    pub states: bool,
}

impl Lost {
    fn add(&mut self, wake: &Wake) {
        match wake {
            Wake::Appended(_) | Wake::Transient(_) => self.entries = true,
            Wake::Members(_) => self.members = true,
            Wake::State(..) => self.states = true,
            Wake::Missed => (self.entries, self.members, self.states) = (true, true, true),
        }
    }
}

pub(crate) enum Post {
    Wake(Wake),
    /// These sessions may begin, or may not.
    Admitted(Vec<(Waiting, Result<(), Problem>)>),
    /// These ask once more whether they may.
    AskAgain(Vec<Waiting>),
    /// A request has waited for the keys of its token's issuer, so often.
    KeysWaited(Key, u8),
    /// The answers to connections that are opening a session.
    Opened(Vec<(Key, Result<Starts, EngineError>)>),
    /// The same, for those who were welcomed too.
    Welcomed(Vec<(Key, Result<Starts, EngineError>)>),
    /// Where the topics stand that these sessions' users are members of.
    Members(Vec<(Relook, Result<Starts, EngineError>)>),
    /// The state maps that these sessions follow.
    States(Vec<(StateLook, Result<Arc<UserState>, EngineError>)>),
    /// Pages that sessions asked for, read together.
    Pages(Vec<(PageWanted, Result<InboxPage, EngineError>)>),
    /// A page that a session asked for (a poll's connection may have begun another session since); the permit
    /// bounds how many there are at once.
    Page(
        PageWanted,
        Result<InboxPage, EngineError>,
        Option<OwnedSemaphorePermit>,
    ),
    /// Clients' own acks and reads are durable, with so many entries changed by each; `None` could not be made so.
    Settled(Vec<Word>, Vec<Option<u64>>),
    /// The engine has the settlements by evidence that it was handed, but for these, which are to be tried again.
    Flushed(Vec<Settlement>),
    /// The engine has the attempts it was handed, but for these, which are to be tried again.
    Attempted(Vec<Attempt>),
    /// What became of what these publish requests brought, in order.
    Published(Vec<Ordered>, Vec<Result<Receipt, EngineError>>),
    /// A connection that arrived elsewhere and asks for an inbox.
    Adopt(UnixStream, Option<Address>, Vec<u8>),
    /// Say which sessions this user has.
    WhoIs(UserId, oneshot::Sender<Vec<PresentSession>>),
    /// Say who hears a topic.
    WhoHears(WhoHears),
    /// Keep this roll of who hears this topic; no more where there is none.
    Watched(Topic, Option<Arc<Roll>>),
    /// Accept from this socket, with this TLS if any.
    Listen(std::net::TcpListener, Option<Arc<rustls::ServerConfig>>),
    Drain,
    Stop,
}

impl Inner {
    /// Whether no more wakes may wait.
    fn is_full(&self) -> bool {
        #[cfg(test)]
        if self.deaf {
            return true;
        }
        self.wakes >= MAX_WAKES
    }
}

pub(crate) struct Mailbox {
    inner: Mutex<Inner>,
    waker: mio::Waker,
    stats: Arc<HubStats>,
}

#[derive(Default)]
struct Inner {
    posts: VecDeque<Post>,
    wakes: usize,
    /// What was dropped since the shard last looked.
    lost: Lost,
    /// The loop has ended: nobody takes anything any more.
    closed: bool,
    /// No wake is taken, as if too many waited.
    #[cfg(test)]
    deaf: bool,
}

impl Mailbox {
    pub fn new(waker: mio::Waker, stats: Arc<HubStats>) -> Mailbox {
        Mailbox {
            inner: Mutex::default(),
            waker,
            stats,
        }
    }

    pub fn post(&self, post: Post) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.closed {
            // Whoever waits for an answer learns that there is none.
            drop(inner);
            return;
        }
        if let Post::Wake(wake) = &post {
            if matches!(wake, Wake::Missed) {
                // Posted too, so that the shard looks.
                inner.lost.add(wake);
            }
            if inner.is_full() {
                inner.lost.add(wake);
                self.stats.lost_wake();
                return;
            }
            inner.wakes += 1;
        }
        inner.posts.push_back(post);
        let first = inner.posts.len() == 1;
        drop(inner);
        if first && let Err(error) = self.waker.wake() {
            tracing::error!(%error, "a shard could not be woken");
        }
    }

    #[cfg(test)]
    pub fn set_deaf(&self, deaf: bool) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).deaf = deaf;
    }

    /// The loop has ended: what waits is dropped, and what is still to come.
    pub fn close(&self) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.closed = true;
        let posts = std::mem::take(&mut inner.posts);
        drop(inner);
        drop(posts);
    }

    /// Everything that waits, and what was dropped.
    pub fn take(&self) -> (VecDeque<Post>, Lost) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.wakes = 0;
        (std::mem::take(&mut inner.posts), std::mem::take(&mut inner.lost))
    }
}
