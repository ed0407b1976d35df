//! The keys there are, read off the configuration's own structs: name, kind, range, default and meaning.
//!
//! Invariant: every leaf of [`Config`] is one key, with a meaning, and with a range where it is a number.

use super::{Config, schema, tree};
use serde_json::Value;
use std::sync::LazyLock;

/// What a key takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// A length of time with its unit.
    Duration,
    /// A number of bytes with its unit.
    Size,
    /// A whole number.
    Integer,
    /// True or false.
    Boolean,
    /// Any text but an empty one.
    Text,
    /// An IP address and a port.
    Address,
    /// A path of the file system.
    Path,
    /// A text that no message and no page repeats; or a reference to where it stands.
    Secret,
    /// A public key; or a reference to where it stands.
    Pem,
    /// One of these words.
    Choice(Vec<Choice>),
    /// A text, or a list of texts.
    OneOrMany,
    /// A list of texts.
    Texts,
    /// The list of API keys, each with these fields.
    ApiKeys(Vec<Choice>),
    /// `none`, `wait:N` or `aof`.
    RedisDurability,
    /// Nothing in this release.
    Later,
}

/// One word that a key takes, or one field of its entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choice {
    pub word: String,
    /// What it means; empty where the word says it.
    pub meaning: String,
}

/// One key.
#[derive(Debug, Clone)]
pub(super) struct Key {
    /// The dotted name.
    pub name: String,
    pub kind: Kind,
    /// Whether it may be unset.
    pub is_optional: bool,
    /// The least value, in the form that the key takes.
    pub minimum: Option<Value>,
    /// The greatest value.
    pub maximum: Option<Value>,
    /// Words that a later release will take.
    pub later: Vec<String>,
    pub default: Value,
    /// What it does: the doc comment of its field, on one line.
    pub meaning: String,
}

/// A group of keys.
#[derive(Debug, Clone)]
pub(super) struct Section {
    pub name: String,
    pub meaning: String,
}

/// All keys, by the alphabet.
pub(super) fn keys() -> &'static [Key] {
    &DEFINITION.0
}

/// All sections, by the alphabet.
pub(super) fn sections() -> &'static [Section] {
    &DEFINITION.1
}

/// The key of this name.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    keys()
        .iter()
        .find(|key| key.name == name)
        .or_else(|| super::named::find(name))
}

/// Whether this is the name of a group of keys.
pub(super) fn is_section(name: &str) -> bool {
    sections().iter().any(|section| section.name == name)
}

static DEFINITION: LazyLock<(Vec<Key>, Vec<Section>)> = LazyLock::new(|| {
    let mut definition = (Vec::new(), Vec::new());
    let defaults = tree::of(&Config::default());
    walk("", &schema::raw(), &defaults, &mut definition);
    definition
});

fn walk(path: &str, node: &Value, defaults: &Value, (keys, sections): &mut (Vec<Key>, Vec<Section>)) {
    let Some(properties) = node["properties"].as_object() else {
        keys.push(Key::read_schema(path, node, tree::get(defaults, path).clone()));
        return;
    };
    if !path.is_empty() {
        let (name, meaning) = (path.to_owned(), meaning(node));
        sections.push(Section { name, meaning });
    }
    let mut out = (std::mem::take(keys), std::mem::take(sections));
    for (name, node) in properties {
        if path.is_empty() && super::named::is_section(name) {
            continue; // Its keys depend on names.
        }
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        walk(&path, node, defaults, &mut out);
    }
    (*keys, *sections) = out;
}

/// A doc comment on one line.
fn meaning(node: &Value) -> String {
    let text = node["description"].as_str().unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Key {
    pub fn read_schema(name: &str, node: &Value, default: Value) -> Key {
        let bound = |word: &str| {
            let bound = [format!("x-{word}"), word.to_owned()];
            bound
                .iter()
                .map(|word| &node[word])
                .find(|bound| !bound.is_null())
                .cloned()
        };
        let later = node["x-later"].as_array().into_iter().flatten();
        Key {
            name: name.to_owned(),
            kind: Kind::read_schema(node),
            is_optional: types(node).any(|name| name == "null"),
            minimum: bound("minimum"),
            maximum: bound("maximum"),
            later: later.filter_map(Value::as_str).map(str::to_owned).collect(),
            default,
            meaning: meaning(node),
        }
    }

    /// The variable that sets it.
    pub fn variable(&self) -> String {
        variable(&self.name)
    }
}

/// Variables of this prefix are configuration.
pub(super) const ENV_PREFIX: &str = "POSTRIDER_";

/// The variable of a dotted key.
pub(super) fn variable(key: &str) -> String {
    format!("{ENV_PREFIX}{}", key.replace('.', "__").to_ascii_uppercase())
}

impl Kind {
    fn read_schema(node: &Value) -> Kind {
        match node["x-type"].as_str() {
            Some("duration") => return Kind::Duration,
            Some("size") => return Kind::Size,
            Some("address") => return Kind::Address,
            Some("path") => return Kind::Path,
            Some("secret") => return Kind::Secret,
            Some("pem") => return Kind::Pem,
            Some("one-or-many") => return Kind::OneOrMany,
            Some("redis-durability") => return Kind::RedisDurability,
            Some("later") => return Kind::Later,
            _ => {}
        }
        let choices = choices(node);
        match types(node).next() {
            _ if !choices.is_empty() => Kind::Choice(choices),
            Some("integer") => Kind::Integer,
            Some("boolean") => Kind::Boolean,
            Some("array") if node["items"]["properties"].is_object() => Kind::ApiKeys(fields(&node["items"])),
            Some("array") => Kind::Texts,
            _ => Kind::Text,
        }
    }
}

/// The words of an enumeration: bare ones under `enum`, those with a meaning under `oneOf`.
fn choices(node: &Value) -> Vec<Choice> {
    let bare = node["enum"].as_array().into_iter().flatten();
    let bare = bare.filter_map(Value::as_str).map(|word| (word, String::new()));
    let told = node["oneOf"].as_array().into_iter().flatten();
    let told = told.filter_map(|one| Some((one["const"].as_str()?, meaning(one))));
    bare.chain(told)
        .map(|(word, meaning)| Choice {
            word: word.to_owned(),
            meaning,
        })
        .collect()
}

/// The fields of a list's entries, each with its meaning and the words that it takes.
fn fields(items: &Value) -> Vec<Choice> {
    let fields = items["properties"].as_object().into_iter().flatten();
    fields
        .map(|(name, node)| {
            let words = choices(&node["items"]);
            let words = words
                .iter()
                .map(|Choice { word, meaning }| format!(" `{word}`: {meaning}"));
            Choice {
                word: name.clone(),
                meaning: meaning(node) + &words.collect::<String>(),
            }
        })
        .collect()
}

fn types(node: &Value) -> impl Iterator<Item = &str> {
    let several = node["type"].as_array().into_iter().flatten();
    several
        .chain(std::iter::once(&node["type"]))
        .filter_map(Value::as_str)
}

#[cfg(test)]
#[path = "key_tests.rs"]
mod tests;
