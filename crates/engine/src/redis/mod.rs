//! The engine over Redis: any number of nodes that share one store.

mod across;
mod calls;
pub mod checkup;
mod commit;
#[cfg(test)]
mod dues_tests;
mod engine;
#[cfg(test)]
mod engine_tests;
mod fetch;
mod keep;
#[cfg(test)]
mod keep_tests;
mod known;
mod leases;
pub mod links;
mod look;
#[cfg(test)]
mod optimistic;
#[cfg(test)]
mod optimistic_tests;
mod owners;
pub mod presence;
mod readers;
mod rows;
mod standing;
#[cfg(test)]
mod standing_tests;
pub mod store;
#[cfg(test)]
mod store_tests;
mod sweep;
#[cfg(test)]
mod together_tests;
mod tokens;
mod transients;
mod two_phase;
mod wakes;
mod watch;

pub use engine::{DEFAULT_PATIENCE, NodeCounters, RedisEngine, RedisOptions};
pub use standing::Trouble;

#[cfg(test)]
pub(crate) mod testing;
