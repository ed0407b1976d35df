//! `registry.*`: where those who send read which node a user is connected to.

use super::checks::Broken;
use super::redis::RedisAddress;
use super::secret::{HIDDEN, Secret};
use super::sqs::address_fault;
use super::value::quoted;
use super::{EngineKind, Part};
use postrider_model::Millis;
use postrider_registry::{DynamoTableName, RedisKeyName, Table, check_dynamo_attribute};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// `registry.*`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryConfig {
    /// Whether users and the `instance` that they are connected to are written to a table, and where it is.
    #[serde(rename = "type")]
    pub kind: RegistryKind,
    /// With `postgres`: the host of the database.
    pub host: String,
    /// With `postgres`: its TCP port.
    #[schemars(range(min = 1, max = 65_535))]
    pub port: u16,
    /// With `postgres`: the user of the database.
    pub user: String,
    /// With `postgres`: its password.
    pub password: Option<Secret>,
    /// With `postgres`: the name of the database.
    pub database: String,
    /// With `postgres`: whether it is reached by TLS; its certificate is checked then, its name included.
    pub tls: bool,
    /// With `registry.tls`, the file of the certificates, as PEM, that the database's is checked against. Unset: those that the system trusts.
    #[schemars(extend("x-type" = "path"))]
    pub ca: Option<PathBuf>,
    /// With `redis`: where it is, written as `engine.redis.url`. Needed there.
    pub url: Option<RedisAddress>,
    /// With `dynamodb`: the region. Unset: as the AWS SDK finds it.
    pub region: Option<String>,
    /// With `dynamodb`: where it is, such as `http://127.0.0.1:8000`. Unset: as the AWS SDK finds it.
    pub endpoint: Option<String>,
    /// With `dynamodb`: the table's key, a string: the user.
    pub user_key: String,
    /// With `dynamodb`: the attribute that names the instance, and the key of the leases.
    pub instance_key: String,
    /// The table; in PostgreSQL with its schema or without, and with the columns `user_id` and `notifier_instance_id`. In
    /// Redis the key of the hash. Leases are beside it: in a table of this name and `_alive`, in Redis in keys of their own.
    pub table: String,
    /// With `postgres` or `dynamodb`: whether the tables, and in PostgreSQL the index, are made where they are missing.
    pub create: bool,
    /// The rows of a node that has not been heard of for so long name nobody. Needs the table of leases.
    #[schemars(extend("x-minimum" = "3s", "x-maximum" = "10m"))]
    pub lease: Millis,
}

/// What keeps the table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RegistryKind {
    /// Nobody: nothing is written.
    #[default]
    None,
    /// PostgreSQL 12 or newer.
    Postgres,
    /// Redis 7 or newer: one hash, which producers read by `HGET`.
    Redis,
    /// Amazon DynamoDB.
    Dynamodb,
    /// Nobody: this node itself tells who asks over HTTP. For an engine that is one node's (`embedded`, `memory`).
    Engine,
}

impl RegistryKind {
    /// As it is written.
    fn word(self) -> &'static str {
        match self {
            RegistryKind::None => "none",
            RegistryKind::Postgres => "postgres",
            RegistryKind::Redis => "redis",
            RegistryKind::Dynamodb => "dynamodb",
            RegistryKind::Engine => "engine",
        }
    }

    /// What a binary must have for it.
    pub(crate) fn part(self) -> Option<Part> {
        match self {
            RegistryKind::None | RegistryKind::Engine => None,
            RegistryKind::Postgres => Some(Part::Postgres),
            RegistryKind::Redis => Some(Part::Redis),
            RegistryKind::Dynamodb => Some(Part::Aws),
        }
    }
}

impl Default for RegistryConfig {
    fn default() -> Self {
        RegistryConfig {
            kind: RegistryKind::None,
            host: "localhost".into(),
            port: 5432,
            user: "postgres".into(),
            password: None,
            database: "postgres".into(),
            tls: false,
            ca: None,
            url: None,
            region: None,
            endpoint: None,
            user_key: "user_id".into(),
            instance_key: "notifier_instance_id".into(),
            table: "notifier_instances".into(),
            create: false,
            lease: Millis::from_secs(15),
        }
    }
}

/// Keys that belong to some types alone.
const OF_TYPES: &[(&[&str], &[RegistryKind])] = &[
    (
        &[
            "registry.host",
            "registry.port",
            "registry.user",
            "registry.password",
            "registry.database",
            "registry.tls",
            "registry.ca",
        ],
        &[RegistryKind::Postgres],
    ),
    (&["registry.url"], &[RegistryKind::Redis]),
    (
        &[
            "registry.region",
            "registry.endpoint",
            "registry.user_key",
            "registry.instance_key",
        ],
        &[RegistryKind::Dynamodb],
    ),
    (
        &["registry.create"],
        &[RegistryKind::Postgres, RegistryKind::Dynamodb],
    ),
    (
        &["registry.table", "registry.lease"],
        &[
            RegistryKind::Postgres,
            RegistryKind::Redis,
            RegistryKind::Dynamodb,
        ],
    ),
];

impl RegistryConfig {
    /// Keys that mean nothing with this type, and what to say of one that somebody set.
    pub(super) fn strangers(&self) -> impl Iterator<Item = (&'static str, String)> {
        let kind = self.kind;
        // Without a registry there is nothing that could be mistaken.
        let groups = OF_TYPES
            .iter()
            .filter(move |(_, kinds)| kind != RegistryKind::None && !kinds.contains(&kind));
        groups.flat_map(move |(keys, kinds)| {
            let words: Vec<String> = kinds.iter().map(|kind| format!("`{}`", kind.word())).collect();
            let what = format!(
                "belongs to the type {}, and registry.type is `{}`",
                words.join(" or "),
                kind.word()
            );
            keys.iter().map(move |key| (*key, what.clone()))
        })
    }

    /// Every rule that is broken.
    pub(super) fn faults(&self, engine: EngineKind) -> Vec<Broken> {
        let mut broken = Vec::new();
        let mut fault = |key: &'static [&'static str], what: String| broken.push(Broken { keys: key, what });
        if let Some(lack) = self.kind.part().and_then(Part::lack) {
            fault(&["registry.type"], format!("`{}` {lack}", self.kind.word()));
        }
        if self.kind == RegistryKind::Engine && engine == EngineKind::Redis {
            fault(
                &["registry.type"],
                "`engine` is for one node, and engine.type is `redis`: take `redis`, with the same Redis as registry.url"
                    .into(),
            );
        }
        if let Some(what) = self.table_fault() {
            fault(&["registry.table"], what);
        }
        match &self.url {
            None if self.kind == RegistryKind::Redis => fault(
                &["registry.type"],
                "`redis` needs registry.url, such as redis://127.0.0.1:6379".into(),
            ),
            Some(url) if url.expose().contains(&format!(":{HIDDEN}@")) => fault(
                &["registry.url"],
                format!("has {HIDDEN} for a password, which stands for one that was not shown"),
            ),
            Some(url) => {
                if let Err(what) = url.read() {
                    fault(&["registry.url"], what.to_string());
                }
            }
            None => {}
        }
        if self.kind == RegistryKind::Postgres && self.ca.is_some() && !self.tls {
            let what = "is set, and registry.tls is off: the database would be reached without TLS. Set registry.tls";
            fault(&["registry.ca"], what.into());
        }
        if self.kind == RegistryKind::Dynamodb
            && let Some((_, what)) = address_fault("endpoint", self.endpoint.as_ref())
        {
            fault(&["registry.endpoint"], what);
        }
        if let Err(what) = check_dynamo_attribute(&self.user_key) {
            fault(
                &["registry.user_key"],
                format!("{what}, not {}", quoted(&self.user_key)),
            );
        }
        if let Err(what) = check_dynamo_attribute(&self.instance_key) {
            fault(
                &["registry.instance_key"],
                format!("{what}, not {}", quoted(&self.instance_key)),
            );
        }
        if self.user_key == self.instance_key {
            fault(
                &["registry.instance_key", "registry.user_key"],
                "registry.user_key and registry.instance_key must be two attributes".into(),
            );
        }
        broken
    }

    fn table_fault(&self) -> Option<String> {
        let table = &self.table;
        let what = match self.kind {
            RegistryKind::None | RegistryKind::Engine | RegistryKind::Postgres => {
                table.parse::<Table>().err().map(|fault| fault.to_string())
            }
            RegistryKind::Redis => table.parse::<RedisKeyName>().err().map(|fault| fault.to_string()),
            RegistryKind::Dynamodb => table
                .parse::<DynamoTableName>()
                .err()
                .map(|fault| fault.to_string()),
        };
        what.map(|what| format!("{what}, not {}", quoted(table)))
    }
}

/// Most characters of what a node is called: in the names of queues, keys of tables, and the name of a connection.
const MOST_INSTANCE: usize = 128;

/// What is wrong with `instance`.
pub(super) fn instance_fault(instance: &str) -> Option<Broken> {
    let fits =
        (1..=MOST_INSTANCE).contains(&instance.len()) && instance.bytes().all(|b| b.is_ascii_graphic());
    (!fits).then(|| Broken {
        keys: &["instance"],
        what: format!(
            "must be 1 to {MOST_INSTANCE} visible ASCII characters, without a space, not {}",
            quoted(instance)
        ),
    })
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
