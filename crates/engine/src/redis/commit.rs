//! What a transaction writes, by cell, and its commit in one call.

use super::calls::{self, Answer, Held, function, number};
use super::links::{Call, Cell, Durability, LinkFault};
use super::look::Look;
use super::owners::{self, Owner};
use super::rows;
use super::store::{RedisStore, now, one};
use super::tokens::Tokens;
use crate::embedded::store::{Batch, StoreFault, Table, Tally, View as _, With};
use std::collections::{BTreeMap, BTreeSet};

/// Rows that one call writes: the server does nothing else meanwhile, some milliseconds. With more the cells are
/// written one after the other, in two phases.
const MAX_ROWS: usize = 4096;
/// Bytes that one call writes.
const MAX_BYTES: usize = 2 << 20;

/// What a transaction rests on and writes.
#[derive(Debug)]
pub(super) struct Writes {
    pub cells: BTreeMap<Cell, Share>,
    rows: usize,
    bytes: usize,
    /// Bytes of rows that go, as far as they are known, and of those that come.
    freed: usize,
    put: usize,
    /// By how much what notifications hold changes.
    held: i64,
    /// It was refused before, and something may be kept for it.
    pub may_be_kept: bool,
}

/// One cell's part of it.
#[derive(Debug, Default)]
pub(super) struct Share {
    /// What it rests on.
    pub stamps: Vec<(Owner, u32)>,
    /// Owners whose rows change.
    pub changed: BTreeSet<u16>,
    removed: Vec<Vec<u8>>,
    put: Vec<Vec<u8>>,
    /// Rows that are added to, as they are at nothing, and by how much.
    added: Vec<(Vec<u8>, i64)>,
    counts: Vec<(&'static str, i64)>,
    news: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Writes {
    pub fn new(look: Option<&Look>, batch: &Batch, with: &With<'_>, is_cluster: bool) -> Writes {
        let mut writes = Writes {
            cells: BTreeMap::new(),
            rows: 0,
            bytes: 0,
            freed: 0,
            put: 0,
            held: with.tally.held,
            may_be_kept: with.tries.is_some_and(|tries| tries > 0),
        };
        for &table in Table::ALL {
            for (key, value) in batch.table(table).iter() {
                writes.change(look, table, key, value);
            }
        }
        for news in with.news {
            let (cell, channel) = owners::channel(&news.feed);
            writes.bytes += news.payload.len();
            writes.share(cell).news.push((channel, news.payload.clone()));
        }
        for added in with.added {
            let owner = owners::owner_of(added.table, &added.key);
            let none = rows::member(added.table, &added.key, &added.none, owner);
            writes.rows += 1;
            writes.share(owner.cell).added.push((none, added.change));
        }
        writes.count(&with.tally, is_cluster);
        for (owner, stamp) in look.iter().flat_map(|look| look.stamps().clone()) {
            writes.share(owner.cell).stamps.push((owner, stamp));
        }
        writes
    }

    fn share(&mut self, cell: Cell) -> &mut Share {
        self.cells.entry(cell).or_default()
    }

    fn change(&mut self, look: Option<&Look>, table: Table, key: &[u8], value: Option<&[u8]>) {
        let is_absent = look.is_some_and(|look| look.knows_absent(table, key));
        if is_absent && value.is_none() {
            return;
        }
        let owner = owners::owner_of(table, key);
        let share = self.share(owner.cell);
        share.changed.insert(owner.bucket);
        if !is_absent {
            share.removed.push(rows::prefix(table, key));
        }
        if let Some(value) = value {
            share.put.push(rows::member(table, key, value, owner));
        }
        let known = look.and_then(|look| look.size_of(table, key));
        self.freed += known.map_or(0, |size| key.len() + size);
        self.put += value.map_or(0, |value| key.len() + value.len());
        self.rows += 1;
        self.bytes += key.len() + value.map_or(0, <[u8]>::len);
    }

    /// In a Cluster anywhere: the counts of all cells are summed.
    fn count(&mut self, tally: &Tally, is_cluster: bool) {
        let counts = [
            ("held", tally.held),
            ("records", tally.records),
            ("scheduled", tally.scheduled),
            ("letters", tally.letters),
        ];
        let counts: Vec<_> = counts.into_iter().filter(|(_, change)| *change != 0).collect();
        if !counts.is_empty() {
            let first = self.cells.keys().next().copied().filter(|_| is_cluster);
            self.share(first.unwrap_or(Cell(0))).counts = counts;
        }
    }

    /// All that it rests on and writes.
    pub fn owners(&self) -> impl Iterator<Item = Owner> {
        self.cells.iter().flat_map(|(cell, share)| {
            let changed = share.changed.iter().map(|bucket| Owner {
                cell: *cell,
                bucket: *bucket,
            });
            share.stamps.iter().map(|(owner, _)| *owner).chain(changed)
        })
    }

    /// It changes nothing and tells nothing.
    pub fn is_empty(&self) -> bool {
        self.cells.values().all(|share| !share.writes())
    }

    pub fn fits_one_call(&self, is_cluster: bool) -> bool {
        match is_cluster {
            true => self.cells.len() == 1,
            false => self.rows <= MAX_ROWS && self.bytes <= MAX_BYTES,
        }
    }

    /// It leaves less than there was: what would help where memory has run out must not be refused there.
    pub fn frees(&self) -> bool {
        self.held < 0 || self.put < self.freed
    }

    fn call(&self, tokens: &Tokens, node: &[u8], n: u64) -> Call {
        let first = self.cells.keys().next().copied().unwrap_or(Cell(0));
        let mut keys = vec![first.key("nodes")];
        let mut args = vec![tokens.of(first).to_vec(), node.to_vec(), number(n)];
        args.push(number(u8::from(self.may_be_kept)));
        for (cell, share) in &self.cells {
            let names = ["rows", "stamps", "locks", "kept", "counts"];
            keys.append(&mut calls::keys(*cell, &names));
            share.write_stamps(&mut args, |_| true);
        }
        for share in self.cells.values() {
            share.write(&mut args);
        }
        let function = match self.frees() {
            true => function::COMMIT_FREEING,
            false => function::COMMIT,
        };
        calls::writing(first, function, keys, args)
    }
}

impl Share {
    /// Whether it does more than rest on something.
    pub fn writes(&self) -> bool {
        let adds = !self.added.is_empty() || !self.counts.is_empty();
        adds || !self.changed.is_empty() || !self.news.is_empty()
    }

    /// Those stamps that it rests on and `which` says.
    pub fn write_stamps(&self, args: &mut Vec<Vec<u8>>, which: impl Fn(&Owner) -> bool) {
        let stamps: Vec<_> = self.stamps.iter().filter(|(owner, _)| which(owner)).collect();
        args.push(number(stamps.len()));
        for (owner, stamp) in stamps {
            args.extend([number(owner.bucket), number(stamp)]);
        }
    }

    /// The owners whose rows change.
    pub fn write_changed(&self, args: &mut Vec<Vec<u8>>) {
        args.push(number(self.changed.len()));
        args.extend(self.changed.iter().map(number));
    }

    /// Those of them that it does not rest on.
    pub fn write_unread(&self, args: &mut Vec<Vec<u8>>) {
        let read: BTreeSet<u16> = self.stamps.iter().map(|(owner, _)| owner.bucket).collect();
        let unread: Vec<_> = self.changed.difference(&read).collect();
        args.push(number(unread.len()));
        args.extend(unread.into_iter().map(number));
    }

    /// As the library's `write` reads it.
    pub fn write(&self, args: &mut Vec<Vec<u8>>) {
        self.write_changed(args);
        for rows in [&self.removed, &self.put] {
            args.push(number(rows.len()));
            args.extend(rows.iter().cloned());
        }
        args.push(number(self.added.len() * 2));
        for (none, change) in &self.added {
            args.extend([none.clone(), number(change)]);
        }
        args.push(number(self.counts.len() * 2));
        for (name, change) in &self.counts {
            args.extend([name.as_bytes().to_vec(), number(change)]);
        }
        args.push(number(self.news.len() * 2));
        for (channel, payload) in &self.news {
            args.extend([channel.clone(), payload.clone()]);
        }
    }
}

impl RedisStore {
    /// Commits in one call. `None`: it is done. Else nothing was written, and these hold what it rests on, if that is
    /// why. Repeats what was not answered: the number tells the server which commit it is.
    pub(super) fn commit_at_once(
        &self,
        tokens: &Tokens,
        writes: &Writes,
        n: u64,
        sync: bool,
    ) -> Result<Option<Vec<Held>>, StoreFault> {
        let call = writes.call(tokens, self.node(), n);
        let cells: Vec<Cell> = writes.cells.keys().copied().collect();
        let patience_ends = now() + self.options().patience;
        loop {
            let moment = self.links().moment();
            self.step()?;
            let answer = one(self.insist(vec![call.clone()])).map_err(|link| calls::fault(&link))?;
            match calls::answer(&answer, &cells)? {
                Answer::Done => {}
                Answer::Conflict(held) => return Ok(Some(held)),
                Answer::Stranger => return self.met_another().map(|()| Some(Vec::new())),
            }
            match self.confirm(moment, &cells, sync) {
                // Which server has it is not known; it is told again, and confirmed there.
                Err(LinkFault::Unknown(_)) if now() < patience_ends => {}
                confirmed => return confirmed.map(|()| None).map_err(|link| unconfirmed(&link)),
            }
        }
    }
}

impl RedisStore {
    /// Of a transaction that writes nothing: what it read is so, and is as safe as what is written. What was written
    /// before, by whomever, may not have its copies yet, and what is answered now would rest on it.
    pub(super) fn vouch(&self, look: &Look, sync: bool) -> Result<(), StoreFault> {
        if !sync || self.options().durability == Durability::None {
            return look.is_whole();
        }
        // Not only the cells that were looked at: of a transaction over several one is read, and all are told of.
        let cells: Vec<Cell> = Cell::all().collect();
        let patience_ends = now() + self.options().patience;
        loop {
            let moment = self.links().moment();
            look.is_so_now()?;
            match self.confirm(moment, &cells, sync) {
                Err(LinkFault::Unknown(_)) if now() < patience_ends => {}
                confirmed => return confirmed.map_err(|link| unconfirmed(&link)),
            }
        }
    }
}

/// It is written, but not as safely as was asked for.
pub(super) fn unconfirmed(link: &LinkFault) -> StoreFault {
    StoreFault::Io(format!("it was written, and may be lost: {link}"))
}
