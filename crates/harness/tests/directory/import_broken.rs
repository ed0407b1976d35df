//! Imports that break off: what was imported stays, and importing again makes it whole.

use crate::import::{members, users};
use crate::{check, start};
use anyhow::{Context, Result, ensure};
use postrider_harness::http::{Cut, Request};
use postrider_harness::node::{KEY, Node};
use postrider_harness::people::People;
use postrider_harness::wait::{until_true, within};
use std::time::Duration;

const NDJSON: &str = "application/x-ndjson";
const COUNT: usize = 10_000;

/// All of them are there, with their topics.
fn whole(people: &mut People) -> Result<()> {
    ensure!(people.ids()?.len() == COUNT);
    for (topic, count) in [
        ("everybody", COUNT),
        ("ten-3", COUNT / 10),
        ("hundred-42", COUNT / 100),
    ] {
        ensure!(members(people, topic)? == count as u64, "{topic}");
    }
    Ok(())
}

#[test]
fn killed_in_the_middle_and_imported_again() {
    check(|| {
        let mut node = Node::start(&[])?;
        let mut import = People::new(&node.endpoint, KEY).import_stream()?;
        import.send(&users(0, COUNT / 2))?;
        let mut imported = 0;
        while imported < 1000 {
            let told = import.line()?.context("no progress")?;
            imported = told["imported"].as_u64().context("no count")?;
        }
        node.kill9()?;
        node.restart()?;
        let mut people = People::new(&node.endpoint, KEY);
        let held = people.ids()?.len() as u64;
        ensure!(
            (imported..=COUNT as u64 / 2).contains(&held),
            "{held} of {imported} that were told"
        );
        // Whoever is there is there whole.
        ensure!(members(&mut people, "everybody")? == held);
        let answer = people.import("", NDJSON, users(0, COUNT))?.json()?;
        ensure!(answer["imported"] == COUNT && answer["rejected"] == 0, "{answer}");
        ensure!(
            answer["unchanged"].as_u64() == Some(held),
            "those were there as they are: {answer}"
        );
        whole(&mut people)
    });
}

/// A body that breaks off: the lines that came whole are imported, the one that did not is not.
#[test]
fn cut_in_the_middle_of_a_line() {
    check(|| {
        let (node, mut people) = start(&[])?;
        let mut conn = node.endpoint.connect(None)?;
        let body = users(0, 50);
        let request = Request::new("POST", "/v1/users/import")
            .bearer(KEY)
            .header("Content-Type", NDJSON)
            .header("Content-Length", &(body.len() + 1000).to_string());
        conn.write(&request.bytes())?;
        conn.write(body.as_bytes())?;
        conn.write(br#"{"id":"half"}"#)?;
        until_true("those that came whole", within(60), || {
            Ok(people.ids()?.len() >= 50)
        })?;
        conn.cut(Cut::Reset);
        let answer = people.import("", NDJSON, users(0, COUNT))?.json()?;
        ensure!(answer["imported"] == COUNT, "{answer}");
        whole(&mut people)
    });
}

/// A node that stops answers what it did, and ends.
#[test]
fn a_drain_ends_an_import() {
    check(|| {
        let mut node = Node::start(&[])?;
        let mut import = People::new(&node.endpoint, KEY).import_stream()?;
        import.send(&users(0, 10))?;
        while import.line()?.context("no progress")?["imported"] != 10 {}
        node.signal_term()?;
        let last = import.line()?.context("no last line")?;
        ensure!(last["done"] == false && last["code"] == "unavailable", "{last}");
        ensure!(last["imported"] == 10 && import.line()?.is_none(), "{last}");
        ensure!(node.wait_exit(Duration::from_secs(20))?.success());
        Ok(())
    });
}

/// The same where one answer was asked for: it says what was done.
#[test]
fn a_drain_answers_an_import() {
    check(|| {
        let (mut node, mut people) = start(&[])?;
        let mut conn = node.endpoint.connect(None)?;
        let request = Request::new("POST", "/v1/users/import")
            .bearer(KEY)
            .header("Content-Type", NDJSON)
            .header("Content-Length", "1000000");
        conn.write(&request.bytes())?;
        conn.write(users(0, 10).as_bytes())?;
        until_true("those that came", within(60), || Ok(people.ids()?.len() == 10))?;
        node.signal_term()?;
        let answer = conn.answer(within(60))?.context("no answer")?;
        ensure!(
            answer.status() == 503 && answer.head.header("retry-after").is_some(),
            "{}",
            answer.text()
        );
        let problem = answer.json()?;
        let detail = problem["detail"].as_str().unwrap_or_default();
        ensure!(detail.contains("10 users were imported"), "{problem}");
        ensure!(node.wait_exit(Duration::from_secs(20))?.success());
        Ok(())
    });
}
