//! The preset `sqs-long-poll` on two nodes over one Redis: one user's streams on both of them, in both modes, while a node
//! is killed. The service that it takes the place of knows one stream of a user.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use postrider_harness::aws::{Boto, Emulator, Postgres, environment};
use postrider_harness::inbox::{AckMode, Connect, Transport, next_notification};
use postrider_harness::machine::{Need, run};
use postrider_harness::node::{Node, NodeOptions};
use postrider_harness::redis::{Server, ServerOptions};
use postrider_harness::token;
use postrider_harness::wait::{until, until_true, within};
use serde_json::{Value, json};

use crate::stream::Stream;

const NEEDS: [Need; 4] = [Need::LocalStack, Need::Moto, Need::Redis, Need::Postgres];
/// Longer than a poll, a visibility and the linger of polling.
const STILL: Duration = Duration::from_secs(8);
/// So many are sent at most before each of two nodes has taken one.
const MOST: usize = 400;
const LENGTH: usize = "note 0000".len();

fn body(nth: usize) -> String {
    format!("note {nth:04}")
}

fn notes(numbers: std::ops::Range<usize>, user: &str) -> Vec<Value> {
    let note = |nth| json!({"body": body(nth), "attributes": {"addressee": user, "subject": "s"}});
    numbers.map(note).collect()
}

fn bodies(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(body).collect()
}

/// A node of the preset over a Redis.
fn node(
    emulator: &Emulator,
    redis: &Server,
    variables: &[(&str, &str)],
    sets: &[(&str, &str)],
) -> Result<Node> {
    let own = variables
        .iter()
        .map(|&(name, text)| (name.to_owned(), text.to_owned()));
    let url = redis.url();
    let engine = [("engine.type", "redis"), ("engine.redis.url", url.as_str())];
    Node::start_with(NodeOptions {
        env: environment(&emulator.endpoint()).into_iter().chain(own).collect(),
        args: vec!["--preset".to_owned(), "sqs-long-poll".to_owned()],
        ..NodeOptions::sets(&[&engine, sets].concat())
    })
}

/// One that takes from its users' queues, of which ada's is this.
fn of_users(emulator: &Emulator, redis: &Server, queue: &str, sets: &[(&str, &str)]) -> Result<Node> {
    let base = queue.strip_suffix("-ada").context("its name")?;
    let variables = [
        ("NOTIFICATION_SERVICE_MODE", "2"),
        ("SQS_USER_QUEUE_BASE_URL", base),
    ];
    let visibility = [("sources.users.visibility", "3s")];
    node(emulator, redis, &variables, &[&visibility, sets].concat())
}

/// What a node has taken from a source.
fn accepted(node: &Node, source: &str) -> Result<f64> {
    node.metric(&format!(
        "postrider_notifications_accepted_total{{source=\"{source}\"}}"
    ))
}

#[test]
fn a_users_queue_feeds_the_users_streams_on_every_node() -> Result<()> {
    run(
        "a_users_queue_feeds_the_users_streams_on_every_node",
        &NEEDS,
        || {
            let (emulator, redis) = (Emulator::localstack()?, Server::start(ServerOptions::default())?);
            let mut boto = Boto::start(&emulator.endpoint())?;
            let queue = boto.queue("user-ada", json!({}))?;
            let start = || of_users(&emulator, &redis, &queue, &[]);
            let (mut one, two) = (start()?, start()?);
            let mut on_one = Stream::open(&one, "ada")?;
            let (mut on_two, mut also_on_two) = (Stream::open(&two, "ada")?, Stream::open(&two, "ada")?);
            // Both nodes take from the queue: who has which of them is SQS' affair.
            let mut sent = 0;
            while sent < 40 || accepted(&one, "users")? == 0.0 || accepted(&two, "users")? == 0.0 {
                ensure!(sent < MOST, "one node took all of {sent}");
                boto.send_many(&queue, &notes(sent..sent + 20, "ada"))?;
                for stream in [&mut on_one, &mut on_two, &mut also_on_two] {
                    let got = stream.bodies(20, LENGTH)?;
                    ensure!(got == bodies(sent..sent + 20), "{got:?}");
                }
                sent += 20;
            }
            until_true("each is deleted", within(90), || {
                Ok(boto.counts(&queue)? == (0, 0))
            })?;
            // The node that has some of them in its hands dies; the other one has them all, each once.
            boto.send_many(&queue, &notes(sent..sent + 20, "ada"))?;
            on_one.take(LENGTH)?;
            one.kill9()?;
            boto.send_many(&queue, &notes(sent + 20..sent + 40, "ada"))?;
            for stream in [&mut on_two, &mut also_on_two] {
                let got = stream.bodies(40, LENGTH)?;
                ensure!(got == bodies(sent..sent + 40), "{got:?}");
            }
            until_true("what the dead node held is deleted as well", within(90), || {
                Ok(boto.counts(&queue)? == (0, 0))
            })?;
            boto.send_many(&queue, &notes(sent + 40..sent + 41, "ada"))?;
            for stream in [&mut on_two, &mut also_on_two] {
                stream.expect(&body(sent + 40))?;
            }
            Ok(())
        },
    )
}

#[test]
fn the_last_session_to_leave_ends_the_polling_and_lets_go() -> Result<()> {
    run(
        "the_last_session_to_leave_ends_the_polling_and_lets_go",
        &NEEDS,
        || {
            let (emulator, redis) = (Emulator::localstack()?, Server::start(ServerOptions::default())?);
            let mut boto = Boto::start(&emulator.endpoint())?;
            let queue = boto.queue("user-ada", json!({}))?;
            let start = || of_users(&emulator, &redis, &queue, &[("sources.users.wait", "2s")]);
            let (one, two) = (start()?, start()?);
            let explicit = |node: &Node| -> Result<_> {
                let connect = Connect::new(&node.endpoint, &token::user("ada")?).ack(AckMode::Explicit);
                connect.open(Transport::Sse)
            };
            let (mut on_one, mut on_two) = (explicit(&one)?, explicit(&two)?);
            boto.send_many(&queue, &notes(0..1, "ada"))?;
            for session in [&mut on_one, &mut on_two] {
                let got = next_notification(&mut **session, within(90))?;
                // As JSON.
                ensure!(got.data == format!("{:?}", body(0)), "{got:?}");
            }
            drop(on_one);
            until_true(
                "it is held: ada is still there, on the other node",
                within(30),
                || Ok(boto.counts(&queue)? == (0, 1)),
            )?;
            drop(on_two);
            // A poll that was under way may bring it once more, and leaves it alone for its visibility.
            let mut since = Instant::now();
            until_true("it is let go, and nobody takes it any more", within(90), || {
                if boto.counts(&queue)? != (1, 0) {
                    since = Instant::now();
                }
                Ok(since.elapsed() > STILL)
            })?;
            // Whoever still polled would have this one at once.
            boto.send_many(&queue, &notes(1..2, "ada"))?;
            let found = boto.drain(&queue)?;
            let receives = |text: String| {
                found
                    .iter()
                    .find(|one| one["body"] == *text)
                    .map(|one| &one["receives"])
            };
            ensure!(
                found.len() == 2 && receives(body(1)) == Some(&json!(1)),
                "{found:?}"
            );
            Ok(())
        },
    )
}

#[test]
fn an_instances_queue_feeds_the_users_streams_on_every_node() -> Result<()> {
    run(
        "an_instances_queue_feeds_the_users_streams_on_every_node",
        &NEEDS,
        || {
            let (emulator, redis) = (Emulator::localstack()?, Server::start(ServerOptions::default())?);
            let postgres = Postgres::start()?;
            let mut boto = Boto::start(&emulator.endpoint())?;
            let (mut one, mut two) = (
                instance(&emulator, &redis, &postgres, &mut boto, IDS[0])?,
                instance(&emulator, &redis, &postgres, &mut boto, IDS[1])?,
            );
            let mut on_one = Stream::open(&one, "ada")?;
            named(&postgres, IDS[0])?;
            let mut on_two = Stream::open(&two, "ada")?;
            named(&postgres, IDS[1])?;
            produce(&mut boto, &postgres, 0..30)?;
            for stream in [&mut on_one, &mut on_two] {
                let got = stream.bodies(30, LENGTH)?;
                ensure!(got == bodies(0..30), "{got:?}");
            }
            // The node that the table names dies with some in its hands. Its row goes to who has the user as well.
            produce(&mut boto, &postgres, 30..40)?;
            on_two.take(LENGTH)?;
            two.kill9()?;
            named(&postgres, IDS[0])?;
            produce(&mut boto, &postgres, 40..50)?;
            // What was in the queue of the dead node is delivered when that is back, to the stream on the other.
            two.restart()?;
            let got = on_one.bodies(20, LENGTH)?;
            ensure!(got == bodies(30..50), "{got:?}");
            for id in IDS {
                let queue = queue_of(&mut boto, id)?;
                until_true("each is deleted", within(90), || {
                    Ok(boto.counts(&queue)? == (0, 0))
                })?;
            }
            // Nobody is named once ada is nowhere.
            on_one.leave();
            let read = "SELECT notifier_instance_id FROM notifier_instances WHERE user_id = 'ada'";
            until_true("the row says nobody", within(90), || {
                Ok(postgres.sql(read)? == [""])
            })?;
            ensure!(one.terminate(Duration::from_secs(40))?.success());
            Ok(())
        },
    )
}

/// Who the instances are, and whose queues.
const IDS: [&str; 2] = [
    "f0c7b6c1-3a67-4d9b-9e36-6f4e5a3a1b11",
    "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed",
];

fn queue_of(boto: &mut Boto, id: &str) -> Result<String> {
    boto.queue(&format!("notify-{id}"), json!({}))
}

fn instance(
    emulator: &Emulator,
    redis: &Server,
    postgres: &Postgres,
    boto: &mut Boto,
    id: &str,
) -> Result<Node> {
    let queue = queue_of(boto, id)?;
    let port = postgres.addr().port().to_string();
    let variables = [
        ("NOTIFICATION_SERVICE_MODE", "0"),
        ("NOTIFICATION_SERVICE_CLIENT_ID", id),
        ("SQS_QUEUE_URL", queue.as_str()),
        ("DB_HOST", "127.0.0.1"),
    ];
    let sets = [
        ("sources.instance.visibility", "3s"),
        ("registry.port", port.as_str()),
        ("registry.create", "true"),
        ("registry.lease", "5s"),
    ];
    node(emulator, redis, &variables, &sets)
}

/// The row of ada's, as a producer reads it.
fn row(postgres: &Postgres) -> Result<Option<String>> {
    let read = "SELECT notifier_instance_id FROM notifier_instances WHERE user_id = 'ada'";
    let row = postgres.sql(read)?.into_iter().next();
    Ok(row.filter(|id| !id.is_empty()))
}

fn named(postgres: &Postgres, id: &str) -> Result<()> {
    let what = format!("the row names {id}");
    until_true(&what, within(90), || Ok(row(postgres)?.as_deref() == Some(id)))
}

/// Sends to the queue that the table names, as a producer of the service does.
fn produce(boto: &mut Boto, postgres: &Postgres, numbers: std::ops::Range<usize>) -> Result<()> {
    let id = until("a row that names an instance", within(90), || row(postgres))?;
    let queue = queue_of(boto, &id)?;
    boto.send_many(&queue, &notes(numbers, "ada"))
}
