//! Layers: defaults, presets, files in the order given, environment, `--set`; the later wins.
//!
//! Each value is looked at where it stands, also one that a later layer overrides, so that a fault names its place.

use super::fault::ConfigFault;
use super::files::{self, Content};
use super::key::{self, ENV_PREFIX, Key, Kind};
use super::nearest::nearest;
use super::presets::{self, Preset, Variables};
use super::reference::Reference;
use super::{Config, api_keys, checks, named, tree, value};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Variables that belong to the client commands.
const ENV_OF_CLIENTS: [&str; 5] = [
    "POSTRIDER_URL",
    "POSTRIDER_CA",
    "POSTRIDER_KEY",
    "POSTRIDER_TOKEN",
    "POSTRIDER_SECRET",
];

/// What was given beside the defaults.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// Presets, by name.
    pub presets: Vec<String>,
    /// Command-line options of presets with what was given to them, in order; see [`super::preset_options`].
    pub options: Vec<(String, String)>,
    /// Files, in order: `.yaml`, `.yml`, `.json`, `.toml` or `.properties`.
    pub files: Vec<PathBuf>,
    /// The process's environment.
    pub env: Vec<(OsString, OsString)>,
    /// `--set key=value`, in order.
    pub sets: Vec<String>,
}

/// A configuration, and where each value came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What is in force.
    pub config: Config,
    /// The place of every key that is not a default.
    pub origins: BTreeMap<String, String>,
    /// The reference of every key whose value stands elsewhere, such as `file:/run/secrets/jwt`.
    pub references: BTreeMap<String, String>,
    /// What deserves a word, but no refusal.
    pub warnings: Vec<String>,
}

/// Reads and joins all layers. Reads again whatever a reference names, so that a reload sees what changed there.
///
/// # Errors
/// All faults, not just the first.
pub fn load(given: &Given) -> Result<Loaded, Vec<ConfigFault>> {
    load_with(given, files::read)
}

/// The same, with files as `read` gives them.
pub(super) fn load_with(
    given: &Given,
    read: impl Fn(&Path) -> Result<Content, String>,
) -> Result<Loaded, Vec<ConfigFault>> {
    let mut layers = Layers::new(&given.env);
    layers.add_presets(&given.presets);
    for file in &given.files {
        let place = file.display().to_string();
        let mut seen = BTreeSet::new();
        match read(file) {
            Ok(Content::Tree(tree)) => layers.add_tree(&place, "", tree, &mut seen),
            Ok(Content::Properties(properties)) => {
                for property in properties {
                    layers.add_text(
                        &format!("{place}:{}", property.line),
                        &property.key,
                        &property.value,
                    );
                }
            }
            Err(what) => layers.fault(&place, "", what, None),
        }
    }
    layers.add_environment();
    layers.add_preset_options(&given.options);
    for set in &given.sets {
        match set.split_once('=') {
            Some((key, text)) if !key.trim().is_empty() => layers.add_text("--set", key.trim(), text),
            None if key::find(set).is_some() => {
                layers.fault(
                    "--set",
                    set,
                    format!("has no value: write --set {set}=VALUE"),
                    None,
                );
            }
            // What stands there is not repeated: it may be a secret.
            _ => layers.fault("--set", "", "must be written KEY=VALUE".into(), None),
        }
    }
    layers.finish()
}

struct Layers<'a> {
    env: &'a [(OsString, OsString)],
    presets: Vec<&'static Preset>,
    tree: Value,
    origins: BTreeMap<String, String>,
    references: BTreeMap<String, String>,
    /// Variables that a reference names.
    referenced: BTreeSet<String>,
    faults: Vec<ConfigFault>,
    warnings: Vec<String>,
}

impl<'a> Layers<'a> {
    fn new(env: &'a [(OsString, OsString)]) -> Layers<'a> {
        Layers {
            env,
            presets: Vec::new(),
            tree: tree::of(&Config::default()),
            origins: BTreeMap::new(),
            references: BTreeMap::new(),
            referenced: BTreeSet::new(),
            faults: Vec::new(),
            warnings: Vec::new(),
        }
    }

    fn fault(&mut self, place: &str, key: &str, what: String, nearest: Option<String>) {
        let (place, key) = (place.to_owned(), key.to_owned());
        self.faults.push(ConfigFault {
            place,
            key,
            what,
            nearest,
        });
    }

    fn unknown(&mut self, place: &str, name: &str) {
        let sections = key::sections().iter().map(|section| section.name.as_str());
        // The section that it stands in is no hint.
        let sections = sections.filter(|section| !name.starts_with(section));
        let known = key::keys().iter().map(|key| key.name.as_str()).chain(sections);
        let nearest = named::nearest_name(name).or_else(|| nearest(name, known).map(str::to_owned));
        self.fault(place, name, "unknown key".into(), nearest);
    }

    /// A tree of a file; dotted keys and nesting mean the same, so one key may be there twice.
    fn add_tree(&mut self, place: &str, path: &str, node: Value, seen: &mut BTreeSet<String>) {
        let is_section = path.is_empty() || key::is_section(path) || named::is_map(path);
        match node {
            Value::Object(map) if is_section => {
                for (name, node) in map {
                    let path = if path.is_empty() {
                        name
                    } else {
                        format!("{path}.{name}")
                    };
                    self.add_tree(place, &path, node, seen);
                }
            }
            Value::Null if is_section => {}
            node if path.is_empty() => {
                let what = format!("must hold a map of keys, not {}", value::kind(&node));
                self.fault(place, "", what, None);
            }
            _ if !seen.insert(path.to_owned()) => self.fault(place, path, "is given twice".into(), None),
            node => self.add(place, path, |_| node),
        }
    }

    fn add_presets(&mut self, names: &[String]) {
        match presets::chosen(names) {
            Ok(chosen) => self.presets = chosen,
            Err(faults) => return self.faults.extend(faults),
        }
        for preset in self.presets.clone() {
            let place = format!("preset {}", preset.name);
            for (key, text) in preset.keys {
                self.add_text(&place, key, text);
            }
        }
    }

    /// The variables by which the other systems are configured.
    fn add_variables_of_presets(&mut self) {
        for variable in self.presets.clone().iter().flat_map(|preset| preset.variables) {
            let named = |(name, text): &&(OsString, OsString)| name == variable.name && !text.is_empty();
            let Some((_, text)) = self.env.iter().find(named) else {
                continue;
            };
            let place = format!("environment {}", variable.name);
            let read = text.to_str().ok_or_else(|| "is not UTF-8".to_owned());
            match read.and_then(variable.read) {
                Ok(text) => self.add_text(&place, variable.key, &text),
                Err(what) => self.fault(&place, variable.key, what, None),
            }
        }
        for joint in self
            .presets
            .clone()
            .iter()
            .filter_map(|preset| preset.joint.as_ref())
        {
            match (joint.read)(&Variables(self.env)) {
                Ok(derived) => {
                    for one in derived {
                        self.add_text(&format!("environment {}", one.variable), &one.key, &one.text);
                    }
                }
                Err(fault) => self.fault(&format!("environment {}", fault.variable), "", fault.what, None),
            }
        }
    }

    fn add_preset_options(&mut self, options: &[(String, String)]) {
        // Empty is what whoever starts the other system writes for none.
        for (name, text) in options.iter().filter(|(_, text)| !text.is_empty()) {
            let place = format!("--{name}");
            match presets::option_key(&self.presets, name) {
                Ok(key) => self.add_text(&place, key, text),
                Err(what) => self.fault(&place, "", what, None),
            }
        }
    }

    fn add_environment(&mut self) {
        self.add_variables_of_presets();
        for (name, text) in self.env {
            let Some(name) = name.to_str().filter(|name| name.starts_with(ENV_PREFIX)) else {
                continue;
            };
            if ENV_OF_CLIENTS.contains(&name) {
                continue;
            }
            let key = key::keys().iter().find(|key| key.variable() == name);
            let Some(key) = key
                .map(|key| key.name.clone())
                .or_else(|| named::of_variable(name))
            else {
                continue;
            };
            let place = format!("environment {name}");
            match text.to_str() {
                Some(text) => self.add_text(&place, &key, text),
                None => self.fault(&place, &key, "is not UTF-8".into(), None),
            }
        }
    }

    /// Names that nobody knows are only warned about: orchestrators inject such.
    fn warn_of_unknown_variables(&mut self) {
        for (name, _) in self.env {
            let name = name.to_string_lossy();
            let Some(rest) = name.strip_prefix(ENV_PREFIX) else {
                continue;
            };
            let is_of_others = ENV_OF_CLIENTS.contains(&&*name)
                || self.referenced.contains(&*name)
                || named::of_variable(&name).is_some();
            let known: Vec<String> = key::keys().iter().map(Key::variable).collect();
            if is_of_others || known.iter().any(|known| *known == name) {
                continue;
            }
            // A single underscore for a double one is the usual slip.
            let near = nearest(
                rest,
                known.iter().filter_map(|known| known.strip_prefix(ENV_PREFIX)),
            );
            let near =
                named::nearest_variable(&name).or_else(|| near.map(|near| format!("{ENV_PREFIX}{near}")));
            let near = near
                .map(|near| format!("; the nearest is {near}"))
                .unwrap_or_default();
            self.warnings.push(format!(
                "environment: {name} is no configuration key; it is ignored{near}"
            ));
        }
    }

    /// A text, of a place that has nothing else: a list is JSON there.
    fn add_text(&mut self, place: &str, key: &str, text: &str) {
        self.add(place, key, |key| key.value_of(text));
    }

    fn add(&mut self, place: &str, name: &str, value: impl FnOnce(&Key) -> Value) {
        let Some(key) = key::find(name) else {
            if key::is_section(name) {
                return self.fault(place, name, "is a section; set the keys in it".into(), None);
            }
            if let Some(what) = named::misplaced(name) {
                return self.fault(place, name, what, None);
            }
            return self.unknown(place, name);
        };
        let mut value = value(key);
        let taken = key.check(&value).and_then(|()| self.follow(key, &mut value));
        match taken {
            Err(what) => self.fault(place, name, what, None),
            Ok(reference) => {
                // A null unsets what an earlier layer set.
                tree::put(&mut self.tree, name, value);
                self.origins.insert(name.to_owned(), place.to_owned());
                match reference {
                    Some(reference) => self.references.insert(name.to_owned(), reference),
                    None => self.references.remove(name),
                };
            }
        }
    }

    /// Puts secrets in the place of references to them. Returns the reference, or those of a list.
    fn follow(&mut self, key: &Key, value: &mut Value) -> Result<Option<String>, String> {
        let mut followed = Vec::new();
        match key.kind {
            Kind::Secret | Kind::Pem => followed.extend(self.follow_one(value)?),
            Kind::ApiKeys(_) => {
                for (i, secret) in api_keys::secrets(value).enumerate() {
                    let one = self
                        .follow_one(secret)
                        .map_err(|what| format!("the key of entry {i} {what}"))?;
                    followed.extend(one);
                }
            }
            _ => {}
        }
        Ok((!followed.is_empty()).then(|| followed.join(", ")))
    }

    fn follow_one(&mut self, value: &mut Value) -> Result<Option<String>, String> {
        let Some(text) = value.as_str().map(str::to_owned) else {
            return Ok(None);
        };
        let Some(reference) = Reference::of(&text)? else {
            return Ok(None);
        };
        if let Reference::Env(name) = reference {
            self.referenced.insert(name.to_owned());
        }
        *value = Value::String(reference.follow(self.env)?);
        Ok(Some(text))
    }

    fn finish(mut self) -> Result<Loaded, Vec<ConfigFault>> {
        self.warn_of_unknown_variables();
        // Only values that are good by themselves are in the tree, so that it can be judged as a whole too.
        let unfit = named::check(&mut self.tree, &self.origins, &self.faults);
        self.faults.extend(unfit);
        let config: Config = match serde_json::from_value(std::mem::take(&mut self.tree)) {
            Ok(config) => config,
            Err(error) => {
                self.fault("configuration", "", error.to_string(), None);
                return Err(self.faults);
            }
        };
        let faulty: BTreeSet<String> = self.faults.iter().map(|fault| fault.key.clone()).collect();
        for broken in checks::faults(&config) {
            if broken.keys.iter().any(|key| faulty.contains(*key)) {
                continue;
            }
            let set = broken.keys.iter().find(|key| self.origins.contains_key(**key));
            let key = *set.unwrap_or(&broken.keys[0]);
            let place = self
                .origins
                .get(key)
                .map_or("defaults", String::as_str)
                .to_owned();
            self.fault(&place, key, broken.what, None);
        }
        let is_unfit = |channel: &str| {
            let (member, within) = (format!("channels.{channel}"), format!("channels.{channel}."));
            faulty
                .iter()
                .any(|key| *key == member || key.starts_with(&within))
        };
        for broken in checks::source_faults(&config, is_unfit) {
            let member = format!("sources.{}", broken.name);
            let key = format!("{member}.{}", broken.key);
            let place = named::place_of(&self.origins, &member, &key).to_owned();
            self.fault(&place, &key, broken.what, None);
        }
        for (key, what) in config.registry.strangers() {
            // What another system's variables say is for its own database, whatever keeps the registry now.
            let is_own = |place: &&String| {
                let variable = place.strip_prefix("environment ");
                !place.starts_with("preset ") && variable.is_none_or(|name| name.starts_with(ENV_PREFIX))
            };
            if let Some(place) = self.origins.get(key).filter(is_own).cloned() {
                self.fault(&place, key, what, None);
            }
        }
        if !self.faults.is_empty() {
            return Err(self.faults);
        }
        self.warnings.extend(checks::warnings(&config));
        if config.sources.is_empty() {
            let idle = self.presets.iter().filter_map(|preset| {
                let needs = preset.joint.as_ref()?.needs;
                let name = preset.name;
                Some(format!(
                    "preset {name}: there is no source, so nothing is taken: set {needs}; or sources.* of your own"
                ))
            });
            self.warnings.extend(idle);
        }
        let Layers {
            origins,
            references,
            warnings,
            ..
        } = self;
        Ok(Loaded {
            config,
            origins,
            references,
            warnings,
        })
    }
}

#[cfg(test)]
#[path = "layers_tests.rs"]
mod tests;
