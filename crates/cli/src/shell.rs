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
  postrider completions zsh > ~/.zfunc/_postrider         with ~/.zfunc in $fpath
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
            let page = page(&command, "postrider")?;
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
    let page = page(command, name)?;
    let path = dir.join(format!("{name}.1"));
    fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        pages(sub, &format!("{name}-{}", sub.get_name()), dir)?;
    }
    Ok(())
}

/// A manual page; what stands under the help is in it by sections.
fn page(command: &Command, name: &str) -> std::io::Result<Vec<u8>> {
    let man = Man::new(command.clone())
        .title(name.to_uppercase())
        .source(concat!("postrider ", env!("CARGO_PKG_VERSION")))
        .manual("Postrider");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    if command.get_arguments().next().is_some() {
        man.render_options_section(&mut page)?;
    }
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    if let Some(text) = command.get_after_long_help().or(command.get_after_help()) {
        page.extend_from_slice(sections(&text.to_string()).as_bytes());
    }
    Ok(page)
}

/// `Examples:` and the like as sections, as they stand; what is under no such line, as notes.
fn sections(text: &str) -> String {
    let mut out = String::new();
    let mut in_notes = false;
    for line in text.lines() {
        match line.strip_suffix(':') {
            Some(head) if !head.starts_with(' ') => {
                out += &format!(
                    "{}.SH {}\n.nf\n",
                    if out.is_empty() { "" } else { ".fi\n" },
                    head.to_uppercase()
                );
                in_notes = false;
                continue;
            }
            _ if line.starts_with(' ') || line.is_empty() => {}
            _ if in_notes => {}
            _ => {
                out += &format!("{}.SH NOTES\n", if out.is_empty() { "" } else { ".fi\n" });
                in_notes = true;
            }
        }
        out += &format!("{}\n", escaped(line));
    }
    out + ".fi\n"
}

/// Text that is nothing else to roff.
fn escaped(line: &str) -> String {
    let text = line.replace('\\', "\\e").replace('-', "\\-");
    match text.starts_with(['.', '\'']) {
        true => format!("\\&{text}"),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_becomes_sections() {
        let text = "A word before.\n\nExamples:\n  a --b 'c\\n'\n  .d\n\nExit status:\n  0  done";
        assert_eq!(
            sections(text),
            ".SH NOTES\nA word before.\n\n.fi\n.SH EXAMPLES\n.nf\n  a \\-\\-b 'c\\en'\n  .d\n\n.fi\n.SH EXIT STATUS\n.nf\n  0  done\n.fi\n"
        );
    }
}
