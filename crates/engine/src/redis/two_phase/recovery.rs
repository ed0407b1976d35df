//! Brings to its end what a node left in the middle, or a failover brought back.
//!
//! Invariant: what one cell has written all cells write, though the coordinator's server may have lost that it was
//! decided: whoever would abort a transaction asks all its cells before. One that the coordinator knows to be committed is
//! finished where its cells can be reached, whichever cannot. Done twice it changes nothing.

use super::super::across::across;
use super::super::calls::{self, Held, array, bytes, function, int, number, part};
use super::super::links::{Call, Cell};
use super::super::store::RedisStore;
use super::{FATES, FINISHED, cells_of, coordinator, decide, finish, forget, parts_of, settle};
use crate::embedded::store::StoreFault;
use redis::Value;
use std::time::Duration;

/// How long the fate of a transaction is remembered that was not finished: longer than any node repeats a question.
const MEMORY: Duration = Duration::from_secs(3600);
/// The longest wait for what another transaction holds, before it is looked at again.
const MAX_WAIT: Duration = Duration::from_millis(32);

impl RedisStore {
    /// Waits a little for a transaction that holds what is asked for; ends it if its lease is over.
    pub(in crate::redis) fn wait_for(&self, held: &Held, waits: u32) -> Result<(), StoreFault> {
        if !held.is_over {
            let wait = Duration::from_millis(1 << waits.min(8));
            self.pause(wait.min(MAX_WAIT));
            return Ok(());
        }
        let Some(coordinator) = coordinator(&held.transaction) else {
            return Err(calls::unforeseen());
        };
        let Some(does) = self.fate(coordinator, &held.transaction)? else {
            self.pause(MAX_WAIT);
            return Ok(());
        };
        tracing::warn!(
            transaction = %String::from_utf8_lossy(&held.transaction),
            committed = does,
            "a node went away in the middle of a transaction; it is brought to its end"
        );
        self.step()?;
        self.ask(vec![finish(held.cell, &held.transaction, does)])
            .map(drop)
    }

    /// Whether a transaction whose lease is over is committed; one that is not decided is aborted. `None`: it is to be
    /// decided still.
    pub(super) fn fate(&self, coordinator: Cell, transaction: &[u8]) -> Result<Option<bool>, StoreFault> {
        match bytes(part(&self.ask(vec![peek(coordinator, transaction)])?, 0)?)? {
            b"c" => return Ok(Some(true)),
            b"d" => return Ok(None),
            _ => {}
        }
        let parts = parts_of(transaction);
        let ended = parts.iter().map(|cell| {
            let keys = calls::keys(*cell, &["done"]);
            calls::reading(*cell, function::ENDED, keys, vec![transaction.to_vec()])
        });
        for answer in self.ask(ended.collect())? {
            if int(&answer)? == 1 {
                // Where its fate is undecided yet, by the coordinator's memory, so that nobody aborts it later.
                self.ask(vec![decide(coordinator, transaction, &parts)])?;
                return Ok(Some(true));
            }
        }
        let answers = self.ask(vec![resolve(coordinator, transaction)])?;
        Ok(match bytes(part(&answers, 0)?)? {
            b"c" => Some(true),
            b"a" => Some(false),
            _ => None,
        })
    }

    /// Brings transactions to an end whose node went away, whoever waits for them; forgets fates that nobody asks for
    /// any more, all in these cells. How many were brought to an end. To be called about once a second by one node.
    pub fn finish_abandoned(&self, cells: &[Cell]) -> Result<usize, StoreFault> {
        let names = ["fates", "writes", "nodes", "done", "settled"];
        let groups = self.together(cells);
        let ask = |cells: &Vec<Cell>| {
            let keys = cells.iter().flat_map(|cell| calls::keys(*cell, &names));
            let args = vec![number(MEMORY.as_millis()), number(FINISHED.as_millis())];
            let call = calls::writing(cells[0], function::STALE, keys.collect(), args);
            across(call, self.links().is_cluster())
        };
        let answers = self.ask(groups.iter().map(ask).collect())?;
        let mut count = 0;
        for (cells, answer) in groups.iter().zip(answers) {
            for (cell, told) in cells.iter().zip(array(&answer)?) {
                count += self.finish_told(*cell, array(told)?)?;
            }
        }
        Ok(count)
    }

    /// What one cell told of what was left behind.
    fn finish_told(&self, cell: Cell, told: &[Value]) -> Result<usize, StoreFault> {
        let mut count = 0;
        for fate in array(part(told, 0)?)?.chunks(4) {
            count += usize::from(self.finish_fate(cell, fate)?);
        }
        for transaction in array(part(told, 1)?)? {
            let held = Held {
                cell,
                transaction: bytes(transaction)?.to_vec(),
                is_over: true,
            };
            self.wait_for(&held, 0)?;
            count += 1;
        }
        Ok(count)
    }

    /// One fate that was left behind: transaction, state, cells, whether it may be forgotten. True where something
    /// was left to do.
    fn finish_fate(&self, coordinator: Cell, fate: &[Value]) -> Result<bool, StoreFault> {
        let transaction = bytes(part(fate, 0)?)?;
        let mut changed = false;
        match bytes(part(fate, 1)?)? {
            b"c" => {
                let cells = cells_of(bytes(part(fate, 2)?)?);
                let calls = cells
                    .iter()
                    .map(|cell| finish(*cell, transaction, true))
                    .collect();
                for answer in self.ask(calls)? {
                    changed |= int(&answer)? == 1;
                }
                // Every cell has answered. Its node may be gone, or have nothing to settle it with for long.
                self.ask(vec![settle(coordinator, transaction.to_vec())])?;
            }
            b"d" => changed = self.fate(coordinator, transaction)?.is_some(),
            _ => {}
        }
        if int(part(fate, 3)?)? == 1 {
            self.ask(vec![forget(coordinator, vec![transaction.to_vec()])])?;
        }
        Ok(changed)
    }
}

fn peek(coordinator: Cell, transaction: &[u8]) -> Call {
    let keys = calls::keys(coordinator, &FATES);
    calls::reading(coordinator, function::PEEK, keys, vec![transaction.to_vec()])
}

fn resolve(coordinator: Cell, transaction: &[u8]) -> Call {
    let keys = calls::keys(coordinator, &FATES);
    calls::writing(coordinator, function::RESOLVE, keys, vec![transaction.to_vec()])
}
