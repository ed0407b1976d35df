//! A node's connections to Redis: one server, one kept by Sentinels, or a Cluster.
//!
//! What always holds:
//! * **A constant number of connections**, whatever the number of sessions: per master one for commands and one for
//!   Pub/Sub, and one more that watches the Sentinels or the Cluster.
//! * **Certainty.** An error says whether the call certainly did not run or may have run; only what certainly did
//!   not run, or changes nothing, is asked again.
//! * **No silence.** After an interval in which messages can have been missed, `on_lost` is called, and only once the
//!   subscriptions are confirmed again.
//! * Every queue is bounded, and every wait ends.
//!
//! It knows nothing of rows, feeds or notifications, and keeps no state that outlives the process.

mod asking;
mod backoff;
mod beside;
mod call;
mod cell;
mod channels;
mod confirm;
mod fault;
mod frame;
mod library;
mod listen;
mod masters;
mod opening;
mod options;
mod pipe;
mod server;
mod shared;
mod topology;
mod verdict;
mod watching;
mod wire;

#[cfg(test)]
mod tests;

pub use call::{Call, Durability};
pub use cell::{CELLS, Cell, slot_of};
pub use fault::LinkFault;
pub(super) use opening::NOT_EVERY_SLOT;
pub use options::{DEFAULT_TIMEOUT, LinkOptions, TlsIdentity, TlsOptions};
pub use url::{Address, RedisKind, RedisUrl, UrlFault};

use crate::redis_url as url;
use asking::{Batch, Item};
use futures_util::future::join_all;
use masters::Atlas;
use redis::{Cmd, Value};
use shared::{Shared, now, unpoisoned};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use wire::not_sent;

/// Most channels that one node subscribes to.
pub const MAX_CHANNELS: usize = 1 << 20;

/// Told of every message of the channels subscribed to: channel, payload. Must not block.
pub type OnMessage = Box<dyn Fn(&[u8], &[u8]) + Send + Sync>;
/// Told that messages of these cells' channels may have been missed, once they are heard again: messages that came since
/// may have been told before it. Must not block.
pub type OnLost = Box<dyn Fn(&[Cell]) + Send + Sync>;

/// The connections of a node to its Redis. Cheap to clone; closed by [`Links::close`], or when the last clone goes.
#[derive(Debug, Clone)]
pub struct Links {
    inner: Arc<Inner>,
}

struct Inner {
    options: LinkOptions,
    shared: Arc<Shared>,
    atlas: Arc<Atlas>,
    /// Asks where the masters are, where there is someone to ask.
    watcher: Mutex<Option<JoinHandle<()>>>,
    is_closed: AtomicBool,
}

/// A moment in the life of the connections, to tell whether a write and its confirmation went over the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

/// How the links stand, and what they did so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkState {
    /// Masters that are known.
    pub masters: usize,
    /// Masters whose command connection is up.
    pub commanded: usize,
    /// Masters whose Pub/Sub connection is up.
    pub listening: usize,
    /// For how long commands cannot be sent to one of them, the longest; `None`: to all they can.
    pub down_for: Option<Duration>,
    /// Batches of commands sent: round trips.
    pub round_trips: u64,
    /// Commands sent.
    pub commands: u64,
    /// Connections made again after one was lost.
    pub reconnects: u64,
    /// Channels subscribed to.
    pub channels: usize,
}

impl Links {
    /// Connects, and loads the library (Lua text that begins `#!lua name=…`; empty: none) on every master; again
    /// wherever a server lacks it later. Fails where Redis cannot be used within the timeout.
    pub async fn open(options: LinkOptions, library: &'static str) -> Result<Links, LinkFault> {
        let inner = Arc::new(opening::start(options, library)?);
        opening::wait(&inner).await?;
        Ok(Links { inner })
    }

    /// Pipelined by server, answered in the order asked. Calls of one batch must not rest on one another: one may be
    /// asked again after a later one ran. An error that the function itself answers is [`LinkFault::Refused`].
    ///
    /// Whoever drops the future does not take back what was sent.
    pub async fn call(&self, calls: Vec<Call>) -> Vec<Result<Value, LinkFault>> {
        let item = |call: &Call| Item {
            cell: call.cell,
            bytes: call.command().get_packed_command(),
            is_read: call.is_read,
            is_across: call.is_across(),
        };
        self.ask(calls.iter().map(item).collect()).await
    }

    /// Any one command, on the connection that calls to this cell go over. Not asked again once it may have run.
    pub async fn command(&self, cell: Cell, command: Cmd) -> Result<Value, LinkFault> {
        let item = Item {
            cell,
            bytes: command.get_packed_command(),
            is_read: false,
            is_across: false,
        };
        self.ask(vec![item]).await.pop().unwrap_or(Err(LinkFault::Closed))
    }

    async fn ask(&self, items: Vec<Item>) -> Vec<Result<Value, LinkFault>> {
        let inner = &self.inner;
        if inner.is_closed.load(Ordering::Acquire) {
            return items.iter().map(|_| Err(LinkFault::Closed)).collect();
        }
        let deadline = now() + inner.options.timeout;
        Batch::new(&inner.atlas, &inner.shared, items, deadline)
            .run()
            .await
    }

    /// The same command on every master that is known, by address. Asked once, and all at a time: one that does not
    /// answer takes nothing of the others' time.
    pub async fn each(&self, command: Cmd) -> Vec<(Address, Result<Value, LinkFault>)> {
        let deadline = now() + self.inner.options.timeout;
        let masters = self.inner.atlas.masters();
        let command = &command;
        let answers = masters.servers.iter().map(async |server| {
            let answer = match server.pipe() {
                Ok(pipe) => library::ask(&pipe, command, deadline).await,
                Err(fault) => Err(not_sent(fault.to_string())),
            };
            (server.address.clone(), answer)
        });
        join_all(answers).await
    }

    /// Waits until what was written to these cells since `moment` has the copies that are asked for. Fails with
    /// [`LinkFault::Unknown`] where a connection was made anew since: whether the write survived is not known, and
    /// the caller repeats it.
    pub async fn confirm(
        &self,
        moment: Moment,
        cells: &[Cell],
        durability: Durability,
    ) -> Result<(), LinkFault> {
        let deadline = now() + self.inner.options.timeout;
        confirm::confirm(&self.inner.atlas.masters(), moment, cells, durability, deadline).await
    }

    /// The present moment: taken before the calls that [`Links::confirm`] is to confirm.
    pub fn moment(&self) -> Moment {
        Moment(self.inner.shared.counts.born.load(Ordering::Acquire))
    }

    /// True for a Cluster, where one call declares keys of one cell only.
    pub fn is_cluster(&self) -> bool {
        self.inner.options.url.is_cluster()
    }

    /// The runtime that the links live on, for threads that block on them.
    pub fn handle(&self) -> &Handle {
        &self.inner.shared.runtime
    }

    /// A number that two cells share while they are on one server: to group what goes to one.
    pub fn server_of(&self, cell: Cell) -> u64 {
        self.inner.atlas.masters().of(cell).map_or(0, |server| server.id)
    }

    /// Adds a listener. Before the first `subscribe`; each listener hears every message and picks by channel.
    pub fn on_message(&self, on_message: OnMessage, on_lost: OnLost) {
        self.inner.shared.add_listener(on_message, on_lost);
    }

    /// Subscribes to a sharded channel, whose name begins with the cell's tag. Coalesced, and made again after a
    /// reconnect or a move of the slot. Past [`MAX_CHANNELS`] it is not taken, and [`Links::subscribed`] says so.
    pub fn subscribe(&self, cell: Cell, channel: Vec<u8>) {
        if Cell::of_key(&channel) != Some(cell) {
            tracing::error!(channel = %channel.escape_ascii(), "a channel must begin with its cell's tag");
            return;
        }
        let server = self.inner.shared.channels().want(cell, &channel);
        self.inner.wake(cell, server);
    }

    /// Lets go of a channel.
    pub fn unsubscribe(&self, cell: Cell, channel: Vec<u8>) {
        let server = self.inner.shared.channels().unwant(cell, &channel);
        self.inner.wake(cell, server);
    }

    /// Returns when the server has confirmed all these subscriptions: what is published after this is heard. Fails
    /// after the timeout, and at once for a channel that was not subscribed to.
    pub async fn subscribed(&self, channels: &[Vec<u8>]) -> Result<(), LinkFault> {
        let named = channels
            .iter()
            .map(|name| Cell::of_key(name).map(|cell| (cell, name.as_slice())));
        let named: Option<Vec<(Cell, &[u8])>> = named.collect();
        let waiter = named.and_then(|named| self.inner.shared.channels().wait(&named).ok());
        let Some(waiter) = waiter else {
            return Err(not_sent("a channel is not subscribed to"));
        };
        let Some(waiter) = waiter else {
            return Ok(());
        };
        let confirmed = tokio::time::timeout(self.inner.options.timeout, waiter.done.notified());
        confirmed
            .await
            .map_err(|_| not_sent("a subscription was not confirmed in time"))
    }

    /// How many connections this node holds to Redis: constant while the number of masters is.
    pub fn connections(&self) -> usize {
        let is_watched = *self.inner.options.url.kind() != RedisKind::Single;
        self.inner.atlas.masters().servers.len() * 2 + usize::from(is_watched)
    }

    /// How the links stand.
    pub fn state(&self) -> LinkState {
        let inner = &self.inner;
        let masters = inner.atlas.masters();
        let counts = &inner.shared.counts;
        LinkState {
            masters: masters.servers.len(),
            commanded: masters
                .servers
                .iter()
                .filter(|server| server.pipe().is_ok())
                .count(),
            listening: masters
                .servers
                .iter()
                .filter(|server| server.is_listening())
                .count(),
            down_for: masters
                .servers
                .iter()
                .filter_map(|server| server.down_for())
                .max(),
            round_trips: counts.round_trips.load(Ordering::Relaxed),
            commands: counts.commands.load(Ordering::Relaxed),
            reconnects: counts.reconnects.load(Ordering::Relaxed),
            channels: inner.shared.channels().count(),
        }
    }

    /// Ends all connections. What is under way fails.
    pub async fn close(&self) {
        self.inner.is_closed.store(true, Ordering::Release);
        let watcher = unpoisoned(&self.inner.watcher).take();
        if let Some(watcher) = watcher {
            watcher.abort();
            // Cancelled or not, it starts no connection after this.
            drop(watcher.await);
        }
        self.inner.atlas.close();
    }
}

impl Inner {
    /// Has the server of a cell look at what is wanted.
    fn wake(&self, cell: Cell, server: Option<u64>) {
        let masters = self.atlas.masters();
        if let Some(of) = masters.of(cell)
            && server.is_some()
        {
            of.wake();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(watcher) = unpoisoned(&self.watcher).take() {
            watcher.abort();
        }
        self.atlas.close();
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
