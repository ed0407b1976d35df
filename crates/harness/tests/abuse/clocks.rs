//! Clocks that are set while clients wait, and minutes that pass in a moment.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use postrider_harness::http::{Conn, Request};
use postrider_harness::inbox::{Connect, Received, Transport, wait_for};
use postrider_harness::machine::{Need, run};
use postrider_harness::node::{KEY, Node, NodeOptions};
use postrider_harness::publish::Publisher;
use postrider_harness::skewed_clock::SkewedClock;
use postrider_harness::token;
use postrider_harness::wait::{until_true, within};
use serde_json::json;

use postrider_harness::raw::{SMALL_BUFFER, as_user};

/// A client that takes nothing of what waits is dropped after this, and a little.
const UNTAKEN_SECONDS: i64 = 300 + 10;
/// How late a poll may be answered: less than the clocks are set by, and enough for a busy machine.
const LATE_AT_MOST: Duration = Duration::from_secs(30);

fn skewed() -> Result<(SkewedClock, Node)> {
    let clock = SkewedClock::make()?;
    let node = Node::start_with(NodeOptions {
        env: clock.env(),
        ..NodeOptions::default()
    })?;
    Ok((clock, node))
}

/// A poll that waits so many seconds, with a thread that listens for its answer.
struct Poll {
    seconds: u64,
    answered: JoinHandle<Result<(u16, Duration)>>,
}

fn poll(node: &Node, user: &str, seconds: u64) -> Result<Poll> {
    let mut conn = Conn::open(node.endpoint.addr()?, None)?;
    // The node's time begins later, so that it is never up before it is here.
    let began = Instant::now();
    conn.write(&as_user(user, "GET", &format!("/v1/inbox?wait={seconds}"))?.bytes())?;
    let answered = std::thread::spawn(move || {
        let answer = conn.answer(within(seconds) + LATE_AT_MOST)?;
        let answer = answer.context("a poll was left without an answer")?;
        Ok((answer.status(), began.elapsed()))
    });
    Ok(Poll { seconds, answered })
}

/// It is answered when its time is up, neither before nor much later.
fn is_answered_in_time(poll: Poll) -> Result<()> {
    let (status, took) = poll.answered.join().ok().context("a client panicked")??;
    ensure!(status == 200, "a poll was answered {status}");
    ensure!(
        took + Duration::from_millis(100) >= Duration::from_secs(poll.seconds),
        "a poll of {} s took {took:?}",
        poll.seconds
    );
    Ok(())
}

/// One notification to a WebSocket that answers pings is delivered, and known to be.
fn is_delivered(node: &Node, user: &str, inbox: &mut dyn postrider_harness::inbox::Inbox) -> Result<()> {
    let mut publisher = Publisher::new(&node.endpoint, KEY);
    let id = publisher.accepted(&json!({"users": [user], "data": 1}))?;
    let came = |r: &Received| matches!(r, Received::Notification(n) if n.id == id).then_some(());
    wait_for(inbox, within(15), "the notification", came)?;
    let pinged = |r: &Received| matches!(r, Received::KeepAlive).then_some(());
    wait_for(inbox, within(15), "the ping", pinged)?;
    until_true("the evidence to be recorded", within(15), || {
        Ok(publisher.count(&id, "delivered")? == 1)
    })
}

#[test]
fn a_wall_clock_that_is_set_back_holds_up_nothing() -> Result<()> {
    set_to("a_wall_clock_that_is_set_back_holds_up_nothing", -3600)
}

#[test]
fn a_wall_clock_that_is_set_forward_ends_nothing() -> Result<()> {
    set_to("a_wall_clock_that_is_set_forward_ends_nothing", 60)
}

fn set_to(test: &str, seconds: i64) -> Result<()> {
    run(test, &[Need::CCompiler], || {
        let (clock, node) = skewed()?;
        let mut inbox = Connect::new(&node.endpoint, &token::user("ada")?).open(Transport::WebSocket)?;
        is_delivered(&node, "ada", &mut *inbox).context("before")?;
        let before = poll(&node, "bob", 3)?;
        clock.set(seconds, 0)?;
        let after = poll(&node, "cyd", 1)?;
        is_delivered(&node, "ada", &mut *inbox).context("after the clock was set")?;
        is_answered_in_time(after).context("a poll from after")?;
        is_answered_in_time(before).context("a poll from before")?;
        // Once more, so that nothing was let through by a timer that had been due already.
        clock.set(seconds * 2, 0)?;
        is_delivered(&node, "ada", &mut *inbox).context("after the clock was set again")
    })
}

/// A stream that is never read is dropped at last, though its client is there. Others stay.
#[test]
fn a_stream_that_is_never_read_is_dropped() -> Result<()> {
    run(
        "a_stream_that_is_never_read_is_dropped",
        &[Need::CCompiler],
        || {
            let (clock, node) = skewed()?;
            let sessions =
                |transport: &str| node.metric(&format!(r#"postrider_sessions{{transport="{transport}"}}"#));
            let mut unread = Vec::new();
            for transport in [Transport::Sse, Transport::WebSocket] {
                let mut connect = Connect::new(&node.endpoint, &token::user("ada")?);
                connect.recv_buffer = Some(SMALL_BUFFER);
                unread.push(connect.open(transport)?);
            }
            let mut quiet = Connect::new(&node.endpoint, &token::user("bob")?).open(Transport::Sse)?;
            until_true("all to be there", within(20), || {
                Ok(sessions("sse")? == 2.0 && sessions("websocket")? == 1.0)
            })?;
            let mut publisher = Publisher::new(&node.endpoint, KEY);
            // More than the kernel's buffers hold, so that something is left with the node.
            for _ in 0..60 {
                publisher.accepted(&json!({"users": ["ada"], "data": "x".repeat(200_000)}))?;
            }
            // Loops look at their timers when something happens, or a timer was due by the old clock. What a slow node has
            // handed to nobody yet does not wait yet: time passes again.
            let (began, mut passed) = (Instant::now(), 0);
            until_true("the unread sessions to be dropped", within(60), || {
                let due = began.elapsed().as_secs() as i64 / 5 + 1;
                if due > passed {
                    passed = due;
                    clock.set(0, UNTAKEN_SECONDS * passed)?;
                }
                publisher.one(&json!({"users": ["bob"], "data": 1, "durability": "transient"}))?;
                Ok(sessions("sse")? == 1.0 && sessions("websocket")? == 0.0)
            })?;
            let id = publisher.accepted(&json!({"users": ["bob"], "data": 1}))?;
            let came = |r: &Received| matches!(r, Received::Notification(n) if n.id == id).then_some(());
            wait_for(
                &mut *quiet,
                within(10),
                "what goes to a session that had nothing to read",
                came,
            )?;
            drop(unread);
            let health = postrider_harness::http::once(node.ops, &Request::new("GET", "/health"))?;
            ensure!(health.status() == 200);
            Ok(())
        },
    )
}
