//! What is measured. Each scenario starts its own servers, puts its load on them, and closes its books: it fails
//! if anything was lost or came out of order. What a peer fails in is noted, and the rest goes on.

mod acks;
mod beside;
mod broadcast;
mod drain;
mod idle;
mod latency;
mod longpoll;
mod publish;
mod readback;
mod sse;
mod stage;
mod storm;
mod unicast;

use crate::options::How;
use anyhow::Result;
use postrider_bench_load::figures::Measured;

/// One thing to measure.
pub struct Scenario {
    pub name: &'static str,
    pub says: &'static str,
    /// Whether a short measurement of all has it.
    pub is_short: bool,
    /// Runs once; the number counts earlier runs.
    pub run: fn(&How, usize) -> Result<Measured>,
}

/// One to all.
pub const BROADCAST: Scenario = Scenario {
    name: "broadcast",
    says: "one stored notification to each of 10,000 WebSocket sessions, acks in auto, 128-byte data",
    is_short: true,
    run: broadcast::run,
};
/// One to one.
pub const UNICAST: Scenario = Scenario {
    name: "unicast",
    says: "stored notifications to one of 10,000 connected users each, over WebSocket, 128-byte data",
    is_short: true,
    run: unicast::run,
};
/// Sessions at rest.
pub const IDLE: Scenario = Scenario {
    name: "idle",
    says: "sessions at rest, 10,000 users with a connection and a token each",
    is_short: true,
    run: idle::run,
};
/// Waiting polls.
pub const LONG_POLL: Scenario = Scenario {
    name: "longpoll",
    says: "10,000 waiting long polls; a cycle is a notification and the next poll with its cursor",
    is_short: true,
    run: longpoll::run,
};
/// Event streams.
pub const SSE: Scenario = Scenario {
    name: "sse",
    says: "one stored notification to each of 10,000 event streams, acks in auto, 128-byte data",
    is_short: true,
    run: sse::run,
};
/// All at once again.
pub const STORM: Scenario = Scenario {
    name: "storm",
    says: "10,000 WebSocket sessions dropped and back, each with its cursor and one notification missed",
    is_short: true,
    run: storm::run,
};
/// Synced publishes per second.
pub const PUBLISH: Scenario = Scenario {
    name: "publish",
    says: "stored and synced notifications to one of 10,000 users, 200-byte data",
    is_short: true,
    run: publish::run,
};
/// Users come back.
pub const DRAIN: Scenario = Scenario {
    name: "drain",
    says: "1,000,000 stored entries of 10,000 users, read over WebSocket, 200-byte data",
    is_short: true,
    run: drain::run,
};
/// One to one while one goes to all.
pub const BESIDE: Scenario = Scenario {
    name: "beside",
    says: "notifications to one user each at 500 a second, alone and beside a broadcast to 10,000 sessions",
    is_short: false,
    run: beside::run,
};
/// What an ack by id costs.
pub const ACKS: Scenario = Scenario {
    name: "acks",
    says: "each notification acknowledged by its id over WebSocket, against delivery alone",
    is_short: true,
    run: acks::run,
};
/// Publish to receive.
pub const LATENCY: Scenario = Scenario {
    name: "latency",
    says: "from publish to receive, stored, 1,000 connected users, 200-byte data",
    is_short: false,
    run: latency::run,
};

/// All of them, in the order of the report.
pub const ALL: &[&Scenario] = &[
    &BROADCAST, &UNICAST, &IDLE, &LONG_POLL, &SSE, &STORM, &PUBLISH, &DRAIN, &BESIDE, &ACKS, &LATENCY,
];
