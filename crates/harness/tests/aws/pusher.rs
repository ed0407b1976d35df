//! The preset `apigw-pusher`: requests from SQS and SNS to the connections of an API Gateway, which a table lists.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use postrider_harness::aws::{ApiGateway, Boto, Emulator, Mood, environment};
use postrider_harness::http::{Request, once};
use postrider_harness::machine::{Need, run};
use postrider_harness::node::{KEY, Node, NodeOptions};
use postrider_harness::wait::{until_true, within};
use serde_json::{Value, json};

const TABLE: &str = "connections";
/// Rows of the table: users `u0`, `u1` … with three connections each.
const ROWS: usize = 90;
const EACH: usize = 3;

/// A queue, a table, a stage, and a node between them.
struct Lab {
    _emulator: Emulator,
    boto: Boto,
    stage: ApiGateway,
    node: Node,
    queue: String,
}

impl Lab {
    fn start(more: &[(&str, &str)]) -> Result<Lab> {
        let emulator = Emulator::moto()?;
        let mut boto = Boto::start(&emulator.endpoint())?;
        let queue = boto.queue("requests", json!({"VisibilityTimeout": 5}))?;
        boto.connections_table(TABLE)?;
        boto.put_connections(TABLE, &rows().collect::<Vec<_>>())?;
        let stage = ApiGateway::start()?;
        stage.connect(rows().map(|(_, connection)| connection));
        let mut env = environment(&emulator.endpoint());
        env.push(("APIGW_ENDPOINT".into(), stage.endpoint()));
        env.push(("CONNECTIONS_TABLE_NAME".into(), TABLE.into()));
        env.push(("SQS_QUEUE_URL".into(), queue.clone()));
        let quick = [
            ("sources.requests.wait", "1s"),
            // Nothing comes again because a machine is slow.
            ("sources.requests.visibility", "30s"),
            ("channels.push.page", "10"),
        ];
        let node = Node::start_with(NodeOptions {
            env,
            args: vec!["--preset".into(), "apigw-pusher".into()],
            ..NodeOptions::sets(&[&quick, more].concat())
        })?;
        Ok(Lab {
            _emulator: emulator,
            boto,
            stage,
            node,
            queue,
        })
    }

    fn send(&mut self, request: &Value) -> Result<()> {
        self.boto.send(&self.queue, &request.to_string(), &[])?;
        Ok(())
    }

    /// Waits until so many messages are settled in the end.
    fn settled(&mut self, records: f64) -> Result<()> {
        until_true("all settled", within(90), || {
            let sample = "postrider_channel_records_total{channel=\"push\"}";
            Ok(self.node.metric(sample)? >= records && self.boto.counts(&self.queue)? == (0, 0))
        })
    }

    fn dead_letters(&self) -> Result<Vec<Value>> {
        let request = Request::new("GET", "/v1/dead-letters").bearer(KEY);
        let page: Value = once(self.node.endpoint.addr()?, &request)?.json()?;
        let letters = page["dead_letters"].as_array().cloned();
        letters.context("no page of dead letters")
    }
}

fn rows() -> impl Iterator<Item = (String, String)> {
    (0..ROWS).map(|n| (format!("u{}", n / EACH), format!("c{n}=")))
}

/// Those who got something, each as often as it did.
fn got(stage: &ApiGateway, body: &str) -> Vec<String> {
    let posted = stage.taken().into_iter();
    let mut ids: Vec<_> = posted
        .filter(|one| one.body == body.as_bytes())
        .map(|one| one.connection)
        .collect();
    ids.sort();
    ids
}

fn of_users(users: &[usize]) -> Vec<String> {
    let ids = rows().filter(|(user, _)| users.iter().any(|n| *user == format!("u{n}")));
    let ids: BTreeSet<_> = ids.map(|(_, id)| id).collect();
    ids.into_iter().collect()
}

#[test]
fn to_some_and_to_everyone_once_each() -> Result<()> {
    run("to_some_and_to_everyone_once_each", &[Need::Moto], || {
        let mut lab = Lab::start(&[])?;
        lab.send(&json!({"users": ["u1", "u2", "u1", "nobody"], "data": {"some": 1}}))?;
        lab.send(&json!({"users": [], "exclude_users": ["u3", "u3"], "data": "all"}))?;
        lab.send(&json!({"users": ["u4", "u5"], "exclude_users": ["u5"], "data": [1]}))?;
        let topic = lab.boto.topic("requests")?;
        let queue = lab.queue.clone();
        lab.boto.subscribe(&topic, &queue, false)?;
        let request = json!({"users": ["u6"], "data": "in an envelope"});
        lab.boto.publish(&topic, &request.to_string())?;
        lab.settled(4.0)?;
        ensure!(got(&lab.stage, r#"{"some":1}"#) == of_users(&[1, 2]));
        let all: Vec<usize> = (0..ROWS / EACH).filter(|n| *n != 3).collect();
        ensure!(got(&lab.stage, "\"all\"") == of_users(&all));
        ensure!(got(&lab.stage, "[1]") == of_users(&[4]));
        ensure!(got(&lab.stage, "\"in an envelope\"") == of_users(&[6]));
        ensure!(lab.stage.forbidden().is_empty(), "{:?}", lab.stage.forbidden());
        ensure!(lab.dead_letters()?.is_empty());
        until_true("statistics", within(30), || {
            Ok(lab.node.log().contains("a batch was pushed"))
        })
    })
}

#[test]
fn one_connection_harms_no_other() -> Result<()> {
    run("one_connection_harms_no_other", &[Need::Moto], || {
        let mut lab = Lab::start(&[("channels.push.attempts", "3"), ("channels.push.backoff", "10ms")])?;
        for gone in 0..40 {
            lab.stage.disconnect(&format!("c{gone}="));
        }
        lab.stage.plan("c50=", [Mood::Throttles, Mood::Fair]);
        lab.stage.plan("c51=", [Mood::Fails(503), Mood::Fair]);
        lab.stage.plan("c52=", [Mood::Fails(500); 3]);
        lab.send(&json!({"data": "x"}))?;
        lab.boto.send(&lab.queue, "no JSON", &[])?;
        lab.settled(1.0)?;
        let expected: BTreeSet<_> = (40..ROWS)
            .filter(|n| *n != 52)
            .map(|n| format!("c{n}="))
            .collect();
        ensure!(got(&lab.stage, "\"x\"") == expected.into_iter().collect::<Vec<_>>());
        let left: Vec<_> = lab.boto.connections(TABLE)?;
        ensure!(left.len() == ROWS - 40, "{} rows are left", left.len());
        let letters = lab.dead_letters()?;
        let detail = |text: &str| {
            let found = letters
                .iter()
                .find(|one| one["detail"].as_str().is_some_and(|detail| detail.contains(text)));
            found.with_context(|| format!("no dead letter with {text}: {letters:?}"))
        };
        ensure!(letters.len() == 2, "{letters:?}");
        let of_connection = detail("connection c52=: HTTP 500")?;
        ensure!(of_connection["attempts"] == 3 && of_connection["user"] == "u17");
        ensure!(of_connection["reason"] == "max_attempts");
        ensure!(detail("it is not valid JSON")?["reason"] == "undecodable");
        let struck = lab
            .node
            .metric("postrider_channel_struck_total{channel=\"push\"}")?;
        ensure!(struck == 40.0, "{struck} were struck off");
        Ok(())
    })
}

#[test]
fn a_payload_that_is_too_large_is_refused_by_its_size() -> Result<()> {
    run(
        "a_payload_that_is_too_large_is_refused_by_its_size",
        &[Need::Moto],
        || {
            let mut lab = Lab::start(&[])?;
            let of = |bytes: usize| "a".repeat(bytes - 2);
            lab.send(&json!({"users": ["u0"], "data": of(128 << 10)}))?;
            lab.send(&json!({"users": ["u0"], "data": of((128 << 10) + 1)}))?;
            lab.settled(1.0)?;
            ensure!(lab.stage.received("c0=").len() == 1);
            let letters = lab.dead_letters()?;
            ensure!(letters.len() == 1, "{letters:?}");
            let detail = letters[0]["detail"].as_str().unwrap_or_default();
            ensure!(
                detail.contains("131073 bytes; the channel takes at most 131072"),
                "{detail}"
            );
            Ok(())
        },
    )
}

#[test]
fn an_outage_is_waited_for_and_seen() -> Result<()> {
    run("an_outage_is_waited_for_and_seen", &[Need::Moto], || {
        let mut lab = Lab::start(&[("channels.push.backoff_max", "200ms")])?;
        lab.stage.every(1, Mood::Forbids);
        lab.send(&json!({"users": ["u0"], "data": "later"}))?;
        until_true("the node says what it waits for", within(90), || {
            Ok(lab.node.ready()?.1["awaiting"] == json!(["push"]))
        })?;
        until_true("the message is held", within(30), || {
            Ok(lab.boto.counts(&lab.queue)? == (0, 1))
        })?;
        lab.stage.every(0, Mood::Fair);
        lab.settled(1.0)?;
        ensure!(got(&lab.stage, "\"later\"") == of_users(&[0]));
        ensure!(lab.node.ready()?.1.get("awaiting").is_none());
        ensure!(lab.dead_letters()?.is_empty());
        Ok(())
    })
}

#[test]
fn a_crash_in_the_middle_repeats_the_push() -> Result<()> {
    run("a_crash_in_the_middle_repeats_the_push", &[Need::Moto], || {
        let mut lab = Lab::start(&[("sources.requests.visibility", "2s")])?;
        lab.stage
            .plan("c0=", [Mood::Tarries(std::time::Duration::from_secs(12))]);
        lab.send(&json!({"users": ["u0"], "data": "again"}))?;
        until_true("the others have it", within(90), || {
            Ok(got(&lab.stage, "\"again\"").len() >= EACH - 1)
        })?;
        lab.node.kill9()?;
        lab.node.restart()?;
        until_true("all settled", within(90), || {
            Ok(lab.boto.counts(&lab.queue)? == (0, 0))
        })?;
        let all: BTreeSet<_> = got(&lab.stage, "\"again\"").into_iter().collect();
        ensure!(all.into_iter().collect::<Vec<_>>() == of_users(&[0]));
        Ok(())
    })
}
