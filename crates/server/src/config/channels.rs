//! `channels.*`: ways out that are no sessions, by name, each with the keys of its type.

use super::built::Part;
use super::key::Key;
use super::named::{NamedMap, NamedType, type_key};
use super::sqs::address_fault;
use super::value::{quoted, quoted_url};
use postrider_model::{ByteSize, Millis};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// All channels, by name.
pub type Channels = BTreeMap<String, ChannelConfig>;

/// One channel: its type, and the keys of that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ChannelConfig {
    /// WebSocket connections of an Amazon API Gateway, which a DynamoDB table lists.
    ApiGateway(ApiGatewayConfig),
}

/// `channels.NAME.*` of the type `api_gateway`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ApiGatewayConfig {
    /// The stage's address, such as `https://abc123.execute-api.eu-central-1.amazonaws.com/prod`; `wss://` and a trailing
    /// `/@connections` are understood. Needed.
    pub endpoint: Option<String>,
    /// The DynamoDB table of connections. Needed.
    pub table: Option<String>,
    /// The table's hash key (a string): the user.
    pub user_key: String,
    /// The table's range key (a string): the connection.
    pub connection_key: String,
    /// The region of both. Unset: where the AWS SDKs look for it (`AWS_REGION`, the profile, the machine).
    pub region: Option<String>,
    /// The address of DynamoDB, where it is not the region's own.
    pub table_endpoint: Option<String>,
    /// Most pushes of this node at a time, and so of its connections to API Gateway.
    #[schemars(range(min = 1, max = 4096))]
    pub concurrency: usize,
    /// Most queries of the table at a time, for what is for named users.
    #[schemars(range(min = 1, max = 1024))]
    pub lookups: usize,
    /// Into how many parts the table is split that are scanned beside one another, for what is for everyone.
    #[schemars(range(min = 1, max = 64))]
    pub segments: usize,
    /// Most connections of one page of the table; a page is the most that one part of a scan holds in memory.
    #[schemars(range(min = 1, max = 10_000))]
    pub page: usize,
    /// How often a push is attempted that API Gateway answers 429 or 5xx; then it becomes a dead letter.
    #[schemars(range(min = 1, max = 100))]
    pub attempts: u32,
    /// The first bound of the pause between two attempts; it doubles up to `backoff_max`. A `Retry-After` that is longer
    /// goes before it.
    #[schemars(extend("x-minimum" = "1ms", "x-maximum" = "10m"))]
    pub backoff: Millis,
    /// The greatest bound of that pause.
    #[schemars(extend("x-minimum" = "1ms", "x-maximum" = "1h"))]
    pub backoff_max: Millis,
    /// An answer that takes longer counts as a 5xx.
    #[schemars(extend("x-minimum" = "100ms", "x-maximum" = "5m"))]
    pub timeout: Millis,
    /// Most bytes of one push; API Gateway itself takes 128 KiB.
    #[schemars(extend("x-minimum" = "1B", "x-maximum" = "128KiB"))]
    pub max_payload: ByteSize,
}

impl Default for ApiGatewayConfig {
    fn default() -> Self {
        ApiGatewayConfig {
            endpoint: None,
            table: None,
            user_key: "user_id".into(),
            connection_key: "connection_id".into(),
            region: None,
            table_endpoint: None,
            concurrency: 128,
            lookups: 32,
            segments: 4,
            page: 1_000,
            attempts: 6,
            backoff: Millis(100),
            backoff_max: Millis::from_secs(10),
            timeout: Millis::from_secs(10),
            max_payload: ByteSize::kib(128),
        }
    }
}

static TYPES: LazyLock<Vec<NamedType>> = LazyLock::new(|| {
    vec![NamedType::of::<ApiGatewayConfig>(
        "api_gateway",
        "WebSocket connections of an Amazon API Gateway, which a DynamoDB table lists.",
    )]
});

static TYPE: LazyLock<Key> = LazyLock::new(|| type_key(&TYPES, &["webhook", "email", "web_push"]));

/// The map.
pub(super) static MAP: NamedMap = NamedMap {
    section: "channels",
    thing: "channel",
    about: "Ways out that are no sessions; `NAME` is any name of `a-z`, `0-9`, `-` and `_`. A source leads to one by its \
            `deliver_to`. How they work: [channels.md](channels.md). As variables: `POSTRIDER_CHANNELS__NAME__KEY`. \
            Changing them needs a restart.",
    types: &TYPES,
    type_key: &TYPE,
    reserved: &["inbox"],
    judge,
};

fn judge(member: &Value) -> Vec<(&'static str, String)> {
    match serde_json::from_value::<ChannelConfig>(member.clone()) {
        Ok(config) => config.faults(),
        Err(error) => vec![("", error.to_string())],
    }
}

impl ChannelConfig {
    /// Rules between keys.
    fn faults(&self) -> Vec<(&'static str, String)> {
        let ChannelConfig::ApiGateway(config) = self;
        let mut faults = config.faults();
        faults.extend(Part::Aws.lack().map(|lack| ("type", lack)));
        faults
    }
}

impl ApiGatewayConfig {
    /// Rules between keys.
    fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        let mut rule = |is_broken: bool, key, what: String| {
            if is_broken {
                faults.push((key, what));
            }
        };
        match self.endpoint.as_deref() {
            None => {
                let such = "https://abc123.execute-api.eu-central-1.amazonaws.com/prod";
                rule(true, "endpoint", format!("is needed, such as {such}"));
            }
            Some(url) => {
                let is_good = postrider_channels::api_gateway::endpoint_url(url).is_ok();
                let what = format!(
                    "must be the stage's address, https://… or wss://…, not {}",
                    quoted_url(url)
                );
                rule(!is_good, "endpoint", what);
            }
        }
        match self.table.as_deref() {
            None => rule(true, "table", "is needed: the table's name".into()),
            Some(table) => {
                let what = "must be 3 to 255 of a-z, A-Z, 0-9, _, - and ., or the table's ARN";
                rule(
                    !is_table(table),
                    "table",
                    format!("{what}, not {}", quoted(table)),
                );
            }
        }
        rule(
            self.user_key == self.connection_key,
            "connection_key",
            format!(
                "is {}, as user_key: they are two attributes",
                quoted(&self.user_key)
            ),
        );
        let (first, most) = (self.backoff, self.backoff_max);
        let what = format!("is {first}, and must not be longer than backoff_max, which is {most}");
        rule(first > most, "backoff", what);
        faults.extend(address_fault("table_endpoint", self.table_endpoint.as_ref()));
        faults
    }
}

/// Whether DynamoDB could have a table of this name; of an ARN it says so itself.
fn is_table(name: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    name.starts_with("arn:") || (3..=255).contains(&name.len()) && name.bytes().all(is_plain)
}

#[cfg(test)]
#[path = "channels_tests.rs"]
mod tests;
