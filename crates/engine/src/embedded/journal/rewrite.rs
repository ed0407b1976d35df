//! Rewrites the base, so that what was removed leaves the disk: copies its rows in key order to a new file,
//! some at a time, and then gives that the base's name.
//!
//! Invariant: the new file is the base as it is now, as far as it was copied. Checkpoints go on meanwhile;
//! each is written to the base, and what of it lies in the part that was copied to the new file too. So no
//! list of changes is needed, and no old snapshot. Until the new file, complete and on the disk, takes the
//! name, it can be thrown away at any time: by a failure, which rests the rewrite, or by the next start.

use super::checkpoint::Side;
use super::files::{Files, fault};
use super::{BASE, Core, Frozen, NEW_BASE, discard_new, lock, opener};
use crate::embedded::StoreFault;
use crate::embedded::base::{Base, CACHE_BYTES, Opener, builder};
use crate::embedded::store::Table;
use std::sync::Arc;

/// Bytes that are copied in one go; the last row may exceed them.
const CHUNK_BYTES: usize = 4 << 20;
/// Checkpoints after which a rewrite that failed is tried again.
const REST: u32 = 60;
/// A base is rewritten when it takes so many times the bytes of its rows. One that only grows takes up to
/// about twice of them, since redb doubles its file.
const MOST: u64 = 3;
/// A base is not rewritten again before it is larger than after the last time by this part of it.
const GROWN: u64 = 2;

/// A new base that is being filled.
pub(super) struct Rewrite {
    base: Base,
    /// The table that is being copied: all before it are.
    table: usize,
    /// The last key of it that was copied.
    after: Option<Vec<u8>>,
}

impl Rewrite {
    fn begin(files: &dyn Files) -> Result<Rewrite, StoreFault> {
        discard_new(files)?;
        let file = files
            .open(NEW_BASE, true)
            .map_err(|error| fault(files, "make", NEW_BASE, &error))?;
        let open: Opener = Box::new(move || builder(CACHE_BYTES).create_with_backend(file.clone()));
        Ok(Rewrite {
            base: Base::open(files.shown(NEW_BASE), open)?,
            table: 0,
            after: None,
        })
    }

    fn is_complete(&self) -> bool {
        self.table == Table::ALL.len()
    }

    /// Copies some rows. Each part is synced, so that the last has little left to wait for.
    fn copy_some(&mut self, from: &mut Base, rows: usize) -> Result<(), StoreFault> {
        let table = Table::ALL[self.table];
        let raw = from
            .reading()?
            .raw_after(table, self.after.as_deref(), rows, CHUNK_BYTES)?;
        let head = from.head();
        self.base
            .write(head.applied, head.segment, |filling| filling.copy(table, &raw))?;
        match raw.into_iter().next_back() {
            Some((key, _)) => self.after = Some(key),
            None => (self.table, self.after) = (self.table + 1, None),
        }
        Ok(())
    }
}

impl Side {
    /// Writes a checkpoint to the new base too.
    pub fn follow(&mut self, files: &dyn Files, frozen: &Frozen) {
        self.resting = self.resting.saturating_sub(1);
        let Some(rewrite) = &mut self.rewrite else { return };
        let Rewrite { base, table, after } = rewrite;
        let is_copied = |of: Table, key: &[u8]| {
            let within = || after.as_deref().is_some_and(|after| key <= after);
            (of as usize) < *table || (of as usize == *table && within())
        };
        let followed = base.write(frozen.through, frozen.segment, |filling| {
            frozen.fill(filling, is_copied)
        });
        if let Err(fault) = followed {
            self.give_up(files, &fault);
        }
    }

    fn give_up(&mut self, files: &dyn Files, fault: &StoreFault) {
        tracing::warn!(%fault, "the base could not be rewritten; that is tried again later");
        self.resting = REST;
        self.abandon(files);
    }

    /// Bytes of the new base.
    pub fn new_bytes(&self, files: &dyn Files) -> u64 {
        let taken = |_: &Rewrite| files.taken(NEW_BASE).unwrap_or(0);
        self.rewrite.as_ref().map_or(0, taken)
    }

    /// Throws away what was copied.
    pub fn abandon(&mut self, files: &dyn Files) {
        if self.rewrite.take().is_some()
            && let Err(fault) = discard_new(files)
        {
            tracing::warn!(%fault, "a base that was not completed stays until the next start");
        }
    }
}

impl Core {
    /// Does a part of a rewrite, where one is due or in progress. Says whether there is more to do.
    pub(super) fn rewrite_some(&self) -> bool {
        let mut side = lock(&self.base);
        if side.rewrite.is_none() && !self.rewrite_is_due(&side) {
            return false;
        }
        if let Err(fault) = self.try_rewrite(&mut side) {
            side.give_up(&*self.files, &fault);
        }
        self.measure(&side, &lock(&self.log));
        side.rewrite.is_some()
    }

    fn rewrite_is_due(&self, side: &Side) -> bool {
        let length = self.base_bytes.load(std::sync::atomic::Ordering::Relaxed);
        let kept = side
            .base
            .head()
            .live
            .saturating_mul(MOST)
            .saturating_add(self.bounds.slack);
        let grown = side.rewritten.saturating_add(side.rewritten / GROWN);
        // Much was removed after it: what it copied is not worth keeping.
        let shrunk = side.base.head().live < side.rewritten_live / GROWN;
        side.resting == 0 && length > kept && (length > grown || shrunk)
    }

    fn try_rewrite(&self, side: &mut Side) -> Result<(), StoreFault> {
        let Side { base, rewrite, .. } = side;
        let rewrite = match rewrite {
            Some(rewrite) => rewrite,
            None => rewrite.insert(Rewrite::begin(&*self.files)?),
        };
        if !rewrite.is_complete() {
            rewrite.copy_some(base, self.bounds.chunk_rows)?;
        }
        if rewrite.is_complete() {
            self.take_over(side)?;
        }
        Ok(())
    }

    /// Puts the new base in the old one's place. Whoever reads the old one goes on doing so.
    fn take_over(&self, side: &mut Side) -> Result<(), StoreFault> {
        let Some(rewrite) = &mut side.rewrite else {
            return Ok(());
        };
        let reading = Arc::new(rewrite.base.reading()?);
        let renamed = self.files.rename(NEW_BASE, BASE);
        renamed.map_err(|error| fault(&*self.files, "rename", NEW_BASE, &error))?;
        let Some(mut rewrite) = side.rewrite.take() else {
            return Ok(());
        };
        let open = opener(&self.files, BASE, CACHE_BYTES);
        rewrite.base.renamed(self.files.shown(BASE), open);
        let old = std::mem::replace(&mut side.base, rewrite.base);
        side.renamed = true;
        let old_reading = {
            let mut state = lock(&self.state);
            state.live = side.base.head().live;
            std::mem::replace(&mut state.reading, reading)
        };
        drop((old_reading, old));
        side.rewritten = self.files.taken(BASE).unwrap_or(0);
        side.rewritten_live = side.base.head().live;
        // Tried again before the next checkpoint, if it fails.
        if let Err(fault) = self.keep_name(side) {
            tracing::error!(%fault, "the rewritten base may not keep its name");
        }
        Ok(())
    }
}
