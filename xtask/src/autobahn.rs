//! Autobahn's suite of WebSocket conformance, which exists for Python 2.7 alone: in an environment of its own, if the
//! machine has that Python.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::install::{answer, finish};
use crate::pyenv;
use crate::workspace::Workspace;

/// The last version that makes environments for Python 2.7.
const VIRTUALENV: &str = "virtualenv==20.15.1";
const SUITE: &str = "autobahntestsuite==25.10.1";

const PIP_LIMIT: Duration = Duration::from_secs(5 * 60);

/// A Python 2.7: of the machine, or of pyenv.
pub fn python() -> Result<Option<PathBuf>> {
    for candidate in pyenv::candidates("2.7") {
        let works = answer(&candidate.to_string_lossy(), &["-m", "pip", "--version"])?;
        if works.is_some() {
            return Ok(Some(candidate));
        }
    }
    Ok(None)
}

/// The suite's program.
pub fn wstest(workspace: &Workspace) -> PathBuf {
    folder(workspace).join("env/bin/wstest")
}

fn folder(workspace: &Workspace) -> PathBuf {
    workspace.tools().join("autobahn")
}

/// Installs the suite from PyPI, where it is not there yet.
pub fn install(workspace: &Workspace) -> Result<()> {
    let folder = folder(workspace);
    let record = folder.join("installed.txt");
    let wanted = format!("{VIRTUALENV} {SUITE}");
    if std::fs::read_to_string(&record).is_ok_and(|have| have == wanted) && wstest(workspace).exists() {
        println!("found     Autobahn: {}", folder.display());
        return Ok(());
    }
    println!("install   Autobahn: {wanted} → {}", folder.display());
    let python = python()?.context("no Python 2.7")?;
    let maker = folder.join("virtualenv");
    pip(&python, &["--target".as_ref(), &maker, VIRTUALENV.as_ref()])?;
    let environment = folder.join("env");
    let mut make = Command::new(&python);
    make.args(["-m", "virtualenv", "--quiet", "--clear", "--no-download"])
        .arg(&environment)
        .env("PYTHONPATH", &maker);
    finish(&mut make, PIP_LIMIT)?;
    pip(&environment.join("bin/python"), &[SUITE.as_ref()])?;
    std::fs::write(&record, wanted).with_context(|| format!("writing {}", record.display()))
}

fn pip(python: &Path, arguments: &[&Path]) -> Result<()> {
    let install = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--upgrade",
    ];
    finish(Command::new(python).args(install).args(arguments), PIP_LIMIT)
}
