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

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::markdown::{Block, shell_blocks};
use crate::summary::Tally;
use crate::workspace::Workspace;
use crate::{ports, run};

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
        copy_tree(&workspace.root, &folder.0.join("postrider"), &mut ports)?;
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
        let folder = &self.folder.0;
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
            writeln!(script, "echo '{AT_BLOCK}{number}'").expect("writing to a String cannot fail");
            starts.push(script.lines().count() + 1);
            script.push_str(&self.ports.rewrite(&as_session(&block.text)));
        }
        writeln!(script, "__finish\necho '{AT_END}'").expect("writing to a String cannot fail");
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

/// Which free port stands for which written one, the same throughout a file.
struct PortMap {
    free: Vec<u16>,
    given: BTreeMap<String, u16>,
}

impl PortMap {
    /// More addresses than any one document names.
    const MOST: usize = 16;

    fn new() -> Result<Self> {
        Ok(PortMap {
            free: ports::free(Self::MOST)?,
            given: BTreeMap::new(),
        })
    }

    /// `127.0.0.1:` and the port.
    fn of(&mut self, written: &str) -> String {
        format!("127.0.0.1:{}", self.port(written))
    }

    fn port(&mut self, written: &str) -> String {
        if let Some(port) = self.given.get(written) {
            return port.to_string();
        }
        // Past the bound the port stays as it was written.
        let Some(port) = self.free.pop() else {
            return written.to_owned();
        };
        self.given.insert(written.to_owned(), port);
        port.to_string()
    }

    fn rewrite(&mut self, text: &str) -> String {
        let text = self.rewrite_after(text, "127.0.0.1:");
        self.rewrite_after(&text, "localhost:")
    }

    fn rewrite_after(&mut self, text: &str, host: &str) -> String {
        let mut parts = text.split(host);
        let mut rewritten = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            rewritten.push_str(host);
            let digits = part.bytes().take_while(u8::is_ascii_digit).count();
            let (port, rest) = part.split_at(digits);
            let known = self.given.values().any(|given| given.to_string() == port);
            rewritten.push_str(&if digits == 4 && !known {
                self.port(port)
            } else {
                port.to_owned()
            });
            rewritten.push_str(rest);
        }
        rewritten
    }
}

/// A private folder that goes with its owner.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        let name = format!("postrider-docs-{}", crate::processes::Mark::new().value());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("xtask: {} stays: {error}", self.0.display());
        }
    }
}

/// What a clone would hold, near enough: everything but what tools made.
fn copy_tree(from: &Path, to: &Path, ports: &mut PortMap) -> Result<()> {
    const MADE: &[&str] = &[
        "target",
        ".git",
        "node_modules",
        ".venv",
        "__pycache__",
        "postrider-data",
    ];
    const SETTINGS: &[&str] = &["yaml", "yml", "toml", "properties", "env"];

    std::fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    for entry in std::fs::read_dir(from).with_context(|| format!("listing {}", from.display()))? {
        let entry = entry.with_context(|| format!("listing {}", from.display()))?;
        let (name, source) = (entry.file_name(), entry.path());
        let target = to.join(&name);
        if MADE.iter().any(|made| name == *made) {
            continue;
        }
        let kind = entry
            .file_type()
            .with_context(|| format!("looking at {}", source.display()))?;
        let extension = source
            .extension()
            .and_then(|extension| extension.to_str())
            .unwrap_or_default();
        if kind.is_dir() {
            copy_tree(&source, &target, ports)?;
        } else if SETTINGS.contains(&extension) {
            let text =
                std::fs::read_to_string(&source).with_context(|| format!("reading {}", source.display()))?;
            let text = ports.rewrite(&text);
            std::fs::write(&target, text).with_context(|| format!("writing {}", target.display()))?;
        } else if kind.is_file() {
            std::fs::copy(&source, &target).with_context(|| format!("copying {}", source.display()))?;
        }
    }
    Ok(())
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

    #[test]
    fn a_port_means_the_same_throughout() {
        let mut ports = PortMap {
            free: vec![4002, 4001],
            given: BTreeMap::new(),
        };
        assert_eq!(ports.of("8080"), "127.0.0.1:4001");
        let text =
            "curl http://127.0.0.1:8080/x http://localhost:9090 127.0.0.1:0 127.0.0.1:41234 localhost:8080";
        let expected =
            "curl http://127.0.0.1:4001/x http://localhost:4002 127.0.0.1:0 127.0.0.1:41234 localhost:4001";
        assert_eq!(ports.rewrite(text), expected);
        assert_eq!(ports.rewrite(expected), expected);
    }
}
