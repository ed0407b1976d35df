//! What a run comes to: one line per suite, and a last line that programs can read.

use std::fmt::Write as _;

/// How many tests of a run may fail and then pass alone. One more is a failure of the run.
pub const FLAKY_MAX: usize = 2;

/// Counts of test cases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
}

impl Tally {
    /// `N passed, N failed`, with `, N skipped` where there were any.
    pub fn line(&self) -> String {
        let mut line = format!("{} passed, {} failed", self.passed, self.failed);
        if self.skipped > 0 {
            line.push_str(&format!(", {} skipped", self.skipped));
        }
        line
    }

    /// Reads the line that `line` writes; anything else is `None`.
    pub fn parse(line: &str) -> Option<Self> {
        let mut tally = Tally::default();
        let mut parts = line.trim().split(", ");
        tally.passed = parts.next()?.strip_suffix(" passed")?.parse().ok()?;
        tally.failed = parts.next()?.strip_suffix(" failed")?.parse().ok()?;
        if let Some(skipped) = parts.next() {
            tally.skipped = skipped.strip_suffix(" skipped")?.parse().ok()?;
        }
        parts.next().is_none().then_some(tally)
    }

    pub fn add(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

pub enum Outcome {
    Ran { tally: Tally, seconds: f64 },
    NotRun { needs: String, forgivable: bool },
}

#[derive(Default)]
pub struct Summary {
    rows: Vec<(String, Outcome)>,
    /// What failed, and passed when it was run alone.
    flaky: Vec<String>,
}

impl Summary {
    pub fn ran(&mut self, suite: impl Into<String>, tally: Tally, seconds: f64) {
        self.rows.push((suite.into(), Outcome::Ran { tally, seconds }));
    }

    /// `forgivable`: for what no registry gives to every machine; everything else fails a CI run.
    pub fn not_run(&mut self, suite: impl Into<String>, needs: impl Into<String>, forgivable: bool) {
        let (suite, needs) = (suite.into(), needs.into());
        println!("NOT RUN {suite}: needs {needs}");
        self.rows.push((suite, Outcome::NotRun { needs, forgivable }));
    }

    /// The test failed and then passed alone: told, since somebody has to find out why.
    pub fn flaky(&mut self, test: impl Into<String>) {
        let test = test.into();
        println!("FLAKY {test}: failed, and passed alone");
        self.flaky.push(test);
    }

    /// How many more may be.
    pub fn flaky_left(&self) -> usize {
        FLAKY_MAX.saturating_sub(self.flaky.len())
    }

    pub fn total(&self) -> Tally {
        let mut total = Tally::default();
        for (_, outcome) in &self.rows {
            match outcome {
                Outcome::Ran { tally, .. } => total.add(*tally),
                Outcome::NotRun { .. } => total.skipped += 1,
            }
        }
        total
    }

    /// `strict`: whether a suite that could not run makes the whole run a failure.
    pub fn passed(&self, strict: bool) -> bool {
        let missed = self.rows.iter().any(|(_, o)| {
            matches!(
                o,
                Outcome::NotRun {
                    forgivable: false,
                    ..
                }
            )
        });
        self.total().failed == 0 && !(strict && missed)
    }

    pub fn text(&self) -> String {
        let width = self
            .rows
            .iter()
            .map(|(suite, _)| suite.len())
            .max()
            .unwrap_or(0)
            .max("suite".len());
        let mut text = format!("{:width$}  passed  failed  skipped  seconds\n", "suite");
        for (suite, outcome) in &self.rows {
            let written = match outcome {
                Outcome::Ran {
                    tally:
                        Tally {
                            passed,
                            failed,
                            skipped,
                        },
                    seconds,
                } => {
                    writeln!(
                        text,
                        "{suite:width$}  {passed:>6}  {failed:>6}  {skipped:>7}  {seconds:>7.1}"
                    )
                }
                Outcome::NotRun { needs, .. } => writeln!(text, "NOT RUN {suite}: needs {needs}"),
            };
            written.expect("writing to a String cannot fail");
        }
        for test in &self.flaky {
            text.push_str(&format!("FLAKY {test}: failed, and passed alone\n"));
        }
        text.push_str(&self.total().line());
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_stands_alone_and_reads_back() {
        let mut summary = Summary::default();
        summary.ran(
            "model",
            Tally {
                passed: 3,
                failed: 0,
                skipped: 0,
            },
            0.25,
        );
        assert_eq!(summary.text().lines().last(), Some("3 passed, 0 failed"));
        summary.not_run("browser", "chromium", false);
        let text = summary.text();
        assert_eq!(text.lines().last(), Some("3 passed, 0 failed, 1 skipped"));
        assert!(text.contains("NOT RUN browser: needs chromium"));
        assert_eq!(
            Tally::parse("3 passed, 0 failed, 1 skipped"),
            Some(summary.total())
        );
    }

    #[test]
    fn what_is_flaky_is_told_and_counted() {
        let mut summary = Summary::default();
        summary.flaky("nodes front::a_restart");
        assert_eq!(summary.flaky_left(), FLAKY_MAX - 1);
        assert!(summary.text().contains("FLAKY nodes front::a_restart"));
        (1..FLAKY_MAX).for_each(|nth| summary.flaky(format!("drain {nth}")));
        assert_eq!(summary.flaky_left(), 0);
    }

    #[test]
    fn other_lines_are_not_tallies() {
        for line in [
            "",
            "3 passed",
            "3 passed, 0 failed, 1 lost",
            "3 passed, 0 failed, 1 skipped, 2 more",
            "x passed, 0 failed",
        ] {
            assert_eq!(Tally::parse(line), None, "{line}");
        }
    }

    #[test]
    fn a_suite_not_run_fails_only_a_strict_run() {
        let mut summary = Summary::default();
        summary.not_run("autobahn", "Python 2.7", true);
        assert!(summary.passed(true));
        summary.not_run("browser", "chromium", false);
        assert!(summary.passed(false) && !summary.passed(true));
    }
}
