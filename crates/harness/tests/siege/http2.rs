//! HTTP/2 with ill intent: resets, continuations, settings, pings, and streams that nobody reads. By hand, in the
//! clear, since no good client can do this.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use postrider_harness::bystanders::Bystanders;
use postrider_harness::gauge::Gauge;
use postrider_harness::node::KEY;
use postrider_harness::node::Node;
use postrider_harness::publish::Publisher;
use postrider_harness::raw::{SMALL_BUFFER, connect, unharmed};
use postrider_harness::token;
use serde_json::json;

use crate::{MIB, alone, size};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Types of frames (RFC 9113, 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// Connections that do the same at once.
const AT_ONCE: usize = 8;
/// How soon the node must have had enough of what it need not bear, on a busy machine.
const STOPPED_WITHIN: Duration = Duration::from_secs(60);

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// A header as a literal that is not indexed (RFC 7541, 6.2.2), of less than 127 bytes, or of less than 254.
fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut out = vec![0];
    for text in [name, value] {
        match text.len() {
            short @ 0..127 => out.push(short as u8),
            // An integer that does not fit seven bits goes on (RFC 7541, 5.1).
            long => {
                let mut rest = long - 127;
                out.push(127);
                while rest >= 128 {
                    out.push(0x80 | (rest & 127) as u8);
                    rest >>= 7;
                }
                out.push(rest as u8);
            }
        }
        out.extend_from_slice(text.as_bytes());
    }
    out
}

fn request(method: &str, path: &str, authorization: &str) -> Vec<u8> {
    [
        literal(":method", method),
        literal(":scheme", "http"),
        literal(":path", path),
        literal(":authority", "postrider.test"),
        literal("authorization", authorization),
    ]
    .concat()
}

/// A connection that has exchanged nothing yet but its own preface and settings.
fn open(node: &Node, settings: &[(u16, u32)], recv_buffer: Option<usize>) -> Result<TcpStream> {
    let mut stream = connect(node, recv_buffer)?;
    let payload: Vec<u8> = settings
        .iter()
        .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
        .collect();
    stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &payload)].concat())?;
    Ok(stream)
}

/// What one connection says: the `n`th piece.
type Say<'a> = dyn Fn(u32) -> Vec<u8> + Sync + 'a;

/// Says pieces for so long while the answers are read and thrown away; how many, and whether the node had enough.
fn flood(mut writer: TcpStream, say: &Say<'_>, time: Duration) -> Result<(u32, bool)> {
    let mut reader = writer.try_clone()?;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut answers = vec![0; 64 << 10];
            while matches!(reader.read(&mut answers), Ok(1..)) {}
        });
        writer.set_write_timeout(Some(Duration::from_secs(5)))?;
        let until = Instant::now() + time;
        let (mut said, mut cut) = (0, false);
        while Instant::now() < until && !cut {
            match writer.write_all(&say(said)) {
                Ok(()) => said += 1,
                // Taken no longer, or cut off.
                Err(_) => cut = true,
            }
        }
        // It may be gone already.
        if writer.shutdown(std::net::Shutdown::Both).is_err() {
            cut = true;
        }
        Ok((said, cut))
    })
}

/// Two hundred of the same in one write, on streams of the client's own numbering.
fn many(nth: u32, one: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    (0..200).flat_map(|n| one((nth * 200 + n) * 2 + 1)).collect()
}

#[test]
fn floods_of_frames() -> Result<()> {
    let _alone = alone()?;
    let time = Duration::from_millis(size(600, 10_000));
    let node = Node::start(&[])?;
    unharmed(&node, "ada")?;
    let ada = format!("Bearer {}", token::user("ada")?);
    let poll = request("GET", "/v1/inbox?wait=20", &ada);
    let missing = request("GET", "/v1/nowhere", "none");
    let reset = |request: &[u8], stream| {
        let asked = frame(HEADERS, END_HEADERS | END_STREAM, stream, request);
        [asked, frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
    };
    // And whether the node must have had enough of it.
    let floods: [(&str, Box<Say<'_>>, bool); 9] = [
        (
            "requests reset at once",
            Box::new(|nth| many(nth, |stream| reset(&missing, stream))),
            true,
        ),
        (
            "polls reset at once",
            Box::new(|nth| many(nth, |stream| reset(&poll, stream))),
            true,
        ),
        (
            "continuations without end",
            Box::new(|nth| {
                let first = if nth == 0 {
                    frame(HEADERS, 0, 1, &missing)
                } else {
                    Vec::new()
                };
                let more = frame(CONTINUATION, 0, 1, &literal("x-more", "and more")).repeat(200);
                [first, more].concat()
            }),
            true,
        ),
        (
            "empty continuations",
            Box::new(|nth| {
                let first = if nth == 0 {
                    frame(HEADERS, 0, 1, &missing)
                } else {
                    Vec::new()
                };
                [first, frame(CONTINUATION, 0, 1, b"").repeat(200)].concat()
            }),
            true,
        ),
        (
            "settings",
            Box::new(|_| frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]).repeat(200)),
            false,
        ),
        (
            "pings",
            Box::new(|_| frame(PING, 0, 0, b"12345678").repeat(200)),
            false,
        ),
        (
            "priorities",
            Box::new(|nth| many(nth, |stream| frame(PRIORITY, 0, stream, &[0, 0, 0, 0, 1]))),
            false,
        ),
        (
            "window updates that break a stream",
            Box::new(|nth| {
                many(nth, |stream| {
                    let asked = frame(HEADERS, END_HEADERS | END_STREAM, stream, &poll);
                    [asked, frame(WINDOW_UPDATE, 0, stream, &[0; 4])].concat()
                })
            }),
            true,
        ),
        (
            "empty data",
            Box::new(|nth| {
                let post = request("POST", "/v1/notifications", &format!("Bearer {KEY}"));
                let first = if nth == 0 {
                    frame(HEADERS, END_HEADERS, 1, &post)
                } else {
                    Vec::new()
                };
                [first, frame(DATA, 0, 1, b"").repeat(200)].concat()
            }),
            false,
        ),
    ];
    for (name, say, must_end) in floods {
        // Whoever must be stopped goes on until it is.
        let time = if must_end { STOPPED_WITHIN } else { time };
        let gauge = Gauge::start(&node)?;
        let others = Bystanders::start(&node)?;
        let (mut pieces, mut cuts) = (0, 0);
        std::thread::scope(|scope| -> Result<()> {
            let mut clients = Vec::new();
            for _ in 0..AT_ONCE {
                let (stream, say) = (open(&node, &[], None)?, &*say);
                clients.push(scope.spawn(move || flood(stream, say, time)));
            }
            for client in clients {
                let (said, cut) = client
                    .join()
                    .map_err(|_| anyhow::anyhow!("a client panicked"))??;
                pieces += said;
                cuts += usize::from(cut);
            }
            Ok(())
        })
        .context(name)?;
        let cost = gauge.read()?;
        println!(
            "siege: HTTP/2, {name}, {AT_ONCE} at once: {} frames or pairs, {cuts} ended by the node; {cost}; {}",
            pieces * 200,
            others.stop()?
        );
        ensure!(cost.peak < 32 * MIB, "{name}: {cost}");
        ensure!(
            cuts == AT_ONCE || !must_end,
            "{name}: {cuts} of {AT_ONCE} were ended"
        );
    }
    unharmed(&node, "ada")
}

/// A hundred streams of large answers on each connection, which are never read; and a window that is never opened.
#[test]
fn streams_that_are_never_read() -> Result<()> {
    let _alone = alone()?;
    let count = size(20, 200);
    let node = Node::start(&[("limits.sessions_per_user", "100000")])?;
    let mut publisher = Publisher::new(&node.endpoint, KEY);
    for _ in 0..4 {
        publisher.accepted(&json!({"users": ["ada"], "data": "x".repeat(250_000)}))?;
    }
    let small = json!({"users": ["bea"], "data": "x".repeat(900)});
    publisher.array(&vec![small; 1000])?;
    for (name, settings, recv_buffer) in [
        ("a window of nothing", &[(4, 0)][..], None),
        (
            "a large window and a socket that is not read",
            &[(4, 0x7fff_ffff)],
            Some(SMALL_BUFFER),
        ),
    ] {
        for (what, user, path, each) in [
            (
                "polls for small entries",
                "bea",
                "/v1/inbox?wait=0&ack=none&limit=1000",
                MIB / 4,
            ),
            (
                "polls for large ones",
                "ada",
                "/v1/inbox?wait=0&ack=none",
                MIB / 4,
            ),
            ("streams of events", "ada", "/v1/inbox/stream?ack=none", MIB / 2),
        ] {
            let gauge = Gauge::start(&node)?;
            let others = Bystanders::start(&node)?;
            let asked = request("GET", path, &format!("Bearer {}", token::user(user)?));
            let mut held = Vec::new();
            for _ in 0..count {
                let mut stream = open(&node, settings, recv_buffer)?;
                let all = (0..100).flat_map(|n| frame(HEADERS, END_HEADERS | END_STREAM, n * 2 + 1, &asked));
                stream.write_all(&all.collect::<Vec<u8>>())?;
                held.push(stream);
            }
            // Polls are answered, and streams of events are opened, in their own time.
            settle(&gauge)?;
            let cost = gauge.read()?;
            println!(
                "siege: HTTP/2, {count} times 100 {what} that nobody reads, with {name}: {cost}; {}",
                others.stop()?
            );
            // Of each an outbox in the loop, or the one entry that exceeds it, and buffers on the way.
            let bound = (count * 100).min(8192) * each + 64 * MIB;
            ensure!(cost.peak < bound, "{what}, {name}: {cost}");
            drop(held);
        }
    }
    unharmed(&node, "bob")
}

/// Until memory has not grown for a second, or for ten.
fn settle(gauge: &Gauge) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(10);
    let mut before = u64::MAX;
    while Instant::now() < until {
        let peak = gauge.read()?.peak;
        if peak == before {
            return Ok(());
        }
        before = peak;
        std::thread::park_timeout(Duration::from_secs(1));
    }
    Ok(())
}

/// Not even a preface, or half of one.
#[test]
fn prefaces_that_do_not_go_on() -> Result<()> {
    let _alone = alone()?;
    let node = Node::start(&[("http.head_timeout", "2s"), ("http.idle_timeout", "2s")])?;
    let listening = node.open_sockets()?;
    unharmed(&node, "ada")?;
    let others = Bystanders::start(&node)?;
    let mut held = Vec::new();
    for nth in 0..size(300, 3000) {
        let mut stream = connect(&node, None)?;
        stream.write_all(&PREFACE[..nth % (PREFACE.len() + 1)])?;
        stream.set_nonblocking(true)?;
        held.push(stream);
    }
    let began = Instant::now();
    while node.open_sockets()? > listening + 20 {
        ensure!(
            began.elapsed() < Duration::from_secs(90),
            "{} are still there",
            node.open_sockets()? - listening
        );
        // They close once they are told to, as clients do; the node does not wait for those that do not for long.
        held.retain_mut(|stream| !matches!(stream.read(&mut [0; 1024]), Ok(0)));
        std::thread::park_timeout(Duration::from_millis(50));
    }
    println!(
        "siege: prefaces that do not go on: let go in {:.1} s; {}",
        began.elapsed().as_secs_f64(),
        others.stop()?
    );
    Ok(())
}
