//! The preset `sqs-long-poll` from its queues to its clients: bodies byte for byte, deleted once the client has them, and
//! in the dead-letter queue where the user was not there.

use anyhow::{Context as _, Result, ensure};
use postrider_harness::aws::{Boto, Emulator, environment};
use postrider_harness::machine::{Need, run};
use postrider_harness::node::{Node, NodeOptions};
use postrider_harness::wait::{until_true, within};
use serde_json::json;

use crate::stream::Stream;

const CLIENT_ID: &str = "f0c7b6c1-3a67-4d9b-9e36-6f4e5a3a1b11";
const BODIES: [&str; 5] = [
    r#"{"order": 7,  "lines":[1]}"#,
    " plain \"text\"\nü",
    r#""a JSON string""#,
    "[1, 2]",
    "-0",
];

/// A node of the preset.
fn node(emulator: &Emulator, source: &str, variables: &[(&str, &str)]) -> Result<Node> {
    let mut env: Vec<(String, String)> = environment(&emulator.endpoint()).into_iter().collect();
    env.extend(
        variables
            .iter()
            .map(|&(name, text)| (name.to_owned(), text.to_owned())),
    );
    Node::start_with(NodeOptions {
        sets: vec![
            // Nothing falls to the dead-letter queue because a machine is slow.
            (format!("sources.{source}.visibility"), "15s".into()),
            // Here is no table that producers would read.
            ("registry.type".into(), "none".into()),
        ],
        env,
        args: ["--preset", "sqs-long-poll"].map(str::to_owned).into(),
        ..NodeOptions::default()
    })
}

fn send(boto: &mut Boto, queue: &str, user: &str, body: &str) -> Result<()> {
    boto.send(queue, body, &[("addressee", user), ("subject", "s")])?;
    Ok(())
}

#[test]
fn a_queue_for_each_user_is_taken_while_the_user_is_there() -> Result<()> {
    let name = "a_queue_for_each_user_is_taken_while_the_user_is_there";
    run(name, &[Need::LocalStack, Need::Moto], || {
        let emulator = Emulator::localstack()?;
        let mut boto = Boto::start(&emulator.endpoint())?;
        let ada = boto.queue("note-ada", json!({}))?;
        let bob = boto.queue("note-bob", json!({}))?;
        let base = ada.strip_suffix("-ada").context("its name")?.to_owned();
        let node = node(
            &emulator,
            "users",
            &[
                ("NOTIFICATION_SERVICE_MODE", "2"),
                ("SQS_USER_QUEUE_BASE_URL", &base),
            ],
        )?;
        send(&mut boto, &bob, "bob", "waits")?;
        let mut stream_of_ada = Stream::open(&node, "ada")?;
        for body in BODIES {
            send(&mut boto, &ada, "ada", body)?;
            stream_of_ada.expect(body)?;
        }
        until_true("all of ada's are deleted", within(90), || {
            Ok(boto.counts(&ada)? == (0, 0))
        })?;
        ensure!(boto.counts(&bob)? == (1, 0), "nobody takes what is bob's");
        Stream::open(&node, "bob")?.expect("waits")
    })
}

#[test]
fn who_is_away_is_left_to_the_dead_letter_queue_and_who_is_there_never() -> Result<()> {
    let name = "who_is_away_is_left_to_the_dead_letter_queue_and_who_is_there_never";
    run(name, &[Need::LocalStack, Need::Moto], || {
        let emulator = Emulator::localstack()?;
        let mut boto = Boto::start(&emulator.endpoint())?;
        let (queue, dead) = boto.queue_with_dlq("instance", 2, json!({"VisibilityTimeout": 2}))?;
        let node = node(
            &emulator,
            "instance",
            &[
                ("NOTIFICATION_SERVICE_MODE", "0"),
                ("NOTIFICATION_SERVICE_CLIENT_ID", CLIENT_ID),
                ("SQS_QUEUE_URL", &queue),
            ],
        )?;
        let mut ada = Stream::open(&node, "ada")?;
        send(&mut boto, &queue, "bob", "for bob, who is away")?;
        for body in BODIES {
            send(&mut boto, &queue, "ada", body)?;
            ada.expect(body)?;
        }
        until_true("bob's is in the dead-letter queue", within(90), || {
            Ok(boto.counts(&queue)? == (0, 0) && boto.counts(&dead)?.0 == 1)
        })?;
        let found = boto.drain(&dead)?;
        ensure!(
            found.len() == 1 && found[0]["body"] == "for bob, who is away",
            "{found:?}"
        );
        Ok(())
    })
}
