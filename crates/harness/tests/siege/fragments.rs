//! WebSocket frames that are many and small, or never make a whole.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use postrider_harness::bystanders::Bystanders;
use postrider_harness::gauge::Gauge;
use postrider_harness::node::Node;
use postrider_harness::raw::{Frame, Socket, frame, part, unharmed};
use postrider_harness::wait::within;

use crate::{MIB, alone, size};

/// Sockets that do the same at once.
const AT_ONCE: usize = 4;
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const PING: u8 = 9;
const PONG: u8 = 10;
const FINAL: u8 = 0x80;
/// What is said, in each way, that the node has to bear.
const ACK: &[u8] = br#"{"type":"ack","ids":["none"],"ref":1}"#;

/// A message in fragments of one byte.
fn in_bytes(message: &[u8]) -> Vec<u8> {
    let last = message.len() - 1;
    let first_byte = |at| if at == 0 { TEXT } else { CONTINUATION } | if at == last { FINAL } else { 0 };
    let parts = message
        .iter()
        .enumerate()
        .map(|(at, byte)| part(first_byte(at), &[*byte]));
    parts.flatten().collect()
}

#[test]
fn many_small_frames() -> Result<()> {
    let _alone = alone()?;
    let time = Duration::from_millis(size(600, 5000));
    let node = Node::start(&[])?;
    unharmed(&node, "ada")?;
    // What each socket says again and again, and whether it may.
    let floods = [
        ("acks in fragments of a byte", in_bytes(ACK), true),
        ("pings", frame(PING, b""), true),
        ("pongs", frame(PONG, b"unasked"), true),
        (
            "pings between fragments",
            [part(TEXT, b"\""), frame(PING, b""), part(FINAL, b"\"")].concat(),
            false,
        ),
        ("empty continuations", part(CONTINUATION, b""), false),
        (
            "messages of empty fragments",
            [part(TEXT, b""), part(FINAL, b"")].concat(),
            false,
        ),
        ("empty texts", frame(TEXT, b""), false),
    ];
    for (name, piece, may) in floods {
        let gauge = Gauge::start(&node)?;
        let others = Bystanders::start(&node)?;
        let said = std::thread::scope(|scope| -> Result<usize> {
            let sockets = (0..AT_ONCE).map(|nth| Socket::open(&node, &format!("flood-{nth}"), "", None));
            let sockets = sockets.collect::<Result<Vec<_>>>()?;
            let clients: Vec<_> = sockets
                .into_iter()
                .map(|socket| {
                    let piece = &piece;
                    scope.spawn(move || say_and_read(socket, piece, time))
                })
                .collect();
            let mut said = 0;
            for client in clients {
                let (bytes, cut) = client
                    .join()
                    .map_err(|_| anyhow::anyhow!("a client panicked"))??;
                ensure!(cut != may, "cut off: {cut}, after {bytes} bytes");
                said += bytes;
            }
            Ok(said)
        })
        .context(name)?;
        let cost = gauge.read()?;
        println!(
            "siege: {name}, {AT_ONCE} at once: {} KiB said; {cost}, {:.2} cores; {}",
            said >> 10,
            cost.cores(),
            others.stop()?
        );
        ensure!(cost.peak < 24 * MIB, "{name}: {cost}");
    }
    unharmed(&node, "ada")
}

/// Says it for so long while another thread reads what comes; returns how much, and whether the node ended it.
fn say_and_read(socket: Socket, piece: &[u8], time: Duration) -> Result<(usize, bool)> {
    let mut writer = socket.writer()?;
    let mut reader = writer.try_clone()?;
    reader.set_read_timeout(Some(time + Duration::from_secs(60)))?;
    std::thread::scope(|scope| {
        let reading = scope.spawn(move || read_to_end(&mut reader));
        let (mut said, mut cut) = (0, false);
        let until = Instant::now() + time;
        let pieces = piece.repeat(1000);
        writer.set_write_timeout(Some(Duration::from_secs(60)))?;
        while Instant::now() < until && !cut {
            match writer.write(&pieces[said % piece.len()..]) {
                Ok(bytes) => said += bytes,
                Err(_) => cut = true,
            }
        }
        // Half a close: the node's answer to it is the end, unless it had ended before.
        cut |= writer.shutdown(std::net::Shutdown::Write).is_err();
        drop(socket);
        let closed_by_node = reading.join().map_err(|_| anyhow::anyhow!("a reader panicked"))?;
        Ok((said, cut || closed_by_node))
    })
}

/// Whether a close frame came before the end.
fn read_to_end(stream: &mut TcpStream) -> bool {
    let mut piece = vec![0; 64 << 10];
    let mut end = Vec::new();
    while let Ok(read @ 1..) = stream.read(&mut piece) {
        end.extend_from_slice(&piece[..read]);
        // A close frame is the last, and short.
        let keep = end.len().saturating_sub(256);
        end.drain(..keep);
    }
    end.windows(2).any(|pair| pair[0] == 0x88 && pair[1] < 126)
}

/// The same message in segments of one byte each.
#[test]
fn single_byte_segments() -> Result<()> {
    let _alone = alone()?;
    let node = Node::start(&[])?;
    unharmed(&node, "ada")?;
    let gauge = Gauge::start(&node)?;
    let others = Bystanders::start(&node)?;
    let until = Instant::now() + Duration::from_millis(size(600, 5000));
    let mut sockets = Vec::new();
    for nth in 0..100 {
        sockets.push(Socket::open(&node, &format!("bytes-{nth}"), "", None)?.writer()?);
    }
    let message = frame(TEXT, br#"{"type":"ack","ids":["none"]}"#);
    let mut segments = 0;
    while Instant::now() < until {
        for byte in &message {
            for socket in &mut sockets {
                socket.write_all(&[*byte]).context("cut off")?;
                segments += 1;
            }
        }
    }
    let cost = gauge.read()?;
    println!(
        "siege: {segments} segments of a byte: {cost}, {:.2} cores; {}",
        cost.cores(),
        others.stop()?
    );
    ensure!(cost.peak < 16 * MIB, "{cost}");
    Ok(())
}

/// Messages that are begun and never finished: each may hold what a message may, and no more.
#[test]
fn fragments_that_never_make_a_message() -> Result<()> {
    const MESSAGE: u64 = 64 << 10;

    let _alone = alone()?;
    let count = size(500, 4000);
    let node = Node::start(&[("limits.sessions_per_user", "100")])?;
    unharmed(&node, "ada")?;
    let gauge = Gauge::start(&node)?;
    let others = Bystanders::start(&node)?;
    let begin = vec![b' '; 60_000];
    let mut sockets = Vec::new();
    for nth in 0..count {
        let mut socket = Socket::open(&node, &format!("part-{}", nth / 50), "", None)?;
        socket.send_part(TEXT, &begin)?;
        sockets.push(socket);
    }
    let cost = gauge.read()?;
    println!(
        "siege: {count} unfinished messages: {} bytes each; {cost}; {}",
        cost.peak / count,
        others.stop()?
    );
    ensure!(cost.peak < count * MESSAGE * 2 + 16 * MIB, "{cost}");
    // One that goes on is closed where a message may not be longer.
    sockets[0].send_part(CONTINUATION, &[b' '; 6000])?;
    loop {
        match sockets[0].next(within(30))?.context("it was not closed")? {
            Frame::Close(why) => {
                ensure!(why.starts_with(&1009_u16.to_be_bytes()), "closed by {why:?}");
                break;
            }
            _ => continue,
        }
    }
    unharmed(&node, "ada")
}
