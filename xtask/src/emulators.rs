//! Emulators of AWS and boto3, from PyPI: an environment each, as of one day.
//!
//! uv makes them, since it leaves out whatever was published later than a day: what was seen to work together stays
//! together.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::install::{answer, finish};
use crate::pyenv;
use crate::workspace::Workspace;

const UV: &str = "uv==0.13.9";
const LIMIT: Duration = Duration::from_secs(10 * 60);

/// What is in an environment.
pub struct Environment {
    pub name: &'static str,
    packages: &'static [&'static str],
    /// Nothing that was published later.
    day: &'static str,
    /// A program that it must have.
    program: &'static str,
}

/// SQS and SNS. Exists for Python 3.13 alone.
pub const LOCALSTACK: Environment = Environment {
    name: "localstack",
    packages: &["localstack-core[runtime]==2026.3.0", "setuptools"],
    day: "2026-04-01",
    program: "python",
};

/// SQS and DynamoDB by other people, and boto3.
pub const MOTO: Environment = Environment {
    name: "moto",
    packages: &["moto[server]==5.2.5", "boto3==1.44.3"],
    day: "2026-11-15",
    program: "moto_server",
};

/// The one Python that LocalStack is published for.
pub fn python_313() -> Result<Option<PathBuf>> {
    for candidate in pyenv::candidates("3.13") {
        let works = answer(
            &candidate.to_string_lossy(),
            &["-c", "import venv; print('python 3.13')"],
        )?;
        if works.is_some() {
            return Ok(Some(candidate));
        }
    }
    Ok(None)
}

/// Where the environments are.
pub fn folder(workspace: &Workspace) -> PathBuf {
    workspace.tools().join("aws")
}

/// Installs an environment on a Python, where it is not there yet.
pub fn install(workspace: &Workspace, environment: &Environment, python: &Path) -> Result<()> {
    let folder = folder(workspace).join(environment.name);
    let record = folder.join("installed.txt");
    let wanted = format!("{} as of {}", environment.packages.join(" "), environment.day);
    let is_there = folder.join("bin").join(environment.program).exists();
    if is_there && std::fs::read_to_string(&record).is_ok_and(|have| have == wanted) {
        println!("found     {}: {}", environment.name, folder.display());
        return Ok(());
    }
    let uv = uv(workspace, python)?;
    println!("install   {}: {wanted} → {}", environment.name, folder.display());
    let mut make = Command::new(&uv);
    make.args(["venv", "--quiet", "--clear", "--python"])
        .arg(python)
        .arg(&folder);
    finish(&mut make, LIMIT)?;
    let mut install = Command::new(&uv);
    install.args([
        "pip",
        "install",
        "--quiet",
        "--exclude-newer",
        environment.day,
        "--python",
    ]);
    install.arg(folder.join("bin/python")).args(environment.packages);
    finish(&mut install, LIMIT)?;
    std::fs::write(&record, wanted).with_context(|| format!("writing {}", record.display()))
}

/// uv's own program, in an environment of its own.
fn uv(workspace: &Workspace, python: &Path) -> Result<PathBuf> {
    let folder = folder(workspace).join("uv");
    let (program, record) = (folder.join("bin/uv"), folder.join("installed.txt"));
    if program.exists() && std::fs::read_to_string(&record).is_ok_and(|have| have == UV) {
        return Ok(program);
    }
    println!("install   uv: {UV} → {}", folder.display());
    finish(
        Command::new(python).args(["-m", "venv", "--clear"]).arg(&folder),
        LIMIT,
    )?;
    let mut install = Command::new(folder.join("bin/python"));
    install.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        UV,
    ]);
    finish(&mut install, LIMIT)?;
    std::fs::write(&record, UV).with_context(|| format!("writing {}", record.display()))?;
    Ok(program)
}
