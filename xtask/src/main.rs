//! `cargo xtask`: the project's own chores, in Rust, so that they need nothing but cargo to start.
//!
//! Invariant: a suite passes only if it ran; what could not run is named, and named again in the summary.
//! It does not know the server: it builds it, hands its path to the suites and counts what they say.

#![allow(clippy::print_stdout, reason = "a terminal tool: its output is its product")]
#![allow(
    clippy::disallowed_methods,
    reason = "a test tool measures time and waits for processes; nothing here is replayed by a simulator"
)]

mod apt;
mod args;
mod autobahn;
mod bench;
mod build;
mod cargo_tests;
mod clone;
mod counts;
mod dist;
mod docs;
mod fuzz;
mod install;
mod markdown;
mod ports;
mod processes;
mod run;
mod suites;
mod summary;
mod workspace;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};

use args::Task;
use workspace::Workspace;

fn main() -> ExitCode {
    match perform() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `Ok(false)`: the task ran to its end and has already said what failed.
fn perform() -> Result<bool> {
    let workspace = Workspace::find()?;
    match args::parse(std::env::args().skip(1))? {
        Task::Help => {
            println!("{}", args::USAGE);
            Ok(true)
        }
        Task::Test { only } => suites::test(&workspace, &only),
        Task::CheckDocs { only } => check_docs(&workspace, &only),
        Task::KillLoop { kills } => kill_loop(&workspace, kills),
        Task::Conformance => suites::test(&workspace, &["conformance".to_owned()]),
        Task::Fuzz { seconds, only } => fuzz::fuzz(&workspace, seconds, &only),
        Task::Bench { short } => bench::bench(&workspace, short),
        Task::Counts { write } => counts::counts(&workspace, write),
        Task::Dist { binary } => dist::dist(&workspace, binary.as_deref()),
        Task::Ci => ci(&workspace),
    }
}

fn check_docs(workspace: &Workspace, only: &[String]) -> Result<bool> {
    let binary = build::binary(workspace, build::Profile::Dev)?;
    let tally = docs::check(workspace, &binary, only)?;
    println!("{}", tally.line());
    Ok(tally.failed == 0)
}

/// Kills a node at random instants, again and again, and has every accepted notification accounted for.
fn kill_loop(workspace: &Workspace, kills: u32) -> Result<bool> {
    const PER_KILL: Duration = Duration::from_secs(10);
    const BUILD: Duration = Duration::from_secs(30 * 60);

    let binary = build::binary(workspace, build::Profile::Release)?;
    let mut command = workspace.cargo();
    command
        .args([
            "test",
            "-p",
            "postrider-harness",
            "--release",
            "--test",
            "kill_loop",
            "--",
            "--nocapture",
        ])
        .env("POSTRIDER_KILLS", kills.to_string())
        .env("POSTRIDER_BIN", &binary);
    let ended = run::stream(&mut command, BUILD + PER_KILL * kills, |line| println!("{line}"))?;
    if !ended.succeeded() {
        bail!("the kill loop {}", ended.describe());
    }
    Ok(true)
}

fn ci(workspace: &Workspace) -> Result<bool> {
    const LIMIT: Duration = Duration::from_secs(60 * 60);

    let mut command = workspace.command(".ci/run");
    let ended = run::stream(&mut command, LIMIT, |line| println!("{line}"))?;
    Ok(ended.succeeded())
}
