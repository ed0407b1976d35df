//! One server.

use super::*;
use crate::redis::testing::{Server, has_redis};

const WAIT: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_answered_in_the_order_asked_over_two_connections() {
    if !has_redis("links: single server") {
        return;
    }
    let server = Server::start();
    let links = open(&server.url(), WAIT).await;
    let mut calls = Vec::new();
    for number in 1..=1_000 {
        calls.push(add(Cell(number as u8 % CELLS), number));
        calls.push(get(Cell(number as u8 % CELLS)));
    }
    let answers = links.call(calls).await;
    let mut sums = vec![0; usize::from(CELLS)];
    for (number, pair) in (1..=1_000_i64).zip(answers.chunks(2)) {
        let sum = &mut sums[number as usize % usize::from(CELLS)];
        *sum += number;
        assert_eq!(pair, [Ok(Value::Int(*sum)), Ok(value(&sum.to_string()))]);
    }
    assert_eq!(links.connections(), 2);
    let ours = |list: &str| {
        list.lines()
            .filter(|line| line.contains("name=postrider-test"))
            .count()
    };
    wait_until("both connections are there", || {
        match server.ask_line("CLIENT LIST") {
            Value::BulkString(list) => ours(&String::from_utf8_lossy(&list)) == 2,
            other => panic!("{other:?}"),
        }
    });
    assert_eq!(links.state().round_trips, 1);
    assert_eq!(
        one(
            &links,
            Call {
                function: "plt_fail",
                ..add(Cell(0), 1)
            }
        )
        .await,
        Err(LinkFault::Refused {
            code: "NOPE".into(),
            detail: "it is so".into(),
        })
    );
    links.close().await;
    assert_eq!(one(&links, get(Cell(0))).await, Err(LinkFault::Closed));
    wait_until("both connections are gone", || {
        match server.ask_line("CLIENT LIST") {
            Value::BulkString(list) => ours(&String::from_utf8_lossy(&list)) == 0,
            other => panic!("{other:?}"),
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lost_the_functions_gets_them_again() {
    if !has_redis("links: functions") {
        return;
    }
    let server = Server::start();
    let links = open(&server.url(), WAIT).await;
    server.ask_line("FUNCTION FLUSH SYNC");
    let answers = links
        .call(vec![add(Cell(1), 2), get(Cell(1)), add(Cell(1), 3)])
        .await;
    // None of them ran before, and those that are asked again keep their order.
    assert_eq!(answers, [Ok(Value::Int(2)), Ok(value("2")), Ok(Value::Int(5))]);
    // Another text under the name is replaced when a node connects; a second node with the same text writes nothing.
    let old = "#!lua name=plt\nredis.register_function('plt_add', function() return 'old' end)";
    server.ask(redis::cmd("FUNCTION").arg("LOAD").arg("REPLACE").arg(old));
    let second = open(&server.url(), WAIT).await;
    assert_eq!(one(&second, add(Cell(1), 1)).await, Ok(Value::Int(6)));
    let none = Links::open(LinkOptions::new(server.url(), "doctor"), "")
        .await
        .expect("nothing is loaded");
    assert_eq!(
        none.command(Cell(0), redis::cmd("PING")).await,
        Ok(Value::SimpleString("PONG".into()))
    );
    assert!(matches!(
        Links::open(LinkOptions::new(server.url(), "x"), "redis").await,
        Err(LinkFault::Unfit(_))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_channels_are_few_commands() {
    if !has_redis("links: subscriptions") {
        return;
    }
    let server = Server::start();
    let links = open(&server.url(), WAIT).await;
    let heard = Heard::by(&links);
    let channels: Vec<(Cell, Vec<u8>)> = (0..5_000_u32)
        .map(|number| {
            (
                Cell(number as u8 % CELLS),
                Cell(number as u8 % CELLS).key(&format!("c{number}")),
            )
        })
        .collect();
    let names: Vec<Vec<u8>> = channels.iter().map(|(_, name)| name.clone()).collect();
    assert!(links.subscribed(&names[..1]).await.is_err(), "nobody subscribed");
    for (cell, name) in &channels {
        links.subscribe(*cell, name.clone());
    }
    links.subscribed(&names).await.expect("confirmed");
    assert_eq!(links.state().channels, 5_000);
    let (cell, name) = &channels[4_321];
    assert_eq!(one(&links, tell(*cell, name, "hello")).await, Ok(Value::Int(1)));
    heard.until("the message", |heard| heard.has("hello")).await;
    assert_eq!(heard.all(), [News::Message(name.clone(), "hello".into())]);
    for (cell, name) in &channels[1..] {
        links.unsubscribe(*cell, name.clone());
    }
    until("all but one are let go", || links.state().channels == 1).await;
    assert_eq!(one(&links, tell(*cell, name, "unheard")).await, Ok(Value::Int(0)));
    assert_eq!(
        links.state().reconnects,
        0,
        "each name of a command is confirmed by itself"
    );
    let stats = server.ask_line("INFO commandstats");
    let Value::BulkString(stats) = stats else {
        panic!("{stats:?}")
    };
    let stats = String::from_utf8_lossy(&stats).into_owned();
    for command in ["cmdstat_ssubscribe:calls=", "cmdstat_sunsubscribe:calls="] {
        let calls = stats
            .split(command)
            .nth(1)
            .and_then(|rest| rest.split(',').next())
            .expect(command);
        assert!(
            calls.parse::<u32>().expect("a count") <= 1_000,
            "{command}{calls}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_confirmed_only_on_the_connection_that_it_went_over() {
    if !has_redis("links: confirmation") {
        return;
    }
    let server = Server::start();
    let links = open(&server.url(), WAIT).await;
    let moment = links.moment();
    one(&links, add(Cell(3), 1)).await.expect("added");
    assert_eq!(links.confirm(moment, &[Cell(3)], Durability::Aof).await, Ok(()));
    assert_eq!(links.confirm(moment, &[Cell(3)], Durability::None).await, Ok(()));
    let few = LinkFault::Unconfirmed {
        wanted: 1,
        confirmed: 0,
    };
    assert_eq!(
        links
            .confirm(moment, &[Cell(3), Cell(4)], Durability::Replicas(1))
            .await,
        Err(few)
    );
    assert_eq!(links.state().reconnects, 0, "waiting for replicas is no silence");
    server.ask_line("CLIENT KILL TYPE normal");
    until("it is connected again", || {
        links.moment() > moment && links.state().commanded == 1
    })
    .await;
    let again = links.confirm(moment, &[Cell(3)], Durability::Aof).await;
    assert!(matches!(again, Err(LinkFault::Unknown(_))), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_panics_misses_one_message_and_ends_nothing() {
    if !has_redis("links: a listener that panics") {
        return;
    }
    let server = Server::start();
    let links = open(&server.url(), WAIT).await;
    let (lost, mut losses) = tokio::sync::mpsc::unbounded_channel();
    links.on_message(
        Box::new(|_, payload| assert_ne!(payload, b"boom", "as a listener may")),
        Box::new(move |cells| drop(lost.send(cells.to_vec()))),
    );
    let heard = Heard::by(&links);
    let (cell, name) = (Cell(3), Cell(3).key("c"));
    links.subscribe(cell, name.clone());
    links
        .subscribed(std::slice::from_ref(&name))
        .await
        .expect("confirmed");
    for text in ["boom", "after"] {
        assert_eq!(one(&links, tell(cell, &name, text)).await, Ok(Value::Int(1)));
    }
    heard.until("what came after", |heard| heard.has("after")).await;
    assert!(heard.has("boom"), "the others hear it all the same");
    assert_eq!(losses.try_recv(), Ok(vec![cell]));
    assert!(losses.try_recv().is_err(), "once");
    assert_eq!(links.state().reconnects, 0);
}
