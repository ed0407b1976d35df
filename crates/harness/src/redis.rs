//! Private Redis servers for tests: one alone, one with a replica and three Sentinels, a Cluster of three and three.
//!
//! The reading order is [`Server`] (one process), [`Replicated`] and [`Cluster`] (made of several), and
//! [`Client`] (how a test itself speaks to one).
//!
//! Invariant: every server listens on loopback, or in a namespace of its own, on ports of its own, keeps its data in a directory of its own, is
//! ended by its process id, and never outlives what started it. It comes back at the same address.
//!
//! It does not know Postrider, and it shares no code with it: what is judged here must not judge itself.

use std::time::Duration;

mod client;
mod cluster;
mod replicated;
mod server;

pub use client::{Answer, Client};
pub use cluster::Cluster;
pub use replicated::Replicated;
pub use server::{Fsync, Server, ServerOptions};

/// How long a server may take to answer its first `PING`, and to end when it is told to.
const PATIENCE: Duration = Duration::from_secs(60);
/// On how many ports a server is tried before it is given up.
const TRIES: usize = 20;
