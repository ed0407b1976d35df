//! Figures: what one run measured, and the medians of several.

use crate::account::Totals;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// One measured value.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Figure {
    /// What it is of.
    pub name: String,
    /// How much.
    pub value: f64,
    /// Of what; empty for a ratio.
    pub unit: String,
}

/// What one run measured, and what it delivered on the way.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Measured {
    /// In the order of the work.
    pub figures: Vec<Figure>,
    /// What was delivered.
    pub totals: Totals,
    /// What could not be measured, and why.
    #[serde(default)]
    pub notes: Vec<String>,
}

impl Measured {
    /// Adds a figure.
    pub fn add(&mut self, name: impl Into<String>, value: f64, unit: &str) {
        self.figures.push(Figure {
            name: name.into(),
            value,
            unit: unit.into(),
        });
    }

    /// What this run measured under a name.
    pub fn value(&self, name: &str) -> Option<f64> {
        let figure = self.figures.iter().find(|figure| figure.name == name);
        figure.map(|figure| figure.value)
    }

    /// Adds one figure divided by another, where both were measured.
    pub fn add_ratio(&mut self, name: impl Into<String>, of: &str, by: &str) {
        if let (Some(of), Some(by)) = (self.value(of), self.value(by))
            && by > 0.0
        {
            self.add(name, of / by, "");
        }
    }

    /// Says that something could not be measured.
    pub fn note(&mut self, what: &str, why: &anyhow::Error) {
        self.notes.push(format!("{what}: not measured: {why:#}"));
    }

    /// A rate, and the server's CPU time for each.
    pub fn add_rate(&mut self, name: &str, count: u64, time: Duration, cpu: Duration, each: &str) {
        self.add(
            name,
            count as f64 / time.as_secs_f64(),
            &format!("{}/s", plural(each)),
        );
        self.add(
            format!("{name}, server CPU"),
            micros_each(cpu, count),
            &format!("µs/{each}"),
        );
    }
}

fn plural(word: &str) -> String {
    match word.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{word}s"),
    }
}

/// Microseconds for each; the same number as seconds for a million.
pub fn micros_each(time: Duration, count: u64) -> f64 {
    time.as_secs_f64() * 1e6 / count.max(1) as f64
}

/// A figure over several runs.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// What it is of.
    pub name: String,
    /// Of what; empty for a ratio.
    pub unit: String,
    /// The middle one, or between the two middle ones.
    pub median: f64,
    /// The least.
    pub lowest: f64,
    /// The most.
    pub highest: f64,
}

/// The median of each figure, in the order of the first run that has it.
pub fn summarise(runs: &[Measured]) -> Vec<Summary> {
    let mut summaries: Vec<Summary> = Vec::new();
    for figure in runs.iter().flat_map(|run| &run.figures) {
        if summaries.iter().any(|summary| summary.name == figure.name) {
            continue;
        }
        let same = |other: &&Figure| other.name == figure.name;
        let mut values: Vec<f64> = runs
            .iter()
            .filter_map(|run| run.figures.iter().find(same))
            .map(|figure| figure.value)
            .collect();
        values.sort_by(f64::total_cmp);
        summaries.push(Summary {
            name: figure.name.clone(),
            unit: figure.unit.clone(),
            median: median(&values),
            lowest: values[0],
            highest: values[values.len() - 1],
        });
    }
    summaries
}

/// Of sorted values, of which there is at least one.
fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    }
}

/// Three digits that count, in thousands where there are many.
pub fn show(value: f64) -> String {
    match value.abs() {
        v if v >= 10_000.0 => thousands(value),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 0.1 || v == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_by_name() {
        let run = |value| {
            let mut run = Measured::default();
            run.add("rate", value, "x/s");
            run
        };
        let summaries = summarise(&[run(3.0), run(1.0), run(2.0)]);
        let summary = &summaries[0];
        assert_eq!(
            (summaries.len(), summary.median, summary.lowest, summary.highest),
            (1, 2.0, 1.0, 3.0)
        );
        assert_eq!(summarise(&[run(1.0), run(2.0)])[0].median, 1.5);
    }

    #[test]
    fn numbers_for_people() {
        let shown = [1_234_567.0, 9_999.4, 123.4, 12.34, 1.234, 0.0123, 0.0].map(show);
        assert_eq!(
            shown,
            ["1,234,567", "9999", "123", "12.3", "1.23", "0.012", "0.00"]
        );
    }
}
