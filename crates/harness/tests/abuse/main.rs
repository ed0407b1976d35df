//! Clients that do what no good client does: ask without reading, flood, tarry, say nothing; and clocks that are set.
//!
//! Invariant checked: such a client costs the node a bounded amount of memory and time, others do not feel it, and
//! what the node promised it is kept.
//!
//! What single bad requests are answered is in `bad_input`.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]
#![allow(
    clippy::disallowed_methods,
    reason = "a black-box test is a driver: it reads clocks, spawns and draws"
)]

mod acks;
mod clocks;
mod connections;
mod entries;
mod methods;
mod slow_answers;
mod unread;
