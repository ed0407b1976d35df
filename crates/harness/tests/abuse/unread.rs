//! Clients that ask and do not read the answers.

use std::io::Write;

use anyhow::{Context, Result, ensure};
use postrider_harness::http::{Conn, Request};
use postrider_harness::inbox::{AckMode, Connect, Received, Transport, wait_for};
use postrider_harness::node::{KEY, Node};
use postrider_harness::publish::Publisher;
use postrider_harness::token;
use postrider_harness::wait::{until_true, within};
use serde_json::json;

use postrider_harness::raw::{SMALL_BUFFER, Socket, as_user, connect, flood, frame, growth, unharmed};

/// By how much memory may grow for a few clients that read nothing.
const GROWTH_MAX_BYTES: u64 = 48 << 20;
/// By how much for pongs that nobody reads.
const PONGS_MAX_BYTES: u64 = 12 << 20;
/// More than any buffer between the two sides holds.
const FLOOD_BYTES: usize = 64 << 20;

/// Two thousand requests in one write, each refused: one after the other, on one socket, without deep recursion.
#[test]
fn pipelined_refusals_are_all_answered() -> Result<()> {
    const REQUESTS: usize = 2000;

    let node = Node::start(&[])?;
    let mut conn = Conn::open(node.endpoint.addr()?, None)?;
    let request = Request::new("GET", "/v1/inbox").bytes();
    conn.write(&request.repeat(REQUESTS))?;
    for n in 0..REQUESTS {
        let answer = conn
            .answer(within(20))?
            .with_context(|| format!("no answer to request {n}"))?;
        ensure!(answer.status() == 401, "request {n}: {}", answer.status());
    }
    unharmed(&node, "ada")
}

#[test]
fn unread_answers_cost_no_memory() -> Result<()> {
    let node = Node::start(&[])?;
    let mut publisher = Publisher::new(&node.endpoint, KEY);
    for _ in 0..10 {
        publisher.accepted(&json!({"users": ["ada"], "data": "x".repeat(200_000)}))?;
    }
    let poll = as_user("ada", "GET", "/v1/inbox?wait=0&ack=none")?.bytes();
    let refused = Request::new("GET", "/v1/inbox").bytes();
    let missing = as_user("ada", "GET", "/v1/notifications/none")?.bytes();
    // So that whatever is allocated once is there.
    let mut first = connect(&node, Some(SMALL_BUFFER))?;
    flood(&mut first, &poll, 1 << 20)?;
    for (name, request) in [
        ("polls", poll),
        ("refusals", refused),
        ("requests of the API", missing),
    ] {
        let mut sockets = Vec::new();
        let grown = growth(&node, || {
            for _ in 0..5 {
                let mut socket = connect(&node, Some(SMALL_BUFFER))?;
                let taken = flood(&mut socket, &request, FLOOD_BYTES)?;
                ensure!(
                    taken < FLOOD_BYTES,
                    "{name}: the node took {taken} bytes of requests from a client that reads nothing"
                );
                sockets.push(socket);
            }
            Ok(())
        })?;
        println!("abuse: unread {name}: {} KiB", grown >> 10);
        ensure!(grown < GROWTH_MAX_BYTES, "unread {name}: {grown} bytes");
        unharmed(&node, "eve")?;
    }
    Ok(())
}

/// A stream of NDJSON whose answers nobody reads.
#[test]
fn unread_lines_cost_no_memory() -> Result<()> {
    let node = Node::start(&[])?;
    let mut socket = connect(&node, Some(SMALL_BUFFER))?;
    let head = Request::new("POST", "/v1/notifications")
        .bearer(KEY)
        .header("Content-Type", "application/x-ndjson")
        .header("Transfer-Encoding", "chunked");
    socket.write_all(&head.bytes())?;
    let lines = "bad\n".repeat(1000);
    let chunk = format!("{:x}\r\n{lines}\r\n", lines.len());
    let mut taken = 0;
    let grown = growth(&node, || {
        taken = flood(&mut socket, chunk.as_bytes(), FLOOD_BYTES)?;
        Ok(())
    })?;
    println!(
        "abuse: unread lines: {} KiB of requests taken, {} KiB more",
        taken >> 10,
        grown >> 10
    );
    ensure!(
        taken < FLOOD_BYTES,
        "the node took {taken} bytes from a client that reads nothing"
    );
    ensure!(grown < GROWTH_MAX_BYTES, "{grown} bytes");
    unharmed(&node, "ada")
}

/// Acks whose answers are never read.
#[test]
fn unread_answers_to_acks_cost_no_memory() -> Result<()> {
    let node = Node::start(&[])?;
    for (mode, text) in [
        ("none", r#"{"type":"ack","ids":[],"ref":1}"#),
        ("explicit", r#"{"type":"ack","ids":["a"],"ref":1}"#),
    ] {
        let socket = Socket::open(&node, "ada", &format!("?ack={mode}"), Some(SMALL_BUFFER))?;
        let mut writer = socket.writer()?;
        let mut taken = 0;
        let grown = growth(&node, || {
            taken = flood(&mut writer, &frame(1, text.as_bytes()).repeat(1000), FLOOD_BYTES)?;
            Ok(())
        })?;
        println!(
            "abuse: {mode}: {} KiB of acks taken, {} KiB more",
            taken >> 10,
            grown >> 10
        );
        ensure!(
            taken < FLOOD_BYTES,
            "{mode}: the node took {taken} bytes from a client that reads nothing"
        );
        ensure!(grown < GROWTH_MAX_BYTES, "{mode}: {grown} bytes");
        unharmed(&node, "eve")?;
    }
    Ok(())
}

/// Pings may be sent without end, and of many only the newest are answered; what is not read of those answers must not
/// be kept without end.
#[test]
fn unread_pongs_cost_no_memory() -> Result<()> {
    let node = Node::start(&[])?;
    unharmed(&node, "ada")?;
    let socket = Socket::open(&node, "ada", "", Some(SMALL_BUFFER))?;
    let mut writer = socket.writer()?;
    let mut taken = 0;
    let grown = growth(&node, || {
        taken = flood(&mut writer, &frame(9, &[b'p'; 125]).repeat(1000), FLOOD_BYTES)?;
        Ok(())
    })?;
    println!(
        "abuse: {} KiB of pings taken, {} KiB more",
        taken >> 10,
        grown >> 10
    );
    ensure!(grown < PONGS_MAX_BYTES, "{grown} bytes");
    unharmed(&node, "eve")
}

/// A client that was too slow for transient notifications is told that it missed some.
#[test]
fn dropped_transients_are_told() -> Result<()> {
    for transport in [Transport::Sse, Transport::WebSocket] {
        let node = Node::start(&[])?;
        let mut connect = Connect::new(&node.endpoint, &token::user("ada")?).ack(AckMode::None);
        connect.recv_buffer = Some(SMALL_BUFFER);
        let mut inbox = connect.open(transport)?;
        let mut publisher = Publisher::new(&node.endpoint, KEY);
        let sent = json!({"users": ["ada"], "data": "x".repeat(100_000), "durability": "transient"});
        // The kernel's buffers are as large as it likes; at some time they are full.
        until_true("a dropped transient", within(90), || {
            publisher.accepted(&sent)?;
            Ok(node.metric("postrider_transient_dropped_total")? > 0.0)
        })?;
        let told =
            |r: &Received| matches!(r, Received::Error(code) if code == "transient_dropped").then_some(());
        wait_for(&mut *inbox, within(20), "word of what was dropped", told)
            .with_context(|| transport.to_string())?;
    }
    Ok(())
}
