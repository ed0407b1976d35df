//! Connections that are gone, gathered into batches.
//!
//! Invariant: no batch is larger than DynamoDB takes, and none holds a key twice, which DynamoDB would refuse.

use super::Connection;

/// Rows that one `BatchWriteItem` takes away.
pub const BATCH: usize = 25;

/// Those that were not handed on yet.
#[derive(Debug, Default)]
pub(super) struct Stale(Vec<Connection>);

impl Stale {
    /// One more. A batch, where it is full.
    pub fn add(&mut self, connection: Connection) -> Option<Vec<Connection>> {
        if !self.0.contains(&connection) {
            self.0.push(connection);
        }
        (self.0.len() >= BATCH).then(|| std::mem::take(&mut self.0))
    }

    /// What is left over.
    pub fn rest(&mut self) -> Option<Vec<Connection>> {
        (!self.0.is_empty()).then(|| std::mem::take(&mut self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_batches_and_a_rest_each_key_once() {
        let mut stale = Stale::default();
        let one = |n: usize| Connection {
            user: "u".into(),
            id: n.to_string(),
        };
        let mut sizes = Vec::new();
        for n in 0..60 {
            sizes.extend(stale.add(one(n)).map(|batch| batch.len()));
            // Again: of a page that was read twice.
            assert!(n % BATCH == BATCH - 1 || stale.add(one(n)).is_none());
        }
        let rest = stale.rest().unwrap();
        assert_eq!((sizes, rest.len()), (vec![25, 25], 10));
        assert_eq!(stale.rest(), None);
    }
}
