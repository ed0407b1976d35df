//! What is published, and the answers to it.
#![allow(dead_code, reason = "only their schemas are of use")]

use super::never_null;
use super::texts::{Data, NotificationText, Span, Time, TopicText, UserText};
use schemars::JsonSchema;
use serde_json::Value;

/// What is to be delivered, and to whom: `users`, or `topics`, or, where neither is there, everyone.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, transform = never_null, extend("not" = {
    "anyOf": [
        { "required": ["users", "topics"] },
        { "properties": { "devices": { "const": "first" } }, "required": ["topics", "devices"] },
        {
            "properties": { "durability": { "const": "transient" } },
            "required": ["durability"],
            "anyOf": [
                { "required": ["policy"] },
                { "required": ["deliver_at"] },
                { "required": ["collapse_key"] },
                { "properties": { "devices": { "const": "first" } }, "required": ["devices"] },
            ],
        },
    ],
}))]
pub struct Notification {
    /// What the client gets.
    #[schemars(with = "Data")]
    pub data: Value,
    /// These users, each once; at most `limits.users_per_notification`. An empty list is refused, since a query that
    /// found nobody must not turn into a message to all.
    #[schemars(length(min = 1, max = 10_000))]
    pub users: Option<Vec<UserText>>,
    /// The subscribers of these topics.
    #[schemars(length(min = 1, max = 98))]
    pub topics: Option<Vec<TopicText>>,
    /// Not these, in any case; at most `limits.exclude_users`.
    #[schemars(length(max = 1_000))]
    pub exclude_users: Option<Vec<UserText>>,
    /// A short text for people.
    #[schemars(length(max = 4096))]
    pub subject: Option<String>,
    /// Makes it idempotent: the same id with the same content is delivered once, with other content refused.
    pub id: Option<NotificationText>,
    /// `stored` is on disk before it is accepted; `transient` goes to those connected now, at most once.
    pub durability: Option<Durability>,
    /// When it expires, from when it is deliverable.
    pub ttl: Option<Span>,
    /// Not before; of the years 1970 to 9999.
    pub deliver_at: Option<Time>,
    /// Takes the place of a pending one with the same key.
    #[schemars(length(min = 1, max = 256))]
    pub collapse_key: Option<String>,
    /// The steps that it takes. Only `default` is known.
    pub policy: Option<Policy>,
    /// `first`: the first device that acknowledges it by id takes it from the others.
    pub devices: Option<Devices>,
}

/// How safe.
#[derive(JsonSchema)]
#[schemars(inline, rename_all = "lowercase")]
pub enum Durability {
    Stored,
    Transient,
}

/// Which steps.
#[derive(JsonSchema)]
#[schemars(inline, rename_all = "lowercase")]
pub enum Policy {
    Default,
}

/// Which devices.
#[derive(JsonSchema)]
#[schemars(inline, rename_all = "lowercase")]
pub enum Devices {
    All,
    First,
}

/// One notification, or several, each of which is judged by itself; at most `limits.array`.
#[derive(JsonSchema)]
#[schemars(untagged, inline)]
pub enum Publication {
    One(Box<Notification>),
    Several(Vec<Notification>),
}

/// One was accepted: it is durable.
#[derive(JsonSchema)]
pub struct Accepted {
    pub id: NotificationText,
    /// True.
    pub accepted: bool,
}

/// What became of each of several.
#[derive(JsonSchema)]
pub struct Outcomes {
    pub accepted: Vec<AcceptedItem>,
    pub rejected: Vec<RejectedItem>,
}

/// One of several was accepted.
#[derive(JsonSchema)]
pub struct AcceptedItem {
    /// Its place among what was sent, from 0.
    pub index: u32,
    pub id: NotificationText,
}

/// One of several was not.
#[derive(JsonSchema)]
pub struct RejectedItem {
    /// Its place among what was sent, from 0.
    pub index: u32,
    /// As of a problem.
    pub code: String,
    /// What is wrong and what to do.
    pub detail: String,
    /// The offending place in it.
    #[schemars(skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
}

/// The answer to one, or to several.
#[derive(JsonSchema)]
#[schemars(untagged, inline)]
pub enum Published {
    One(Accepted),
    Several(Outcomes),
}
