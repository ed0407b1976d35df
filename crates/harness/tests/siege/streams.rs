//! Publishers of NDJSON that never read, never end a line, or never end: many at once, and through a drain.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use postrider_harness::bystanders::Bystanders;
use postrider_harness::gauge::Gauge;
use postrider_harness::http::{Conn, Request};
use postrider_harness::node::{KEY, Node};
use postrider_harness::raw::{SMALL_BUFFER, unharmed};
use serde_json::json;

use crate::{MIB, alone, size};

/// Of each kind.
const AT_ONCE: usize = 256;
/// What a stream may hold: lines read ahead, a batch at the engine, answers, and hyper's buffers.
const STREAM_BYTES: u64 = 1536 << 10;
/// The bodies' room, made small, beside it.
const ROOM: &str = "32MiB";
const ROOM_BYTES: u64 = 32 * MIB;
/// How soon a drain of 3 s is over, on a busy machine; one of the default takes longer.
const EXIT_WITHIN: Duration = Duration::from_secs(18);

fn streams(node: &Node, recv_buffer: Option<usize>) -> Result<Vec<TcpStream>> {
    let request = Request::new("POST", "/v1/notifications")
        .bearer(KEY)
        .header("Content-Type", "application/x-ndjson")
        .header("Transfer-Encoding", "chunked");
    let addr = node.endpoint.addr()?;
    (0..AT_ONCE)
        .map(|_| {
            let mut stream = Conn::open(addr, recv_buffer)?.into_parts().0;
            stream.write_all(&request.bytes())?;
            stream.set_nonblocking(true)?;
            Ok(stream)
        })
        .collect()
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// One of the attackers: its socket, and how much of its piece is said.
struct Said {
    stream: TcpStream,
    piece: Vec<u8>,
    from: usize,
    total: usize,
}

impl Said {
    /// Says what the socket takes now, at most a piece. A cut is an error.
    fn go_on(&mut self) -> Result<()> {
        match self.stream.write(&self.piece[self.from..]) {
            Ok(bytes) => {
                self.total += bytes;
                self.from = (self.from + bytes) % self.piece.len();
                Ok(())
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(()),
            Err(e) => Err(e).context("a publisher was cut off"),
        }
    }
}

fn say(streams: Vec<TcpStream>, piece: &[u8]) -> Vec<Said> {
    let said = |stream| Said {
        stream,
        piece: piece.to_vec(),
        from: 0,
        total: 0,
    };
    streams.into_iter().map(said).collect()
}

#[test]
fn streams_that_never_read_or_never_end() -> Result<()> {
    let _alone = alone()?;
    let mut node = Node::start(&[("http.bodies", ROOM), ("drain.timeout", "3s")])?;
    unharmed(&node, "ada")?;
    let gauge = Gauge::start(&node)?;
    let others = Bystanders::start(&node)?;
    let line = format!(
        "{}\n",
        json!({"users": ["sink"], "data": "x".repeat(100), "durability": "transient"})
    );
    let mut all = Vec::new();
    // Good lines whose answers nobody reads; lines that do not end; one line now and then.
    all.extend(say(
        streams(&node, Some(SMALL_BUFFER))?,
        &chunk(line.repeat(100).as_bytes()),
    ));
    all.extend(say(streams(&node, None)?, &chunk(&[b'x'; 32 << 10])));
    let mut slow = say(streams(&node, None)?, &chunk(line.as_bytes()));
    let until = Instant::now() + Duration::from_secs(size(3, 30));
    while Instant::now() < until {
        for said in &mut all {
            said.go_on()?;
        }
        for said in &mut slow {
            said.go_on()?;
        }
    }
    let cost = gauge.read()?;
    let total = |said: &[Said]| said.iter().map(|said| said.total).sum::<usize>() >> 20;
    println!(
        "siege: {AT_ONCE} publishers that do not read ({} MiB taken), {AT_ONCE} that do not end a line ({} MiB), \
        {AT_ONCE} that do not end: {cost}; {}",
        total(&all[..AT_ONCE]),
        total(&all[AT_ONCE..]),
        others.stop()?
    );
    let bound = (all.len() + slow.len()) as u64 * STREAM_BYTES + ROOM_BYTES;
    ensure!(cost.peak < bound, "{cost}, where {} MiB are allowed", bound / MIB);
    let began = Instant::now();
    let status = node.terminate(EXIT_WITHIN)?;
    println!(
        "siege: drained beside them in {:.1} s",
        began.elapsed().as_secs_f64()
    );
    ensure!(status.code() == Some(0), "exit status {status}");
    drop((all, slow));
    node.restart()?;
    unharmed(&node, "bob")
}
