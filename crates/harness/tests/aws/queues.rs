//! What becomes of queues around a node of the preset `sqs-long-poll`: the one it made is taken away at a drain only where
//! that loses nothing; a FIFO queue keeps the order of its groups; one that is away is told, and is taken up again.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use postrider_harness::aws::{Boto, Emulator, environment};
use postrider_harness::machine::{Need, run};
use postrider_harness::node::{Node, NodeOptions};
use postrider_harness::wait::{until, until_true, within};
use serde_json::{Value, json};

use crate::stream::Stream;

const NEEDS: [Need; 2] = [Need::LocalStack, Need::Moto];
const DRAIN: Duration = Duration::from_secs(40);

/// A node whose queue is its own; producers read no table.
fn node(emulator: &Emulator, variable: (&str, &str), sets: &[(&str, &str)]) -> Result<Node> {
    let own = [(variable.0.to_owned(), variable.1.to_owned())];
    let quick = [("sources.instance.visibility", "2s"), ("registry.type", "none")];
    Node::start_with(NodeOptions {
        env: environment(&emulator.endpoint()).into_iter().chain(own).collect(),
        args: vec!["--preset".to_owned(), "sqs-long-poll".to_owned()],
        ..NodeOptions::sets(&[&quick, sets].concat())
    })
}

/// The queue whose name begins so, once there is one.
fn named(boto: &mut Boto, prefix: &str) -> Result<Option<String>> {
    let found = boto.call("sqs", "list_queues", json!({"QueueNamePrefix": prefix}))?;
    Ok(found["QueueUrls"][0].as_str().map(str::to_owned))
}

fn made(boto: &mut Boto, prefix: &str) -> Result<String> {
    until("the queue that the node makes", within(90), || {
        named(boto, prefix)
    })
}

fn send(boto: &mut Boto, queue: &str, user: &str, body: &str) -> Result<()> {
    boto.send(queue, body, &[("addressee", user), ("subject", "s")])?;
    Ok(())
}

#[test]
fn a_queue_is_taken_away_only_where_that_loses_nothing() -> Result<()> {
    run(
        "a_queue_is_taken_away_only_where_that_loses_nothing",
        &NEEDS,
        || {
            let emulator = Emulator::localstack()?;
            let mut boto = Boto::start(&emulator.endpoint())?;
            let prefix = |name| ("SQS_QUEUE_NAME_PREFIX", name);

            let mut empty = node(&emulator, prefix("empty"), &[])?;
            made(&mut boto, "empty-")?;
            ensure!(empty.terminate(DRAIN)?.success());
            ensure!(named(&mut boto, "empty-")?.is_none(), "the empty one was left");

            let mut kept = node(&emulator, prefix("kept"), &[("sources.instance.remove", "false")])?;
            made(&mut boto, "kept-")?;
            ensure!(kept.terminate(DRAIN)?.success());
            ensure!(
                named(&mut boto, "kept-")?.is_some(),
                "it was taken away against the option"
            );

            let mut full = node(&emulator, prefix("full"), &[])?;
            let queue = made(&mut boto, "full-")?;
            send(&mut boto, &queue, "ada", "nobody is there")?;
            until_true("it was given back once", within(90), || {
                Ok(full.metric("postrider_source_given_back_total{source=\"instance\"}")? >= 1.0)
            })?;
            ensure!(full.terminate(DRAIN)?.success());
            until_true("what was in it is there", within(90), || {
                Ok(boto.counts(&queue)? == (1, 0))
            })?;
            ensure!(
                full.log().contains("the queue that was made is left"),
                "{}",
                full.log()
            );

            let mut killed = node(&emulator, prefix("killed"), &[])?;
            made(&mut boto, "killed-")?;
            killed.kill9()?;
            ensure!(named(&mut boto, "killed-")?.is_some());

            let queue = boto.queue("given", json!({}))?;
            let mut given = node(&emulator, ("SQS_QUEUE_URL", &queue), &[])?;
            ensure!(given.terminate(DRAIN)?.success());
            ensure!(
                named(&mut boto, "given")?.is_some(),
                "one that it did not make was taken away"
            );
            Ok(())
        },
    )
}

/// In a group of each user's own, with the user's number in the order.
fn notes(numbers: std::ops::Range<usize>, users: &[&str]) -> Vec<Value> {
    let of = |nth: usize, user: &&str| {
        json!({
            "body": body(user, nth), "group": user, "id": format!("{user}-{nth}"),
            "attributes": {"addressee": user, "subject": "s"},
        })
    };
    numbers
        .flat_map(|nth| users.iter().map(move |user| of(nth, user)))
        .collect()
}

fn body(user: &str, nth: usize) -> String {
    format!("{user} {nth:03};")
}

/// They come in this order, each once.
fn expect(stream: &mut Stream, user: &str, numbers: std::ops::Range<usize>) -> Result<()> {
    numbers
        .into_iter()
        .try_for_each(|nth| stream.expect(&body(user, nth)))
}

#[test]
fn a_fifo_queue_keeps_its_groups_in_order_when_one_is_given_back() -> Result<()> {
    run(
        "a_fifo_queue_keeps_its_groups_in_order_when_one_is_given_back",
        &NEEDS,
        || {
            let emulator = Emulator::localstack()?;
            let mut boto = Boto::start(&emulator.endpoint())?;
            let attributes = json!({"FifoQueue": "true", "VisibilityTimeout": 2});
            let queue = boto.queue("notes.fifo", attributes)?;
            let node = node(&emulator, ("SQS_QUEUE_URL", &queue), &[("presence.linger", "0s")])?;
            let mut ada = Stream::open(&node, "ada")?;
            let mut bob = Stream::open(&node, "bob")?;
            boto.send_many(&queue, &notes(0..10, &["ada", "bob"]))?;
            expect(&mut ada, "ada", 0..10)?;
            expect(&mut bob, "bob", 0..10)?;
            until_true("these are settled", within(90), || {
                Ok(boto.counts(&queue)? == (0, 0))
            })?;
            // Bob's group is given back in the middle, over and over; ada's goes on beside it.
            bob.leave();
            until_true("bob is gone", within(90), || Ok(node.metric(SESSIONS)? == 1.0))?;
            let before = node.metric(GIVEN_BACK)?;
            boto.send_many(&queue, &notes(10..20, &["bob", "ada"]))?;
            expect(&mut ada, "ada", 10..20)?;
            until_true("bob's is given back", within(90), || {
                Ok(node.metric(GIVEN_BACK)? >= before + 2.0)
            })?;
            let mut bob = Stream::open(&node, "bob")?;
            boto.send_many(&queue, &notes(20..25, &["bob", "ada"]))?;
            expect(&mut bob, "bob", 10..25)?;
            expect(&mut ada, "ada", 20..25)?;
            until_true("all are deleted", within(90), || {
                Ok(boto.counts(&queue)? == (0, 0))
            })
        },
    )
}

const SESSIONS: &str = "postrider_sessions{transport=\"sse\"}";
const GIVEN_BACK: &str = "postrider_source_given_back_total{source=\"instance\"}";

#[test]
fn a_queue_that_is_away_is_told_and_taken_up_again() -> Result<()> {
    run("a_queue_that_is_away_is_told_and_taken_up_again", &NEEDS, || {
        let mut emulator = Emulator::localstack()?;
        let mut boto = Boto::start(&emulator.endpoint())?;
        let mut node = node(&emulator, ("SQS_QUEUE_NAME_PREFIX", "notify"), &[])?;
        let queue = made(&mut boto, "notify-")?;
        let mut ada = Stream::open(&node, "ada")?;
        send(&mut boto, &queue, "ada", "before")?;
        ada.expect("before")?;
        let awaiting = |node: &Node| -> Result<Value> {
            let (status, told) = node.ready()?;
            ensure!(
                status == 200,
                "no other node would have it better: {status} {told}"
            );
            Ok(told["awaiting"].clone())
        };
        ensure!(awaiting(&node)?.is_null());
        emulator.kill9()?;
        until_true("it is told", within(90), || {
            Ok(awaiting(&node)? == json!(["instance"]))
        })?;
        ensure!(node.metric("postrider_source_ready{source=\"instance\"}")? == 0.0);
        // Its clients notice nothing, and new ones come in.
        let mut also_ada = Stream::open(&node, "ada")?;
        emulator.restart()?;
        // The emulator forgot the queue: the node makes it again.
        let queue = made(&mut boto, "notify-")?;
        until_true("it is told that all is well", within(90), || {
            Ok(awaiting(&node)?.is_null())
        })?;
        send(&mut boto, &queue, "ada", "after")?;
        ada.expect("after")?;
        also_ada.expect("after")?;
        // A drain during an outage ends in its time.
        emulator.kill9()?;
        let status = node
            .terminate(DRAIN)
            .context("the drain of a node whose queue is away")?;
        ensure!(status.success(), "{status}");
        Ok(())
    })
}
