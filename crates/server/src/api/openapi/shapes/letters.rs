//! Dead letters, and what is done to them and to notifications.
#![allow(dead_code, reason = "only their schemas are of use")]

use super::texts::{Data, LetterText, NotificationText, Time, UserText};
use schemars::JsonSchema;
use serde_json::Value;

/// What was taken back.
#[derive(JsonSchema)]
#[schemars(inline)]
pub struct Cancelled {
    /// For how many recipients; null for a wide audience.
    pub cancelled: Option<u64>,
}

/// What was put back.
#[derive(JsonSchema)]
#[schemars(inline)]
pub struct Redriven {
    /// How many; with a rate, how many will be tried.
    pub redriven: u64,
}

/// What was thrown away.
#[derive(JsonSchema)]
#[schemars(inline)]
pub struct Deleted {
    pub deleted: u64,
}

/// What nothing could deliver.
#[derive(JsonSchema)]
pub struct DeadLetter {
    pub id: LetterText,
    /// Null where none could be made of what came.
    pub notification: Option<NotificationText>,
    /// Null where that is not known.
    pub user: Option<UserText>,
    pub reason: DeadReason,
    /// What was wrong, in words for an operator; not there where no more is known than the reason. At most 500 bytes.
    #[schemars(skip_serializing_if = "Option::is_none", length(max = 500))]
    pub detail: Option<String>,
    /// Where it came from.
    pub source: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was given up.
    pub time: Time,
    #[schemars(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// What the publisher wrote; not there where it was lost, or was no JSON.
    #[schemars(skip_serializing_if = "Option::is_none", with = "Option<Data>")]
    pub data: Option<Value>,
    /// What came and could not be read.
    #[schemars(skip_serializing_if = "Option::is_none")]
    pub raw_base64: Option<String>,
}

/// Why it was given up.
#[derive(JsonSchema)]
#[schemars(inline, rename_all = "snake_case")]
pub enum DeadReason {
    MaxAttempts,
    Undecodable,
    Overflow,
    Lost,
    Policy,
}

/// A page of them, oldest first.
#[derive(JsonSchema)]
pub struct DeadLetters {
    pub dead_letters: Vec<DeadLetter>,
    /// What the next page is `after`; null at the end.
    pub after: Option<LetterText>,
}
