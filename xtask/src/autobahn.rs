//! Autobahn's suite of WebSocket conformance, which exists for Python 2.7 alone: in an environment of its own, if the
//! machine has that Python.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::install::{answer, finish};
use crate::workspace::Workspace;

/// The last version that makes environments for Python 2.7.
const VIRTUALENV: &str = "virtualenv==20.15.1";
const SUITE: &str = "autobahntestsuite==25.10.1";

const PIP_LIMIT: Duration = Duration::from_secs(5 * 60);

/// A Python 2.7: of the machine, or of pyenv.
pub fn python() -> Result<Option<PathBuf>> {
    let mut candidates = vec![PathBuf::from("python2.7")];
    let root = std::env::var_os("PYENV_ROOT").map(PathBuf::from);
    let root = root.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".pyenv")));
    if let Some(versions) = root.and_then(|root| std::fs::read_dir(root.join("versions")).ok()) {
        let of_27 = versions.flatten().filter(|version| {
            let name = version.file_name();
            name.to_string_lossy().starts_with("2.7")
        });
        candidates.extend(of_27.map(|version| version.path().join("bin/python2.7")));
    }
    for candidate in candidates {
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
