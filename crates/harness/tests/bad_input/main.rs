//! What a client can send wrong, for every endpoint, and what the server says to it.
//!
//! Invariant checked after every single case: the server still works, and nothing was published.
//!
//! It does not look at tokens (see `jwt_attacks`) nor at what is right (see `transports_contract`).

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]
#![allow(
    clippy::disallowed_methods,
    reason = "a black-box test is a driver: it reads clocks, spawns and draws"
)]

mod bodies;
mod endpoints;
mod notifications;
mod wire;

use anyhow::{Context, Result, bail, ensure};
use postrider_harness::http::{Answer, Request, once};
use postrider_harness::node::{KEY, Node};
use postrider_harness::publish::Publisher;
use postrider_harness::user::User;
use serde_json::json;

/// What a case must be answered.
pub struct Wanted {
    pub status: &'static [u16],
    /// The problem's code; none where the interface names none for the case.
    pub code: Option<&'static str>,
    /// Where in the body; none where there is no one place.
    pub pointer: Option<&'static str>,
}

pub const fn wanted(status: &'static [u16], code: &'static str) -> Wanted {
    Wanted {
        status,
        code: Some(code),
        pointer: None,
    }
}

pub const fn at(status: &'static [u16], code: &'static str, pointer: &'static str) -> Wanted {
    Wanted {
        status,
        code: Some(code),
        pointer: Some(pointer),
    }
}

pub const fn status(status: &'static [u16]) -> Wanted {
    Wanted {
        status,
        code: None,
        pointer: None,
    }
}

/// A node, and the witnesses of what it has published.
pub struct Bench {
    pub node: Node,
    canary: u32,
}

impl Bench {
    pub fn start() -> Result<Bench> {
        Ok(Bench {
            node: Node::start(&[("http.max_body", "4MiB")])?,
            canary: 0,
        })
    }

    pub fn ask(&self, request: &Request) -> Result<Answer> {
        once(self.node.endpoint.addr()?, request)
    }

    /// One case: the answer is as wanted, and the server is as before.
    pub fn case(&mut self, name: &str, request: &Request, wanted: &Wanted) -> Result<()> {
        let answer = self.ask(request).with_context(|| format!("{name}: no answer"))?;
        judge(&answer, wanted).with_context(|| name.to_owned())?;
        self.unharmed().with_context(|| format!("after {name}"))
    }

    /// The server takes and delivers a notification, and users of the bad requests have got none of them.
    pub fn unharmed(&mut self) -> Result<()> {
        for user in ["ada", "bob"] {
            let pending = User::new(&self.node.endpoint, user)?.pending()?;
            ensure!(pending.is_empty(), "{user} was sent {pending:?}");
        }
        self.canary += 1;
        let user = format!("canary-{}", self.canary);
        let id = Publisher::new(&self.node.endpoint, KEY).accepted(&json!({"users": [user], "data": 1}))?;
        let pending = User::new(&self.node.endpoint, &user)?.pending()?;
        ensure!(pending == [id], "the canary got {pending:?}");
        Ok(())
    }
}

/// Compares an answer with what was wanted, and checks that it is a whole problem document.
pub fn judge(answer: &Answer, wanted: &Wanted) -> Result<()> {
    let told = format!("{} {}", answer.status(), answer.text());
    if !wanted.status.contains(&answer.status()) {
        bail!("wanted {:?}, got {told}", wanted.status);
    }
    let content_type = answer.head.header("content-type").unwrap_or_default();
    ensure!(
        content_type.starts_with("application/problem+json"),
        "content type {content_type:?} of {told}"
    );
    let problem = answer.json()?;
    for text in ["type", "title", "detail", "code"] {
        ensure!(problem[text].is_string(), "no {text} in {told}");
    }
    ensure!(
        problem["status"] == answer.status(),
        "status in the body of {told}"
    );
    if let Some(code) = wanted.code {
        ensure!(problem["code"] == code, "wanted code {code}, got {told}");
    }
    if let Some(pointer) = wanted.pointer {
        ensure!(
            problem["pointer"] == pointer,
            "wanted pointer {pointer}, got {told}"
        );
    }
    Ok(())
}

/// Runs a table and reports all of its failures, not only the first.
pub fn run(cases: Vec<(String, Request, Wanted)>) {
    let mut bench = Bench::start().unwrap();
    let mut failures = Vec::new();
    let count = cases.len();
    for (name, request, wanted) in cases {
        if let Err(e) = bench.case(&name, &request, &wanted) {
            failures.push(format!("{e:#}"));
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {count} cases:\n{}",
        failures.len(),
        failures.join("\n")
    );
}
