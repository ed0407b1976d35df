//! What is handed out: one archive with the binary, its completions, its manual pages and a unit for systemd.
//!
//! Invariant: everything in it comes from this build or this tree, and equal inputs give equal archives.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::build;
use crate::run;
use crate::workspace::Workspace;

const LIMIT: Duration = Duration::from_secs(60);
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

/// Builds it, and says how large it is and how fast it starts.
pub fn dist(workspace: &Workspace) -> Result<bool> {
    let binary = build::binary(workspace, build::Profile::Dist)?;
    let name = name(workspace, &binary)?;
    let out = workspace.target().join("dist");
    let folder = out.join(&name);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fill(workspace, &binary, &folder)?;
    let archive = out.join(format!("{name}.tar.gz"));
    pack(workspace, &out, &name, &archive)?;
    println!(
        "binary    {}, ready {} ms after its start",
        megabytes(&binary)?,
        start(&binary)?.as_millis()
    );
    println!("archive   {}, {}", archive.display(), megabytes(&archive)?);
    Ok(true)
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

fn pack(workspace: &Workspace, out: &Path, name: &str, archive: &Path) -> Result<()> {
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
        .args([
            "--use-compress-program=gzip --best --no-name",
            "--create",
            "--file",
        ])
        .arg(archive)
        .arg(name);
    output(&mut tar).map(drop)
}

/// From the start of a process with an empty data directory to its word that it is ready.
fn start(binary: &Path) -> Result<Duration> {
    let dir = std::env::temp_dir().join(format!("postrider-dist-{}", std::process::id()));
    let begun = Instant::now();
    let mut node = Command::new(binary)
        .args([
            "serve",
            "--set",
            "http.listen=127.0.0.1:0",
            "--set",
            "ops.listen=127.0.0.1:0",
        ])
        .args(["--set", "auth.jwt.hmac_secret=only-to-measure-how-fast-it-starts"])
        .arg("--set")
        .arg(format!("data_dir={}", dir.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut line = String::new();
    let read = node
        .stdout
        .take()
        .map(|out| BufReader::new(out).read_line(&mut line));
    let took = begun.elapsed();
    node.kill()?;
    node.wait()?;
    fs::remove_dir_all(&dir)?;
    read.context("no standard output")??;
    ensure!(!line.is_empty(), "it did not start");
    Ok(took)
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
