//! What has to hold of this crate's parsers for any bytes: one function per fuzz target, which panics where it
//! does not. The targets under `fuzz/` feed them for hours, the tests with the inputs that are kept.
//!
//! No part of the interface: it is there for tests and under the feature `fuzzing`.

pub use crate::api::twirp::fuzzing::twirp;
pub use crate::auth::fuzzing::{key_set, token};
pub use crate::config::fuzzing::config;

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::replay::corpus;

    #[test]
    fn the_kept_inputs_hold() {
        corpus("config", super::config);
        corpus("token", super::token);
        corpus("key_set", super::key_set);
        corpus("twirp", super::twirp);
    }
}
