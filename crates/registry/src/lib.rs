//! Tells those who send which node a user is connected to: a table of users and instances, as a service keeps it whose
//! producers choose the queue of an instance by it.
//!
//! The reading order is [`Registry`] (what a table does), [`Ledger`] (what it is to say: pure), [`Keeper`] (from one to the
//! other), then a table of each kind.
//!
//! Invariant: a session never waits for the table. What is to be written is kept in bounded memory, and a table that is
//! away delays nothing but its rows.
//!
//! Knows nothing of queues, nor of sessions: it is told which users are here.

#[cfg(feature = "contract")]
pub mod contract;
#[cfg(feature = "aws")]
pub mod dynamodb;
mod keeper;
mod ledger;
mod names;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "redis")]
pub mod redis;
mod registry;
mod rounds;
mod table;

pub use keeper::{Keeper, Watch};
pub use ledger::Ledger;
pub use names::{
    DynamoAttributeFault, DynamoTableName, DynamoTableNameFault, RedisKeyName, RedisKeyNameFault,
    check_dynamo_attribute,
};
pub use registry::{Lease, Registry, RegistryFault};
pub use table::{Table, TableFault};

/// Most users of one statement.
pub const MOST_ROWS: usize = 1_000;
