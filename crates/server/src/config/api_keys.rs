//! The list `auth.api_keys`: its shape, and the secrets in it. Says what is wrong without repeating any of it.

use super::nearest::nearest;
use super::secret::HIDDEN;
use super::value::kind;
use crate::auth::Scope;
use serde_json::{Map, Value};

const SHAPE: &str = r#"must be a list such as [{"name": "shop", "key": "…", "scopes": ["publish"]}]"#;
const FIELDS: [&str; 3] = ["name", "key", "scopes"];

/// Whether it is a list of API keys.
pub(super) fn check(value: &Value) -> Result<(), String> {
    let entries = value
        .as_array()
        .ok_or_else(|| format!("{SHAPE}, not {}", kind(value)))?;
    for (i, entry) in entries.iter().enumerate() {
        let entry = entry
            .as_object()
            .ok_or_else(|| format!("{SHAPE}; entry {i} is {}", kind(entry)))?;
        check_fields(i, entry)?;
        check_scopes(i, &entry["scopes"])?;
    }
    Ok(())
}

fn check_fields(i: usize, entry: &Map<String, Value>) -> Result<(), String> {
    if let Some(name) = entry.keys().find(|name| !FIELDS.contains(&name.as_str())) {
        let near = nearest(name, FIELDS.into_iter()).map(|near| format!("; the nearest is `{near}`"));
        return Err(format!(
            "entry {i} has the unknown field `{name}`{}",
            near.unwrap_or_default()
        ));
    }
    if let Some(name) = FIELDS.iter().find(|name| !entry.contains_key(**name)) {
        return Err(format!("{SHAPE}; entry {i} has no `{name}`"));
    }
    for name in ["name", "key"] {
        match &entry[name] {
            Value::String(text) if text.is_empty() => return Err(format!("entry {i} has an empty {name}")),
            Value::String(text) if name == "key" && text == HIDDEN => {
                return Err(format!(
                    "the key of entry {i} is {HIDDEN}, which stands for one that was not shown"
                ));
            }
            Value::String(_) => {}
            Value::Number(_) | Value::Bool(_) => {
                let kind = kind(&entry[name]);
                return Err(format!(
                    "`{name}` of entry {i} must be a text, not {kind}; write it in quotes"
                ));
            }
            other => {
                return Err(format!(
                    "`{name}` of entry {i} must be a text, not {}",
                    kind(other)
                ));
            }
        }
    }
    Ok(())
}

fn check_scopes(i: usize, scopes: &Value) -> Result<(), String> {
    let known = || Scope::ALL.iter().map(|scope| scope.as_str());
    let scopes = scopes.as_array().ok_or_else(|| {
        format!(
            "`scopes` of entry {i} must be a list such as [\"publish\"], not {}",
            kind(scopes)
        )
    })?;
    let is_known = |scope: &Value| known().any(|name| scope.as_str() == Some(name));
    let Some(unknown) = scopes.iter().find(|scope| !is_known(scope)) else {
        return Ok(());
    };
    let near = unknown.as_str().and_then(|text| nearest(text, known()));
    let near = near
        .map(|near| format!("; the nearest is `{near}`"))
        .unwrap_or_default();
    let list = known().collect::<Vec<_>>().join(", ");
    Err(format!("entry {i} has an unknown scope; there are {list}{near}"))
}

/// The keys themselves, in a list that [`check`] has found good.
pub(super) fn secrets(value: &mut Value) -> impl Iterator<Item = &mut Value> {
    let entries = value.as_array_mut().into_iter().flatten();
    entries.filter_map(|entry| entry.get_mut("key"))
}
