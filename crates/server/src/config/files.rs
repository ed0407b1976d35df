//! Reads one configuration file. A fault says where in the file, and never repeats a line, which may hold a secret.

use super::properties::{self, Property};
use serde_json::Value;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// A configuration file is no larger than this.
const FILE_BYTES: u64 = 4 << 20;

/// What a file holds.
#[derive(Debug)]
pub(super) enum Content {
    /// YAML, JSON or TOML.
    Tree(Value),
    /// `.properties`: keys and texts.
    Properties(Vec<Property>),
}

/// Reads it by the ending of its name.
pub(super) fn read(path: &Path) -> Result<Content, String> {
    let file = open(path)?;
    let ending = path
        .extension()
        .and_then(|ending| ending.to_str())
        .unwrap_or_default();
    if !["yaml", "yml", "json", "toml", "properties"].contains(&ending) {
        return Err("the name must end in .yaml, .yml, .json, .toml or .properties".into());
    }
    content(ending, &text(file)?)
}

/// What a text is, by the ending of its file's name.
pub(super) fn content(ending: &str, text: &str) -> Result<Content, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match ending {
        "properties" => properties::parse(text)
            .map(Content::Properties)
            .map_err(|(line, what)| format!("line {line}: {what}")),
        "toml" => toml::from_str(text)
            .map(Content::Tree)
            .map_err(|error| toml_fault(text, &error)),
        _ if text.trim().is_empty() => Ok(Content::Tree(Value::Null)),
        "json" => json(text).map(Content::Tree),
        _ => serde_saphyr::from_str(text)
            .map(Content::Tree)
            .map_err(|error| yaml_fault(text, &error)),
    }
}

fn unread(error: io::Error) -> String {
    format!("cannot be read: {error}")
}

fn open(path: &Path) -> Result<File, String> {
    let file = File::open(path).map_err(unread)?;
    if file.metadata().map_err(unread)?.is_dir() {
        return Err("is a directory; give the file itself".into());
    }
    Ok(file)
}

fn text(file: File) -> Result<String, String> {
    let mut bytes = Vec::new();
    file.take(FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(unread)?;
    if bytes.len() as u64 > FILE_BYTES {
        return Err(format!("has more than {FILE_BYTES} bytes"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
        format!("is not UTF-8 (line {line})")
    })
}

/// JSON proper; the YAML parser, which reads JSON as well, finds keys that are given twice.
fn json(text: &str) -> Result<Value, String> {
    let fault = |line, column| format!("not valid JSON at line {line}, column {column}");
    let value = serde_json::from_str(text).map_err(|e| fault(e.line(), e.column()))?;
    match serde_saphyr::from_str::<Value>(text) {
        Err(error) if twice(&error).is_some() => Err(yaml_fault(text, &error)),
        _ => Ok(value),
    }
}

fn yaml_fault(text: &str, error: &serde_saphyr::Error) -> String {
    let Some(at) = error.location() else {
        return "not valid YAML".into();
    };
    if let Some(key) = twice(error) {
        return format!("line {}: {key} is given twice", at.line());
    }
    if matches!(
        error.without_snippet(),
        serde_saphyr::Error::MultipleDocuments { .. }
    ) {
        return format!("line {}: stands in a second document; one is read", at.line());
    }
    let hint = indentation_hint(text, at.line() as usize).unwrap_or_default();
    format!(
        "not valid YAML at line {}, column {}{hint}",
        at.line(),
        at.column()
    )
}

/// What is wrong before the first word of a line, if anything is.
fn indentation_hint(text: &str, line: usize) -> Option<&'static str> {
    let indent = |line: &str| line.len() - line.trim_start_matches([' ', '\t']).len();
    let above = || {
        text.lines()
            .take(line.saturating_sub(1))
            .filter(|line| !line.trim().is_empty())
    };
    let line = text.lines().nth(line.checked_sub(1)?)?;
    if line[..indent(line)].contains('\t') {
        return Some(": a tab stands before the first word; indent with spaces");
    }
    let is_less = above().last().is_some_and(|last| indent(line) < indent(last));
    let is_new = above().all(|other| indent(other) != indent(line));
    (is_less && is_new).then_some(": it is indented like no line above it")
}

/// The key that is given twice, where that is the fault.
fn twice(error: &serde_saphyr::Error) -> Option<String> {
    match error.without_snippet() {
        serde_saphyr::Error::DuplicateMappingKey { key, .. } => Some(
            key.as_ref()
                .map_or_else(|| "a key".into(), |key| format!("`{key}`")),
        ),
        _ => None,
    }
}

fn toml_fault(text: &str, error: &toml::de::Error) -> String {
    let start = error.span().map_or(0, |span| span.start.min(text.len()));
    let line = 1 + text.as_bytes()[..start]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count();
    format!("not valid TOML at line {line}: {}", error.message())
}
