//! What `cargo xtask proto` makes of `proto/`; a test of `proto/codegen` compares them. Not to be edited.

#![allow(
    clippy::all,
    missing_docs,
    unused_imports,
    dead_code,
    reason = "made by a tool, whole, and documented where it is made from"
)]

#[rustfmt::skip]
#[path = "generated/notify.rs"]
pub mod notify;
#[rustfmt::skip]
#[path = "generated/postrider.v1.rs"]
pub mod postrider_v1;
