//! Ports of loopback for servers that cannot choose one themselves, or that must come back at their own.
//!
//! Invariant: they lie below those that the kernel gives to clients, and no two calls of a process give the same one
//! soon.
//!
//! It does not hold them: another process may take one before it is used, so whoever starts a server on one must see
//! that it is its own that answers.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, bail};

const FIRST: u16 = 4_000;
const SPAN: u32 = 5_900;

/// Different ports on which nothing listens now.
pub fn free(count: usize) -> Result<Vec<u16>> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Test processes side by side begin at different places, and threads of one go on where the last one stopped.
    let start = std::process::id().wrapping_mul(389);
    let mut found = Vec::new();
    for _ in 0..SPAN {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (start.wrapping_add(step) % SPAN) as u16;
        if TcpListener::bind(loopback(port)).is_ok() {
            found.push(port);
        }
        if found.len() == count {
            return Ok(found);
        }
    }
    bail!("no {count} free ports from {FIRST} on")
}

/// A port of this machine.
pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
