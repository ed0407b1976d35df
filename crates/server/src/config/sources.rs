//! `sources.*`: a map of names to sources, each with the keys of its type.
//!
//! The keys of a source are known by `sources.NAME.KEY`; like all others they are read off the structs. Which of them a
//! source may have depends on its type, which another layer may give: that is judged when all layers are there.
//!
//! Invariant: what is in the map was found good by [`check`], so it can be made.

use super::fault::ConfigFault;
use super::key::{Choice, Key, Kind};
use super::nearest::nearest;
use super::redis::RedisAddress;
use super::schema::raw_of;
use super::{tree, value};
use postrider_model::{ByteSize, Millis, Topic};
use postrider_sources::queue::Decoder;
use postrider_sources::redis_pubsub::Template;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// The key of the map.
pub(super) const SECTION: &str = "sources";
/// A source's name has at most so many characters.
const NAME_CHARS: usize = 64;

/// All sources, by name.
pub type Sources = BTreeMap<String, SourceConfig>;

/// One source: its type, and the keys of that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SourceConfig {
    /// Entries of a Redis stream, taken by a consumer group. At least once.
    RedisStreams(RedisStreamsConfig),
    /// What is published on channels of Redis. Transient: at most once, for those who are connected.
    RedisPubsub(RedisPubsubConfig),
}

/// `sources.NAME.*` of the type `redis_streams`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RedisStreamsConfig {
    /// Where Redis is: written as `engine.redis.url`. Needed.
    pub url: Option<RedisAddress>,
    /// The key of the stream. Needed.
    pub stream: Option<String>,
    /// The consumer group that all nodes share; made where it is not there.
    pub group: String,
    /// Where a group begins that is made: with the oldest entry there is, or with what is added from then on.
    pub from: StreamStart,
    /// How an entry becomes a notification.
    pub decoder: Decoder,
    /// The field that holds the payload. Unset: `raw` and `addressee` take the field `data`, or else all other fields as
    /// a JSON object of texts; to `notification` and `pusher` the fields are the notification's.
    pub body_field: Option<String>,
    /// All entries are for those who hear this topic.
    pub topic: Option<String>,
    /// The field that names the user whom an entry is for.
    pub user_field: Option<String>,
    /// The field that names the topic that an entry is for.
    pub topic_field: Option<String>,
    /// Whether an entry without an audience may go to everyone.
    pub broadcast: bool,
    /// When an entry is acknowledged: once its notification is stored, or once its recipients have it.
    pub settle_on: SettleOn,
    /// With `settle_on: delivered`, how long its recipients are waited for; then it is given back.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "1d"))]
    pub deliver_within: Millis,
    /// An entry that was given out so often and comes once more is acknowledged where its notification is stored. Else it
    /// is tried once more, alone; if it comes again even then, it becomes a dead letter.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_deliveries: u32,
    /// The first bound of the pause before an entry that was given back comes again; it doubles up to `claim_after`.
    #[schemars(extend("x-minimum" = "10ms", "x-maximum" = "1h"))]
    pub retry: Millis,
    /// What a node has not settled for so long is taken over by another, or by itself.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "1d"))]
    pub claim_after: Millis,
    /// Consumers of this node. With one, what is new is stored in the order of the stream.
    #[schemars(range(min = 1, max = 64))]
    pub workers: usize,
    /// Most entries of one receive.
    #[schemars(range(min = 1, max = 1000))]
    pub batch: usize,
    /// Most entries of this node that are not settled.
    #[schemars(range(min = 1, max = 100_000))]
    pub in_flight: usize,
    /// Whether an entry is deleted from the stream once it is acknowledged. Only where no other group reads it.
    pub delete: bool,
}

/// Where a consumer group begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StreamStart {
    /// With the oldest entry.
    #[default]
    Oldest,
    /// With what is added from then on.
    Newest,
}

/// When a source is told that its message is done with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SettleOn {
    /// Once the engine has the notification.
    #[default]
    Stored,
    /// Once every recipient has it (of a topic or of everyone: once one has).
    Delivered,
}

impl Default for RedisStreamsConfig {
    fn default() -> Self {
        RedisStreamsConfig {
            url: None,
            stream: None,
            group: "postrider".into(),
            from: StreamStart::default(),
            decoder: Decoder::Notification,
            body_field: None,
            topic: None,
            user_field: None,
            topic_field: None,
            broadcast: false,
            settle_on: SettleOn::default(),
            deliver_within: Millis::from_secs(30),
            max_deliveries: 10,
            retry: Millis::from_secs(1),
            claim_after: Millis::from_secs(30),
            workers: 1,
            batch: 64,
            in_flight: 1024,
            delete: false,
        }
    }
}

/// `sources.NAME.*` of the type `redis_pubsub`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RedisPubsubConfig {
    /// Where Redis is: written as `engine.redis.url`. Needed.
    pub url: Option<RedisAddress>,
    /// Channels that every node listens to.
    pub channels: Vec<String>,
    /// Patterns of channels that every node listens to, as `PSUBSCRIBE` has them.
    pub patterns: Vec<String>,
    /// The channel of a user, such as `notify:{user}`: a node listens to those of the users who have a session on it.
    pub channel: Option<String>,
    /// The channel of a topic, such as `notify_topic:{topic}`: a node listens to those that a session on it hears.
    pub topic_channel: Option<String>,
    /// The key of the hash that holds a user's state, such as `notify:{user}:state`; for sessions of `notify.path`.
    pub state: Option<String>,
    /// How a payload becomes a notification.
    pub decoder: Decoder,
    /// What comes on `channels` and `patterns` is for those who hear this topic.
    pub topic: Option<String>,
    /// Whether a message without an audience may go to everyone.
    pub broadcast: bool,
    /// Whether channels are sharded (`SSUBSCRIBE`; publish with `SPUBLISH`).
    pub sharded: bool,
    /// Most bytes of a payload of `raw` on a channel of a user or topic, in the place of `limits.data`. What is larger is
    /// counted and passed over.
    #[schemars(extend("x-minimum" = "1B", "x-maximum" = "32MiB"))]
    pub max_payload: ByteSize,
    /// A channel of a user or topic is listened to for so long after the last session.
    #[schemars(extend("x-minimum" = "0s", "x-maximum" = "1h"))]
    pub linger: Millis,
}

impl Default for RedisPubsubConfig {
    fn default() -> Self {
        RedisPubsubConfig {
            url: None,
            channels: Vec::new(),
            patterns: Vec::new(),
            channel: None,
            topic_channel: None,
            state: None,
            decoder: Decoder::Raw,
            topic: None,
            broadcast: false,
            sharded: false,
            max_payload: ByteSize::kib(256),
            linger: Millis::from_secs(2),
        }
    }
}

/// A type, what it is, and its keys, the type itself not among them.
pub(super) struct SourceType {
    pub word: &'static str,
    pub meaning: &'static str,
    pub keys: Vec<Key>,
}

/// All types there are.
pub(super) static TYPES: LazyLock<[SourceType; 2]> = LazyLock::new(|| {
    [
        SourceType {
            word: "redis_streams",
            meaning: "Entries of a Redis stream, taken by a consumer group. At least once.",
            keys: keys_of(
                &raw_of::<RedisStreamsConfig>(),
                serde_json::to_value(RedisStreamsConfig::default()),
            ),
        },
        SourceType {
            word: "redis_pubsub",
            meaning: "What is published on channels of Redis. Transient: at most once, for those who are connected.",
            keys: keys_of(
                &raw_of::<RedisPubsubConfig>(),
                serde_json::to_value(RedisPubsubConfig::default()),
            ),
        },
    ]
});

fn keys_of(schema: &Value, defaults: serde_json::Result<Value>) -> Vec<Key> {
    let defaults = defaults.unwrap_or_default();
    let properties = schema["properties"].as_object().into_iter().flatten();
    properties
        .map(|(name, node)| Key::read_schema(name, node, defaults[name].clone()))
        .collect()
}

static TYPE: LazyLock<Key> = LazyLock::new(|| Key {
    name: "type".into(),
    kind: Kind::Choice(
        TYPES
            .iter()
            .map(|one| Choice {
                word: one.word.into(),
                meaning: one.meaning.into(),
            })
            .collect(),
    ),
    is_optional: false,
    minimum: None,
    maximum: None,
    later: vec!["sqs".into(), "nats".into()],
    default: Value::Null,
    meaning: "What it is.".into(),
});

/// Whether a map stands here whose members are given by longer names.
pub(super) fn is_map(path: &str) -> bool {
    path == SECTION
        || path
            .strip_prefix("sources.")
            .is_some_and(|name| !name.contains('.'))
}

/// The name and the key in `sources.NAME.KEY`.
fn parts(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix("sources.")?.split_once('.')
}

/// The key of this dotted name: of whichever type has one.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    let (_, key) = parts(name)?;
    let mut known = TYPES
        .iter()
        .flat_map(|one| &one.keys)
        .chain(std::iter::once(&*TYPE));
    known.find(|known| known.name == key)
}

/// The dotted name that a variable sets.
pub(super) fn of_variable(variable: &str) -> Option<String> {
    let (name, key) = variable.strip_prefix("POSTRIDER_SOURCES__")?.split_once("__")?;
    let dotted = format!(
        "sources.{}.{}",
        name.to_ascii_lowercase(),
        key.to_ascii_lowercase()
    );
    find(&dotted).map(|_| dotted)
}

/// The nearest dotted name that there is.
pub(super) fn nearest_name(name: &str) -> Option<String> {
    let (source, key) = parts(name)?;
    let known = TYPES
        .iter()
        .flat_map(|one| &one.keys)
        .chain(std::iter::once(&*TYPE));
    let near = nearest(key, known.map(|known| known.name.as_str()))?;
    Some(format!("sources.{source}.{near}"))
}

/// Takes what cannot be made out of the tree, and says why.
pub(super) fn check(tree: &mut Value, origins: &BTreeMap<String, String>) -> Vec<ConfigFault> {
    let mut faults = Vec::new();
    let Some(sources) = tree[SECTION].as_object_mut() else {
        return faults;
    };
    sources.retain(|name, source| {
        let found = faults_of(name, source);
        let is_good = found.is_empty();
        faults.extend(found.into_iter().map(|(key, what, nearest)| {
            let key = format!("{SECTION}.{name}{key}");
            let near = origins
                .iter()
                .find(|(set, _)| set.starts_with(&format!("{SECTION}.{name}.")));
            let place = origins.get(&key).or(near.map(|(_, place)| place));
            let place = place.map_or("configuration", String::as_str).to_owned();
            ConfigFault {
                place,
                key,
                what,
                nearest,
            }
        }));
        is_good
    });
    faults
}

type Found = (String, String, Option<String>);

fn faults_of(name: &str, source: &Value) -> Vec<Found> {
    let at = |key: &str| match key {
        "" => String::new(),
        key => format!(".{key}"),
    };
    let fault = |key: &str, what: String| vec![(at(key), what, None)];
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b);
    if name.is_empty() || name.len() > NAME_CHARS || !name.bytes().all(is_plain) {
        let what = format!("is no name of a source: 1 to {NAME_CHARS} of a-z, 0-9, - and _ are allowed");
        return fault("", what);
    }
    if matches!(name, "http" | "twirp") {
        return fault("", "is a name that Postrider itself uses; take another".into());
    }
    let Some(fields) = source.as_object() else {
        return fault(
            "",
            format!("must hold a map of keys, not {}", value::kind(source)),
        );
    };
    let Some(of_type) = TYPES
        .iter()
        .find(|one| fields.get("type").and_then(Value::as_str) == Some(one.word))
    else {
        return fault("type", "is needed: `redis_streams` or `redis_pubsub`".into());
    };
    let known = |key: &str| key == "type" || of_type.keys.iter().any(|known| known.name == key);
    let unknown: Vec<Found> = fields
        .keys()
        .filter(|key| !known(key))
        .map(|key| {
            let near = nearest(key, of_type.keys.iter().map(|known| known.name.as_str()));
            let near = near.map(|near| format!("{SECTION}.{name}.{near}"));
            (
                at(key),
                format!("is no key of a source of the type {}", of_type.word),
                near,
            )
        })
        .collect();
    if !unknown.is_empty() {
        return unknown;
    }
    match serde_json::from_value::<SourceConfig>(source.clone()) {
        Ok(config) => config
            .faults()
            .into_iter()
            .map(|(key, what)| (at(key), what, None))
            .collect(),
        Err(error) => fault("", error.to_string()),
    }
}

impl SourceConfig {
    /// Rules between keys.
    fn faults(&self) -> Vec<(&'static str, String)> {
        match self {
            SourceConfig::RedisStreams(config) => config.faults(),
            SourceConfig::RedisPubsub(config) => config.faults(),
        }
    }
}

const NO_AUDIENCE: &str = "`raw` does not say for whom a notification is";

fn url_fault(url: Option<&RedisAddress>) -> Option<(&'static str, String)> {
    let what = match url.map(RedisAddress::read) {
        None => "is needed, such as redis://127.0.0.1:6379".into(),
        Some(Err(fault)) => fault.to_string(),
        Some(Ok(_)) => return None,
    };
    Some(("url", what))
}

fn topic_fault(topic: Option<&String>) -> Option<(&'static str, String)> {
    let fault = Topic::new(topic?).err()?;
    Some(("topic", fault.to_string()))
}

impl RedisStreamsConfig {
    fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults: Vec<_> = url_fault(self.url.as_ref()).into_iter().collect();
        faults.extend(topic_fault(self.topic.as_ref()));
        let mut rule = |is_broken: bool, key, what: &str| {
            if is_broken {
                faults.push((key, what.to_owned()));
            }
        };
        rule(
            self.stream.is_none(),
            "stream",
            "is needed: the key of the stream",
        );
        let ways = [&self.topic, &self.user_field, &self.topic_field];
        let ways = ways.iter().filter(|way| way.is_some()).count();
        rule(
            ways > 1,
            "topic",
            "only one of topic, user_field and topic_field can say for whom",
        );
        let is_mute = ways == 0 && !self.decoder.names_audience();
        rule(
            is_mute,
            "decoder",
            &format!("{NO_AUDIENCE}; set topic, user_field or topic_field"),
        );
        let is_wide = self.topic.is_some() || self.topic_field.is_some();
        let is_never = is_wide && self.settle_on == SettleOn::Delivered;
        rule(
            is_never,
            "settle_on",
            "`delivered` needs users: what goes to a topic is acknowledged by its members alone",
        );
        faults
    }
}

impl RedisPubsubConfig {
    fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults: Vec<_> = url_fault(self.url.as_ref()).into_iter().collect();
        faults.extend(topic_fault(self.topic.as_ref()));
        let templates = [
            ("channel", &self.channel, "{user}"),
            ("topic_channel", &self.topic_channel, "{topic}"),
            ("state", &self.state, "{user}"),
        ];
        for (key, text, place) in templates {
            let read = text.as_deref().map(|text| Template::parse(text, place));
            faults.extend(read.and_then(Result::err).map(|what| (key, what)));
        }
        let mut rule = |is_broken: bool, key, what: &str| {
            if is_broken {
                faults.push((key, what.to_owned()));
            }
        };
        let listens = !self.channels.is_empty() || !self.patterns.is_empty();
        let follows = self.channel.is_some() || self.topic_channel.is_some();
        rule(
            !listens && !follows,
            "channel",
            "it listens to nothing: set channel, topic_channel, channels or patterns",
        );
        rule(
            listens && follows,
            "channels",
            "fixed channels and those of users and topics need two sources: they are decoded in different ways",
        );
        let is_mute = listens && self.topic.is_none() && !self.decoder.names_audience();
        rule(is_mute, "decoder", &format!("{NO_AUDIENCE}; set topic"));
        rule(
            follows && self.topic.is_some(),
            "topic",
            "is for channels and patterns",
        );
        rule(
            self.sharded && !self.patterns.is_empty(),
            "patterns",
            "Redis has no patterns of sharded channels",
        );
        rule(
            self.decoder == Decoder::Addressee,
            "decoder",
            "`addressee` needs fields, and what is published has none",
        );
        rule(
            self.state.is_some() && self.channel.is_none(),
            "state",
            "needs channel",
        );
        faults
    }
}

/// Every key of every source in a tree, by name, its type first.
pub(super) fn keys_in(config: &Value) -> Vec<(String, Value)> {
    let sources = tree::get(config, SECTION).as_object().into_iter().flatten();
    let leaves = sources.flat_map(|(name, source)| {
        let of_source = source.as_object().into_iter().flatten();
        of_source.map(move |(key, value)| (format!("{SECTION}.{name}.{key}"), value.clone()))
    });
    leaves.collect()
}

/// The sources that are not alike, or not in both, by their keys.
pub(super) fn changed(old: &Sources, new: &Sources) -> Vec<String> {
    let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let differ = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
    differ.map(|name| format!("{SECTION}.{name}")).collect()
}

#[cfg(test)]
#[path = "sources_tests.rs"]
mod tests;
