//! The engine over Redis: any number of nodes that share one store.

mod calls;
pub mod checkup;
mod commit;
mod engine;
#[cfg(test)]
mod engine_tests;
mod fetch;
mod known;
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

#[cfg(test)]
pub(crate) mod testing;
