//! Writes the configuration in force, with the place of every value: itself a valid YAML file, but for secrets.

use super::key::{Kind, keys};
use super::layers::Loaded;
use super::{named, tree};
use serde_json::Value;

/// Every key in order, with its value (secrets as `***`) and where that came from.
pub fn entries(loaded: &Loaded) -> Vec<(String, Value, String)> {
    let tree = tree::of(&loaded.config);
    let fixed = keys().iter().map(|key| {
        let reference = loaded.references.get(&key.name);
        let value = match (&key.kind, reference) {
            // As it was given, instead of what the file holds.
            (Kind::Pem, Some(reference)) => Value::String(reference.clone()),
            _ => tree::get(&tree, &key.name).clone(),
        };
        let origin = loaded.origins.get(&key.name).map_or("default", String::as_str);
        let from = reference
            .map(|reference| format!(", from {reference}"))
            .unwrap_or_default();
        (key.name.clone(), value, format!("{origin}{from}"))
    });
    let of_named = named::keys_in(&tree).into_iter().map(|(name, value)| {
        let origin = loaded
            .origins
            .get(&name)
            .map_or("default", String::as_str)
            .to_owned();
        (name, value, origin)
    });
    fixed.chain(of_named).collect()
}

/// One line per key: `key: value  # where it came from`. Secrets show as `***`.
pub fn show(loaded: &Loaded) -> String {
    let lines: Vec<(String, String)> = entries(loaded)
        .into_iter()
        .map(|(key, value, origin)| (format!("{key}: {value}"), origin))
        .collect();
    let widths = lines.iter().map(|(line, _)| line.chars().count());
    let width = widths.filter(|n| *n <= 60).max().unwrap_or(0);
    lines
        .iter()
        .map(|(line, origin)| format!("{line:<width$}  # {origin}\n"))
        .collect()
}
