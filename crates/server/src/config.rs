//! Configuration: what every key means, its default, and how layers of it become one.
//!
//! Invariant: a [`Config`] that came out of [`load`] is whole and consistent; whatever was wrong was
//! reported, each fault on one line with its file, key and the nearest known key. No secret is ever
//! written out: a [`Secret`] shows as `***`.

mod checks;
mod keys;
mod layers;
mod secret;
mod show;

pub use layers::{ConfigFault, Given, Loaded, load};
pub use secret::Secret;
pub use show::show;

use crate::auth::AuthConfig;
use postrider_model::{ByteSize, Millis};
use postrider_router::Limits;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

/// The whole configuration of a node.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The public listener.
    pub http: HttpConfig,
    /// The operations listener.
    pub ops: OpsConfig,
    /// Where the engine keeps what it stores; made if it is not there.
    pub data_dir: PathBuf,
    /// Which engine.
    pub engine: EngineConfig,
    /// Who may publish, read and receive.
    pub auth: AuthConfig,
    /// Bounds on what is published.
    pub limits: Limits,
    /// How automatic acknowledgement works.
    pub ack: AckConfig,
    /// Rules for sessions.
    pub session: SessionConfig,
    /// Session topics.
    pub topics: TopicsConfig,
    /// How a node stops.
    pub drain: DrainConfig,
    /// Logging.
    pub log: LogConfig,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            http: HttpConfig::default(),
            ops: OpsConfig::default(),
            data_dir: PathBuf::from("./postrider-data"),
            engine: EngineConfig::default(),
            auth: AuthConfig::default(),
            limits: Limits::default(),
            ack: AckConfig::default(),
            session: SessionConfig::default(),
            topics: TopicsConfig::default(),
            drain: DrainConfig::default(),
            log: LogConfig::default(),
        }
    }
}

/// `http.*`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Address and port of the public listener; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Most bytes of one request's body, and of one line of NDJSON.
    pub max_body: ByteSize,
    /// Origins whose pages may use the API, such as `https://app.example.com`; `*` is any, without cookies.
    pub allowed_origins: Vec<String>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        HttpConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            max_body: ByteSize::mib(16),
            allowed_origins: Vec::new(),
        }
    }
}

/// `ops.*`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OpsConfig {
    /// Address and port of the operations listener; keep it off the public network.
    pub listen: SocketAddr,
}

impl Default for OpsConfig {
    fn default() -> Self {
        OpsConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 9090)),
        }
    }
}

/// `engine.*`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineConfig {
    /// Which engine stores feeds and wakes nodes.
    #[serde(rename = "type")]
    pub kind: EngineKind,
}

/// The engines of this release.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// In the data directory of this node.
    #[default]
    Embedded,
    /// In memory only: all is lost when the node stops. For tests.
    Memory,
}

impl<'de> Deserialize<'de> for EngineKind {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        match text.as_str() {
            "embedded" => Ok(EngineKind::Embedded),
            "memory" => Ok(EngineKind::Memory),
            "redis" | "nats" => Err(serde::de::Error::custom(format!(
                "the engine `{text}` is not in this release; there are `embedded` and `memory`"
            ))),
            _ => Err(serde::de::Error::custom(format!(
                "there is no engine `{text}`; there are `embedded` and `memory`"
            ))),
        }
    }
}

/// `ack.*`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AckConfig {
    /// At most one WebSocket ping per session in this time.
    pub probe: Millis,
    /// Automatic settlement reaches the disk at most this late.
    pub flush: Millis,
}

impl Default for AckConfig {
    fn default() -> Self {
        AckConfig {
            probe: Millis::from_secs(1),
            flush: Millis::from_secs(1),
        }
    }
}

/// `session.*`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionConfig {
    /// Whether bytes that the peer's TCP acknowledged count as delivered on SSE. Off behind a buffering proxy.
    pub tcp_evidence: bool,
}

impl Default for SessionConfig {
    fn default() -> Self {
        SessionConfig { tcp_evidence: true }
    }
}

/// `topics.*`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TopicsConfig {
    /// Patterns of topics that any user may have as session topics; `*` matches any run.
    pub open: Vec<String>,
}

/// `drain.*`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DrainConfig {
    /// A drain takes at most this long.
    pub timeout: Millis,
    /// Over how long clients are told to spread their return.
    pub spread: Millis,
}

impl Default for DrainConfig {
    fn default() -> Self {
        DrainConfig {
            timeout: Millis::from_secs(20),
            spread: Millis::from_secs(10),
        }
    }
}

/// `log.*`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// The least level that is logged.
    pub level: LogLevel,
}

/// Log levels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the usual five")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}
