//! Configuration: what every key means, its default, and how layers of it become one.
//!
//! The structs are the one definition. Their doc comments are the meaning of each key, their types and attributes
//! its kind and range; the parser, the faults, the reference page and the schema for editors are all read off them.
//!
//! Invariant: a [`Config`] that came out of [`load`] is whole and consistent; whatever was wrong was
//! reported, each fault on one line with its file, key and the nearest known key. No secret is ever
//! written out: a [`Secret`] shows as `***`.

mod api_keys;
mod built;
mod changed;
mod channels;
mod checks;
mod doc;
mod fault;
mod files;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod key;
mod layers;
mod named;
mod nearest;
mod presets;
mod properties;
mod redis;
mod reference;
mod registry;
mod schema;
mod secret;
mod sections;
mod show;
mod sns;
mod sources;
mod sqs;
mod tree;
mod value;

pub(crate) use built::Part;
pub use changed::changed;
pub use channels::{ApiGatewayConfig, ChannelConfig, Channels};
pub use doc::{commented_defaults, reference_page};
pub use fault::ConfigFault;
pub use layers::{Given, Loaded, load};
pub use presets::{PRESETS, Preset, PresetOption};
pub use redis::{RedisAddress, RedisConfig, RedisDurability, RedisTlsConfig};
pub use registry::{RegistryConfig, RegistryKind};
pub use schema::schema;
pub use secret::Secret;
pub use sections::{
    AckConfig, Broadcasts, DeadLettersConfig, DedupeConfig, DeliveryConfig, DrainConfig, EngineConfig,
    EngineKind, HttpConfig, InboxConfig, LogConfig, LogLevel, NotifyConfig, OpsConfig, PresenceConfig,
    RawConfig, RetentionConfig, SessionConfig, TlsConfig, TopicsConfig,
};
pub use show::{entries, show};
pub use sns::SnsConfig;
pub use sources::{
    INBOX, Offline, RedisPubsubConfig, RedisStreamsConfig, SettleOn, SourceConfig, Sources, StreamStart,
};
pub use sqs::{INSTANCE, SqsConfig, SqsUsersConfig};

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
    /// What this node is called by those who send to it, such as in the names of queues. Unset: a UUID, another at each
    /// start. 1 to 128 visible ASCII characters.
    pub instance: Option<String>,
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
    /// Ways out that are no sessions: names, each with a `type` and its keys.
    pub channels: Channels,
    /// Where those who send read which node a user is connected to.
    pub registry: RegistryConfig,
    /// A WebSocket of bare data, beside the ways of the interface.
    pub notify: NotifyConfig,
    /// A stream of bare bodies, beside the ways of the interface.
    pub raw: RawConfig,
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
            instance: None,
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
            channels: Channels::new(),
            registry: RegistryConfig::default(),
            notify: NotifyConfig::default(),
            raw: RawConfig::default(),
            drain: DrainConfig::default(),
            log: LogConfig::default(),
        }
    }
}
