//! Whether the emulators and stand-ins do what the other tests take for granted.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use postrider_harness::aws::{ApiGateway, Boto, Emulator, Fault, Mood, Postgres, Refusal, Trouble};
use postrider_harness::machine::{Need, run};
use postrider_harness::tls::Authority;
use postrider_harness::wait::{until_true, within};
use serde_json::{Value, json};

#[test]
fn localstack_keeps_the_rules_of_sqs() -> Result<()> {
    run(
        "localstack_keeps_the_rules_of_sqs",
        &[Need::LocalStack, Need::Moto],
        || queues(&mut Emulator::localstack()?),
    )
}

#[test]
fn moto_keeps_the_rules_of_sqs() -> Result<()> {
    run("moto_keeps_the_rules_of_sqs", &[Need::Moto], || {
        queues(&mut Emulator::moto()?)
    })
}

/// What is received too often goes to the dead-letter queue; a pause loses nothing; a crash loses all.
fn queues(emulator: &mut Emulator) -> Result<()> {
    let mut boto = Boto::start(&emulator.endpoint())?;
    let (queue, dead) = boto.queue_with_dlq("q", 1, json!({"VisibilityTimeout": 0}))?;
    ensure!(queue.starts_with(&emulator.endpoint()), "{queue}");
    boto.send(&queue, "hello", &[("addressee", "ada"), ("subject", "s")])?;
    let many: Vec<Value> = (0..25)
        .map(|n| json!({"body": format!("{n}"), "attributes": {"n": "x"}}))
        .collect();
    boto.send_many(&queue, &many)?;
    ensure!(boto.counts(&queue)?.0 == 26);
    emulator.pause()?;
    emulator.resume()?;
    until_true("all in the dead-letter queue", within(90), || {
        let receive = json!({"QueueUrl": queue, "MaxNumberOfMessages": 10, "WaitTimeSeconds": 0});
        boto.call("sqs", "receive_message", receive)?;
        Ok(boto.counts(&dead)?.0 == 26)
    })?;
    let found = boto.drain(&dead)?;
    let hello = found.iter().find(|one| one["body"] == "hello");
    ensure!(hello.is_some_and(|one| one["attributes"] == json!({"addressee": "ada", "subject": "s"})));
    emulator.kill9()?;
    emulator.restart()?;
    let gone = boto.send(&queue, "nobody", &[]).unwrap_err();
    ensure!(
        gone.downcast_ref::<Refusal>()
            .is_some_and(|no| no.code.contains("NonExistentQueue")),
        "{gone:#}"
    );
    Ok(())
}

#[test]
fn localstack_hands_on_what_a_topic_gets() -> Result<()> {
    run(
        "localstack_hands_on_what_a_topic_gets",
        &[Need::LocalStack, Need::Moto],
        || {
            let emulator = Emulator::localstack()?;
            let mut boto = Boto::start(&emulator.endpoint())?;
            let topic = boto.topic("t")?;
            for is_raw in [true, false] {
                let queue = boto.queue(&format!("raw-{is_raw}"), json!({}))?;
                boto.subscribe(&topic, &queue, is_raw)?;
            }
            boto.publish(&topic, "{\"a\":1}")?;
            for is_raw in [true, false] {
                let queue = boto.queue(&format!("raw-{is_raw}"), json!({}))?;
                let mut found = Vec::new();
                until_true("a message", within(90), || {
                    found.extend(boto.drain(&queue)?);
                    Ok(!found.is_empty())
                })?;
                let body = found[0]["body"].as_str().unwrap_or_default();
                match is_raw {
                    true => ensure!(body == "{\"a\":1}"),
                    false => ensure!(serde_json::from_str::<Value>(body)?["Message"] == "{\"a\":1}"),
                }
            }
            Ok(())
        },
    )
}

#[test]
fn localstack_keeps_the_order_of_a_group() -> Result<()> {
    run(
        "localstack_keeps_the_order_of_a_group",
        &[Need::LocalStack, Need::Moto],
        || {
            let emulator = Emulator::localstack()?;
            let mut boto = Boto::start(&emulator.endpoint())?;
            let (queue, _dead) = boto.queue_with_dlq("q.fifo", 3, json!({}))?;
            for n in 0..5 {
                boto.send_fifo(&queue, "g", &format!("id-{n}"), &n.to_string(), "ada")?;
            }
            let bodies: Vec<String> = boto
                .drain(&queue)?
                .iter()
                .map(|one| one["body"].to_string())
                .collect();
            ensure!(
                bodies == (0..5).map(|n| format!("\"{n}\"")).collect::<Vec<_>>(),
                "{bodies:?}"
            );
            Ok(())
        },
    )
}

#[test]
fn moto_has_the_table_of_connections() -> Result<()> {
    run("moto_has_the_table_of_connections", &[Need::Moto], || {
        let emulator = Emulator::moto()?;
        let mut boto = Boto::start(&emulator.endpoint())?;
        boto.connections_table("c")?;
        let mut rows: Vec<_> = (0..60)
            .map(|n| (format!("u{}", n % 7), format!("c{n}=")))
            .collect();
        boto.put_connections("c", &rows)?;
        let mut found = boto.connections("c")?;
        rows.sort();
        found.sort();
        ensure!(found == rows);
        Ok(())
    })
}

#[test]
fn postgres_keeps_its_rows_and_speaks_tls() -> Result<()> {
    run(
        "postgres_keeps_its_rows_and_speaks_tls",
        &[Need::Postgres],
        || {
            let authority = Authority::new()?;
            for mut postgres in [Postgres::start()?, Postgres::with_tls(&authority)?] {
                postgres
                    .sql("CREATE TABLE t (a text, b text); INSERT INTO t VALUES ('x', NULL), ('y', 'z')")?;
                postgres.stop()?;
                ensure!(postgres.sql("SELECT 1").is_err());
                postgres.restart()?;
                ensure!(postgres.sql("SELECT a, b FROM t ORDER BY a")? == ["x|", "y|z"]);
            }
            Ok(())
        },
    )
}

#[test]
fn the_api_gateway_takes_what_boto3_signed_and_nothing_else() -> Result<()> {
    run(
        "the_api_gateway_takes_what_boto3_signed_and_nothing_else",
        &[Need::Moto],
        || {
            let gateway = ApiGateway::start()?;
            // Ids of the service end like this one.
            let id = "L0SM9cOFvHcCIhw=";
            gateway.connect([id]);
            let mut boto = Boto::start(&gateway.endpoint())?;
            let post = |boto: &mut Boto, id: &str, text: &str| {
                let arguments = json!({"ConnectionId": id, "Data": text});
                boto.call("apigatewaymanagementapi", "post_to_connection", arguments)
            };
            post(&mut boto, id, "one")?;
            post(&mut boto, id, "two")?;
            ensure!(gateway.received(id) == [b"one", b"two"]);
            ensure!(gateway.tcp_connections() == 1, "boto3 keeps its connection");
            let code = |refused: Result<Value>| -> Result<String> {
                Ok(refused.unwrap_err().downcast::<Refusal>()?.code)
            };
            ensure!(code(post(&mut boto, "gone=", "three"))? == "GoneException");
            ensure!(code(post(&mut boto, id, &"x".repeat(128 << 10 | 1)))? == "PayloadTooLargeException");
            gateway.plan(id, [Mood::Forbids]);
            ensure!(code(post(&mut boto, id, "x"))? == "ForbiddenException");
            // These boto3 tries again by itself, and then they are taken.
            for mood in [Mood::Throttles, Mood::Fails(503), Mood::Resets] {
                gateway.plan(id, [mood]);
                post(&mut boto, id, "late")?;
            }
            let answers = gateway.answers();
            ensure!(
                [0, 429, 503].iter().all(|status| answers.get(status) == Some(&1)),
                "{answers:?}"
            );
            let begun = Instant::now();
            gateway.plan(id, [Mood::Tarries(Duration::from_millis(200))]);
            post(&mut boto, id, "later")?;
            ensure!(begun.elapsed() >= Duration::from_millis(200));
            let mut forger = Boto::with_secret(&gateway.endpoint(), "guessed")?;
            ensure!(code(post(&mut forger, id, "forged"))? == "InvalidSignatureException");
            ensure!(gateway.received(id).len() == 6 && gateway.forbidden().len() == 1);
            Ok(())
        },
    )
}

#[test]
fn trouble_does_what_it_says_and_no_more() -> Result<()> {
    run("trouble_does_what_it_says_and_no_more", &[Need::Moto], || {
        let emulator = Emulator::moto()?;
        let trouble = Trouble::before(emulator.addr())?;
        let mut straight = Boto::start(&emulator.endpoint())?;
        let mut boto = Boto::start(&trouble.endpoint())?;
        let queue = straight.queue("q", json!({"VisibilityTimeout": 30}))?;
        trouble.every(1, Some("SendMessage"), Fault::LosesAnswers);
        let lost = boto.send(&queue, "sent more than once", &[]);
        ensure!(
            lost.is_err() && straight.counts(&queue)?.0 > 1,
            "it was done each time it was tried"
        );
        trouble.clear();
        straight.drain(&queue)?;
        trouble.every(1, Some("SendMessage"), Fault::Throttles);
        let refusal = boto.send(&queue, "x", &[]).unwrap_err().downcast::<Refusal>()?;
        ensure!(refusal.code == "ThrottlingException" && straight.counts(&queue)?.0 == 0);
        trouble.clear();
        let entries: Vec<Value> = (0..9)
            .map(|n| json!({"Id": format!("{n}"), "MessageBody": "x"}))
            .collect();
        trouble.every(1, None, Fault::DoesBatchesInPart);
        let arguments = json!({"QueueUrl": queue, "Entries": entries});
        let answer = boto.call("sqs", "send_message_batch", arguments)?;
        ensure!(answer["Failed"].as_array().map(Vec::len) == Some(3), "{answer}");
        ensure!(
            answer["Successful"].as_array().map(Vec::len) == Some(6),
            "{answer}"
        );
        ensure!(straight.counts(&queue)?.0 == 6);
        ensure!(trouble.met().values().sum::<u64>() > 2, "{:?}", trouble.met());
        Ok(())
    })
}
