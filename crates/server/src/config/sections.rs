//! The sections of the configuration: each field one key, with its meaning, its default and its range.
//!
//! `x-type`, `x-minimum` and `x-maximum` say what JSON Schema has no word for: that a text is an address or a path,
//! and the range of a duration or size. Whole numbers have `range`.

use super::redis::RedisConfig;
use postrider_model::{ByteSize, Millis};
use postrider_transports::Bounds;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

const DAY_SECONDS: u64 = 24 * 3600;

/// `http.*`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Address and port of the public listener; port 0 picks a free one.
    #[schemars(extend("x-type" = "address"))]
    pub listen: SocketAddr,
    /// Most bytes of one request's body, and of one line of NDJSON.
    #[schemars(extend("x-minimum" = "1KiB", "x-maximum" = "1GiB"))]
    pub max_body: ByteSize,
    /// Most bytes of all bodies under way together, beside the first 64 KiB of each. Above it a longer one is answered
    /// 503, and a longer line of NDJSON is refused `unavailable`. At least `http.max_body` is taken.
    #[schemars(extend("x-minimum" = "1KiB", "x-maximum" = "8000TiB"))]
    pub bodies: ByteSize,
    /// Origins whose pages may use the API, such as `https://app.example.com`; `*` is any, without cookies.
    pub allowed_origins: Vec<String>,
    /// Most connections of the API (everything but sessions) at a time. One more takes the place of the one that has
    /// rested longest between two requests; where none rests it is answered 503.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub api_connections: usize,
    /// Most connections that speak HTTP/2, sessions on them included. One more takes the place of the one that has
    /// rested longest; where none rests it is closed. 0: HTTP/2 is not offered, so that browsers hold their event
    /// streams in the cheap way, over HTTP/1.1.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub http2_connections: usize,
    /// Most open sockets, sessions included; one more waits in the system's queue. 0: as many as the limit of open
    /// files leaves.
    #[schemars(range(min = 0, max = 100_000_000))]
    pub max_connections: u64,
    /// A request's head must be complete this soon.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "5m"))]
    pub head_timeout: Millis,
    /// A connection without a session is closed after so long without a request.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "1h"))]
    pub idle_timeout: Millis,
    /// A directory whose files are served where the API has nothing at a path. Unset: none.
    #[schemars(extend("x-type" = "path"))]
    #[serde(rename = "static")]
    pub static_files: Option<PathBuf>,
    /// TLS on the public listener.
    pub tls: TlsConfig,
}

impl Default for HttpConfig {
    fn default() -> Self {
        let bounds = Bounds::default();
        HttpConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            max_body: ByteSize::mib(16),
            bodies: ByteSize::mib(256),
            allowed_origins: Vec::new(),
            api_connections: 4096,
            http2_connections: 8192,
            max_connections: 0,
            head_timeout: bounds.head_timeout,
            idle_timeout: bounds.idle_timeout,
            static_files: None,
            tls: TlsConfig::default(),
        }
    }
}

/// `http.tls.*`
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// The file of the certificate chain, as PEM; set together with `http.tls.key`. Unset: no TLS.
    #[schemars(extend("x-type" = "path"))]
    pub cert: Option<PathBuf>,
    /// The file of the certificate's private key, as PEM.
    #[schemars(extend("x-type" = "path"))]
    pub key: Option<PathBuf>,
}

/// `ops.*`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OpsConfig {
    /// Address and port of the operations listener; keep it off the public network.
    #[schemars(extend("x-type" = "address"))]
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
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EngineConfig {
    /// Which engine stores feeds and wakes sessions.
    #[schemars(extend("x-later" = ["nats"]))]
    #[serde(rename = "type")]
    pub kind: EngineKind,
    /// The engine `redis`, which any number of nodes share.
    pub redis: RedisConfig,
}

/// The engines of this release.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// In the data directory of this node.
    #[default]
    Embedded,
    /// In memory only: all is lost when the node stops. For tests.
    Memory,
    /// In Redis (`engine.redis.url`), for any number of nodes together. `data_dir` is not used.
    Redis,
}

/// `retention.*`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionConfig {
    /// How long a notification is kept; also the `ttl` of one that names none.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "3650d"))]
    pub age: Millis,
    /// Most entries of one feed; 0: any number.
    #[schemars(range(min = 0, max = 1_000_000_000_000_u64))]
    pub entries_per_feed: u64,
    /// Most bytes of one feed; 0: any number.
    #[schemars(extend("x-minimum" = "0B", "x-maximum" = "8000TiB"))]
    pub bytes_per_feed: ByteSize,
    /// Most bytes of all feeds together; 0: any number.
    #[schemars(extend("x-minimum" = "0B", "x-maximum" = "8000TiB"))]
    pub total_bytes: ByteSize,
    /// How long it is kept what became of a notification.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "3650d"))]
    pub audit: Millis,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        RetentionConfig {
            age: Millis::from_secs(30 * DAY_SECONDS),
            entries_per_feed: 100_000,
            bytes_per_feed: ByteSize(0),
            total_bytes: ByteSize::gib(10),
            audit: Millis::from_secs(90 * DAY_SECONDS),
        }
    }
}

/// `dedupe.*`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DedupeConfig {
    /// For how long an `Idempotency-Key` has its effect once. An id is remembered at least as long, and as long
    /// as its record is kept (`retention.audit`).
    #[schemars(extend("x-minimum" = "0s", "x-maximum" = "3650d"))]
    pub window: Millis,
}

impl Default for DedupeConfig {
    fn default() -> Self {
        DedupeConfig {
            window: Millis::from_secs(DAY_SECONDS),
        }
    }
}

/// `delivery.*`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DeliveryConfig {
    /// An entry that a session with `ack=explicit` has not acknowledged in this time is sent again.
    #[schemars(extend("x-minimum" = "100ms", "x-maximum" = "24h"))]
    pub ack_timeout: Millis,
    /// So often at most an entry is sent to one session.
    #[schemars(range(min = 1, max = 1_000))]
    pub max_attempts: u32,
    /// So often at most an entry is sent to a user's sessions together; then it is dead.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_total_attempts: u32,
}

impl Default for DeliveryConfig {
    fn default() -> Self {
        DeliveryConfig {
            ack_timeout: Millis::from_secs(30),
            max_attempts: 5,
            max_total_attempts: 20,
        }
    }
}

/// `inbox.*`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct InboxConfig {
    /// Which broadcasts a user gets who was never seen before.
    pub broadcasts: Broadcasts,
    /// Most feeds of one inbox: the user's own, everyone's, and topics.
    #[schemars(range(min = 2, max = 128))]
    pub max_feeds: usize,
}

impl Default for InboxConfig {
    fn default() -> Self {
        InboxConfig {
            broadcasts: Broadcasts::default(),
            max_feeds: Bounds::default().max_feeds,
        }
    }
}

/// Where a user who was never seen before begins in everyone's feed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Broadcasts {
    /// All that are retained.
    #[default]
    Retained,
    /// Those that are published after the user's first session began.
    FromFirstSession,
}

/// `dead_letters.*`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DeadLettersConfig {
    /// Most dead letters; where there are so many, publishing is refused.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub max: u64,
}

impl Default for DeadLettersConfig {
    fn default() -> Self {
        DeadLettersConfig { max: 1_000_000 }
    }
}

/// `ack.*`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AckConfig {
    /// At most one WebSocket ping per session in this time asks whether what was sent has arrived.
    #[schemars(extend("x-minimum" = "10ms", "x-maximum" = "1h"))]
    pub probe: Millis,
    /// Automatic settlement reaches the disk at most this late.
    #[schemars(extend("x-minimum" = "10ms", "x-maximum" = "1m"))]
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
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SessionConfig {
    /// Whether bytes that the peer's TCP acknowledged count as delivered on SSE. Off behind a buffering proxy.
    pub tcp_evidence: bool,
    /// After so much silence a session is sent a comment or a ping, so that nothing on the way closes it.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "10m"))]
    pub keep_alive: Millis,
    /// A WebSocket client that says nothing for so long, not even a pong, is gone; so is, `session.keep_alive` later, a
    /// client on a stream whose system does not acknowledge what it is sent. More than `session.keep_alive`.
    #[schemars(extend("x-minimum" = "2s", "x-maximum" = "1h"))]
    pub silence: Millis,
    /// Bytes that may wait for one session's socket. Above it nothing more is kept for the session; once the socket
    /// has taken half, it is read forward from the engine.
    #[schemars(extend("x-minimum" = "4KiB", "x-maximum" = "64MiB"))]
    pub outbox: ByteSize,
    /// A client that takes nothing of what waits for it for so long is gone.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "24h"))]
    pub stall_timeout: Millis,
    /// Loops that serve the sessions, each with its own sockets. 0: one per core.
    #[schemars(range(min = 0, max = 1024))]
    pub shards: usize,
}

impl Default for SessionConfig {
    fn default() -> Self {
        let bounds = Bounds::default();
        SessionConfig {
            tcp_evidence: true,
            keep_alive: Millis::from_secs(15),
            silence: Millis::from_secs(45),
            outbox: ByteSize(bounds.outbox as u64),
            stall_timeout: bounds.stall_timeout,
            shards: 0,
        }
    }
}

/// `topics.*`
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TopicsConfig {
    /// Patterns of topics that any user may have as session topics; `*` matches any run.
    pub open: Vec<String>,
}

/// `presence.*`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PresenceConfig {
    /// A user counts as online for so long after the last session ended, so that one who only reconnects, or polls
    /// again, does not leave and join.
    #[schemars(extend("x-minimum" = "0s", "x-maximum" = "5m"))]
    pub linger: Millis,
}

impl Default for PresenceConfig {
    fn default() -> Self {
        PresenceConfig {
            linger: Millis::from_secs(10),
        }
    }
}

/// `notify.*`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NotifyConfig {
    /// The path of a WebSocket that greets its user, and then carries the bare data of notifications; see the preset
    /// `redis-notify`. Unset: there is none.
    pub path: Option<String>,
    /// Origins whose pages may open it, such as `https://app.example.com`; `*` is any, but for who shows a cookie.
    /// Pages of its own host, and clients that are no browsers, may always.
    pub origins: Vec<String>,
    /// Whether such a session ends with its token. Its clients cannot send a new one, and have to connect again.
    pub ends_with_token: bool,
}

impl Default for NotifyConfig {
    fn default() -> Self {
        NotifyConfig {
            path: None,
            origins: Vec::new(),
            ends_with_token: true,
        }
    }
}

/// `raw.*`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawConfig {
    /// The path of a stream of bare bodies; see the preset `sqs-long-poll`. Unset: there is none.
    pub path: Option<String>,
    /// Such a stream ends after so long, and its client asks again.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "7d"))]
    pub max_time: Millis,
    /// Whether it ends with its token too.
    pub ends_with_token: bool,
    /// A path of the public listener that answers 200 while the node serves. Unset: there is none.
    pub health: Option<String>,
}

impl Default for RawConfig {
    fn default() -> Self {
        RawConfig {
            path: None,
            max_time: Millis::from_secs(600),
            ends_with_token: true,
            health: None,
        }
    }
}

/// `drain.*`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DrainConfig {
    /// A drain takes at most this long; what is left then is cut off.
    #[schemars(extend("x-minimum" = "0s", "x-maximum" = "1h"))]
    pub timeout: Millis,
    /// Over how long clients are told to spread their return.
    #[schemars(extend("x-minimum" = "0s", "x-maximum" = "1h"))]
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
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// The least level that is logged.
    pub level: LogLevel,
    /// How often a line says what the process takes: processor time, memory, threads, open files, sessions. 0s: never.
    #[schemars(extend("x-minimum" = "0s", "x-maximum" = "24h"))]
    pub process: Millis,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig {
            level: LogLevel::default(),
            process: Millis(0),
        }
    }
}

/// Log levels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
