//! A transaction that others got in the way of: what of its look still holds, and how it gets through all the same.
//!
//! A small one is looked up anew and done again: it is through long before somebody else writes there. A large one rests
//! on so much that beside a busy node something of it has always changed. So it is told what has, and from that moment on
//! the store *keeps* all that it rests on and writes for its node: commits of others that write there wait, for
//! milliseconds. Its next try, on what is left of its look and the few rows that had changed, gets through.
//!
//! Invariant: nothing that is true depends on what is kept. The stamps alone decide whether a transaction is applied; what
//! is kept only says who waits for whom. It has a lease: a node that went away is in nobody's way for longer than that.

use super::across::{CELLS_AT_ONCE, across};
use super::calls::{self, Held, array, function, int, number, part};
use super::commit::Writes;
use super::links::{Call, Cell};
use super::look::Look;
use super::owners::Owner;
use super::store::{RedisStore, locked, now};
use crate::embedded::store::{Refused, StoreFault};
use redis::Value;
use std::collections::BTreeSet;
use std::time::Duration;

/// For so many owners all is kept as soon as one of them is found changed; for fewer after [`MANY_TRIES`].
const LARGE: usize = 48;
/// Tries after which all is kept for a transaction of any size.
const MANY_TRIES: u32 = 2;
/// How long it is kept the first time: the second try of the largest takes less.
const LEASE: Duration = Duration::from_millis(1000);
/// For so many owners that commit in parts all is kept before the first of them: to find out there what has changed
/// would cost as much as the whole.
const KEPT_FIRST: usize = 512;
/// Doubled so often where that was too short.
const MAX_DOUBLED: u32 = 3;
/// The longest of the first pauses where another node has something kept, in milliseconds, and the longest of all.
const PAUSES: (u64, u64) = (2, 16);

/// What was asked to be kept.
enum Kept {
    /// It is; this has changed since it was read.
    Yes(BTreeSet<Owner>),
    /// Another node has something of it.
    Not,
}

/// For how long all of a transaction is to be kept that was refused so often before.
fn lease(tries: u32, owners: usize) -> Option<Duration> {
    let over = match owners {
        LARGE.. => tries,
        _ => tries.checked_sub(MANY_TRIES)?,
    };
    Some(LEASE * (1 << over.min(MAX_DOUBLED)))
}

impl RedisStore {
    /// What to answer where others got in the way of a commit: waits for those that have something kept, and keeps what
    /// is needed for the next try, where there is to be one.
    pub(super) fn refused(
        &self,
        look: &Look,
        writes: &Writes,
        held: &[Held],
        tries: Option<u32>,
    ) -> Result<Refused, StoreFault> {
        let anew = Refused::from(StoreFault::Conflict);
        self.unblock(held)?;
        let Some(tries) = tries else {
            return Ok(anew);
        };
        let lease = lease(tries, look.stamps().len());
        if lease.is_none() && held.is_empty() {
            return Ok(anew);
        }
        let moved = self.keep_in_turn(writes, lease);
        Ok(moved.map_or(anew, |moved| left_of(look, &moved)))
    }

    /// Before a large transaction is written in parts. Some: what it rests on has changed.
    pub(super) fn keep_first(&self, look: &Look, writes: &Writes, tries: Option<u32>) -> Option<Refused> {
        let owners = look.stamps().len();
        if tries != Some(0) || owners < KEPT_FIRST {
            return None;
        }
        let moved = self.keep_in_turn(writes, lease(0, owners))?;
        (!moved.is_empty()).then(|| left_of(look, &moved))
    }

    /// Waits until nobody else has anything of it kept, and has it kept. What has changed; `None` where patience ends, or
    /// the store is away: nothing was written so far, and the next try tells. Then nothing is kept any more.
    fn keep_in_turn(&self, writes: &Writes, lease: Option<Duration>) -> Option<BTreeSet<Owner>> {
        let patience_ends = now() + self.options().patience;
        let cells: Vec<Cell> = writes.cells.keys().copied().collect();
        let mut rounds = vec![cells.clone()];
        let mut pause = PAUSES.0;
        while now() < patience_ends {
            match self.keep(writes, &rounds, lease) {
                Ok(Kept::Yes(moved)) => return Some(moved),
                // Of nodes that wait for one another all get on, at different times and one server after the other.
                Ok(Kept::Not) => self.pause(Duration::from_millis(part_of(pause))),
                Err(fault) => {
                    tracing::debug!(%fault, "nothing can be kept for a large transaction");
                    break;
                }
            }
            rounds = self.by_server(&cells);
            pause = (pause * 2).min(PAUSES.1);
        }
        self.let_go_of_all(BTreeSet::new());
        None
    }

    /// Asks what of it has changed, and has all of it kept for so long: the cells of each round at once, one round after
    /// the other.
    fn keep(
        &self,
        writes: &Writes,
        rounds: &[Vec<Cell>],
        lease: Option<Duration>,
    ) -> Result<Kept, StoreFault> {
        if lease.is_some() {
            // Noted before it is asked for: some of it may be kept though not all is answered.
            locked(&self.inner.kept).extend(writes.owners());
        }
        let mut moved = BTreeSet::new();
        for (asked, cells) in rounds.iter().enumerate() {
            let parts = self.together(cells);
            let calls = parts.iter().map(|cells| self.keep_call(writes, cells, lease));
            let mut is_kept = true;
            for (cells, answer) in parts.iter().zip(self.ask(calls.collect())?) {
                match moved_of(cells, &answer)? {
                    Some(some) => moved.extend(some),
                    None => is_kept = false,
                }
            }
            if !is_kept {
                if lease.is_some() && (parts.len() > 1 || asked > 0) {
                    // Of two that each have a part neither would get the rest.
                    self.let_go_of(&rounds[..=asked].concat())?;
                }
                return Ok(Kept::Not);
            }
        }
        Ok(Kept::Yes(moved))
    }

    /// These cells, those of one server together, in an order that is the same whatever they are.
    fn by_server(&self, cells: &[Cell]) -> Vec<Vec<Cell>> {
        let mut order: Vec<u64> = Vec::new();
        for cell in Cell::all() {
            let id = self.links().server_of(cell);
            if !order.contains(&id) {
                order.push(id);
            }
        }
        let of = |id: &u64| -> Vec<Cell> {
            let cells = cells.iter().copied();
            cells
                .filter(|cell| self.links().server_of(*cell) == *id)
                .collect()
        };
        let rounds = order.iter().map(of);
        rounds.filter(|cells| !cells.is_empty()).collect()
    }

    fn keep_call(&self, writes: &Writes, cells: &[Cell], lease: Option<Duration>) -> Call {
        let lease = lease.map_or(0, |lease| lease.as_millis());
        let mut keys = Vec::with_capacity(cells.len() * 3);
        let mut args = vec![self.node().to_vec(), number(lease)];
        for cell in cells {
            keys.append(&mut calls::keys(*cell, &["stamps", "locks", "kept"]));
            if let Some(share) = writes.cells.get(cell) {
                share.write_stamps(&mut args, |_| true);
                share.write_unread(&mut args);
            }
        }
        across(
            calls::writing(cells[0], function::KEEP, keys, args),
            self.links().is_cluster(),
        )
    }

    /// It is committed: nothing is kept for it any more. What its own call has let go of need not be asked for.
    pub(super) fn let_go(&self, writes: &Writes, at_once: bool) {
        let gone = match at_once && writes.may_be_kept {
            true => writes.owners().collect(),
            false => BTreeSet::new(),
        };
        self.let_go_of_all(gone);
    }

    /// Nothing is kept for this node any more. These are not already.
    pub(super) fn let_go_of_all(&self, gone: BTreeSet<Owner>) {
        let mut kept = std::mem::take(&mut *locked(&self.inner.kept));
        kept.retain(|owner| !gone.contains(owner));
        let cells: BTreeSet<Cell> = kept.iter().map(|owner| owner.cell).collect();
        let cells: Vec<Cell> = cells.into_iter().collect();
        if !cells.is_empty()
            && let Err(fault) = self.let_go_of(&cells)
        {
            tracing::debug!(%fault, "what is kept for this node is left to its lease");
        }
    }

    /// Nothing is kept for this node in these cells any more.
    fn let_go_of(&self, cells: &[Cell]) -> Result<(), StoreFault> {
        let groups = self.together(cells);
        let parts = groups.iter().flat_map(|cells| cells.chunks(CELLS_AT_ONCE));
        let calls = parts.map(|cells| {
            let keys = cells.iter().map(|cell| cell.key("kept")).collect();
            let args = vec![self.node().to_vec()];
            across(
                calls::writing(cells[0], function::LET_GO_ALL, keys, args),
                self.links().is_cluster(),
            )
        });
        self.ask(calls.collect()).map(drop)
    }
}

/// A random part of so many milliseconds, all of it at most.
fn part_of(most: u64) -> u64 {
    getrandom::u64().unwrap_or(most) % most.max(1) + 1
}

/// Others were in the way, and these are what they changed.
fn left_of(look: &Look, moved: &BTreeSet<Owner>) -> Refused {
    let kept = look.without(moved).map(|look| Box::new(look) as _);
    let fault = StoreFault::Conflict;
    Refused { fault, kept }
}

/// What of these cells has changed, where they are kept now.
fn moved_of(cells: &[Cell], answer: &Value) -> Result<Option<Vec<Owner>>, StoreFault> {
    match calls::answer(answer, cells)? {
        calls::Answer::Done => {}
        calls::Answer::Conflict(_) => return Ok(None),
        calls::Answer::Stranger => return Err(calls::unforeseen()),
    }
    let told = array(answer)?;
    let mut moved = Vec::new();
    for (n, cell) in cells.iter().enumerate() {
        for bucket in array(part(told, n + 1)?)? {
            let bucket = u16::try_from(int(bucket)?).map_err(|_| calls::unforeseen())?;
            moved.push(Owner { cell: *cell, bucket });
        }
    }
    Ok(Some(moved))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_large_is_kept_at_once_and_what_is_small_when_it_was_tried() {
        assert_eq!(lease(0, LARGE), Some(LEASE));
        assert_eq!(lease(1, 10_000), Some(LEASE * 2));
        assert_eq!(lease(99, 10_000), Some(LEASE * 8));
        assert_eq!(lease(0, LARGE - 1), None);
        assert_eq!(lease(1, 1), None);
        assert_eq!(lease(2, 1), Some(LEASE));
        assert_eq!(lease(99, 1), Some(LEASE * 8));
    }
}
