//! Heads, bodies and lines that are giant or have no end, from several clients at once.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use postrider_harness::bystanders::Bystanders;
use postrider_harness::gauge::Gauge;
use postrider_harness::http::Request;
use postrider_harness::node::{KEY, Node};
use postrider_harness::publish::Publisher;
use postrider_harness::raw::{connect, flood};

use crate::{MIB, alone, is_full, size};

/// Clients that do the same at once.
const AT_ONCE: usize = 8;
/// How soon whoever says a head without end is cut off: what it goes on to say is thrown away for a while, so that
/// it can read the answer.
const CUT_WITHIN: Duration = Duration::from_secs(15);
/// What memory may grow by for all heads at once.
const HEADS_BYTES: u64 = 16 * MIB;
/// And for bodies and lines of `http.max_body`, each of which is copied once as it grows.
const BODIES_BYTES: u64 = AT_ONCE as u64 * 40 * MIB;

/// Without the full size nobody goes on for longer.
const QUICK: Duration = Duration::from_millis(300);
/// So much is said between two looks at the clock.
const STEP: usize = 256 << 10;

struct Endless {
    name: &'static str,
    /// First a request on the same connection, so that the API holds it.
    by_api: bool,
    begin: Vec<u8>,
    piece: Vec<u8>,
    /// It is a head, or belongs to one: its client is cut off.
    is_head: bool,
}

fn post(content_type: &str) -> Vec<u8> {
    Request::new("POST", "/v1/notifications")
        .bearer(KEY)
        .header("Content-Type", content_type)
        .header("Transfer-Encoding", "chunked")
        .bytes()
}

fn chunk(byte: u8) -> Vec<u8> {
    [b"10000\r\n", &[byte; 0x10000][..], b"\r\n"].concat()
}

fn attacks() -> Vec<Endless> {
    let mut all = Vec::new();
    for by_api in [false, true] {
        let target = if by_api { "/v1/notifications" } else { "/v1/inbox" };
        let head = format!("GET {target} HTTP/1.1\r\nHost: x\r\n").into_bytes();
        let mut add = |name, begin: Vec<u8>, piece: &[u8]| {
            all.push(Endless {
                name,
                by_api,
                begin,
                piece: piece.to_vec(),
                is_head: true,
            });
        };
        add(
            "a header of many megabytes",
            [&head[..], b"X-Long: "].concat(),
            &[b'a'; 4096],
        );
        add("headers without end", head, &b"X-More: and more\r\n".repeat(200));
        add("a request line without end", b"GET /".to_vec(), &[b'a'; 4096]);
        add("blank lines without end", Vec::new(), &b"\r\n".repeat(2048));
    }
    let more = |name, begin: Vec<u8>, piece: Vec<u8>, is_head| Endless {
        name,
        by_api: true,
        begin,
        piece,
        is_head,
    };
    let (json, lines) = (post("application/json"), post("application/x-ndjson"));
    let extension = [&json[..], b"5;"].concat();
    let trailers = [&json[..], b"2\r\n{}\r\n0\r\n"].concat();
    all.push(more(
        "a chunk extension without end",
        extension,
        vec![b'a'; 4096],
        true,
    ));
    all.push(more(
        "trailers without end",
        trailers,
        b"X-More: and more\r\n".repeat(200),
        true,
    ));
    // What is too large is read on for a while, so that its client gets the answer.
    all.push(more("a body without end", json, chunk(b' '), false));
    all.push(more("a line without end", lines.clone(), chunk(b'a'), false));
    all.push(more(
        "blank lines in chunks of a byte",
        lines,
        b"1\r\n\n\r\n".repeat(700),
        false,
    ));
    all
}

/// Says it until the node has had enough, or `most` is said; returns how much the node took, and whether that is all.
fn attack(mut stream: TcpStream, attack: &Endless, most: usize) -> Result<(usize, bool)> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    if attack.by_api {
        stream.write_all(b"GET /v1/nowhere HTTP/1.1\r\nHost: x\r\n\r\n")?;
        ensure!(
            stream.read(&mut [0; 4096])? > 0,
            "no answer to the request before"
        );
    }
    stream.write_all(&attack.begin)?;
    let patience = if is_full() { CUT_WITHIN } else { QUICK };
    let (mut taken, until) = (0, Instant::now() + patience);
    loop {
        let step = flood(&mut stream, &attack.piece, STEP)?;
        taken += step;
        if step < STEP {
            return Ok((taken, true));
        }
        let long = Instant::now() > until;
        if long || taken >= most && (!attack.is_head || !is_full()) {
            return Ok((taken, false));
        }
    }
}

#[test]
fn heads_bodies_and_lines_without_end() -> Result<()> {
    let _alone = alone()?;
    let most = size(16 << 20, 256 << 20);
    let node = Node::start(&[])?;
    for endless in attacks() {
        let gauge = Gauge::start(&node)?;
        let others = Bystanders::start(&node)?;
        let told = std::thread::scope(|scope| -> Result<Vec<(usize, bool)>> {
            let mut clients = Vec::new();
            for _ in 0..AT_ONCE {
                let (stream, endless) = (connect(&node, None)?, &endless);
                clients.push(scope.spawn(move || attack(stream, endless, most)));
            }
            let join = |client: std::thread::ScopedJoinHandle<'_, _>| {
                client.join().map_err(|_| anyhow::anyhow!("a client panicked"))?
            };
            clients.into_iter().map(join).collect()
        })
        .context(endless.name)?;
        let cost = gauge.read()?;
        let place = if endless.by_api { "API" } else { "loop" };
        let taken: usize = told.iter().map(|(taken, _)| taken).sum();
        let cut = told.iter().filter(|(_, cut)| *cut).count();
        println!(
            "siege: {} ({place}), {AT_ONCE} at once: {} MiB taken in all, {cut} cut off; {cost}; {}",
            endless.name,
            taken >> 20,
            others.stop()?
        );
        let bound = if endless.is_head {
            HEADS_BYTES
        } else {
            BODIES_BYTES
        };
        ensure!(cost.peak < bound, "{}: {cost}", endless.name);
        if endless.is_head && is_full() {
            ensure!(cut == AT_ONCE, "{}: {cut} were cut off", endless.name);
        }
    }
    Ok(())
}

/// Bodies within the limits of size that are all work and no notification: each is refused, and soon.
#[test]
fn bodies_that_are_all_work() -> Result<()> {
    let _alone = alone()?;
    let node = Node::start(&[])?;
    let long = 15_000_000;
    let bodies = [
        ("lists in lists", "[".repeat(long)),
        ("objects in objects", r#"{"a":"#.repeat(long / 5)),
        ("a list of nothing", format!("[{}0]", "0,".repeat(long / 2))),
        (
            "a number of many digits",
            format!(r#"{{"data":{}}}"#, "9".repeat(long)),
        ),
        (
            "escapes",
            format!(r#"{{"data":"{}"}}"#, r"\u0041".repeat(long / 6)),
        ),
        (
            "many names",
            format!(
                "{{{}}}",
                (0..long / 12)
                    .map(|n| format!("\"k{n:07}\":0"))
                    .collect::<Vec<_>>()
                    .join(",")
            ),
        ),
        (
            "one name again and again",
            format!(r#"{{{}"data":1}}"#, r#""data":1,"#.repeat(long / 9)),
        ),
        (
            "many users",
            format!(r#"{{"data":1,"users":[{}"x"]}}"#, r#""x","#.repeat(long / 4)),
        ),
        (
            "users that are none",
            format!(r#"{{"data":1,"users":[{}0]}}"#, "0,".repeat(long / 2)),
        ),
        (
            "excluded users",
            format!(
                r#"{{"data":1,"exclude_users":[{}"x"]}}"#,
                r#""x","#.repeat(long / 4)
            ),
        ),
        ("white space", " ".repeat(long)),
    ];
    for (name, body) in bodies {
        let gauge = Gauge::start(&node)?;
        let others = Bystanders::start(&node)?;
        let began = Instant::now();
        std::thread::scope(|scope| -> Result<()> {
            let clients: Vec<_> = (0..4)
                .map(|_| {
                    let body = body.clone();
                    let mut publisher = Publisher::new(&node.endpoint, KEY);
                    scope.spawn(move || publisher.raw("application/json", body))
                })
                .collect();
            for client in clients {
                let answer = client
                    .join()
                    .map_err(|_| anyhow::anyhow!("a client panicked"))??;
                ensure!(
                    (400..500).contains(&answer.status()),
                    "{name}: {}",
                    answer.status()
                );
            }
            Ok(())
        })?;
        let (took, cost) = (began.elapsed(), gauge.read()?);
        println!(
            "siege: {} MB of {name}, 4 at once, refused after {:.2} s; {cost}; {}",
            body.len() / 1_000_000,
            took.as_secs_f64(),
            others.stop()?
        );
        // The body as it came in, in pieces and whole, and nothing that grows with what stands in it.
        ensure!(cost.peak < 4 * 40 * MIB, "{name}: {cost}");
    }
    Ok(())
}

/// Nothing is inflated: a body that says that it is compressed is refused, or fails as the JSON that it is not.
#[test]
fn compressed_bodies() -> Result<()> {
    let _alone = alone()?;
    let node = Node::start(&[])?;
    // The beginning of a gzip stream, and then what inflates to much: a block of zeroes.
    let body = [
        &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3][..],
        &[0xec, 0xc1, 1, 1],
        &[0; 100_000],
    ]
    .concat();
    let gauge = Gauge::start(&node)?;
    for coding in ["gzip", "deflate", "br", "zstd", "gzip, gzip"] {
        let request = Request::new("POST", "/v1/notifications")
            .header("Content-Encoding", coding)
            .body("application/json", body.clone());
        let answer = Publisher::new(&node.endpoint, KEY).call(request)?;
        ensure!(
            (400..500).contains(&answer.status()),
            "{coding}: {} {}",
            answer.status(),
            answer.text()
        );
    }
    println!("siege: compressed bodies refused; {}", gauge.read()?);
    ensure!(gauge.read()?.peak < 8 * MIB, "{}", gauge.read()?);
    Ok(())
}
