//! The command-line options of the systems whose place a preset takes, read off the presets themselves: they are
//! accepted wherever `--preset` is, and mean something only with it.

use clap::{Arg, ArgMatches, Args, Command, Error, FromArgMatches};
use postrider_server::config::{PRESETS, PresetOption};

/// What was given, in the order of the presets: names without hyphens, and values.
#[derive(Debug, Clone, Default)]
pub struct PresetOptions(pub Vec<(String, String)>);

/// Each name once, with those that have it.
fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    let named = PRESETS.iter().flat_map(|preset| {
        preset
            .options
            .iter()
            .map(|PresetOption { name, .. }| (*name, preset.name))
    });
    let mut seen = Vec::new();
    named.filter(move |(name, _)| {
        let is_new = !seen.contains(name);
        seen.push(*name);
        is_new
    })
}

impl Args for PresetOptions {
    fn augment_args(command: Command) -> Command {
        command.args(all().map(|(name, preset)| {
            Arg::new(name)
                .long(name)
                .value_name("VALUE")
                .requires("preset")
                .hide_short_help(true)
                .help(format!(
                    "With --preset {preset}: as in the system whose place it takes"
                ))
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for PresetOptions {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let given = |name| Some((name, matches.get_one::<String>(name)?));
        let given = all().filter_map(|(name, _)| given(name));
        Ok(PresetOptions(
            given
                .map(|(name, value)| (name.to_owned(), value.clone()))
                .collect(),
        ))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
