//! Ranges that a look reads from the server: how they are asked for, and what comes back.

use super::across::across;
use super::calls::{self, Held, Token, array, bytes, function, int, number, part};
use super::known;
use super::links::{Call, Cell};
use super::owners::{self, Owner};
use super::rows;
use crate::embedded::store::{Row, StoreFault, Table, Tally};
use redis::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Ranges in one call, which the server does nothing else beside.
const MAX_RANGES: usize = 1024;
/// Owners that were read before of whom a call asks again.
const MAX_AGAIN: usize = 256;
/// Rows that one range brings at most; what is beyond is asked for again.
const MAX_ROWS: usize = 4096;
/// Rows that one cell brings of a range that lies in all.
const MAX_SHARE: usize = 128;

/// A range that is not known yet.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub table: Table,
    pub from: Vec<u8>,
    pub to: Vec<u8>,
    /// How many rows, from the near end.
    pub limit: usize,
    /// From the far end.
    pub backward: bool,
    /// Whose all of it is. Without one every cell is asked.
    pub owner: Option<Owner>,
}

/// What came back of one range.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// By rising key, with the owners' stamps where the range has not one owner.
    pub rows: Vec<(Row, Option<(Owner, u32)>)>,
    /// These are all rows of this range.
    pub from: Vec<u8>,
    pub to: Vec<u8>,
}

/// What one fetch brought.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    /// Of each range that was asked for. `None`: there was no room for it.
    pub found: Vec<Option<Found>>,
    pub stamps: Vec<(Owner, u32)>,
    pub tokens: Vec<(Cell, Token)>,
    pub held: Vec<Held>,
    pub tally: Option<Tally>,
}

/// What one call asks one cell.
#[derive(Debug, Default, Clone)]
struct Part {
    buckets: BTreeSet<u16>,
    /// By their places among all.
    ranges: Vec<usize>,
}

/// The calls of one fetch, and what each asks.
pub(super) struct Plan<'a> {
    asks: &'a [Ask],
    calls: Vec<BTreeMap<Cell, Part>>,
    with_counts: bool,
    is_cluster: bool,
}

impl Ask {
    pub fn new(table: Table, from: &[u8], to: &[u8], limit: usize, backward: bool) -> Ask {
        Ask {
            table,
            from: from.to_vec(),
            to: to.to_vec(),
            limit,
            backward,
            owner: owners::owner_of_range(table, from, to),
        }
    }

    fn cells(&self) -> Vec<Cell> {
        self.owner
            .map_or_else(|| Cell::all().collect(), |owner| vec![owner.cell])
    }

    /// How many rows one cell is asked for. Of many each has its part, and somewhat more.
    fn share(&self) -> usize {
        let share = match self.owner {
            None => (self.limit / 32 + 8).min(MAX_SHARE),
            Some(_) => self.limit,
        };
        share.min(self.limit).min(MAX_ROWS)
    }

    fn write(&self, args: &mut Vec<Vec<u8>>) {
        let kind: &[u8] = match (self.owner, self.backward) {
            (Some(_), false) => b"f",
            (Some(_), true) => b"b",
            (None, false) => b"g",
            (None, true) => b"h",
        };
        let (least, end) = rows::bounds(self.table, &self.from, &self.to);
        args.extend([kind.to_vec(), least, end, number(self.share())]);
    }
}

impl<'a> Plan<'a> {
    /// One call for all cells that share a `group`, as far as it is not too long.
    pub fn new(
        asks: &'a [Ask],
        is_cluster: bool,
        group: impl Fn(Cell) -> u64,
        with_counts: bool,
    ) -> Plan<'a> {
        let mut calls: Vec<BTreeMap<Cell, Part>> = Vec::new();
        for chunk in (0..asks.len()).collect::<Vec<_>>().chunks(MAX_RANGES) {
            let mut groups: BTreeMap<u64, BTreeMap<Cell, Part>> = BTreeMap::new();
            for &at in chunk {
                for cell in asks[at].cells() {
                    let parts = groups.entry(group(cell)).or_default();
                    let part = parts.entry(cell).or_default();
                    part.ranges.push(at);
                    part.buckets.extend(asks[at].owner.map(|owner| owner.bucket));
                }
            }
            calls.extend(groups.into_values());
        }
        Plan {
            asks,
            calls,
            with_counts: with_counts && !is_cluster,
            is_cluster,
        }
    }

    /// Has it say also what the stamps of these owners are now, which were read before: then all of it is of one moment.
    /// False where that takes more than one call.
    pub fn ask_again(&mut self, owners: impl ExactSizeIterator<Item = Owner>) -> bool {
        let [parts] = &mut self.calls[..] else {
            return false;
        };
        if owners.len() > MAX_AGAIN || (self.is_cluster && owners.len() > 0) {
            return false;
        }
        for owner in owners {
            parts.entry(owner.cell).or_default().buckets.insert(owner.bucket);
        }
        true
    }

    pub fn calls(&self) -> Vec<Call> {
        let calls = self.calls.iter().enumerate();
        calls
            .map(|(at, parts)| self.call(parts, self.with_counts && at == 0))
            .collect()
    }

    fn call(&self, parts: &BTreeMap<Cell, Part>, with_counts: bool) -> Call {
        let mut keys = Vec::with_capacity(parts.len() * 3 + 1);
        let mut args = vec![number(u8::from(with_counts))];
        for (cell, part) in parts {
            keys.append(&mut calls::keys(*cell, &["rows", "stamps", "locks"]));
            args.push(number(part.buckets.len()));
            args.extend(part.buckets.iter().map(number));
            args.push(number(part.ranges.len()));
            for at in &part.ranges {
                self.asks[*at].write(&mut args);
            }
        }
        if with_counts {
            keys.push(Cell(0).key("counts"));
        }
        let first = parts.keys().next().copied().unwrap_or(Cell(0));
        across(
            calls::reading(first, function::FETCH, keys, args),
            self.is_cluster,
        )
    }

    /// Puts the answers, one for each call, together.
    pub fn read(&self, answers: &[Value]) -> Result<Fetched, StoreFault> {
        let mut fetched = Fetched::default();
        let mut heaps: Vec<Heap> = self.asks.iter().map(Heap::new).collect();
        for (parts, answer) in self.calls.iter().zip(answers) {
            let told = array(answer)?;
            let token = bytes(part(told, 0)?)?;
            let counts = array(part(told, 1)?)?;
            if !counts.is_empty() {
                fetched.tally = Some(tally(counts)?);
            }
            for (n, (cell, asked)) in parts.iter().enumerate() {
                fetched.tokens.push((*cell, token.to_vec()));
                let told = array(part(told, n + 2)?)?;
                let stamps = array(part(told, 0)?)?;
                for (bucket, stamp) in asked.buckets.iter().zip(stamps) {
                    let owner = Owner {
                        cell: *cell,
                        bucket: *bucket,
                    };
                    fetched.stamps.push((owner, stamp_of(stamp)?));
                }
                fetched.held.append(&mut calls::held(*cell, part(told, 1)?)?);
                for (n, at) in asked.ranges.iter().enumerate() {
                    heaps[*at].add(&self.asks[*at], *cell, array(part(told, n + 2)?)?)?;
                }
            }
        }
        fetched.found = heaps.into_iter().map(Heap::whole).collect();
        Ok(fetched)
    }
}

/// What the cells have of one range.
struct Heap {
    rows: Vec<(Row, Option<(Owner, u32)>)>,
    /// All rows of this part of the range are among those.
    from: Vec<u8>,
    to: Vec<u8>,
    is_read: bool,
}

impl Heap {
    fn new(ask: &Ask) -> Heap {
        Heap {
            rows: Vec::new(),
            from: ask.from.clone(),
            to: ask.to.clone(),
            is_read: true,
        }
    }

    /// Adds what one cell told.
    fn add(&mut self, ask: &Ask, cell: Cell, told: &[Value]) -> Result<(), StoreFault> {
        let (state, told) = told.split_first().ok_or_else(calls::unforeseen)?;
        let state = int(state)?;
        if state == 2 {
            self.is_read = false;
            return Ok(());
        }
        let step = if ask.owner.is_none() { 2 } else { 1 };
        let mut last = None;
        for pair in told.chunks(step) {
            let member = bytes(part(pair, 0)?)?;
            let stamped = match pair.get(1) {
                Some(stamp) => Some((rows::owner(cell, member)?, stamp_of(stamp)?)),
                None => None,
            };
            let row = rows::row(ask.table, member)?;
            last = Some(row.0.clone());
            self.rows.push((row, stamped));
        }
        match last {
            // There may be more beyond the last one.
            Some(last) if state == 0 && ask.backward => self.from = last.max(std::mem::take(&mut self.from)),
            Some(last) if state == 0 => self.to = known::next(&last).min(std::mem::take(&mut self.to)),
            _ => {}
        }
        Ok(())
    }

    /// As far as nothing is missing.
    fn whole(mut self) -> Option<Found> {
        if !self.is_read {
            return None;
        }
        self.rows
            .retain(|((key, _), _)| *key >= self.from && *key < self.to);
        self.rows.sort_by(|a, b| a.0.0.cmp(&b.0.0));
        Some(Found {
            rows: self.rows,
            from: self.from,
            to: self.to,
        })
    }
}

fn stamp_of(value: &Value) -> Result<u32, StoreFault> {
    u32::try_from(int(value)?).map_err(|_| calls::unforeseen())
}

/// The four counts, in the order in which the library tells them.
pub(super) fn tally(values: &[Value]) -> Result<Tally, StoreFault> {
    let count = |at| -> Result<i64, StoreFault> {
        match calls::text(part(values, at)?)? {
            None => Ok(0),
            Some(text) => text.parse().map_err(|_| calls::unforeseen()),
        }
    };
    Ok(Tally {
        held: count(0)?,
        records: count(1)?,
        scheduled: count(2)?,
        letters: count(3)?,
    })
}
