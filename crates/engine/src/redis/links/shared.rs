//! What the tasks of all connections of a node share.

use super::cell::Cell;
use super::channels::{Channels, ServerId};
use super::fault::LinkFault;
use super::library::Library;
use super::url::{Address, RedisKind};
use super::wire::{Dialer, Speech, Wire};
use super::{OnLost, OnMessage};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Shared by the tasks; holds no connection itself.
pub struct Shared {
    pub dialer: Dialer,
    pub kind: RedisKind,
    pub library: Option<Library>,
    pub runtime: Handle,
    /// Told when it is time to look where the masters are.
    pub trouble: Notify,
    pub counts: Counts,
    channels: Mutex<Channels>,
    listeners: RwLock<Vec<(OnMessage, OnLost)>>,
    /// Where a server said that a slot has gone.
    hint: Mutex<Option<Address>>,
    /// Why the last look for the masters found nothing.
    last_look: Mutex<Option<LinkFault>>,
}

/// What was done so far.
#[derive(Debug, Default)]
pub struct Counts {
    pub round_trips: AtomicU64,
    pub commands: AtomicU64,
    pub reconnects: AtomicU64,
    /// Connections made: the number of the newest.
    pub born: AtomicU64,
    pub servers: AtomicU64,
}

impl Shared {
    pub fn new(
        dialer: Dialer,
        kind: RedisKind,
        library: Option<Library>,
        runtime: Handle,
        most_channels: usize,
    ) -> Shared {
        Shared {
            dialer,
            kind,
            library,
            runtime,
            trouble: Notify::new(),
            counts: Counts::default(),
            channels: Mutex::new(Channels::new(most_channels)),
            listeners: RwLock::new(Vec::new()),
            hint: Mutex::new(None),
            last_look: Mutex::new(None),
        }
    }

    /// The channels. Never held while anything is waited for.
    pub fn channels(&self) -> MutexGuard<'_, Channels> {
        unpoisoned(&self.channels)
    }

    /// A connection to a master, or the reason why this one cannot be used.
    pub async fn dial(&self, to: &Address, speech: Speech) -> Result<Wire, LinkFault> {
        let wire = self.dialer.dial(to, speech).await?;
        let is_cluster = wire.greeting.mode == "cluster";
        let unfit = match (is_cluster, self.kind == RedisKind::Cluster) {
            (true, false) => "is a node of a Cluster: its address must begin with redis+cluster://",
            (false, true) => "is not a node of a Cluster: its address must not say +cluster",
            _ if wire.greeting.mode == "sentinel" => {
                "is a Sentinel: its address must begin with redis+sentinel://"
            }
            _ if wire.greeting.role != "master" => "is a replica; writes need the master",
            _ => return Ok(wire),
        };
        Err(LinkFault::Unfit(format!("{to} {unfit}")))
    }

    pub fn add_listener(&self, on_message: OnMessage, on_lost: OnLost) {
        let mut listeners = self.listeners.write().unwrap_or_else(PoisonError::into_inner);
        listeners.push((on_message, on_lost));
    }

    /// Tells every listener of a message. One that panics is told that it may have missed something.
    pub fn tell(&self, channel: &[u8], payload: &[u8]) {
        let listeners = self.listeners.read().unwrap_or_else(PoisonError::into_inner);
        for (on_message, on_lost) in listeners.iter() {
            if goes_wrong(|| on_message(channel, payload)) {
                let cells: Vec<Cell> = Cell::of_key(channel).into_iter().collect();
                goes_wrong(|| on_lost(&cells));
            }
        }
    }

    /// Tells every listener of what a server's channels may have missed, if all of it is heard again.
    pub fn tell_mended(&self, server: ServerId) {
        let cells: Vec<Cell> = self.channels().mended(server);
        if cells.is_empty() {
            return;
        }
        let listeners = self.listeners.read().unwrap_or_else(PoisonError::into_inner);
        for (_, on_lost) in listeners.iter() {
            goes_wrong(|| on_lost(&cells));
        }
    }

    /// A server said that a slot is not, or no longer, its own.
    pub fn look(&self, hint: Option<Address>) {
        if hint.is_some() {
            *unpoisoned(&self.hint) = hint;
        }
        self.trouble.notify_one();
    }

    pub fn take_hint(&self) -> Option<Address> {
        unpoisoned(&self.hint).take()
    }

    pub fn last_look(&self) -> Option<LinkFault> {
        unpoisoned(&self.last_look).clone()
    }

    pub fn note_look(&self, fault: Option<LinkFault>) {
        *unpoisoned(&self.last_look) = fault;
    }

    pub fn next_connection(&self) -> u64 {
        self.counts.born.fetch_add(1, Ordering::AcqRel) + 1
    }
}

/// Whether a listener panicked: that is its own trouble, and the connection goes on.
fn goes_wrong(listener: impl FnOnce()) -> bool {
    let outcome = catch_unwind(AssertUnwindSafe(listener));
    if outcome.is_err() {
        tracing::error!("a listener to Redis panicked; it is told that it may have missed something");
    }
    outcome.is_err()
}

/// What is guarded by these locks is whole after every step, so a panic elsewhere does not spoil it.
pub fn unpoisoned<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The driver's clock: for how long a server has been away, and until when to wait.
#[allow(clippy::disallowed_methods, reason = "the edge where time comes in")]
pub fn now() -> Instant {
    Instant::now()
}
