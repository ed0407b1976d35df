//! The configuration as JSON Schema (2020-12), for editors: they complete keys and underline what is wrong.
//!
//! It accepts what the files accept: keys nested, and whole dotted keys at the top. It is looser only where JSON
//! Schema has no word: the range of a duration or size that has a unit, and rules between keys.

use super::Config;
use super::key::{Key, Kind, keys, sections};
use postrider_model::Millis;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

/// As it comes off the structs, everything inline.
pub(super) fn raw() -> Value {
    raw_of::<Config>()
}

/// The same of a part.
pub(super) fn raw_of<T: schemars::JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

/// The schema of a configuration file in YAML, TOML or JSON.
pub fn schema() -> Value {
    let mut schema = raw();
    tidy(&mut schema);
    for section in sections() {
        if let Some(Value::Object(node)) = schema.pointer_mut(&pointer(&section.name)) {
            // Its keys have theirs; and in YAML a section may be there and empty.
            node.remove("default");
            node.insert("type".into(), json!(["object", "null"]));
        }
    }
    for key in keys() {
        let Some(leaf) = schema.pointer_mut(&pointer(&key.name)) else {
            continue;
        };
        finish(leaf, key);
        let leaf = leaf.clone();
        if key.name.contains('.') {
            schema["properties"][&key.name] = leaf;
        }
    }
    schema["patternProperties"] = json!({ "^(sources|channels)\\.": true });
    schema["title"] = json!("Postrider configuration");
    schema
}

fn pointer(key: &str) -> String {
    format!("/properties/{}", key.replace('.', "/properties/"))
}

/// Takes out what editors have no use for.
fn tidy(node: &mut Value) {
    if let Value::Object(map) = node {
        map.retain(|word, _| !word.starts_with("x-") && word != "format");
        if let Some(text) = map.get("description").and_then(Value::as_str) {
            let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
            map.insert("description".into(), line.into());
        }
    }
    match node {
        Value::Object(map) => map.values_mut().for_each(tidy),
        Value::Array(list) => list.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// Puts in what only the key knows: its range in words, and the bounds of a bare number.
fn finish(leaf: &mut Value, key: &Key) {
    let Value::Object(leaf) = leaf else { return };
    if key.kind == Kind::Later {
        leaf.insert("type".into(), json!("null"));
    }
    if let (Kind::Duration | Kind::Size, Some(range)) = (&key.kind, key.range()) {
        let meaning = format!("{} From {} to {}.", key.meaning, range.0, range.1);
        leaf.insert("description".into(), meaning.into());
        bare_number(leaf, key);
    }
    if matches!(key.kind, Kind::Text | Kind::Path | Kind::Secret | Kind::Pem) {
        leaf.insert("minLength".into(), json!(1));
    }
    leaf.insert("default".into(), key.default.clone());
}

/// A bare number is seconds, or bytes.
fn bare_number(leaf: &mut Map<String, Value>, key: &Key) {
    for (word, bound) in [("minimum", &key.minimum), ("maximum", &key.maximum)] {
        let Some(bound) = bound.as_ref().and_then(|bound| key.measure(bound)) else {
            continue;
        };
        let per_unit = if key.kind == Kind::Duration {
            Millis::from_secs(1).0
        } else {
            1
        };
        let number = if word == "minimum" {
            bound.div_ceil(per_unit)
        } else {
            bound / per_unit
        };
        leaf.insert(word.into(), number.into());
    }
}
