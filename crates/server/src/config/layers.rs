//! Layers: defaults, files in the order given, environment, `--set`; the later wins.

use super::keys::{self, SECRET_KEYS};
use super::{Config, checks};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// Variables of this prefix are configuration.
const ENV_PREFIX: &str = "POSTRIDER_";
/// Variables that belong to the client commands.
const ENV_OF_CLIENTS: [&str; 3] = ["POSTRIDER_URL", "POSTRIDER_KEY", "POSTRIDER_TOKEN"];
/// A configuration file is no larger than this.
const FILE_BYTES: u64 = 4 << 20;

/// What was given beside the defaults.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// Files, in order: `.yaml`, `.yml`, `.json` or `.toml`.
    pub files: Vec<PathBuf>,
    /// The process's environment.
    pub env: Vec<(String, String)>,
    /// `--set key=value`, in order.
    pub sets: Vec<String>,
}

/// One thing that is wrong, on one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFault {
    /// The file, `environment` or `--set`.
    pub place: String,
    /// The dotted key; empty where the whole place is wrong.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// The known key it was most likely meant to be.
    pub nearest: Option<String>,
}

impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.what.replace(['\n', '\r'], " "))?;
        match &self.nearest {
            Some(key) => write!(f, " (nearest known key: {key})"),
            None => Ok(()),
        }
    }
}

/// A configuration, and where each value came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What is in force.
    pub config: Config,
    /// The place of every key that is not a default.
    pub origins: BTreeMap<String, String>,
    /// What deserves a word, but no refusal.
    pub warnings: Vec<String>,
}

/// Reads and joins all layers. Reports all faults, not just the first.
pub fn load(given: &Given) -> Result<Loaded, Vec<ConfigFault>> {
    let mut layers = Layers::new();
    for file in &given.files {
        match read_file(file) {
            Ok(tree) => layers.add_tree(&file.display().to_string(), "", tree),
            Err(what) => layers.fault(&file.display().to_string(), "", what, None),
        }
    }
    for (name, value) in &given.env {
        if ENV_OF_CLIENTS.contains(&name.as_str()) {
            continue;
        }
        if let Some(rest) = name.strip_prefix(ENV_PREFIX) {
            let key = rest.to_ascii_lowercase().replace("__", ".");
            if layers.knows(&key) {
                layers.add_text(&format!("environment {name}"), &key, value);
            } else {
                layers.warnings.push(format!(
                    "environment: {name} is no configuration key; it is ignored"
                ));
            }
        }
    }
    for set in &given.sets {
        match set.split_once('=') {
            Some((key, value)) => layers.add_text("--set", key.trim(), value),
            None => layers.fault("--set", set, "must be written key=value".into(), None),
        }
    }
    layers.finish()
}

struct Layers {
    defaults: Value,
    known: Vec<String>,
    reserved: Vec<(&'static str, Value)>,
    tree: Value,
    origins: BTreeMap<String, String>,
    faults: Vec<ConfigFault>,
    warnings: Vec<String>,
}

impl Layers {
    fn new() -> Layers {
        let defaults = keys::defaults();
        Layers {
            known: keys::leaves(&defaults).into_iter().map(|(key, _)| key).collect(),
            reserved: keys::reserved().into(),
            tree: defaults.clone(),
            defaults,
            origins: BTreeMap::new(),
            faults: Vec::new(),
            warnings: Vec::new(),
        }
    }

    fn knows(&self, key: &str) -> bool {
        self.known.iter().any(|known| known == key) || self.reserved.iter().any(|(known, _)| *known == key)
    }

    /// Whether some known key lies under `key`.
    fn is_section(&self, key: &str) -> bool {
        let mut all = self
            .known
            .iter()
            .map(String::as_str)
            .chain(self.reserved.iter().map(|(key, _)| *key));
        all.any(|known| known.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')))
    }

    fn fault(&mut self, place: &str, key: &str, what: String, nearest: Option<String>) {
        self.faults.push(ConfigFault {
            place: place.into(),
            key: key.into(),
            what,
            nearest,
        });
    }

    fn unknown(&mut self, place: &str, key: &str) {
        let nearest = keys::nearest(key, self.known.iter().map(String::as_str)).map(str::to_owned);
        self.fault(place, key, "unknown key".into(), nearest);
    }

    /// A tree of a file; dotted keys and nesting mean the same.
    fn add_tree(&mut self, place: &str, path: &str, value: Value) {
        match value {
            Value::Object(map) if !self.knows(path) => {
                if !path.is_empty() && !self.is_section(path) {
                    return self.unknown(place, path);
                }
                for (name, value) in map {
                    let path = if path.is_empty() {
                        name
                    } else {
                        format!("{path}.{name}")
                    };
                    self.add_tree(place, &path, value);
                }
            }
            Value::Null if path.is_empty() || self.is_section(path) => {}
            value if path.is_empty() => {
                self.fault(
                    place,
                    "",
                    format!("a map of keys is needed, not {}", kind(&value)),
                    None,
                );
            }
            value => self.add(place, path, value),
        }
    }

    /// A text, which stands for itself where the key takes a string, and else is read as JSON.
    fn add_text(&mut self, place: &str, key: &str, text: &str) {
        let plain = Value::String(text.to_owned());
        let is_reserved = self.reserved.iter().any(|(known, _)| *known == key);
        if is_reserved || self.check(key, &plain).is_ok() {
            return self.add(place, key, plain);
        }
        match serde_json::from_str::<Value>(text) {
            Ok(value) => self.add(place, key, value),
            Err(_) => self.add(place, key, plain),
        }
    }

    fn add(&mut self, place: &str, key: &str, value: Value) {
        if let Some((_, default)) = self.reserved.iter().find(|(known, _)| *known == key) {
            if !keys::same(&value, default) {
                let default = if default.is_null() {
                    "unset".into()
                } else {
                    default.to_string()
                };
                self.fault(
                    place,
                    key,
                    format!("not in this release; leave it at its default ({default})"),
                    None,
                );
            }
            return;
        }
        if !self.known.iter().any(|known| known == key) {
            if self.is_section(key) {
                return self.fault(place, key, "is a section; set the keys in it".into(), None);
            }
            return self.unknown(place, key);
        }
        match self.check(key, &value) {
            Ok(()) => {
                keys::put(&mut self.tree, key, value);
                self.origins.insert(key.to_owned(), place.to_owned());
            }
            Err(what) => self.fault(place, key, what, None),
        }
    }

    /// Whether the value is of the key's type, by trying it alone over the defaults.
    fn check(&self, key: &str, value: &Value) -> Result<(), String> {
        if !self.known.iter().any(|known| known == key) {
            return Err("unknown key".into());
        }
        let mut tree = self.defaults.clone();
        keys::put(&mut tree, key, value.clone());
        match serde_json::from_value::<Config>(tree) {
            Ok(_) => Ok(()),
            Err(_) if key == "auth.api_keys" => Err(checks::api_keys_shape(value)),
            Err(_) if SECRET_KEYS.contains(&key) => Err(format!("must be a string, not {}", kind(value))),
            Err(error) => Err(error.to_string()),
        }
    }

    fn finish(mut self) -> Result<Loaded, Vec<ConfigFault>> {
        if !self.faults.is_empty() {
            return Err(self.faults);
        }
        let config: Config = match serde_json::from_value(self.tree) {
            Ok(config) => config,
            Err(error) => {
                let (place, key, what) = ("configuration".into(), String::new(), error.to_string());
                return Err(vec![ConfigFault {
                    place,
                    key,
                    what,
                    nearest: None,
                }]);
            }
        };
        for (key, what) in checks::faults(&config) {
            let place = self
                .origins
                .get(key)
                .cloned()
                .unwrap_or_else(|| "defaults".into());
            self.faults.push(ConfigFault {
                place,
                key: key.into(),
                what,
                nearest: None,
            });
        }
        if !self.faults.is_empty() {
            return Err(self.faults);
        }
        self.warnings.extend(checks::warnings(&config));
        Ok(Loaded {
            config,
            origins: self.origins,
            warnings: self.warnings,
        })
    }
}

pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

fn read_file(path: &Path) -> Result<Value, String> {
    let size = std::fs::metadata(path)
        .map_err(|e| format!("cannot be read: {e}"))?
        .len();
    if size > FILE_BYTES {
        return Err(format!("has {size} bytes; at most {FILE_BYTES} are read"));
    }
    let text = std::fs::read_to_string(path).map_err(|e| format!("cannot be read: {e}"))?;
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("yaml" | "yml" | "json") if text.trim().is_empty() => Ok(Value::Null),
        Some("yaml" | "yml" | "json") => serde_saphyr::from_str(&text).map_err(|e| yaml_fault(&e)),
        Some("toml") => toml::from_str(&text).map_err(|e| toml_fault(&text, &e)),
        _ => Err("the name must end in .yaml, .yml, .json or .toml".into()),
    }
}

/// Where the fault is, and its kind; never a line of the file, which may hold a secret.
fn yaml_fault(error: &serde_saphyr::Error) -> String {
    match error.location() {
        Some(at) => format!("not valid YAML at line {}, column {}", at.line(), at.column()),
        None => "not valid YAML".into(),
    }
}

fn toml_fault(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().map_or(1, |span| {
        text[..span.start.min(text.len())].matches('\n').count() + 1
    });
    format!("not valid TOML at line {line}: {}", error.message())
}

#[cfg(test)]
#[path = "layers_tests.rs"]
mod tests;
