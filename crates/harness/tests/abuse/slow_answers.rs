//! Clients that read a large answer slowly, and steadily.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use postrider_harness::http::Request;
use postrider_harness::node::{KEY, Node};
use postrider_harness::publish::Publisher;
use serde_json::json;

use postrider_harness::raw::{SMALL_BUFFER, as_user};

/// How fast they read.
const BYTES_PER_SECOND: usize = 40_000;
/// How often.
const EVERY: Duration = Duration::from_millis(100);
/// An answer is filled up to this, and the entry that exceeds it; over the bridge sooner.
const PAGE_BYTES: usize = 1 << 20;
const BRIDGED_BYTES: usize = 32 << 10;
/// Small segments, so that no buffer takes the answer at once.
const SEGMENT_BYTES: u32 = 536;

/// On a connection that ends with it, one that goes on, and one that the API held before: all of it comes.
#[test]
fn a_large_answer_may_be_read_slowly() -> Result<()> {
    let node = Node::start(&[])?;
    let mut publisher = Publisher::new(&node.endpoint, KEY);
    for _ in 0..6 {
        publisher.accepted(&json!({"users": ["ada"], "data": "x".repeat(250_000)}))?;
    }
    let poll = as_user("ada", "GET", "/v1/inbox?wait=0&ack=none")?;
    let ack = as_user("ada", "POST", "/v1/inbox/ack")?.body("application/json", r#"{"ids":[]}"#);
    let ways = [
        (
            "close",
            None,
            poll.clone().header("Connection", "close"),
            PAGE_BYTES,
        ),
        ("keep-alive", None, poll.clone(), PAGE_BYTES),
        ("bridged", Some(ack), poll, BRIDGED_BYTES),
    ];
    let addr = node.endpoint.addr()?;
    let readers = ways.map(|(name, before, request, least)| {
        std::thread::spawn(move || read_slowly(addr, before, &request, least).context(name))
    });
    for reader in readers {
        reader
            .join()
            .map_err(|_| anyhow::anyhow!("a reader panicked"))??;
    }
    Ok(())
}

fn connect(addr: SocketAddr) -> Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(addr), socket2::Type::STREAM, None)?;
    socket.set_recv_buffer_size(SMALL_BUFFER)?;
    socket.set_tcp_mss(SEGMENT_BYTES)?;
    socket.connect(&addr.into())?;
    Ok(socket.into())
}

fn read_slowly(addr: SocketAddr, before: Option<Request>, request: &Request, least: usize) -> Result<()> {
    let mut stream = connect(addr)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    if let Some(before) = before {
        stream.write_all(&before.bytes())?;
        let mut answer = Vec::new();
        while length(&answer)?.is_none_or(|whole| answer.len() < whole) {
            let mut byte = [0];
            stream
                .read_exact(&mut byte)
                .context("no answer to the request before")?;
            answer.extend(byte);
        }
    }
    stream.write_all(&request.bytes())?;
    let (mut got, mut wanted, began) = (Vec::new(), usize::MAX, Instant::now());
    let mut piece = vec![0; BYTES_PER_SECOND * EVERY.as_millis() as usize / 1000];
    while got.len() < wanted {
        let read = match stream.read(&mut piece) {
            Ok(0) => Ok(0),
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            other => other,
        };
        let read =
            read.with_context(|| format!("after {} of {wanted} bytes, {:?}", got.len(), began.elapsed()))?;
        ensure!(
            read > 0,
            "cut off after {} of {wanted} bytes, {:?}",
            got.len(),
            began.elapsed()
        );
        got.extend_from_slice(&piece[..read]);
        if wanted == usize::MAX {
            wanted = length(&got)?.unwrap_or(wanted);
        }
        std::thread::park_timeout(EVERY);
    }
    ensure!(wanted > least, "the answer was of {wanted} bytes only");
    Ok(())
}

/// How long the whole answer is, once its head is there.
fn length(got: &[u8]) -> Result<Option<usize>> {
    let Some(end) = got.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = String::from_utf8_lossy(&got[..end]).to_lowercase();
    ensure!(head.starts_with("http/1.1 200"), "answered {head}");
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .context("no length")?;
    Ok(Some(end + 4 + length.trim().parse::<usize>()?))
}
