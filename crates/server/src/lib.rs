//! The server: configuration, identity, the HTTP API, operations, and the assembly of a node. The only
//! crate that sees all the others.
//!
//! What must always hold: an answer that says *accepted* comes after the engine's receipt; an operator's
//! detail never reaches a client; no token, key, ticket or payload reaches a log.

mod api;
mod assembly;
pub mod auth;
mod bodies;
mod bridge;
mod channels;
mod clock;
pub mod config;
mod connection;
mod desk;
mod drain;
mod fetch;
mod files;
mod front;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod http2;
mod metrics;
#[cfg(feature = "redis")]
mod nodes;
mod ops;
mod patience;
mod places;
mod process;
mod rates;
mod registry;
mod reload;
mod sources;
mod standing;
mod static_files;
mod store;
mod tasks;
mod tls;
mod tls_stream;

pub use api::DemoPage;
pub use api::openapi::text as openapi;
pub use assembly::{Node, StartError};
pub use clock::{SteadyClock, now, steady_clock};
#[cfg(feature = "redis")]
pub use postrider_engine::redis::checkup;
pub use reload::{Apply, Reload, Reloaded};
pub use store::OpenFault;
#[cfg(feature = "redis")]
pub use store::check_redis;
pub use tls::{TlsConfigFault, check as check_tls};
