//! Reads one value of one key, and says in an operator's words what is wrong with it.
//!
//! No message repeats a secret. References to secrets are not followed here.

use super::key::{Choice, Key, Kind};
use super::nearest::nearest;
use super::redis::RedisDurability;
use super::secret::HIDDEN;
use postrider_model::{ByteSize, Millis};
use serde_json::Value;
use std::net::SocketAddr;

/// A message repeats no more characters than this of a value.
const SHOWN_CHARS: usize = 60;

impl Key {
    /// A value of a file: is it one that this key takes?
    pub fn check(&self, value: &Value) -> Result<(), String> {
        if value.is_null() {
            return match self.is_optional {
                true => Ok(()),
                false => Err("has no value; give one, or leave the key out".into()),
            };
        }
        match &self.kind {
            Kind::Duration => check_duration(value, &self.default)?,
            Kind::Size => check_size(value, &self.default)?,
            Kind::Integer => check_integer(value)?,
            Kind::Boolean => check_boolean(value)?,
            Kind::Text => check_text(value)?,
            Kind::Address => check_address(value)?,
            Kind::Path => check_path(value)?,
            Kind::Secret => check_secret(value)?,
            Kind::Pem => check_pem(value)?,
            Kind::Choice(choices) => self.check_choice(choices, value)?,
            Kind::OneOrMany if value.is_array() => check_texts(value)?,
            Kind::OneOrMany => check_text(value)?,
            Kind::Texts => check_texts(value)?,
            Kind::ApiKeys(_) => super::api_keys::check(value)?,
            Kind::RedisDurability => check_durability(value)?,
            Kind::Later => return Err("not in this release; leave it unset".into()),
        }
        self.check_range(value)
    }

    /// A value of a place that has only text (a variable, `--set`, `.properties`): lists are JSON, `null` unsets.
    pub fn value_of(&self, text: &str) -> Value {
        let is_json = match self.kind {
            Kind::Integer | Kind::Boolean | Kind::Texts | Kind::ApiKeys(_) => true,
            Kind::OneOrMany => text.trim_start().starts_with('['),
            // A bare number of seconds or bytes.
            Kind::Duration | Kind::Size => !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()),
            _ => self.is_optional && text == "null",
        };
        let json = if is_json {
            serde_json::from_str(text.trim()).ok()
        } else {
            None
        };
        json.unwrap_or_else(|| Value::String(text.to_owned()))
    }

    fn check_choice(&self, choices: &[Choice], value: &Value) -> Result<(), String> {
        let words = || choices.iter().map(|choice| choice.word.as_str());
        let list = words()
            .map(|word| format!("`{word}`"))
            .collect::<Vec<_>>()
            .join(", ");
        let Some(text) = value.as_str() else {
            return Err(format!("must be one of {list}, not {}", said(value)));
        };
        if words().any(|word| word == text) {
            return Ok(());
        }
        if self.later.iter().any(|word| word == text) {
            return Err(format!("`{text}` is not in this release; there are {list}"));
        }
        let near = nearest(text, words()).map(|word| format!("; the nearest is `{word}`"));
        Err(format!(
            "must be one of {list}, not {}{}",
            said(value),
            near.unwrap_or_default()
        ))
    }

    fn check_range(&self, value: &Value) -> Result<(), String> {
        let Some(measured) = self.measure(value) else {
            return Ok(());
        };
        for (bound, is_least) in [(&self.minimum, true), (&self.maximum, false)] {
            let Some(bound) = bound else { continue };
            let Some(limit) = self.measure(bound) else {
                continue;
            };
            if is_least && measured < limit {
                return Err(format!("must be at least {}, not {}", bare(bound), bare(value)));
            }
            if !is_least && measured > limit {
                return Err(format!("must be at most {}, not {}", bare(bound), bare(value)));
            }
        }
        Ok(())
    }

    /// A number that can be compared: milliseconds, bytes, or the number itself.
    pub fn measure(&self, value: &Value) -> Option<u64> {
        match self.kind {
            Kind::Duration => duration(value).map(|span| span.0),
            Kind::Size => size(value).map(|size| size.0),
            Kind::Integer => value.as_u64(),
            _ => None,
        }
    }
}

/// A value as a message names it: short, on one line.
pub(super) fn said(value: &Value) -> String {
    match value {
        Value::String(text) if text.chars().count() > SHOWN_CHARS => {
            format!("\"{}…\"", text.chars().take(SHOWN_CHARS).collect::<String>())
        }
        Value::String(_) | Value::Number(_) | Value::Bool(_) => value.to_string(),
        other => kind(other).into(),
    }
}

/// A text as a message names it.
pub(super) fn quoted(text: &str) -> String {
    said(&Value::from(text))
}

/// An address as a message names it: without the user and the password that somebody may have written into it.
pub(super) fn quoted_url(url: &str) -> String {
    match url.rsplit_once('@') {
        Some((_, host)) => quoted(&format!("…@{host}")),
        None => quoted(url),
    }
}

/// A text without its quotes.
fn bare(value: &Value) -> String {
    value.as_str().map_or_else(|| said(value), str::to_owned)
}

/// What sort of value it is.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

fn duration(value: &Value) -> Option<Millis> {
    serde_json::from_value(value.clone()).ok()
}

fn size(value: &Value) -> Option<ByteSize> {
    serde_json::from_value(value.clone()).ok()
}

fn check_duration(value: &Value, default: &Value) -> Result<(), String> {
    if duration(value).is_some() {
        return Ok(());
    }
    let units = [
        ("ms", &["msec", "millis", "milliseconds", "MS", "Ms"] as &[&str]),
        ("s", &["sec", "secs", "second", "seconds", "S"]),
        ("m", &["min", "mins", "minute", "minutes", "M"]),
        ("h", &["hr", "hrs", "hour", "hours", "H"]),
        ("d", &["day", "days", "D"]),
    ];
    let hint = other_unit(value, &units);
    Err(format!(
        "must be a duration such as {} (units ms, s, m, h, d; a bare number is seconds), not {}{hint}",
        bare(default),
        said(value)
    ))
}

fn check_size(value: &Value, default: &Value) -> Result<(), String> {
    if size(value).is_some() {
        return Ok(());
    }
    let units = [
        ("B", &["b", "byte", "bytes"] as &[&str]),
        ("KiB", &["k", "K", "kb", "KB", "kB", "kib", "KIB"]),
        ("MiB", &["m", "M", "mb", "MB", "mib", "MIB"]),
        ("GiB", &["g", "G", "gb", "GB", "gib", "GIB"]),
        ("TiB", &["t", "T", "tb", "TB", "tib", "TIB"]),
    ];
    let hint = other_unit(value, &units);
    let example = if bare(default) == "0B" {
        "1GiB".into()
    } else {
        bare(default)
    };
    Err(format!(
        "must be a size such as {example} (units B, KiB, MiB, GiB, TiB; a bare number is bytes), not {}{hint}",
        said(value)
    ))
}

/// `; write 16MiB` for a number with a unit of another spelling.
fn other_unit(value: &Value, units: &[(&str, &[&str])]) -> String {
    let text = value.as_str().unwrap_or_default().trim();
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (number, spelling) = text.split_at(end);
    if spelling.is_empty() && number.parse::<u64>().is_ok() {
        return format!("; write {number} without quotes, or with its unit");
    }
    let unit = units
        .iter()
        .find(|(_, spellings)| spellings.contains(&spelling.trim()));
    match unit {
        Some((unit, _)) if number.parse::<f64>().is_ok() => format!("; write {number}{unit}"),
        _ => String::new(),
    }
}

fn check_integer(value: &Value) -> Result<(), String> {
    if value.is_u64() {
        return Ok(());
    }
    let is_quoted = value.as_str().is_some_and(|text| text.parse::<u64>().is_ok());
    let hint = if is_quoted {
        "; write it without quotes"
    } else {
        ""
    };
    Err(format!("must be a whole number, not {}{hint}", said(value)))
}

fn check_boolean(value: &Value) -> Result<(), String> {
    if value.is_boolean() {
        return Ok(());
    }
    let is_quoted = matches!(value.as_str(), Some("true" | "false"));
    let hint = if is_quoted {
        "; write it without quotes"
    } else {
        ""
    };
    Err(format!("must be true or false, not {}{hint}", said(value)))
}

fn check_text(value: &Value) -> Result<(), String> {
    match value {
        Value::String(text) if text.is_empty() => Err("is empty; give a value, or leave the key out".into()),
        Value::String(_) => Ok(()),
        Value::Number(_) | Value::Bool(_) => {
            Err(format!("must be a text, not {}; write it in quotes", kind(value)))
        }
        other => Err(format!("must be a text, not {}", kind(other))),
    }
}

fn check_address(value: &Value) -> Result<(), String> {
    let text = value.as_str().unwrap_or_default();
    if text.parse::<SocketAddr>().is_ok() {
        return Ok(());
    }
    let hint = match text.rsplit_once(':') {
        Some(("", port)) if port.parse::<u16>().is_ok() => {
            format!("; write 0.0.0.0:{port} for all addresses, 127.0.0.1:{port} for this machine only")
        }
        Some(("localhost", port)) => format!("; names are not looked up: write 127.0.0.1:{port}"),
        Some((_, port)) if port.parse::<u32>().is_ok_and(|port| port > 65535) => {
            "; ports end at 65535".into()
        }
        _ => String::new(),
    };
    let said = said(value);
    Err(format!(
        "must be an IP address and a port such as 127.0.0.1:8080, not {said}{hint}"
    ))
}

fn check_path(value: &Value) -> Result<(), String> {
    check_text(value)?;
    match value.as_str() {
        Some(text) if text.starts_with('~') => {
            Err("begins with ~, which only a shell knows; write the whole path".into())
        }
        _ => Ok(()),
    }
}

fn check_secret(value: &Value) -> Result<(), String> {
    check_text(value)?;
    match value.as_str() {
        Some(HIDDEN) => Err(format!(
            "is {HIDDEN}, which stands for a secret that was not shown"
        )),
        _ => Ok(()),
    }
}

fn check_durability(value: &Value) -> Result<(), String> {
    let text = value.as_str().unwrap_or_default();
    let checked = RedisDurability::parse(text).map(drop);
    checked.map_err(|what| format!("{what}, not {}", said(value)))
}

fn check_pem(value: &Value) -> Result<(), String> {
    check_text(value)
}

fn check_texts(value: &Value) -> Result<(), String> {
    const SHAPE: &str = "must be a list of texts such as [\"first\", \"second\"]";
    let Some(entries) = value.as_array() else {
        return Err(format!("{SHAPE}, not {}", said(value)));
    };
    match entries.iter().position(|entry| !entry.is_string()) {
        Some(i) => Err(format!("{SHAPE}; entry {i} is {}", kind(&entries[i]))),
        None => Ok(()),
    }
}
