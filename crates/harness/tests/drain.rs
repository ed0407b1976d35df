//! `SIGTERM`: everyone is told, the node exits with 0, and nothing is lost.
//!
//! Invariant checked: a drain is no error to any client. A waiting poll is answered, an event stream ends as a whole
//! body, a WebSocket is closed with 4000 and a time to come back, a publish is answered or can be tried again.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]
#![allow(
    clippy::disallowed_methods,
    reason = "a black-box test is a driver: it reads clocks, spawns and draws"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use postrider_harness::account::{Account, Audience};
use postrider_harness::http::{Conn, Request};
use postrider_harness::inbox::{AckMode, Connect, End, Received, TRANSPORTS, Transport, wait_for};
use postrider_harness::node::{KEY, Node};
use postrider_harness::publish::Publisher;
use postrider_harness::reader::{Reader, ReaderSpec};
use postrider_harness::settle::{Shape, publish};
use postrider_harness::token;
use postrider_harness::user::User;
use postrider_harness::wait::{until_true, within};
use serde_json::{Value, json};

/// `drain.timeout` and a little.
const EXIT_WITHIN: Duration = Duration::from_secs(25);
/// `drain.spread`, which bounds `retry_ms`.
const SPREAD_MS: u64 = 10_000;

fn check(test: fn() -> Result<()>) {
    if let Err(e) = test() {
        panic!("{e:?}");
    }
}

#[test]
fn every_client_is_told() {
    check(|| {
        let mut node = Node::start(&[])?;
        let token = token::user("ada")?;
        let cursor = User::new(&node.endpoint, "ada")?.cursor(&[])?;
        let mut poll = Conn::open(node.endpoint.addr()?, None)?;
        poll.write(
            &Request::new("GET", &format!("/v1/inbox?wait=120&cursor={cursor}"))
                .bearer(&token)
                .bytes(),
        )?;
        let connect = Connect::new(&node.endpoint, &token);
        let mut sse = connect.open(Transport::Sse)?;
        let retry = |r: &Received| matches!(r, Received::Retry(_)).then_some(());
        wait_for(&mut *sse, within(10), "retry: at the start", retry)?;
        let mut sockets = Vec::new();
        for _ in 0..20 {
            let mut socket = connect.open(Transport::WebSocket)?;
            let hello = |r: &Received| matches!(r, Received::Hello(_)).then_some(());
            wait_for(&mut *socket, within(10), "hello", hello)?;
            sockets.push(socket);
        }
        until_true("the poll to be there", within(30), || {
            Ok(node.metric("postrider_sessions{transport=\"long_poll\"}")? == 1.0)
        })?;
        let soon = Instant::now() + Duration::from_millis(100);
        ensure!(poll.answer(soon)?.is_none(), "the poll did not wait");

        node.signal_term()?;

        let answer = poll
            .answer(within(20))?
            .context("the waiting poll was not answered")?;
        let page = answer.json()?;
        ensure!(answer.status() == 200, "{} {page}", answer.status());
        let empty = json!({"notifications": [], "events": [], "gap": false});
        for (name, wanted) in empty.as_object().unwrap() {
            ensure!(page[name] == *wanted, "{name} of {page}");
        }
        ensure!(page["cursor"].is_string(), "{page}");

        wait_for(&mut *sse, within(20), "retry: before the end", retry)?;
        let end = |r: &Received| {
            if let Received::End(end) = r {
                Some(end.clone())
            } else {
                None
            }
        };
        let ended = wait_for(&mut *sse, within(20), "the end of the stream", end)?;
        ensure!(ended == End::Orderly, "the stream ended by {ended:?}");

        let mut retries = Vec::new();
        for socket in &mut sockets {
            let End::Closed(code, reason) = wait_for(&mut **socket, within(20), "the close frame", end)?
            else {
                anyhow::bail!("a WebSocket broke off");
            };
            let reason: Value =
                serde_json::from_str(&reason).with_context(|| format!("reason {reason:?}"))?;
            ensure!(code == 4000 && reason["code"] == "drain", "{code} {reason}");
            retries.push(
                reason["retry_ms"]
                    .as_u64()
                    .with_context(|| format!("no retry_ms in {reason}"))?,
            );
        }
        ensure!(
            retries.iter().all(|ms| *ms <= SPREAD_MS),
            "beyond the spread: {retries:?}"
        );
        let first = retries[0];
        ensure!(
            retries.iter().any(|ms| *ms != first),
            "everyone is told to come back at once: {retries:?}"
        );

        let status = node.wait_exit(EXIT_WITHIN)?;
        ensure!(status.code() == Some(0), "exit status {status}");
        Ok(())
    });
}

#[test]
fn an_idle_node_exits_at_once() {
    check(|| {
        let mut node = Node::start(&[])?;
        // Less than `drain.spread`.
        let status = node.terminate(Duration::from_secs(9))?;
        ensure!(status.code() == Some(0), "exit status {status}");
        Ok(())
    });
}

#[test]
fn a_client_that_does_not_react_does_not_hold_the_drain() {
    check(|| {
        let mut node = Node::start(&[("drain.timeout", "2s")])?;
        let mut deaf = Connect::new(&node.endpoint, &token::user("ada")?);
        deaf.recv_buffer = Some(4096);
        let sessions = [deaf.open(Transport::Sse)?, deaf.open(Transport::WebSocket)?];
        let mut publisher = Publisher::new(&node.endpoint, KEY);
        for n in 0..100 {
            publisher.accepted(&json!({"users": ["ada"], "data": format!("{n}{}", "x".repeat(200_000))}))?;
        }
        // Less than `drain.timeout` has by default.
        let status = node.terminate(Duration::from_secs(18))?;
        ensure!(status.code() == Some(0), "exit status {status}");
        drop(sessions);
        node.restart()?;
        let held = User::new(&node.endpoint, "ada")?.history(100)?.len();
        ensure!(held == 100, "{held} of 100 after the restart");
        Ok(())
    });
}

#[test]
fn nothing_is_lost_over_drains_under_load() {
    check(|| {
        let mut node = Node::start(&[])?;
        let account = Arc::new(Account::default());
        let mut readers = Vec::new();
        for (seed, transport) in TRANSPORTS.into_iter().enumerate() {
            let spec = ReaderSpec {
                name: format!("ada by {transport}"),
                user: "ada".into(),
                topics: Vec::new(),
                member_of: Vec::new(),
                transports: vec![transport],
                ack: AckMode::Auto,
                leaves_after: None,
                seed: seed as u64,
            };
            readers.push(Reader::start(&node.endpoint, &account, spec)?);
        }
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| -> Result<()> {
            let mut publishers = Vec::new();
            for (number, shape) in [Shape::Single, Shape::Array, Shape::Stream]
                .into_iter()
                .enumerate()
            {
                let (account, stop) = (&account, &stop);
                let publisher = Publisher::new(&node.endpoint, KEY);
                publishers.push(scope.spawn(move || publish_until(stop, number, shape, publisher, account)));
            }
            let drained = drain_three_times(&mut node, &account);
            stop.store(true, Ordering::Relaxed);
            for publisher in publishers {
                publisher
                    .join()
                    .map_err(|_| anyhow::anyhow!("a publisher panicked"))??;
            }
            drained
        })?;
        account.wait_complete(within(60));
        readers.into_iter().for_each(Reader::stop);
        let report = account.report();
        println!("drain: {}", report.text());
        ensure!(report.is_clean(), "the account does not balance");
        Ok(())
    });
}

/// Each drain comes once two hundred more were accepted.
fn drain_three_times(node: &mut Node, account: &Account) -> Result<()> {
    for _ in 0..3 {
        let enough = account.accepted_count() + 200;
        until_true("200 accepted", within(60), || {
            Ok(account.accepted_count() >= enough)
        })?;
        let status = node.terminate(EXIT_WITHIN)?;
        ensure!(status.code() == Some(0), "exit status {status}");
        node.restart()?;
    }
    Ok(())
}

fn publish_until(
    stop: &AtomicBool,
    number: usize,
    shape: Shape,
    mut publisher: Publisher,
    account: &Account,
) -> Result<()> {
    for round in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let mut batch = Vec::new();
        for n in 0..10 {
            let id = format!("p{number}-{round}-{n}");
            account.sent(
                number,
                &id,
                &format!("{n}"),
                &Audience::Users(vec!["ada".into()]),
                &[],
            );
            batch.push(json!({"id": id, "users": ["ada"], "data": n}));
        }
        publish(&mut publisher, shape, &batch, within(60), |id| {
            account.accepted(id)
        })?;
    }
    Ok(())
}
