//! From a `PublishRequest` to the draft that every source makes; intake judges it as it judges theirs.
//!
//! Invariant: nobody and everyone are told apart, and what `data_json` says is handed on as it was written.

use super::generated::postrider_v1::publish_request::{Audience, Payload};
use super::generated::postrider_v1::{self as v1, PublishRequest};
use super::times;
use bytes::Bytes;
use postrider_model::{Devices, Durability, json};
use postrider_router::{Draft, Fault, FaultCode};
use postrider_transports::Problem;
use prost_types::Value;
use prost_types::value::Kind;
use serde_json::value::RawValue;

/// Whole numbers up to here are written without a fraction: a double holds each of them.
const WHOLE: f64 = 9_007_199_254_740_992.0;

/// The draft. A notification may nest `depth` deep, itself counted.
pub fn draft(request: PublishRequest, depth: usize) -> Result<Draft, Fault> {
    let mut draft = Draft {
        exclude_users: request.exclude_users,
        subject: request.subject,
        id: request.id,
        collapse_key: request.collapse_key,
        policy: request.policy,
        ..Draft::default()
    };
    match request.audience {
        Some(Audience::Users(users)) => draft.users = Some(users.ids),
        Some(Audience::Topics(topics)) => draft.topics = Some(topics.names),
        Some(Audience::Everyone(_)) => {}
        None => {
            let detail = "it does not say for whom it is: set `users`, `topics` or `everyone`";
            return Err(Fault::new(FaultCode::InvalidNotification, detail));
        }
    }
    draft.data = match request.payload {
        Some(Payload::DataJson(text)) => compact(&text, depth)?,
        Some(Payload::Data(value)) => {
            let mut text = Vec::new();
            push_value(&mut text, &value)?;
            within(&text, depth)?;
            text.into()
        }
        None => return Err(Fault::invalid("/data", "`data` is required")),
    };
    draft.durability = match v1::Durability::try_from(request.durability) {
        Ok(v1::Durability::Unspecified | v1::Durability::Stored) => Durability::Stored,
        Ok(v1::Durability::Transient) => Durability::Transient,
        Err(_) => return Err(Fault::invalid("/durability", "`durability` has no such value")),
    };
    draft.devices = match v1::Devices::try_from(request.devices) {
        Ok(v1::Devices::Unspecified | v1::Devices::All) => Devices::All,
        Ok(v1::Devices::First) => Devices::First,
        Err(_) => return Err(Fault::invalid("/devices", "`devices` has no such value")),
    };
    let long = || Fault::invalid("/ttl", "`ttl` must be a duration that is not negative");
    draft.ttl = (request.ttl.map(|ttl| times::span(&ttl).ok_or_else(long))).transpose()?;
    let when = || Fault::invalid("/deliver_at", "`deliver_at` must be a time from 1970 on");
    draft.deliver_at = (request.deliver_at.map(|at| times::instant(&at).ok_or_else(when))).transpose()?;
    Ok(draft)
}

/// A problem of a draft in the words of a `PublishRequest`: its places, and what to do about nobody.
pub fn placed(mut problem: Problem) -> Problem {
    if problem.code == "empty_audience" {
        // Under `/v1` everyone is who is left out.
        problem.detail = "The list is empty. Name at least one; to reach everyone, set `everyone`.".into();
    }
    let pointer = problem.pointer.take();
    problem.pointer = pointer.map(|pointer| {
        let moved = [("/users", "/users/ids"), ("/topics", "/topics/names")];
        let moved = moved.iter().find_map(|(from, to)| {
            let rest = pointer.strip_prefix(from)?;
            (rest.is_empty() || rest.starts_with('/')).then(|| format!("{to}{rest}"))
        });
        moved.unwrap_or(pointer)
    });
    problem
}

fn compact(text: &str, depth: usize) -> Result<Bytes, Fault> {
    within(text.as_bytes(), depth)?;
    let raw: &RawValue = serde_json::from_str(text)
        .map_err(|error| Fault::invalid("/data_json", format!("`data_json` is not valid JSON: {error}")))?;
    Ok(json::compact(raw.get()))
}

/// Refuses what nests too deep: `data` stands one level down.
fn within(text: &[u8], most: usize) -> Result<(), Fault> {
    if json::nests_within(text, most.saturating_sub(1)) {
        return Ok(());
    }
    let detail = format!(
        "it nests {} deep; at most {most} levels are allowed",
        json::depth(text) + 1
    );
    Err(Fault::new(FaultCode::InvalidNotification, detail))
}

/// Appends the JSON of a value. How deep it recurses is bounded where it was decoded.
fn push_value(out: &mut Vec<u8>, value: &Value) -> Result<(), Fault> {
    let wrong = |detail: &str| Err(Fault::invalid("/data", detail));
    match &value.kind {
        None => return wrong("`data` holds a Value that says nothing; for null, say null"),
        Some(Kind::NullValue(_)) => out.extend_from_slice(b"null"),
        Some(Kind::BoolValue(true)) => out.extend_from_slice(b"true"),
        Some(Kind::BoolValue(false)) => out.extend_from_slice(b"false"),
        Some(Kind::StringValue(text)) => json::push_string(out, text),
        Some(Kind::NumberValue(number)) if !number.is_finite() => {
            return wrong("`data` holds a number that JSON cannot write");
        }
        Some(Kind::NumberValue(number)) => push_number(out, *number),
        Some(Kind::ListValue(list)) => {
            out.push(b'[');
            for (at, value) in list.values.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                push_value(out, value)?;
            }
            out.push(b']');
        }
        Some(Kind::StructValue(members)) => {
            out.push(b'{');
            for (at, (name, value)) in members.fields.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                json::push_string(out, name);
                out.push(b':');
                push_value(out, value)?;
            }
            out.push(b'}');
        }
    }
    Ok(())
}

fn push_number(out: &mut Vec<u8>, number: f64) {
    let text = match number.fract() == 0.0 && number.abs() <= WHOLE {
        true => (number as i64).to_string(),
        // The shortest that reads the same.
        false => serde_json::Number::from_f64(number).map_or_else(String::new, |number| number.to_string()),
    };
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
#[path = "draft_tests.rs"]
mod tests;
