//! Sources: where notifications come from. A source decodes what a publisher wrote into [`Draft`]s and
//! hands them to intake; it checks form, not rules.
//!
//! Notifications are handed in by [`http`], the publish interface's JSON, or taken from a [`queue`]: `redis_streams`,
//! `redis_pubsub`. Beside them stand the other decoders of what callers write: [`users`] for the directory, [`state`]
//! for users' state maps. None knows anything of engines.
//!
//! Invariant: decoding is total: any bytes give a draft or a fault, and one bad item never harms another.
//!
//! [`Draft`]: postrider_router::Draft

pub mod contract;
mod fields;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod http;
mod input_fault;
mod lines;
mod pusher;
pub mod queue;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "redis")]
pub mod redis_pubsub;
#[cfg(feature = "redis")]
pub mod redis_streams;
#[cfg(feature = "aws")]
pub mod sns;
#[cfg(feature = "aws")]
pub mod sqs;
pub mod state;
pub mod template;
pub mod users;

pub use input_fault::InputFault;
pub use lines::{Line, Lines};
