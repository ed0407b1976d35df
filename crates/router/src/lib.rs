//! Intake and routing: a [`Draft`] that some source decoded becomes a [`Publication`] that an engine can
//! store, or a [`Fault`] that says precisely what is wrong and where.
//!
//! Everything here is a function of its arguments: the time, the fresh id and who publishes come in from
//! outside. It knows nothing of HTTP, of engines, or of what was published before.
//!
//! Invariant: a publication that comes out is whole: ids checked, each user once, the excluded sorted, the
//! feeds worked out, and the same words give the same content digest whenever they come.
//!
//! [`Publication`]: postrider_model::Publication

mod audience;
mod digest;
mod draft;
mod fault;
mod intake;
mod limits;

pub use digest::{derived_id, request_content};
pub use draft::Draft;
pub use fault::{Fault, FaultCode};
pub use intake::{Arrival, Publisher, admit};
pub use limits::Limits;
