//! Slowloris: heads, bodies and TLS handshakes that come byte by byte, from thousands at once.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use postrider_harness::bystanders::Bystanders;
use postrider_harness::gauge::Gauge;
use postrider_harness::http::Request;
use postrider_harness::node::{KEY, Node};
use postrider_harness::raw::{as_user, connect, unharmed};
use postrider_harness::tls::Authority;
use postrider_harness::wait::{until_true, within};

use crate::{MIB, alone, size};

/// Between two bytes of a connection.
const EVERY: Duration = Duration::from_millis(250);
/// What each may cost: the head's buffer and the connection, in the API a task with hyper's buffers.
const HEAD_BYTES: u64 = 16 << 10;
const BODY_BYTES: u64 = 64 << 10;

/// Sends the next byte to each that still takes one; the others are gone. Ends when all are, or the time is up.
fn drip(streams: &mut Vec<TcpStream>, bytes: &[u8], until: Instant) -> Result<()> {
    for stream in &*streams {
        stream.set_nonblocking(true)?;
    }
    for byte in bytes.iter().cycle() {
        if streams.is_empty() || Instant::now() >= until {
            return Ok(());
        }
        streams.retain_mut(|stream| stream.write_all(&[*byte]).is_ok());
        std::thread::park_timeout(EVERY);
    }
    Ok(())
}

/// Connections that have said so much already.
fn begun(node: &Node, count: usize, said: &[u8]) -> Result<Vec<TcpStream>> {
    let mut streams = Vec::with_capacity(count);
    for _ in 0..count {
        let mut stream = connect(node, None)?;
        stream.write_all(said)?;
        streams.push(stream);
    }
    Ok(streams)
}

#[test]
fn heads_byte_by_byte() -> Result<()> {
    let _alone = alone()?;
    let count = size(1500, 4000);
    let node = Node::start(&[("http.head_timeout", "1s")])?;
    let listening = node.open_sockets()?;
    unharmed(&node, "ada")?;
    let gauge = Gauge::start(&node)?;
    let others = Bystanders::start(&node)?;
    // An inbox's head stays with the loop that accepted it, and so does that of the API until it is whole.
    let mut streams = begun(&node, count / 2, b"GET /v1/inbox HTTP/1.1\r\nHost: x\r\nX-Slow: ")?;
    streams.extend(begun(
        &node,
        count / 2,
        b"POST /v1/notifications HTTP/1.1\r\nHost: x\r\nX-Slow: ",
    )?);
    let began = Instant::now();
    drip(&mut streams, b"a", Instant::now() + Duration::from_secs(60))?;
    println!(
        "siege: {count} heads byte by byte: {}; all let go in {:.1} s; {}",
        gauge.read()?,
        began.elapsed().as_secs_f64(),
        others.stop()?
    );
    ensure!(streams.is_empty(), "{} are still listened to", streams.len());
    ensure!(
        gauge.read()?.peak < count as u64 * HEAD_BYTES + 8 * MIB,
        "{}",
        gauge.read()?
    );
    let_go(&node, listening)
}

#[test]
fn bodies_byte_by_byte() -> Result<()> {
    let _alone = alone()?;
    let count = size(600, 3000);
    // The longest that a body may take so.
    let patience = Duration::from_secs(size(3, 60));
    let node = Node::start(&[])?;
    let listening = node.open_sockets()?;
    unharmed(&node, "ada")?;
    let gauge = Gauge::start(&node)?;
    let others = Bystanders::start(&node)?;
    let publish = Request::new("POST", "/v1/notifications")
        .bearer(KEY)
        .header("Content-Type", "application/json")
        .header("Content-Length", "100000");
    let ack = as_user("ada", "POST", "/v1/inbox/ack")?
        .header("Content-Type", "application/json")
        .header("Content-Length", "10000");
    let mut streams = begun(&node, count / 2, &publish.bytes())?;
    streams.extend(begun(&node, count / 2, &ack.bytes())?);
    let began = Instant::now();
    drip(&mut streams, b" ", Instant::now() + patience)?;
    println!(
        "siege: {count} bodies byte by byte: {}; {} left after {:.1} s; {}",
        gauge.read()?,
        streams.len(),
        began.elapsed().as_secs_f64(),
        others.stop()?
    );
    ensure!(
        gauge.read()?.peak < count as u64 * BODY_BYTES + 8 * MIB,
        "{}",
        gauge.read()?
    );
    if crate::is_full() {
        ensure!(streams.is_empty(), "{} are still listened to", streams.len());
    }
    drop(streams);
    let_go(&node, listening)
}

#[test]
fn tls_handshakes_byte_by_byte() -> Result<()> {
    let _alone = alone()?;
    let count = size(1000, 4000);
    let authority = Authority::new()?;
    let node = authority.start(&[("http.head_timeout", "1s")])?;
    let listening = node.open_sockets()?;
    let gauge = Gauge::start(&node)?;
    let others = Bystanders::start(&node)?;
    let addr = node.endpoint.addr()?;
    // A record of 512 bytes, the beginning of a ClientHello of 508.
    let hello = [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];
    let mut streams = Vec::new();
    let began = Instant::now();
    for nth in 0..count {
        // More than may be under way wait for those before them to end, which they do within seconds.
        let mut stream = postrider_harness::raw::connect_from(addr, 2 + (nth % 8) as u8, None)
            .with_context(|| format!("connection {nth}, after {:?}", began.elapsed()))?;
        stream.write_all(&hello)?;
        streams.push(stream);
    }
    drip(&mut streams, &[7], Instant::now() + Duration::from_secs(90))?;
    println!(
        "siege: {count} TLS handshakes byte by byte: {}; all let go in {:.1} s; {}",
        gauge.read()?,
        began.elapsed().as_secs_f64(),
        others.stop()?
    );
    ensure!(streams.is_empty(), "{} are still listened to", streams.len());
    ensure!(
        gauge.read()?.peak < count as u64 * 2 * HEAD_BYTES + 8 * MIB,
        "{}",
        gauge.read()?
    );
    let_go(&node, listening)
}

fn let_go(node: &Node, listening: usize) -> Result<()> {
    until_true("the connections to be let go", within(60), || {
        Ok(node.open_sockets()? < listening + 20)
    })
}
