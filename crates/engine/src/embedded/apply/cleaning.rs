//! What users did with broadcasts that are forgotten: nothing leads from a broadcast to the users with a mark
//! on it, so now and then all of these users are visited, a few in each transaction.

use super::Apply;
use crate::embedded::StoreFault;
use crate::embedded::codec::{Reader, Record, Writer, key};
use crate::embedded::store::{Table, View};
use crate::embedded::tables;
use postrider_model::FeedId;

/// Users visited in one transaction.
const MAX_USERS: usize = 64;
/// Rows of one user and table that one transaction removes.
const MAX_ROWS: usize = 512;
/// So many broadcasts must have been forgotten before a round is worth it.
const ROUND: u64 = 64;
const STATE: &[u8] = b"cleaning";

/// Where the rounds stand.
#[derive(Debug, Default)]
struct Cleaning {
    /// Everything up to this offset is forgotten.
    forgotten: u64,
    /// Up to here every user's rows are removed.
    cleaned: u64,
    /// What the round under way removes; 0 where none is.
    round: u64,
    /// Which user comes next in it.
    next: Vec<u8>,
}

impl Apply<'_> {
    /// Broadcasts up to this offset are forgotten.
    pub(super) fn clean_up_to(&mut self, offset: u64) -> Result<(), StoreFault> {
        let mut state = self.cleaning()?;
        if offset > state.forgotten {
            state.forgotten = offset;
            self.put_cleaning(&state);
        }
        Ok(())
    }

    /// A broadcast was redriven: it outlives its neighbours, and what users did with it must too.
    pub(super) fn note_renewed(&mut self, record: &Record) {
        for offset in places(record) {
            self.txn.put(Table::Meta, renewed(offset), Writer::new().done());
        }
    }

    /// It is forgotten.
    pub(super) fn forget_renewed(&mut self, record: &Record) {
        for offset in places(record) {
            self.txn.remove(Table::Meta, renewed(offset));
        }
    }

    fn oldest_renewed(&self) -> Result<Option<u64>, StoreFault> {
        let (from, to) = (renewed(0), renewed(u64::MAX));
        let rows = self.txn.scan(Table::Meta, &from, &to, 1)?;
        rows.first().map(|(row, _)| tables::offset(row)).transpose()
    }

    /// Goes on with a round, or begins one. True if there is more to do.
    pub(super) fn clean(&mut self) -> Result<bool, StoreFault> {
        let mut state = self.cleaning()?;
        if state.round == 0 {
            if state.forgotten < state.cleaned + ROUND {
                return Ok(false);
            }
            state.round = self.oldest_renewed()?.map_or(state.forgotten, |renewed| {
                state.forgotten.min(renewed.saturating_sub(1))
            });
            if state.round < state.cleaned + ROUND {
                state.round = 0;
                return Ok(false);
            }
            state.next = key::feed(&FeedId::All);
        }
        let prefix = key::feed(&FeedId::All);
        let rows = self
            .txn
            .scan(Table::Settlers, &state.next, &key::after(&prefix), MAX_USERS)?;
        let ended = rows.len() < MAX_USERS;
        for (row, _) in rows {
            let user = tables::user_at_end("settlers", prefix.len(), &row)?;
            let from = key::user_feed(&user, &FeedId::All);
            let to = key::range(&user, &FeedId::All, state.round + 1);
            for table in [Table::Marks, Table::Ranges, Table::Attempts, Table::Opens] {
                let old = self.txn.scan(table, &from, &to, MAX_ROWS)?;
                let left = old.len() == MAX_ROWS;
                for (old, _) in old {
                    self.txn.remove(table, old);
                }
                if left {
                    state.next = row;
                    self.put_cleaning(&state);
                    return Ok(true);
                }
            }
            state.next = [row.as_slice(), &[0]].concat();
        }
        if ended {
            state.cleaned = std::mem::take(&mut state.round);
            state.next = Vec::new();
        }
        self.put_cleaning(&state);
        Ok(!ended)
    }

    fn cleaning(&self) -> Result<Cleaning, StoreFault> {
        let Some(value) = self.txn.get(Table::Meta, STATE)? else {
            return Ok(Cleaning::default());
        };
        let mut r = Reader::new("meta", &value)?;
        Ok(Cleaning {
            forgotten: r.u64()?,
            cleaned: r.u64()?,
            round: r.u64()?,
            next: r.bytes()?.to_vec(),
        })
    }

    fn put_cleaning(&mut self, state: &Cleaning) {
        let value = Writer::new()
            .u64(state.forgotten)
            .u64(state.cleaned)
            .u64(state.round)
            .bytes(&state.next);
        self.txn.put(Table::Meta, STATE.to_vec(), value.done());
    }
}

/// Where a broadcast stands in everyone's feed.
fn places(record: &Record) -> impl Iterator<Item = u64> {
    let all = record.placements.iter().filter(|(feed, _)| *feed == FeedId::All);
    all.map(|(_, position)| position.offset)
}

fn renewed(offset: u64) -> Vec<u8> {
    [b"renewed".as_slice(), &offset.to_be_bytes()].concat()
}
