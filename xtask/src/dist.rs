//! What is handed out: one archive with the binary, its completions, its manual pages and a unit for systemd.
//!
//! Invariant: everything in it comes from this build (or the binary that is given to try it) or this tree, and equal
//! inputs give equal archives.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::build;
use crate::run;
use crate::workspace::Workspace;

const LIMIT: Duration = Duration::from_secs(60);
/// How long a node may take to say that it is ready.
const READY: Duration = Duration::from_secs(10);
/// Completion scripts: the shell, and the name that it looks for.
const SHELLS: [(&str, &str); 3] = [
    ("bash", "postrider"),
    ("zsh", "_postrider"),
    ("fish", "postrider.fish"),
];
const FILES: [&str; 6] = [
    "README.md",
    "CHANGELOG.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "packaging/postrider.service",
    "docs/configuration.md",
];

/// Builds it, or packs a binary that is there, and says how large it is and how fast it starts.
pub fn dist(workspace: &Workspace, given: Option<&Path>) -> Result<bool> {
    let (binary, out) = match given {
        Some(given) => (
            given
                .canonicalize()
                .with_context(|| given.display().to_string())?,
            workspace.target().join("dist/trial"),
        ),
        None => {
            no_binary_given(std::env::var_os("POSTRIDER_BIN").as_deref())?;
            (
                build::binary(workspace, build::Profile::Dist)?,
                workspace.target().join("dist"),
            )
        }
    };
    let name = name(workspace, &binary)?;
    let folder = out.join(&name);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fill(workspace, &binary, &folder)?;
    let archive = out.join(format!("{name}.tar.gz"));
    // One that is only looked at need not be small.
    let effort = if given.is_some() { "--fast" } else { "--best" };
    pack(workspace, &out, &name, &archive, effort)?;
    println!(
        "binary    {}, ready {} ms after its start",
        megabytes(&binary)?,
        start(&binary)?.as_millis()
    );
    println!("archive   {}, {}", archive.display(), megabytes(&archive)?);
    Ok(true)
}

/// What is packed is what is built here.
fn no_binary_given(given: Option<&OsStr>) -> Result<()> {
    ensure!(
        given.is_none(),
        "POSTRIDER_BIN is set, and `dist` packs what it builds: unset it"
    );
    Ok(())
}

/// `postrider-0.1.0-x86_64-unknown-linux-gnu`.
fn name(workspace: &Workspace, binary: &Path) -> Result<String> {
    let version = output(Command::new(binary).arg("--version"))?;
    let version = version.split_whitespace().last().context("no version")?;
    let cargo = output(workspace.cargo().args(["--version", "--verbose"]))?;
    let host = cargo.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(format!(
        "postrider-{version}-{}",
        host.context("cargo names no host")?
    ))
}

fn fill(workspace: &Workspace, binary: &Path, folder: &Path) -> Result<()> {
    let completions = folder.join("completions");
    fs::create_dir_all(&completions)?;
    fs::copy(binary, folder.join("postrider"))?;
    for (shell, file) in SHELLS {
        let script = output(Command::new(binary).args(["completions", shell]))?;
        fs::write(completions.join(file), script)?;
    }
    output(
        Command::new(binary)
            .arg("man")
            .arg("--dir")
            .arg(folder.join("man/man1")),
    )?;
    for file in FILES {
        let from = workspace.root.join(file);
        let to = folder.join(from.file_name().context("no name")?);
        fs::copy(&from, to).with_context(|| format!("copy {}", from.display()))?;
    }
    Ok(())
}

fn pack(workspace: &Workspace, out: &Path, name: &str, archive: &Path, effort: &str) -> Result<()> {
    // Of the last commit, so that the same sources give the same bytes.
    let mut git = Command::new("git");
    git.current_dir(&workspace.root)
        .args(["log", "-1", "--format=%ct"]);
    let time = output(&mut git);
    let time = time.unwrap_or_else(|_| "0".to_owned());
    let mut tar = Command::new("tar");
    tar.current_dir(out)
        .args([
            "--sort=name",
            "--owner=0",
            "--group=0",
            "--numeric-owner",
            "--mode=u=rwX,go=rX",
        ])
        .arg(format!("--mtime=@{}", time.trim()))
        .args(["--create"])
        .arg(format!("--use-compress-program=gzip {effort} --no-name"))
        .arg("--file")
        .arg(archive)
        .arg(name);
    output(&mut tar).map(drop)
}

/// From the start of a process with an empty data directory to its word that it is ready.
fn start(binary: &Path) -> Result<Duration> {
    let dir = std::env::temp_dir().join(format!("postrider-dist-{}", std::process::id()));
    let mut node = Command::new(binary);
    node.args(["serve", "--until-input-ends"])
        .args(["--set", "http.listen=127.0.0.1:0"])
        .args(["--set", "ops.listen=127.0.0.1:0"])
        .args(["--set", "auth.jwt.hmac_secret=only-to-measure-how-fast-it-starts"])
        .arg("--set")
        .arg(format!("data_dir={}", dir.display()));
    // What the caller configures for a node of its own is not for this one.
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"POSTRIDER_") {
            node.env_remove(name);
        }
    }
    let took = first_line(&mut node, READY);
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    took
}

/// How long the first line took, which has to come within the limit. The process is ended either way.
fn first_line(command: &mut Command, limit: Duration) -> Result<Duration> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.stderr(Stdio::null());
    let begun = Instant::now();
    let mut process = Ended(command.spawn()?);
    let out = process.0.stdout.take().context("no standard output")?;
    let (sender, line) = mpsc::sync_channel(1);
    // Ends with the process, at the latest.
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(out).read_line(&mut line);
        // Where the limit has passed nobody waits for it any more.
        sender.send((read, begun.elapsed())).ok();
    });
    let (read, took) = line
        .recv_timeout(limit)
        .with_context(|| format!("it was not ready within {limit:?}"))?;
    ensure!(read? > 0, "it did not start");
    Ok(took)
}

/// A process that ends with this.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait()) {
            eprintln!("xtask: the node that was measured: {error}");
        }
    }
}

fn output(command: &mut Command) -> Result<String> {
    let (ended, said) = run::capture(command, LIMIT)?;
    if !ended.succeeded() {
        bail!("{} {}: {said}", command.get_program().display(), ended.describe());
    }
    Ok(said)
}

fn megabytes(path: &Path) -> Result<String> {
    Ok(format!("{:.1} MB", fs::metadata(path)?.len() as f64 / 1e6))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processes::Mark;

    /// What the first line of a script came to, and how many of its processes are left.
    fn shell(script: &str, limit: Duration) -> (Result<Duration>, usize) {
        let mark = Mark::new();
        let mut command = Command::new("bash");
        command.args(["-c", script]).env(Mark::VARIABLE, mark.value());
        (first_line(&mut command, limit), mark.end_all())
    }

    #[test]
    fn the_process_is_ended_whatever_it_says() {
        let (took, left) = shell("echo ready; exec sleep 300", Duration::from_secs(20));
        assert!(took.is_ok(), "{took:?}");
        assert_eq!(left, 0);
        let (took, left) = shell("exec sleep 300", Duration::from_millis(200));
        assert!(took.is_err_and(|error| error.to_string().contains("not ready")));
        assert_eq!(left, 0);
        let (took, left) = shell("exit 3", Duration::from_secs(20));
        assert!(took.is_err_and(|error| error.to_string().contains("did not start")));
        assert_eq!(left, 0);
    }

    #[test]
    fn a_binary_from_elsewhere_is_refused() {
        assert!(no_binary_given(None).is_ok());
        assert!(no_binary_given(Some(OsStr::new("/bin/true"))).is_err());
    }
}
