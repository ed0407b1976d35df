//! Clients that connect and do not read, while far more is published to them than any buffer should hold.
//!
//! Invariant checked: the node's memory does not grow with what a slow client has not read, other clients go on
//! receiving meanwhile, and the slow client loses nothing: when it reads at last, all of it comes, in order, on the
//! same session.
//!
//! `POSTRIDER_SLOW_BYTES` sets how much is published (default 200 MB); the full measure is 1,000,000,000.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]
#![allow(
    clippy::disallowed_methods,
    reason = "a black-box test is a driver: it reads clocks, spawns and draws"
)]

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use postrider_harness::inbox::{Connect, Inbox, Received, Transport, next_notification};
use postrider_harness::node::{KEY, Node};
use postrider_harness::publish::Publisher;
use postrider_harness::tls::Authority;
use postrider_harness::token;
use postrider_harness::wait::{until_true, within};
use serde_json::json;

/// Size of one `data`, below the limit of 256 KiB.
const DATA_BYTES: usize = 250_000;
/// Published before memory is first measured, so that caches and pools are as big as they get.
const WARM_UP_BYTES: usize = 64_000_000;
/// By how much resident memory may grow after the warm-up: the store holds up to 96 MiB of what was published
/// last, and how much of that at any moment depends on its checkpoints.
const GROWTH_MAX_BYTES: u64 = 112 << 20;
/// The slow client's receive buffer: small, so that what is not read stays with the server.
const RECV_BUFFER_BYTES: usize = 16 * 1024;

#[test]
fn slow_clients_cost_no_memory_and_lose_nothing() {
    if let Err(e) = Node::start(&[]).and_then(|node| run(&node, total())) {
        panic!("{e:?}");
    }
}

#[test]
fn slow_clients_with_tls_cost_no_more() {
    let authority = Authority::new().unwrap();
    if let Err(e) = authority.start(&[]).and_then(|node| run(&node, total())) {
        panic!("{e:?}");
    }
}

#[test]
fn who_takes_nothing_is_cut_off() {
    let cut_off = || -> Result<()> {
        let node = Node::start(&[("session.stall_timeout", "1s")])?;
        let mut stalled = Vec::new();
        for transport in [Transport::Sse, Transport::WebSocket] {
            let mut connect = Connect::new(&node.endpoint, &token::user("stalled")?);
            connect.recv_buffer = Some(RECV_BUFFER_BYTES);
            stalled.push(connect.open(transport)?);
        }
        ensure!(node.metric("postrider_connections")? == 2.0);
        let mut publisher = Publisher::new(&node.endpoint, KEY);
        for _ in 0..40 {
            publisher.accepted(&json!({"users": ["stalled"], "data": "x".repeat(DATA_BYTES)}))?;
        }
        // What waits for them is not waited for: that would take a minute more.
        until_true("their sockets are closed", within(45), || {
            Ok(node.metric("postrider_connections")? == 0.0)
        })
    };
    if let Err(e) = cut_off() {
        panic!("{e:?}");
    }
}

fn total() -> usize {
    std::env::var("POSTRIDER_SLOW_BYTES").map_or(200_000_000, |text| text.parse().unwrap())
}

fn run(node: &Node, total: usize) -> Result<()> {
    let open = |user: &str, transport, recv_buffer| -> Result<Box<dyn Inbox>> {
        let mut connect = Connect::new(&node.endpoint, &token::user(user)?);
        connect.recv_buffer = recv_buffer;
        connect.open(transport)
    };
    let mut slow = Vec::new();
    for transport in [Transport::Sse, Transport::WebSocket] {
        slow.push((
            transport,
            open(&format!("slow-{transport}"), transport, Some(RECV_BUFFER_BYTES))?,
        ));
    }
    let mut quick = [
        open("quick-sse", Transport::Sse, None)?,
        open("quick-ws", Transport::WebSocket, None)?,
        open("quick-poll", Transport::LongPoll, None)?,
    ];
    let users = json!([
        "slow-sse",
        "slow-websocket",
        "quick-sse",
        "quick-ws",
        "quick-poll"
    ]);
    let mut publisher = Publisher::new(&node.endpoint, KEY);
    let mut sent = Vec::new();
    let mut publish = |bytes: usize, check: &mut dyn FnMut() -> Result<()>| -> Result<()> {
        for _ in 0..bytes.div_ceil(DATA_BYTES) {
            let data = format!("{:08}{}", sent.len(), "x".repeat(DATA_BYTES - 8));
            let id = publisher.accepted(&json!({"users": users, "data": data}))?;
            for inbox in &mut quick {
                let got =
                    next_notification(&mut **inbox, within(30)).context("a quick client was kept waiting")?;
                ensure!(got.id == id, "a quick client got {} instead of {id}", got.id);
            }
            sent.push(id);
            check()?;
        }
        Ok(())
    };
    publish(WARM_UP_BYTES, &mut || Ok(()))?;
    let warm = node.rss_bytes()?;
    let mut peak = warm;
    let started = Instant::now();
    publish(total, &mut || {
        peak = peak.max(node.rss_bytes()?);
        Ok(())
    })?;
    println!(
        "slow_client: {} MB in {:.1} s, resident {} MiB after the warm-up, {} MiB at most",
        total / 1_000_000,
        started.elapsed().as_secs_f64(),
        warm >> 20,
        peak >> 20
    );
    ensure!(
        peak < warm + GROWTH_MAX_BYTES,
        "resident memory grew from {warm} to {peak} bytes"
    );
    for (transport, inbox) in &mut slow {
        everything_in_order(&mut **inbox, &sent).with_context(|| format!("slow client by {transport}"))?;
        peak = peak.max(node.rss_bytes()?);
    }
    ensure!(
        peak < warm + GROWTH_MAX_BYTES,
        "catching up grew resident memory from {warm} to {peak} bytes"
    );
    Ok(())
}

fn everything_in_order(inbox: &mut dyn Inbox, sent: &[String]) -> Result<()> {
    for (at, wanted) in sent.iter().enumerate() {
        let got = loop {
            match inbox
                .next(within(30))?
                .with_context(|| format!("nothing came after {at} of {}", sent.len()))?
            {
                Received::Notification(notification) => break notification,
                Received::End(end) => anyhow::bail!("ended after {at} of {}: {end:?}", sent.len()),
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
