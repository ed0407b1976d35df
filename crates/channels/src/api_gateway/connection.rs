//! What a table of connections and an endpoint do, whatever they are made of.

use super::Answer;
use async_trait::async_trait;
use bytes::Bytes;

/// A row of the table: one connection of one user. The two together are its key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Connection {
    /// The user, as the table has it.
    pub user: String,
    /// The connection, as API Gateway named it.
    pub id: String,
}

/// A stretch of the table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The connections in it. There may be none, and yet more on the next.
    pub connections: Vec<Connection>,
    /// After which key the next one begins; `None` at the end.
    pub after: Option<Connection>,
}

/// A part of the table: this one of so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// From 0.
    pub number: usize,
    /// How many there are.
    pub of: usize,
}

/// Why a table gives nothing. For the operator: it may name tables and roles, never a credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableFault {
    /// It cannot be reached, or is not well.
    #[error("the table is away: {0}")]
    Away(String),
    /// It was asked too often.
    #[error("the table is asked too often: {0}")]
    Throttled(String),
    /// It answers, and will not. Somebody has to mend it.
    #[error("the table refuses: {0}")]
    Refused(String),
}

/// Who is connected.
#[async_trait]
pub trait ConnectionTable: Send + Sync {
    /// Connections of one user, from the first or after a key.
    async fn of_user(&self, user: &str, after: Option<&Connection>) -> Result<Page, TableFault>;

    /// Connections of one part of the table, from the first or after a key. All parts together are the table.
    async fn of_segment(&self, segment: Segment, after: Option<&Connection>) -> Result<Page, TableFault>;

    /// Takes rows away, at most [`BATCH`](super::stale::BATCH), each once; one that is not there counts as taken. Gives
    /// back those that it did not come to.
    async fn delete(&self, connections: &[Connection]) -> Result<Vec<Connection>, TableFault>;
}

/// Hands payloads to connections.
#[async_trait]
pub trait Endpoint: Send + Sync {
    /// Hands one connection one payload, once.
    async fn post(&self, connection: &str, data: &Bytes) -> Answer;
}
