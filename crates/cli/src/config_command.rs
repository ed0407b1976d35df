//! `postrider config check|show|doc|schema`.

use crate::exit::Failure;
use crate::serve::ConfigArgs;
use clap::{Args, Subcommand, ValueEnum};
use postrider_server::{check_tls, config};
use std::io::Write as _;

/// What to do with the configuration.
#[derive(Subcommand)]
pub enum ConfigCommand {
    /// Report every fault, one line each; exit status 2 where there is one
    #[command(after_help = CHECK_HELP)]
    Check(ConfigArgs),
    /// Write what is in force and where each value came from; secrets as ***
    #[command(after_help = SHOW_HELP)]
    Show(ConfigArgs),
    /// Write the reference: every key, its kind, default, range and meaning
    #[command(after_help = DOC_HELP)]
    Doc(DocArgs),
    /// Write the JSON Schema (2020-12) of a configuration file, for editors
    #[command(after_help = SCHEMA_HELP)]
    Schema,
}

/// Arguments of `config doc`.
#[derive(Args)]
pub struct DocArgs {
    /// A page to read, or a file to start from
    #[arg(long, value_enum, default_value = "markdown")]
    format: DocFormat,
}

/// How the reference is written.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DocFormat {
    /// The reference page
    Markdown,
    /// A configuration file in which every key is commented out at its default
    Yaml,
}

const CHECK_HELP: &str = "\
A fault is one line: the place, the key, what is wrong, and the nearest known key.
The files that it names are read too: secrets, keys, the certificate.

Examples:
  postrider config check --config postrider.yaml
  postrider config check --config base.toml --config site.properties --set http.listen=0.0.0.0:8080";

const SHOW_HELP: &str = "\
Example:
  postrider config show --config postrider.yaml | grep -v '# default$'    only what somebody set";

const DOC_HELP: &str = "\
Examples:
  postrider config doc | less
  postrider config doc --format yaml > postrider.yaml    then take the # away from what you need";

const SCHEMA_HELP: &str = "\
Example:
  postrider config schema > postrider.schema.json
then, as the first line of postrider.yaml:
  # yaml-language-server: $schema=postrider.schema.json";

/// Does it.
pub fn run(command: &ConfigCommand) -> Result<(), Failure> {
    let text = match command {
        ConfigCommand::Check(args) => {
            let word = check_tls(&load(args)?.config).map_err(|fault| Failure::usage(fault.to_string()))?;
            if let Some(word) = word {
                eprintln!("warning: {word}");
            }
            "the configuration is good\n".into()
        }
        ConfigCommand::Show(args) => config::show(&load(args)?),
        ConfigCommand::Doc(args) if args.format == DocFormat::Yaml => config::commented_defaults(),
        ConfigCommand::Doc(_) => config::reference_page(),
        ConfigCommand::Schema => format!("{:#}\n", config::schema()),
    };
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(())
}

fn load(args: &ConfigArgs) -> Result<config::Loaded, Failure> {
    let loaded = args.load()?;
    for warning in &loaded.warnings {
        eprintln!("warning: {warning}");
    }
    Ok(loaded)
}
