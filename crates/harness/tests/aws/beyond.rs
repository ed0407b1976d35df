//! What clients and producers of the preset `sqs-long-poll` can have that the service did not give them: the same messages
//! over SSE and WebSocket, with ids and acknowledgements; and an inbox for users who are long away.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use postrider_harness::aws::{Boto, Emulator, environment};
use postrider_harness::http::{Request, once};
use postrider_harness::inbox::{AckMode, Connect, Transport, next_notification};
use postrider_harness::machine::{Need, run};
use postrider_harness::node::{KEY, Node, NodeOptions};
use postrider_harness::token;
use postrider_harness::wait::{until_true, within};
use serde_json::json;

use crate::stream::Stream;

const NEEDS: [Need; 2] = [Need::LocalStack, Need::Moto];
/// How long a message is hidden at a time.
const VISIBILITY: Duration = Duration::from_secs(8);
/// Entries that an inbox keeps.
const KEPT: usize = 5;

fn node(emulator: &Emulator, queue: &str, sets: &[(&str, &str)]) -> Result<Node> {
    let own = [("SQS_QUEUE_URL".to_owned(), queue.to_owned())];
    let own_sets = [("registry.type", "none"), ("sources.instance.visibility", "8s")];
    Node::start_with(NodeOptions {
        env: environment(&emulator.endpoint()).into_iter().chain(own).collect(),
        args: vec!["--preset".to_owned(), "sqs-long-poll".to_owned()],
        ..NodeOptions::sets(&[&own_sets, sets].concat())
    })
}

#[test]
fn a_message_has_an_id_on_every_transport_and_is_deleted_on_the_clients_word() -> Result<()> {
    let name = "a_message_has_an_id_on_every_transport_and_is_deleted_on_the_clients_word";
    run(name, &NEEDS, || {
        let emulator = Emulator::localstack()?;
        let mut boto = Boto::start(&emulator.endpoint())?;
        let queue = boto.queue("notes", json!({}))?;
        let node = node(&emulator, &queue, &[])?;
        let bearer = token::user("ada")?;
        let explicit = Connect::new(&node.endpoint, &bearer).ack(AckMode::Explicit);
        let mut sse = explicit.open(Transport::Sse)?;
        let mut socket = explicit.open(Transport::WebSocket)?;
        let sent = Instant::now();
        let body = r#"{"order": 7,  "lines":[1]}"#;
        boto.send(
            &queue,
            body,
            &[("addressee", "ada"), ("subject", "order shipped")],
        )?;
        let (first, second) = (
            next_notification(&mut *sse, within(90))?,
            next_notification(&mut *socket, within(90))?,
        );
        ensure!(
            first.id == second.id && first.data == body && second.data == body,
            "{first:?} {second:?}"
        );
        ensure!(
            first.subject.as_deref() == Some("order shipped"),
            "{:?}",
            first.subject
        );
        // Longer than its visibility: it is prolonged while the client has not said a word.
        until_true("it was prolonged", within(90), || {
            ensure!(boto.counts(&queue)? == (0, 1), "nobody else may have it");
            Ok(sent.elapsed() > VISIBILITY * 2)
        })?;
        let said = Request::new("POST", "/v1/inbox/ack")
            .bearer(&bearer)
            .body("application/json", json!({"ids": [first.id]}).to_string());
        let answer = once(node.endpoint.addr()?, &said)?;
        ensure!(answer.json()? == json!({"settled": 1}), "{answer:?}");
        until_true("it is deleted", within(90), || Ok(boto.counts(&queue)? == (0, 0)))
    })
}

#[test]
fn who_is_long_away_finds_the_newest_of_them() -> Result<()> {
    run("who_is_long_away_finds_the_newest_of_them", &NEEDS, || {
        let emulator = Emulator::localstack()?;
        let mut boto = Boto::start(&emulator.endpoint())?;
        let (queue, dead) = boto.queue_with_dlq("notes", 2, json!({"VisibilityTimeout": 1}))?;
        let kept = KEPT.to_string();
        let node = node(
            &emulator,
            &queue,
            &[
                ("sources.instance.settle_on", "stored"),
                ("sources.instance.offline", "store"),
                ("retention.entries_per_feed", &kept),
            ],
        )?;
        for nth in 0..12 {
            boto.send(
                &queue,
                &format!("note {nth:02};"),
                &[("addressee", "bob"), ("subject", "s")],
            )?;
            // One after another: a queue that is no FIFO queue has no order of its own.
            until_true("it is stored", within(90), || Ok(boto.counts(&queue)? == (0, 0)))?;
        }
        for score in ["1 : 0", "1 : 1", "2 : 1"] {
            let attributes = [("addressee", "carl"), ("subject", "s"), ("collapse_key", "score")];
            boto.send(&queue, score, &attributes)?;
            until_true("it is stored", within(90), || Ok(boto.counts(&queue)? == (0, 0)))?;
        }
        // What the inbox had no room for is a dead letter, and not lost.
        let asked = Request::new("GET", "/v1/dead-letters?reason=overflow&user=bob").bearer(KEY);
        let page = once(node.endpoint.addr()?, &asked)?.json()?;
        let letters = page["dead_letters"].as_array().context("no dead letters")?;
        ensure!(letters.len() == 12 - KEPT, "{letters:?}");
        let newest: String = (12 - KEPT..12).map(|nth| format!("note {nth:02};")).collect();
        let mut bob = Stream::open(&node, "bob")?;
        bob.expect(&newest)?;
        let mut carl = Stream::open(&node, "carl")?;
        carl.expect("2 : 1")?;
        // Nothing else comes before what comes next.
        for (user, stream) in [("bob", &mut bob), ("carl", &mut carl)] {
            boto.send(&queue, "now", &[("addressee", user), ("subject", "s")])?;
            stream.expect("now")?;
        }
        ensure!(boto.counts(&dead)? == (0, 0), "{:?}", boto.drain(&dead)?);
        Ok(())
    })
}
