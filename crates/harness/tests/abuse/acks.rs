//! Acks in great number, and pings that are answered in their own way.

use std::collections::HashSet;
use std::io::Write;

use anyhow::{Context, Result, bail, ensure};
use postrider_harness::node::{KEY, Node};
use postrider_harness::publish::Publisher;
use postrider_harness::wait::{until_true, within};
use serde_json::{Value, json};

use postrider_harness::raw::{Frame, Socket, frame};

const ACKS: u64 = 6000;

/// Every ack of a burst is answered, and the session goes on.
#[test]
fn a_burst_of_acks_is_answered_whole() -> Result<()> {
    let node = Node::start(&[])?;
    let mut publisher = Publisher::new(&node.endpoint, KEY);
    for start in (0..ACKS).step_by(1000) {
        let batch: Vec<Value> = (start..start + 1000)
            .map(|n| json!({"id": format!("n{n}"), "users": ["ada"], "data": n}))
            .collect();
        publisher.array(&batch)?;
    }
    let mut socket = Socket::open(&node, "ada", "?ack=explicit", None)?;
    let mut writer = socket.writer()?;
    let burst: Vec<u8> = (0..ACKS)
        .flat_map(|n| {
            frame(
                1,
                format!(r#"{{"type":"ack","ids":["n{n}"],"ref":{n}}}"#).as_bytes(),
            )
        })
        .collect();
    let writing = std::thread::spawn(move || writer.write_all(&burst));
    let mut answered = HashSet::new();
    let mut settled = 0;
    while answered.len() < ACKS as usize {
        let told =
            next(&mut socket).with_context(|| format!("{} of {ACKS} acks answered", answered.len()))?;
        if told["type"] == "settled" {
            let reference = told["ref"].as_u64().context("no ref")?;
            ensure!(answered.insert(reference), "ack {reference} was answered twice");
            settled += told["settled"].as_u64().context("no count")?;
        }
        ensure!(told["type"] != "error", "{told}");
    }
    writing
        .join()
        .map_err(|_| anyhow::anyhow!("the writer panicked"))??;
    ensure!(settled == ACKS, "{settled} of {ACKS} entries were settled");
    until_true("the metric to count acks by frames", within(20), || {
        Ok(node.metric(r#"postrider_settled_total{state="delivered"}"#)? == ACKS as f64)
    })?;
    let id = publisher.accepted(&json!({"users": ["ada"], "data": "after"}))?;
    while next(&mut socket).context("the session is dead after the burst")?["id"] != id {}
    Ok(())
}

/// The next text frame; pings are answered.
fn next(socket: &mut Socket) -> Result<Value> {
    loop {
        match socket.next(within(20))?.context("nothing came")? {
            Frame::Text(text) => return Ok(text),
            Frame::Ping(payload) => socket.send(10, &payload)?,
            Frame::Close(why) => bail!("closed: {}", String::from_utf8_lossy(&why)),
            Frame::Other => {}
        }
    }
}

/// RFC 6455, 5.5.3: a client may answer only the newest of several pings. That answers the older ones, too.
#[test]
fn the_newest_pong_is_evidence_for_all_before_it() -> Result<()> {
    let node = Node::start(&[])?;
    let mut publisher = Publisher::new(&node.endpoint, KEY);
    let mut socket = Socket::open(&node, "ada", "", None)?;
    let mut pings = Vec::new();
    let id = publisher.accepted(&json!({"users": ["ada"], "data": 1}))?;
    // The second is the keep-alive's, or the next probe's.
    while pings.len() < 2 {
        if let Frame::Ping(payload) = socket.next(within(60))?.context("no second ping")? {
            pings.push(payload);
        }
    }
    ensure!(
        publisher.count(&id, "delivered")? == 0,
        "delivered without a pong"
    );
    let newest = pings.pop().context("no ping")?;
    socket.send(10, &newest)?;
    until_true("the entry to be delivered", within(30), || {
        Ok(publisher.count(&id, "delivered")? == 1)
    })
}
