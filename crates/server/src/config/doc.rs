//! The reference: every key with its kind, default, range, meaning and variable, as a page or as a file of comments.
//!
//! Both are written from the definition of the keys alone. `docs/configuration.md` is [`reference_page`], letter by
//! letter; a test says so when it is not.

use super::key::{Choice, Key, Kind, Section, keys, sections};
use super::named::{MAPS, NamedMap};
use super::presets;
use serde_json::Value;
use std::fmt::Write as _;

/// What the page says before the keys.
const HEAD: &str = include_str!("../../assets/configuration_head.md");
/// Comments are broken before this column.
const COMMENT_COLUMNS: usize = 110;

/// The reference as Markdown.
pub fn reference_page() -> String {
    let mut page = HEAD.to_owned();
    let top = keys().iter().filter(|key| !key.name.contains('.'));
    top.for_each(|key| page.push_str(&entry(key)));
    for section in sections() {
        let mut own = own_keys(section).peekable();
        if own.peek().is_some() {
            let Section { name, meaning } = section;
            // Writing to a String cannot fail.
            write!(page, "\n## `{name}.*`\n\n{meaning}\n").unwrap_or_default();
            own.for_each(|key| page.push_str(&entry(key)));
        }
    }
    MAPS.iter().for_each(|map| page.push_str(&of_map(map)));
    page.push_str(&presets::chapter());
    page
}

/// The keys of what has names of the operator's choice, by type.
fn of_map(map: &NamedMap) -> String {
    let NamedMap { section, about, .. } = map;
    let mut page = format!(
        "\n## `{section}.NAME.*`\n\n{about}\n\n### `{section}.NAME.type`\n\nWhat it is; always needed.\n"
    );
    for one in map.types.iter() {
        page.push_str(&format!("\n- `{}`: {}", one.word, one.meaning));
    }
    page.push('\n');
    for one in map.types.iter() {
        page.push_str(&format!("\n### Of the type `{}`\n", one.word));
        for key in &one.keys {
            page.push_str(
                &entry(key)
                    .replacen("\n### `", "\n#### `", 1)
                    .replace(&format!(" · variable `{}`", key.variable()), ""),
            );
        }
    }
    page
}

/// The keys right in a section, not in one within it.
fn own_keys(section: &Section) -> impl Iterator<Item = &'static Key> {
    let name = section.name.clone();
    keys().iter().filter(move |key| {
        key.name
            .rsplit_once('.')
            .is_some_and(|(parent, _)| parent == name)
    })
}

fn entry(key: &Key) -> String {
    let Key { name, meaning, .. } = key;
    let facts = [
        key.kind_in_words(),
        format!("default {}", key.default_in_words()),
        key.range()
            .map(|(least, most)| format!("`{least}` to `{most}`"))
            .unwrap_or_default(),
        format!("variable `{}`", key.variable()),
    ];
    let facts: Vec<_> = facts.into_iter().filter(|fact| !fact.is_empty()).collect();
    let mut out = format!("\n### `{name}`\n\n{meaning}\n\n{}\n", facts.join(" · "));
    if let Kind::Choice(choices) | Kind::ApiKeys(choices) = &key.kind {
        let told = choices.iter().filter(|choice| !choice.meaning.is_empty());
        let lines = told
            .map(|Choice { word, meaning }| format!("\n- `{word}`: {meaning}"))
            .collect::<String>();
        if !lines.is_empty() {
            out.push_str(&lines);
            out.push('\n');
        }
    }
    out
}

/// A YAML file in which every key is commented out at its default: taking `#` away from a line sets that key.
pub fn commented_defaults() -> String {
    let mut out = String::from(
        "## Postrider's configuration: every key, at its default. Take the # away from a line to set its key.\n\
         ## A dotted key means the same as nested ones. The reference, with ranges: postrider config doc\n",
    );
    let top = keys().iter().filter(|key| !key.name.contains('.'));
    top.for_each(|key| out.push_str(&commented(key)));
    for section in sections() {
        own_keys(section).for_each(|key| out.push_str(&commented(key)));
    }
    out
}

fn commented(key: &Key) -> String {
    let range = key
        .range()
        .map(|(least, most)| format!(", {least} to {most}"))
        .unwrap_or_default();
    let words = format!(
        "{} ({}{range})",
        key.meaning,
        key.kind_in_words().replace('`', "")
    );
    let mut out = String::from("\n");
    let mut line = String::from("##");
    for word in words.split_whitespace() {
        if line.len() + 1 + word.len() > COMMENT_COLUMNS {
            out.push_str(&line);
            out.push('\n');
            line = String::from("##");
        }
        line.push(' ');
        line.push_str(word);
    }
    format!("{out}{line}\n#{}: {}\n", key.name, key.default)
}

impl Key {
    /// The least and the greatest value, as one would write them.
    pub fn range(&self) -> Option<(String, String)> {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Some((text(self.minimum.as_ref()?), text(self.maximum.as_ref()?)))
    }

    fn kind_in_words(&self) -> String {
        match &self.kind {
            Kind::Duration => "duration".into(),
            Kind::Size => "size".into(),
            Kind::Integer => "whole number".into(),
            Kind::Boolean => "`true` or `false`".into(),
            Kind::Text => "text".into(),
            Kind::Address => "IP address and port".into(),
            Kind::Path => "path".into(),
            Kind::Secret => "secret, or `file:PATH` or `env:NAME`".into(),
            Kind::Pem => "PEM text, or `file:PATH` or `env:NAME`".into(),
            Kind::Choice(choices) => {
                let words: Vec<_> = choices
                    .iter()
                    .map(|choice| format!("`{}`", choice.word))
                    .collect();
                words.join(" or ")
            }
            Kind::OneOrMany => "text, or list of texts".into(),
            Kind::Texts => "list of texts".into(),
            Kind::ApiKeys(_) => "list of `{name, key, scopes}`".into(),
            Kind::RedisDurability => "`none` or `wait:N` or `aof`".into(),
            Kind::Later => "not in this release".into(),
        }
    }

    fn default_in_words(&self) -> String {
        match &self.default {
            Value::Null => "unset".into(),
            Value::String(text) => format!("`{text}`"),
            other => format!("`{other}`"),
        }
    }
}

#[cfg(test)]
#[path = "doc_tests.rs"]
mod tests;
