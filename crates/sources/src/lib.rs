//! Sources: where notifications come from. A source decodes what a publisher wrote into [`Draft`]s and
//! hands them to intake; it checks form, not rules.
//!
//! The one source so far is [`http`], the publish interface's JSON. A source knows nothing of engines.
//!
//! Invariant: decoding is total: any bytes give a draft or a fault, and one bad item never harms another.
//!
//! [`Draft`]: postrider_router::Draft

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod http;
mod lines;

pub use lines::{Line, Lines};
