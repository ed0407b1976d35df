//! The OpenAPI document against the node that serves it.
//!
//! Invariant checked: the node has every operation of the document and, of a documented path, no other; and the copy
//! in `docs/` is what the binary writes.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]
#![allow(
    clippy::disallowed_methods,
    reason = "a black-box test is a driver: it reads clocks, spawns and draws"
)]

use anyhow::{Context, Result, ensure};
use postrider_harness::http::{Answer, Request, once};
use postrider_harness::node::{Node, binary};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

/// What no resource has.
const UNKNOWN_METHOD: &str = "PROPFIND";

struct Operation {
    path: String,
    method: String,
    is_public: bool,
    needs_credential: bool,
    statuses: BTreeSet<String>,
}

fn written() -> Result<String> {
    let output = Command::new(binary()?).arg("openapi").output()?;
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

fn operations(document: &Value) -> Result<Vec<Operation>> {
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().context("no paths")? {
        let item = item.as_object().context("no operations")?;
        for (method, operation) in item.iter().filter(|(name, _)| *name != "servers") {
            let answers = operation["responses"].as_object().context("no answers")?;
            operations.push(Operation {
                path: path.clone(),
                method: method.to_uppercase(),
                is_public: !item.contains_key("servers"),
                needs_credential: operation["security"]
                    .as_array()
                    .is_some_and(|ways| !ways.is_empty()),
                statuses: answers.keys().cloned().collect(),
            });
        }
    }
    Ok(operations)
}

/// A target of the path, with something that exists in no store.
fn target(path: &str) -> String {
    path.replace("{id}", "nobody").replace("{topic}", "nothing")
}

fn ask(node: &Node, operation: &Operation, method: &str) -> Result<Answer> {
    let addr = if operation.is_public {
        node.endpoint.addr()?
    } else {
        node.ops
    };
    once(addr, &Request::new(method, &target(&operation.path)))
}

#[test]
fn the_copy_in_docs_is_what_the_binary_writes() -> Result<()> {
    let copy = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    assert!(
        written()? == std::fs::read_to_string(copy)?,
        "docs/openapi.json is not what `postrider openapi` writes: write it anew"
    );
    Ok(())
}

#[test]
fn a_node_serves_the_document_and_the_page() -> Result<()> {
    let node = Node::start(&[])?;
    let addr = node.endpoint.addr()?;
    let document = once(addr, &Request::new("GET", "/openapi.json"))?;
    assert_eq!(document.text(), written()?);
    let page = once(addr, &Request::new("GET", "/docs"))?;
    assert_eq!(page.status(), 200);
    let policy = page.head.header("content-security-policy").context("no policy")?;
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    for answer in [&document, &page] {
        let header = |name: &str| answer.head.header(name);
        assert_eq!(header("x-content-type-options"), Some("nosniff"));
        assert_eq!(header("referrer-policy"), Some("no-referrer"));
        assert_eq!(header("cache-control"), Some("max-age=300"));
    }
    Ok(())
}

#[test]
fn every_documented_operation_is_there() -> Result<()> {
    let node = Node::start(&[])?;
    let document: Value = serde_json::from_str(&written()?)?;
    let operations = operations(&document)?;
    assert!(operations.len() > 30, "{}", operations.len());
    for operation in operations {
        let answer = ask(&node, &operation, &operation.method)?;
        let status = answer.status().to_string();
        let spot = format!(
            "{} {}: {status} {}",
            operation.method,
            operation.path,
            answer.text()
        );
        assert!(operation.statuses.contains(&status), "{spot}");
        // Whoever may not even ask learns nothing of what is there.
        let expected = if operation.needs_credential { "401" } else { "200" };
        assert_eq!(status, expected, "{spot}");
    }
    Ok(())
}

#[test]
fn a_documented_path_has_no_other_operation() -> Result<()> {
    let node = Node::start(&[])?;
    let document: Value = serde_json::from_str(&written()?)?;
    let operations = operations(&document)?;
    for operation in &operations {
        let answer = ask(&node, operation, UNKNOWN_METHOD)?;
        assert_eq!(answer.status(), 405, "{}", operation.path);
        let allowed = answer.head.header("allow").context("no Allow")?;
        let allowed: BTreeSet<&str> = allowed
            .split(',')
            .map(str::trim)
            .filter(|name| *name != "HEAD")
            .collect();
        let documented: BTreeSet<&str> = operations
            .iter()
            .filter(|other| other.path == operation.path)
            .map(|other| other.method.as_str())
            .collect();
        assert_eq!(allowed, documented, "{}", operation.path);
    }
    Ok(())
}
