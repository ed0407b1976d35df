//! The engine that a node runs over, whichever the configuration names: opened, watched and closed alike.
//!
//! Invariant: nothing outside of this module and of `nodes` asks which engine it is.

mod embedded;
#[cfg(feature = "redis")]
mod redis;

#[cfg(feature = "redis")]
pub use redis::check_redis;

use crate::assembly::StartError;
use crate::auth::{Auth, TicketKey};
use crate::config::{Config, EngineKind};
use crate::metrics::{Metrics, RedisLevels, StoreLevels};
use postrider_engine::{Engine, Presence, Rules, StoreFault};
use postrider_transports::Hub;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenFault {
    /// The data directory, or what is stored in it.
    #[error("data_dir cannot be used")]
    Directory(#[source] StoreFault),
    /// A file of `engine.redis.tls`.
    #[error("{key}: {path} cannot be read")]
    File {
        /// The configuration key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Redis is such that it cannot be used, or would lose what was accepted: what is wrong and how to mend it.
    #[error("{0}")]
    Unfit(String),
    /// Redis did not do what it was asked.
    #[error("engine.redis.url: {0}")]
    Redis(String),
    /// This binary was built without that engine.
    #[error("engine.type: {0}")]
    NotBuilt(String),
}

/// An engine in the hands of a node.
pub(crate) trait Store: Send + Sync {
    /// What all engines do.
    fn engine(&self) -> Arc<dyn Engine>;

    /// The key of tickets, kept where the engine keeps what it stores: tickets live as long as that.
    fn ticket_key(&self) -> Result<TicketKey, StartError>;

    /// Where several nodes share the engine: has them know of each other, and agree on what begins. Says who is there on
    /// all of them; `None` where this node is alone.
    fn share(&self, with: Sharing<'_>) -> Result<Option<Arc<dyn Presence>>, StartError>;

    /// Why the node cannot do its work now.
    fn failure(&self) -> Option<&'static str>;

    /// How things are, for metrics.
    fn levels(&self) -> StoreLevels;

    /// How it stands with Redis, where that is the engine.
    fn redis_levels(&self) -> Option<RedisLevels> {
        None
    }

    /// Finishes what was taken in. Not on a thread of the runtime.
    fn close(&self);
}

/// What nodes tell each other of.
#[cfg_attr(
    not(feature = "redis"),
    allow(dead_code, reason = "no engine of this build is shared")
)]
pub(crate) struct Sharing<'a> {
    pub config: &'a Config,
    pub hub: &'a Arc<Hub>,
    pub auth: &'a Arc<Auth>,
}

/// What an engine is told when it is opened.
#[cfg_attr(
    not(feature = "redis"),
    allow(dead_code, reason = "no engine of this build waits for another machine")
)]
struct Opening<'a> {
    config: &'a Config,
    rules: Rules,
    on_commit: Box<dyn Fn(usize, Duration) + Send>,
    runtime: &'a Handle,
}

/// Opens the engine that is configured.
pub(crate) fn open(
    config: &Config,
    rules: Rules,
    metrics: &Arc<Metrics>,
    runtime: &Handle,
) -> Result<Arc<dyn Store>, OpenFault> {
    let metrics = metrics.clone();
    let opening = Opening {
        config,
        rules,
        on_commit: Box::new(move |_commands, took| metrics.observe_sync(took)),
        runtime,
    };
    match config.engine.kind {
        EngineKind::Embedded | EngineKind::Memory => embedded::open(opening),
        EngineKind::Redis => open_redis(opening),
    }
}

#[cfg(feature = "redis")]
use redis::open as open_redis;

#[cfg(not(feature = "redis"))]
fn open_redis(_: Opening<'_>) -> Result<Arc<dyn Store>, OpenFault> {
    let lack = crate::config::Part::Redis.lack().unwrap_or_default();
    Err(OpenFault::NotBuilt(lack))
}
