//! Runs scenarios as often as asked and keeps what was measured.
//!
//! Invariant: a file of results holds runs of one scenario only, each with its date, its commit, its load averages, and
//! the command that repeats it. A run that failed is kept with its reason and gives no figure; the others go on.

use crate::options::{How, Options};
use crate::report;
use crate::scenarios::{ALL, Scenario};
use anyhow::{Context as _, Result, bail};
use postrider_bench_load::account::Totals;
use postrider_bench_load::clock;
use postrider_bench_load::figures::{Measured, Summary, summarise};
use postrider_bench_load::machine;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// One run, as it is kept.
#[derive(Clone, Serialize, Deserialize)]
pub struct Run {
    pub date: String,
    #[serde(default)]
    pub commit: String,
    pub machine: String,
    /// Before the run, so that others' work is seen.
    pub load_average: String,
    pub command: String,
    /// How long it took. Seconds.
    #[serde(default)]
    pub seconds: f64,
    /// Why it has no figures.
    #[serde(default)]
    pub failed: Option<String>,
    pub measured: Measured,
}

/// The runs of a scenario.
pub struct Runs {
    pub scenario: &'static Scenario,
    pub runs: Vec<Run>,
}

impl Runs {
    /// Those that are kept in a directory.
    pub fn kept(scenario: &'static Scenario, dir: &Path) -> Result<Runs> {
        let file = file(scenario, dir);
        let runs = match fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| file.display().to_string())?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error).with_context(|| file.display().to_string()),
        };
        Ok(Runs { scenario, runs })
    }

    /// The medians of those that did not fail, and what was delivered in them.
    pub fn summary(&self) -> (Vec<Summary>, Totals) {
        let good = self.runs.iter().filter(|run| run.failed.is_none());
        let measured: Vec<_> = good.map(|run| run.measured.clone()).collect();
        let mut totals = Totals::default();
        measured.iter().for_each(|run| totals.add(run.totals));
        (summarise(&measured), totals)
    }

    /// Why runs failed, or what they could not measure, each reason once.
    pub fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> = self
            .runs
            .iter()
            .flat_map(|run| &run.measured.notes)
            .cloned()
            .collect();
        let failed = self.runs.iter().filter_map(|run| run.failed.as_ref());
        faults.extend(failed.map(|why| format!("a run failed: {why}")));
        faults.sort();
        faults.dedup();
        faults
    }

    fn keep(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir)?;
        fs::write(file(self.scenario, dir), serde_json::to_vec_pretty(&self.runs)?)?;
        Ok(())
    }

    /// Runs it once more. What goes wrong in it is part of what is kept.
    fn measure(&mut self, how: &How) -> Result<()> {
        let load_average = machine::load_average();
        machine::pin(machine::LOAD_CORE)?;
        let start = clock::now();
        let measured = (self.scenario.run)(how, self.runs.len());
        let seconds = start.elapsed().as_secs_f64();
        let failed = measured.as_ref().err().map(|error| format!("{error:#}"));
        if let Some(why) = &failed {
            eprintln!("postrider-bench: {}: {why}", self.scenario.name);
        }
        self.runs.push(Run {
            date: date(),
            commit: commit(),
            machine: machine::describe(),
            load_average,
            command: command(self.scenario, how),
            seconds,
            failed,
            measured: measured.unwrap_or_default(),
        });
        Ok(())
    }
}

fn file(scenario: &Scenario, dir: &Path) -> PathBuf {
    dir.join(format!("{}.json", scenario.name))
}

/// Measures one scenario, prints it, and keeps it.
pub fn one(scenario: &'static Scenario, options: &Options) -> Result<()> {
    let how = &options.how;
    let results = how.results();
    let mut runs = begin(scenario, how, results.as_deref())?;
    for _ in 0..how.runs() {
        runs.measure(how)?;
        if let Some(dir) = &results {
            runs.keep(dir)?;
        }
    }
    report::print(&runs, how.json)?;
    fail_if_any(&[runs])
}

/// Measures all, a run of each and then the next, so that what there is no time for is the last runs of some.
pub fn all(options: &Options) -> Result<()> {
    let how = &options.how;
    let results = how.results();
    let start = clock::now();
    let limit = Duration::from_secs(60 * how.minutes);
    let chosen = ALL.iter().filter(|scenario| !how.short || scenario.is_short);
    let mut all = chosen
        .map(|scenario| begin(scenario, how, results.as_deref()))
        .collect::<Result<Vec<_>>>()?;
    let mut took: BTreeMap<&str, Duration> = BTreeMap::new();
    for nth in 0..how.runs() {
        for runs in &mut all {
            let name = runs.scenario.name;
            let expected = took.get(name).copied().unwrap_or_default();
            if start.elapsed() + expected > limit {
                eprintln!("postrider-bench: no time for run {} of {name}", nth + 1);
                continue;
            }
            let (began, minutes) = (clock::now(), start.elapsed().as_secs_f64() / 60.0);
            eprintln!("postrider-bench: {minutes:.1} min: {name}, run {}", nth + 1);
            runs.measure(how)?;
            took.insert(name, began.elapsed());
            if let Some(dir) = &results {
                runs.keep(dir)?;
            }
        }
    }
    match &results {
        Some(dir) => report::write(dir)?,
        None => report::compare(&all, &PathBuf::from("bench/results"))?,
    }
    if how.json {
        all.iter().try_for_each(|runs| report::print(runs, true))?;
    }
    fail_if_any(&all)
}

fn begin(scenario: &'static Scenario, how: &How, results: Option<&Path>) -> Result<Runs> {
    let files = machine::raise_open_files()?;
    if files < NEEDED_FILES {
        bail!("{files} open files are allowed, {NEEDED_FILES} are needed: see `ulimit -Hn`");
    }
    match results {
        Some(dir) if how.add => Runs::kept(scenario, dir),
        _ => Ok(Runs {
            scenario,
            runs: Vec::new(),
        }),
    }
}

/// What 10,000 connections and their publishers need.
const NEEDED_FILES: u64 = 12_000;

fn fail_if_any(all: &[Runs]) -> Result<()> {
    let runs = || all.iter().flat_map(|runs| &runs.runs);
    let failed = runs().filter(|run| run.failed.is_some()).count();
    if failed > 0 {
        bail!("{failed} of {} runs failed", runs().count());
    }
    Ok(())
}

fn command(scenario: &Scenario, how: &How) -> String {
    let short = if how.short { " --short" } else { "" };
    format!(
        "postrider-bench {}{short} --dir {}",
        scenario.name,
        how.dir.display()
    )
}

/// What was measured: the commit, and whether more than that.
fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let Some(hash) = git(&["rev-parse", "--short", "HEAD"]) else {
        return "unknown".into();
    };
    let changed = git(&["status", "--porcelain", "--", "crates", "Cargo.lock"]);
    match changed.as_deref() {
        Some("") => hash,
        _ => format!("{hash} with changes"),
    }
}

#[allow(clippy::disallowed_methods, reason = "a report has a date")]
fn date() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string()
}
