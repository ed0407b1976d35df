//! The server: configuration, identity, the HTTP API, operations, and the assembly of a node. The only
//! crate that sees all the others.
//!
//! What must always hold: an answer that says *accepted* comes after the engine's receipt; an operator's
//! detail never reaches a client; no token, key, ticket or payload reaches a log.

pub mod auth;
mod clock;
pub mod config;

pub use clock::now;
