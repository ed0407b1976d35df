//! Sources: where notifications come from. A source decodes what a publisher wrote into [`Draft`]s and
//! hands them to intake; it checks form, not rules.
//!
//! The one source so far is [`http`], the publish interface's JSON. Beside it stand the other decoders of what callers
//! write: [`users`] for the directory, [`state`] for users' state maps. None knows anything of engines.
//!
//! Invariant: decoding is total: any bytes give a draft or a fault, and one bad item never harms another.
//!
//! [`Draft`]: postrider_router::Draft

mod fields;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod http;
mod input_fault;
mod lines;
pub mod state;
pub mod users;

pub use input_fault::InputFault;
pub use lines::{Line, Lines};
