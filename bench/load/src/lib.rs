//! A load that checks every delivery: many connections in one thread and one epoll loop, and what they are sent.
//!
//! Invariant: a result is given only if nothing was lost and nothing came out of order.
//!
//! Two programs use it: `postrider-bench`, which starts servers and compares them, and `postrider bench`, which measures
//! any Postrider. It does not know how servers are started, nor what is printed.

pub mod account;
pub mod clock;
pub mod crowd;
pub mod drain;
pub mod figures;
pub mod histogram;
pub mod machine;
pub mod net;
pub mod payload;
pub mod publisher;
pub mod requests;
pub mod sessions;
pub mod storm;
pub mod stream;
pub mod svg;
pub mod target;
