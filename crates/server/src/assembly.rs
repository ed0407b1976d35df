//! Puts a node together, and takes it apart again: engine, hub, listeners; drain, close.
//!
//! Order matters both ways. The engine is open before anyone can connect, and the listeners open last. On a
//! drain readiness turns first, then clients are told, then requests under way finish, and only then does
//! the engine close, so that nothing accepted is left behind.

use crate::api::{self, Api, DemoPage};
use crate::auth::{Auth, AuthFault, TicketKey};
use crate::bridge::Bridge;
use crate::config::{Config, EngineKind};
use crate::drain::{Drain, DrainSwitch, drain_switch};
use crate::files;
use crate::front::Front;
use crate::metrics::Metrics;
use crate::ops;
use crate::tasks::Tasks;
use postrider_engine::{Embedded, EmbeddedOptions, Engine};
use postrider_model::Millis;
use postrider_transports::{Hub, HubOptions};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// How often a drain looks whether the sessions are gone.
const DRAIN_LOOK: Duration = Duration::from_millis(20);
/// Comments and pings go out after so much silence.
const KEEP_ALIVE: Millis = Millis::from_secs(15);
/// A WebSocket client that does not even answer pings for so long is gone.
const SILENCE: Millis = Millis::from_secs(45);
/// Open files that the store, the API and the log may need beside the sessions' sockets.
const FILES_FOR_OTHERS: u64 = 512;

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
    /// The data directory cannot be used.
    #[error("data_dir cannot be used")]
    Store(#[source] postrider_engine::StoreFault),
    /// The key of tickets, in the data directory, cannot be read or made.
    #[error("the key of tickets cannot be had")]
    TicketKey(#[source] std::io::Error),
    /// The keys of tokens cannot be used.
    #[error("tokens cannot be checked")]
    Auth(#[from] AuthFault),
    /// The hub did not start.
    #[error("the hub did not start")]
    Hub(#[source] std::io::Error),
}

/// A running node.
pub struct Node {
    http: SocketAddr,
    ops: SocketAddr,
    engine: Arc<Embedded>,
    hub: Arc<Hub>,
    api_tasks: Tasks,
    drain: DrainSwitch,
    timeout: Millis,
    /// Keeps the operations listener open until the very end.
    _never: DrainSwitch,
}

impl Node {
    /// Starts everything; when it returns, clients can connect.
    pub fn start(config: Config, demo: Option<DemoPage>, runtime: Handle) -> Result<Node, StartError> {
        let http = listen("http.listen", config.http.listen)?;
        let ops_listener = listen("ops.listen", config.ops.listen)?;
        let metrics = Arc::new(Metrics::default());
        let engine = Arc::new(open_engine(&config, &metrics)?);
        let auth = Arc::new(Auth::new(
            &config.auth,
            &config.http.allowed_origins,
            &config.topics.open,
            ticket_key(&config)?,
        )?);
        let (drain, draining) = drain_switch();
        let api_tasks = Tasks::new(runtime.clone());
        let front = Arc::new(Front::new(api_tasks.clone(), draining.clone()));
        let hub = start_hub(
            &config,
            engine.clone(),
            auth.clone(),
            front.clone(),
            runtime.clone(),
        );
        let hub = Arc::new(hub.map_err(StartError::Hub)?);
        front.open(api::router(Arc::new(Api {
            engine: engine.clone() as Arc<dyn Engine>,
            auth,
            limits: config.limits.clone(),
            max_body: config.http.max_body.as_usize(),
            metrics: metrics.clone(),
            drain: draining.clone(),
            tasks: api_tasks.clone(),
            bridge: Arc::new(ToHub(hub.clone())),
            demo,
        })));
        let (never, forever) = drain_switch();
        let (http_addr, ops_addr) = (
            local(&http, config.http.listen),
            local(&ops_listener, config.ops.listen),
        );
        open_ops(ops_listener, &hub, metrics, draining, forever, runtime).map_err(|source| {
            StartError::Listen {
                key: "ops.listen",
                addr: ops_addr,
                source,
            }
        })?;
        hub.listen(http).map_err(|source| StartError::Listen {
            key: "http.listen",
            addr: http_addr,
            source,
        })?;
        let timeout = config.drain.timeout;
        Ok(Node {
            http: http_addr,
            ops: ops_addr,
            engine,
            hub,
            api_tasks,
            drain,
            timeout,
            _never: never,
        })
    }

    /// Where the public listener is.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// Where the operations listener is.
    pub fn ops(&self) -> SocketAddr {
        self.ops
    }

    /// Stops: no new sessions, clients told to come back elsewhere, requests under way finished, everything
    /// accepted on disk. Takes at most `drain.timeout`, plus what the store needs to close.
    pub async fn drain(self) {
        tracing::info!("draining");
        self.drain.begin();
        self.hub.drain();
        let quiet = async {
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
        close(self.hub, self.engine).await;
        tracing::info!("drained");
    }
}

/// Ends the loops and then the engine, on a thread of its own, since both wait for theirs.
async fn close(hub: Arc<Hub>, engine: Arc<Embedded>) {
    let (done, closed) = oneshot::channel();
    let closing = move || {
        hub.stop();
        engine.close();
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
    fn adopt(&self, socket: UnixStream, already_read: Vec<u8>) {
        self.0.adopt(socket, already_read);
    }
}

fn listen(key: &'static str, addr: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(addr).map_err(|source| StartError::Listen { key, addr, source })
}

/// Where a listener really is, once port 0 has become one.
fn local(listener: &TcpListener, asked: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(asked)
}

fn open_engine(config: &Config, metrics: &Arc<Metrics>) -> Result<Embedded, StartError> {
    let metrics = metrics.clone();
    let options = EmbeddedOptions {
        data_dir: match config.engine.kind {
            EngineKind::Embedded => Some(config.data_dir.clone()),
            EngineKind::Memory => None,
        },
        clock: Arc::new(crate::now),
        on_commit: Box::new(move |_commands, took| metrics.observe_sync(took)),
    };
    Embedded::open(options).map_err(StartError::Store)
}

/// Kept where the engine keeps what it stores: tickets live as long as that.
fn ticket_key(config: &Config) -> Result<TicketKey, StartError> {
    match config.engine.kind {
        EngineKind::Embedded => TicketKey::in_directory(&config.data_dir),
        EngineKind::Memory => TicketKey::in_memory(),
    }
    .map_err(StartError::TicketKey)
}

fn start_hub(
    config: &Config,
    engine: Arc<Embedded>,
    auth: Arc<Auth>,
    front: Arc<Front>,
    runtime: Handle,
) -> std::io::Result<Hub> {
    let open_files = files::raise_limit();
    let options = HubOptions {
        shards: std::thread::available_parallelism().map_or(1, usize::from),
        sessions_per_user: config.limits.sessions_per_user,
        max_connections: open_files.saturating_sub(FILES_FOR_OTHERS).max(64),
        ack_probe: config.ack.probe,
        ack_flush: config.ack.flush,
        tcp_evidence: config.session.tcp_evidence,
        keep_alive: KEEP_ALIVE,
        silence: SILENCE,
        drain_spread: config.drain.spread,
        clock: Arc::new(crate::now),
        steady: crate::steady_clock(),
    };
    let mut id_prefix = [0u8; 8];
    getrandom::fill(&mut id_prefix).map_err(std::io::Error::other)?;
    Hub::start(
        &options,
        engine,
        auth,
        front,
        runtime,
        u64::from_le_bytes(id_prefix),
    )
}

fn open_ops(
    listener: TcpListener,
    hub: &Arc<Hub>,
    metrics: Arc<Metrics>,
    drain: Drain,
    never: Drain,
    runtime: Handle,
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let stats = hub.stats().clone();
    let refresh: ops::Refresh = Arc::new(move |metrics| metrics.take_hub(&stats));
    let tasks = Tasks::new(runtime);
    let listener = {
        let _entered = tasks.runtime().enter();
        tokio::net::TcpListener::from_std(listener)?
    };
    let router = ops::router(metrics, refresh, drain);
    tasks.spawn("ops listener", ops::serve(listener, router, tasks.clone(), never));
    Ok(())
}
