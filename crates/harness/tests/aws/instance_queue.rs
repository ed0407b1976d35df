//! The preset `sqs-long-poll` with a queue for the instance: the queue that the node makes and takes away again, and a crowd
//! of messages of which some are for nobody and some are broken: each ends where it must, and none of another's.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use postrider_harness::aws::{Boto, Emulator, environment};
use postrider_harness::http::{Request, once};
use postrider_harness::machine::{Need, run};
use postrider_harness::node::{KEY, Node, NodeOptions};
use postrider_harness::wait::{until, until_true, within};
use serde_json::{Value, json};

use crate::stream::Stream;

const NEEDS: [Need; 2] = [Need::LocalStack, Need::Moto];
const FOR_ADA: usize = 60;
const FOR_NOBODY: usize = 4;

fn node(emulator: &Emulator, variable: (&str, &str)) -> Result<Node> {
    let own = [(variable.0.to_owned(), variable.1.to_owned())];
    Node::start_with(NodeOptions {
        env: environment(&emulator.endpoint()).into_iter().chain(own).collect(),
        args: vec!["--preset".to_owned(), "sqs-long-poll".to_owned()],
        // Nothing falls to the dead-letter queue because a machine is slow.
        ..NodeOptions::sets(&[("sources.instance.visibility", "15s")])
    })
}

#[test]
fn the_queue_of_an_instance_is_made_and_taken_away() -> Result<()> {
    run("the_queue_of_an_instance_is_made_and_taken_away", &NEEDS, || {
        let emulator = Emulator::localstack()?;
        let mut boto = Boto::start(&emulator.endpoint())?;
        let mut node = node(&emulator, ("SQS_QUEUE_NAME_PREFIX", "notes"))?;
        let named = |boto: &mut Boto| -> Result<Option<String>> {
            let found = boto.call("sqs", "list_queues", json!({"QueueNamePrefix": "notes-"}))?;
            Ok(found["QueueUrls"][0].as_str().map(str::to_owned))
        };
        let queue = until("the queue", within(90), || named(&mut boto))?;
        let asked = json!({"QueueUrl": queue, "AttributeNames": ["ReceiveMessageWaitTimeSeconds"]});
        let said = boto.call("sqs", "get_queue_attributes", asked)?;
        ensure!(
            said["Attributes"]["ReceiveMessageWaitTimeSeconds"] == "20",
            "{said}"
        );
        let mut ada = Stream::open(&node, "ada")?;
        let large = format!("{{\"pad\":\"{}\"}}", "é".repeat(100_000));
        for body in ["plain, 漢字 \u{1F4E8}", "data: not an event\n\n", &large] {
            boto.send(&queue, body, &[("addressee", "ada"), ("subject", "s")])?;
            ada.expect(body)?;
        }
        until_true("all deleted", within(90), || Ok(boto.counts(&queue)? == (0, 0)))?;
        let status = node.terminate(Duration::from_secs(40))?;
        ensure!(status.success(), "{status}");
        ensure!(named(&mut boto)?.is_none(), "the queue was left behind");
        Ok(())
    })
}

#[test]
fn each_of_a_crowd_ends_where_it_must() -> Result<()> {
    run("each_of_a_crowd_ends_where_it_must", &NEEDS, || {
        let emulator = Emulator::localstack()?;
        let mut boto = Boto::start(&emulator.endpoint())?;
        let (queue, dead) = boto.queue_with_dlq("notes", 2, json!({"VisibilityTimeout": 2}))?;
        let node = node(&emulator, ("SQS_QUEUE_URL", &queue))?;
        let mut ada = Stream::open(&node, "ada")?;
        boto.send_many(&queue, &crowd())?;
        let text = ada.take(FOR_ADA * body(0).len())?;
        let mut fell = Vec::new();
        until_true("the dead-letter queue", within(90), || {
            fell.extend(boto.drain(&dead)?);
            Ok(fell.len() >= FOR_NOBODY && boto.counts(&queue)? == (0, 0))
        })?;
        let is_nobodys = |one: &Value| one["attributes"]["addressee"] == "nobody";
        ensure!(
            fell.len() == FOR_NOBODY && fell.iter().all(is_nobodys),
            "{fell:?}"
        );
        ensure!(
            text.len() == FOR_ADA * body(0).len() && (0..FOR_ADA).all(|nth| text.contains(&body(nth))),
            "{text}"
        );
        let asked = Request::new("GET", "/v1/dead-letters").bearer(KEY);
        let letters = once(node.endpoint.addr()?, &asked)?.json()?["dead_letters"].take();
        let letters = letters.as_array().context("no list")?;
        ensure!(
            letters.len() == 2 && letters.iter().all(|one| one["reason"] == "undecodable"),
            "{letters:?}"
        );
        Ok(())
    })
}

fn body(nth: usize) -> String {
    format!("note {nth:04}")
}

/// Ten at a time: some batches have what is for nobody, two have what is broken.
fn crowd() -> Vec<Value> {
    let note = |nth: usize, user: &str| json!({"body": body(nth), "attributes": {"addressee": user, "subject": "s"}});
    let mut crowd: Vec<Value> = (0..FOR_ADA).map(|nth| note(nth, "ada")).collect();
    for nth in 0..FOR_NOBODY {
        crowd.insert(nth * 7, note(1000 + nth, "nobody"));
    }
    crowd.insert(
        5,
        json!({"body": "no subject", "attributes": {"addressee": "ada"}}),
    );
    crowd.insert(
        23,
        json!({"body": "no addressee", "attributes": {"subject": "s"}}),
    );
    crowd
}
