//! Bodies under way: thousands of connections that each announce as much as one may send, and send most of it.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use postrider_harness::bystanders::Bystanders;
use postrider_harness::gauge::Gauge;
use postrider_harness::http::{Conn, Request};
use postrider_harness::node::{KEY, Node};
use postrider_harness::publish::Publisher;
use postrider_harness::raw::unharmed;
use postrider_harness::wait::{until_true, within};
use serde_json::json;

use crate::{MIB, alone, size};

/// What each announces: `http.max_body`.
const ANNOUNCED: usize = 16 << 20;
/// What each may hold beside the room of all: its free bytes, and hyper's buffers.
const CONNECTION_BYTES: u64 = 384 << 10;
/// By how much the allocator may take more than the bodies' bytes, which move as they grow.
const ALLOCATOR: u64 = 2;

struct Body {
    stream: TcpStream,
    sent: usize,
    /// What the node said; an answer before the end is a refusal.
    answer: Vec<u8>,
    is_over: bool,
}

impl Body {
    fn begin(node: &Node) -> Result<Body> {
        let request = Request::new("POST", "/v1/notifications")
            .bearer(KEY)
            .header("Content-Type", "application/json")
            .header("Content-Length", &ANNOUNCED.to_string());
        let mut stream = Conn::open(node.endpoint.addr()?, None)?.into_parts().0;
        stream.write_all(&request.bytes())?;
        stream.set_nonblocking(true)?;
        Ok(Body {
            stream,
            sent: 0,
            answer: Vec::new(),
            is_over: false,
        })
    }

    /// Sends a piece of it, all but the last byte, and looks for an answer.
    fn go_on(&mut self, piece: &[u8]) -> Result<()> {
        let left = (ANNOUNCED - 1 - self.sent).min(piece.len());
        if left > 0 {
            match self.stream.write(&piece[..left]) {
                Ok(bytes) => self.sent += bytes,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(_) => self.is_over = true,
            }
        }
        let mut answer = [0; 4096];
        match self.stream.read(&mut answer) {
            Ok(0) => self.is_over = true,
            Ok(bytes) => self.answer.extend_from_slice(&answer[..bytes]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.is_over = true,
        }
        Ok(())
    }

    fn is_refused(&self) -> bool {
        self.answer.starts_with(b"HTTP/1.1 503")
    }
}

#[test]
fn bodies_under_way() -> Result<()> {
    let _alone = alone()?;
    let (count, room) = size((400, 64), (4000, 256));
    let node = Node::start(&[("http.bodies", &format!("{room}MiB"))])?;
    unharmed(&node, "ada")?;
    let gauge = Gauge::start(&node)?;
    // Small notifications need no room.
    let others = Bystanders::start(&node)?;
    let piece = vec![b' '; 256 << 10];
    let mut bodies = (0..count)
        .map(|_| Body::begin(&node))
        .collect::<Result<Vec<_>>>()?;
    // Whoever is refused is listened to for a while first, since many clients write before they read.
    let until = Instant::now() + Duration::from_secs(size(60, 120));
    let mut refused = 0;
    while Instant::now() < until && refused < bodies.len() / 2 {
        for body in bodies.iter_mut().filter(|body| !body.is_over) {
            body.go_on(&piece)?;
        }
        refused = bodies.iter().filter(|body| body.is_refused()).count();
    }
    let cost = gauge.read()?;
    let sent: usize = bodies.iter().map(|body| body.sent).sum();
    println!(
        "siege: {count} bodies of 16 MiB under way, {} MiB sent, {refused} refused: {cost}; {}",
        sent >> 20,
        others.stop()?
    );
    // What the store and the others take meanwhile is in it, too.
    let bound = ALLOCATOR * room * MIB + count * CONNECTION_BYTES + 64 * MIB;
    ensure!(cost.peak < bound, "{cost}, where {} MiB are allowed", bound / MIB);
    ensure!(
        refused >= bodies.len() / 2,
        "{refused} were refused, though {} MiB were sent",
        sent >> 20
    );
    for body in bodies.iter().filter(|body| body.is_refused()) {
        let text = String::from_utf8_lossy(&body.answer).to_lowercase();
        ensure!(text.contains("retry-after: "), "without Retry-After: {text}");
    }
    drop(bodies);
    // Whoever holds room gives it back when it goes: one more large body finds all of it.
    let large = format!(
        "{}{}",
        json!({"users": ["ada"], "data": 1}),
        " ".repeat(15_000_000)
    );
    until_true("a large body to be taken", within(60), || {
        let answer = Publisher::new(&node.endpoint, KEY).raw("application/json", large.as_str());
        Ok(answer.context("a large body")?.status() == 202)
    })
}
