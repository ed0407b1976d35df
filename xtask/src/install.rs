//! Installs what the suites need, by the ordinary clients: apt-get, pip, npm.
//!
//! Debian packages go where Debian puts them; Python and Node.js packages into private folders under `target/`,
//! from the pinned lists that lie beside the suites. What is there already is not installed again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::apt::Apt;
use crate::autobahn;
use crate::emulators;
use crate::run;
use crate::workspace::Workspace;

const PIP_LIMIT: Duration = Duration::from_secs(5 * 60);
const NPM_LIMIT: Duration = Duration::from_secs(5 * 60);
const PROBE_LIMIT: Duration = Duration::from_secs(60);
/// The oldest Python that the suites are written for.
const PYTHON: (u32, u32) = (3, 10);
/// The oldest Node.js that the pinned browser driver runs on.
const NODE: u32 = 18;
/// The oldest Redis that the engine runs on.
const REDIS: u32 = 7;

/// One thing that a suite cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    Curl,
    Jq,
    Python,
    PythonPackages,
    Chromium,
    Node,
    NodePackages,
    Strace,
    XfsIo,
    Mkfs,
    Python27,
    Autobahn,
    Systemd,
    Redis,
    HaProxy,
    Iptables,
    Python313,
    LocalStack,
    Moto,
    Postgres,
    Terraform,
}

impl Need {
    fn name(self) -> &'static str {
        match self {
            Need::Curl => "curl",
            Need::Jq => "jq",
            Need::Python => "python3",
            Need::PythonPackages => "Python packages",
            Need::Chromium => "chromium",
            Need::Node => "node",
            Need::NodePackages => "Node.js packages",
            Need::Strace => "strace",
            Need::XfsIo => "xfs_io",
            Need::Mkfs => "mkfs.ext4",
            Need::Python27 => "python2.7",
            Need::Autobahn => "Autobahn",
            Need::Systemd => "systemd-analyze",
            Need::Redis => "redis-server",
            Need::HaProxy => "haproxy",
            Need::Iptables => "iptables",
            Need::Python313 => "python3.13",
            Need::LocalStack => "LocalStack",
            Need::Moto => "moto",
            Need::Postgres => "postgresql-15",
            Need::Terraform => "terraform",
        }
    }

    /// What has to be there first.
    pub fn rests_on(self) -> &'static [Need] {
        match self {
            Need::PythonPackages => &[Need::Python],
            Need::NodePackages => &[Need::Node],
            Need::Autobahn => &[Need::Python27],
            Need::LocalStack => &[Need::Python313],
            Need::Moto => &[Need::Python],
            _ => &[],
        }
    }

    fn packages(self) -> &'static [&'static str] {
        match self {
            Need::Curl => &["curl", "ca-certificates"],
            Need::Jq => &["jq"],
            Need::Python => &["python3", "python3-venv"],
            Need::Chromium => &["chromium", "fonts-dejavu-core"],
            Need::Node => &["nodejs", "npm"],
            Need::Strace => &["strace"],
            Need::XfsIo => &["xfsprogs"],
            Need::Mkfs => &["e2fsprogs", "mount"],
            Need::Systemd => &["systemd"],
            Need::Redis => &["redis-server"],
            Need::HaProxy => &["haproxy"],
            // With `ip` and `tc`, which lead to the links whose packets it drops.
            Need::Iptables => &["iptables", "iproute2"],
            Need::Postgres => &["postgresql-15"],
            Need::PythonPackages
            | Need::NodePackages
            | Need::Python27
            | Need::Autobahn
            | Need::Python313
            | Need::LocalStack
            | Need::Moto
            | Need::Terraform => &[],
        }
    }
}

/// What became of each need: there, or why not.
#[derive(Default)]
pub struct Installed(BTreeMap<Need, Result<(), String>>);

impl Installed {
    /// Why a suite with these needs cannot run.
    pub fn missing(&self, needs: &[Need]) -> Option<String> {
        let reasons: Vec<String> = needs
            .iter()
            .filter_map(|need| {
                self.0
                    .get(need)?
                    .as_ref()
                    .err()
                    .map(|reason| format!("{}: {reason}", need.name()))
            })
            .collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }
}

/// Never fails as a whole: a suite without what is missing here can still run.
pub fn install(workspace: &Workspace, needs: &[Need]) -> Installed {
    let mut wanted: Vec<Need> = needs
        .iter()
        .flat_map(|need| need.rests_on())
        .chain(needs)
        .copied()
        .collect();
    wanted.sort_unstable();
    wanted.dedup();

    let mut installed = Installed::default();
    let mut apt = Apt::default();
    for need in wanted {
        let result = installed
            .missing(need.rests_on())
            .map_or(Ok(()), Err)
            .and_then(|()| provide(need, workspace, &mut apt).map_err(|error| format!("{error:#}")));
        if let Err(reason) = &result {
            println!("missing   {}: {reason}", need.name());
        }
        installed.0.insert(need, result);
    }
    installed
}

fn provide(need: Need, workspace: &Workspace, apt: &mut Apt) -> Result<()> {
    match need {
        Need::PythonPackages => return python_packages(workspace),
        Need::NodePackages => return node_packages(workspace),
        Need::Autobahn => return autobahn::install(workspace),
        Need::LocalStack => {
            let python = emulators::python_313()?.context("no Python 3.13")?;
            return emulators::install(workspace, &emulators::LOCALSTACK, &python);
        }
        Need::Moto => {
            let python = python()?.context("no Python that can make environments")?;
            return emulators::install(workspace, &emulators::MOTO, &python);
        }
        _ => {}
    }
    if let Some(found) = probe(need)? {
        println!("found     {}: {found}", need.name());
        return Ok(());
    }
    if need.packages().is_empty() {
        bail!("this machine has none that works, and Debian has no package of it");
    }
    apt.install(need.packages())?;
    match probe(need)? {
        Some(found) => println!("installed {}: {found}", need.name()),
        None => bail!(
            "apt-get installed {}, yet it does not work",
            need.packages().join(" ")
        ),
    }
    Ok(())
}

/// What it says of its version where the machine has one that is good enough.
fn probe(need: Need) -> Result<Option<String>> {
    let said = match need {
        Need::Curl => answer("curl", &["--version"])?,
        Need::Jq => answer("jq", &["--version"])?,
        Need::Python => python()?.map(|path| path.display().to_string()),
        Need::Chromium => answer("chromium", &["--version", "--no-sandbox"])?,
        Need::Node => match (answer("node", &["--version"])?, answer("npm", &["--version"])?) {
            (Some(node), Some(npm)) if major(&node) >= NODE => Some(format!("{node}, npm {npm}")),
            _ => None,
        },
        Need::Strace => answer("strace", &["-V"])?,
        Need::XfsIo => answer("xfs_io", &["-V"])?,
        Need::Mkfs => answer("mkfs.ext4", &["-V"])?,
        // Its own first line names the whole, the last one its features.
        Need::Systemd => answer("systemd-analyze", &["--version"])?.map(|_| "systemd-analyze".to_owned()),
        // 7 is the first with functions and sharded channels.
        Need::Redis => answer("redis-server", &["--version"])?.filter(|said| redis_major(said) >= REDIS),
        Need::HaProxy => answer("haproxy", &["-v"])?,
        Need::Iptables => match (answer("iptables", &["-V"])?, answer("ip", &["-V"])?) {
            (Some(iptables), Some(_)) => Some(iptables),
            _ => None,
        },
        Need::Python27 => autobahn::python()?.map(|path| path.display().to_string()),
        Need::Python313 => emulators::python_313()?.map(|path| path.display().to_string()),
        // Debian puts it where no `PATH` leads.
        Need::Postgres => answer("/usr/lib/postgresql/15/bin/postgres", &["--version"])?,
        // No package of Debian: the machine has it or not.
        Need::Terraform => answer("terraform", &["version"])?.map(|_| "terraform".to_owned()),
        Need::PythonPackages | Need::NodePackages | Need::Autobahn | Need::LocalStack | Need::Moto => None,
    };
    Ok(said)
}

/// `Redis server v=7.0.15 sha=…`
fn redis_major(said: &str) -> u32 {
    said.split_once("v=").map_or(0, |(_, version)| major(version))
}

fn major(version: &str) -> u32 {
    version
        .trim_start_matches('v')
        .split('.')
        .next()
        .and_then(|part| part.parse().ok())
        .unwrap_or(0)
}

/// The machine's own Python or Debian's, whichever can make environments.
fn python() -> Result<Option<PathBuf>> {
    let (major, minor) = PYTHON;
    let check = format!("import ensurepip, sys, venv; assert sys.version_info >= ({major}, {minor})");
    for candidate in ["python3", "/usr/bin/python3"] {
        if answer(candidate, &["-c", &format!("{check}; print(sys.executable)")])?.is_some() {
            return Ok(Some(candidate.into()));
        }
    }
    Ok(None)
}

fn python_packages(workspace: &Workspace) -> Result<()> {
    let list = workspace.e2e().join("requirements.txt");
    let folder = workspace.tools().join("venv");
    let program = python_of(workspace);
    let wanted = std::fs::read_to_string(&list).with_context(|| format!("reading {}", list.display()))?;
    let record = folder.join("installed.txt");
    if std::fs::read_to_string(&record).is_ok_and(|have| have == wanted) && program.exists() {
        println!("found     Python packages: {}", folder.display());
        return Ok(());
    }
    let python = python()?.context("no Python that can make environments")?;
    println!(
        "install   Python packages: {} → {}",
        one_line(&wanted),
        folder.display()
    );
    finish(
        Command::new(python).args(["-m", "venv", "--clear"]).arg(&folder),
        PIP_LIMIT,
    )?;
    let pip = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--requirement",
    ];
    finish(Command::new(&program).args(pip).arg(&list), PIP_LIMIT)?;
    std::fs::write(&record, wanted).with_context(|| format!("writing {}", record.display()))
}

/// The Python that has the suites' packages.
pub fn python_of(workspace: &Workspace) -> PathBuf {
    workspace.tools().join("venv/bin/python")
}

fn node_packages(workspace: &Workspace) -> Result<()> {
    let folder = node_folder(workspace);
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let mut wanted = String::new();
    for name in ["package.json", "package-lock.json"] {
        let from = workspace.e2e().join(name);
        wanted += &std::fs::read_to_string(&from).with_context(|| format!("reading {}", from.display()))?;
        std::fs::copy(&from, folder.join(name)).with_context(|| format!("copying {}", from.display()))?;
    }
    let record = folder.join("installed.txt");
    if std::fs::read_to_string(&record).is_ok_and(|have| have == wanted) {
        println!("found     Node.js packages: {}", folder.display());
        return Ok(());
    }
    println!(
        "install   Node.js packages: playwright-core, oauth2-mock-server, axe-core, protobuf-ts → {}",
        folder.display()
    );
    finish(
        Command::new("npm")
            .args(["ci", "--no-audit", "--no-fund"])
            .current_dir(&folder),
        NPM_LIMIT,
    )?;
    std::fs::write(&record, wanted).with_context(|| format!("writing {}", record.display()))
}

/// The folder whose `node_modules` the suites use.
pub fn node_folder(workspace: &Workspace) -> PathBuf {
    workspace.tools().join("node")
}

/// What a program says of itself; `None` where it is not there or refuses.
pub fn answer(program: &str, arguments: &[&str]) -> Result<Option<String>> {
    // `env` finds the program, so that a missing one is an exit status like any other.
    let (ended, output) = run::capture(Command::new("env").arg(program).args(arguments), PROBE_LIMIT)?;
    // A wrapper may say something of its own before.
    let named = |line: &&str| line.to_lowercase().starts_with(program);
    let line = output
        .lines()
        .find(named)
        .or_else(|| output.lines().last())
        .unwrap_or_default();
    Ok(ended.succeeded().then(|| line.to_owned()))
}

/// Runs to the end; a failure carries the end of what was said.
pub fn finish(command: &mut Command, limit: Duration) -> Result<()> {
    const SHOWN: usize = 8;

    let program = command.get_program().to_string_lossy().into_owned();
    let (ended, output) = run::capture(command, limit)?;
    if ended.succeeded() {
        return Ok(());
    }
    let lines: Vec<&str> = output.lines().collect();
    let end = lines[lines.len().saturating_sub(SHOWN)..].join(" | ");
    bail!("{program} {}: {end}", ended.describe())
}

fn one_line(requirements: &str) -> String {
    requirements
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_learns_why_its_need_is_missing() {
        let mut installed = Installed::default();
        installed.0.insert(Need::Curl, Ok(()));
        installed
            .0
            .insert(Need::Chromium, Err("no such package".to_owned()));
        assert_eq!(installed.missing(&[Need::Curl]), None);
        assert_eq!(
            installed.missing(&[Need::Curl, Need::Chromium]).as_deref(),
            Some("chromium: no such package")
        );
    }

    #[test]
    fn a_program_that_is_not_there_is_no_error() {
        assert_eq!(answer("no-such-program-here", &[]).unwrap(), None);
        assert_eq!(major("v18.20.4"), 18);
        assert_eq!(major("nonsense"), 0);
        assert_eq!(
            redis_major("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc"),
            7
        );
        assert_eq!(redis_major("nonsense"), 0);
    }
}
