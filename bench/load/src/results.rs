//! Runs a scenario as often as asked, keeps what was measured, and writes the report.
//!
//! Invariant: a file of results holds runs of one scenario only, each with its date, its load averages, and the
//! command that repeats it.

use crate::account::Totals;
use crate::figures::{Measured, Summary, show, summarise};
use crate::machine;
use crate::options::{How, Options};
use crate::scenarios::{self, Scenario};
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// One run, as it is kept.
#[derive(Serialize, Deserialize)]
struct Run {
    date: String,
    machine: String,
    /// Before the run, so that others' work is seen.
    load_average: String,
    command: String,
    measured: Measured,
}

/// Measures a scenario, prints it, and keeps it.
pub fn measure(scenario: &Scenario, options: &Options) -> Result<()> {
    let how = &options.how;
    machine::raise_open_files()?;
    let file = how
        .results()
        .map(|dir| dir.join(format!("{}.json", scenario.name)));
    let mut runs = match &file {
        Some(file) if how.add => kept(file)?,
        _ => Vec::new(),
    };
    for _ in 0..how.runs() {
        let load_average = machine::load_average();
        machine::pin(machine::LOAD_CORE)?;
        let measured = (scenario.run)(how, runs.len()).with_context(|| scenario.name)?;
        runs.push(Run {
            date: date(),
            machine: machine::describe(),
            load_average,
            command: command(scenario, how),
            measured,
        });
        // Kept after each run, so that a fault in a later one does not lose it.
        if let Some(file) = &file {
            fs::create_dir_all(file.parent().context("results have no directory")?)?;
            fs::write(file, serde_json::to_vec_pretty(&runs)?)?;
        }
    }
    print(scenario, &runs, how.json)
}

fn kept(file: &Path) -> Result<Vec<Run>> {
    match fs::read(file) {
        Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| file.display().to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

fn command(scenario: &Scenario, how: &How) -> String {
    let short = if how.short { " --short" } else { "" };
    format!(
        "postrider-bench {}{short} --dir {}",
        scenario.name,
        how.dir.display()
    )
}

#[allow(clippy::disallowed_methods, reason = "a report has a date")]
fn date() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string()
}

fn summary(runs: &[Run]) -> (Vec<Summary>, Totals) {
    let measured: Vec<_> = runs.iter().map(|run| run.measured.clone()).collect();
    let mut totals = Totals::default();
    measured.iter().for_each(|run| totals.add(run.totals));
    (summarise(&measured), totals)
}

fn print(scenario: &Scenario, runs: &[Run], json: bool) -> Result<()> {
    let (figures, totals) = summary(runs);
    if json {
        let result = serde_json::json!({
            "scenario": scenario.name, "runs": runs.len(), "figures": figures, "deliveries": totals,
        });
        println!("{result}");
        return Ok(());
    }
    println!("{}: {} ({} runs)", scenario.name, scenario.says, runs.len());
    for figure in figures {
        println!(
            "  {:<58} {:>12} {}",
            figure.name,
            show(figure.median),
            figure.unit
        );
    }
    println!("  {}", verdict(&totals));
    Ok(())
}

fn verdict(totals: &Totals) -> String {
    format!(
        "{} deliveries checked: {} lost, {} out of order, {} repeated",
        totals.delivered, totals.lost, totals.reordered, totals.repeated
    )
}

/// Writes `RESULTS.md` beside the directory of results, if results are kept.
pub fn render(how: &How) -> Result<()> {
    let Some(results) = how.results() else {
        return Ok(());
    };
    let mut text = String::from(
        "# Results\n\nWritten by `postrider-bench report` from the runs kept in `results/`; what each figure means is in\n\
         [README.md](README.md). Medians, with the lowest and the highest of all runs.\n",
    );
    for scenario in scenarios::ALL {
        let runs = kept(&results.join(format!("{}.json", scenario.name)))?;
        if let Some(last) = runs.last() {
            section(&mut text, scenario, &runs, last)?;
        }
    }
    let file = results.with_file_name("RESULTS.md");
    fs::write(&file, text).with_context(|| file.display().to_string())
}

fn section(text: &mut String, scenario: &Scenario, runs: &[Run], last: &Run) -> Result<()> {
    let (figures, totals) = summary(runs);
    let loads: Vec<_> = runs.iter().map(|run| run.load_average.as_str()).collect();
    writeln!(text, "\n## {}: {}\n", scenario.name, scenario.says)?;
    writeln!(
        text,
        "`{}`, {} runs, the last on {}. {}. Load averages before the runs: {}. {}.\n",
        last.command,
        runs.len(),
        last.date,
        last.machine,
        loads.join("; "),
        verdict(&totals)
    )?;
    writeln!(
        text,
        "| figure | median | lowest – highest | unit |\n| --- | ---: | ---: | --- |"
    )?;
    for figure in figures {
        let Summary { name, unit, .. } = &figure;
        let (low, high) = (show(figure.lowest), show(figure.highest));
        writeln!(
            text,
            "| {name} | {} | {low} – {high} | {unit} |",
            show(figure.median)
        )?;
    }
    Ok(())
}
