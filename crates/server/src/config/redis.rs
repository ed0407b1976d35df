//! `engine.redis.*`: where Redis is, and what a 202 means there.
//!
//! Invariant: the password of the address is never written out; the rest of it may be.

use super::secret::{HIDDEN, Secret};
use postrider_engine::redis_url::{RedisUrl, UrlFault};
use postrider_model::Millis;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::path::PathBuf;

/// `engine.redis.*`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RedisConfig {
    /// Where Redis 7 or newer is, for `engine.type: redis`. One server: `redis://user:password@host:6379`. Sentinels:
    /// `redis+sentinel://host:26379,host:26379/service`. A Cluster: `redis+cluster://host:6379,host:6379`. With TLS
    /// `rediss`, `rediss+sentinel`, `rediss+cluster`. Its password is shown nowhere.
    pub url: Option<RedisAddress>,
    /// What a 202 means: `none`, that the master has it; `wait:N`, that N replicas have it too (`WAIT`); `aof`, that
    /// it is on the master's disk (Redis must run with `appendfsync always`).
    pub durability: RedisDurability,
    /// Redis is given so long for one answer, connecting anew included.
    #[schemars(extend("x-minimum" = "50ms", "x-maximum" = "1m"))]
    pub timeout: Millis,
    /// Where it is unknown whether a write was done, because the answer was lost, it is asked again for so long. Then
    /// the publisher is told that it failed.
    #[schemars(extend("x-minimum" = "100ms", "x-maximum" = "10m"))]
    pub patience: Millis,
    /// TLS to Redis, where the URL begins with `rediss`.
    pub tls: RedisTlsConfig,
}

/// `engine.redis.tls.*`
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RedisTlsConfig {
    /// The file of the certificates, as PEM, that Redis' own is checked against. Unset: those that the system trusts.
    #[schemars(extend("x-type" = "path"))]
    pub ca: Option<PathBuf>,
    /// The file of our own certificate chain, as PEM, where Redis asks for one; set together with
    /// `engine.redis.tls.key`.
    #[schemars(extend("x-type" = "path"))]
    pub cert: Option<PathBuf>,
    /// The file of its private key, as PEM.
    #[schemars(extend("x-type" = "path"))]
    pub key: Option<PathBuf>,
}

impl Default for RedisConfig {
    fn default() -> Self {
        RedisConfig {
            url: None,
            durability: RedisDurability::default(),
            timeout: Millis::from_secs(5),
            patience: Millis::from_secs(10),
            tls: RedisTlsConfig::default(),
        }
    }
}

/// A URL that shows without its password.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct RedisAddress(Secret);

impl RedisAddress {
    /// Takes the URL.
    pub fn new(url: impl Into<String>) -> RedisAddress {
        RedisAddress(Secret::new(url))
    }

    /// The whole URL, for whoever connects.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    /// The URL, taken apart.
    ///
    /// # Errors
    /// Why it is none, in words that do not repeat it.
    pub fn read(&self) -> Result<RedisUrl, UrlFault> {
        self.expose().parse()
    }

    /// It without its password; nothing of what is no URL.
    pub fn shown(&self) -> String {
        self.read().map_or_else(|_| HIDDEN.into(), |url| url.to_string())
    }
}

impl JsonSchema for RedisAddress {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RedisAddress".into()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Secret::json_schema(generator)
    }
}

impl fmt::Debug for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

impl Serialize for RedisAddress {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.shown())
    }
}

/// What must have a write before it is answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RedisDurability {
    /// The master.
    #[default]
    None,
    /// So many replicas too.
    Wait(u32),
    /// The master's disk.
    Aof,
}

/// Replicas that `wait:N` may name.
const MAX_REPLICAS: u32 = 16;

impl RedisDurability {
    /// Reads `none`, `wait:N` or `aof`.
    pub fn parse(text: &str) -> Result<RedisDurability, String> {
        let bad = || {
            format!("must be `none`, `wait:N` with 1 to {MAX_REPLICAS} replicas, such as `wait:1`, or `aof`")
        };
        match text {
            "none" => Ok(RedisDurability::None),
            "aof" => Ok(RedisDurability::Aof),
            _ => {
                let replicas = text.strip_prefix("wait:").map(str::trim).ok_or_else(bad)?;
                let replicas = replicas.parse().map_err(|_| bad())?;
                match replicas {
                    1..=MAX_REPLICAS => Ok(RedisDurability::Wait(replicas)),
                    _ => Err(bad()),
                }
            }
        }
    }
}

impl fmt::Display for RedisDurability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RedisDurability::None => f.write_str("none"),
            RedisDurability::Wait(replicas) => write!(f, "wait:{replicas}"),
            RedisDurability::Aof => f.write_str("aof"),
        }
    }
}

impl Serialize for RedisDurability {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RedisDurability {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        RedisDurability::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for RedisDurability {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RedisDurability".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": "^(none|aof|wait: *([1-9]|1[0-6]))$",
            "x-type": "redis-durability",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_shows_without_its_password() {
        for (url, shown) in [
            ("redis://host", "redis://host:6379"),
            ("redis://:pw@host/2", "redis://default:***@host:6379/2"),
            (
                "rediss+cluster://me:pw@a:1,b:2",
                "rediss+cluster://me:***@a:1,b:2",
            ),
            ("redis://:p@w@host", "***"),
            ("redis://host?password=pw", "***"),
            ("pw", "***"),
        ] {
            let address = RedisAddress::new(url);
            assert_eq!(address.shown(), shown);
            assert_eq!(format!("{address:?}"), shown);
            assert_eq!(serde_json::to_value(&address).unwrap(), shown);
        }
    }

    #[test]
    fn what_a_202_means() {
        for (text, meaning) in [
            ("none", Some(RedisDurability::None)),
            ("aof", Some(RedisDurability::Aof)),
            ("wait:1", Some(RedisDurability::Wait(1))),
            ("wait: 16", Some(RedisDurability::Wait(16))),
            ("wait:0", None),
            ("wait:17", None),
            ("wait", None),
            ("wait:-1", None),
            ("AOF", None),
            ("", None),
        ] {
            assert_eq!(RedisDurability::parse(text).ok(), meaning, "{text}");
        }
        assert_eq!(RedisDurability::Wait(2).to_string(), "wait:2");
    }
}
