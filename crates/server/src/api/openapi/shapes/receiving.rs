//! What is received, and what a client says of it.
#![allow(dead_code, reason = "only their schemas are of use")]

use super::texts::{
    CursorOrNone, CursorText, Data, NotificationText, Object, Time, TopicList, TopicText, UserText,
};
use schemars::JsonSchema;
use serde_json::Value;

/// One notification, as a client gets it.
#[derive(JsonSchema)]
pub struct Entry {
    pub id: NotificationText,
    /// When it was accepted.
    pub time: Time,
    #[schemars(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The topic that it came by.
    #[schemars(skip_serializing_if = "Option::is_none")]
    pub topic: Option<TopicText>,
    #[schemars(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
    #[schemars(with = "Data")]
    pub data: Value,
    /// Which attempt this is, under `explicit`, from the second on.
    #[schemars(skip_serializing_if = "Option::is_none", range(min = 2))]
    pub attempt: Option<u32>,
}

/// One notification of the past.
#[derive(JsonSchema)]
pub struct PastEntry {
    #[schemars(flatten)]
    pub entry: Entry,
    /// What became of it for this user.
    pub state: DeliveryState,
    #[schemars(skip_serializing_if = "Option::is_none")]
    pub delivered_at: Option<Time>,
    #[schemars(skip_serializing_if = "Option::is_none")]
    pub read_at: Option<Time>,
}

/// Where a notification stands for one user.
#[derive(JsonSchema)]
#[schemars(inline, rename_all = "lowercase")]
pub enum DeliveryState {
    Pending,
    Delivered,
    Read,
    Expired,
    Cancelled,
    Dead,
}

/// What else is to be known: a mark, the user's state, or that something was dropped.
#[derive(JsonSchema)]
#[schemars(tag = "type", rename_all = "lowercase")]
pub enum Event {
    /// Read on another device.
    Read { ids: Vec<NotificationText> },
    /// Not to be shown any more: `cancelled`, `collapsed`, `expired` or `taken`.
    Withdrawn { id: NotificationText, reason: String },
    /// The user's state, whole.
    State { state: Object },
    /// `transient_dropped`: transient notifications found no room.
    Error { code: String },
}

/// What a poll brings.
#[derive(JsonSchema)]
pub struct Batch {
    pub notifications: Vec<Entry>,
    pub events: Vec<Event>,
    /// Where the next poll goes on.
    pub cursor: CursorText,
    /// Whether something that this client had not seen is no longer kept.
    pub gap: bool,
}

/// A page of the past, newest first.
#[derive(JsonSchema)]
pub struct Past {
    pub notifications: Vec<PastEntry>,
    /// What the next page is `before`; null where nothing older is held.
    pub cursor: Option<CursorText>,
}

/// A cursor, or ids; exactly one of them.
#[derive(JsonSchema)]
#[schemars(untagged, inline)]
pub enum Settling {
    Ids(SettlingIds),
    Cursor(SettlingCursor),
}

/// These notifications. What is unknown or settled is no error.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, inline)]
pub struct SettlingIds {
    #[schemars(length(max = 5_000))]
    pub ids: Vec<NotificationText>,
}

/// Everything up to and including a place.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, inline)]
pub struct SettlingCursor {
    pub cursor: CursorText,
}

/// What was settled.
#[derive(JsonSchema)]
#[schemars(inline)]
pub struct Settled {
    /// How many notifications changed.
    pub settled: u64,
}

/// A ticket.
#[derive(JsonSchema)]
pub struct Ticket {
    /// Goes into `?ticket=`. Starts one session, and may resume it until the token's end.
    pub ticket: String,
    /// So many seconds are left to start.
    pub expires_in: u64,
}

/// Parameters of every way to receive.
#[derive(JsonSchema)]
pub struct Receiving {
    /// Where to go on; without one, at the first pending entry.
    pub cursor: Option<CursorOrNone>,
    /// What settles: evidence, only the client's word, or nothing.
    pub ack: Option<Ack>,
    /// Session topics, at most 98; each has to be allowed by the token or by `topics.open`.
    pub topics: Option<TopicList>,
    /// `1`: the user's state comes first, and whenever it changes.
    pub state: Option<Flag>,
}

/// Parameters of a poll.
#[derive(JsonSchema)]
pub struct Polling {
    #[schemars(flatten)]
    pub receiving: Receiving,
    /// For how many seconds an answer with nothing in it may be kept back.
    #[schemars(default = "thirty", range(min = 0, max = 120))]
    pub wait: u8,
    /// Most entries and events of the answer.
    #[schemars(default = "hundred", range(min = 1, max = 1_000))]
    pub limit: u16,
}

/// Whom a presence stream is about.
#[derive(JsonSchema)]
pub struct Watching {
    /// Who hears this topic; not together with `user`.
    pub topic: Option<TopicText>,
    /// These users: once for each.
    #[schemars(length(max = 1_000))]
    pub user: Option<Vec<UserText>>,
}

/// How a session acknowledges.
#[derive(JsonSchema)]
#[schemars(inline, rename_all = "lowercase")]
pub enum Ack {
    Auto,
    Explicit,
    None,
}

/// Yes or no.
#[derive(JsonSchema)]
#[schemars(inline)]
pub enum Flag {
    #[schemars(rename = "0")]
    No,
    #[schemars(rename = "1")]
    Yes,
}

fn thirty() -> u8 {
    30
}

fn hundred() -> u16 {
    100
}
