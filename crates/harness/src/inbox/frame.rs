//! Parses what the server sends inside a session: entries, and the other frames in their WebSocket form.
//!
//! Invariant: the bytes of an entry's `data` are kept as they came; a kind that the interface does not have is an
//! error.
//!
//! It does not know how frames are told apart on a wire: the transports do.

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Notification, Received};

#[derive(Deserialize)]
struct Entry<'a> {
    id: String,
    time: String,
    topic: Option<String>,
    subject: Option<String>,
    attempt: Option<u64>,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// Parses an entry, keeping the bytes of `data`.
pub(super) fn notification(raw: &str) -> Result<Notification> {
    let entry: Entry<'_> = serde_json::from_str(raw).with_context(|| format!("not an entry: {raw}"))?;
    Ok(Notification {
        id: entry.id,
        topic: entry.topic,
        subject: entry.subject,
        time: entry.time,
        attempt: entry.attempt,
        data: entry.data.get().to_owned(),
        raw: raw.to_owned(),
    })
}

/// Parses a frame in its WebSocket form, which long poll's `events` have too.
pub(super) fn frame(raw: &str) -> Result<Received> {
    #[derive(Deserialize)]
    struct Kind {
        r#type: String,
    }
    let kind: Kind = serde_json::from_str(raw).with_context(|| format!("not a frame: {raw}"))?;
    if kind.r#type == "notification" {
        return Ok(Received::Notification(notification(raw)?));
    }
    mark(&kind.r#type, &serde_json::from_str(raw)?)
}

/// A frame that is not a notification, by the name of its kind.
pub(super) fn mark(kind: &str, value: &Value) -> Result<Received> {
    let text = |name: &str| -> Result<String> {
        Ok(value[name]
            .as_str()
            .with_context(|| format!("{kind} without {name}: {value}"))?
            .to_owned())
    };
    let ids = || -> Result<Vec<String>> {
        let ids = value["ids"]
            .as_array()
            .with_context(|| format!("{kind} without ids: {value}"))?;
        Ok(ids
            .iter()
            .filter_map(|id| id.as_str().map(str::to_owned))
            .collect())
    };
    Ok(match kind {
        "hello" => Received::Hello(text("session")?),
        "cursor" => Received::Cursor(text("cursor")?),
        "read" => Received::Read(ids()?),
        "withdrawn" => Received::Withdrawn {
            id: text("id")?,
            reason: text("reason")?,
        },
        "gap" => Received::Gap(value["oldest"].as_str().map(str::to_owned)),
        "state" => Received::State(value.get("state").unwrap_or(value).clone()),
        "error" if value["code"] == "delivery_stalled" => Received::Stalled(ids()?),
        "delivery_stalled" => Received::Stalled(ids()?),
        "error" => Received::Error(text("code")?),
        "transient_dropped" => Received::Error(kind.to_owned()),
        "settled" => Received::Settled {
            reference: value["ref"]
                .as_u64()
                .with_context(|| format!("settled without ref: {value}"))?,
            count: value["settled"]
                .as_u64()
                .with_context(|| format!("settled without a count: {value}"))?,
        },
        _ => bail!("unknown kind {kind:?}: {value}"),
    })
}
