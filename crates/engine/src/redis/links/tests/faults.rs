//! One server that is killed, paused, cut off, or cuts us off.

use super::super::wire::CONNECT_TIMEOUT;
use super::*;
use crate::redis::testing::{Proxy, Server, has_redis};
use std::sync::atomic::AtomicI64;
use tokio::sync::Notify;

const CELL: Cell = Cell(7);
const WAIT: Duration = Duration::from_secs(10);

fn channel() -> Vec<u8> {
    CELL.key("feed")
}

async fn listening(url: &RedisUrl, timeout: Duration) -> (Links, Heard) {
    let links = open(url, timeout).await;
    let heard = Heard::by(&links);
    links.subscribe(CELL, channel());
    links.subscribed(&[channel()]).await.expect("confirmed");
    (links, heard)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_is_used_again_when_it_is_back() {
    if !has_redis("links: kill -9") {
        return;
    }
    let mut server = Server::start();
    let (links, heard) = listening(&server.url(), WAIT).await;
    assert_eq!(one(&links, add(CELL, 5)).await, Ok(Value::Int(5)));
    server.kill();
    until("the loss is noticed", || {
        links.state().commanded == 0 && links.state().listening == 0
    })
    .await;
    assert!(links.state().down_for.is_some());
    assert_eq!(
        heard.losses(),
        [] as [Vec<Cell>; 0],
        "not before the subscriptions are confirmed again"
    );
    let waiting = links.clone();
    let call = tokio::task::spawn(async move { one(&waiting, get(CELL)).await });
    server.restart();
    let took = resumes(&links, &heard, CELL, &channel(), "again").await;
    assert!(took < RESUMES_WITHIN, "{took:?}");
    assert_eq!(
        call.await.expect("no panic"),
        Ok(value("5")),
        "a call that waited is answered"
    );
    heard.until("the loss", |heard| heard.losses() == [[CELL]]).await;
    assert_eq!(links.connections(), 2);
    assert_eq!(links.state().down_for, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_server_a_call_was_certainly_not_sent() {
    if !has_redis("links: no server") {
        return;
    }
    let mut server = Server::start();
    let links = open_at_last(&server.url(), Duration::from_millis(300)).await;
    server.kill();
    until("the loss is noticed", || links.state().commanded == 0).await;
    let started = OwnTime::now();
    let fault = one(&links, add(CELL, 1)).await.expect_err("nobody is there");
    assert!(fault.did_not_run(), "{fault:?}");
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "it ends with its time"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_server_leaves_calls_unknown_and_is_used_again() {
    if !has_redis("links: SIGSTOP") {
        return;
    }
    let server = Server::start();
    let (links, heard) = listening(&server.url(), WAIT).await;
    server.pause();
    let paused = OwnTime::now();
    let fault = one(&links, add(CELL, 1)).await.expect_err("nobody answers");
    assert!(matches!(fault, LinkFault::Unknown(_)), "{fault:?}");
    until("silence is noticed", || {
        links.state().commanded == 0 && links.state().listening == 0
    })
    .await;
    assert!(paused.elapsed() < Duration::from_secs(4));
    tokio::time::sleep(Duration::from_secs(4).saturating_sub(paused.elapsed())).await;
    server.resume();
    let took = resumes(&links, &heard, CELL, &channel(), "again").await;
    assert!(took < RESUMES_WITHIN, "{took:?}");
    heard.until("the loss", |heard| heard.losses() == [[CELL]]).await;
    // What was unknown did run in the end: the server had it in its hands.
    assert_eq!(one(&links, get(CELL)).await, Ok(value("1")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_swallowed_is_noticed() {
    if !has_redis("links: half-open connections") {
        return;
    }
    let server = Server::start();
    let proxy = Proxy::start(server.port());
    let (links, heard) = listening(&proxy.url(), WAIT).await;
    proxy.swallow();
    let cut = OwnTime::now();
    // Read calls are asked again over the next connection.
    assert_eq!(one(&links, get(CELL)).await, Ok(Value::Nil));
    assert!(cut.elapsed() < Duration::from_secs(4), "{:?}", cut.elapsed());
    let took = resumes(&links, &heard, CELL, &channel(), "again").await;
    assert!(took < RESUMES_WITHIN, "{took:?}");
    heard.until("the loss", |heard| heard.losses() == [[CELL]]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_silent_from_the_first_byte_is_not_waited_for() {
    if !has_redis("links: silent from the first byte") {
        return;
    }
    let server = Server::start();
    let proxy = Proxy::start(server.port());
    // The command connection and the listening one.
    proxy.swallow_next(2);
    let opening = OwnTime::now();
    let links = open(&proxy.url(), WAIT).await;
    assert!(
        opening.elapsed() < CONNECT_TIMEOUT,
        "less than one greeting may take: {:?}",
        opening.elapsed()
    );
    assert_eq!(one(&links, get(CELL)).await, Ok(Value::Nil));
    assert_eq!(links.state().reconnects, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn being_cut_off_as_too_slow_is_a_loss() {
    if !has_redis("links: output buffer limit") {
        return;
    }
    let server = Server::start_with(&["--client-output-buffer-limit", "pubsub 8mb 8mb 60"]);
    let links = open(&server.url(), WAIT).await;
    let heard = Heard::by(&links);
    let gate = Arc::new(Mutex::new(()));
    let held = Arc::clone(&gate);
    links.on_message(Box::new(move |_, _| drop(held.lock().unwrap())), Box::new(|_| {}));
    links.subscribe(CELL, channel());
    links.subscribed(&[channel()]).await.expect("confirmed");
    {
        let big = "x".repeat(256 << 10);
        let shut = gate.lock().unwrap();
        // More than the sockets and the limit hold together; asked from outside, so that nothing here is waited for.
        wait_until("the server cuts the listener off", || {
            server.ask(redis::cmd("SPUBLISH").arg(channel()).arg(&big)) == Value::Int(0)
        });
        drop(shut);
    }
    let took = resumes(&links, &heard, CELL, &channel(), "again").await;
    assert!(took < RESUMES_WITHIN, "{took:?}");
    heard.until("the loss", |heard| heard.losses() == [[CELL]]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_runs_twice_and_none_is_told_undone_that_ran() {
    if !has_redis("links: certainty") {
        return;
    }
    let server = Server::start();
    let links = open(&server.url(), WAIT).await;
    let (sure, unknown) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)));
    let answered = Arc::new(Notify::new());
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (links, sure, unknown) = (links.clone(), Arc::clone(&sure), Arc::clone(&unknown));
        let answered = Arc::clone(&answered);
        callers.spawn(async move {
            for _ in 0..200 {
                for answer in links.call(vec![add(CELL, 1), add(CELL, 1), add(CELL, 1)]).await {
                    match answer {
                        Ok(_) => sure.fetch_add(1, Ordering::AcqRel),
                        Err(LinkFault::Unknown(_)) => unknown.fetch_add(1, Ordering::AcqRel),
                        Err(fault) => panic!("{fault}"),
                    };
                }
                answered.notify_one();
            }
        });
    }
    let mut kills = 0;
    while !callers.is_empty() {
        server.ask_line("CLIENT KILL TYPE normal SKIPME yes");
        kills += 1;
        // However slow this machine is, somebody gets on between two of them.
        let next = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            answered.notified().await;
        };
        tokio::select! {
            () = next => {}
            done = callers.join_next() => done.expect("one is left").expect("no panic"),
        }
    }
    let Ok(Value::BulkString(ran)) = one(&links, get(CELL)).await else {
        panic!("no count")
    };
    let ran: i64 = String::from_utf8_lossy(&ran).parse().expect("a number");
    let (sure, unknown) = (sure.load(Ordering::Acquire), unknown.load(Ordering::Acquire));
    assert_eq!(sure + unknown, 2_400);
    assert!(
        (sure..=sure + unknown).contains(&ran),
        "{ran} ran, {sure} answered, {unknown} unknown"
    );
    assert!(links.state().reconnects > 0, "{kills} kills");
}
