//! One contract for every transport, run unchanged over long poll, SSE and WebSocket.
//!
//! Invariant: a contract never asks which transport it runs on, unless the interface itself names a difference (a
//! close code, a frame from the client). Every test has a node of its own, so that broadcasts do not mix.
//!
//! It does not test speed, crashes or slow clients; other files do.

#![allow(missing_docs, clippy::unwrap_used, clippy::cloned_ref_to_slice_refs)]
#![allow(
    clippy::disallowed_methods,
    reason = "a black-box harness is a driver: it reads clocks, spawns and draws"
)]

mod arriving;
mod first_device;
mod publishing;
mod receiving;
mod redelivering;
mod refusing;
mod settling;
mod wide;
mod withdrawing;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use postrider_harness::inbox::{AckMode, Connect, Inbox, Received, Transport, next_notification};
use postrider_harness::node::{KEY, Node};
use postrider_harness::publish::Publisher;
use postrider_harness::tls::Authority;
use postrider_harness::user::User;
use postrider_harness::wait::within;
use serde_json::{Value, json};

/// A node and a transport to test it by.
pub struct Bench {
    pub node: Node,
    pub transport: Transport,
}

/// Settings that the contracts run under.
const SETS: [(&str, &str); 2] = [("topics.open", r#"["*"]"#), ("auth.jwt.leeway", "0s")];

impl Bench {
    pub fn publisher(&self) -> Publisher {
        Publisher::new(&self.node.endpoint, KEY)
    }

    pub fn user(&self, id: &str) -> Result<User> {
        User::new(&self.node.endpoint, id)
    }

    /// What a session of a user asks for; the caller adds to it.
    pub fn connect(&self, user: &str) -> Result<Connect> {
        Ok(Connect::new(
            &self.node.endpoint,
            &postrider_harness::token::user(user)?,
        ))
    }

    pub fn open(&self, user: &str, mode: AckMode) -> Result<Box<dyn Inbox>> {
        self.connect(user)?.ack(mode).open(self.transport)
    }

    /// Publishes to one user; returns the id.
    pub fn publish(&self, user: &str, data: Value) -> Result<String> {
        self.publisher().accepted(&json!({"users": [user], "data": data}))
    }
}

/// The ids of the next `count` notifications.
pub fn ids(inbox: &mut dyn Inbox, count: usize) -> Result<Vec<String>> {
    let deadline = within(60);
    let next = |at| {
        Ok(next_notification(inbox, deadline)
            .with_context(|| format!("the {at}th of {count}"))?
            .id)
    };
    (1..=count).map(next).collect()
}

/// Publishes a marker to the user and reads up to it: what comes before it, that and nothing more. This is how a
/// contract shows that something did *not* come, without waiting for silence.
pub fn before_marker(bench: &Bench, inbox: &mut dyn Inbox, user: &str) -> Result<Vec<Received>> {
    let marker = bench.publish(user, json!("marker"))?;
    let deadline = within(60);
    let mut before = Vec::new();
    loop {
        let received = inbox.next(deadline)?.context("the marker did not come")?;
        match received {
            Received::Notification(n) if n.id == marker => return Ok(before),
            Received::End(end) => anyhow::bail!("ended before the marker: {end:?}"),
            other => before.push(other),
        }
    }
}

/// The ids of the notifications among what was received.
pub fn notified(received: &[Received]) -> Vec<&str> {
    let mut ids = Vec::new();
    for one in received {
        if let Received::Notification(notification) = one {
            ids.push(notification.id.as_str());
        }
    }
    ids
}

/// Lets a session do its part (answer pings, poll on) for a short while; what it gets is returned.
pub fn turn(inbox: &mut dyn Inbox) -> Result<Vec<Received>> {
    let deadline = Instant::now() + Duration::from_millis(50);
    let mut got = Vec::new();
    while let Some(received) = inbox.next(deadline)? {
        if let Received::End(end) = received {
            anyhow::bail!("the session ended: {end:?}");
        }
        got.push(received);
    }
    Ok(got)
}

/// Runs one contract in the clear.
pub fn run(contract: fn(&Bench) -> Result<()>, transport: Transport, more: &[(&str, &str)]) {
    let node = Node::start(&[&SETS[..], more].concat()).unwrap();
    judge(contract, Bench { node, transport });
}

/// Runs one contract over TLS.
pub fn run_tls(contract: fn(&Bench) -> Result<()>, transport: Transport, more: &[(&str, &str)]) {
    let authority = Authority::new().unwrap();
    let node = authority.start(&[&SETS[..], more].concat()).unwrap();
    judge(contract, Bench { node, transport });
}

/// Panics with the whole chain, so that the node prints its log.
fn judge(contract: fn(&Bench) -> Result<()>, bench: Bench) {
    if let Err(e) = contract(&bench) {
        panic!("{}: {e:?}", bench.transport);
    }
}

/// Makes a test of every named function, for every transport, in the clear and over TLS; with more settings where `set` gives them.
#[macro_export]
macro_rules! contract {
    (set $more:expr; $($name:ident),* $(,)?) => {
        $crate::contract!(@one run long_poll LongPoll $more; $($name)*);
        $crate::contract!(@one run sse Sse $more; $($name)*);
        $crate::contract!(@one run websocket WebSocket $more; $($name)*);
        $crate::contract!(@one run_tls tls_long_poll LongPoll $more; $($name)*);
        $crate::contract!(@one run_tls tls_sse Sse $more; $($name)*);
        $crate::contract!(@one run_tls tls_websocket WebSocket $more; $($name)*);
    };
    (@one $run:ident $module:ident $transport:ident $more:expr; $($name:ident)*) => {
        mod $module {
            $(#[test]
            fn $name() {
                $crate::$run(super::$name, postrider_harness::inbox::Transport::$transport, $more);
            })*
        }
    };
    ($($name:ident),* $(,)?) => {
        $crate::contract!(set &[]; $($name),*);
    };
}
