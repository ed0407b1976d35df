//! `postrider completions` and `postrider man`: what a shell and `man` know of the command line, written from the
//! same definitions that parse it.

use crate::exit::Failure;
use anyhow::Context as _;
use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Arguments of `completions`.
#[derive(Args)]
#[command(after_help = COMPLETIONS_HELP)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

const COMPLETIONS_HELP: &str = "\
Examples:
  postrider completions bash > ~/.local/share/bash-completion/completions/postrider
  postrider completions zsh > ~/.zfunc/_postrider    with ~/.zfunc in $fpath
  postrider completions fish > ~/.config/fish/completions/postrider.fish";

/// Arguments of `man`.
#[derive(Args)]
#[command(after_help = MAN_HELP)]
pub struct ManArgs {
    /// A directory: one page for each command is written there; without it the page of `postrider` goes to standard
    /// output
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

const MAN_HELP: &str = "\
Examples:
  postrider man | man -l -
  postrider man --dir ~/.local/share/man/man1 && man postrider-publish";

/// Writes a completion script.
pub fn completions<C: CommandFactory>(args: &CompletionsArgs) -> Result<(), Failure> {
    // In one piece, since the generator cannot say that nobody reads any more.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut C::command(), "postrider", &mut script);
    std::io::stdout().lock().write_all(&script)?;
    Ok(())
}

/// Writes manual pages.
pub fn man<C: CommandFactory>(args: &ManArgs) -> Result<(), Failure> {
    let mut command = C::command();
    command.build();
    match &args.dir {
        None => {
            let mut page = Vec::new();
            Man::new(command).render(&mut page)?;
            std::io::stdout().lock().write_all(&page)?;
        }
        Some(dir) => {
            fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
            pages(&command, "postrider", dir)?;
        }
    }
    Ok(())
}

/// A command's page and those of its subcommands: `postrider-config-check.1`.
fn pages(command: &Command, name: &str, dir: &Path) -> anyhow::Result<()> {
    let mut page = Vec::new();
    Man::new(command.clone())
        .title(name.to_owned())
        .render(&mut page)?;
    let path = dir.join(format!("{name}.1"));
    fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        pages(sub, &format!("{name}-{}", sub.get_name()), dir)?;
    }
    Ok(())
}
