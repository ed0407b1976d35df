//! The decisions of delivery as state machines: what a session is sent next and what again, what it has settled,
//! when it is probed, kept alive, or ended.
//!
//! Pure: no sockets, stores or clocks. Time comes in as an argument and effects go out through a trait, so
//! any run can be replayed in a test. The hub drives these machines with real sockets.

mod lifetime;
mod probe;
mod redelivery;
mod session;
mod state_map;

pub use lifetime::{Lifetime, LifetimeEvent, LifetimeRules};
pub use probe::Probing;
pub use redelivery::RedeliveryRules;
pub use session::{AckMode, FeedStart, MemberFeed, Moment, Opening, Outbox, Reading, Session, Stretch};
pub use state_map::{StateStep, StateTold};
