//! Sessions that acknowledge what is not, what is another's, and everything again and again; and tokens in a flood.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use postrider_harness::bystanders::Bystanders;
use postrider_harness::gauge::Gauge;
use postrider_harness::node::{KEY, Node};
use postrider_harness::publish::Publisher;
use postrider_harness::raw::{Frame, Socket, as_user, frame, unharmed};
use postrider_harness::token;
use postrider_harness::user::User;
use postrider_harness::wait::within;
use serde_json::{Value, json};

use crate::{MIB, alone, size};

/// Sessions that do the same at once.
const AT_ONCE: usize = 4;
/// What a busy store and the commands waiting for it may take.
const GROWTH_BYTES: u64 = 64 * MIB;

fn text(value: &Value) -> Vec<u8> {
    frame(1, value.to_string().as_bytes())
}

#[test]
fn acks_of_garbage() -> Result<()> {
    let _alone = alone()?;
    let time = Duration::from_millis(size(600, 10_000));
    let node = Node::start(&[])?;
    let mut publisher = Publisher::new(&node.endpoint, KEY);
    let held: Vec<Value> = (0..500)
        .map(|n| json!({"id": format!("n{n}"), "users": ["ada"], "data": n}))
        .collect();
    publisher.array(&held)?;
    let own = User::new(&node.endpoint, "ada")?.cursor(&[])?;
    let another = User::new(&node.endpoint, "bob")?.cursor(&[])?;
    let unknown: Vec<String> = (0..1000).map(|n| format!("unknown-{n:048}")).collect();
    let all: Vec<String> = (0..500).map(|n| format!("n{n}")).collect();
    let floods = [
        (
            "a thousand unknown ids",
            json!({"type": "ack", "ids": unknown, "ref": 1}),
        ),
        (
            "another's cursor",
            json!({"type": "ack", "cursor": another, "ref": 1}),
        ),
        (
            "a cursor of nonsense",
            json!({"type": "read", "cursor": "x".repeat(2000), "ref": 1}),
        ),
        ("reads of nothing", json!({"type": "read", "ids": [], "ref": 1})),
        (
            "everything, again and again",
            json!({"type": "ack", "ids": all, "ref": 1}),
        ),
        (
            "everything by cursor, again and again",
            json!({"type": "ack", "cursor": own, "ref": 1}),
        ),
    ];
    for (name, said) in floods {
        let gauge = Gauge::start(&node)?;
        let others = Bystanders::start(&node)?;
        let (mut frames, piece) = (0, text(&said));
        std::thread::scope(|scope| -> Result<()> {
            let mut clients = Vec::new();
            for _ in 0..AT_ONCE {
                let socket = Socket::open(&node, "ada", "?ack=explicit", None)?;
                let piece = &piece;
                clients.push(scope.spawn(move || say(&socket, piece, time)));
            }
            for client in clients {
                frames += client
                    .join()
                    .map_err(|_| anyhow::anyhow!("a client panicked"))??;
            }
            Ok(())
        })
        .context(name)?;
        let cost = gauge.read()?;
        println!(
            "siege: acks of {name}, {AT_ONCE} at once: {frames} frames; {cost}; {}",
            others.stop()?
        );
        ensure!(cost.peak < GROWTH_BYTES, "{name}: {cost}");
    }
    ensure!(
        publisher.count("n7", "delivered")? == 1,
        "an ack among the garbage was lost"
    );
    unharmed(&node, "eve")
}

/// Says it for so long while another thread takes the answers; returns how often. The session must bear it.
fn say(socket: &Socket, piece: &[u8], time: Duration) -> Result<usize> {
    let mut writer = socket.writer()?;
    let mut reader = socket.writer()?;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut answers = vec![0; 64 << 10];
            while matches!(reader.read(&mut answers), Ok(1..)) {}
        });
        let until = Instant::now() + time;
        let mut said = 0;
        let mut outcome = Ok(());
        writer.set_write_timeout(Some(Duration::from_secs(60)))?;
        while Instant::now() < until && outcome.is_ok() {
            outcome = writer.write_all(piece).context("cut off");
            said += 1;
        }
        writer.shutdown(std::net::Shutdown::Both)?;
        outcome.map(|()| said)
    })
}

/// Megabytes of ids by HTTP, and bodies that are no acks.
#[test]
fn acks_by_http() -> Result<()> {
    let _alone = alone()?;
    let node = Node::start(&[])?;
    unharmed(&node, "ada")?;
    let gauge = Gauge::start(&node)?;
    let others = Bystanders::start(&node)?;
    let ids =
        |count: usize| json!({"ids": (0..count).map(|n| format!("unknown-{n:020}")).collect::<Vec<_>>()});
    let bodies = [
        ("ids of 15 MB", ids(480_000).to_string(), 413),
        ("ids of 900 kB", ids(29_000).to_string(), 413),
        ("a thousand ids", ids(1000).to_string(), 200),
        ("no ids", ids(0).to_string(), 200),
        ("ids within ids", "[".repeat(500_000), 400),
        ("null", "null".to_owned(), 400),
    ];
    let user = User::new(&node.endpoint, "ada")?;
    for _ in 0..size(5, 50) {
        for (name, body, wanted) in &bodies {
            for path in ["/v1/inbox/ack", "/v1/inbox/read"] {
                let request = as_user("ada", "POST", path)?.body("application/json", body.as_bytes());
                let answer = node
                    .endpoint
                    .connect(None)?
                    .call(&request, within(60))
                    .context(*name)?;
                ensure!(
                    answer.status() == *wanted,
                    "{name}: {} {}",
                    answer.status(),
                    answer.text()
                );
            }
        }
    }
    let cost = gauge.read()?;
    println!("siege: acks of garbage by HTTP: {cost}; {}", others.stop()?);
    ensure!(cost.peak < GROWTH_BYTES, "{cost}");
    ensure!(user.pending()?.len() == 1, "garbage settled something");
    Ok(())
}

/// A new token costs a check of its signature. One now and then is taken; in a flood the session ends.
#[test]
fn a_flood_of_tokens() -> Result<()> {
    const FLOOD: usize = 5000;

    let _alone = alone()?;
    let node = Node::start(&[])?;
    unharmed(&node, "ada")?;
    let mut good = Socket::open(&node, "ada", "", None)?;
    let renewal = text(&json!({"type": "token", "token": token::user("ada")?}));
    let gauge = Gauge::start(&node)?;
    let others = Bystanders::start(&node)?;
    let socket = Socket::open(&node, "ada", "", None)?;
    let mut writer = socket.writer()?;
    let flood = renewal.repeat(FLOOD);
    let writing = std::thread::spawn(move || writer.write_all(&flood));
    let (code, reason) = closed(socket)?;
    // The node need not take the rest.
    let taken = writing
        .join()
        .map_err(|_| anyhow::anyhow!("the writer panicked"))?
        .is_ok();
    let cost = gauge.read()?;
    println!(
        "siege: {FLOOD} tokens (all taken by the socket: {taken}): {cost}; {}",
        others.stop()?
    );
    ensure!(
        code == 4501 && reason["code"] == "protocol",
        "closed by {code} {reason}"
    );
    ensure!(cost.cpu < 2.0, "{cost}");
    let mut writer = good.writer()?;
    for _ in 0..5 {
        writer.write_all(&renewal)?;
    }
    let id = Publisher::new(&node.endpoint, KEY).accepted(&json!({"users": ["ada"], "data": 1}))?;
    loop {
        match good.next(within(30))?.context("the good session got nothing")? {
            Frame::Text(told) if told["id"] == id => return Ok(()),
            Frame::Close(why) => {
                anyhow::bail!("the good session was closed: {}", String::from_utf8_lossy(&why))
            }
            _ => {}
        }
    }
}

/// Reads to the close frame.
fn closed(mut socket: Socket) -> Result<(u16, Value)> {
    let deadline = within(60);
    loop {
        if let Frame::Close(why) = socket.next(deadline)?.context("the session goes on")? {
            let (code, reason) = why.split_at(2);
            return Ok((
                u16::from_be_bytes(code.try_into()?),
                serde_json::from_slice(reason)?,
            ));
        }
    }
}
