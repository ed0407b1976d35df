//! The hub: one shard per core, the engine's wakes posted to each, and what all shards share.

use crate::addresses::{Address, AddressCounts};
use crate::desk::Desk;
use crate::follows::{Follows, LetsGo};
use crate::gate::{Admission, Gate};
use crate::mailbox::{Mailbox, Post};
use crate::notify::NotifyRules;
use crate::outside::{Follow, Welcome};
use crate::presence::Asking;
use crate::raw::RawRules;
use crate::roll::Roll;
use crate::shard::{Shard, session_id};
use crate::stats::HubStats;
use crate::tls::Layer;
use postrider_delivery::{LifetimeRules, RedeliveryRules};
use postrider_engine::{Engine, EngineError, Wake};
use postrider_model::{Entry, Millis, SessionId, Settlement, Timestamp};
use std::hash::BuildHasher;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::Semaphore;

/// Pages that all sessions together may have under way. Bounds the memory of a reconnect storm.
const MAX_READING: usize = 64;

/// Of what is sent again, fewer, and beside those: a first delivery does not wait behind a repeat.
const MAX_READING_AGAIN: usize = 16;

/// Takes the connections that ask for something else than an inbox.
pub trait Refer: Send + Sync {
    /// Serves the rest of this connection; `already_read` comes before what the link will give.
    fn refer(&self, link: Link, already_read: Vec<u8>);
}

/// Is told what was settled on this node, once the engine has it. Must not block.
pub type Told = Arc<dyn Fn(&[Settlement]) + Send + Sync>;

/// A connection on its way to whoever serves the rest of it.
#[derive(Debug)]
pub enum Link {
    /// In the clear.
    Plain(std::net::TcpStream),
    /// With TLS, wherever that stands.
    Tls(std::net::TcpStream, Box<Layer>),
}

/// What one connection may hold and how long it may take; its defaults are the product's.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Feeds of one inbox: the user's own, `all`, and the rest topics (`inbox.max_feeds`).
    pub max_feeds: usize,
    /// Bytes that may wait for one session's socket. Above it nothing more is encoded for the session; once the
    /// socket has taken half, it is read forward from the engine (`session.outbox`).
    pub outbox: usize,
    /// A client that takes nothing of what waits for so long is gone (`session.stall_timeout`).
    pub stall_timeout: Millis,
    /// A request's head must be complete this soon (`http.head_timeout`).
    pub head_timeout: Millis,
    /// A connection between two requests may rest this long (`http.idle_timeout`).
    pub idle_timeout: Millis,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds {
            max_feeds: 100,
            outbox: 128 << 10,
            stall_timeout: Millis::from_secs(300),
            head_timeout: Millis::from_secs(10),
            idle_timeout: Millis::from_secs(75),
        }
    }
}

/// How a hub behaves.
#[derive(Clone)]
pub struct HubOptions {
    /// Loops; one per core is best.
    pub shards: usize,
    /// Sessions of one user (`limits.sessions_per_user`).
    pub sessions_per_user: usize,
    /// Sessions of one client address (`limits.sessions_per_address`); 0: any number.
    pub sessions_per_address: usize,
    /// A user counts as online for so long after the last session ended (`presence.linger`).
    pub presence_linger: Millis,
    /// Sockets of all shards together.
    pub max_connections: u64,
    /// The shortest time between two probes of a session (`ack.probe`).
    pub ack_probe: Millis,
    /// How long settlements by evidence may wait (`ack.flush`).
    pub ack_flush: Millis,
    /// What an explicit session's client has not acknowledged so long is sent again (`delivery.ack_timeout`).
    pub ack_timeout: Millis,
    /// How often an entry is sent to one session at most (`delivery.max_attempts`).
    pub max_attempts: u32,
    /// Whether the engine has to know that a user arrives (`inbox.broadcasts`: `from_first_session`).
    pub arrivals: bool,
    /// Whether a stream's entries are settled by TCP's acknowledgement (`session.tcp_evidence`).
    pub tcp_evidence: bool,
    /// After so much silence a keep-alive is sent.
    pub keep_alive: Millis,
    /// A WebSocket client that says nothing for so long, not even pong, is gone; so is a client whose TCP has not
    /// answered for so long what it was sent.
    pub silence: Millis,
    /// The window over which clients come back after a drain (`drain.spread`).
    pub drain_spread: Millis,
    /// What one connection may hold and how long it may take.
    pub bounds: Bounds,
    /// Tells the time.
    pub clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// Counts milliseconds from anywhere, and never jumps: timers go by it.
    pub steady: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

/// Intervals by transport.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub poll: LifetimeRules,
    pub sse: LifetimeRules,
    pub websocket: LifetimeRules,
    pub probe: Millis,
    pub redelivery: RedeliveryRules,
    pub bounds: Bounds,
}

/// What all shards share.
pub(crate) struct Shared {
    pub engine: Arc<dyn Engine>,
    pub gate: Arc<dyn Gate>,
    pub desk: Arc<dyn Desk>,
    pub refer: Arc<dyn Refer>,
    pub clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    pub steady: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    pub stats: Arc<HubStats>,
    /// How many sessions each user has, over all shards.
    pub sessions: Arc<Roll>,
    pub asking: Asking,
    pub follows: Arc<Follows>,
    /// Where the notify dialect is served.
    pub notify: OnceLock<NotifyRules>,
    /// Where the raw dialect is served.
    pub raw: OnceLock<RawRules>,
    pub welcome: OnceLock<Arc<dyn Welcome>>,
    /// Where more than this node says whether a session may begin.
    pub admission: OnceLock<Arc<dyn Admission>>,
    /// Who waits for settlements.
    pub told: OnceLock<Told>,
    pub addresses: Arc<AddressCounts>,
    pub reading: Arc<Semaphore>,
    pub reading_again: Arc<Semaphore>,
    pub arrivals: bool,
    pub rules: Rules,
    pub max_connections: u64,
    pub ack_flush: Millis,
    pub tcp_evidence: bool,
    pub drain_spread: Millis,
    runtime: tokio::runtime::Handle,
    id_prefix: u64,
    ids: AtomicU64,
    salted: foldhash::quality::RandomState,
}

impl Shared {
    /// Waits for something of the engine. Only for a loop that has ended.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Runs what has to wait for the engine, outside the loops. Each such task ends with a post to its
    /// shard, and a shard starts no more than its connections ask for.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }

    /// Hands settlements to the engine, and tells who waits for them.
    pub async fn settle(
        &self,
        batch: Vec<Settlement>,
        sync: postrider_engine::Sync,
    ) -> Result<Vec<u64>, EngineError> {
        let Some(told) = self.told.get() else {
            return self.engine.settle(batch, sync).await;
        };
        let counts = self.engine.settle(batch.clone(), sync).await?;
        told(&batch);
        Ok(counts)
    }

    /// Bits that this process gives once, and another hardly ever.
    pub fn fresh_bits(&self) -> u128 {
        let count = self.ids.fetch_add(1, Ordering::Relaxed);
        let of = |salt: u64| self.salted.hash_one((self.id_prefix, count, salt));
        u128::from(of(1)) << 64 | u128::from(of(2))
    }

    pub fn new_session_id(&self) -> SessionId {
        session_id(self.id_prefix, self.ids.fetch_add(1, Ordering::Relaxed))
    }
}

/// The running connection plane of a node.
pub struct Hub {
    shared: Arc<Shared>,
    mailboxes: Vec<Arc<Mailbox>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    stats: Arc<HubStats>,
    next: AtomicUsize,
}

impl Hub {
    /// Starts the loops. `runtime` runs what must wait for the engine.
    ///
    /// # Errors
    /// Where the system gives no poll, or no thread.
    pub fn start(
        options: &HubOptions,
        engine: Arc<dyn Engine>,
        gate: Arc<dyn Gate>,
        desk: Arc<dyn Desk>,
        refer: Arc<dyn Refer>,
        runtime: tokio::runtime::Handle,
        id_prefix: u64,
    ) -> io::Result<Hub> {
        let stats = Arc::<HubStats>::default();
        let silent = |silence| LifetimeRules {
            keep_alive: options.keep_alive,
            silence,
        };
        let shared = Arc::new(Shared {
            engine: engine.clone(),
            gate,
            desk,
            refer,
            clock: options.clock.clone(),
            steady: options.steady.clone(),
            stats: stats.clone(),
            sessions: Arc::new(Roll::new(
                options.sessions_per_user,
                options.presence_linger,
                (options.steady)(),
            )),
            asking: Asking::new(options.presence_linger),
            follows: Arc::default(),
            notify: OnceLock::new(),
            raw: OnceLock::new(),
            welcome: OnceLock::new(),
            admission: OnceLock::new(),
            told: OnceLock::new(),
            addresses: AddressCounts::new(options.sessions_per_address),
            reading: Arc::new(Semaphore::new(MAX_READING)),
            reading_again: Arc::new(Semaphore::new(MAX_READING_AGAIN)),
            arrivals: options.arrivals,
            rules: Rules {
                poll: LifetimeRules {
                    keep_alive: Millis(u64::MAX / 4),
                    silence: None,
                },
                sse: silent(Some(options.silence)),
                websocket: silent(Some(options.silence)),
                probe: options.ack_probe,
                redelivery: RedeliveryRules {
                    ack_timeout: options.ack_timeout,
                    max_attempts: options.max_attempts,
                },
                bounds: options.bounds,
            },
            max_connections: options.max_connections,
            ack_flush: options.ack_flush,
            tcp_evidence: options.tcp_evidence,
            drain_spread: options.drain_spread,
            runtime,
            id_prefix,
            ids: AtomicU64::new(1),
            salted: foldhash::quality::RandomState::default(),
        });
        let mut mailboxes = Vec::new();
        let mut threads = Vec::new();
        for n in 0..options.shards.max(1) {
            let (shard, mailbox) = Shard::new(shared.clone())?;
            mailboxes.push(mailbox);
            threads.push(
                std::thread::Builder::new()
                    .name(format!("shard-{n}"))
                    .spawn(move || shard.run())?,
            );
        }
        for mailbox in mailboxes.clone() {
            engine.listen(Box::new(move |wake| mailbox.post(Post::Wake(wake))));
        }
        Ok(Hub {
            shared,
            mailboxes,
            threads: Mutex::new(threads),
            stats,
            next: AtomicUsize::new(0),
        })
    }

    /// Accepts from this socket in every shard.
    ///
    /// # Errors
    /// Where the socket cannot be shared.
    pub fn listen(&self, listener: std::net::TcpListener) -> io::Result<()> {
        self.listen_by(listener, None)
    }

    /// As [`Hub::listen`], with TLS. A node has one listener.
    ///
    /// # Errors
    /// Where the socket cannot be shared.
    pub fn listen_tls(
        &self,
        listener: std::net::TcpListener,
        config: Arc<rustls::ServerConfig>,
    ) -> io::Result<()> {
        self.listen_by(listener, Some(&config))
    }

    fn listen_by(
        &self,
        listener: std::net::TcpListener,
        tls: Option<&Arc<rustls::ServerConfig>>,
    ) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        // On Linux its connections have it from there.
        socket2::SockRef::from(&listener).set_tcp_nodelay(true)?;
        for mailbox in &self.mailboxes {
            mailbox.post(Post::Listen(listener.try_clone()?, tls.cloned()));
        }
        Ok(())
    }

    /// Serves an inbox request that arrived on a connection of the API: `head` is the request's head, and
    /// the answer comes back on `socket`. `client` is who asked.
    pub fn adopt(&self, socket: UnixStream, client: Option<Address>, head: Vec<u8>) {
        let n = self.next.fetch_add(1, Ordering::Relaxed) % self.mailboxes.len();
        self.mailboxes[n].post(Post::Adopt(socket, client, head));
    }

    /// Lets no new session begin, and tells those there are to come back over a window of time.
    pub fn drain(&self) {
        self.mailboxes
            .iter()
            .for_each(|mailbox| mailbox.post(Post::Drain));
    }

    /// Ends the loops and waits for them.
    pub fn stop(&self) {
        self.shared.sessions.close();
        self.shared.asking.close();
        self.mailboxes.iter().for_each(|mailbox| mailbox.post(Post::Stop));
        for thread in self
            .threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .drain(..)
        {
            if thread.join().is_err() {
                tracing::error!("a shard panicked");
            }
        }
    }

    /// Has one more told which feeds are heard on this node. To be called before anybody can connect: what is heard
    /// by then is not told.
    pub fn follow_with(&self, listener: Arc<dyn Follow>) {
        self.shared.follows.add(listener, LetsGo::Later);
    }

    /// As [`Hub::follow_with`], of one that keeps a feed for a while by itself once nobody hears it: it is told of that
    /// at once.
    pub fn follow_at_once_with(&self, listener: Arc<dyn Follow>) {
        self.shared.follows.add(listener, LetsGo::AtOnce);
    }

    /// Has each session admitted before it begins. To be called before anybody can connect; the first stays. The engine
    /// must be one that answers nothing at once: it is shared.
    pub fn admit_with(&self, admission: Arc<dyn Admission>) {
        self.shared.admission.get_or_init(|| admission);
    }

    /// Has one told of what is settled on this node. To be called before anybody can connect; the first stays.
    pub fn tell_settled_to(&self, told: Told) {
        self.shared.told.get_or_init(|| told);
    }

    /// Serves the notify dialect too. To be called before anybody can connect; the first rules stay.
    pub fn serve_notify(&self, rules: NotifyRules) {
        self.shared.notify.get_or_init(|| rules);
    }

    /// Serves the raw dialect too. To be called before anybody can connect; the first rules stay.
    pub fn serve_raw(&self, rules: RawRules) {
        self.shared.raw.get_or_init(|| rules);
    }

    /// Has clients of the notify dialect welcomed. To be called before anybody can connect; the first stays.
    pub fn greet_with(&self, welcome: Arc<dyn Welcome>) {
        self.shared.welcome.get_or_init(|| welcome);
    }

    /// Gives transient entries to the sessions of this node, and to no others: from a source that every node hears for
    /// itself. May be dropped where loops are behind, as all that is transient.
    pub fn bring(&self, entries: &Arc<[Arc<Entry>]>) {
        for mailbox in &self.mailboxes {
            mailbox.post(Post::Wake(Wake::Transient(entries.clone())));
        }
    }

    /// Feeds that are followed, if anybody is told.
    pub fn followed(&self) -> u64 {
        self.shared.follows.count()
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(crate) fn mailboxes(&self) -> &[Arc<Mailbox>] {
        &self.mailboxes
    }

    /// What the hub counts.
    pub fn stats(&self) -> &Arc<HubStats> {
        &self.stats
    }
}
