//! Runs `cargo test` and reads its counts, one suite per test binary.
//!
//! A test whose needs are not met says `NOT RUN <test>: needs <what>`, and the test harness of Rust takes it for passed:
//! here it counts as not run.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::emulators;
use crate::install::{Installed, Need};
use crate::run;
use crate::summary::{Summary, Tally};
use crate::workspace::Workspace;

/// What a machine may be without, since no registry gives it: not even a strict run fails for it.
const FORGIVABLE: [&str; 6] = [
    "root",
    "loop devices",
    "ptrace",
    "network namespaces",
    "terraform",
    "a mirror of Terraform's AWS provider",
];

/// It exists for one version of Python alone, which Debian does not have.
const LOCALSTACK: &str = "LocalStack";

const LIMIT: Duration = Duration::from_secs(40 * 60);

/// `which`: the arguments that say which tests.
pub fn run(
    workspace: &Workspace,
    which: &[&str],
    binary: &Path,
    installed: &Installed,
    summary: &mut Summary,
) -> Result<()> {
    let mut command = workspace.cargo();
    command
        .arg("test")
        .args(which)
        .arg("--no-fail-fast")
        .env("POSTRIDER_BIN", binary)
        .env("POSTRIDER_AWS_TOOLS", emulators::folder(workspace));
    if installed.missing(&[Need::Redis]).is_none() {
        // It is here: a test that does not find it is at fault.
        command.env("POSTRIDER_TEST_REDIS", "required");
    }
    let no_python = installed.missing(&[Need::Python313]).is_some();
    let mut reader = Reader::default();
    let ended = run::stream(&mut command, LIMIT, |line| {
        println!("{line}");
        reader.line(line, Instant::now());
    })?;
    let suites = reader.end(Instant::now());
    let failed: usize = suites.iter().map(|suite| suite.tally.failed).sum();
    for suite in suites {
        summary.ran(suite.name, suite.tally, suite.seconds);
        for (test, needs) in suite.not_run {
            let is_forgivable = is_forgivable(&needs, no_python);
            summary.not_run(test, needs, is_forgivable);
        }
    }
    // It did not compile, hung, or failed in a way that its output does not tell.
    if !ended.succeeded() && failed == 0 {
        println!("FAIL cargo test {}", ended.describe());
        summary.ran(
            "cargo test",
            Tally {
                failed: 1,
                ..Tally::default()
            },
            ended.seconds,
        );
    }
    Ok(())
}

/// Whether all that a test lacks is what a machine may be without.
fn is_forgivable(needs: &str, no_python: bool) -> bool {
    needs
        .split(", ")
        .all(|need| FORGIVABLE.contains(&need) || (need == LOCALSTACK && no_python))
}

#[derive(Debug)]
struct Suite {
    name: String,
    tally: Tally,
    seconds: f64,
    /// Tests, and what they need.
    not_run: Vec<(String, String)>,
}

/// Follows the output: `Running … (target/debug/deps/name-hash)` opens a suite, `test result:` closes it.
#[derive(Default)]
struct Reader {
    suites: Vec<Suite>,
    open: Option<(String, Instant)>,
    not_run: Vec<(String, String)>,
}

impl Reader {
    fn line(&mut self, line: &str, now: Instant) {
        if let Some(name) = opening(line) {
            self.abandon(now);
            self.open = Some((name, now));
        } else if let Some(not_run) = not_run(line) {
            self.not_run.push(not_run);
        } else if let Some(tally) = result(line) {
            let (name, since) = self.open.take().unwrap_or_else(|| ("cargo test".to_owned(), now));
            self.push(name, tally, now.duration_since(since));
        }
    }

    fn end(mut self, now: Instant) -> Vec<Suite> {
        self.abandon(now);
        self.suites
    }

    /// A suite that was opened and never told its result has died: that is a failure.
    fn abandon(&mut self, now: Instant) {
        if let Some((name, since)) = self.open.take() {
            println!("FAIL {name} ended without a result");
            self.push(
                name,
                Tally {
                    failed: 1,
                    ..Tally::default()
                },
                now.duration_since(since),
            );
        }
    }

    /// Binaries without a single test would only make the summary longer.
    fn push(&mut self, name: String, mut tally: Tally, took: Duration) {
        let not_run = std::mem::take(&mut self.not_run);
        tally.passed = tally.passed.saturating_sub(not_run.len());
        if tally == Tally::default() && not_run.is_empty() {
            return;
        }
        self.suites.push(Suite {
            name,
            tally,
            seconds: took.as_secs_f64(),
            not_run,
        });
    }
}

fn opening(line: &str) -> Option<String> {
    let line = line.trim_start();
    if let Some(name) = line.strip_prefix("Doc-tests ") {
        return Some(format!("{name} (documentation)"));
    }
    let (source, binary) = line.strip_prefix("Running ")?.rsplit_once(" (")?;
    let file = binary.strip_suffix(')')?.rsplit('/').next()?;
    let name = file.rsplit_once('-').map_or(file, |(name, _hash)| name);
    let kind = if source.starts_with("unittests ") {
        "unit"
    } else {
        "integration"
    };
    Some(format!("{name} ({kind})"))
}

/// `NOT RUN name: needs what`
fn not_run(line: &str) -> Option<(String, String)> {
    let (test, needs) = line.strip_prefix("NOT RUN ")?.split_once(": needs ")?;
    Some((test.to_owned(), needs.trim().to_owned()))
}

/// `test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s`
fn result(line: &str) -> Option<Tally> {
    let counts = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let count = |word: &str| {
        let part = counts.split("; ").find_map(|part| part.strip_suffix(word))?;
        part.trim().parse::<usize>().ok()
    };
    Some(Tally {
        passed: count("passed")?,
        failed: count("failed")?,
        skipped: count("ignored")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(output: &str) -> Vec<Suite> {
        let mut reader = Reader::default();
        let now = Instant::now();
        output.lines().for_each(|line| reader.line(line, now));
        reader.end(now)
    }

    #[test]
    fn every_binary_is_a_suite() {
        let suites = read(
            "     Running unittests src/lib.rs (target/debug/deps/postrider_model-0b1c)\n\
             test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
             \x20    Running tests/kill_loop.rs (/x/target/debug/deps/kill_loop-99aa)\n\
             test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 3.10s\n\
             \x20  Doc-tests postrider_model\n\
             test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
        );
        let names: Vec<&str> = suites.iter().map(|suite| suite.name.as_str()).collect();
        assert_eq!(names, ["postrider_model (unit)", "kill_loop (integration)"]);
        assert_eq!(
            suites[0].tally,
            Tally {
                passed: 5,
                failed: 0,
                skipped: 1
            }
        );
        assert_eq!(
            suites[1].tally,
            Tally {
                passed: 1,
                failed: 2,
                skipped: 0
            }
        );
    }

    #[test]
    fn what_was_not_run_has_not_passed() {
        let suites = read(
            "     Running tests/faults/main.rs (/x/target/debug/deps/faults-99aa)\n\
             test a_power_loss ... \n\
             NOT RUN a_power_loss: needs root, xfsprogs\n\
             ok\n\
             test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 3.10s\n",
        );
        assert_eq!(suites[0].tally.passed, 2);
        assert_eq!(
            suites[0].not_run,
            [("a_power_loss".to_owned(), "root, xfsprogs".to_owned())]
        );
    }

    #[test]
    fn what_no_registry_has_is_forgiven_and_nothing_else() {
        assert!(is_forgivable("terraform", false));
        assert!(is_forgivable("root, a mirror of Terraform's AWS provider", false));
        assert!(!is_forgivable("root, redis-server", false));
        assert!(is_forgivable("LocalStack", true));
        assert!(!is_forgivable("LocalStack", false));
    }

    #[test]
    fn a_binary_that_dies_is_a_failure() {
        let suites = read(
            "     Running unittests src/lib.rs (target/debug/deps/postrider_outq-0b1c)\n\
             error: test failed (signal: 6, SIGABRT)\n\
             \x20    Running unittests src/lib.rs (target/debug/deps/postrider_router-77)\n",
        );
        assert_eq!(suites.iter().map(|suite| suite.tally.failed).sum::<usize>(), 2);
    }
}
