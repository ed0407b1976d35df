//! Presets: ready-made configurations by name, each for the clients and the operators of another system. A preset is
//! plain configuration and nothing else: keys with their values, and where that system's own environment variables
//! and command-line options lead.
//!
//! Invariant: whatever a preset does can be written in a file; `config show --preset NAME` is that file. Of several
//! presets none overrides another: where two give one key different values, that is a fault.
//!
//! A preset is one file here, and one line in [`PRESETS`].

mod apigw_pusher;
mod redis_notify;
mod sqs_long_poll;

use super::fault::ConfigFault;
use super::nearest::nearest;
use std::ffi::OsString;
use std::fmt::Write as _;

/// All of them.
pub const PRESETS: &[&Preset] = &[
    &redis_notify::PRESET,
    &sqs_long_poll::PRESET,
    &apigw_pusher::PRESET,
];

/// A ready-made configuration.
#[derive(Debug)]
pub struct Preset {
    /// By which it is asked for.
    pub name: &'static str,
    /// Whose place a node with it takes.
    pub meaning: &'static str,
    /// Keys and their values, as an environment variable would give them.
    pub keys: &'static [(&'static str, &'static str)],
    /// The other system's environment variables.
    pub variables: &'static [Variable],
    /// The other system's command-line options, without the two hyphens.
    pub options: &'static [PresetOption],
    /// Those of its variables that mean something only together.
    pub joint: Option<Joint>,
}

/// Environment variables of another system whose meaning depends on which of them are set.
#[derive(Debug)]
pub struct Joint {
    /// Their names, each with what it may hold.
    pub variables: &'static [(&'static str, &'static str)],
    /// The keys that they come to, for people.
    pub keys: &'static str,
    /// What is to be set so that anything is taken, where there is no source.
    pub needs: &'static str,
    /// The keys that they come to.
    pub read: fn(&Variables<'_>) -> Result<Vec<Derived>, JointFault>,
}

/// The environment, as far as it is text and not empty.
#[derive(Debug)]
pub struct Variables<'a>(pub &'a [(OsString, OsString)]);

impl Variables<'_> {
    /// What a variable holds; `None` where that is nothing.
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, text) = self.0.iter().find(|(known, _)| known == name)?;
        text.to_str().filter(|text| !text.is_empty())
    }

    /// What a variable holds that has to be set; `why` says what for.
    fn need(&self, name: &'static str, why: &str) -> Result<&str, JointFault> {
        self.get(name).ok_or_else(|| JointFault {
            variable: name,
            what: why.to_owned(),
        })
    }
}

/// A key that variables come to.
#[derive(Debug, PartialEq, Eq)]
pub struct Derived {
    /// The variable that a fault is told of.
    pub variable: &'static str,
    /// The key.
    pub key: String,
    /// Its value, as an environment variable would give it.
    pub text: String,
}

impl Derived {
    fn new(variable: &'static str, key: impl Into<String>, text: impl Into<String>) -> Derived {
        Derived {
            variable,
            key: key.into(),
            text: text.into(),
        }
    }
}

/// What is wrong with variables that belong together.
#[derive(Debug, PartialEq, Eq)]
pub struct JointFault {
    /// The one to change.
    pub variable: &'static str,
    /// What is wrong, and what to do.
    pub what: String,
}

/// Another system's environment variable.
#[derive(Debug)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// The key that it sets.
    pub key: &'static str,
    /// What it may hold, for people.
    pub form: &'static str,
    /// From its text to the key's; the error says what is wrong with it.
    pub read: fn(&str) -> Result<String, String>,
}

/// Another system's command-line option.
#[derive(Debug)]
pub struct PresetOption {
    /// Its name, without the two hyphens.
    pub name: &'static str,
    /// The key that it sets.
    pub key: &'static str,
}

/// The presets of these names.
///
/// # Errors
/// Every name that is unknown, and every contradiction between two.
pub(super) fn chosen(names: &[String]) -> Result<Vec<&'static Preset>, Vec<ConfigFault>> {
    let mut chosen: Vec<&'static Preset> = Vec::new();
    let mut faults = Vec::new();
    for name in names {
        match PRESETS.iter().find(|preset| preset.name == name) {
            Some(preset) if chosen.iter().any(|other| other.name == preset.name) => {}
            Some(preset) => {
                faults.extend(contradictions(&chosen, preset));
                chosen.push(preset);
            }
            None => faults.push(unknown(name)),
        }
    }
    if faults.is_empty() {
        Ok(chosen)
    } else {
        Err(faults)
    }
}

fn unknown(name: &str) -> ConfigFault {
    let known: Vec<_> = PRESETS.iter().map(|preset| preset.name).collect();
    let meant = nearest(name, known.iter().copied()).map(|near| format!(" (nearest: {near})"));
    ConfigFault {
        place: "--preset".into(),
        key: name.to_owned(),
        what: format!(
            "unknown preset{}; there are: {}",
            meant.unwrap_or_default(),
            known.join(", ")
        ),
        nearest: None,
    }
}

fn contradictions(chosen: &[&'static Preset], preset: &Preset) -> Vec<ConfigFault> {
    let mut faults = Vec::new();
    for other in chosen {
        for (key, value) in preset.keys {
            if let Some((_, theirs)) = other
                .keys
                .iter()
                .find(|(theirs, others)| theirs == key && others != value)
            {
                faults.push(ConfigFault {
                    place: "--preset".into(),
                    key: (*key).to_owned(),
                    what: format!(
                        "is {theirs} in the preset {} and {value} in {}: they cannot be used together",
                        other.name, preset.name
                    ),
                    nearest: None,
                });
            }
        }
    }
    faults
}

/// The key of a command-line option, in one of these presets.
///
/// # Errors
/// Which presets have it, where none of these does.
pub(super) fn option_key(chosen: &[&'static Preset], name: &str) -> Result<&'static str, String> {
    let of = |preset: &&&'static Preset| preset.options.iter().any(|option| option.name == name);
    let find = |preset: &&'static Preset| preset.options.iter().find(|option| option.name == name);
    if let Some(option) = chosen.iter().find_map(find) {
        return Ok(option.key);
    }
    let having: Vec<_> = PRESETS.iter().filter(of).map(|preset| preset.name).collect();
    Err(format!(
        "is an option of --preset {}",
        having.join(" or --preset ")
    ))
}

/// What the reference page says of presets.
pub(super) fn chapter() -> String {
    let mut page = String::from(
        "\n## Presets\n\n`--preset NAME` is a layer between the defaults and the files: what it sets, any later layer can set \
         otherwise. `postrider config show --preset NAME` shows all of it. Several presets may be given, as long as no \
         two of them give one key different values.\n",
    );
    for preset in PRESETS {
        let Preset { name, meaning, .. } = preset;
        // Writing to a String cannot fail.
        write!(
            page,
            "\n### `--preset {name}`\n\n{meaning}\n\n| key | value |\n| --- | --- |\n"
        )
        .unwrap_or_default();
        for (key, value) in preset.keys {
            writeln!(page, "| `{key}` | `{value}` |").unwrap_or_default();
        }
        page.push_str(&foreign(preset));
    }
    page
}

/// The other system's variables and options, in one table.
fn foreign(preset: &Preset) -> String {
    let mut table = String::new();
    for variable in preset.variables {
        let Variable { name, key, form, .. } = variable;
        writeln!(table, "| `{name}`: {form} | `{key}` |").unwrap_or_default();
    }
    if let Some(joint) = &preset.joint {
        for (name, form) in joint.variables {
            writeln!(table, "| `{name}`: {form} | {} |", joint.keys).unwrap_or_default();
        }
    }
    for PresetOption { name, key } in preset.options {
        writeln!(table, "| `--{name}` | `{key}` |").unwrap_or_default();
    }
    if table.is_empty() {
        return table;
    }
    format!(
        "\nIts variables are read before those of Postrider, an empty one as if it were not there; its options count \
         like `--set`.\n\n| variable or option | key |\n| --- | --- |\n{table}"
    )
}

#[cfg(test)]
#[path = "presets_tests.rs"]
mod tests;
