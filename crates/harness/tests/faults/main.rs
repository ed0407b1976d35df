//! Faults of the disk under the real binary: full, failing, slow, cut off, damaged, taken away.
//!
//! Invariant checked: what was accepted is there once the fault is over, once and in order; what cannot be stored is
//! refused with 503 and `Retry-After`; whatever needs no disk goes on meanwhile; nothing is ever skipped in silence.
//! What was refused may be there all the same: at least once.
//!
//! Nothing here depends on how the node names its files or what is in them.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]
#![allow(
    clippy::disallowed_methods,
    reason = "a black-box test is a driver: it reads clocks, spawns and draws"
)]

mod damage;
mod directory;
mod failing_io;
mod full_disk;
mod load;
mod power_loss;
mod still_works;
