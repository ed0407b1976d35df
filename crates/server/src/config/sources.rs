//! `sources.*`: a map of names to sources, each with the keys of its type.
//!
//! Invariant: what is in the map was found good by its rules, so it can be made.

use super::Config;
use super::built::Part;
use super::key::Key;
use super::named::{NamedMap, NamedType, type_key};
use super::redis::RedisAddress;
use super::sns::SnsConfig;
use super::sqs::{self, SqsConfig, SqsUsersConfig};
use super::value::quoted;
use crate::auth::Scope;
use postrider_model::{ByteSize, Millis, Topic};
use postrider_sources::queue::Decoder;
use postrider_sources::template::Template;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::LazyLock;

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
    /// Messages of one queue of Amazon SQS. At least once.
    Sqs(SqsConfig),
    /// Messages of Amazon SQS, of a queue for each user who has a session here. At least once.
    SqsUsers(SqsUsersConfig),
    /// Messages that topics of Amazon SNS post to this node. At least once.
    Sns(SnsConfig),
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
    /// Where its notifications go: `inbox` (to their users' sessions, and stored until they have them), and names of
    /// `channels`. An entry that goes to a channel is acknowledged once that is done with it.
    pub deliver_to: Vec<String>,
    /// Whether an entry without an audience may go to everyone.
    pub broadcast: bool,
    /// When an entry is acknowledged: once its notification is stored, or once its recipients have it.
    pub settle_on: SettleOn,
    /// With `settle_on: delivered`, how long its recipients are waited for; then it is given back.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "1d"))]
    pub deliver_within: Millis,
    /// With `settle_on: delivered`, what becomes of an entry none of whose users has a session on any node.
    pub offline: Offline,
    /// The time to live of its notifications, where an entry says none. Unset: `retention.age`.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "3650d"))]
    pub ttl: Option<Millis>,
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

/// The word for sessions and inboxes in `deliver_to`.
pub const INBOX: &str = "inbox";

/// Where notifications go where nothing is said.
pub(super) fn to_inbox() -> Vec<String> {
    vec![INBOX.into()]
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

/// What becomes of a message whose users are not there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Offline {
    /// It is stored, and waits in their inboxes.
    #[default]
    Store,
    /// It is left to the queue, whose own rules say when it comes again, and how often.
    Leave,
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
            deliver_to: to_inbox(),
            broadcast: false,
            settle_on: SettleOn::default(),
            deliver_within: Millis::from_secs(30),
            offline: Offline::default(),
            ttl: None,
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

/// All types there are.
pub(super) static TYPES: LazyLock<Vec<NamedType>> = LazyLock::new(|| {
    vec![
        NamedType::of::<RedisStreamsConfig>(
            "redis_streams",
            "Entries of a Redis stream, taken by a consumer group. At least once.",
        ),
        NamedType::of::<RedisPubsubConfig>(
            "redis_pubsub",
            "What is published on channels of Redis. Transient: at most once, for those who are connected.",
        ),
        NamedType::of::<SqsConfig>("sqs", "Messages of one queue of Amazon SQS. At least once."),
        NamedType::of::<SqsUsersConfig>(
            "sqs_users",
            "Messages of Amazon SQS, of a queue for each user who has a session here. At least once.",
        ),
        NamedType::of::<SnsConfig>(
            "sns",
            "Messages that topics of Amazon SNS post to this node. At least once.",
        ),
    ]
});

static TYPE: LazyLock<Key> = LazyLock::new(|| type_key(&TYPES, &["nats"]));

/// The map.
pub(super) static MAP: NamedMap = NamedMap {
    section: "sources",
    thing: "source",
    about: "Where notifications are taken from, beside those that are published over HTTP; `NAME` is any name of `a-z`, \
            `0-9`, `-` and `_`. How they work: [sources.md](sources.md). As variables: `POSTRIDER_SOURCES__NAME__KEY`. \
            Changing them needs a restart.",
    types: &TYPES,
    type_key: &TYPE,
    reserved: &["http", "twirp"],
    judge,
};

fn judge(member: &Value) -> Vec<(&'static str, String)> {
    match serde_json::from_value::<SourceConfig>(member.clone()) {
        Ok(config) => config.faults(),
        Err(error) => vec![("", error.to_string())],
    }
}

impl SourceConfig {
    /// Rules between keys.
    fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = match self {
            SourceConfig::RedisStreams(config) => config.faults(),
            SourceConfig::RedisPubsub(config) => config.faults(),
            SourceConfig::Sqs(config) => config.faults(),
            SourceConfig::SqsUsers(config) => config.faults(),
            SourceConfig::Sns(config) => config.faults(),
        };
        faults.extend(self.part().lack().map(|lack| ("type", lack)));
        faults
    }

    /// Where its notifications go: [`INBOX`], and names of channels.
    pub fn deliver_to(&self) -> &[String] {
        static INBOX_ALONE: LazyLock<Vec<String>> = LazyLock::new(to_inbox);
        match self {
            SourceConfig::RedisStreams(config) => &config.deliver_to,
            SourceConfig::RedisPubsub(_) => &INBOX_ALONE,
            SourceConfig::Sqs(config) => &config.deliver_to,
            SourceConfig::SqsUsers(config) => &config.deliver_to,
            SourceConfig::Sns(config) => &config.deliver_to,
        }
    }

    /// Whether what is for nobody who is there is left to the queue.
    pub fn leaves(&self) -> bool {
        let offline = match self {
            SourceConfig::RedisStreams(config) => config.offline,
            SourceConfig::Sqs(config) => config.offline,
            SourceConfig::SqsUsers(config) => config.offline,
            SourceConfig::RedisPubsub(_) | SourceConfig::Sns(_) => Offline::Store,
        };
        offline == Offline::Leave
    }

    /// What a binary must have to run it.
    fn part(&self) -> Part {
        match self {
            SourceConfig::RedisStreams(_) | SourceConfig::RedisPubsub(_) => Part::Redis,
            SourceConfig::Sqs(_) | SourceConfig::SqsUsers(_) | SourceConfig::Sns(_) => sqs::PART,
        }
    }
}

impl Config {
    /// Whether there are sources, nothing of them is for sessions, and nobody else publishes: such a node serves no users of
    /// its own.
    pub fn is_for_channels_alone(&self) -> bool {
        let is_for_sessions = |source: &SourceConfig| source.deliver_to().iter().any(|word| word == INBOX);
        let mut keys = self.auth.api_keys.iter();
        let others_publish = keys.any(|key| key.scopes.contains(&Scope::Publish));
        !self.sources.is_empty() && !self.sources.values().any(is_for_sessions) && !others_publish
    }
}

pub(super) const LEAVE_NEEDS_DELIVERED: &str =
    "`leave` needs settle_on: delivered: what is settled once it is stored is never the queue's";
pub(super) const NO_AUDIENCE: &str = "`raw` does not say for whom a notification is";

fn url_fault(url: Option<&RedisAddress>) -> Option<(&'static str, String)> {
    let what = match url.map(RedisAddress::read) {
        None => "is needed, such as redis://127.0.0.1:6379".into(),
        Some(Err(fault)) => fault.to_string(),
        Some(Ok(_)) => return None,
    };
    Some(("url", what))
}

pub(super) fn topic_fault(topic: Option<&String>) -> Option<(&'static str, String)> {
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
        let is_early = self.offline == Offline::Leave && self.settle_on == SettleOn::Stored;
        rule(is_early, "offline", LEAVE_NEEDS_DELIVERED);
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
            let Some(text) = text else { continue };
            let what = Template::parse(text, place).err();
            faults.extend(what.map(|what| (key, format!("{what}, not {}", quoted(text)))));
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
        let is_mute = listens && !follows && self.topic.is_none() && !self.decoder.names_audience();
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

#[cfg(test)]
#[path = "sources_tests.rs"]
mod tests;
