//! The command line of `cargo xtask`. Small enough that a parser crate would cost more than it saves.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

pub const USAGE: &str = "\
usage: cargo xtask TASK

  test [--only NAME]…        install what the tests need, build, run every suite, print a summary
                             NAME: cargo, a part of it, or one of the end-to-end suites (`test --only list` names them)
  check-docs [FILE]…         run every ```sh block of README.md and docs/**/*.md
  kill-loop [--kills N]      kill a node N times (200) and account for every accepted notification
  siege-redis [--rounds N] [--seed N] [--shape NAME]
                             three nodes over one Redis, 300 sessions, N rounds (20) in which everything dies, fails over,
                             pauses or is cut off; prints the account of each. NAME: single, cluster, sentinel or careless
  siege-aws [--messages N]   N messages (10,000) from SQS to listeners, while the queue and the node fail in every way;
                             prints the account: delivered, in the dead-letter queue, or a dead letter
  conformance                Autobahn's suite against the WebSocket endpoint (also a part of `test`)
  fuzz [--seconds N] [NAME]… run each fuzz target, or those named, for N seconds (60); needs about 3 minutes to build
  bench [--short]            measure everything, the peers beside it, and write bench/RESULTS.md (under 20 minutes);
                             short: Postrider alone against the last committed figures, in under 2 minutes
  counts [--write]           instructions of the inner functions, by callgrind, against bench/counts.json
  dist [--binary FILE]       build what is handed out, smallest and fastest: target/dist/postrider-VERSION-HOST.tar.gz
                             with a binary, pack that one into target/dist/trial, to see what is in an archive
  proto                      make the Rust code of the Twirp services from proto/, without protoc
  ci                         what continuous integration runs: .ci/run

environment:
  POSTRIDER_BIN              use this `postrider` instead of building one
  CI=true                    a suite that could not run is a failure";

pub enum Task {
    Help,
    /// Empty: every suite.
    Test {
        only: Vec<String>,
    },
    /// Empty: every document.
    CheckDocs {
        only: Vec<String>,
    },
    KillLoop {
        kills: u32,
    },
    /// Of one shape, or of all by turns; of one seed, or of any.
    SiegeRedis {
        rounds: u32,
        seed: Option<String>,
        shape: Option<String>,
    },
    SiegeAws {
        messages: u32,
    },
    Bench {
        short: bool,
    },
    Counts {
        write: bool,
    },
    Conformance,
    /// Empty: every target.
    Fuzz {
        seconds: u32,
        only: Vec<String>,
    },
    /// Of a binary that is there, or of one that is built.
    Dist {
        binary: Option<PathBuf>,
    },
    /// Makes code from `proto/`.
    Proto,
    Ci,
}

pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Task> {
    const DEFAULT_KILLS: u32 = 200;
    const DEFAULT_SECONDS: u32 = 60;
    const DEFAULT_ROUNDS: u32 = 20;
    const DEFAULT_MESSAGES: u32 = 10_000;

    let mut arguments = arguments.into_iter();
    let task = arguments.next().unwrap_or_default();
    let mut only = Vec::new();
    let mut kills = DEFAULT_KILLS;
    let mut messages = DEFAULT_MESSAGES;
    let mut flag = false;
    let mut binary = None;
    let mut seconds = DEFAULT_SECONDS;
    let (mut rounds, mut seed, mut shape) = (DEFAULT_ROUNDS, None, None);
    while let Some(argument) = arguments.next() {
        let (name, inline) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (argument.as_str(), None),
        };
        match (task.as_str(), name) {
            ("test", "--only") => only.push(value(name, inline, &mut arguments)?),
            ("kill-loop", "--kills") => kills = number(name, inline, &mut arguments)?,
            ("siege-redis", "--rounds") => rounds = number(name, inline, &mut arguments)?,
            ("siege-redis", "--seed") => seed = Some(value(name, inline, &mut arguments)?),
            ("siege-redis", "--shape") => shape = Some(value(name, inline, &mut arguments)?),
            ("siege-aws", "--messages") => messages = number(name, inline, &mut arguments)?,
            ("fuzz", "--seconds") => seconds = number(name, inline, &mut arguments)?,
            ("dist", "--binary") => binary = Some(PathBuf::from(value(name, inline, &mut arguments)?)),
            ("bench", "--short") | ("counts", "--write") => flag = true,
            ("check-docs" | "fuzz", file) if !file.starts_with('-') => only.push(argument),
            _ => bail!("`{argument}` is unknown to `{task}`\n\n{USAGE}"),
        }
    }
    match task.as_str() {
        "test" => Ok(Task::Test { only }),
        "check-docs" => Ok(Task::CheckDocs { only }),
        "kill-loop" => Ok(Task::KillLoop { kills }),
        "siege-redis" => Ok(Task::SiegeRedis { rounds, seed, shape }),
        "siege-aws" => Ok(Task::SiegeAws { messages }),
        "conformance" => Ok(Task::Conformance),
        "fuzz" => Ok(Task::Fuzz { seconds, only }),
        "bench" => Ok(Task::Bench { short: flag }),
        "counts" => Ok(Task::Counts { write: flag }),
        "dist" => Ok(Task::Dist { binary }),
        "proto" => Ok(Task::Proto),
        "ci" => Ok(Task::Ci),
        "" | "help" | "--help" | "-h" => Ok(Task::Help),
        other => bail!("no task `{other}`\n\n{USAGE}"),
    }
}

fn value(name: &str, inline: Option<String>, rest: &mut impl Iterator<Item = String>) -> Result<String> {
    inline
        .or_else(|| rest.next())
        .with_context(|| format!("{name} needs a value"))
}

fn number(name: &str, inline: Option<String>, rest: &mut impl Iterator<Item = String>) -> Result<u32> {
    let given = value(name, inline, rest)?;
    given
        .parse()
        .with_context(|| format!("{name} {given}: not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Task> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn both_forms_of_a_value_are_read() {
        assert!(matches!(
            words("kill-loop --kills 7").unwrap(),
            Task::KillLoop { kills: 7 }
        ));
        assert!(matches!(
            words("kill-loop --kills=7").unwrap(),
            Task::KillLoop { kills: 7 }
        ));
        assert!(matches!(
            words("kill-loop").unwrap(),
            Task::KillLoop { kills: 200 }
        ));
    }

    #[test]
    fn a_siege_has_rounds_a_seed_and_a_shape() {
        let Task::SiegeRedis { rounds, seed, shape } = words("siege-redis --rounds 3 --seed=7").unwrap()
        else {
            panic!("not a siege")
        };
        assert_eq!((rounds, seed.as_deref(), shape), (3, Some("7"), None));
        assert!(words("kill-loop --rounds 3").is_err());
    }

    #[test]
    fn a_siege_of_aws_has_a_number_of_messages() {
        let messages = |line: &str| match words(line).unwrap() {
            Task::SiegeAws { messages } => messages,
            _ => panic!("not a siege"),
        };
        assert_eq!(messages("siege-aws"), 10_000);
        assert_eq!(messages("siege-aws --messages 500"), 500);
        assert!(words("siege-aws --rounds 3").is_err());
    }

    #[test]
    fn only_may_be_repeated() {
        let Task::Test { only } = words("test --only curl --only docs").unwrap() else {
            panic!("not test")
        };
        assert_eq!(only, ["curl", "docs"]);
    }

    #[test]
    fn an_archive_is_built_or_made_of_what_is_there() {
        assert!(matches!(words("dist").unwrap(), Task::Dist { binary: None }));
        let Task::Dist { binary: Some(binary) } = words("dist --binary target/debug/postrider").unwrap()
        else {
            panic!("no binary")
        };
        assert_eq!(binary, PathBuf::from("target/debug/postrider"));
    }

    #[test]
    fn targets_and_their_time() {
        let Task::Fuzz { seconds, only } = words("fuzz --seconds 5 cursor config").unwrap() else {
            panic!("not fuzz")
        };
        assert_eq!(
            (seconds, only),
            (5, vec!["cursor".to_owned(), "config".to_owned()])
        );
    }

    #[test]
    fn a_short_bench_is_told_from_a_long_one() {
        assert!(matches!(words("bench").unwrap(), Task::Bench { short: false }));
        assert!(matches!(
            words("bench --short").unwrap(),
            Task::Bench { short: true }
        ));
        assert!(words("bench --write").is_err());
    }

    #[test]
    fn what_is_unknown_is_refused() {
        assert!(words("tset").is_err());
        assert!(words("test --kills 3").is_err());
        assert!(words("test --only").is_err());
        assert!(words("kill-loop --kills many").is_err());
    }
}
