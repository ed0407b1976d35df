//! The directory: users, topics' members, state maps, imports, presence.
//!
//! Invariant checked: what was answered is there after a crash, every bad input is told with its place, and whoever
//! does the same again changes nothing.

#![allow(missing_docs, clippy::unwrap_used)]
#![allow(
    clippy::disallowed_methods,
    reason = "a black-box test is a driver: it reads clocks, spawns and draws"
)]

mod bad_input;
mod hearing;
mod import;
mod import_broken;
mod presence;
mod state;
mod topics;
mod users;

use anyhow::Result;
use postrider_harness::node::{KEY, Node};
use postrider_harness::people::People;

/// Runs a test.
pub fn check(test: fn() -> Result<()>) {
    if let Err(e) = test() {
        panic!("{e:?}");
    }
}

/// A node, and a back-end with every scope.
pub fn start(sets: &[(&str, &str)]) -> Result<(Node, People)> {
    let node = Node::start(sets)?;
    let people = People::new(&node.endpoint, KEY);
    Ok((node, people))
}

/// The list of texts under a name.
pub fn texts(value: &serde_json::Value) -> Vec<&str> {
    let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(|one| one.as_str()).collect()
}
