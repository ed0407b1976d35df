//! Open files: every session is one, and most systems allow a process only few until it asks.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard one and returns what holds then.
pub fn raise_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current < maximum || maximum.is_none() {
        match setrlimit(
            Resource::Nofile,
            Rlimit {
                current: maximum,
                maximum,
            },
        ) {
            Ok(()) => return maximum.unwrap_or(u64::MAX),
            Err(error) => tracing::warn!(%error, "the limit of open files stays as it is"),
        }
    }
    current.unwrap_or(u64::MAX)
}
