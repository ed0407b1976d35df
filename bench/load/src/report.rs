//! What is said of results: on the terminal, in `RESULTS.md`, and against those that are kept.

use crate::peers;
use crate::results::{Run, Runs};
use crate::scenarios::ALL;
use crate::targets::TARGETS;
use anyhow::{Context as _, Result};
use postrider_bench_load::account::Totals;
use postrider_bench_load::figures::{Summary, show};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// More than this above the kept figure is a regression.
const TOLERANCE: f64 = 0.15;

/// Prints a scenario's medians.
pub fn print(runs: &Runs, json: bool) -> Result<()> {
    let (figures, totals) = runs.summary();
    let scenario = runs.scenario;
    if json {
        let result = serde_json::json!({
            "scenario": scenario.name, "runs": runs.runs.len(), "figures": figures,
            "deliveries": totals, "faults": runs.faults(),
        });
        println!("{result}");
        return Ok(());
    }
    println!("{}: {} ({} runs)", scenario.name, scenario.says, runs.runs.len());
    for figure in figures {
        println!(
            "  {:<58} {:>12} {}",
            figure.name,
            show(figure.median),
            figure.unit
        );
    }
    runs.faults().iter().for_each(|fault| println!("  {fault}"));
    println!("  {}", verdict(&totals));
    Ok(())
}

fn verdict(totals: &Totals) -> String {
    format!(
        "{} deliveries checked: {} lost, {} out of order, {} repeated",
        totals.delivered, totals.lost, totals.reordered, totals.repeated
    )
}

/// Prints what things cost now beside what they cost in the kept results.
pub fn compare(now: &[Runs], kept: &Path) -> Result<()> {
    let mut regressions = 0;
    for runs in now {
        let before = Runs::kept(runs.scenario, kept)?;
        let (was, _) = before.summary();
        let (is, totals) = runs.summary();
        println!("{}: {}", runs.scenario.name, verdict(&totals));
        if let (Some(a), Some(b)) = (before.runs.last(), runs.runs.last())
            && a.machine != b.machine
        {
            println!("  the kept figures are of another machine: {}", a.machine);
        }
        for figure in is.iter().filter(|figure| is_cost(figure)) {
            let old = was.iter().find(|old| old.name == figure.name);
            let (line, worse) = compared(figure, old);
            println!("  {line}");
            regressions += usize::from(worse);
        }
        runs.faults().iter().for_each(|fault| println!("  {fault}"));
    }
    println!("{regressions} regressions over {:.0} %", TOLERANCE * 100.0);
    Ok(())
}

fn is_cost(figure: &Summary) -> bool {
    figure.unit.starts_with("µs/") || figure.unit.starts_with("bytes/") || figure.name.ends_with("server CPU")
}

fn compared(figure: &Summary, old: Option<&Summary>) -> (String, bool) {
    let (name, now) = (&figure.name, show(figure.median));
    let Some(old) = old.filter(|old| old.median > 0.0) else {
        return (
            format!("{name:<50} {now:>9} {}, nothing to compare", figure.unit),
            false,
        );
    };
    let change = figure.median / old.median - 1.0;
    let is_worse = change > TOLERANCE;
    let mark = if is_worse { "  REGRESSION" } else { "" };
    let was = show(old.median);
    let line = format!(
        "{name:<50} {now:>9} {}, was {was}, {:+.0} %{mark}",
        figure.unit,
        change * 100.0
    );
    (line, is_worse)
}

/// Writes `RESULTS.md` beside a directory of results.
pub fn write(results: &Path) -> Result<()> {
    let all = ALL
        .iter()
        .map(|scenario| Runs::kept(scenario, results))
        .collect::<Result<Vec<_>>>()?;
    let file = results.with_file_name("RESULTS.md");
    fs::write(&file, text(&all)?).with_context(|| file.display().to_string())
}

fn text(all: &[Runs]) -> Result<String> {
    let mut text = String::from(
        "# Results\n\nWritten by `cargo xtask bench` from the runs kept in `results/`; what each figure means is in\n\
         [README.md](README.md). Medians of fresh runs, with the lowest and the highest.\n",
    );
    if let Some(last) = all.iter().flat_map(|runs| &runs.runs).last() {
        head(&mut text, all, last)?;
    }
    text.push_str("\n## Targets\n\n| what | target | moonshot | median | lowest – highest | |\n");
    text.push_str("| --- | --- | --- | ---: | ---: | --- |\n");
    for target in TARGETS {
        let runs = all.iter().find(|runs| runs.scenario.name == target.scenario.name);
        let figures = runs.map(|runs| runs.summary().0).unwrap_or_default();
        writeln!(text, "{}", target.line(&figures))?;
    }
    for runs in all.iter().filter(|runs| !runs.runs.is_empty()) {
        section(&mut text, runs)?;
    }
    for (name, config) in [("nginx with Nchan", peers::NGINX), ("nats-server", peers::NATS)] {
        writeln!(
            text,
            "\n## The configuration of {name}\n\n```text\n{}\n```",
            config.trim_end()
        )?;
    }
    Ok(text)
}

fn head(text: &mut String, all: &[Runs], last: &Run) -> Result<()> {
    let mut totals = Totals::default();
    all.iter().for_each(|runs| totals.add(runs.summary().1));
    let seconds: f64 = all
        .iter()
        .flat_map(|runs| &runs.runs)
        .map(|run| run.seconds)
        .sum();
    writeln!(
        text,
        "\nCommit `{}`, {}. {}. {:.0} min {:.0} s of measuring. {}.",
        last.commit,
        last.date,
        last.machine,
        (seconds / 60.0).floor(),
        seconds % 60.0,
        verdict(&totals)
    )?;
    let mut commits: Vec<_> = all
        .iter()
        .flat_map(|runs| &runs.runs)
        .map(|run| &run.commit)
        .collect();
    commits.sort();
    commits.dedup();
    if commits.len() > 1 {
        writeln!(text, "\nNot all runs are of one commit: {commits:?}.")?;
    }
    Ok(())
}

fn section(text: &mut String, runs: &Runs) -> Result<()> {
    let (figures, totals) = runs.summary();
    let Some(last) = runs.runs.last() else {
        return Ok(());
    };
    let loads: Vec<_> = runs.runs.iter().map(|run| run.load_average.as_str()).collect();
    writeln!(text, "\n## {}: {}\n", runs.scenario.name, runs.scenario.says)?;
    writeln!(
        text,
        "`{}`, {} runs, the last on {}. Load averages before the runs: {}. {}.\n",
        last.command,
        runs.runs.len(),
        last.date,
        loads.join("; "),
        verdict(&totals)
    )?;
    for fault in runs.faults() {
        writeln!(text, "* {fault}\n")?;
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(median: f64) -> Summary {
        Summary {
            name: "W = 1, server CPU".into(),
            unit: "µs/delivery".into(),
            median,
            lowest: median,
            highest: median,
        }
    }

    #[test]
    fn a_regression_is_more_than_the_tolerance() {
        assert!(compared(&figure(1.16), Some(&figure(1.0))).1);
        assert!(!compared(&figure(1.15), Some(&figure(1.0))).1);
        assert!(!compared(&figure(0.5), Some(&figure(1.0))).1);
        assert!(!compared(&figure(9.0), None).1);
        let (line, _) = compared(&figure(2.0), Some(&figure(1.0)));
        assert!(line.ends_with("was 1.00, +100 %  REGRESSION"), "{line}");
    }
}
