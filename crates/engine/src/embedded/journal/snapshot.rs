//! What a reader sees: the base as of a checkpoint, under the layers that are not in it yet, as of one
//! commit. A later source wins over an earlier one; what it says is removed is not there.

use super::layer::{End, Layer};
use crate::embedded::StoreFault;
use crate::embedded::base::Reading;
use crate::embedded::row_key::RowKey;
use crate::embedded::store::{Row, Table, View};
use bytes::Bytes;
use std::collections::VecDeque;
use std::ops::{Bound, Deref};
use std::sync::Arc;

/// Rows that are looked at in one go, at most; a scan begins with as many as were asked for.
const CHUNK: usize = 512;

/// The store as one commit left it.
pub(super) struct Snapshot {
    pub base: Arc<Reading>,
    /// Newest first.
    pub layers: [Option<Arc<Layer>>; 2],
    /// The commit.
    pub seq: u64,
}

impl View for Snapshot {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault> {
        for layer in self.layers.iter().flatten() {
            if let Some(change) = layer.get(self.seq, table, key) {
                return Ok(change.map(|value| value.to_vec()));
            }
        }
        self.base.get(table, key)
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StoreFault> {
        self.merged(table, from, to, limit, false)
    }

    fn last(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Option<Row>, StoreFault> {
        Ok(self.merged(table, from, to, 1, true)?.pop())
    }

    fn vouch_absent(&self, table: Table, key: &[u8]) -> Result<(), StoreFault> {
        self.base.vouch_absent(table, key)
    }
}

impl Snapshot {
    fn merged(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        limit: usize,
        falling: bool,
    ) -> Result<Vec<Row>, StoreFault> {
        let mut rows = Vec::new();
        if from >= to {
            return Ok(rows);
        }
        let look = Look {
            table,
            from,
            to,
            falling,
        };
        let mut cursors: Vec<Cursor<'_>> = self
            .layers
            .iter()
            .flatten()
            .map(|layer| Cursor::over(Source::Layer(layer, self.seq), limit))
            .collect();
        for cursor in &mut cursors {
            cursor.fill(&look)?;
        }
        if cursors.iter().all(Cursor::is_over) {
            return self.base.rows(table, look.range(None), limit, falling);
        }
        cursors.push(Cursor::over(Source::Base(&self.base), limit));
        while rows.len() < limit {
            for cursor in &mut cursors {
                cursor.fill(&look)?;
            }
            let Some(newest) = first(&cursors, falling) else {
                break;
            };
            let Some((key, change)) = cursors[newest].ready.pop_front() else {
                break;
            };
            for older in &mut cursors[newest + 1..] {
                older.pass(&key);
            }
            if let Some(value) = change {
                rows.push((key.into_vec(), value.into_vec()));
            }
        }
        Ok(rows)
    }
}

/// Which of these, newest first, says something of the next key; of several the newest.
fn first(cursors: &[Cursor<'_>], falling: bool) -> Option<usize> {
    let nexts = cursors.iter().enumerate();
    let nexts = nexts.filter_map(|(nth, cursor)| Some((cursor.key()?, nth)));
    let next = nexts.reduce(|best, next| {
        let is_sooner = match falling {
            false => next.0 < best.0,
            true => next.0 > best.0,
        };
        if is_sooner { next } else { best }
    });
    next.map(|(_, nth)| nth)
}

/// What is looked for.
struct Look<'l> {
    table: Table,
    from: &'l [u8],
    to: &'l [u8],
    falling: bool,
}

enum Source<'s> {
    Layer(&'s Layer, u64),
    Base(&'s Reading),
}

/// A key, as its source has it: what the base read is passed on as it is.
enum Key {
    InLayer(RowKey),
    Read(Vec<u8>),
}

impl Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Key::InLayer(key) => key,
            Key::Read(key) => key,
        }
    }
}

impl Key {
    fn into_vec(self) -> Vec<u8> {
        match self {
            Key::InLayer(key) => key.to_vec(),
            Key::Read(key) => key,
        }
    }
}

/// A value, in the same way.
enum Value {
    InLayer(Bytes),
    Read(Vec<u8>),
}

impl Value {
    fn into_vec(self) -> Vec<u8> {
        match self {
            Value::InLayer(value) => value.to_vec(),
            Value::Read(value) => value,
        }
    }
}

/// One source, read forward (or backward) in chunks.
struct Cursor<'s> {
    source: Source<'s>,
    ready: VecDeque<(Key, Option<Value>)>,
    /// The key up to which it was read.
    after: Option<RowKey>,
    ended: bool,
    chunk: usize,
}

impl<'s> Cursor<'s> {
    fn over(source: Source<'s>, limit: usize) -> Cursor<'s> {
        Cursor {
            source,
            ready: VecDeque::new(),
            after: None,
            ended: false,
            chunk: limit.clamp(1, CHUNK),
        }
    }

    fn key(&self) -> Option<&[u8]> {
        self.ready.front().map(|(key, _)| &**key)
    }

    fn is_over(&self) -> bool {
        self.ended && self.ready.is_empty()
    }

    /// Passes over its change of the key, if that is the next it has.
    fn pass(&mut self, key: &[u8]) {
        self.ready.pop_front_if(|(next, _)| **next == *key);
    }

    /// Sees to it that it has a next change, or has ended.
    fn fill(&mut self, look: &Look<'_>) -> Result<(), StoreFault> {
        while self.ready.is_empty() && !self.ended {
            let after = self.after.take();
            let range = look.range(after.as_deref());
            match self.source {
                Source::Layer(layer, seq) => {
                    let ready = &mut self.ready;
                    let wanted = (self.chunk, look.falling);
                    self.after = layer.chunk(seq, look.table, range, wanted, |key, change| {
                        ready.push_back((Key::InLayer(key), change.map(Value::InLayer)));
                    });
                }
                Source::Base(base) => {
                    let rows = base.rows(look.table, range, self.chunk, look.falling)?;
                    let full = rows.len() == self.chunk;
                    self.after = rows
                        .last()
                        .filter(|_| full)
                        .map(|(key, _)| RowKey::from(&key[..]));
                    let rows = rows.into_iter();
                    self.ready
                        .extend(rows.map(|(key, value)| (Key::Read(key), Some(Value::Read(value)))));
                }
            }
            self.ended = self.after.is_none();
            self.chunk = (self.chunk * 2).min(CHUNK);
        }
        Ok(())
    }
}

impl<'l> Look<'l> {
    /// What is left after a key.
    fn range<'k>(&self, after: Option<&'k [u8]>) -> (End<'k>, End<'k>)
    where
        'l: 'k,
    {
        match after {
            None => (Bound::Included(self.from), Bound::Excluded(self.to)),
            Some(key) if self.falling => (Bound::Included(self.from), Bound::Excluded(key)),
            Some(key) => (Bound::Excluded(key), Bound::Excluded(self.to)),
        }
    }
}
