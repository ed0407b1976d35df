//! The connection plane: the front that accepts sockets, the hub that holds sessions, and the three wires
//! they speak. What is not an inbox request is referred to the API with the bytes already read.
//!
//! The way of an entry here: [`hub`] (a wake comes in) → `shard` (one loop per core, finds the sessions of
//! the feed) → `live` (a session and its wire) → `connection` (bytes to the socket).
//!
//! Invariant: a shard's loop never waits for anything but its sockets; what the engine has to look up comes
//! back as a message. Every socket is owned by one loop.

mod addresses;
mod client_frame;
mod connect;
mod connection;
pub mod desk;
mod follows;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod gate;
pub mod head;
mod hub;
mod live;
mod mailbox;
mod notify;
mod outgoing;
mod outside;
mod presence;
pub mod problem;
mod raw;
pub mod response;
mod ring;
mod roll;
mod shard;
pub mod sse;
mod stats;
pub mod tls;
mod volley;
pub mod websocket;
mod wheel;

#[cfg(test)]
extern crate self as postrider_transports;
#[cfg(test)]
#[path = "../tests/node/mod.rs"]
mod node;

pub use addresses::Address;
pub use desk::{Answer, Desk, Order, Taken};
pub use gate::{Admission, Credentials, Entrance, Gate, Identity};
pub use hub::{Bounds, Hub, HubOptions, Link, Refer, Told};
pub use live::BRIDGED_POLL_BYTES;
pub use notify::{NotifyRules, bare_token};
pub use outside::{Follow, Unavailable, Welcome};
pub use problem::Problem;
pub use raw::RawRules;
pub use stats::HubStats;
