//! The bytes of an event stream, read by a parser of its own that does what the HTML standard says and nothing else.
//!
//! Invariant checked: however the bytes are cut, and whichever of the standard's line ends they had, the events are the
//! same: those that were published, each once, in order, with their data as it was written.

#![allow(missing_docs, clippy::unwrap_used)]
#![allow(
    clippy::disallowed_methods,
    reason = "a black-box test is a driver: it reads clocks, spawns and draws"
)]

mod standard;

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use postrider_harness::http::{Conn, Piece, Request};
use postrider_harness::inbox::{Connect, Received, Transport};
use postrider_harness::node::{KEY, Node};
use postrider_harness::publish::Publisher;
use postrider_harness::token;
use postrider_harness::wait::within;
use serde_json::{Value, json};

use standard::{Event, Source};

const USER: &str = "ada";

/// What the standard gives a meaning, what JSON escapes and what it does not, and what has several bytes.
const ALPHABET: [&str; 24] = [
    "\r",
    "\n",
    "\r\n",
    "\n\n",
    ":",
    " ",
    "data:",
    "id: 7",
    "event: x",
    "retry: 1",
    "\0",
    "\u{feff}",
    "\u{2028}",
    "\u{85}",
    "\u{b}",
    "\"",
    "\\",
    "é",
    "漢",
    "😀",
    "\u{10ffff}",
    "{",
    "}",
    "a",
];

/// Texts of up to seven parts, drawn from a seed.
fn texts(count: usize) -> Vec<String> {
    let mut state = 0x5eed_u64;
    let mut draw = |most: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % most
    };
    (0..count)
        .map(|_| {
            let parts = draw(8);
            (0..parts).map(|_| ALPHABET[draw(ALPHABET.len())]).collect()
        })
        .collect()
}

/// The bytes of a stream, from its beginning until `done` says that enough has come.
fn read(node: &Node, done: impl Fn(&[Event]) -> bool) -> Result<Vec<u8>> {
    let mut conn = Conn::open(node.endpoint.addr()?, None)?;
    let request = Request::new("GET", "/v1/inbox/stream?ack=none&state=1").bearer(&token::user(USER)?);
    conn.write(&request.bytes())?;
    let deadline = within(60);
    let head = conn.head(deadline)?.context("no answer")?;
    ensure!(head.status == 200, "answered {}", head.status);
    let mut bytes = Vec::new();
    while !done(&parse([bytes.as_slice()]).events) {
        match conn.piece(deadline)? {
            Piece::Bytes(more) => bytes.extend(more),
            other => anyhow::bail!("{other:?} after {} bytes", bytes.len()),
        }
    }
    // The cursor that follows the last batch.
    while !bytes.ends_with(b"\n\n")
        || !bytes[..bytes.len() - 2]
            .rsplit(|b| *b == b'\n')
            .next()
            .is_some_and(|line| line.starts_with(b"id: "))
    {
        match conn.piece(deadline)? {
            Piece::Bytes(more) => bytes.extend(more),
            other => anyhow::bail!("{other:?} before a cursor"),
        }
    }
    Ok(bytes)
}

fn parse<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Source {
    let mut source = Source::default();
    pieces.into_iter().for_each(|piece| source.feed(piece));
    source
}

/// Publishes texts, cancels the last, and returns their ids.
fn publish(node: &Node, texts: &[String]) -> Result<Vec<String>> {
    let mut publisher = Publisher::new(&node.endpoint, KEY);
    let ids = texts
        .iter()
        .map(|text| publisher.accepted(&json!({"users": [USER], "subject": text, "data": {"text": text}})))
        .collect::<Result<Vec<_>>>()?;
    ensure!(publisher.cancel(ids.last().context("no texts")?)?.status() == 200);
    Ok(ids)
}

fn named<'a>(events: &'a [Event], name: &str) -> Vec<&'a Event> {
    events.iter().filter(|event| event.name == name).collect()
}

#[test]
fn the_standards_parser_reads_what_was_published() -> Result<()> {
    let node = Node::start(&[("engine.type", "memory")])?;
    let texts = texts(200);
    let ids = publish(&node, &texts)?;
    let kept = ids.len() - 1;
    let bytes = read(&node, |events| named(events, "notification").len() >= kept)?;
    let source = parse([bytes.as_slice()]);

    ensure!(source.retry.is_some(), "no time to come back in");
    ensure!(
        source.unknown.is_empty(),
        "fields that nobody knows: {:?}",
        source.unknown
    );
    let names: Vec<&str> = source.events.iter().map(|event| event.name.as_str()).collect();
    ensure!(
        names[0] == "state"
            && names
                .iter()
                .all(|name| ["state", "notification", "withdrawn"].contains(name)),
        "{names:?}"
    );
    let notifications = named(&source.events, "notification");
    for ((event, id), text) in notifications.iter().zip(&ids).zip(&texts) {
        let body: Value = serde_json::from_str(&event.data)?;
        ensure!(
            body["id"] == **id && body["subject"] == **text && body["data"]["text"] == **text,
            "{text:?} came as {body}"
        );
    }
    ensure!(notifications.len() == kept, "{} of {kept}", notifications.len());
    ensure!(!source.last_event_id.is_empty(), "no cursor came");

    // From the id that EventSource would come back with, nothing is missing and nothing comes again.
    let next = Publisher::new(&node.endpoint, KEY).accepted(&json!({"users": [USER], "data": "next"}))?;
    let mut back = Connect::new(&node.endpoint, &token::user(USER)?)
        .cursor(&source.last_event_id)
        .open(Transport::Sse)?;
    let first = loop {
        match back.next(within(60))?.context("nothing came")? {
            Received::Notification(notification) => break notification.id,
            Received::End(end) => anyhow::bail!("the stream ended: {end:?}"),
            _ => {}
        }
    };
    ensure!(first == next, "came back to {first} instead of {next}");
    Ok(())
}

#[test]
fn pieces_and_line_ends_change_nothing() -> Result<()> {
    let started = Instant::now();
    let node = Node::start(&[("engine.type", "memory")])?;
    let texts = texts(30);
    let ids = publish(&node, &texts)?;
    let bytes = read(&node, |events| {
        named(events, "notification").len() >= ids.len() - 1
    })?;
    let whole = parse([bytes.as_slice()]);
    for at in 0..=bytes.len() {
        let (one, other) = bytes.split_at(at);
        ensure!(parse([one, other]) == whole, "cut at {at} of {}", bytes.len());
    }
    for size in 1..=8 {
        ensure!(parse(bytes.chunks(size)) == whole, "in pieces of {size}");
    }
    // No data holds a line end, so the stream may have any of the three, and a mark at its beginning.
    for end in ["\r", "\r\n"] {
        let other: Vec<u8> = bytes
            .iter()
            .flat_map(|byte| {
                if *byte == b'\n' {
                    end.as_bytes()
                } else {
                    std::slice::from_ref(byte)
                }
            })
            .copied()
            .collect();
        ensure!(
            parse([other.as_slice()]) == whole && parse(other.chunks(1)) == whole,
            "with {end:?}"
        );
    }
    let marked = [b"\xef\xbb\xbf", bytes.as_slice()].concat();
    ensure!(parse(marked.chunks(1)) == whole, "with a byte order mark");
    println!("{} bytes in {:?}", bytes.len(), started.elapsed());
    Ok(())
}
