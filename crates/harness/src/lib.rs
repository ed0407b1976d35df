//! Black-box proof of Postrider: starts the real binary and speaks to it only through its public interface.
//!
//! The reading order is [`node`] (the server under test), [`publish`] and [`people`] (what a back-end does), [`inbox`] (what a
//! client does, the same over three transports), [`reader`] (a client that comes back after every cut) and
//! [`account`] (the judge: what was accepted against what arrived).
//!
//! [`raw`] is a client without manners, [`bystanders`] are the good ones beside it, and [`gauge`] tells what it all
//! cost the node.
//!
//! Beside them [`machine`], [`volume`], [`injection`] and [`skewed_clock`] bring the faults of a machine upon a node:
//! a full or failing disk, a power loss, a clock that is set.
//!
//! [`fleet`] is several nodes over one Redis: [`redis`] starts private servers of it, and [`proxy`] is the bad network
//! between them and a node.
//!
//! [`aws`] is what of AWS can be had on one machine.
//!
//! Invariant: nothing here looks into the server's code, or takes the files of its data directory for anything but
//! bytes. A check that passes therefore holds for any implementation of the same interface.
//!
//! It does not use an async runtime and does not retry on behalf of a test, except where a name says so.

#![allow(
    clippy::disallowed_methods,
    reason = "a black-box harness is a driver: it reads clocks, spawns and draws"
)]

pub mod account;
pub mod aws;
pub mod bystanders;
pub mod fleet;
pub mod gauge;
pub mod http;
pub mod inbox;
pub mod injection;
pub mod machine;
pub mod network;
pub mod node;
pub mod people;
pub mod ports;
pub mod proxy;
pub mod publish;
pub mod raw;
pub mod reader;
pub mod redis;
pub mod settle;
pub mod skewed_clock;
pub mod tls;
pub mod token;
pub mod user;
pub mod volume;
pub mod wait;
