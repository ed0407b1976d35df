//! What comes over any transport, in one form.

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// A notification, or a mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `notification`, `read`, `withdrawn`, `state`, `gap`, `transient_dropped`, `delivery_stalled`.
    pub name: String,
    /// The rest of it: a JSON object, as the node wrote it.
    pub data: String,
}

impl Event {
    /// From a frame of a WebSocket, or a mark in the answer to a long poll: `{"type":…, …}`.
    pub fn from_frame(frame: &str) -> Option<Event> {
        let Members(members) = serde_json::from_str(frame).ok()?;
        let text = |wanted: &str| {
            let (_, value) = members.iter().find(|(name, _)| name == wanted)?;
            serde_json::from_str::<String>(value.get()).ok()
        };
        let kind = text("type")?;
        if kind == "state" {
            let (_, state) = members.iter().find(|(name, _)| name == "state")?;
            let (name, data) = (kind, state.get().to_owned());
            return Some(Event { name, data });
        }
        let name = match kind.as_str() {
            "error" => text("code")?,
            _ => kind.clone(),
        };
        let taken = |member: &str| member == "type" || (kind == "error" && member == "code");
        let rest = members.iter().filter(|(name, _)| !taken(name));
        let rest: Vec<_> = rest
            .map(|(name, value)| format!("{}:{}", serde_json::Value::from(name.as_str()), value.get()))
            .collect();
        let data = format!("{{{}}}", rest.join(","));
        Some(Event { name, data })
    }
}

/// An object's members in their order, as they were written.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visit)
    }
}

/// The members of an event that this command looks at.
#[derive(Debug, Default, Deserialize)]
pub struct Parts<'a> {
    /// The notification.
    #[serde(borrow, default)]
    pub id: Option<Cow<'a, str>>,
    /// When it was accepted.
    #[serde(borrow, default)]
    pub time: Option<Cow<'a, str>>,
    /// A line for people.
    #[serde(borrow, default)]
    pub subject: Option<Cow<'a, str>>,
    /// The topic that it came by.
    #[serde(borrow, default)]
    pub topic: Option<Cow<'a, str>>,
    /// Which attempt it is, from 2 on.
    #[serde(default)]
    pub attempt: Option<u64>,
    /// The payload as it was written.
    #[serde(borrow, default)]
    pub data: Option<&'a RawValue>,
    /// Whom a mark is about.
    #[serde(default)]
    pub ids: Vec<String>,
    /// Why it was withdrawn.
    #[serde(borrow, default)]
    pub reason: Option<Cow<'a, str>>,
    /// What is still held, after a gap.
    #[serde(borrow, default)]
    pub oldest: Option<Cow<'a, str>>,
}

impl Event {
    /// Its members; none of them where they are not what they should be.
    pub fn parts(&self) -> Parts<'_> {
        serde_json::from_str(&self.data).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_lose_their_type_and_nothing_else() {
        for (frame, name, data) in [
            (
                r#"{"type":"notification","id":"n","time":"T","data":{"z":1.0,"a":1e400}}"#,
                "notification",
                r#"{"id":"n","time":"T","data":{"z":1.0,"a":1e400}}"#,
            ),
            (r#"{"type":"read","ids":["a"]}"#, "read", r#"{"ids":["a"]}"#),
            (
                r#"{"type":"state","state":{"k":"v"},"version":2}"#,
                "state",
                r#"{"k":"v"}"#,
            ),
            (
                r#"{"type":"error","code":"transient_dropped"}"#,
                "transient_dropped",
                "{}",
            ),
            (
                r#"{"type":"error","code":"delivery_stalled","ids":["a"]}"#,
                "delivery_stalled",
                r#"{"ids":["a"]}"#,
            ),
        ] {
            let event = Event::from_frame(frame).unwrap();
            assert_eq!((event.name.as_str(), event.data.as_str()), (name, data));
        }
        assert_eq!(Event::from_frame("[1]"), None);
    }
}
