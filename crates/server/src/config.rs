//! Configuration: what every key means, its default, and how layers of it become one.
//!
//! The structs are the one definition. Their doc comments are the meaning of each key, their types and attributes
//! its kind and range; the parser, the faults, the reference page and the schema for editors are all read off them.
//!
//! Invariant: a [`Config`] that came out of [`load`] is whole and consistent; whatever was wrong was
//! reported, each fault on one line with its file, key and the nearest known key. No secret is ever
//! written out: a [`Secret`] shows as `***`.

mod api_keys;
mod changed;
mod checks;
mod doc;
mod fault;
mod files;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod key;
mod layers;
mod nearest;
mod presets;
mod properties;
mod redis;
mod reference;
mod schema;
mod secret;
mod sections;
mod show;
mod sources;
mod tree;
mod value;

pub use changed::changed;
pub use doc::{commented_defaults, reference_page};
pub use fault::ConfigFault;
pub use layers::{Given, Loaded, load};
pub use presets::{PRESETS, Preset, PresetOption};
pub use redis::{RedisAddress, RedisConfig, RedisDurability, RedisTlsConfig};
pub use schema::schema;
pub use secret::Secret;
pub use sections::{
    AckConfig, Broadcasts, DeadLettersConfig, DedupeConfig, DeliveryConfig, DrainConfig, EngineConfig,
    EngineKind, HttpConfig, InboxConfig, LogConfig, LogLevel, NotifyConfig, OpsConfig, PresenceConfig,
    RetentionConfig, SessionConfig, TlsConfig, TopicsConfig,
};
pub use show::{entries, show};
pub use sources::{RedisPubsubConfig, RedisStreamsConfig, SettleOn, SourceConfig, Sources, StreamStart};

use crate::auth::AuthConfig;
use postrider_router::Limits;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The whole configuration of a node.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The public listener.
    pub http: HttpConfig,
    /// The operations listener: health, readiness, metrics.
    pub ops: OpsConfig,
    /// The directory in which the engine `embedded` keeps what it stores; made if it is not there. Relative to the
    /// working directory of the process.
    #[schemars(extend("x-type" = "path"))]
    pub data_dir: PathBuf,
    /// What stores notifications and wakes sessions.
    pub engine: EngineConfig,
    /// Who may publish, read and receive.
    pub auth: AuthConfig,
    /// Bounds on what is published, and on who connects.
    pub limits: Limits,
    /// How long what was stored is kept, and how much of it.
    pub retention: RetentionConfig,
    /// Notifications that are published twice.
    pub dedupe: DedupeConfig,
    /// How often an entry is sent until it is acknowledged.
    pub delivery: DeliveryConfig,
    /// What an inbox holds.
    pub inbox: InboxConfig,
    /// What nothing could deliver.
    pub dead_letters: DeadLettersConfig,
    /// How automatic acknowledgement works.
    pub ack: AckConfig,
    /// How a session is kept alive, and when it is given up.
    pub session: SessionConfig,
    /// Topics that a client may ask for when it connects.
    pub topics: TopicsConfig,
    /// Who counts as online.
    pub presence: PresenceConfig,
    /// Where notifications are taken from, beside those that are published over HTTP: names, each with a `type` and its
    /// keys.
    pub sources: Sources,
    /// A WebSocket of bare data, beside the ways of the interface.
    pub notify: NotifyConfig,
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
            retention: RetentionConfig::default(),
            dedupe: DedupeConfig::default(),
            delivery: DeliveryConfig::default(),
            inbox: InboxConfig::default(),
            dead_letters: DeadLettersConfig::default(),
            ack: AckConfig::default(),
            session: SessionConfig::default(),
            topics: TopicsConfig::default(),
            presence: PresenceConfig::default(),
            sources: Sources::new(),
            notify: NotifyConfig::default(),
            drain: DrainConfig::default(),
            log: LogConfig::default(),
        }
    }
}
