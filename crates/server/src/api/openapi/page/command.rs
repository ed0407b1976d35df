//! An operation as a command to paste into a shell.

use super::{Spot, fields, list, text};
use serde_json::Value;
use std::fmt::Write as _;

/// The request as a command.
pub fn curl(spot: &Spot<'_>) -> String {
    let operation = spot.operation;
    let mut path = spot.path.to_owned();
    for parameter in list(&operation["parameters"]) {
        if parameter["in"] == "path" {
            let example = parameter["example"].as_str().unwrap_or("…");
            path = path.replace(&format!("{{{}}}", text(&parameter["name"])), example);
        }
    }
    let mut command = String::from("curl");
    match spot.method {
        "get" if path.ends_with("/stream") => command.push_str(" -N"),
        "get" => {}
        method => {
            let _written = write!(command, " -X {}", method.to_uppercase());
        }
    }
    let _written = write!(
        command,
        " {}{path}",
        spot.server.unwrap_or("http://127.0.0.1:8080")
    );
    let first = list(&operation["security"]).first().cloned().unwrap_or_default();
    if first.get("api_key").is_some() {
        command.push_str(" \\\n  -H \"Authorization: Bearer $KEY\"");
    } else if first.get("user_token").is_some() {
        command.push_str(" \\\n  -H \"Authorization: Bearer $TOKEN\"");
    }
    if let Some((media_type, content)) = fields(&operation["requestBody"]["content"]).next()
        && let Some((_, example)) = fields(&content["examples"]).next()
    {
        let body = match &example["value"] {
            Value::String(lines) => lines.clone(),
            json => json.to_string(),
        };
        let _written = write!(
            command,
            " \\\n  -H 'Content-Type: {media_type}' \\\n  -d '{}'",
            body.replace('\'', r"'\''")
        );
    }
    command
}
