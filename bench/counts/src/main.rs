//! `postrider-bench-counts FILE [--write]`: how many instructions the inner functions take, against those in FILE.
//!
//! Each function is run in a process of its own under callgrind, n times and 2 n times; the difference, divided by n, is
//! what one call takes, whatever it takes to begin. So a count hardly varies, and a machine at work changes nothing.
//! Invariant: the exit status is 0 only if no count is above its committed one by more than the tolerance.

#![allow(
    clippy::print_stdout,
    reason = "the results of a measurement go to standard output"
)]

mod functions;

use anyhow::{Context as _, Result, bail};
use functions::FUNCTIONS;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitCode};

/// More than this above the committed count is a regression.
const TOLERANCE: f64 = 0.03;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["run", name, count] => run(name, count).map(|()| true),
        [file] => compare(Path::new(file), false),
        [file, "--write"] => compare(Path::new(file), true),
        _ => Err(anyhow::anyhow!("usage: postrider-bench-counts FILE [--write]")),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("postrider-bench-counts: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Calls a function so many times.
fn run(name: &str, count: &str) -> Result<()> {
    let function = FUNCTIONS.iter().find(|function| function.name == name);
    (function.context("no such function")?.run)(count.parse()?)
}

fn compare(file: &Path, write: bool) -> Result<bool> {
    let committed = committed(file)?;
    let mut counted = BTreeMap::new();
    let mut good = true;
    for function in FUNCTIONS {
        let per_call = instructions(function.name, function.count)?;
        counted.insert(function.name, per_call);
        let line = format!(
            "{:<8} {:>9} instructions  {}",
            function.name, per_call, function.says
        );
        match committed.get(function.name) {
            Some(was) => {
                let change = per_call as f64 / *was as f64 - 1.0;
                let worse = change > TOLERANCE;
                let mark = if worse { "  REGRESSION" } else { "" };
                println!("{line}, was {was}, {:+.1} %{mark}", change * 100.0);
                good &= !worse;
            }
            None => println!("{line}, nothing to compare"),
        }
    }
    if write {
        let text = serde_json::to_string_pretty(&counted)? + "\n";
        std::fs::write(file, text).with_context(|| file.display().to_string())?;
        return Ok(true);
    }
    Ok(good)
}

fn committed(file: &Path) -> Result<BTreeMap<String, u64>> {
    match std::fs::read(file) {
        Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| file.display().to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error).with_context(|| file.display().to_string()),
    }
}

/// What one call takes.
fn instructions(name: &str, count: u64) -> Result<u64> {
    let (once, twice) = (collected(name, count)?, collected(name, 2 * count)?);
    Ok(twice.saturating_sub(once) / count)
}

/// What callgrind counts in a process that calls it so many times.
fn collected(name: &str, count: u64) -> Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["run", name, &count.to_string()])
        .output()
        .context("valgrind")?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{name} under valgrind ended with {}: {text}", output.status);
    }
    let line = text.lines().find_map(|line| line.split_once("Collected :"));
    let (_, number) = line.context("valgrind counted nothing")?;
    Ok(number.trim().parse()?)
}
