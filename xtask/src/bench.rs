//! `cargo xtask bench`: builds the product and its load, gets the servers it is compared with, and measures.
//!
//! The peers are Debian's packages, fetched by apt-get and unpacked under `target/`: nothing is installed on the
//! machine and no service is started. Where they cannot be had, their rows say so and the rest is measured.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::apt::Apt;
use crate::build::{self, Profile};
use crate::install::finish;
use crate::run;
use crate::workspace::Workspace;

/// For the load itself, which has a shorter limit of its own.
const LIMIT: Duration = Duration::from_secs(25 * 60);
const SHORT_LIMIT: Duration = Duration::from_secs(5 * 60);
const BUILD_LIMIT: Duration = Duration::from_secs(30 * 60);
const UNPACK_LIMIT: Duration = Duration::from_secs(60);
const PACKAGES: [&str; 4] = ["nginx", "nginx-common", "libnginx-mod-nchan", "nats-server"];
/// What is there when all are unpacked.
const PROGRAMS: [&str; 3] = [
    "usr/sbin/nginx",
    "usr/lib/nginx/modules/ngx_nchan_module.so",
    "usr/sbin/nats-server",
];

/// Measures everything and writes `bench/RESULTS.md`, or a little and writes nothing.
pub fn bench(workspace: &Workspace, short: bool) -> Result<bool> {
    let binary = build::binary(workspace, Profile::Release)?;
    let load = load(workspace)?;
    let peers = workspace.target().join("bench-peers");
    if !short && let Err(error) = unpack_peers(&peers) {
        println!("missing   the servers to compare with: {error:#}");
    }
    let mut command = Command::new(load);
    command.current_dir(&workspace.root).arg("all");
    command.arg("--bin").arg(binary);
    command.arg("--peers").arg(peers.join("root"));
    if short {
        command.arg("--short");
    }
    let limit = if short { SHORT_LIMIT } else { LIMIT };
    let ended = run::stream(&mut command, limit, |line| println!("{line}"))?;
    println!("measured  in {:.0} s", ended.seconds);
    if !ended.succeeded() {
        println!("FAIL      postrider-bench {}", ended.describe());
    }
    Ok(ended.succeeded())
}

fn load(workspace: &Workspace) -> Result<PathBuf> {
    let arguments = ["build", "--release", "-p", "postrider-bench-load"];
    println!("building  cargo {}", arguments.join(" "));
    let mut command = workspace.cargo();
    command.args(arguments);
    let ended = run::stream(&mut command, BUILD_LIMIT, |line| println!("{line}"))?;
    if !ended.succeeded() {
        bail!("cargo {} {}", arguments.join(" "), ended.describe());
    }
    Ok(workspace.target().join("release/postrider-bench"))
}

/// Fetches and unpacks, unless that was done before.
fn unpack_peers(folder: &Path) -> Result<()> {
    let root = folder.join("root");
    if PROGRAMS.iter().all(|program| root.join(program).exists()) {
        println!("found     nginx with Nchan, nats-server: {}", root.display());
        return Ok(());
    }
    let archives = folder.join("archives");
    std::fs::create_dir_all(archives.join("partial")).context("a folder for packages")?;
    println!(
        "fetching  Debian packages: {} → {} (nothing is installed)",
        PACKAGES.join(" "),
        root.display()
    );
    Apt::default().fetch(&PACKAGES, &archives)?;
    std::fs::create_dir_all(&root).context("a folder for the servers")?;
    for entry in std::fs::read_dir(&archives).context("the fetched packages")? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            finish(
                Command::new("dpkg-deb").arg("--extract").arg(&path).arg(&root),
                UNPACK_LIMIT,
            )?;
        }
    }
    match PROGRAMS.iter().find(|program| !root.join(program).exists()) {
        Some(missing) => bail!("the packages have no {missing}"),
        None => Ok(()),
    }
}
