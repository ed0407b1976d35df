//! What is measured. Each scenario starts its own servers, puts its load on them, and closes its books: it fails
//! if anything was lost or came out of order.

mod broadcast;
mod drain;
mod idle;
mod latency;
mod publish;
mod readback;
mod sessions;
mod stream;

use crate::figures::Measured;
use crate::options::How;
use anyhow::Result;

/// One thing to measure.
pub struct Scenario {
    pub name: &'static str,
    pub says: &'static str,
    /// Runs once; the number counts earlier runs.
    pub run: fn(&How, usize) -> Result<Measured>,
}

/// Synced publishes per second.
pub const PUBLISH: Scenario = Scenario {
    name: "publish",
    says: "stored and synced notifications to one of 10,000 users, 200-byte data",
    run: publish::run,
};
/// Publish to receive.
pub const LATENCY: Scenario = Scenario {
    name: "latency",
    says: "from publish to receive, stored, 1,000 connected users, 200-byte data",
    run: latency::run,
};
/// Sessions at rest.
pub const IDLE: Scenario = Scenario {
    name: "idle",
    says: "sessions at rest, 10,000 users with a connection and a token each",
    run: idle::run,
};
/// One to all.
pub const BROADCAST: Scenario = Scenario {
    name: "broadcast",
    says: "one stored notification to each of 5,000 WebSocket sessions, acks in auto, 128-byte data",
    run: broadcast::run,
};
/// Users come back.
pub const DRAIN: Scenario = Scenario {
    name: "drain",
    says: "1,000,000 stored entries of 10,000 users, read over WebSocket, 200-byte data",
    run: drain::run,
};

/// All of them, in the order of the report.
pub const ALL: &[&Scenario] = &[&PUBLISH, &LATENCY, &IDLE, &BROADCAST, &DRAIN];
