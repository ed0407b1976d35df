//! `postrider bench` against a real node.
//!
//! Invariant checked: every scenario ends with figures, all of its deliveries accounted for; who may not be measured, or
//! cannot be, is told why before anybody connects.

#![allow(missing_docs, clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use postrider_harness::node::{KEY, KEY_READ, Node, binary};
use postrider_harness::token::SECRET;
use postrider_harness::wait::{until_true, within};
use serde_json::Value;

const USERS: u64 = 40;

fn check(test: fn() -> Result<()>) {
    if let Err(e) = test() {
        panic!("{e:?}");
    }
}

fn bench(arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary()?);
    command.arg("bench").args(arguments);
    for name in ["POSTRIDER_URL", "POSTRIDER_KEY", "POSTRIDER_SECRET"] {
        command.env_remove(name);
    }
    command.output().context("postrider bench")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn url(node: &Node) -> Result<String> {
    Ok(format!("http://{}", node.endpoint.addr()?))
}

#[test]
fn every_scenario_gives_figures_and_loses_nothing() {
    check(|| {
        let node = Node::start(&[])?;
        let users = USERS.to_string();
        let output = bench(&[
            "--url",
            &url(&node)?,
            "--key",
            KEY,
            "--secret",
            SECRET,
            "--users",
            &users,
            "--seconds",
            "1",
            "--json",
        ])?;
        ensure!(output.status.success(), "{}", said(&output));
        let value: Value = serde_json::from_slice(&output.stdout)?;
        let results = value["results"].as_array().context("no results")?;
        let names: Vec<_> = results
            .iter()
            .map(|result| result["scenario"].as_str().unwrap())
            .collect();
        let all = [
            "connect",
            "broadcast",
            "unicast",
            "long-poll",
            "sse",
            "storm",
            "drain",
            "idle",
        ];
        assert_eq!(names, all);
        for result in results {
            assert!(result["count"].as_u64() >= Some(USERS), "{result}");
            assert_eq!(result["deliveries"]["lost"], 0, "{result}");
            // Requests over several connections have no order among them.
            if result["scenario"] != "unicast" {
                assert_eq!(result["deliveries"]["reordered"], 0, "{result}");
            }
            // The node is on this machine, so what it costs is known.
            assert!(result["server_cpu_us"].is_number(), "{result}");
            if result["scenario"] != "idle" {
                assert!(result["latency_ms"]["p99_9"].is_number(), "{result}");
            }
        }
        // To everyone here, two for each: one before the storm, and the one that was missed.
        assert_eq!(results[5]["deliveries"]["delivered"], 2 * USERS);
        Ok(())
    });
}

#[test]
fn it_brings_a_node_of_its_own_and_draws() {
    check(|| {
        let folder = tempfile::tempdir()?;
        let picture = folder.path().join("curve.svg");
        let file = picture.to_str().context("a path of text")?;
        let output = bench(&[
            "unicast",
            "--users",
            "20",
            "--seconds",
            "1",
            "--rate",
            "100",
            "--json",
            "--svg",
            file,
        ])?;
        ensure!(output.status.success(), "{}", said(&output));
        let value: Value = serde_json::from_slice(&output.stdout)?;
        assert_eq!(value["results"][0]["count"], 100);
        let drawn = std::fs::read_to_string(&picture)?;
        assert!(drawn.contains(">unicast<") && drawn.ends_with("</svg>\n"));
        Ok(())
    });
}

#[test]
fn what_is_wrong_is_said_before_anybody_connects() {
    check(|| {
        let node = Node::start(&[])?;
        let url = url(&node)?;
        let refused = |arguments: &[&str], words: &[&str], status: i32| {
            let output = bench(&[&["connect", "--users", "5"], arguments].concat())?;
            let text = said(&output);
            ensure!(
                output.status.code() == Some(status),
                "{:?}: {text}",
                output.status
            );
            for word in words {
                ensure!(text.contains(word), "{word} is not in: {text}");
            }
            Ok(())
        };
        let wrong_secret = [
            "--url",
            &url,
            "--key",
            KEY,
            "--secret",
            "another-secret-of-more-than-thirty-two",
        ];
        refused(
            &wrong_secret,
            &["the token of a bench user", "token_signature"],
            1,
        )?;
        let wrong_key = ["--url", &url, "--key", KEY_READ, "--secret", SECRET];
        refused(&wrong_key, &["publishing to a bench user", "scope"], 1)?;
        refused(&["--url", &url, "--key", KEY], &["--secret"], 2)?;
        let nobody = ["--url", "http://127.0.0.1:1", "--key", KEY, "--secret", SECRET];
        refused(&nobody, &["is it running"], 1)?;
        let elsewhere = ["--url", "http://192.0.2.1:8080", "--key", KEY, "--secret", SECRET];
        refused(&elsewhere, &["not this machine", "--yes"], 2)?;
        refused(&["--url", "https://127.0.0.1", "--key", KEY], &["https"], 2)
    });
}

/// A bench that is killed takes the node that it started with it.
#[test]
fn its_own_node_ends_with_it() {
    check(|| {
        let mut bench = Command::new(binary()?)
            .args(["bench", "idle", "--users", "1", "--seconds", "60"])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let told = BufReader::new(bench.stdout.take().context("no output")?).read_line(&mut line);
        let nodes = children(bench.id());
        bench.kill()?;
        bench.wait()?;
        told?;
        let nodes = nodes?;
        ensure!(line.starts_with("node ") && nodes.len() == 1, "{line}: {nodes:?}");
        let gone = until_true(
            "its node to be gone",
            within(20),
            || Ok(state(nodes[0]).is_none()),
        );
        if gone.is_err()
            && let Some(node) = rustix::process::Pid::from_raw(nodes[0].try_into()?)
        {
            // It would stay for good, and hold what it inherited.
            rustix::process::kill_process(node, rustix::process::Signal::KILL)?;
        }
        gone
    });
}

/// The processes that this one started and that run.
fn children(of: u32) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let pid = name.to_str().and_then(|name| name.parse().ok());
        if let Some(pid) = pid.filter(|pid| state(*pid).is_some_and(|(_, parent)| parent == of)) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// A running process's state and parent; whoever has ended and is not yet waited for does not run.
fn state(pid: u32) -> Option<(char, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything.
    let mut rest = stat.rsplit_once(") ")?.1.split(' ');
    let state = rest.next()?.chars().next()?;
    let parent = rest.next()?.parse().ok()?;
    (state != 'Z').then_some((state, parent))
}
