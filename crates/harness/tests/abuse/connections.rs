//! Connections in great number that say little or nothing.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use postrider_harness::http::Conn;
use postrider_harness::node::{KEY, Node};
use postrider_harness::wait::{until_true, within};

use postrider_harness::raw::{connect, growth, room_for_files, unharmed};

/// Connections that send nothing.
const SILENT: usize = 3000;
/// What each of them may cost.
const SILENT_BYTES: u64 = 8 << 10;
/// Connections that send a head, a byte at a time.
const DRIPPING: usize = 50;
/// How long a head may take, how long a client may then take to hear that it took too long, and a little.
const HEAD_SECONDS: u64 = 20 + 5 + 20;

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
        until_true("all to be accepted", within(20), || {
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
    until_true("the connections to be let go", within(60), || {
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

const NOWHERE: &[u8] = b"GET /v1/nowhere HTTP/1.1\r\nHost: x\r\n\r\n";

/// As many connections of the API as it holds, all at rest: a newcomer gets the place of the one that has rested longest,
/// and the others are kept.
#[test]
fn connections_that_rest_make_room() -> Result<()> {
    const HELD: usize = 4096;
    const NEWCOMERS: usize = 100;

    room_for_files()?;
    // Nobody goes for having rested too long.
    let node = Node::start(&[("http.idle_timeout", "1h")])?;
    let addr = node.endpoint.addr()?;
    let mut held = Vec::new();
    for _ in 0..HELD {
        let mut conn = Conn::open(addr, None)?;
        conn.write(NOWHERE)?;
        held.push(conn);
    }
    for conn in &mut held {
        let answer = conn.answer(within(20))?.context("no answer")?;
        ensure!(answer.status() == 404, "answered {}", answer.status());
    }
    // Whoever asks again has not rested long.
    held[0].write(NOWHERE)?;
    ensure!(held[0].answer(within(20))?.context("no answer")?.status() == 404);
    let full = node.open_sockets()?;
    let mut newcomers = Vec::new();
    for nth in 0..NEWCOMERS {
        let mut conn = Conn::open(addr, None)?;
        conn.write(NOWHERE)?;
        let answer = conn.answer(within(20))?.context("no answer")?;
        ensure!(
            answer.status() == 404,
            "newcomer {nth} was answered {}",
            answer.status()
        );
        newcomers.push(conn);
    }
    until_true("as many to be told to go", within(60), || {
        Ok(node.open_sockets()? <= full)
    })?;
    let is_kept = |conn: &mut Conn| {
        conn.write(NOWHERE).is_ok()
            && matches!(conn.answer(within(20)), Ok(Some(answer)) if answer.status() == 404)
    };
    let kept: Vec<bool> = held.iter_mut().map(is_kept).collect();
    let gone = kept.iter().filter(|kept| !**kept).count();
    ensure!(gone == NEWCOMERS, "{gone} were told to go");
    // The loops do not tell the API of connections in just the order in which they came.
    ensure!(
        kept[0] && kept[HELD / 2..].iter().all(|kept| *kept),
        "one that rested less was told to go"
    );
    Ok(())
}

/// As many connections of the API as it holds, each with a request under way: one more is told to come back, and they
/// are answered.
#[test]
fn connections_that_are_busy_are_kept() -> Result<()> {
    const HELD: usize = 16;
    // More than a loop serves by itself.
    const DATA: usize = 100_000;

    let node = Node::start(&[("http.api_connections", &HELD.to_string())])?;
    let addr = node.endpoint.addr()?;
    let body = serde_json::json!({"users": ["ada"], "data": "x".repeat(DATA)}).to_string();
    let (first, rest) = body.split_at(10);
    let head = format!(
        "POST /v1/notifications HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n\
         Expect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut held = Vec::new();
    for _ in 0..HELD {
        let mut conn = Conn::open(addr, None)?;
        conn.write(head.as_bytes())?;
        let asked = conn.head(within(30))?.context("no word")?;
        ensure!(asked.status == 100, "answered {}", asked.status);
        conn.write(first.as_bytes())?;
        held.push(conn);
    }
    let mut more = Conn::open(addr, None)?;
    more.write(NOWHERE)?;
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
    for conn in &mut held {
        conn.write(rest.as_bytes())?;
        let answer = conn.answer(within(20))?.context("no answer")?;
        ensure!(answer.status() == 202, "answered {}", answer.status());
    }
    // They rest now, or as soon as the node has noticed.
    until_true("room for one more", within(20), || {
        let mut conn = Conn::open(addr, None)?;
        conn.write(NOWHERE)?;
        Ok(conn.answer(within(20))?.context("no answer")?.status() == 404)
    })
}
