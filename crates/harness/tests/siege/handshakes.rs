//! More idle connections than anyone needs, and as many as a process may have files.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use postrider_harness::bystanders::Bystanders;
use postrider_harness::gauge::Gauge;
use postrider_harness::http::{Request, once};
use postrider_harness::node::{Node, NodeOptions};
use postrider_harness::raw::{connect_from, unharmed};
use postrider_harness::tls::Authority;
use postrider_harness::wait::{until_true, within};

use crate::{MIB, alone, size};

/// What a connection that says nothing may cost.
const SILENT_BYTES: u64 = 2 << 10;
/// From so many addresses of the loopback network.
const ADDRESSES: usize = 8;

fn silent(node: &Node, count: usize) -> Result<Vec<TcpStream>> {
    let addr = node.endpoint.addr()?;
    (0..count)
        .map(|nth| connect_from(addr, 2 + (nth % ADDRESSES) as u8, None))
        .collect()
}

#[test]
fn idle_handshakes() -> Result<()> {
    let _alone = alone()?;
    let count = size(5000, 15_000);
    let node = Node::start(&[("http.head_timeout", size("10s", "30s"))])?;
    let listening = node.open_sockets()?;
    unharmed(&node, "ada")?;
    let gauge = Gauge::start(&node)?;
    let others = Bystanders::start(&node)?;
    let began = Instant::now();
    let streams = silent(&node, count)?;
    until_true("all to be accepted", within(15), || {
        Ok(node.open_sockets()? >= listening + count)
    })?;
    let all = began.elapsed();
    let cost = gauge.read()?;
    // Each is told 408, and then has a while to close; nobody here does.
    until_true("the connections to be let go", within(90), || {
        Ok(node.open_sockets()? < listening + 20)
    })?;
    println!(
        "siege: {count} idle connections made in {:.1} s: {} bytes each; let go after {:.1} s; {cost}; {}",
        all.as_secs_f64(),
        cost.peak / count as u64,
        began.elapsed().as_secs_f64(),
        others.stop()?
    );
    ensure!(cost.peak < count as u64 * SILENT_BYTES + 8 * MIB, "{cost}");
    drop(streams);
    unharmed(&node, "ada")
}

/// With TLS only so many handshakes are begun, and those behind them wait to be accepted.
#[test]
fn idle_tls_handshakes() -> Result<()> {
    let _alone = alone()?;
    let count = size(1500, 6000);
    let authority = Authority::new()?;
    let node = authority.start(&[("http.head_timeout", size("2s", "10s"))])?;
    let listening = node.open_sockets()?;
    let gauge = Gauge::start(&node)?;
    let others = Bystanders::start(&node)?;
    let began = Instant::now();
    let streams = silent(&node, count)?;
    let all = began.elapsed();
    until_true("the connections to be let go", within(120), || {
        Ok(node.open_sockets()? < listening + 20)
    })?;
    let cost = gauge.read()?;
    println!(
        "siege: {count} idle TLS handshakes made in {:.1} s: let go after {:.1} s; {cost}; {}",
        all.as_secs_f64(),
        began.elapsed().as_secs_f64(),
        others.stop()?
    );
    ensure!(cost.peak < count as u64 * 8 * SILENT_BYTES + 16 * MIB, "{cost}");
    drop(streams);
    Ok(())
}

/// More connections than the process may have files: those that are there go on, the operator can look, what is
/// logged stays little, and when the crowd is gone everyone gets in again.
#[test]
fn at_the_limit_of_open_files() -> Result<()> {
    const FILES: u64 = 1024;
    const CROWD: usize = 2000;

    let _alone = alone()?;
    let mut options = NodeOptions::sets(&[("http.head_timeout", "60s")]);
    options.open_files = Some(FILES);
    let node = Node::start_with(options)?;
    unharmed(&node, "ada")?;
    let gauge = Gauge::start(&node)?;
    let others = Bystanders::without_newcomers(&node)?;
    let mut streams = silent(&node, CROWD)?;
    let until = Instant::now() + Duration::from_secs(size(2, 10));
    let mut health = 0;
    while Instant::now() < until {
        let answer = once(node.ops, &Request::new("GET", "/health"))?;
        ensure!(answer.status() == 200, "health answers {}", answer.status());
        health += 1;
        // Whom the node sent away comes again, as a crowd does.
        streams.truncate(CROWD / 2);
        streams.extend(silent(&node, CROWD / 2)?);
    }
    let cost = gauge.read()?;
    let logged = node.log().len();
    println!(
        "siege: {CROWD} connections where {FILES} files may be open: {health} looks at its health; \
        {logged} bytes logged; {cost}; {}",
        others.stop()?
    );
    ensure!(logged < 64 << 10, "a crowd can fill the log: {logged} bytes");
    drop(streams);
    until_true("newcomers to be let in", within(60), || {
        Ok(unharmed(&node, "ada").is_ok())
    })
}
