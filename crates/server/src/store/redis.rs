//! The engine over Redis in the hands of a node: how it is reached, whether it is fit, and what its nodes tell each other.

use super::{OpenFault, Opening, Sharing, Store};
use crate::assembly::StartError;
use crate::auth::TicketKey;
use crate::config::{Config, RedisDurability};
use crate::metrics::{RedisLevels, StoreLevels};
use crate::nodes::{self, Door, ToEngine};
use postrider_engine::redis::checkup::{self, Finding, Wanted};
use postrider_engine::redis::links::{
    Durability, LinkFault, LinkOptions, Links, RedisUrl, TlsIdentity, TlsOptions,
};
use postrider_engine::redis::presence::RedisPresence;
use postrider_engine::redis::{RedisEngine, RedisOptions, Trouble};
use postrider_engine::{Engine, Presence};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::runtime::Handle;

/// A node that has lost Redis for longer is not ready: what a failover in order takes is less.
const AWAY: Duration = Duration::from_secs(1);

/// The engine, and who is there on all nodes once that is shared.
struct Shared {
    engine: Arc<RedisEngine>,
    presence: OnceLock<Arc<RedisPresence>>,
    runtime: Handle,
}

/// Opens it, if Redis is one that keeps what it is given.
pub(super) fn open(opening: Opening<'_>) -> Result<Arc<dyn Store>, OpenFault> {
    let (config, runtime) = (opening.config, opening.runtime.clone());
    let engine = runtime.block_on(open_checked(config, options(opening)?))?;
    Ok(Arc::new(Shared {
        engine: Arc::new(engine),
        presence: OnceLock::new(),
        runtime,
    }))
}

impl Store for Shared {
    fn engine(&self) -> Arc<dyn Engine> {
        self.engine.clone()
    }

    fn ticket_key(&self) -> Result<TicketKey, StartError> {
        let Some(links) = self.engine.links() else {
            return TicketKey::in_memory().map_err(StartError::TicketKey);
        };
        let key = self.runtime.block_on(nodes::ticket_key(links));
        key.map_err(|error| StartError::Nodes(format!("the key of tickets cannot be had: {error}")))
    }

    fn share(&self, with: Sharing<'_>) -> Result<Option<Arc<dyn Presence>>, StartError> {
        let Some(links) = self.engine.links() else {
            return Ok(None);
        };
        let linger = with.config.presence.linger;
        let opening = nodes::open_presence(&self.engine, links, linger, with.hub.clone());
        let presence = Arc::new(self.runtime.block_on(opening).map_err(StartError::Nodes)?);
        let presence = self.presence.get_or_init(|| presence);
        with.hub.admit_with(Arc::new(Door {
            links: links.clone(),
            presence: presence.clone(),
            auth: with.auth.clone(),
            sessions_per_user: with.config.limits.sessions_per_user,
        }));
        with.hub.follow_with(Arc::new(ToEngine(self.engine())));
        Ok(Some(presence.clone()))
    }

    fn failure(&self) -> Option<&'static str> {
        let down_for = self.engine.links().and_then(|links| links.state().down_for);
        if down_for.is_some_and(|down| down > AWAY) {
            return Some("Redis cannot be reached; nothing is stored or received until it is back");
        }
        if let Some(trouble) = self.engine.trouble() {
            return Some(said_of(&trouble));
        }
        let why = "Redis does not take what is to be stored; publishing is refused, and the log says why";
        self.engine.is_failing().then_some(why)
    }

    fn levels(&self) -> StoreLevels {
        StoreLevels {
            failing: self.failure().is_some(),
            dead_letters: self.engine.dead_letter_count(),
            held_bytes: self.engine.held_bytes(),
            store_bytes: 0,
        }
    }

    fn redis_levels(&self) -> Option<RedisLevels> {
        let links = self.engine.links()?;
        let (state, counters) = (links.state(), self.engine.counters());
        let nodes = self.presence.get().map_or(1, |presence| presence.nodes());
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

    fn close(&self) {
        if let Some(presence) = self.presence.get() {
            self.runtime.block_on(presence.close());
        }
        self.runtime.block_on(self.engine.close());
    }
}

/// Why the node is not ready, in a sentence; what exactly is so says the log, and the answer to whoever publishes.
fn said_of(trouble: &Trouble) -> &'static str {
    match trouble {
        Trouble::Unsafe(_) => {
            "Redis would lose or forget what it is given, by its settings (the log says which); publishing is refused until they are mended"
        }
        Trouble::Full(_) => "Redis is full (maxmemory); publishing is refused until there is room",
        _ => "Redis refuses to write (the log says why); publishing is refused until it does",
    }
}

/// What is wrong and how to mend it, one after the other.
fn told(findings: &[Finding]) -> String {
    let told = findings.iter().map(|finding| {
        let mend = finding.mend.as_deref().unwrap_or_default();
        format!("{}: {}; to mend it: {mend}", finding.check, finding.detail)
    });
    told.collect::<Vec<_>>().join("\n")
}

/// How the configuration says that Redis is to be reached.
///
/// # Errors
/// Where a file that it names cannot be read.
fn links_as(config: &Config, name: &str) -> Result<LinkOptions, OpenFault> {
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

fn options(opening: Opening<'_>) -> Result<RedisOptions, OpenFault> {
    let links = links_as(opening.config, "node")?;
    Ok(RedisOptions {
        url: links.url,
        tls: links.tls,
        timeout: links.timeout,
        durability: wanted(opening.config).durability,
        patience: opening.config.engine.redis.patience.as_duration(),
        rules: opening.rules,
        clock: Arc::new(crate::now),
        on_commit: opening.on_commit,
    })
}

/// What the configuration asks of Redis.
fn wanted(config: &Config) -> Wanted {
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
async fn open_checked(config: &Config, options: RedisOptions) -> Result<RedisEngine, OpenFault> {
    let shown = options.url.to_string();
    let fault = |fault: LinkFault| OpenFault::Unfit(told(&[checkup::unreachable(&shown, &fault)]));
    let looking = Links::open(links_as(config, "postrider-start")?, "")
        .await
        .map_err(fault)?;
    let servers = checkup::look(&looking, &crate::now).await;
    looking.close().await;
    let refusals = checkup::refusals(&servers.map_err(fault)?, wanted(config));
    if !refusals.is_empty() {
        return Err(OpenFault::Unfit(told(&refusals)));
    }
    let opened = RedisEngine::open(options).await;
    opened.map_err(|fault| OpenFault::Redis(fault.to_string()))
}

/// Looks at Redis as a node does before it starts, and changes nothing there.
pub async fn check_redis(config: &Config) -> Result<Vec<Finding>, OpenFault> {
    let options = links_as(config, "postrider-doctor")?;
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
