//! Runs `cargo test` and reads its counts, one suite per test binary.
//!
//! A test whose needs are not met says `NOT RUN <test>: needs <what>`, and the test harness of Rust takes it for passed:
//! here it counts as not run.
//!
//! A test of a whole node that failed is run once more, alone: machines differ, and what a crowded one made late is not
//! what the test is for. If it passes then, it is told as flaky, which a run may have a few of
//! ([`crate::summary::FLAKY_MAX`]). What judges random trials ([`ONCE`]), and what needs no node, is never run again.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::emulators;
use crate::install::{Installed, Need};
use crate::run::{self, Ended};
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
/// For the tests of one binary that are run again.
const AGAIN_LIMIT: Duration = Duration::from_secs(5 * 60);

/// Parts of the names of tests that draw their trials at random, or account for what was lost: a failure is a finding, also
/// if it does not come again.
const ONCE: [&str; 13] = [
    "siege",
    "kill_loop",
    "killed",
    "nothing_is_lost",
    "damage",
    "power_loss",
    "full_disk",
    "failing_io",
    "half_done",
    "settling",
    "front",
    "together",
    "members",
];

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
    let (ended, suites) = read(&mut command, LIMIT)?;
    let failed: usize = suites.iter().map(|suite| suite.tally.failed).sum();
    for mut suite in suites {
        if suite.may_run_again(summary.flaky_left()) {
            again(&mut command, &mut suite, summary)?;
        }
        summary.ran(suite.name, suite.tally, suite.seconds);
        for (test, needs) in suite.not_run {
            let is_forgivable = is_forgivable(&needs, no_python);
            summary.not_run(test, needs, is_forgivable);
        }
    }
    // It did not compile, hung, or failed in a way that its output does not tell.
    if ended.timed_out || (!ended.succeeded() && failed == 0) {
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

fn read(command: &mut Command, limit: Duration) -> Result<(Ended, Vec<Suite>)> {
    let mut reader = Reader::default();
    let ended = run::stream(command, limit, |line| {
        println!("{line}");
        reader.line(line, Instant::now());
    })?;
    Ok((ended, reader.end(Instant::now())))
}

/// Runs the failed tests of a suite alone. `command` ran them all; what is added to it names these.
fn again(command: &mut Command, suite: &mut Suite, summary: &mut Summary) -> Result<()> {
    println!("\nAGAIN {}: {}", suite.name, suite.failed.join(", "));
    let mut alone = Command::new(command.get_program());
    alone.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => alone.env(name, value),
            None => alone.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        alone.current_dir(folder);
    }
    alone.args(["--test", &suite.binary, "--", "--test-threads=1", "--exact"]);
    alone.args(&suite.failed);
    let (ended, suites) = read(&mut alone, AGAIN_LIMIT)?;
    let passed: usize = suites.iter().map(|suite| suite.tally.passed).sum();
    if ended.succeeded() && passed == suite.failed.len() {
        suite.tally.passed += suite.tally.failed;
        suite.tally.failed = 0;
        for test in suite.failed.drain(..) {
            summary.flaky(format!("{} {test}", suite.binary));
        }
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
    /// Its file, without the hash.
    binary: String,
    kind: Kind,
    tally: Tally,
    seconds: f64,
    /// Tests, and what they need.
    not_run: Vec<(String, String)>,
    /// The tests that failed, as far as the output names them.
    failed: Vec<String>,
}

impl Suite {
    /// `most`: how many of its tests may be.
    fn may_run_again(&self, most: usize) -> bool {
        let all_are_named = !self.failed.is_empty() && self.failed.len() == self.tally.failed;
        let is_finding = |test: &String| {
            ONCE.iter()
                .any(|once| test.contains(once) || self.binary.contains(once))
        };
        self.kind == Kind::Integration
            && all_are_named
            && self.failed.len() <= most
            && !self.failed.iter().any(is_finding)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Unit,
    Integration,
    Documentation,
}

#[derive(Debug)]
struct Opening {
    binary: String,
    kind: Kind,
}

impl Opening {
    fn name(&self) -> String {
        let kind = match self.kind {
            Kind::Unit => "unit",
            Kind::Integration => "integration",
            Kind::Documentation => "documentation",
        };
        format!("{} ({kind})", self.binary)
    }
}

/// Follows the output: `Running … (target/debug/deps/name-hash)` opens a suite, `test result:` closes it.
#[derive(Default)]
struct Reader {
    suites: Vec<Suite>,
    open: Option<(Opening, Instant)>,
    not_run: Vec<(String, String)>,
    failed: Vec<String>,
    /// Below `failures:`, of which the last lists the names.
    in_failures: bool,
}

impl Reader {
    fn line(&mut self, line: &str, now: Instant) {
        if let Some(opening) = opening(line) {
            self.abandon(now);
            self.open = Some((opening, now));
        } else if let Some(not_run) = not_run(line) {
            self.not_run.push(not_run);
        } else if let Some(tally) = result(line) {
            let (opening, since) = self.open.take().unwrap_or_else(|| {
                let binary = "cargo test".to_owned();
                let kind = Kind::Unit;
                (Opening { binary, kind }, now)
            });
            self.push(opening, tally, now.duration_since(since));
        } else if line == "failures:" {
            self.in_failures = true;
            self.failed.clear();
        } else if let Some(name) = line.strip_prefix("    ")
            && self.in_failures
            && !name.contains(' ')
        {
            self.failed.push(name.to_owned());
        }
    }

    fn end(mut self, now: Instant) -> Vec<Suite> {
        self.abandon(now);
        self.suites
    }

    /// A suite that was opened and never told its result has died: that is a failure.
    fn abandon(&mut self, now: Instant) {
        if let Some((opening, since)) = self.open.take() {
            println!("FAIL {} ended without a result", opening.name());
            self.failed.clear();
            self.push(
                opening,
                Tally {
                    failed: 1,
                    ..Tally::default()
                },
                now.duration_since(since),
            );
        }
    }

    /// Binaries without a single test would only make the summary longer.
    fn push(&mut self, opening: Opening, mut tally: Tally, took: Duration) {
        let not_run = std::mem::take(&mut self.not_run);
        let failed = std::mem::take(&mut self.failed);
        self.in_failures = false;
        tally.passed = tally.passed.saturating_sub(not_run.len());
        if tally == Tally::default() && not_run.is_empty() {
            return;
        }
        self.suites.push(Suite {
            name: opening.name(),
            binary: opening.binary,
            kind: opening.kind,
            tally,
            seconds: took.as_secs_f64(),
            not_run,
            failed,
        });
    }
}

fn opening(line: &str) -> Option<Opening> {
    let line = line.trim_start();
    if let Some(name) = line.strip_prefix("Doc-tests ") {
        return Some(Opening {
            binary: name.to_owned(),
            kind: Kind::Documentation,
        });
    }
    let (source, binary) = line.strip_prefix("Running ")?.rsplit_once(" (")?;
    let file = binary.strip_suffix(')')?.rsplit('/').next()?;
    let name = file.rsplit_once('-').map_or(file, |(name, _hash)| name);
    let kind = if source.starts_with("unittests ") {
        Kind::Unit
    } else {
        Kind::Integration
    };
    Some(Opening {
        binary: name.to_owned(),
        kind,
    })
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

    fn of(output: &str) -> Vec<Suite> {
        let mut reader = Reader::default();
        let now = Instant::now();
        output.lines().for_each(|line| reader.line(line, now));
        reader.end(now)
    }

    #[test]
    fn every_binary_is_a_suite() {
        let suites = of(
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
        let suites = of(
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
    fn a_test_of_a_node_that_failed_may_run_again() {
        let output = |binary: &str, test: &str| {
            format!(
                "     Running {binary}\n\
                 test {test} ... FAILED\n\
                 \n\
                 failures:\n\
                 \n\
                 ---- {test} stdout ----\n\
                 \x20   indented\n\
                 Error: late\n\
                 \n\
                 failures:\n\
                 \x20   {test}\n\
                 \n\
                 test result: FAILED. 4 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.0s\n\
                 error: test failed, to rerun pass `--test nodes`\n"
            )
        };
        let suite = |binary, test| of(&output(binary, test)).pop().unwrap();
        let nodes = "tests/nodes/main.rs (/x/target/debug/deps/nodes-99aa)";

        let late = suite(nodes, "lab::a_restart");
        assert_eq!(
            (late.binary.as_str(), late.failed.as_slice()),
            ("nodes", ["lab::a_restart".to_owned()].as_slice())
        );
        assert!(late.may_run_again(1) && !late.may_run_again(0));

        assert!(!suite(nodes, "siege::nothing_is_lost").may_run_again(1));
        let unit = "unittests src/lib.rs (target/debug/deps/postrider_model-0b1c)";
        assert!(!suite(unit, "cursor::goes_round").may_run_again(1));
    }

    #[test]
    fn failures_that_are_not_all_named_are_final() {
        let suites = of("     Running tests/drain.rs (/x/target/debug/deps/drain-99aa)\n\
             failures:\n\
             \x20   one\n\
             test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 3.10s\n");
        assert!(!suites[0].may_run_again(2));
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
        let suites = of(
            "     Running unittests src/lib.rs (target/debug/deps/postrider_outq-0b1c)\n\
             error: test failed (signal: 6, SIGABRT)\n\
             \x20    Running unittests src/lib.rs (target/debug/deps/postrider_router-77)\n",
        );
        assert_eq!(suites.iter().map(|suite| suite.tally.failed).sum::<usize>(), 2);
    }
}
