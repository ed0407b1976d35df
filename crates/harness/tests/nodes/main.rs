//! Several nodes over one Redis: what holds on one node must hold over all of them, whatever dies.
//!
//! [`lab`] proves the laboratory itself; [`settling`] is what nodes tell each other; [`half_done`] kills a node in the
//! middle of a publication; [`front`] puts a load balancer before them; [`fan_out`] counts what Redis is asked to do;
//! [`siege`] brings all faults upon all of it.
//!
//! Each test has the machine for itself, since all of them measure time. Where `redis-server` is missing they say
//! `NOT RUN`, or fail with `POSTRIDER_TEST_REDIS=required`.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]
#![allow(
    clippy::disallowed_methods,
    reason = "a black-box test is a driver: it reads clocks, spawns and draws"
)]

mod fan_out;
mod front;
mod half_done;
mod lab;
mod settling;
mod siege;
mod site;

use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The machine for one test.
fn alone() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::new(());
    // A test that failed has told so itself.
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A choice of whoever runs the test, from the environment.
fn chosen<T: FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    let parsed = text.parse().ok();
    Some(parsed.unwrap_or_else(|| panic!("{name}={text} makes no sense")))
}
