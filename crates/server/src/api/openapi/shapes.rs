//! The shapes of JSON that is read or written by hand on the hot path, and of texts with an alphabet. What serde reads
//! and writes elsewhere has its schema from its own type.
//!
//! Nothing is ever made of these types. That they are what the server reads and writes is tested against it.

mod letters;
mod publishing;
mod receiving;
mod texts;

pub use letters::{Cancelled, DeadLetter, DeadLetters, DeadReason, Deleted, Redriven};
pub use publishing::{Publication, Published};
pub use receiving::{Batch, Past, Polling, Receiving, Settled, Settling, Ticket, Watching};
pub use texts::*;

use postrider_transports::problem;
use schemars::Schema;
use serde_json::Value;

/// A member that need not be there is not null where it is.
pub fn never_null(schema: &mut Schema) {
    let required = schema.get("required").cloned().unwrap_or_default();
    let needed = |name: &str| {
        required
            .as_array()
            .is_some_and(|names| names.iter().any(|needed| needed == name))
    };
    if let Some(Value::Object(members)) = schema.get_mut("properties") {
        for (_, member) in members.iter_mut().filter(|(name, _)| !needed(name)) {
            not_null(member);
        }
    }
}

/// The same schema without null.
pub fn not_null(schema: &mut Value) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [only] = &types[..] {
            schema["type"] = only.clone();
        }
    }
    if let Some(Value::Array(words)) = schema.get_mut("enum") {
        words.retain(|word| !word.is_null());
    }
    let Some(Value::Array(kinds)) = schema.get_mut("anyOf") else {
        return;
    };
    kinds.retain(|kind| kind["type"] != "null");
    if let [Value::Object(only)] = &kinds[..] {
        let only = only.clone();
        if let Some(members) = schema.as_object_mut() {
            members.remove("anyOf");
            members.extend(only);
        }
    }
}

/// The media type of problems.
pub const PROBLEM: &str = problem::CONTENT_TYPE;
