//! The preset `apigw-pusher` behind a topic: SNS hands a request to SQS with and without raw delivery, on LocalStack, while
//! the table of connections is in moto: two emulators by different people.

use anyhow::{Result, ensure};
use postrider_harness::aws::{ApiGateway, Boto, Emulator, environment};
use postrider_harness::machine::{Need, run};
use postrider_harness::node::{Node, NodeOptions};
use postrider_harness::wait::{until_true, within};
use serde_json::json;

const TABLE: &str = "connections";

#[test]
fn a_topic_reaches_connections_raw_or_not() -> Result<()> {
    run(
        "a_topic_reaches_connections_raw_or_not",
        &[Need::LocalStack, Need::Moto],
        || {
            let (queues, tables) = (Emulator::localstack()?, Emulator::moto()?);
            let mut boto = Boto::start(&queues.endpoint())?;
            let mut boto_of_tables = Boto::start(&tables.endpoint())?;
            boto_of_tables.connections_table(TABLE)?;
            let rows = [("ada", "a1="), ("ada", "a2="), ("bob", "b1="), ("eve", "gone=")];
            let rows = rows.map(|(user, connection)| (user.to_owned(), connection.to_owned()));
            boto_of_tables.put_connections(TABLE, &rows)?;
            let stage = ApiGateway::start()?;
            stage.connect(["a1=", "a2=", "b1="]);
            let topic = boto.topic("requests")?;
            for is_raw in [true, false] {
                let queue = boto.queue(&format!("requests-{is_raw}"), json!({}))?;
                boto.subscribe(&topic, &queue, is_raw)?;
            }
            for is_raw in [true, false] {
                let queue = boto.queue(&format!("requests-{is_raw}"), json!({}))?;
                let mut env = environment(&queues.endpoint());
                env.push(("AWS_ENDPOINT_URL_DYNAMODB".into(), tables.endpoint()));
                env.push(("APIGW_ENDPOINT".into(), stage.endpoint()));
                env.push(("CONNECTIONS_TABLE_NAME".into(), TABLE.into()));
                env.push(("SQS_QUEUE_URL".into(), queue.clone()));
                let _node = Node::start_with(NodeOptions {
                    env,
                    args: vec!["--preset".into(), "apigw-pusher".into()],
                    ..NodeOptions::sets(&[("sources.requests.wait", "1s")])
                })?;
                let word = format!("\"raw {is_raw}\"");
                let data = format!("raw {is_raw}");
                let many = json!({"users": ["ada", "ada", "eve"], "data": data.clone()});
                boto.publish(&topic, &many.to_string())?;
                boto.publish(
                    &topic,
                    &json!({"exclude_users": ["ada"], "data": data}).to_string(),
                )?;
                let times = |id: &str| {
                    stage
                        .received(id)
                        .iter()
                        .filter(|body| **body == word.as_bytes())
                        .count()
                };
                until_true("all pushed", within(90), || {
                    Ok(["a1=", "a2=", "b1="].iter().all(|id| times(id) >= 1)
                        && boto.counts(&queue)? == (0, 0))
                })?;
                ensure!(
                    ["a1=", "a2=", "b1="].iter().all(|id| times(id) == 1),
                    "{:?}",
                    stage.taken()
                );
                until_true(
                    "the row of the connection that is gone to be deleted",
                    within(90),
                    || {
                        Ok(!boto_of_tables
                            .connections(TABLE)?
                            .iter()
                            .any(|(user, _)| user == "eve"))
                    },
                )?;
            }
            ensure!(
                stage.answers().get(&410).is_some_and(|gone| *gone >= 1),
                "{:?}",
                stage.answers()
            );
            ensure!(stage.forbidden().is_empty(), "{:?}", stage.forbidden());
            Ok(())
        },
    )
}
