//! Schemas and credentials, in a few words.

use super::markup::{escaped, inline};
use super::{fields, list, text};
use serde_json::Value;
use std::fmt::Write as _;

/// What a value is, in a few words.
pub fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        return format!("<a href=\"#shape-{0}\">{0}</a>", escaped(name));
    }
    if let Some(constant) = schema.get("const") {
        return format!("<code>{}</code>", escaped(&constant.to_string()));
    }
    let words = list(&schema["enum"]);
    if !words.is_empty() {
        let words: Vec<String> = words
            .iter()
            .map(|word| {
                format!(
                    "<code>{}</code>",
                    escaped(word.as_str().unwrap_or(&word.to_string()))
                )
            })
            .collect();
        return words.join(" | ");
    }
    for name in ["oneOf", "anyOf"] {
        let parts = list(&schema[name]);
        if !parts.is_empty() {
            return parts.iter().map(kind).collect::<Vec<_>>().join(" or ");
        }
    }
    if let [only] = list(&schema["allOf"]) {
        return kind(only);
    }
    let of = |name: &str| match name {
        "array" => format!("array of {}", kind(&schema["items"])),
        name => escaped(name),
    };
    match &schema["type"] {
        Value::String(name) => of(name),
        Value::Array(names) => {
            let names = names.iter().filter_map(Value::as_str).map(of);
            names.collect::<Vec<_>>().join(" or ")
        }
        _ if schema.get("properties").is_some() => "object".to_owned(),
        _ => "any JSON".to_owned(),
    }
}

/// The bounds of a value, and what is said of it.
pub fn after_kind(about: &str, schema: &Value) -> String {
    let mut bounds = Vec::new();
    let number = |name: &str| {
        schema
            .get(name)
            .filter(|value| value.is_number())
            .map(Value::to_string)
    };
    match (number("minimum"), number("maximum")) {
        (Some(least), Some(most)) => bounds.push(format!("{least} to {most}")),
        (Some(least), None) if least != "0" => bounds.push(format!("{least} or more")),
        (None, Some(most)) => bounds.push(format!("at most {most}")),
        _ => {}
    }
    bounds.extend(number("maxItems").map(|most| format!("at most {most}")));
    bounds.extend(number("maxLength").map(|most| format!("at most {most} long")));
    if let Some(default) = schema.get("default") {
        bounds.push(format!("default <code>{}</code>", escaped(&default.to_string())));
    }
    let mut out = String::new();
    if !bounds.is_empty() {
        let _written = write!(out, " <span class=\"bounds\">({})</span>", bounds.join(", "));
    }
    if !about.is_empty() {
        let _written = write!(out, "<br>{}", inline(about));
    }
    out
}

/// Who may call an operation.
pub fn who(security: &Value) -> String {
    let ways: Vec<String> = list(security)
        .iter()
        .flat_map(fields)
        .map(|(name, scopes)| {
            let scopes: Vec<String> = list(scopes)
                .iter()
                .map(|scope| format!(" with the scope <code>{}</code>", escaped(text(scope))))
                .collect();
            format!("{}{}", credential_name(name), scopes.concat())
        })
        .collect();
    match &ways[..] {
        [] => "anybody".to_owned(),
        ways => ways.join(", or "),
    }
}

/// What a security scheme is called.
pub fn credential_name(scheme: &str) -> &str {
    match scheme {
        "api_key" => "an API key",
        "user_token" => "a user token",
        "cookie" => "a user token in a cookie",
        "ticket" => "a ticket",
        other => other,
    }
}
