//! `postrider config check|show|doc|schema`.

use crate::exit::Failure;
use crate::output;
use crate::serve::ConfigArgs;
use crate::term::Look;
use clap::{Args, Subcommand, ValueEnum};
use postrider_server::{check_tls, config};
use serde_json::{Value, json};
use std::io::Write as _;

/// What to do with the configuration.
#[derive(Subcommand)]
pub enum ConfigCommand {
    /// Report every fault, one line each; exit status 2 where there is one
    #[command(after_help = CHECK_HELP)]
    Check(CheckArgs),
    /// Write what is in force and where each value came from; secrets as ***
    #[command(after_help = SHOW_HELP)]
    Show(CheckArgs),
    /// Write the reference: every key, its kind, default, range and meaning
    #[command(after_help = DOC_HELP)]
    Doc(DocArgs),
    /// Write the JSON Schema (2020-12) of a configuration file, for editors
    #[command(after_help = SCHEMA_HELP)]
    Schema,
}

/// Arguments of `config check` and `config show`.
#[derive(Args)]
pub struct CheckArgs {
    /// Write one JSON document instead of text for people
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgs,
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
A fault is one line: the place, the key, what is wrong, and the nearest known key. \
The files that it names are read too: secrets, keys, the certificate.
With --json: {\"good\":true,\"faults\":[],\"warnings\":[]}, and the exit status as without it.

Examples:
  postrider config check --config postrider.yaml
  postrider config check --config base.toml --config site.properties --set http.listen=0.0.0.0:8080";

const SHOW_HELP: &str = "\
With --json: {\"http.listen\":{\"value\":…,\"from\":…}, …}.

Examples:
  postrider config show --config postrider.yaml --json | jq '.[\"http.listen\"]'
  postrider config show --config postrider.yaml | grep -v '# default$'    only what somebody set
  postrider config show --preset redis-notify | grep '# preset'           what a preset sets";

const DOC_HELP: &str = "\
Examples:
  postrider config doc | less
  postrider config doc --format yaml > postrider.yaml    then take the # away from what you need";

const SCHEMA_HELP: &str = "\
Examples:
  postrider config schema > postrider.schema.json

The first line of postrider.yaml, for an editor:
  # yaml-language-server: $schema=postrider.schema.json";

/// Does it.
pub fn run(command: &ConfigCommand) -> Result<(), Failure> {
    let text = match command {
        ConfigCommand::Check(args) => return check(args),
        ConfigCommand::Show(args) if args.json => {
            let entries = config::entries(&load(args)?).into_iter();
            let members = entries.map(|(key, value, from)| (key, json!({"value": value, "from": from})));
            return output::json(&Value::Object(members.collect()));
        }
        ConfigCommand::Show(args) => config::show(&load(args)?),
        ConfigCommand::Doc(args) if args.format == DocFormat::Yaml => config::commented_defaults(),
        ConfigCommand::Doc(_) => config::reference_page(),
        ConfigCommand::Schema => format!("{:#}\n", config::schema()),
    };
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(())
}

fn check(args: &CheckArgs) -> Result<(), Failure> {
    let judged = args.config.load().and_then(|loaded| {
        let word = check_tls(&loaded.config).map_err(|fault| Failure::usage(fault.to_string()))?;
        Ok(loaded.warnings.into_iter().chain(word).collect::<Vec<_>>())
    });
    match judged {
        Ok(warnings) if args.json => {
            output::json(&json!({"good": true, "faults": [], "warnings": warnings}))?
        }
        Err(Failure::Configuration(faults)) if args.json => {
            output::json(&json!({"good": false, "faults": faults, "warnings": []}))?;
            return Err(Failure::Configuration(Vec::new()));
        }
        Err(failure) => return Err(failure),
        Ok(warnings) => {
            warn(&warnings);
            output::line(&Look::stdout().good("the configuration is good"))?;
        }
    }
    Ok(())
}

fn load(args: &CheckArgs) -> Result<config::Loaded, Failure> {
    let loaded = args.config.load()?;
    warn(&loaded.warnings);
    Ok(loaded)
}

fn warn(warnings: &[String]) {
    let look = Look::stderr();
    for warning in warnings {
        eprintln!("{} {warning}", look.warn("warning:"));
    }
}
