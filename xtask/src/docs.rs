//! Runs the documentation: what a reader would type has to work.
//!
//! The convention, for those who write documents:
//!
//! * A fenced block marked `sh` is run. What is not to be run, or shows output, is marked `console`, `text`, `yaml`, ….
//! * The blocks of one file run in order, in one bash session with `set -e`, in a copy of the project's tree;
//!   a variable or a folder of one block is there in the next. Each file starts anew. README.md and docs/**/*.md.
//! * `cargo run --release -- ARGS`, `./target/release/postrider ARGS` and `postrider ARGS` are the binary already
//!   built; `cargo build` and `cargo install` of it do nothing. Any other cargo command is run in the true tree.
//! * `postrider demo` and `postrider serve` are written as a reader types them, in the foreground or with `&`: the
//!   session starts them beside itself, goes on when they are up, and ends them after the file's last block, when
//!   they have to drain and end with 0. So are `postrider listen` and `curl -N` where they stand alone, not in a
//!   pipe or under `timeout`: they go on beside the rest and must not have failed when the file ends.
//! * After `postrider demo` the variables `URL` (http://127.0.0.1:PORT), `PAGE`, `KEY`, `ADA` and `BOB` (the API key and the
//!   two users' tokens) are set, as the text tells its reader to do: `KEY=…` from the output goes into a `console` block.
//!   A file that uses one of them, or `127.0.0.1:8080`, and starts neither demo nor serve gets a demo before its first block.
//! * `127.0.0.1:8080` and `:9090`, the defaults, and any other `127.0.0.1:` or `localhost:` with a port of four digits may be written
//!   literally: each is replaced by a free port, in the blocks and in the copied configuration files.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::clone::{Folder, copy_tree};
use crate::markdown::{Block, shell_blocks};
use crate::ports::PortMap;
use crate::run;
use crate::summary::Tally;
use crate::workspace::Workspace;

/// For one file.
const LIMIT: Duration = Duration::from_secs(240);
const PRELUDE: &str = include_str!("docs_session.sh");
/// Lines by which the session tells this program where it is.
const AT_BLOCK: &str = "@@block ";
const AT_ERROR: &str = "@@error ";
const AT_END: &str = "@@end";

/// Runs the blocks of the named files, or of all; counts blocks.
pub fn check(workspace: &Workspace, binary: &Path, only: &[String]) -> Result<Tally> {
    let mut files = documents(&workspace.root)?;
    files.retain(|file| only.is_empty() || only.iter().any(|name| Path::new(name) == file.as_path()));
    let mut tally = Tally::default();
    for file in &files {
        let path = workspace.root.join(file);
        let document =
            std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let blocks = shell_blocks(&document);
        if !blocks.is_empty() {
            tally.add(Session::new(workspace, binary, file, blocks)?.run()?);
        }
    }
    if tally == Tally::default() {
        println!(
            "FAIL no ```sh block in {}",
            if files.is_empty() {
                "any document"
            } else {
                "the documents"
            }
        );
        tally.failed = 1;
    }
    Ok(tally)
}

/// README.md and docs/**/*.md, as paths from the root.
fn documents(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    if root.join("README.md").exists() {
        found.push(PathBuf::from("README.md"));
    }
    let mut folders = vec![PathBuf::from("docs")];
    let mut documents = Vec::new();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(root.join(&folder)) else {
            continue;
        };
        for entry in entries {
            let entry = entry.with_context(|| format!("listing {}", folder.display()))?;
            let path = folder.join(entry.file_name());
            if entry.path().is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                documents.push(path);
            }
        }
    }
    documents.sort();
    found.extend(documents);
    Ok(found)
}

/// One file's blocks on their way through bash.
struct Session<'a> {
    workspace: &'a Workspace,
    binary: &'a Path,
    file: &'a Path,
    blocks: Vec<Block>,
    ports: PortMap,
    folder: Folder,
}

impl<'a> Session<'a> {
    fn new(workspace: &'a Workspace, binary: &'a Path, file: &'a Path, blocks: Vec<Block>) -> Result<Self> {
        let folder = Folder::new()?;
        let mut ports = PortMap::new()?;
        copy_tree(&workspace.root, &folder.path().join("postrider"), &mut ports)?;
        Ok(Session {
            workspace,
            binary,
            file,
            blocks,
            ports,
            folder,
        })
    }

    fn run(mut self) -> Result<Tally> {
        let (script, starts) = self.script();
        let folder = self.folder.path();
        let path = folder.join("session.sh");
        std::fs::write(&path, script).with_context(|| format!("writing {}", path.display()))?;
        let programs = folder.join("bin");
        std::fs::create_dir_all(&programs).context("a folder for the binary")?;
        std::os::unix::fs::symlink(self.binary, programs.join("postrider"))
            .context("a link to the binary")?;
        let mut search = programs.into_os_string();
        search.push(":");
        search.push(std::env::var_os("PATH").unwrap_or_default());

        let mut command = Command::new("bash");
        command
            .args(["--noprofile", "--norc"])
            .arg(&path)
            .current_dir(folder.join("postrider"));
        command
            .env("PATH", search)
            .env("DOCS_FOLDER", folder)
            .env("DOCS_ROOT", &self.workspace.root);
        command
            .env("DOCS_HTTP", self.ports.of("8080"))
            .env("DOCS_OPS", self.ports.of("9090"));
        command.env_remove("POSTRIDER_BIN");
        self.follow(&mut command, &starts)
    }

    fn follow(&self, command: &mut Command, starts: &[usize]) -> Result<Tally> {
        let mut current: Option<usize> = None;
        let mut told = false;
        let mut finished = false;
        let ended = run::stream(command, LIMIT, |line| {
            if let Some(number) = line.strip_prefix(AT_BLOCK).and_then(|number| number.parse().ok()) {
                if let Some(done) = current.replace(number) {
                    println!("ok   {}", self.place(done, 0));
                }
            } else if let Some(rest) = line.strip_prefix(AT_ERROR) {
                told = true;
                self.tell(rest, current, starts);
            } else if line == AT_END {
                finished = true;
            } else {
                println!("     {line}");
            }
        })?;
        let reached = current.map_or(0, |current| current + 1);
        if ended.succeeded() && finished {
            if let Some(last) = current {
                println!("ok   {}", self.place(last, 0));
            }
            return Ok(Tally {
                passed: reached,
                ..Tally::default()
            });
        }
        if !told || ended.timed_out {
            println!(
                "FAIL {}: {}",
                self.place(reached.saturating_sub(1), 0),
                ended.describe()
            );
        }
        let skipped = self.blocks.len() - reached.max(1);
        Ok(Tally {
            passed: reached.saturating_sub(1),
            failed: 1,
            skipped,
        })
    }

    /// `STATUS LINE`, the line being one of the generated script.
    fn tell(&self, error: &str, current: Option<usize>, starts: &[usize]) {
        let (status, line) = error.split_once(' ').unwrap_or((error, ""));
        let Some(current) = current else {
            println!(
                "FAIL {}: before the first block: status {status}",
                self.file.display()
            );
            return;
        };
        let text = &self.blocks[current].text;
        let within = line
            .parse::<usize>()
            .ok()
            .and_then(|line| line.checked_sub(starts[current]));
        let within = within.filter(|within| *within < text.lines().count());
        let command = within
            .and_then(|within| text.lines().nth(within))
            .unwrap_or("the end of the document");
        println!(
            "FAIL {}: status {status} from `{}`",
            self.place(current, within.unwrap_or(0)),
            command.trim()
        );
    }

    fn place(&self, block: usize, line: usize) -> String {
        format!("{}:{}", self.file.display(), self.blocks[block].line + line)
    }

    /// The bash script, and in which of its lines each block starts.
    fn script(&mut self) -> (String, Vec<usize>) {
        let mut script = PRELUDE.to_owned();
        if self.needs_demo() {
            script.push_str("__launch demo demo >&2\n");
        }
        let mut starts = Vec::new();
        for (number, block) in self.blocks.iter().enumerate() {
            writeln!(script, "printf '\\n%s\\n' '{AT_BLOCK}{number}'")
                .expect("writing to a String cannot fail");
            starts.push(script.lines().count() + 1);
            script.push_str(&self.ports.rewrite(&as_session(&block.text)));
        }
        writeln!(script, "__finish\nprintf '\\n%s\\n' '{AT_END}'").expect("writing to a String cannot fail");
        (script, starts)
    }

    fn needs_demo(&self) -> bool {
        let text: String = self.blocks.iter().map(|block| as_session(&block.text)).collect();
        let starts = text.lines().any(|line| launched(line).is_some());
        let uses = ["KEY", "ADA", "BOB", "URL", "PAGE"].iter();
        let uses = uses
            .flat_map(|name| [format!("${name}"), format!("${{{name}}}")])
            .any(|name| text.contains(&name));
        !starts && (uses || text.contains("127.0.0.1:8080") || text.contains("localhost:8080"))
    }
}

/// The block as the session runs it: one name for the binary, and no `&` after what the session starts itself.
fn as_session(text: &str) -> String {
    let text = text.replace("./target/release/postrider", "postrider");
    text.lines()
        .map(|line| match launched(line) {
            Some(command) => format!("{command}\n"),
            None => format!("{line}\n"),
        })
        .collect()
}

/// A line that starts a server, without its `&`.
fn launched(line: &str) -> Option<&str> {
    let words: Vec<&str> = line
        .split_whitespace()
        .take_while(|word| !word.contains('|'))
        .collect();
    let cargo = words.starts_with(&["cargo", "run"]);
    let arguments = match words.iter().position(|word| *word == "--") {
        Some(at) if cargo => words.get(at + 1),
        _ => words
            .iter()
            .skip_while(|word| word.contains('='))
            .skip_while(|word| **word != "postrider")
            .nth(1),
    };
    let first = words.iter().find(|word| !word.contains('='))?;
    let runs = cargo || *first == "postrider";
    (runs && arguments.is_some_and(|word| ["demo", "serve"].contains(word)))
        .then(|| line.trim_end().trim_end_matches('&').trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_started_by_the_session() {
        for line in [
            "cargo run --release -- demo &",
            "postrider serve --config node.yaml",
            "A=1 postrider demo  &",
        ] {
            assert_eq!(launched(line), Some(line.trim_end_matches(['&', ' '])), "{line}");
        }
        for line in [
            "postrider publish --data demo",
            "echo postrider demo",
            "cargo test",
            "curl -N x &",
            "timeout 3 postrider demo",
        ] {
            assert_eq!(launched(line), None, "{line}");
        }
    }
}
