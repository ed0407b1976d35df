//! Maps of things with names of the operator's choice: `sources.NAME.KEY`, `channels.NAME.KEY`.
//!
//! The keys of one are known by `SECTION.NAME.KEY`; like all others they are read off the structs. Which of them a thing
//! may have depends on its type, which another layer may give: that is judged when all layers are there.
//!
//! Invariant: what is in a map was found good by [`check`], so it can be made.

use super::fault::ConfigFault;
use super::key::{Choice, Key, Kind};
use super::nearest::nearest;
use super::schema::raw_of;
use super::{channels, sources, tree, value};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

/// A name has at most so many characters.
const NAME_CHARS: usize = 64;

/// All maps there are.
pub(super) const MAPS: [&NamedMap; 2] = [&sources::MAP, &channels::MAP];

/// One map: where it stands, and what may be in it.
pub(super) struct NamedMap {
    /// The key of the map.
    pub section: &'static str,
    /// What one of its members is called.
    pub thing: &'static str,
    /// What the reference page says of all of them.
    pub about: &'static str,
    /// The types that a member may have.
    pub types: &'static LazyLock<Vec<NamedType>>,
    /// The key that says which.
    pub type_key: &'static LazyLock<Key>,
    /// Names that are taken.
    pub reserved: &'static [&'static str],
    /// What is wrong with a member whose keys are all known, by key.
    pub judge: fn(&Value) -> Vec<(&'static str, String)>,
}

/// A type, what it is, and its keys, the type itself not among them.
pub(super) struct NamedType {
    pub word: &'static str,
    pub meaning: &'static str,
    pub keys: Vec<Key>,
}

impl NamedType {
    /// A type whose keys are the fields of `C`.
    pub fn of<C: JsonSchema + Serialize + Default>(word: &'static str, meaning: &'static str) -> NamedType {
        let defaults = serde_json::to_value(C::default()).unwrap_or_default();
        let schema = raw_of::<C>();
        let properties = schema["properties"].as_object().into_iter().flatten();
        let keys = properties
            .map(|(name, node)| Key::read_schema(name, node, defaults[name].clone()))
            .collect();
        NamedType { word, meaning, keys }
    }
}

/// The key `type` of a map with these types.
pub(super) fn type_key(types: &[NamedType], later: &[&str]) -> Key {
    let choices = types.iter().map(|one| Choice {
        word: one.word.into(),
        meaning: one.meaning.into(),
    });
    Key {
        name: "type".into(),
        kind: Kind::Choice(choices.collect()),
        is_optional: false,
        minimum: None,
        maximum: None,
        later: later.iter().map(|&word| word.into()).collect(),
        default: Value::Null,
        meaning: "What it is.".into(),
    }
}

impl NamedMap {
    /// The name and the key in `SECTION.NAME.KEY`.
    fn parts<'a>(&self, name: &'a str) -> Option<(&'a str, &'a str)> {
        name.strip_prefix(self.section)?
            .strip_prefix('.')?
            .split_once('.')
    }

    /// Every key that a member may have, whatever its type.
    fn keys(&self) -> impl Iterator<Item = &'static Key> + use<> {
        let (types, type_key) = (self.types, self.type_key);
        let keys = types.iter().flat_map(|one| &one.keys);
        keys.chain(std::iter::once(&**type_key))
    }

    fn is_map(&self, path: &str) -> bool {
        match path.strip_prefix(self.section) {
            Some("") => true,
            Some(rest) => rest.strip_prefix('.').is_some_and(|name| !name.contains('.')),
            None => false,
        }
    }

    fn find(&self, name: &str) -> Option<&'static Key> {
        let (_, key) = self.parts(name)?;
        self.keys().find(|known| known.name == key)
    }

    fn of_variable(&self, variable: &str) -> Option<String> {
        let prefix = format!("POSTRIDER_{}__", self.section.to_ascii_uppercase());
        let (name, key) = variable.strip_prefix(&prefix)?.split_once("__")?;
        let (name, key) = (name.to_ascii_lowercase(), key.to_ascii_lowercase());
        let dotted = format!("{}.{name}.{key}", self.section);
        self.find(&dotted).map(|_| dotted)
    }

    fn nearest_name(&self, name: &str) -> Option<String> {
        let (member, key) = self.parts(name)?;
        let near = nearest(key, self.keys().map(|known| known.name.as_str()))?;
        Some(format!("{}.{member}.{near}", self.section))
    }

    /// What to say of a value that stands where this map does, or one of its members.
    fn misplaced(&self, path: &str) -> Option<String> {
        let NamedMap { section, thing, .. } = self;
        match path.strip_prefix(section)? {
            "" => Some(format!("holds {thing}s by name: write {section}.NAME.KEY")),
            _ if self.is_map(path) => Some(format!("is a {thing}: set the keys in it, such as {path}.type")),
            _ => None,
        }
    }

    fn nearest_variable(&self, variable: &str) -> Option<String> {
        let prefix = format!("POSTRIDER_{}__", self.section.to_ascii_uppercase());
        let (member, key) = variable.strip_prefix(&prefix)?.split_once("__")?;
        let near = nearest(
            &key.to_ascii_lowercase(),
            self.keys().map(|known| known.name.as_str()),
        )?;
        Some(format!("{prefix}{member}__{}", near.to_ascii_uppercase()))
    }

    fn check(
        &self,
        tree: &mut Value,
        origins: &BTreeMap<String, String>,
        earlier: &[ConfigFault],
    ) -> Vec<ConfigFault> {
        let mut faults = Vec::new();
        let section = self.section;
        let Some(members) = tree[section].as_object_mut() else {
            return faults;
        };
        members.retain(|name, member| {
            let found = self.faults_of(name, member);
            let is_good = found.is_empty();
            let member = format!("{section}.{name}");
            let within = format!("{member}.");
            let earlier: Vec<&str> = earlier.iter().map(|fault| fault.key.as_str()).collect();
            let is_unfit = earlier.iter().any(|key| key.starts_with(&within));
            faults.extend(found.into_iter().filter_map(|(key, what, nearest)| {
                let key = format!("{member}{key}");
                // What is missing may be what was refused.
                let is_told = earlier.contains(&key.as_str());
                if is_told || (is_unfit && !origins.contains_key(&key)) {
                    return None;
                }
                Some(ConfigFault {
                    place: place_of(origins, &member, &key).to_owned(),
                    key,
                    what,
                    nearest,
                })
            }));
            is_good
        });
        faults
    }

    fn faults_of(&self, name: &str, member: &Value) -> Vec<Found> {
        let at = |key: &str| match key {
            "" => String::new(),
            key => format!(".{key}"),
        };
        let fault = |key: &str, what: String| vec![(at(key), what, None)];
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b);
        let thing = self.thing;
        if name.is_empty() || name.len() > NAME_CHARS || !name.bytes().all(is_plain) {
            let what = format!("is no name of a {thing}: 1 to {NAME_CHARS} of a-z, 0-9, - and _ are allowed");
            return fault("", what);
        }
        if self.reserved.contains(&name) {
            return fault("", "is a name that Postrider itself uses; take another".into());
        }
        let Some(fields) = member.as_object() else {
            return fault(
                "",
                format!("must hold a map of keys, not {}", value::kind(member)),
            );
        };
        let word = fields.get("type").and_then(Value::as_str);
        let Some(of_type) = self.types.iter().find(|one| word == Some(one.word)) else {
            let words: Vec<_> = self.types.iter().map(|one| format!("`{}`", one.word)).collect();
            return fault("type", format!("is needed: {}", words.join(" or ")));
        };
        let known = |key: &str| key == "type" || of_type.keys.iter().any(|known| known.name == key);
        let unknown: Vec<Found> = fields
            .keys()
            .filter(|key| !known(key))
            .map(|key| {
                let near = nearest(key, of_type.keys.iter().map(|known| known.name.as_str()));
                let near = near.map(|near| format!("{}.{name}.{near}", self.section));
                let what = format!("is no key of a {thing} of the type {}", of_type.word);
                (at(key), what, near)
            })
            .collect();
        if !unknown.is_empty() {
            return unknown;
        }
        let found = (self.judge)(member).into_iter();
        found.map(|(key, what)| (at(key), what, None)).collect()
    }
}

/// What is wrong: the key within the member with its dot, what, and the nearest key.
type Found = (String, String, Option<String>);

/// Whether a map stands here whose members are given by longer names.
pub(super) fn is_map(path: &str) -> bool {
    MAPS.iter().any(|map| map.is_map(path))
}

/// Whether this is the key of a map.
pub(super) fn is_section(name: &str) -> bool {
    MAPS.iter().any(|map| map.section == name)
}

/// The key of this dotted name: of whichever type has one.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    MAPS.iter().find_map(|map| map.find(name))
}

/// The dotted name that a variable sets.
pub(super) fn of_variable(variable: &str) -> Option<String> {
    MAPS.iter().find_map(|map| map.of_variable(variable))
}

/// The nearest dotted name that there is.
pub(super) fn nearest_name(name: &str) -> Option<String> {
    MAPS.iter().find_map(|map| map.nearest_name(name))
}

/// The variable that an unknown one was most likely meant to be.
pub(super) fn nearest_variable(variable: &str) -> Option<String> {
    MAPS.iter().find_map(|map| map.nearest_variable(variable))
}

/// What to say of a value that stands where a map does, or one of its members; `None` where none does.
pub(super) fn misplaced(path: &str) -> Option<String> {
    MAPS.iter().find_map(|map| map.misplaced(path))
}

/// Takes what cannot be made out of the tree, and says why, but for what follows from earlier faults.
pub(super) fn check(
    tree: &mut Value,
    origins: &BTreeMap<String, String>,
    earlier: &[ConfigFault],
) -> Vec<ConfigFault> {
    MAPS.iter()
        .flat_map(|map| map.check(tree, origins, earlier))
        .collect()
}

/// Where a key of a member was set, or else another key of it.
pub(super) fn place_of<'a>(origins: &'a BTreeMap<String, String>, member: &str, key: &str) -> &'a str {
    let within = format!("{member}.");
    let near = || origins.iter().find(|(set, _)| set.starts_with(&within));
    let place = origins.get(key).or_else(|| near().map(|(_, place)| place));
    place.map_or("configuration", String::as_str)
}

/// Every key of every member in a tree, by name, its type first.
pub(super) fn keys_in(config: &Value) -> Vec<(String, Value)> {
    let mut leaves = Vec::new();
    for map in MAPS {
        let members = tree::get(config, map.section).as_object().into_iter().flatten();
        for (name, member) in members {
            let fields = member.as_object().into_iter().flatten();
            leaves
                .extend(fields.map(|(key, value)| (format!("{}.{name}.{key}", map.section), value.clone())));
        }
    }
    leaves
}

/// The members that are not alike, or not in both, by their keys.
pub(super) fn changed<T: PartialEq>(
    map: &NamedMap,
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
) -> Vec<String> {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let differ = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
    differ.map(|name| format!("{}.{name}", map.section)).collect()
}
