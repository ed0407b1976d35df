//! The engine that a node runs over, whichever the configuration names: opened, watched and closed alike.
//!
//! Invariant: nothing outside of this module and of `nodes` asks which engine it is.

use crate::auth::TicketKey;
use crate::config::{Config, EngineKind, RedisDurability};
use crate::metrics::{Metrics, RedisLevels, StoreLevels};
use postrider_engine::redis::checkup::{self, Finding, Wanted};
use postrider_engine::redis::links::{
    Durability, LinkFault, LinkOptions, Links, RedisUrl, TlsIdentity, TlsOptions,
};
use postrider_engine::redis::{RedisEngine, RedisOptions};
use postrider_engine::{Embedded, EmbeddedOptions, Engine, Rules, StoreFault};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// A node that has lost Redis for longer is not ready: what a failover in order takes is less.
const AWAY: Duration = Duration::from_secs(1);

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
    /// Redis is such that it cannot be used, or would lose what was accepted.
    #[error("{}", told(.0))]
    Unfit(Vec<Finding>),
    /// Redis did not do what it was asked.
    #[error("engine.redis.url: {0}")]
    Redis(String),
}

/// What is wrong and how to mend it, one after the other.
fn told(findings: &[Finding]) -> String {
    let told = findings.iter().map(|finding| {
        let mend = finding.mend.as_deref().unwrap_or_default();
        format!("{}: {}; to mend it: {mend}", finding.check, finding.detail)
    });
    told.collect::<Vec<_>>().join("\n")
}

/// An engine in the hands of a node.
#[derive(Clone)]
pub(crate) enum Store {
    /// On this machine.
    Embedded(Arc<Embedded>),
    /// Shared by many nodes.
    Redis(Arc<RedisEngine>),
}

impl Store {
    /// Opens the engine that is configured.
    pub fn open(
        config: &Config,
        rules: Rules,
        metrics: &Arc<Metrics>,
        runtime: &Handle,
    ) -> Result<Store, OpenFault> {
        let metrics = metrics.clone();
        let on_commit = Box::new(move |_commands, took| metrics.observe_sync(took));
        let data_dir = match config.engine.kind {
            EngineKind::Embedded => Some(config.data_dir.clone()),
            EngineKind::Memory => None,
            EngineKind::Redis => {
                let options = redis_options(config, rules, on_commit)?;
                let engine = runtime.block_on(open_redis(config, options))?;
                return Ok(Store::Redis(Arc::new(engine)));
            }
        };
        let options = EmbeddedOptions {
            data_dir,
            rules,
            clock: Arc::new(crate::now),
            on_commit,
        };
        let engine = Embedded::open(options).map_err(OpenFault::Directory)?;
        Ok(Store::Embedded(Arc::new(engine)))
    }

    /// What all engines do.
    pub fn engine(&self) -> Arc<dyn Engine> {
        match self {
            Store::Embedded(engine) => engine.clone(),
            Store::Redis(engine) => engine.clone(),
        }
    }

    /// The key of tickets, kept where the engine keeps what it stores: tickets live as long as that.
    pub fn ticket_key(&self, config: &Config, runtime: &Handle) -> std::io::Result<TicketKey> {
        match self {
            Store::Embedded(_) if config.engine.kind == EngineKind::Memory => TicketKey::in_memory(),
            Store::Embedded(_) => TicketKey::in_directory(&config.data_dir),
            Store::Redis(engine) => match engine.links() {
                Some(links) => runtime.block_on(crate::nodes::ticket_key(links)),
                None => TicketKey::in_memory(),
            },
        }
    }

    /// Why the node cannot do its work now.
    pub fn failure(&self) -> Option<&'static str> {
        match self {
            Store::Embedded(engine) => {
                let why = "the store cannot be written; publishing is refused, and the log says why";
                engine.is_failing().then_some(why)
            }
            Store::Redis(engine) => {
                let down_for = engine.links().and_then(|links| links.state().down_for);
                if down_for.is_some_and(|down| down > AWAY) {
                    return Some("Redis cannot be reached; nothing is stored or received until it is back");
                }
                let why =
                    "Redis does not take what is to be stored; publishing is refused, and the log says why";
                engine.is_failing().then_some(why)
            }
        }
    }

    /// Dead letters there are.
    pub fn dead_letter_count(&self) -> u64 {
        match self {
            Store::Embedded(engine) => engine.dead_letter_count(),
            Store::Redis(engine) => engine.dead_letter_count(),
        }
    }

    /// How things are, for metrics.
    pub fn levels(&self) -> StoreLevels {
        match self {
            Store::Embedded(engine) => StoreLevels {
                failing: engine.is_failing(),
                dead_letters: engine.dead_letter_count(),
                held_bytes: engine.held_bytes(),
                store_bytes: engine.file_bytes(),
            },
            Store::Redis(engine) => StoreLevels {
                failing: self.failure().is_some(),
                dead_letters: engine.dead_letter_count(),
                held_bytes: engine.held_bytes(),
                store_bytes: 0,
            },
        }
    }

    /// How it stands with Redis, where that is the engine.
    pub fn redis_levels(&self, nodes: usize) -> Option<RedisLevels> {
        let Store::Redis(engine) = self else { return None };
        let links = engine.links()?;
        let (state, counters) = (links.state(), engine.counters());
        Some(RedisLevels {
            down: state.down_for.is_some(),
            connections: links.connections() as u64,
            round_trips: state.round_trips,
            commands: state.commands,
            reconnects: state.reconnects,
            conflicts: counters.conflicts,
            unreadable: counters.unreadable,
            channels: state.channels as u64,
            followed: counters.followed as u64,
            nodes: nodes as u64,
        })
    }

    /// Finishes what was taken in. Not on a thread of the runtime.
    pub fn close(&self, runtime: &Handle) {
        match self {
            Store::Embedded(engine) => engine.close(),
            Store::Redis(engine) => runtime.block_on(engine.close()),
        }
    }
}

/// How the configuration says that Redis is to be reached.
///
/// # Errors
/// Where a file that it names cannot be read.
pub fn redis_links(config: &Config, name: &str) -> Result<LinkOptions, OpenFault> {
    let redis = &config.engine.redis;
    let url: RedisUrl = match &redis.url {
        Some(url) => url.read().map_err(|fault| OpenFault::Redis(fault.to_string()))?,
        None => return Err(OpenFault::Redis("is not set".into())),
    };
    let read = |key: &'static str, path: &Option<PathBuf>| {
        let read = path.as_ref().map(|path| {
            std::fs::read(path).map_err(|source| OpenFault::File {
                key,
                path: path.clone(),
                source,
            })
        });
        read.transpose()
    };
    let authorities = read("engine.redis.tls.ca", &redis.tls.ca)?;
    let certificates = read("engine.redis.tls.cert", &redis.tls.cert)?;
    let key = read("engine.redis.tls.key", &redis.tls.key)?;
    let identity = certificates.zip(key);
    let identity = identity.map(|(certificates, key)| TlsIdentity { certificates, key });
    let mut options = LinkOptions::new(url, name);
    options.timeout = redis.timeout.as_duration();
    options.tls = TlsOptions {
        authorities,
        identity,
    };
    Ok(options)
}

fn redis_options(
    config: &Config,
    rules: Rules,
    on_commit: Box<dyn Fn(usize, Duration) + Send>,
) -> Result<RedisOptions, OpenFault> {
    let links = redis_links(config, "node")?;
    Ok(RedisOptions {
        url: links.url,
        tls: links.tls,
        timeout: links.timeout,
        durability: wanted(config).durability,
        patience: config.engine.redis.patience.as_duration(),
        rules,
        clock: Arc::new(crate::now),
        on_commit,
    })
}

/// What the configuration asks of Redis.
pub fn wanted(config: &Config) -> Wanted {
    let redis = &config.engine.redis;
    let url = redis.url.as_ref().and_then(|url| url.read().ok());
    Wanted {
        durability: match redis.durability {
            RedisDurability::None => Durability::None,
            RedisDurability::Wait(replicas) => Durability::Replicas(replicas),
            RedisDurability::Aof => Durability::Aof,
        },
        cluster: url.is_some_and(|url| url.is_cluster()),
    }
}

/// Looks first whether Redis is one that keeps what it is given, and writes nothing to one that is not.
async fn open_redis(config: &Config, options: RedisOptions) -> Result<RedisEngine, OpenFault> {
    let shown = options.url.to_string();
    let fault = |fault: LinkFault| OpenFault::Unfit(vec![checkup::unreachable(&shown, &fault)]);
    let looking = Links::open(redis_links(config, "postrider-start")?, "")
        .await
        .map_err(fault)?;
    let servers = checkup::look(&looking, &crate::now).await;
    looking.close().await;
    let refusals = checkup::refusals(&servers.map_err(fault)?, wanted(config));
    if !refusals.is_empty() {
        return Err(OpenFault::Unfit(refusals));
    }
    let opened = RedisEngine::open(options).await;
    opened.map_err(|fault| OpenFault::Redis(fault.to_string()))
}

/// Looks at Redis as a node does before it starts, and changes nothing there.
pub async fn check_redis(config: &Config) -> Result<Vec<Finding>, OpenFault> {
    let options = redis_links(config, "postrider-doctor")?;
    let shown = options.url.to_string();
    let links = match Links::open(options, "").await {
        Ok(links) => links,
        Err(fault) => return Ok(vec![checkup::unreachable(&shown, &fault)]),
    };
    let servers = checkup::look(&links, &crate::now).await;
    links.close().await;
    Ok(match servers {
        Ok(servers) => checkup::judge(&servers, wanted(config)),
        Err(fault) => vec![checkup::unreachable(&shown, &fault)],
    })
}
