//! Builds the `postrider` binary that the suites are run against.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::run;
use crate::workspace::Workspace;

const LIMIT: Duration = Duration::from_secs(30 * 60);

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Dependencies optimised, own code not: the quickest way to a binary that is fast enough to test.
    Dev,
    Release,
    /// What is handed out.
    Dist,
}

/// The absolute path of an up-to-date binary: `POSTRIDER_BIN`, or built now.
pub fn binary(workspace: &Workspace, profile: Profile) -> Result<PathBuf> {
    if let Some(given) = given()? {
        return Ok(given);
    }
    let mut arguments = vec!["build", "-p", "postrider-cli"];
    match profile {
        Profile::Dev => {}
        Profile::Release => arguments.push("--release"),
        Profile::Dist => arguments.extend(["--profile", "dist"]),
    }
    cargo(workspace, &arguments)?;
    built(workspace, profile)
}

/// The binary and every test in one go, so that `cargo test` finds them built with the same features.
pub fn binary_and_tests(workspace: &Workspace) -> Result<PathBuf> {
    cargo(workspace, &["build", "--workspace", "--bins", "--tests"])?;
    match given()? {
        Some(given) => Ok(given),
        None => built(workspace, Profile::Dev),
    }
}

/// The node that sends text back, for conformance suites. As part of the workspace, so that its dependencies are those
/// that were built for the tests.
pub fn echo(workspace: &Workspace) -> Result<PathBuf> {
    let arguments = [
        "build",
        "--workspace",
        "--features",
        "postrider-server/echo",
        "--example",
        "echo",
    ];
    cargo(workspace, &arguments)?;
    existing(&workspace.target().join("debug/examples/echo"))
}

fn given() -> Result<Option<PathBuf>> {
    let Some(path) = std::env::var_os("POSTRIDER_BIN") else {
        return Ok(None);
    };
    let path = PathBuf::from(path);
    let path = path
        .canonicalize()
        .with_context(|| format!("POSTRIDER_BIN={}", path.display()))?;
    println!("using     {} (POSTRIDER_BIN)", path.display());
    Ok(Some(path))
}

fn cargo(workspace: &Workspace, arguments: &[&str]) -> Result<()> {
    println!("building  cargo {}", arguments.join(" "));
    let mut command = workspace.cargo();
    command.args(arguments);
    let ended = run::stream(&mut command, LIMIT, |line| println!("{line}"))?;
    if !ended.succeeded() {
        bail!("cargo {} {}", arguments.join(" "), ended.describe());
    }
    println!("built     in {:.1} s", ended.seconds);
    Ok(())
}

fn built(workspace: &Workspace, profile: Profile) -> Result<PathBuf> {
    let folder = match profile {
        Profile::Dev => "debug",
        Profile::Release => "release",
        Profile::Dist => "dist",
    };
    existing(&workspace.target().join(folder).join("postrider"))
}

fn existing(path: &Path) -> Result<PathBuf> {
    path.canonicalize()
        .with_context(|| format!("cargo built no {}", path.display()))
}
