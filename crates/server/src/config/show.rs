//! Writes the configuration in force, with the place of every value: itself a valid YAML file.

use super::keys;
use super::layers::Loaded;

/// One line per key: `key: value  # where it came from`. Secrets show as `***`.
pub fn show(loaded: &Loaded) -> String {
    let tree = serde_json::to_value(&loaded.config).unwrap_or_default();
    let lines: Vec<(String, &str)> = keys::leaves(&tree)
        .into_iter()
        .map(|(key, value)| {
            let origin = loaded.origins.get(&key).map_or("default", String::as_str);
            (format!("{key}: {value}"), origin)
        })
        .collect();
    let width = lines
        .iter()
        .map(|(line, _)| line.chars().count())
        .filter(|n| *n <= 60)
        .max()
        .unwrap_or(0);
    lines
        .iter()
        .map(|(line, origin)| format!("{line:<width$}  # {origin}\n"))
        .collect()
}
