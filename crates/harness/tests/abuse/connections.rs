//! Connections in great number that say little or nothing.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use postrider_harness::http::Conn;
use postrider_harness::node::Node;
use postrider_harness::wait::{until_true, within};

use postrider_harness::raw::{connect, growth, room_for_files, unharmed};

/// Connections that send nothing.
const SILENT: usize = 3000;
/// What each of them may cost.
const SILENT_BYTES: u64 = 8 << 10;
/// Connections that send a head, a byte at a time.
const DRIPPING: usize = 50;
/// How long a head may take, how long a client may then take to hear that it took too long, and a little.
const HEAD_SECONDS: u64 = 20 + 5 + 3;

/// Three thousand that say nothing, and some that drip a head: nobody else feels them, and they are let go.
#[test]
fn silent_and_dripping_connections() -> Result<()> {
    room_for_files()?;
    // Long enough for all to be there at once, also where a machine is slow to connect them.
    let node = Node::start(&[("http.head_timeout", "20s")])?;
    // Before anyone has connected: whoever did may be on its way out for a moment after.
    let listening = node.open_sockets()?;
    unharmed(&node, "ada")?;
    let (mut silent, mut dripping) = (Vec::new(), Vec::new());
    let grown = growth(&node, || {
        for _ in 0..SILENT {
            silent.push(connect(&node, None)?);
        }
        for _ in 0..DRIPPING {
            dripping.push(connect(&node, None)?);
        }
        until_true("all to be accepted", within(10), || {
            Ok(node.open_sockets()? >= listening + SILENT + DRIPPING)
        })
    })?;
    println!("abuse: {SILENT} silent connections: {} KiB", grown >> 10);
    ensure!(grown < SILENT_BYTES * SILENT as u64, "they cost {grown} bytes");
    let before = node.cpu_seconds()?;
    let began = Instant::now();
    drip(&node, &mut dripping, began)?;
    let busy = (node.cpu_seconds()? - before) / began.elapsed().as_secs_f64();
    ensure!(busy < 0.5, "they keep {:.0} % of a core busy", busy * 100.0);
    // All of them are gone, by the node's own doing.
    until_true("the connections to be let go", within(10), || {
        Ok(node.open_sockets()? < listening + 20)
    })?;
    unharmed(&node, "ada")
}

/// Sends one byte of a head to each again and again, until the node has had enough of every one.
fn drip(node: &Node, dripping: &mut Vec<TcpStream>, began: Instant) -> Result<()> {
    let head = b"GET /v1/inbox HTTP/1.1\r\nHost: postrider.test\r\nX-Slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    for byte in head.iter().cycle() {
        dripping.retain_mut(|stream| stream.write_all(&[*byte]).is_ok());
        if dripping.is_empty() {
            return Ok(());
        }
        ensure!(
            began.elapsed() < Duration::from_secs(HEAD_SECONDS),
            "a head that comes byte by byte holds its connection for {:?}",
            began.elapsed()
        );
        unharmed(node, "eve").context("while heads drip")?;
        std::thread::park_timeout(Duration::from_millis(200));
    }
    Ok(())
}

/// More connections of the API than it holds: one more is told to come back, and all the others work.
#[test]
fn as_many_connections_of_the_api_as_there_may_be() -> Result<()> {
    const HELD: usize = 4096;

    room_for_files()?;
    let node = Node::start(&[])?;
    let addr = node.endpoint.addr()?;
    let mut held = Vec::new();
    for _ in 0..HELD {
        let mut conn = Conn::open(addr, None)?;
        conn.write(b"GET /v1/nowhere HTTP/1.1\r\nHost: x\r\n\r\n")?;
        held.push(conn);
    }
    for conn in &mut held {
        let answer = conn.answer(within(20))?.context("no answer")?;
        ensure!(answer.status() == 404, "answered {}", answer.status());
    }
    let mut more = Conn::open(addr, None)?;
    more.write(b"GET /v1/nowhere HTTP/1.1\r\nHost: x\r\n\r\n")?;
    let answer = more
        .answer(within(20))?
        .context("one more was left without an answer")?;
    ensure!(
        answer.status() == 503,
        "one more was answered {}",
        answer.status()
    );
    ensure!(
        answer.head.header("retry-after").is_some(),
        "without Retry-After: {:?}",
        answer.head
    );
    drop(held);
    until_true("room to be had again", within(10), || {
        let mut conn = Conn::open(addr, None)?;
        conn.write(b"GET /v1/nowhere HTTP/1.1\r\nHost: x\r\n\r\n")?;
        Ok(conn.answer(within(10))?.context("no answer")?.status() == 404)
    })
}
