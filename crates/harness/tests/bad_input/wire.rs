//! Bad HTTP: what comes before there is a request, and requests that are unusual but right.

use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use postrider_harness::http::{Conn, Cut, Request};
use postrider_harness::inbox::{Connect, End, Received, Transport, wait_for};
use postrider_harness::node::KEY;
use postrider_harness::publish::Publisher;
use postrider_harness::raw::{self, Frame, Socket};
use postrider_harness::token;
use postrider_harness::user::User;
use postrider_harness::wait::within;
use serde_json::json;

use crate::{Bench, judge, wanted};

fn open(bench: &Bench) -> Result<Conn> {
    Conn::open(bench.node.endpoint.addr()?, None)
}

/// Bytes that are no request: an answer of 4xx or a closed connection, and never a request done.
#[test]
fn garbage_instead_of_http() -> Result<()> {
    let mut bench = Bench::start()?;
    let publish = r#"{"users":["ada"],"data":1}"#;
    let head = |lines: &str| {
        format!("POST /v1/notifications HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n{lines}\r\n\r\n")
            .into_bytes()
    };
    let with_body = |lines: &str, body: &str| [head(lines), body.as_bytes().to_vec()].concat();
    let length = publish.len();
    let smuggled = format!("{:x}\r\n{publish}\r\n0\r\n\r\n", length);
    let garbage: Vec<(&str, Vec<u8>)> = vec![
        (
            "a TLS hello",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(20),
        ),
        ("zero bytes", vec![0; 4096]),
        ("high bytes", vec![0xff; 4096]),
        ("lines", b"hello\r\nworld\r\n\r\n".to_vec()),
        (
            "half an HTTP/2 preface",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\nX\n".to_vec(),
        ),
        ("HTTP/0.9", b"GET /v1/inbox\r\n\r\n".to_vec()),
        ("HTTP/3.7", b"GET /v1/inbox HTTP/3.7\r\nHost: x\r\n\r\n".to_vec()),
        ("no Host", b"GET /v1/inbox HTTP/1.1\r\n\r\n".to_vec()),
        (
            "space in a header name",
            b"GET /v1/inbox HTTP/1.1\r\nHost : x\r\n\r\n".to_vec(),
        ),
        (
            "NUL in a header",
            b"GET /v1/inbox HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n".to_vec(),
        ),
        (
            "bare CR in a header",
            b"GET /v1/inbox HTTP/1.1\r\nHost: x\r\nA: b\rc: d\r\n\r\n".to_vec(),
        ),
        (
            "two lengths",
            with_body(&format!("Content-Length: {length}\r\nContent-Length: 5"), publish),
        ),
        ("a negative length", with_body("Content-Length: -1", publish)),
        ("a length in hex", with_body("Content-Length: 0x1a", publish)),
        (
            "a length with a sign",
            with_body(&format!("Content-Length: +{length}"), publish),
        ),
        (
            "length and chunked",
            with_body(
                &format!("Content-Length: {length}\r\nTransfer-Encoding: chunked"),
                "x",
            ),
        ),
        (
            "an unknown coding",
            with_body("Transfer-Encoding: gzip, identity", &smuggled),
        ),
        (
            "a bad chunk size",
            with_body(
                "Transfer-Encoding: chunked",
                &format!("zz\r\n{publish}\r\n0\r\n\r\n"),
            ),
        ),
        (
            "a chunk size that overflows",
            with_body("Transfer-Encoding: chunked", "fffffffffffffffff\r\nx"),
        ),
        ("a head of 1 MiB", head(&format!("X: {}", "x".repeat(1 << 20)))),
        ("10,000 headers", head(&"X: y\r\n".repeat(10_000))),
        (
            "a target of 1 MiB",
            format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(1 << 20)).into_bytes(),
        ),
    ];
    for (name, bytes) in garbage {
        let mut conn = open(&bench)?;
        // The server may close while this is still being written.
        if let Err(e) = conn.write(&bytes) {
            println!("bad_input: {name}: closed while writing ({e:#})");
        }
        match conn.answer(within(30)) {
            Ok(Some(answer)) => {
                ensure!(
                    (400..=505).contains(&answer.status()),
                    "{name}: {} {}",
                    answer.status(),
                    answer.text()
                );
            }
            Ok(None) => anyhow::bail!("{name}: neither answered nor closed"),
            Err(_) => {}
        }
        bench.unharmed().with_context(|| format!("after {name}"))?;
    }
    Ok(())
}

/// Heads that never end and bodies that stop: they hold a connection for a bounded time and nobody else.
#[test]
fn slow_heads_and_half_bodies() -> Result<()> {
    let mut bench = Bench::start()?;
    let body = r#"{"users":["ada"],"data":1}"#;
    let whole = Request::new("POST", "/v1/notifications")
        .bearer(KEY)
        .body("application/json", body)
        .bytes();
    let mut held = Vec::new();
    for _ in 0..200 {
        let mut conn = open(&bench)?;
        conn.write(b"GET /v1/inbox HTTP/1.1\r\nHost: x\r\nX-Slow: ")?;
        held.push(conn);
    }
    for cut in [whole.len() - 1, whole.len() - body.len(), 40] {
        let mut conn = open(&bench)?;
        conn.write(&whole[..cut])?;
        held.push(conn);
    }
    bench.unharmed()?;
    // Half a request that is then given up publishes nothing.
    for how in [Cut::Close, Cut::Reset] {
        let mut conn = open(&bench)?;
        conn.write(&whole[..whole.len() - 1])?;
        conn.cut(how);
        bench.unharmed()?;
    }
    let deadline = within(90);
    for mut conn in held {
        ensure!(
            conn.closed_by(deadline),
            "a head that never ends held its connection for 90 s"
        );
    }
    bench.unharmed()
}

/// More polls behind one another than a read takes: each has its turn, and its answer.
#[test]
fn pipelined_polls_are_all_answered() -> Result<()> {
    const POLLS: usize = 500;

    let mut bench = Bench::start()?;
    let mut conn = open(&bench)?;
    let poll = raw::as_user("eve", "GET", "/v1/inbox?wait=0")?.bytes();
    ensure!(poll.len() * POLLS > 80_000, "they fit one read");
    conn.write(&poll.repeat(POLLS))?;
    for nth in 0..POLLS {
        let answer = conn.answer(within(20))?.context("no answer")?;
        ensure!(answer.status() == 200, "{nth}: {}", answer.text());
    }
    bench.unharmed()
}

#[test]
fn pipelined_requests_are_answered_in_order() -> Result<()> {
    let mut bench = Bench::start()?;
    let mut conn = open(&bench)?;
    let mut bytes = Vec::new();
    let publish = |n: u32| {
        let body = json!({"id": format!("n{n}"), "users": ["eve"], "data": n}).to_string();
        Request::new("POST", "/v1/notifications")
            .bearer(KEY)
            .body("application/json", body)
            .bytes()
    };
    for n in 0..20 {
        bytes.extend(publish(n));
        bytes.extend(
            Request::new("GET", &format!("/v1/notifications/n{n}"))
                .bearer(KEY)
                .bytes(),
        );
        bytes.extend(Request::new("GET", "/v1/nowhere").bearer(KEY).bytes());
    }
    conn.write(&bytes)?;
    for n in 0..20 {
        for wanted in [202, 200, 404] {
            let answer = conn.answer(within(20))?.context("no answer")?;
            ensure!(
                answer.status() == wanted,
                "{n}: wanted {wanted}, got {} {}",
                answer.status(),
                answer.text()
            );
            if wanted != 404 {
                ensure!(answer.json()?["id"] == format!("n{n}"), "answers out of order");
            }
        }
    }
    ensure!(User::new(&bench.node.endpoint, "eve")?.pending()?.len() == 20);
    bench.unharmed()
}

#[test]
fn unusual_but_right() -> Result<()> {
    let mut bench = Bench::start()?;
    let body = r#"{"users":["eve"],"data":1}"#;
    let head = format!("Host: x\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n");
    // Chunks of one byte, an extension, and a trailer.
    let mut chunks: String = body.chars().map(|c| format!("1;x=y\r\n{c}\r\n")).collect();
    chunks.push_str("0\r\nX-Trailer: t\r\n\r\n");
    let length = body.len();
    let cases = [
        (
            "chunked",
            format!("POST /v1/notifications HTTP/1.1\r\n{head}Transfer-Encoding: chunked\r\n\r\n{chunks}"),
        ),
        (
            "HTTP/1.0",
            format!("POST /v1/notifications HTTP/1.0\r\n{head}Content-Length: {length}\r\n\r\n{body}"),
        ),
        (
            "names in any case",
            format!(
                "POST /v1/notifications HTTP/1.1\r\nhOST: x\r\nauthorization: bearer {KEY}\r\n\
                 content-TYPE: Application/JSON; charset=utf-8\r\ncontent-length: {length}\r\n\r\n{body}"
            ),
        ),
        (
            "absolute form",
            format!(
                "POST http://x/v1/notifications HTTP/1.1\r\n{head}Content-Length: {length}\r\n\r\n{body}"
            ),
        ),
        (
            "connection: close",
            format!(
                "POST /v1/notifications HTTP/1.1\r\n{head}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}"
            ),
        ),
    ];
    for (name, bytes) in &cases {
        let mut conn = open(&bench)?;
        conn.write(bytes.as_bytes())?;
        let answer = conn
            .answer(within(20))?
            .with_context(|| format!("{name}: no answer"))?;
        ensure!(
            answer.status() == 202,
            "{name}: {} {}",
            answer.status(),
            answer.text()
        );
    }
    // `Expect: 100-continue` is answered before the body is sent.
    let mut conn = open(&bench)?;
    let expect = format!(
        "POST /v1/notifications HTTP/1.1\r\n{head}Expect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
    );
    conn.write(expect.as_bytes())?;
    let interim = conn.head(within(20))?.context("no interim answer")?;
    ensure!(interim.status == 100, "{interim:?}");
    conn.write(body.as_bytes())?;
    ensure!(conn.answer(within(20))?.context("no answer")?.status() == 202);
    let pending = User::new(&bench.node.endpoint, "eve")?.pending()?;
    ensure!(
        pending.len() == cases.len() + 1,
        "{} of {} arrived",
        pending.len(),
        cases.len() + 1
    );
    bench.unharmed()
}

/// A byte at a time is slow, not wrong.
#[test]
fn a_request_in_single_bytes() -> Result<()> {
    let bench = Bench::start()?;
    let body = r#"{"users":["eve"],"data":1}"#;
    let whole = Request::new("POST", "/v1/notifications")
        .bearer(KEY)
        .body("application/json", body)
        .bytes();
    let mut conn = open(&bench)?;
    for byte in whole {
        conn.write(&[byte])?;
    }
    let answer = conn.answer(within(20))?.context("no answer")?;
    ensure!(answer.status() == 202, "{} {}", answer.status(), answer.text());
    Ok(())
}

/// What a WebSocket client must not send ends its session with 4501 and harms no other.
#[test]
fn bad_websocket_frames() -> Result<()> {
    let mut bench = Bench::start()?;
    let token = token::user("zoe")?;
    let frames = [
        json!({"type": "nonsense"}),
        json!({"no": "type"}),
        json!([]),
        json!("text"),
        json!({"type": "ack"}),
        json!({"type": "ack", "ids": "n"}),
        json!({"type": "ack", "ids": [7]}),
        json!({"type": "ack", "cursor": "nonsense"}),
        json!({"type": "read", "ids": null}),
        json!({"type": "token"}),
        json!({"type": "notification", "id": "forged", "data": 1}),
    ];
    for frame in frames {
        let mut socket = Connect::new(&bench.node.endpoint, &token).open(Transport::WebSocket)?;
        socket.send(&frame)?;
        // A fault that harms only itself may be told as an error frame; anything else closes with 4501.
        let told = |r: &Received| match r {
            Received::Error(code) => Some(format!("error {code}")),
            Received::End(End::Closed(4501, reason)) => Some(reason.clone()),
            _ => None,
        };
        let told =
            wait_for(&mut *socket, within(20), "the refusal", told).with_context(|| frame.to_string())?;
        ensure!(!told.is_empty(), "{frame}: closed without a reason");
    }
    // Frames that break RFC 6455 itself: unmasked, reserved bits, a huge length, a fragmented ping.
    let raw: [&[u8]; 5] = [
        b"\x81\x02{}",
        b"\xf1\x80\0\0\0\0",
        b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0",
        b"\x09\x80\0\0\0\0",
        b"\x83\x80\0\0\0\0",
    ];
    for bytes in raw {
        let mut conn = open(&bench)?;
        let request = Request::new("GET", "/v1/inbox/ws")
            .bearer(&token)
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
        conn.write(&request.bytes())?;
        ensure!(conn.head(within(20))?.context("no handshake")?.status == 101);
        conn.write(bytes)?;
        ensure!(
            conn.closed_by(within(20)),
            "a broken frame {bytes:x?} did not end the connection"
        );
    }
    bench.unharmed()
}

/// A body that its `Content-Length` promises to be far too large is refused without being waited for.
#[test]
fn a_promise_of_too_much_is_refused_at_once() -> Result<()> {
    let mut bench = Bench::start()?;
    let mut conn = open(&bench)?;
    let head = format!(
        "POST /v1/notifications HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\
         Content-Type: application/json\r\nContent-Length: 1000000000\r\n\r\n"
    );
    conn.write(head.as_bytes())?;
    let started = Instant::now();
    let answer = conn.answer(within(20))?.context("waited for a gigabyte")?;
    judge(&answer, &wanted(&[413], "too_large"))?;
    ensure!(
        started.elapsed() < Duration::from_secs(15),
        "answered only after {:?}",
        started.elapsed()
    );
    let mut publisher = Publisher::new(&bench.node.endpoint, KEY);
    ensure!(publisher.look("no-such-id")?.status() == 404);
    bench.unharmed()
}

/// What comes in one read may be wrong twice: the first fault is told, and nothing is said after a close.
#[test]
fn a_websocket_is_closed_once() -> Result<()> {
    let mut bench = Bench::start()?;
    let mut socket = Socket::open(&bench.node, "ada", "", None)?;
    let reserved_bit = b"\xf1\x80\0\0\0\0";
    let both = [raw::frame(1, b"no frame of this protocol"), reserved_bit.to_vec()].concat();
    socket.writer()?.write_all(&both)?;
    let close = loop {
        match socket.next(within(20))?.context("no close")? {
            Frame::Close(payload) => break payload,
            Frame::Text(_) | Frame::Ping(_) | Frame::Other => {}
        }
    };
    ensure!(
        close.starts_with(&4501u16.to_be_bytes()),
        "closed with {close:x?}"
    );
    ensure!(socket.next(within(20)).is_err(), "a frame came after the close");
    bench.unharmed()
}
