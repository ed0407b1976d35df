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
mod emulators;
mod fuzz;
mod install;
mod markdown;
mod ports;
mod processes;
mod pyenv;
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
        Task::SiegeRedis { rounds, seed, shape } => siege_redis(&workspace, rounds, seed, shape),
        Task::SiegeAws { messages } => siege_aws(&workspace, messages),
        Task::Conformance => suites::test(&workspace, &["conformance".to_owned()]),
        Task::Fuzz { seconds, only } => fuzz::fuzz(&workspace, seconds, &only),
        Task::Bench { short } => bench::bench(&workspace, short),
        Task::Counts { write } => counts::counts(&workspace, write),
        Task::Dist { binary } => dist::dist(&workspace, binary.as_deref()),
        Task::Proto => proto(&workspace),
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

    let variables = [("POSTRIDER_KILLS", Some(kills.to_string()))];
    harness(
        workspace,
        &["--test", "kill_loop", "--"],
        &variables,
        PER_KILL * kills,
    )
}

/// Three nodes over one Redis, and everything that can happen to them.
fn siege_redis(
    workspace: &Workspace,
    rounds: u32,
    seed: Option<String>,
    shape: Option<String>,
) -> Result<bool> {
    const PER_ROUND: Duration = Duration::from_secs(5 * 60);

    let installed = install::install(workspace, &[install::Need::Redis]);
    if let Some(missing) = installed.missing(&[install::Need::Redis]) {
        println!("NOT RUN siege-redis: needs {missing}");
        return Ok(false);
    }
    let variables = [
        ("POSTRIDER_TEST_REDIS", Some("required".to_owned())),
        ("POSTRIDER_ROUNDS", Some(rounds.to_string())),
        ("POSTRIDER_SEED", seed),
        ("POSTRIDER_SHAPE", shape),
        ("POSTRIDER_RESUMES_WITHIN", Some("2".to_owned())),
    ];
    let arguments = ["--test", "nodes", "--", "siege::nothing_is_lost_over_faults"];
    harness(workspace, &arguments, &variables, PER_ROUND * rounds)
}

/// Messages from SQS, and everything that can happen to them.
fn siege_aws(workspace: &Workspace, messages: u32) -> Result<bool> {
    const NEEDS: [install::Need; 2] = [install::Need::LocalStack, install::Need::Moto];
    const AT_LEAST: Duration = Duration::from_secs(10 * 60);
    const PER_MESSAGE: Duration = Duration::from_millis(100);

    let installed = install::install(workspace, &NEEDS);
    if let Some(missing) = installed.missing(&NEEDS) {
        println!("NOT RUN siege-aws: needs {missing}");
        return Ok(false);
    }
    let tools = emulators::folder(workspace).display().to_string();
    let variables = [
        ("POSTRIDER_AWS_TOOLS", Some(tools)),
        ("POSTRIDER_MESSAGES", Some(messages.to_string())),
    ];
    let arguments = ["--test", "aws", "--", "siege::every_message_is_accounted_for"];
    harness(
        workspace,
        &arguments,
        &variables,
        AT_LEAST + PER_MESSAGE * messages,
    )
}

/// One test of the harness, against a release build of the binary.
fn harness(
    workspace: &Workspace,
    arguments: &[&str],
    variables: &[(&str, Option<String>)],
    limit: Duration,
) -> Result<bool> {
    const BUILD: Duration = Duration::from_secs(30 * 60);

    let binary = build::binary(workspace, build::Profile::Release)?;
    let mut command = workspace.cargo();
    command
        .args(["test", "-p", "postrider-harness", "--release"])
        .args(arguments)
        .arg("--nocapture")
        .env("POSTRIDER_BIN", &binary);
    let set = variables
        .iter()
        .filter_map(|(name, value)| Some((name, value.as_ref()?)));
    command.envs(set);
    let ended = run::stream(&mut command, BUILD + limit, |line| println!("{line}"))?;
    if !ended.succeeded() {
        bail!("it {}", ended.describe());
    }
    Ok(true)
}

/// By a program of its own, whose dependencies would make every start of this one slower.
fn proto(workspace: &Workspace) -> Result<bool> {
    const LIMIT: Duration = Duration::from_secs(10 * 60);

    let mut command = workspace.cargo();
    command.args(["run", "--quiet", "--package", "postrider-proto-codegen"]);
    let ended = run::stream(&mut command, LIMIT, |line| println!("{line}"))?;
    Ok(ended.succeeded())
}

fn ci(workspace: &Workspace) -> Result<bool> {
    const LIMIT: Duration = Duration::from_secs(60 * 60);

    let mut command = workspace.command(".ci/run");
    let ended = run::stream(&mut command, LIMIT, |line| println!("{line}"))?;
    Ok(ended.succeeded())
}
