//! How other threads reach a shard: a queue and a waker. Wakes are lossy: when too many wait they are
//! dropped and the shard is told so; answers that a connection waits for are never dropped, and there are
//! no more of them than were asked for.

use crate::addresses::Address;
use crate::connection::Key;
use crate::shard::{Ordered, Word};
use crate::stats::HubStats;
use postrider_delivery::{FeedStart, Reading};
use postrider_engine::{EngineError, Wake};
use postrider_model::{Attempt, FeedId, InboxPage, Receipt, SessionId, Settlement, UserId};
use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OwnedSemaphorePermit;

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
}

pub(crate) enum Post {
    Wake(Wake),
    /// The answers to connections that are opening a session.
    Opened(Vec<(Key, Result<Vec<FeedStart>, EngineError>)>),
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
    /// Accept from this socket, with this TLS if any.
    Listen(std::net::TcpListener, Option<Arc<rustls::ServerConfig>>),
    Drain,
    Stop,
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
    /// A wake was dropped since the shard last looked.
    lost: bool,
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
        if matches!(post, Post::Wake(_)) {
            if inner.wakes >= MAX_WAKES {
                inner.lost = true;
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

    /// Everything that waits, and whether a wake was dropped.
    pub fn take(&self) -> (VecDeque<Post>, bool) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.wakes = 0;
        (std::mem::take(&mut inner.posts), std::mem::take(&mut inner.lost))
    }
}
