//! Free ports below the range that the kernel gives to clients, so that a server can come back on its own.

use std::net::TcpListener;

use anyhow::{Context, Result};

const FIRST: u16 = 4000;
const LAST: u16 = 9900;

/// `count` different ports on which nothing listens now.
pub fn free(count: usize) -> Result<Vec<u16>> {
    let span = LAST - FIRST;
    // Runs side by side start at different places.
    let start =
        u16::try_from(std::process::id().wrapping_mul(37) % u32::from(span)).context("a port's number")?;
    let candidates = (0..span).map(|step| FIRST + (start + step) % span);
    let found: Vec<u16> = candidates
        .filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .take(count)
        .collect();
    anyhow::ensure!(
        found.len() == count,
        "no {count} free ports between {FIRST} and {LAST}"
    );
    Ok(found)
}
