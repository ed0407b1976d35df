//! What the sources that read from Redis share: where it is, and how it is reached.
//!
//! Invariant: a connection is made within [`CONNECT_TIMEOUT`] and an answer waited for no longer than its reader said, so
//! that a server that hangs is a fault and not a hang.

mod address;
mod connect;
mod keyed;

pub use address::RedisAddress;
pub use connect::{Connector, OfSlots, fault, is_gone, slot};
pub use keyed::{Keyed, Unanswered};

use std::time::Duration;

/// A connection must stand this soon, its handshake included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A command that does not wait is answered this soon.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
