//! The end-to-end suites: which there are, what each needs, how each is run.
//!
//! A suite is a program under `tests/e2e/`. It finds the binary in `POSTRIDER_BIN`, may leave files for people in
//! `POSTRIDER_ARTIFACTS`, starts its own servers on free ports, prints one line per case and, last, `N passed, N failed`.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::install::{Installed, Need};
use crate::summary::{Summary, Tally};
use crate::workspace::Workspace;
use crate::{autobahn, build, cargo_tests, docs, install, run};

enum Runner {
    /// A script under `tests/e2e/`, by the Python that has the packages, or by the machine's own.
    Python(&'static str),
    Node(&'static str),
    Docs,
}

struct Suite {
    name: &'static str,
    says: &'static str,
    needs: &'static [Need],
    runner: Runner,
    limit: Duration,
}

const SUITES: &[Suite] = &[
    Suite {
        name: "curl",
        says: "publishing, long polling, SSE, settlement, errors, restarts: through curl",
        needs: &[Need::Curl, Need::Python, Need::PythonPackages],
        runner: Runner::Python("curl_suite.py"),
        limit: Duration::from_secs(300),
    },
    Suite {
        name: "python",
        says: "httpx and websockets: NDJSON, keep-alive, many sessions, cursors, tokens",
        needs: &[Need::Python, Need::PythonPackages],
        runner: Runner::Python("python_suite.py"),
        limit: Duration::from_secs(300),
    },
    Suite {
        name: "raw",
        says: "the raw dialect through curl, requests, httpx and fetch: HTTP/1.0, 1.1 and 2, TLS, clients that stop reading",
        needs: &[Need::Curl, Need::Node, Need::Python, Need::PythonPackages],
        runner: Runner::Python("raw_suite.py"),
        limit: Duration::from_secs(180),
    },
    Suite {
        name: "schemathesis",
        says: "requests made from the OpenAPI document, right and wrong ones: no 5xx, no answer that it does not have",
        needs: &[Need::Python, Need::PythonPackages],
        runner: Runner::Python("schemathesis_suite.py"),
        limit: Duration::from_secs(300),
    },
    Suite {
        name: "members",
        says: "users join topics, leave and come back at random, over three transports, with kills",
        needs: &[Need::Python, Need::PythonPackages],
        runner: Runner::Python("members_suite.py"),
        limit: Duration::from_secs(300),
    },
    Suite {
        name: "notify",
        says: "the preset redis-notify by its flags and variables: every line of its contract, with a private Redis",
        needs: &[Need::Python, Need::PythonPackages, Need::Redis],
        runner: Runner::Python("notify_suite.py"),
        limit: Duration::from_secs(180),
    },
    Suite {
        name: CONFORMANCE,
        says: "Autobahn: every frame, fault and close of RFC 6455 against the WebSocket endpoint, but compression",
        needs: &[Need::PythonPackages, Need::Autobahn],
        runner: Runner::Python("conformance_suite.py"),
        limit: Duration::from_secs(300),
    },
    Suite {
        name: "browser",
        says: "Chromium: EventSource, WebSocket and fetch against a node, its cuts and its restarts",
        needs: &[Need::Chromium, Need::Node, Need::NodePackages],
        runner: Runner::Node("browser_suite.mjs"),
        limit: Duration::from_secs(300),
    },
    Suite {
        name: "sse",
        says: "Chromium: the event stream by the HTML standard: characters, ids, retry, comments, pieces, coming back",
        needs: &[Need::Chromium, Need::Node, Need::NodePackages],
        runner: Runner::Node("sse_suite.mjs"),
        limit: Duration::from_secs(300),
    },
    Suite {
        name: "demo",
        says: "Chromium: the demo page, by mouse and keyboard, wide and narrow, light and dark, with axe and screenshots",
        needs: &[Need::Chromium, Need::Curl, Need::Node, Need::NodePackages],
        runner: Runner::Node("demo_suite.mjs"),
        limit: Duration::from_secs(300),
    },
    Suite {
        name: "reference",
        says: "Chromium: the page of the interface at /docs: widths, schemes, keyboard, accessibility, no scripts",
        needs: &[Need::Chromium, Need::Node, Need::NodePackages],
        runner: Runner::Node("reference_suite.mjs"),
        limit: Duration::from_secs(180),
    },
    Suite {
        name: "oidc",
        says: "a real OpenID Connect issuer: its tokens, its keys, their rotation, its absence",
        needs: &[Need::Node, Need::NodePackages],
        runner: Runner::Node("oidc_suite.mjs"),
        limit: Duration::from_secs(180),
    },
    Suite {
        name: "twirp",
        says: "Twirp's client for Python, with types by protoc: every method, and refusals, by protobuf",
        needs: &[Need::Python, Need::PythonPackages],
        runner: Runner::Python("twirp_suite.py"),
        limit: Duration::from_secs(120),
    },
    Suite {
        name: "twirp-ts",
        says: "protobuf-ts's Twirp client, with types by its own plugin: the same over protobuf and over JSON",
        needs: &[Need::Node, Need::NodePackages, Need::Python, Need::PythonPackages],
        runner: Runner::Node("twirp_ts_suite.mjs"),
        limit: Duration::from_secs(120),
    },
    Suite {
        name: "snippets",
        says: "the documentation's JavaScript, Python, JSON and YAML, in Chromium and by themselves",
        needs: &[
            Need::Chromium,
            Need::Node,
            Need::NodePackages,
            Need::Python,
            Need::PythonPackages,
        ],
        runner: Runner::Node("snippets_suite.mjs"),
        limit: Duration::from_secs(300),
    },
    Suite {
        name: "packaging",
        says: "the Dockerfile, `cargo install`, and what is in the archive of `cargo xtask dist`",
        needs: &[Need::Python, Need::PythonPackages],
        runner: Runner::Python("packaging_suite.py"),
        limit: Duration::from_secs(600),
    },
    Suite {
        name: "deploy",
        says: "the compose example: its YAML, its nodes' settings, its load balancer's file",
        needs: &[Need::Python, Need::PythonPackages, Need::HaProxy],
        runner: Runner::Python("deploy_suite.py"),
        limit: Duration::from_secs(60),
    },
    Suite {
        name: "systemd",
        says: "the unit: what systemd itself says of it, and how far it is shut in",
        needs: &[Need::Python, Need::PythonPackages, Need::Systemd],
        runner: Runner::Python("systemd_suite.py"),
        limit: Duration::from_secs(60),
    },
    Suite {
        name: "terraform",
        says: "the module for AWS: what Terraform itself says of it, and what it lets a task do",
        needs: &[Need::Python, Need::PythonPackages, Need::Terraform],
        runner: Runner::Python("terraform_suite.py"),
        limit: Duration::from_secs(60),
    },
    Suite {
        name: "docs",
        says: "every ```sh block of the documentation",
        needs: &[Need::Curl, Need::Jq],
        runner: Runner::Docs,
        limit: Duration::from_secs(1200),
    },
];

const CARGO: &str = "cargo";
const CONFORMANCE: &str = "conformance";
/// Suites that draw their cases at random: a failure is a finding, also if it does not come again.
const ONCE: [&str; 2] = ["members", "schemathesis"];
/// What no registry has for this machine: not even a strict run fails for it.
const FORGIVABLE: [Need; 3] = [Need::Python27, Need::Python313, Need::Terraform];

/// Parts of `cargo test` that can be chosen alone: a test binary of the harness each.
const CARGO_PARTS: [(&str, &str); 4] = [
    (
        "abuse",
        "clients that flood, tarry or say nothing, and clocks that are set",
    ),
    (
        "faults",
        "a full, failing, slow, lost or damaged disk under the node",
    ),
    (
        "nodes",
        "several nodes over one Redis: what they tell each other, and a siege of them and of Redis",
    ),
    (
        "aws",
        "SQS, SNS, DynamoDB, API Gateway and PostgreSQL, as far as they can be had here, with boto3 as the producer",
    ),
];
/// What some of its tests need; each says so itself where one is missing.
const CARGO_NEEDS: [Need; 10] = [
    Need::Strace,
    Need::XfsIo,
    Need::Mkfs,
    Need::Redis,
    Need::HaProxy,
    Need::Iptables,
    Need::Python313,
    Need::LocalStack,
    Need::Moto,
    Need::Postgres,
];

/// Runs the chosen suites, or all; whether the run counts as passed.
pub fn test(workspace: &Workspace, only: &[String]) -> Result<bool> {
    if only.iter().any(|name| name == "list") {
        println!("{CARGO:8} cargo test --workspace");
        CARGO_PARTS
            .iter()
            .for_each(|(name, says)| println!("{name:8} {says} (a part of {CARGO})"));
        SUITES
            .iter()
            .for_each(|suite| println!("{:8} {}", suite.name, suite.says));
        return Ok(true);
    }
    let part = |name: &str| CARGO_PARTS.iter().any(|(part, _)| *part == name);
    let known = |name: &String| name == CARGO || part(name) || SUITES.iter().any(|suite| suite.name == name);
    if let Some(unknown) = only.iter().find(|name| !known(name)) {
        bail!("no suite `{unknown}`: `cargo xtask test --only list` names them");
    }
    let chosen = |name: &str| only.is_empty() || only.iter().any(|wanted| wanted == name);
    let suites: Vec<&Suite> = SUITES.iter().filter(|suite| chosen(suite.name)).collect();

    // Named alone, or contained in the whole.
    let parts: Vec<&str> = only
        .iter()
        .map(String::as_str)
        .filter(|name| part(name))
        .collect();
    let parts = if chosen(CARGO) { Vec::new() } else { parts };
    let of_cargo = CARGO_NEEDS.iter().filter(|_| chosen(CARGO) || !parts.is_empty());
    let needs: Vec<Need> = of_cargo
        .chain(suites.iter().flat_map(|suite| suite.needs))
        .copied()
        .collect();
    let installed = install::install(workspace, &needs);
    let mut summary = Summary::default();
    let binary = if chosen(CARGO) {
        build::binary_and_tests(workspace)?
    } else {
        build::binary(workspace, build::Profile::Dev)?
    };
    if chosen(CARGO) {
        heading("cargo test");
        cargo_tests::run(workspace, &["--workspace"], &binary, &installed, &mut summary)?;
    }
    for part in parts {
        heading(part);
        let arguments = ["-p", "postrider-harness", "--test", part];
        cargo_tests::run(workspace, &arguments, &binary, &installed, &mut summary)?;
    }
    for suite in suites {
        run_suite(suite, workspace, &binary, &installed, &mut summary)?;
    }
    println!("\n{}", summary.text());
    Ok(summary.passed(strict()))
}

fn strict() -> bool {
    std::env::var("CI").is_ok_and(|value| !["", "0", "false"].contains(&value.as_str()))
}

fn heading(name: &str) {
    println!("\n── {name}");
}

fn run_suite(
    suite: &Suite,
    workspace: &Workspace,
    binary: &Path,
    installed: &Installed,
    summary: &mut Summary,
) -> Result<()> {
    heading(suite.name);
    if let Some(missing) = installed.missing(suite.needs) {
        let without = suite.needs.iter().flat_map(|need| need.rests_on());
        let forgivable = without
            .copied()
            .any(|need| FORGIVABLE.contains(&need) && installed.missing(&[need]).is_some());
        summary.not_run(suite.name, missing, forgivable);
        return Ok(());
    }
    let start = Instant::now();
    let mut tally = run_once(suite, workspace, binary)?;
    // As with the tests of a node that `cargo test` runs.
    if tally.failed > 0 && tally.failed <= summary.flaky_left() && !ONCE.contains(&suite.name) {
        heading(&format!("{}, again", suite.name));
        let second = run_once(suite, workspace, binary)?;
        if second.failed == 0 {
            (0..tally.failed).for_each(|_| summary.flaky(format!("{}: a case", suite.name)));
            tally = second;
        }
    }
    summary.ran(suite.name, tally, start.elapsed().as_secs_f64());
    Ok(())
}

fn run_once(suite: &Suite, workspace: &Workspace, binary: &Path) -> Result<Tally> {
    match suite.runner {
        Runner::Docs => docs::check(workspace, binary, &[]),
        Runner::Python(script) => {
            let mut command = Command::new(install::python_of(workspace));
            command.arg("-u").arg(workspace.e2e().join(script));
            if suite.name == CONFORMANCE {
                command
                    .env("POSTRIDER_ECHO", build::echo(workspace)?)
                    .env("POSTRIDER_WSTEST", autobahn::wstest(workspace));
            }
            run_script(command, suite, workspace, binary)
        }
        Runner::Node(script) => {
            let mut command = Command::new("node");
            command.arg(workspace.e2e().join(script));
            run_script(command, suite, workspace, binary)
        }
    }
}

/// What the suite counted itself; one failure more where its end and its count disagree.
fn run_script(mut command: Command, suite: &Suite, workspace: &Workspace, binary: &Path) -> Result<Tally> {
    let artifacts = workspace.artifacts();
    std::fs::create_dir_all(&artifacts).with_context(|| format!("making {}", artifacts.display()))?;
    command
        .current_dir(&workspace.root)
        .env("POSTRIDER_BIN", binary)
        .env("POSTRIDER_ARTIFACTS", &artifacts)
        .env("POSTRIDER_NODE_TOOLS", install::node_folder(workspace))
        .env(
            "POSTRIDER_XTASK",
            std::env::current_exe().context("this program")?,
        )
        .env("POSTRIDER_TARGET", workspace.target())
        .env("POSTRIDER_PYTHON", install::python_of(workspace))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let mut counted = None;
    let ended = run::stream(&mut command, suite.limit, |line| {
        println!("{line}");
        counted = Tally::parse(line).or(counted);
    })?;
    let mut tally = counted.unwrap_or_default();
    if counted.is_none() || (!ended.succeeded() && tally.failed == 0) {
        println!("FAIL {}: the suite itself {}", suite.name, ended.describe());
        tally.failed += 1;
    }
    if ended.left_behind > 0 {
        println!(
            "FAIL {}: left {} processes running",
            suite.name, ended.left_behind
        );
        tally.failed += 1;
    }
    Ok(tally)
}
