//! Clients that let entries lie: unacknowledged ones beside news, and ones that expire.

use anyhow::{Context, Result, ensure};
use postrider_harness::http::{Request, escape};
use postrider_harness::node::{KEY, Node};
use postrider_harness::publish::Publisher;
use postrider_harness::user::User;
use postrider_harness::wait::{until, until_true, within};
use serde_json::{Value, json};

/// Long enough to be polled for before it is over, on a machine that stands still for a while too.
const TTL_SECONDS: u64 = 8;

/// One poll.
fn poll(user: &User, query: &str, cursor: Option<&str>) -> Result<Value> {
    let cursor = cursor
        .map(|c| format!("&cursor={}", escape(c)))
        .unwrap_or_default();
    let answer = user.call(Request::new("GET", &format!("/v1/inbox?{query}{cursor}")))?;
    ensure!(
        answer.status() == 200,
        "poll answered {} {}",
        answer.status(),
        answer.text()
    );
    answer.json()
}

fn ids(page: &Value) -> Vec<String> {
    let list = page["notifications"].as_array().into_iter().flatten();
    list.filter_map(|entry| Some(entry["id"].as_str()?.to_owned()))
        .collect()
}

/// As many unacknowledged entries as a page holds must not keep a new one out.
#[test]
fn repeats_leave_room_for_news() -> Result<()> {
    let node = Node::start(&[])?;
    let mut publisher = Publisher::new(&node.endpoint, KEY);
    for n in 0..100 {
        publisher.accepted(&json!({"id": format!("old{n}"), "users": ["ada"], "data": n}))?;
    }
    let user = User::new(&node.endpoint, "ada")?;
    let first = poll(&user, "wait=0&ack=explicit", None)?;
    ensure!(
        ids(&first).len() == 100,
        "the first page holds {}",
        ids(&first).len()
    );
    publisher.accepted(&json!({"id": "new", "users": ["ada"], "data": 1}))?;
    let mut cursor = first["cursor"].as_str().context("no cursor")?.to_owned();
    for _ in 0..4 {
        let page = poll(&user, "wait=3&ack=explicit", Some(&cursor))?;
        if ids(&page).contains(&"new".to_owned()) {
            return Ok(());
        }
        cursor = page["cursor"].as_str().context("no cursor")?.to_owned();
    }
    anyhow::bail!("four polls repeated old entries only")
}

/// An entry that expires unread is withdrawn, from clients that acknowledge automatically as from others.
#[test]
fn expired_entries_are_withdrawn_from_every_client() -> Result<()> {
    let node = Node::start(&[])?;
    let mut publisher = Publisher::new(&node.endpoint, KEY);
    publisher.accepted(&json!({"id": "wide", "data": 1, "ttl": TTL_SECONDS}))?;
    publisher
        .accepted(&json!({"id": "own", "users": ["auto", "explicit"], "data": 1, "ttl": TTL_SECONDS}))?;
    let readers = ["auto", "explicit"].map(|mode| -> Result<(User, String, String)> {
        let user = User::new(&node.endpoint, mode)?;
        let query = format!("wait=0&ack={mode}");
        let page = poll(&user, &query, None)?;
        ensure!(ids(&page).len() == 2, "{mode} got {page}");
        Ok((
            user,
            query,
            page["cursor"].as_str().context("no cursor")?.to_owned(),
        ))
    });
    // Before that, a cursor would acknowledge them. The first to come is the first to go.
    until_true("both to expire", within(60), || {
        Ok(publisher.count("own", "expired")? == 2)
    })?;
    for reader in readers {
        let (user, query, mut cursor) = reader?;
        // The clock is ahead of the marks. A look that settles nothing tells when they are there.
        until_true("the marks", within(30), || {
            let page = poll(&user, "wait=0&ack=none", Some(&cursor))?;
            Ok(page["events"].as_array().is_some_and(|events| events.len() == 2))
        })?;
        let mut withdrawn = Vec::new();
        until("both to be withdrawn as expired", within(30), || {
            let page = poll(&user, &query, Some(&cursor))?;
            cursor = page["cursor"].as_str().context("no cursor")?.to_owned();
            for event in page["events"].as_array().into_iter().flatten() {
                ensure!(
                    event["type"] == "withdrawn" && event["reason"] == "expired",
                    "{query}: {event}"
                );
                withdrawn.push(event["id"].as_str().context("no id")?.to_owned());
            }
            Ok((withdrawn.len() >= 2).then_some(()))
        })
        .with_context(|| format!("{query}: {withdrawn:?}"))?;
        withdrawn.sort();
        ensure!(withdrawn == ["own", "wide"], "{query}: {withdrawn:?}");
    }
    Ok(())
}
