//! `cargo xtask counts`: how many instructions the inner functions take, by callgrind, against the committed numbers.
//! A count has no noise: what a busy machine hides, it shows.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::install::answer;
use crate::run;
use crate::workspace::Workspace;

const LIMIT: Duration = Duration::from_secs(10 * 60);
const BUILD_LIMIT: Duration = Duration::from_secs(30 * 60);

/// Counts and compares, or writes what was counted. Where valgrind is missing it says that nothing ran.
pub fn counts(workspace: &Workspace, write: bool) -> Result<bool> {
    if answer("valgrind", &["--version"])?.is_none() {
        println!("NOT RUN   counts: there is no valgrind (Debian package: valgrind)");
        return Ok(true);
    }
    let mut build = workspace.cargo();
    build.args(["build", "--release", "-p", "postrider-bench-counts"]);
    let ended = run::stream(&mut build, BUILD_LIMIT, |line| println!("{line}"))?;
    if !ended.succeeded() {
        bail!("building the counts {}", ended.describe());
    }
    let program = workspace.target().join("release/postrider-bench-counts");
    let program = Path::new(&program)
        .canonicalize()
        .context("cargo built no counts")?;
    let mut command = Command::new(program);
    command.current_dir(&workspace.root).arg("bench/counts.json");
    if write {
        command.arg("--write");
    }
    let ended = run::stream(&mut command, LIMIT, |line| println!("{line}"))?;
    Ok(ended.succeeded())
}
