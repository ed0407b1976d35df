//! The keys there are: those of this release, read off the configuration's own structs, and those that the
//! interface names for later.

use super::Config;
use postrider_model::{ByteSize, Millis};
use serde_json::{Map, Value, json};

/// Keys that hold secrets: no message repeats what stands there.
pub(super) const SECRET_KEYS: [&str; 2] = ["auth.jwt.hmac_secret", "auth.api_keys"];

/// Keys of the interface that do nothing in this release, with their defaults. They may be written out
/// with the default; anything else is refused, since it would promise what is not done.
pub(super) fn reserved() -> [(&'static str, Value); 16] {
    [
        ("http.tls.cert", Value::Null),
        ("http.tls.key", Value::Null),
        ("engine.redis.url", Value::Null),
        ("auth.jwt.jwks_url", Value::Null),
        ("limits.sessions_per_address", json!(0)),
        ("limits.publish_rate", json!(0)),
        ("retention.age", json!("30d")),
        ("retention.entries_per_feed", json!(100_000)),
        ("retention.bytes_per_feed", json!("0")),
        ("retention.total_bytes", json!("10GiB")),
        ("retention.audit", json!("90d")),
        ("dedupe.window", json!("24h")),
        ("delivery.ack_timeout", json!("30s")),
        ("delivery.max_attempts", json!(5)),
        ("delivery.max_total_attempts", json!(20)),
        ("inbox.broadcasts", json!("retained")),
    ]
}

/// The defaults as a tree.
pub(super) fn defaults() -> Value {
    serde_json::to_value(Config::default()).unwrap_or_default()
}

/// Every key of this release with its default, by the order of the alphabet.
pub(super) fn leaves(tree: &Value) -> Vec<(String, &Value)> {
    fn walk<'a>(path: &str, value: &'a Value, out: &mut Vec<(String, &'a Value)>) {
        match value {
            Value::Object(map) => {
                for (name, value) in map {
                    let path = if path.is_empty() {
                        name.clone()
                    } else {
                        format!("{path}.{name}")
                    };
                    walk(&path, value, out);
                }
            }
            _ => out.push((path.to_owned(), value)),
        }
    }
    let mut out = Vec::new();
    walk("", tree, &mut out);
    out.sort_by(|a, b| a.0.cmp(&b.0));
    out
}

/// Puts a value at a dotted key, making sections on the way.
pub(super) fn put(tree: &mut Value, key: &str, value: Value) {
    let mut place = tree;
    for name in key.split('.') {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        place = &mut place[name];
    }
    *place = value;
}

/// Whether two spellings of a default mean the same, e.g. `720h` and `30d`.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    let text = |value: &Value| match value {
        Value::String(text) => text.trim().to_owned(),
        other => other.to_string(),
    };
    let (a, b) = (text(a), text(b));
    let by_unit = match (Millis::parse(&a), Millis::parse(&b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => matches!((ByteSize::parse(&a), ByteSize::parse(&b)), (Ok(a), Ok(b)) if a == b),
    };
    a == b || by_unit
}

/// The known key that `key` was most likely meant to be.
pub(super) fn nearest<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|candidate| (distance(key, candidate), candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= candidate.len().max(key.len()) / 2)
        .map(|(_, candidate)| candidate)
}

/// Edit distance (Levenshtein) in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key() {
        let tree = defaults();
        let known = leaves(&tree);
        let near = |key: &str| nearest(key, known.iter().map(|(key, _)| key.as_str()));
        assert_eq!(near("http.lisen"), Some("http.listen"));
        assert_eq!(near("auth.jwt.secret"), Some("auth.jwt.hmac_secret"));
        assert_eq!(near("drain.time_out"), Some("drain.timeout"));
        assert_eq!(near("q"), None);
    }

    #[test]
    fn spellings_of_a_default() {
        assert!(same(&json!("720h"), &json!("30d")));
        assert!(same(&json!("0"), &json!(0)));
        assert!(same(&json!("10240MiB"), &json!("10GiB")));
        assert!(!same(&json!("31d"), &json!("30d")));
        assert!(!same(&json!("x"), &Value::Null));
    }
}
