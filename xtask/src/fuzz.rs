//! Builds the fuzz targets of `fuzz/` and runs each for a time.
//!
//! What a run learns is kept under `target/`, so that the next goes on from there; the committed inputs are only read.
//! Without AddressSanitizer: what is fuzzed is safe Rust.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::install::finish;
use crate::run;
use crate::workspace::Workspace;

/// The build driver, from crates.io.
const VERSION: &str = "0.13.2";
const INSTALL_LIMIT: Duration = Duration::from_secs(15 * 60);
const BUILD_LIMIT: Duration = Duration::from_secs(30 * 60);
/// Beyond its time a target may take so long to start and to end.
const GRACE: Duration = Duration::from_secs(120);
/// Inputs are no longer; the bounds of the parsers are in reach of it. Bytes.
const MAX_INPUT: u32 = 8192;
/// An input that takes longer is a finding. Seconds.
const MAX_INPUT_SECONDS: u32 = 10;
/// A target that holds more is a finding. MiB.
const MAX_MEMORY_MIB: u32 = 2048;

/// Runs the chosen targets, or all, for so many seconds each; whether none found anything.
pub fn fuzz(workspace: &Workspace, seconds: u32, only: &[String]) -> Result<bool> {
    let all = targets(workspace)?;
    if let Some(unknown) = only.iter().find(|name| !all.contains(name)) {
        bail!("no target `{unknown}`: there are {}", all.join(", "));
    }
    let chosen: Vec<&String> = all
        .iter()
        .filter(|name| only.is_empty() || only.contains(name))
        .collect();
    let programs = build(workspace)?;
    let mut rows = Vec::new();
    for name in chosen {
        println!("\n── {name}, {seconds} s");
        rows.push((name, run_target(workspace, &programs.join(name), name, seconds)?));
    }
    println!(
        "\n{:14} {:>14} {:>9} {:>9}  findings",
        "target", "executions", "coverage", "inputs"
    );
    for (name, told) in &rows {
        let findings = if told.found { "SOME, see above" } else { "none" };
        println!(
            "{name:14} {:>14} {:>9} {:>9}  {findings}",
            told.executions, told.coverage, told.inputs
        );
    }
    Ok(rows.iter().all(|(_, told)| !told.found))
}

/// A target is a folder of committed inputs.
fn targets(workspace: &Workspace) -> Result<Vec<String>> {
    let folder = workspace.root.join("fuzz/corpus");
    let entries = std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut names: Vec<String> = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    Ok(names)
}

/// Where the instrumented programs are.
fn build(workspace: &Workspace) -> Result<PathBuf> {
    let tools = workspace.tools().join("cargo-fuzz");
    if !tools.join("bin/cargo-fuzz").exists() {
        println!(
            "install   cargo-fuzz {VERSION} from crates.io → {}",
            tools.display()
        );
        let mut install = workspace.cargo();
        install
            .args(["install", "--quiet", "--locked", "--version", VERSION, "--root"])
            .arg(&tools)
            .arg("cargo-fuzz");
        finish(&mut install, INSTALL_LIMIT)?;
    }
    let triple = triple()?;
    let target = workspace.target().join("fuzz");
    println!("building  the fuzz targets");
    let mut command = Command::new(tools.join("bin/cargo-fuzz"));
    command
        .args([
            "fuzz",
            "build",
            "--sanitizer",
            "none",
            "--target",
            &triple,
            "--target-dir",
        ])
        .arg(&target)
        .current_dir(workspace.root.join("fuzz"))
        // Coverage flags that a stable compiler takes from nobody else.
        .env("RUSTC_BOOTSTRAP", "1");
    let ended = run::stream(&mut command, BUILD_LIMIT, |line| println!("{line}"))?;
    ensure!(ended.succeeded(), "cargo fuzz build {}", ended.describe());
    println!("built     in {:.1} s", ended.seconds);
    Ok(target.join(triple).join("release"))
}

/// cargo-fuzz would take its own, which may be another C library's.
fn triple() -> Result<String> {
    let (ended, output) = run::capture(Command::new("rustc").arg("-vV"), GRACE)?;
    let host = output.lines().find_map(|line| line.strip_prefix("host: "));
    ensure!(ended.succeeded(), "rustc {}", ended.describe());
    Ok(host
        .context("rustc does not say for which machine it builds")?
        .to_owned())
}

#[derive(Default)]
struct Told {
    executions: u64,
    /// Edges of the program that were taken.
    coverage: u64,
    /// Inputs that were worth keeping.
    inputs: u64,
    found: bool,
}

fn run_target(workspace: &Workspace, program: &Path, name: &str, seconds: u32) -> Result<Told> {
    let kept = workspace.target().join("fuzz-corpus").join(name);
    let found = workspace.target().join("fuzz-findings").join(name);
    for folder in [&kept, &found] {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let mut command = Command::new(program);
    command
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={MAX_INPUT}"))
        .arg(format!("-timeout={MAX_INPUT_SECONDS}"))
        .arg(format!("-rss_limit_mb={MAX_MEMORY_MIB}"))
        .arg(format!("-artifact_prefix={}/", found.display()))
        .arg("-print_final_stats=1")
        .arg(&kept)
        .arg(workspace.root.join("fuzz/corpus").join(name));
    let mut told = Told::default();
    let limit = Duration::from_secs(seconds.into()) + GRACE;
    let ended = run::stream(&mut command, limit, |line| {
        told.hear(line);
        if is_worth_showing(line) {
            println!("{line}");
        }
    })?;
    told.found = !ended.succeeded();
    Ok(told)
}

/// A line for each new input, and for each word of the dictionary that a target recommends, would hide what was found.
fn is_worth_showing(line: &str) -> bool {
    let of_progress = ["#", "INFO:", "stat::", "\""]
        .iter()
        .any(|start| line.starts_with(start));
    !of_progress || line.contains("DONE")
}

impl Told {
    /// `#4096 NEW cov: 465 ft: 2142 corp: 340/96Kb …`, and at the end `stat::number_of_executed_units: 4096`.
    fn hear(&mut self, line: &str) {
        if let Some(count) = line.strip_prefix("stat::number_of_executed_units:") {
            self.executions = count.trim().parse().unwrap_or(self.executions);
        }
        let number = |after: &str| {
            let (_, rest) = line.split_once(after)?;
            let digits = rest.trim_start().split(|c: char| !c.is_ascii_digit()).next()?;
            digits.parse().ok()
        };
        if line.starts_with('#') {
            self.coverage = number(" cov:").unwrap_or(self.coverage);
            self.inputs = number(" corp:").unwrap_or(self.inputs);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_what_a_target_says() {
        let mut told = Told::default();
        for line in [
            "INFO: seed corpus: files: 12",
            "#13\tINITED cov: 200 ft: 300 corp: 12/3Kb exec/s: 0 rss: 30Mb",
            "#4096\tDONE   cov: 465 ft: 2142 corp: 340/96Kb lim: 2065 exec/s: 97 rss: 35Mb",
            "stat::number_of_executed_units: 4096",
        ] {
            told.hear(line);
        }
        assert_eq!((told.executions, told.coverage, told.inputs), (4096, 465, 340));
    }
}
