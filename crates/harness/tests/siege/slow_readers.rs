//! Sessions in great number that read nothing while far more is broadcast than any of them may have waiting.

use std::io::Write;
use std::net::TcpStream;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use postrider_harness::bystanders::Bystanders;
use postrider_harness::gauge::Gauge;
use postrider_harness::http::{Conn, Request};
use postrider_harness::inbox::{Connect, Inbox, Received, TRANSPORTS, Transport};
use postrider_harness::node::{KEY, Node};
use postrider_harness::publish::Publisher;
use postrider_harness::raw::{SMALL_BUFFER, as_user, unharmed};
use postrider_harness::token;
use postrider_harness::wait::{until_true, within};
use serde_json::json;

use crate::{MIB, alone, size};

/// One broadcast, a little below the limit of 256 KiB.
const DATA_BYTES: usize = 250_000;
/// What the store holds of what was published last, before it is in its base.
const STORE_BYTES: u64 = 112 * MIB;
/// What a session may have of its own at worst: `session.outbox`, and the entry that exceeds it; an answer to a poll, and
/// the entry that exceeds that.
const SESSION_BYTES: u64 = (128 << 10) + DATA_BYTES as u64;
const PAGE_BYTES: u64 = MIB + DATA_BYTES as u64;
/// Of each transport so many read in the end, and are checked.
const CHECKED: usize = 4;

fn request(transport: Transport, user: &str) -> Result<Request> {
    Ok(match transport {
        Transport::LongPoll => as_user(user, "GET", "/v1/inbox?wait=120")?,
        Transport::Sse => as_user(user, "GET", "/v1/inbox/stream")?,
        Transport::WebSocket => as_user(user, "GET", "/v1/inbox/ws")?
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    })
}

#[test]
fn slow_readers_during_a_broadcast() -> Result<()> {
    let _alone = alone()?;
    let (sessions, broadcasts) = (size(600, 5000), size(40, 400));
    // A third of them, each waiting in a poll.
    let polls = sessions / TRANSPORTS.len();
    let node = Node::start(&[])?;
    unharmed(&node, "bob")?;
    let gauge = Gauge::start(&node)?;
    let others = Bystanders::start(&node)?;
    let mut checked = open_checked(&node)?;
    let crowd = open_crowd(&node, sessions)?;
    let began = Instant::now();
    let mut publisher = Publisher::new(&node.endpoint, KEY);
    let mut sent = Vec::new();
    for nth in 0..broadcasts {
        let data = format!("{nth:08}{}", "x".repeat(DATA_BYTES - 8));
        sent.push(publisher.accepted(&json!({"data": data, "exclude_users": others.users}))?);
    }
    let took = began.elapsed();
    let cost = gauge.read()?;
    println!(
        "siege: {} MB broadcast to {sessions} sessions that do not read, in {:.1} s: {cost}; {}",
        broadcasts * DATA_BYTES / 1_000_000,
        took.as_secs_f64(),
        others.stop()?
    );
    // And a quarter for the allocator. What sessions share makes it less.
    let own = (sessions - polls) as u64 * SESSION_BYTES + polls as u64 * PAGE_BYTES;
    let bound = STORE_BYTES + own * 5 / 4;
    ensure!(cost.peak < bound, "{cost}, where {} MiB are allowed", bound / MIB);
    for (transport, inbox) in &mut checked {
        everything_in_order(&mut **inbox, &sent).with_context(|| transport.to_string())?;
    }
    println!(
        "siege: {} of them read everything in order at last; {}",
        checked.len(),
        gauge.read()?
    );
    ensure!(gauge.read()?.peak < bound, "reading at last: {}", gauge.read()?);
    drop(crowd);
    unharmed(&node, "bob")
}

fn open_checked(node: &Node) -> Result<Vec<(Transport, Box<dyn Inbox>)>> {
    let mut checked = Vec::new();
    for transport in TRANSPORTS {
        for nth in 0..CHECKED {
            let token = token::user(&format!("checked-{transport}-{nth}"))?;
            let mut connect = Connect::new(&node.endpoint, &token);
            connect.recv_buffer = Some(SMALL_BUFFER);
            checked.push((transport, connect.open(transport)?));
        }
    }
    Ok(checked)
}

fn open_crowd(node: &Node, sessions: usize) -> Result<Vec<TcpStream>> {
    let addr = node.endpoint.addr()?;
    let mut crowd = Vec::with_capacity(sessions);
    for nth in 0..sessions {
        let mut stream = Conn::open(addr, Some(SMALL_BUFFER))?.into_parts().0;
        let request = request(TRANSPORTS[nth % TRANSPORTS.len()], &format!("slow-{nth}"))?;
        stream.write_all(&request.bytes())?;
        crowd.push(stream);
    }
    until_true("all sessions to be there", within(60), || {
        let count = |transport| node.metric(&format!(r#"postrider_sessions{{transport="{transport}"}}"#));
        let all = count(Transport::LongPoll)? + count(Transport::Sse)? + count(Transport::WebSocket)?;
        Ok(all >= sessions as f64)
    })?;
    Ok(crowd)
}

fn everything_in_order(inbox: &mut dyn Inbox, sent: &[String]) -> Result<()> {
    for (at, wanted) in sent.iter().enumerate() {
        let got = loop {
            match inbox
                .next(within(30))?
                .with_context(|| format!("nothing came after {at}"))?
            {
                Received::Notification(notification) => break notification,
                Received::End(end) => anyhow::bail!("ended after {at}: {end:?}"),
                Received::Gap(oldest) => anyhow::bail!("a gap after {at}: {oldest:?}"),
                _ => {}
            }
        };
        ensure!(got.id == *wanted, "at {at}: {} instead of {wanted}", got.id);
        ensure!(
            got.data.len() == DATA_BYTES + 2 && got.data[1..9] == format!("{at:08}"),
            "data of {wanted}"
        );
    }
    Ok(())
}
