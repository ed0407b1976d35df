//! Black-box proof of Postrider: starts the real binary and speaks to it only through its public interface.
//!
//! The reading order is [`node`] (the server under test), [`publish`] (what a back-end does), [`inbox`] (what a
//! client does, the same over three transports), [`reader`] (a client that comes back after every cut) and
//! [`account`] (the judge: what was accepted against what arrived).
//!
//! Invariant: nothing here looks into the server's code or its data directory. A check that passes therefore holds
//! for any implementation of the same interface.
//!
//! It does not use an async runtime and does not retry on behalf of a test, except where a name says so.

#![allow(
    clippy::disallowed_methods,
    reason = "a black-box harness is a driver: it reads clocks, spawns and draws"
)]

pub mod account;
pub mod http;
pub mod inbox;
pub mod node;
pub mod publish;
pub mod reader;
pub mod settle;
pub mod token;
pub mod user;
pub mod wait;
