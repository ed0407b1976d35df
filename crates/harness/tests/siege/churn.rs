//! Connections that come and go without end, from several addresses.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use postrider_harness::bystanders::Bystanders;
use postrider_harness::gauge::Gauge;
use postrider_harness::http::{Cut, Request, cut};
use postrider_harness::node::Node;
use postrider_harness::raw::{as_user, connect_from, unharmed};
use postrider_harness::wait::{until_true, within};

use crate::{MIB, alone, size};

/// Connections a second, all together.
const RATE: u32 = 2000;
/// Threads that make them, each from addresses of its own.
const THREADS: u32 = 2;
const ADDRESSES: u8 = 8;
/// Connections after which memory is as large as it gets by itself.
const WARM: usize = 1500;
/// By how much memory may have grown after the first part, in all the time after it.
const LEAK_BYTES: u64 = 12 * MIB;

/// What a connection does in its short life.
type Life = fn(SocketAddr, u8, usize, &Request) -> Result<()>;

/// Connects, says something or nothing, leaves in an orderly way or by a reset.
fn connection(addr: SocketAddr, host: u8, nth: usize, request: &Request) -> Result<()> {
    let mut stream = connect_from(addr, host, None)?;
    match nth % 4 {
        0 => {}
        1 => stream.write_all(b"GET /v1/in")?,
        // A wrong credential, counted against the address.
        2 => stream.write_all(&Request::new("GET", "/v1/inbox").bearer("wrong").bytes())?,
        _ => stream.write_all(&request.bytes())?,
    }
    cut(
        &stream,
        if nth.is_multiple_of(2) {
            Cut::Close
        } else {
            Cut::Reset
        },
    );
    Ok(())
}

/// Opens a session and leaves as soon as it is there.
fn session(addr: SocketAddr, host: u8, nth: usize, request: &Request) -> Result<()> {
    let mut stream = connect_from(addr, host, None)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(&request.bytes())?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).context("no answer")?;
    ensure!(
        head[9..] == *b"200" || head[9..] == *b"101",
        "answered {:?}",
        String::from_utf8_lossy(&head)
    );
    cut(
        &stream,
        if nth.is_multiple_of(2) {
            Cut::Close
        } else {
            Cut::Reset
        },
    );
    Ok(())
}

#[test]
fn connections_that_come_and_go() -> Result<()> {
    churn(
        "connections",
        connection,
        &[as_user("ada", "GET", "/v1/inbox?wait=20")?],
    )
}

#[test]
fn sessions_that_come_and_go() -> Result<()> {
    let mut requests = Vec::new();
    for user in 0..50 {
        let user = format!("user-{user}");
        requests.push(as_user(&user, "GET", "/v1/inbox/stream")?);
        requests.push(
            as_user(&user, "GET", "/v1/inbox/ws")?
                .header("Connection", "Upgrade")
                .header("Upgrade", "websocket")
                .header("Sec-WebSocket-Version", "13")
                .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        );
    }
    churn("sessions", session, &requests)
}

fn churn(what: &str, life: Life, requests: &[Request]) -> Result<()> {
    let _alone = alone()?;
    let time = Duration::from_secs(size(3, 60));
    // Wrong credentials must not shut out the good clients of the same machine; loopback never counts as failing.
    let node = Node::start(&[("auth.failures_per_address", "0")])?;
    let listening = node.open_sockets()?;
    unharmed(&node, "ada")?;
    let gauge = Gauge::start(&node)?;
    let others = Bystanders::start(&node)?;
    let resident = listening + 5;
    let (stop, made) = (AtomicBool::new(false), AtomicUsize::new(0));
    let addr = node.endpoint.addr()?;
    let mut warm = 0;
    let began = Instant::now();
    std::thread::scope(|scope| -> Result<()> {
        let (stop, made) = (&stop, &made);
        let mut threads = Vec::new();
        for thread in 0..THREADS {
            threads.push(scope.spawn(move || {
                let ended = come_and_go(addr, thread, life, requests, stop, made);
                stop.store(true, Ordering::Relaxed);
                ended
            }));
        }
        // So many have come and gone, too, that whatever is allocated once is there.
        let for_so_long = |time: Duration, least: usize| {
            let until = Instant::now() + time;
            let is_over = || Instant::now() >= until && made.load(Ordering::Relaxed) >= least;
            let deadline = within(size(120, 600));
            while !is_over() && Instant::now() < deadline && !stop.load(Ordering::Relaxed) {
                std::thread::park_timeout(Duration::from_millis(50));
            }
        };
        for_so_long(time / 3, WARM);
        warm = gauge.read()?.peak;
        for_so_long(time * 2 / 3, 2 * WARM);
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        Ok(())
    })?;
    let took = began.elapsed().as_secs_f64();
    until_true("files to be as at the start", within(60), || {
        Ok(node.open_sockets()? <= resident + 3)
    })?;
    let cost = gauge.read()?;
    println!(
        "siege: {} {what} in {took:.1} s, {:.0} a second: {cost}, of it {:.1} MiB in the first third; {}",
        made.load(Ordering::Relaxed),
        made.load(Ordering::Relaxed) as f64 / took,
        warm as f64 / MIB as f64,
        others.stop()?
    );
    ensure!(cost.peak < warm + LEAK_BYTES, "memory grows: {cost}");
    unharmed(&node, "ada")
}

/// At the thread's share of the rate, or as fast as it can be.
fn come_and_go(
    addr: SocketAddr,
    thread: u32,
    life: Life,
    requests: &[Request],
    stop: &AtomicBool,
    made: &AtomicUsize,
) -> Result<()> {
    let began = Instant::now();
    for nth in 0_u32.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let due = began + Duration::from_secs(1) * nth / (RATE / THREADS);
        std::thread::park_timeout(due.saturating_duration_since(Instant::now()));
        let host = 2 + thread as u8 * ADDRESSES + (nth % u32::from(ADDRESSES)) as u8;
        life(addr, host, nth as usize, &requests[nth as usize % requests.len()])
            .with_context(|| format!("client {nth} of thread {thread}"))?;
        made.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
