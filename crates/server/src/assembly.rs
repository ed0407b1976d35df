//! Puts a node together, and takes it apart again: engine, hub, listeners; drain, close.
//!
//! Order matters both ways. The engine is open before anyone can connect, and the listeners open last. On a
//! drain readiness turns first, then clients are told, then requests under way finish, and only then does
//! the engine close, so that nothing accepted is left behind.

use crate::api::{self, Api, DemoPage};
use crate::auth::{self, Auth, AuthFault};
use crate::bodies::Bodies;
use crate::bridge::Bridge;
use crate::channels::Channels;
use crate::clock::fresh_number;
use crate::config::{Broadcasts, Config};
use crate::desk::PublishDesk;
use crate::drain::{Drain, DrainSwitch, drain_switch};
use crate::files;
use crate::front::Front;
use crate::metrics::Metrics;
use crate::ops;
use crate::process;
use crate::registry;
use crate::reload::Reload;
use crate::sources::{Plant, Sources, Waits};
use crate::static_files::StaticFiles;
use crate::store::{self, OpenFault, Sharing, Store};
use crate::tasks::Tasks;
use crate::tls::{Certificates, TlsConfigFault};
use postrider_engine::{Engine, Rules};
use postrider_model::Millis;
use postrider_registry::RegistryFault;
use postrider_transports::{Address, Bounds, Hub, HubOptions, NotifyRules, RawRules};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};

/// How often a drain looks whether the sessions are gone.
const DRAIN_LOOK: Duration = Duration::from_millis(20);
/// In a drain the registry is waited for so long before queues are let go: else they stay.
const REGISTRY_FIRST: Duration = Duration::from_secs(3);
/// Connections that may wait to be accepted; the system has a bound of its own (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;
/// Open files that the store, the API and the log may need beside the sessions' sockets.
const FILES_FOR_OTHERS: u64 = 512;

/// Of the feeds of an inbox these are there anyway: the user's own, and the one for everyone.
const OWN_FEEDS: usize = 2;

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A listener's address is taken, or is not of this machine.
    #[error("{key}: cannot listen on {addr}")]
    Listen {
        /// The configuration key.
        key: &'static str,
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The engine cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenFault),
    /// The other nodes cannot be told of this one, or what they share cannot be had.
    #[error("engine.redis.url: {0}")]
    Nodes(String),
    /// The key of tickets in the data directory cannot be read or made.
    #[error("the key of tickets cannot be had")]
    TicketKey(#[source] std::io::Error),
    /// The keys of tokens cannot be used.
    #[error("tokens cannot be checked")]
    Auth(#[from] AuthFault),
    /// The certificate or its key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsConfigFault),
    /// What the registry needs cannot be read.
    #[error("the registry cannot be kept")]
    Registry(#[source] RegistryFault),
    /// The system gives no thread.
    #[error("the system gives no thread")]
    Thread(#[source] std::io::Error),
    /// The hub did not start.
    #[error("the hub did not start")]
    Hub(#[source] std::io::Error),
}

/// A running node.
pub struct Node {
    http: SocketAddr,
    ops: SocketAddr,
    store: Arc<dyn Store>,
    hub: Arc<Hub>,
    sources: Sources,
    registry: Tasks,
    api_tasks: Tasks,
    drain: DrainSwitch,
    timeout: Millis,
    reload: Reload,
    is_tls: bool,
    /// Keeps the operations listener open until the very end.
    _never: DrainSwitch,
}

impl Node {
    /// Starts everything; when it returns, clients can connect.
    pub fn start(config: Config, demo: Option<DemoPage>, runtime: Handle) -> Result<Node, StartError> {
        let reload = Reload::new(config.clone());
        let certificates = Certificates::open(&config.http.tls, crate::now())?;
        let http = listen("http.listen", config.http.listen)?;
        let ops_listener = listen("ops.listen", config.ops.listen)?;
        let metrics = Arc::new(Metrics::default());
        let store = store::open(&config, rules(&config), &metrics, &runtime)?;
        let engine = store.engine();
        let ticket_key = store.ticket_key()?;
        let auth = Arc::new(Auth::new(&config, ticket_key, crate::steady_clock())?);
        let reloading = auth.clone();
        reload.register(auth::RELOADED, move |config| reloading.prepare(config));
        let awaiting = auth.clone();
        let (drain, draining) = drain_switch();
        let api_tasks = Tasks::new(runtime.clone());
        let front = Arc::new(Front::new(api_tasks.clone(), draining.clone(), &config.http));
        let desk = Arc::<PublishDesk>::default();
        let hub = start_hub(
            &config,
            engine.clone(),
            auth.clone(),
            (front.clone(), desk.clone()),
            runtime.clone(),
        );
        let hub = Arc::new(hub.map_err(StartError::Hub)?);
        let presence = store.share(Sharing {
            config: &config,
            hub: &hub,
            auth: &auth,
        })?;
        if let Some(path) = &config.notify.path {
            hub.serve_notify(NotifyRules {
                path: path.clone(),
                origins: config.notify.origins.clone(),
                ends_with_token: config.notify.ends_with_token,
            });
        }
        if let Some(path) = &config.raw.path {
            hub.serve_raw(RawRules {
                path: path.clone(),
                max_time: config.raw.max_time,
                ends_with_token: config.raw.ends_with_token,
            });
        }
        if config.log.process > Millis(0) {
            let watch = process::watch(config.log.process, hub.stats().clone(), draining.clone());
            Tasks::new(runtime.clone()).spawn("process line", watch);
        }
        let instance = instance(&config);
        #[cfg(feature = "aws")]
        let account: Arc<postrider_aws::Account> = Arc::default();
        let registry::Kept {
            tasks: registry,
            lookup,
        } = registry::start(
            &config,
            &instance,
            &hub,
            &metrics,
            &draining,
            runtime.clone(),
            #[cfg(feature = "aws")]
            &account,
        )
        .map_err(StartError::Registry)?;
        let api = Arc::new(Api {
            engine: engine.clone(),
            presence: presence.unwrap_or_else(|| hub.clone()),
            auth,
            limits: config.limits.clone(),
            topics_per_user: topics_per_user(&config),
            max_body: config.http.max_body.as_usize(),
            bodies: Bodies::new(config.http.bodies.max(config.http.max_body).as_usize()),
            metrics: metrics.clone(),
            drain: draining.clone(),
            tasks: api_tasks.clone(),
            bridge: Arc::new(ToHub(hub.clone())),
            redrives: Arc::new(Semaphore::new(api::MAX_REDRIVES)),
            demo,
            notify_path: config.notify.path.clone(),
            raw: config.raw.clone(),
            waits: waits(&config, &hub),
            doors: Arc::default(),
            registry: lookup,
            static_files: config
                .http
                .static_files
                .clone()
                .map(StaticFiles::new)
                .transpose()
                .map_err(StartError::Thread)?,
        });
        let sources = start_sources(
            &config,
            &api,
            &hub,
            instance,
            runtime.clone(),
            #[cfg(feature = "aws")]
            account,
        );
        desk.open(api.clone());
        front.open(api::router(api));
        let (never, forever) = drain_switch();
        let (certificate_runtime, watched_until) = (runtime.clone(), draining.clone());
        let (http_addr, ops_addr) = (
            local(&http, config.http.listen),
            local(&ops_listener, config.ops.listen),
        );
        let drains = (draining, forever);
        open_ops(
            ops_listener,
            &hub,
            (store.clone(), config.dead_letters.max),
            awaiting,
            metrics,
            drains,
            runtime,
        )
        .map_err(|source| StartError::Listen {
            key: "ops.listen",
            addr: ops_addr,
            source,
        })?;
        let is_tls = certificates.is_some();
        let listening = match certificates {
            None => hub.listen(http),
            Some(certificates) => {
                certificates.register(&reload);
                certificates.watch(&Tasks::new(certificate_runtime), watched_until);
                hub.listen_tls(
                    http,
                    certificates.server_config(config.http.http2_connections > 0)?,
                )
            }
        };
        listening.map_err(|source| StartError::Listen {
            key: "http.listen",
            addr: http_addr,
            source,
        })?;
        let timeout = config.drain.timeout;
        Ok(Node {
            http: http_addr,
            ops: ops_addr,
            store,
            hub,
            sources,
            registry,
            api_tasks,
            drain,
            timeout,
            reload,
            is_tls,
            _never: never,
        })
    }

    /// Where the public listener is.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// Whether the public listener speaks TLS.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Where the operations listener is.
    pub fn ops(&self) -> SocketAddr {
        self.ops
    }

    /// The parts of it that can take a new configuration while it runs.
    pub fn reload(&self) -> &Reload {
        &self.reload
    }

    /// Stops: no new sessions, clients told to come back elsewhere, requests under way finished, everything
    /// accepted on disk. Takes at most `drain.timeout`, plus what the store needs to close.
    pub async fn drain(self) {
        tracing::info!("draining");
        self.drain.begin();
        self.hub.drain();
        let quiet = async {
            // First, so that nobody is told of a queue that is then taken away. But not for long.
            let first = REGISTRY_FIRST.min(self.timeout.as_duration() / 2);
            if tokio::time::timeout(first, self.registry.idle()).await.is_err() {
                tracing::warn!("the registry still names this node; queues that were made are left");
                self.sources.keep();
            }
            tokio::join!(self.registry.idle(), self.sources.drained());
            self.api_tasks.idle().await;
            while self.hub.stats().connections() > 0 {
                tokio::time::sleep(DRAIN_LOOK).await;
            }
        };
        if tokio::time::timeout(self.timeout.as_duration(), quiet)
            .await
            .is_err()
        {
            let (connections, tasks) = (self.hub.stats().connections(), self.api_tasks.running());
            tracing::warn!(connections, tasks, "the drain timed out; what is left is cut off");
        }
        close(self.hub, self.store).await;
        tracing::info!("drained");
    }
}

/// Ends the loops and then the engine, on a thread of its own, since both wait for theirs.
async fn close(hub: Arc<Hub>, store: Arc<dyn Store>) {
    let (done, closed) = oneshot::channel();
    let closing = move || {
        hub.stop();
        store.close();
        if done.send(()).is_err() {
            tracing::debug!("nobody waits for the end");
        }
    };
    let started = std::thread::Builder::new().name("closing".into()).spawn(closing);
    if started.is_err() || closed.await.is_err() {
        tracing::error!("the node could not be closed in order");
    }
}

struct ToHub(Arc<Hub>);

impl Bridge for ToHub {
    fn adopt(&self, socket: UnixStream, client: Option<Address>, already_read: Vec<u8>) {
        self.0.adopt(socket, client, already_read);
    }
}

fn listen(key: &'static str, addr: SocketAddr) -> Result<TcpListener, StartError> {
    let listener = TcpListener::bind(addr).map_err(|source| StartError::Listen { key, addr, source })?;
    // Again, for more room than the standard library gives: all the clients of a node that restarts come at once.
    rustix::net::listen(&listener, BACKLOG).map_err(|error| StartError::Listen {
        key,
        addr,
        source: error.into(),
    })?;
    Ok(listener)
}

/// Where a listener really is, once port 0 has become one.
fn local(listener: &TcpListener, asked: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(asked)
}

fn rules(config: &Config) -> Rules {
    Rules {
        age: config.retention.age,
        entries_per_feed: config.retention.entries_per_feed,
        bytes_per_feed: config.retention.bytes_per_feed.0,
        total_bytes: config.retention.total_bytes.0,
        audit: config.retention.audit,
        dedupe: config.dedupe.window,
        ack_timeout: config.delivery.ack_timeout,
        max_total_attempts: config.delivery.max_total_attempts,
        topics_per_user: topics_per_user(config),
        dead_letters: config.dead_letters.max,
        broadcasts: match config.inbox.broadcasts {
            Broadcasts::Retained => postrider_engine::Broadcasts::Retained,
            Broadcasts::FromFirstSession => postrider_engine::Broadcasts::FromFirstSession,
        },
    }
}

/// Topics that a user may be a member of.
fn topics_per_user(config: &Config) -> usize {
    config.inbox.max_feeds.saturating_sub(OWN_FEEDS)
}

fn start_hub(
    config: &Config,
    engine: Arc<dyn Engine>,
    auth: Arc<Auth>,
    (front, desk): (Arc<Front>, Arc<PublishDesk>),
    runtime: Handle,
) -> std::io::Result<Hub> {
    let open_files = files::raise_limit();
    let options = HubOptions {
        shards: match config.session.shards {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            shards => shards,
        },
        sessions_per_user: config.limits.sessions_per_user,
        sessions_per_address: config.limits.sessions_per_address,
        presence_linger: config.presence.linger,
        max_connections: match config.http.max_connections {
            0 => open_files.saturating_sub(FILES_FOR_OTHERS).max(64),
            most => most,
        },
        ack_probe: config.ack.probe,
        ack_flush: config.ack.flush,
        ack_timeout: config.delivery.ack_timeout,
        max_attempts: config.delivery.max_attempts,
        arrivals: config.inbox.broadcasts == Broadcasts::FromFirstSession,
        tcp_evidence: config.session.tcp_evidence,
        keep_alive: config.session.keep_alive,
        silence: config.session.silence,
        drain_spread: config.drain.spread,
        bounds: Bounds {
            max_feeds: config.inbox.max_feeds,
            outbox: config.session.outbox.as_usize(),
            stall_timeout: config.session.stall_timeout,
            head_timeout: config.http.head_timeout,
            idle_timeout: config.http.idle_timeout,
        },
        clock: Arc::new(crate::now),
        steady: crate::steady_clock(),
    };
    let mut id_prefix = [0u8; 8];
    getrandom::fill(&mut id_prefix).map_err(std::io::Error::other)?;
    Hub::start(
        &options,
        engine,
        auth,
        desk,
        front,
        runtime,
        u64::from_le_bytes(id_prefix),
    )
}

fn start_sources(
    config: &Config,
    api: &Arc<Api>,
    hub: &Arc<Hub>,
    instance: Arc<str>,
    runtime: Handle,
    #[cfg(feature = "aws")] account: Arc<postrider_aws::Account>,
) -> Sources {
    let sessions = hub.clone();
    let plant = Plant {
        engine: api.engine.clone(),
        bring: Arc::new(move |entries| sessions.bring(&entries)),
        limits: config.limits.clone(),
        metrics: api.metrics.clone(),
        drain: api.drain.clone(),
        tasks: Tasks::new(runtime),
        channels: Channels::make(
            config,
            &api.metrics,
            #[cfg(feature = "aws")]
            &account,
        ),
        #[cfg(feature = "aws")]
        account,
        instance,
        presence: api.presence.clone(),
        waits: api.waits.clone(),
        doors: api.doors.clone(),
    };
    Sources::start(config, hub, &plant)
}

/// What the node is called: as it is told, or a fresh UUID.
fn instance(config: &Config) -> Arc<str> {
    match &config.instance {
        Some(instance) => instance.as_str().into(),
        None => {
            let random = uuid::Uuid::from_u64_pair(fresh_number(), fresh_number()).into_bytes();
            let fresh = uuid::Builder::from_random_bytes(random).into_uuid();
            fresh.to_string().into()
        }
    }
}

/// Who waits for settlements: nobody but sources, so that without any nobody is told.
fn waits(config: &Config, hub: &Hub) -> Arc<Waits> {
    let waits = Arc::<Waits>::default();
    if !config.sources.is_empty() {
        let told = waits.clone();
        hub.tell_settled_to(Arc::new(move |settlements| told.settled(settlements)));
    }
    waits
}

/// What is full, by the rule by which the engine refuses (`dead_letters.max`, where 0 is no bound).
fn refusal(store: &dyn Store, most_letters: u64) -> Option<&'static str> {
    let is_full = most_letters > 0 && store.levels().dead_letters >= most_letters;
    is_full.then_some("dead_letters")
}

fn open_ops(
    listener: TcpListener,
    hub: &Arc<Hub>,
    (store, most_letters): (Arc<dyn Store>, u64),
    auth: Arc<Auth>,
    metrics: Arc<Metrics>,
    (drain, never): (Drain, Drain),
    runtime: Handle,
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let stats = hub.stats().clone();
    let told = store.clone();
    let refresh: ops::Refresh = Arc::new(move |metrics| {
        metrics.take_hub(&stats);
        metrics.take_store(told.levels());
        if let Some(levels) = told.redis_levels() {
            metrics.take_redis(levels);
        }
    });
    let watched = store.clone();
    let failing: ops::Failing = Arc::new(move || watched.failure());
    let refusing: ops::Refusing = Arc::new(move || refusal(&*store, most_letters));
    let counted = metrics.clone();
    let awaiting: ops::Awaiting = Arc::new(move || {
        let keys = auth.awaited().into_iter();
        let away = counted.sources().away().into_iter();
        keys.chain(away)
            .chain(counted.channels().away())
            .chain(counted.registry().away())
            .collect()
    });
    let tasks = Tasks::new(runtime);
    let listener = {
        let _entered = tasks.runtime().enter();
        tokio::net::TcpListener::from_std(listener)?
    };
    let router = ops::router(metrics, refresh, drain, failing, refusing, awaiting);
    tasks.spawn("ops listener", ops::serve(listener, router, tasks.clone(), never));
    Ok(())
}
