//! Attacks in great number: thousands of clients that do what a few do in `abuse`.
//!
//! Invariant checked: memory stays within what the attack may cost, everything is let go in time, and the good
//! clients beside it ([`Bystanders`](postrider_harness::bystanders)) lose nothing and are served.
//!
//! Each test has the machine for itself, since it measures. `POSTRIDER_SIEGE=full` runs each in its full size, which
//! takes some minutes and wants a release build; without it they are as large as they can be in some seconds.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]
#![allow(
    clippy::disallowed_methods,
    reason = "a black-box test is a driver: it reads clocks, spawns and draws"
)]

mod bodies;
mod churn;
mod drips;
mod fragments;
mod garbage;
mod giants;
mod handshakes;
mod http2;
mod slow_readers;
mod streams;

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use postrider_harness::raw::room_for_files;

/// One mebibyte.
const MIB: u64 = 1 << 20;

/// The machine for one test, and files for all its sockets.
fn alone() -> Result<MutexGuard<'static, ()>> {
    static MACHINE: Mutex<()> = Mutex::new(());
    room_for_files()?;
    // A test that failed has told so itself.
    Ok(MACHINE.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Whether the attacks have their full size.
fn is_full() -> bool {
    std::env::var_os("POSTRIDER_SIEGE").is_some_and(|size| size == "full")
}

/// The size of an attack: quick, or full.
fn size<T>(quick: T, full: T) -> T {
    if is_full() { full } else { quick }
}
