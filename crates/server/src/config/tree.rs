//! A configuration as a tree of JSON values, and its leaves by dotted key.

use super::Config;
use serde_json::{Map, Value};

/// The tree of a configuration. Secrets are `***` in it.
pub(super) fn of(config: &Config) -> Value {
    // Every field serialises, so there is no other case; null has no leaves.
    serde_json::to_value(config).unwrap_or_default()
}

/// What stands at a dotted key; null where there is nothing.
pub(super) fn get<'a>(tree: &'a Value, key: &str) -> &'a Value {
    key.split('.').fold(tree, |place, name| &place[name])
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
