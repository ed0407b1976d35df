//! `postrider config check` and `config show`.

use crate::exit::Failure;
use crate::serve::ConfigArgs;
use clap::Subcommand;
use postrider_server::config;
use std::io::Write as _;

/// What to do with the configuration.
#[derive(Subcommand)]
pub enum ConfigCommand {
    /// Report every fault, one line each; exit status 2 where there is one
    Check(ConfigArgs),
    /// Write what is in force and where each value came from; secrets as ***
    Show(ConfigArgs),
}

/// Checks, or shows.
pub fn run(command: &ConfigCommand) -> Result<(), Failure> {
    let (ConfigCommand::Check(args) | ConfigCommand::Show(args)) = command;
    let loaded = args.load()?;
    for warning in &loaded.warnings {
        eprintln!("warning: {warning}");
    }
    let mut out = std::io::stdout().lock();
    match command {
        ConfigCommand::Check(_) => writeln!(out, "the configuration is good")?,
        ConfigCommand::Show(_) => out.write_all(config::show(&loaded).as_bytes())?,
    }
    Ok(())
}
