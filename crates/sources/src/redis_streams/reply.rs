//! What Redis answers about streams, as far as it is of use here.
//!
//! Invariant: total; what is not as expected is passed over.

use crate::queue::{Lag, Message};
use bytes::Bytes;
use redis::Value;

/// One entry of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StreamEntry {
    pub id: String,
    pub fields: Vec<(String, Bytes)>,
}

impl StreamEntry {
    pub fn into_message(self, stream: &str, deliveries: u32) -> Message {
        Message {
            name: Some(format!("{stream}/{}", self.id)),
            fields: self.fields,
            deliveries,
            ..Message::default()
        }
    }
}

/// The entries in an answer to `XREADGROUP` of one stream; nil where none came.
pub(super) fn read(answer: Value) -> Vec<StreamEntry> {
    let streams = items(answer).into_iter().next();
    let of_stream = streams.map(items).unwrap_or_default().into_iter().nth(1);
    of_stream.map(entries).unwrap_or_default()
}

/// Where to go on, and the entries, in an answer to `XAUTOCLAIM`.
pub(super) fn claimed(answer: Value) -> (String, Vec<StreamEntry>) {
    let mut parts = items(answer).into_iter();
    let next = parts.next().and_then(text).unwrap_or_else(|| "0-0".into());
    (next, parts.next().map(entries).unwrap_or_default())
}

/// How often an entry was given out, by an answer to `XPENDING` about it alone.
pub(super) fn deliveries(answer: Value) -> u32 {
    let entry = items(answer).into_iter().next().map(items).unwrap_or_default();
    match entry.get(3) {
        Some(Value::Int(count)) => u32::try_from(*count).unwrap_or(u32::MAX).max(1),
        _ => 1,
    }
}

/// The ids in an answer to `XPENDING` about a range.
pub(super) fn pending_ids(answer: Value) -> Vec<String> {
    let id = |entry| items(entry).into_iter().next().and_then(text);
    items(answer).into_iter().filter_map(id).collect()
}

/// The consumers that hold something, by an answer to `XPENDING` about the whole group.
pub(super) fn holders(answer: Value) -> Vec<String> {
    let consumers = items(answer).into_iter().nth(3).map(items);
    let name = |consumer| items(consumer).into_iter().next().and_then(text);
    consumers
        .unwrap_or_default()
        .into_iter()
        .filter_map(name)
        .collect()
}

/// How far a group is behind, by an answer to `XINFO GROUPS`.
pub(super) fn lag(answer: Value, group: &str) -> Option<Lag> {
    let mut groups = items(answer).into_iter().map(members);
    let known = groups.find(|members| {
        let name = members.iter().find(|(name, _)| name == "name");
        name.is_some_and(|(_, value)| text(value.clone()).as_deref() == Some(group))
    })?;
    let number = |wanted: &str| {
        let (_, value) = known.iter().find(|(name, _)| name == wanted)?;
        match value {
            Value::Int(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    };
    Some(Lag {
        waiting: number("lag"),
        unsettled: number("pending").unwrap_or(0),
        dropped: 0,
        interruptions: 0,
    })
}

/// The consumers with this prefix that hold nothing and were silent for so many milliseconds, by an answer to
/// `XINFO CONSUMERS`.
pub(super) fn abandoned(answer: Value, prefix: &str, silent_ms: u64) -> Vec<String> {
    let consumers = items(answer).into_iter().map(members);
    let names = consumers.filter_map(|members| {
        let value = |wanted: &str| {
            members
                .iter()
                .find(|(name, _)| name == wanted)
                .map(|(_, value)| value.clone())
        };
        let name = text(value("name")?)?;
        let holds_nothing = value("pending")? == Value::Int(0);
        let Value::Int(idle) = value("idle")? else {
            return None;
        };
        let is_silent = u64::try_from(idle).is_ok_and(|idle| idle >= silent_ms);
        (name.starts_with(prefix) && holds_nothing && is_silent).then_some(name)
    });
    names.collect()
}

fn items(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}

/// Names and values that alternate in one list.
fn members(value: Value) -> Vec<(String, Value)> {
    let mut items = items(value).into_iter();
    let mut out = Vec::new();
    while let (Some(name), Some(value)) = (items.next(), items.next()) {
        out.extend(text(name).map(|name| (name, value)));
    }
    out
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

fn entries(value: Value) -> Vec<StreamEntry> {
    let read = |entry: Value| {
        let mut parts = items(entry).into_iter();
        let id = parts.next().and_then(text)?;
        let fields = members(parts.next()?)
            .into_iter()
            .filter_map(|(name, value)| match value {
                Value::BulkString(bytes) => Some((name, Bytes::from(bytes))),
                _ => None,
            });
        Some(StreamEntry {
            id,
            fields: fields.collect(),
        })
    };
    items(value).into_iter().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn list(items: Vec<Value>) -> Value {
        Value::Array(items)
    }

    fn entry(id: &str) -> Value {
        list(vec![
            bulk(id),
            list(vec![
                bulk("a"),
                bulk("1"),
                bulk("b"),
                Value::BulkString(vec![0xff]),
            ]),
        ])
    }

    #[test]
    fn answers_about_entries() {
        assert!(read(Value::Nil).is_empty());
        let found = read(list(vec![list(vec![
            bulk("s"),
            list(vec![entry("1-0"), entry("2-0")]),
        ])]));
        assert_eq!(
            found.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(),
            ["1-0", "2-0"]
        );
        assert_eq!(found[0].fields[1], ("b".to_owned(), Bytes::from_static(b"\xff")));
        // An entry that was deleted stands there as nil.
        let (next, found) = claimed(list(vec![
            bulk("7-0"),
            list(vec![Value::Nil, entry("3-0")]),
            list(vec![]),
        ]));
        assert_eq!((next.as_str(), found.len()), ("7-0", 1));
        assert_eq!(claimed(Value::Nil).0, "0-0");
        let pending = list(vec![list(vec![
            bulk("1-0"),
            bulk("c"),
            Value::Int(9),
            Value::Int(4),
        ])]);
        assert_eq!(pending_ids(pending.clone()), ["1-0"]);
        assert_eq!((deliveries(pending), deliveries(list(vec![]))), (4, 1));
        let all = list(vec![
            Value::Int(3),
            bulk("1-0"),
            bulk("3-0"),
            list(vec![
                list(vec![bulk("a"), bulk("2")]),
                list(vec![bulk("b"), bulk("1")]),
            ]),
        ]);
        assert_eq!(holders(all), ["a", "b"]);
        let nothing = list(vec![Value::Int(0), Value::Nil, Value::Nil, Value::Nil]);
        assert!(holders(nothing).is_empty() && holders(Value::Nil).is_empty());
    }

    #[test]
    fn answers_about_groups_and_consumers() {
        let group = |name: &str, lag: Value| {
            list(vec![
                bulk("name"),
                bulk(name),
                bulk("pending"),
                Value::Int(3),
                bulk("lag"),
                lag,
            ])
        };
        let groups = || list(vec![group("a", Value::Int(7)), group("b", Value::Nil)]);
        let told = |waiting| {
            Some(Lag {
                waiting,
                unsettled: 3,
                dropped: 0,
                interruptions: 0,
            })
        };
        assert_eq!(
            (lag(groups(), "a"), lag(groups(), "b"), lag(groups(), "c")),
            (told(Some(7)), told(None), None)
        );
        let one = |name: &str, pending: i64, idle: i64| {
            list(vec![
                bulk("name"),
                bulk(name),
                bulk("pending"),
                Value::Int(pending),
                bulk("idle"),
                Value::Int(idle),
            ])
        };
        let consumers = list(vec![
            one("p-a", 0, 99),
            one("p-b", 1, 99),
            one("p-c", 0, 9),
            one("x", 0, 99),
        ]);
        assert_eq!(abandoned(consumers, "p-", 50), ["p-a"]);
    }
}
