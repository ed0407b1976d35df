//! The store that the embedded engine runs on: a journal in front of the base. A commit is appended to the
//! journal, with one sequential write and one sync; the base, a redb file, gets many commits in one
//! transaction from a thread in the background. The files' formats are written down in [`format`], and with
//! the rules of recovery in docs/store-format.md.
//!
//! ```text
//! commit ─► journal/NNNNNNNN.log ─► active layer ─(checkpoint)─► frozen layer ─► feeds.redb
//! reader ─► active layer, else frozen layer, else feeds.redb: as of one commit
//! ```
//!
//! Invariants:
//! * A synced commit is in the journal, on the disk, when it returns; an unsynced one is seen at once, and a
//!   crash may take it only together with all that came later.
//! * What the base lacks is in the layers, and on the disk in segments that are kept until the base has it.
//! * A reader's view is that of one commit, and neither stops the writer nor waits for it.
//! * After a failure of the journal commits are refused until a new segment is on the disk; after a failure
//!   of the base it is opened anew. Reading what was committed goes on as far as its bytes can be read.
//! * Memory is bounded: a frozen layer, and an active one of up to [`Bounds::full`] while the disk is behind.
//!
//! Lock order: base, log, state.

mod checkpoint;
mod files;
mod format;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
mod layer;
mod log;
#[cfg(test)]
mod model;
mod recover;
mod rewrite;
mod snapshot;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod trial;

#[cfg(test)]
pub(super) use model::{Failing, Model, Rng};

use super::StoreFault;
use super::base::{Base, CACHE_BYTES, Opener, Reading, builder};
use super::store::{Batch, Store, Table, View};
use checkpoint::Side;
use files::{Directory, Files};
use format::Change;
use layer::Layer;
use log::Log;
use snapshot::Snapshot;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The base.
pub(super) const BASE: &str = "feeds.redb";
/// A base that is being made or rewritten. No start takes it for one.
const NEW_BASE: &str = "feeds.redb.new";

/// How large things get.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Bytes of a segment. Only a record that is larger by itself exceeds it.
    segment: u64,
    /// Bytes of a layer from which on it is written to the base.
    layer: usize,
    /// Bytes of the active layer at which commits wait for the checkpoint that runs.
    full: usize,
    /// Bytes of records that are not synced; one more syncs them.
    unsynced: usize,
    /// The base is rewritten once it is larger than three times its rows and this.
    slack: u64,
    /// Rows, and bytes, that a rewrite copies in one go.
    chunk_rows: usize,
}

/// How long the first checkpoint is expected to take.
const FIRST_TAKES: Duration = Duration::from_secs(1);

/// How often a commit that has no room looks whether there is some.
const FULL_WAIT: Duration = Duration::from_millis(5);

impl Bounds {
    const DEFAULT: Bounds = Bounds {
        segment: 16 << 20,
        layer: 64 << 20,
        full: 128 << 20,
        unsynced: 8 << 20,
        slack: 64 << 20,
        chunk_rows: 8192,
    };

    /// How long a commit of so many bytes waits while a layer is being written, which takes about `took`, and
    /// the active one holds so many: nothing up to the size at which that would be written too, and from
    /// there on more and more, so that commits slow down to what checkpoints can do instead of coming to a
    /// halt. All that fits waits twice as long as that.
    fn delay(&self, active: usize, commit: usize, took: Duration) -> Duration {
        let over = active.saturating_sub(self.layer) as f64;
        let room = (self.full - self.layer).max(1) as f64;
        let filled = (over / room).min(1.0);
        let share = (commit as f64 / room).min(1.0);
        took.mul_f64(4.0 * filled * share)
    }
}

/// The store, and the thread that brings its journal to the base.
pub struct Journaled {
    core: Arc<Core>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Journaled {
    /// Opens what is in a directory, or makes it where `fresh`. The caller holds the directory.
    pub fn open(dir: &Path, fresh: bool) -> Result<Journaled, StoreFault> {
        let io = |error| StoreFault::Io(format!("cannot make the journal in {}: {error}", dir.display()));
        let files = Arc::new(Directory::of(dir.to_owned()).map_err(io)?);
        Journaled::over(files, Bounds::DEFAULT, fresh)
    }

    /// A store on a model of a disk.
    #[cfg(test)]
    pub(super) fn on(model: &Model) -> Result<Journaled, StoreFault> {
        Journaled::over(Arc::new(model.clone()), Bounds::DEFAULT, true)
    }

    fn over(files: Arc<dyn Files>, bounds: Bounds, fresh: bool) -> Result<Journaled, StoreFault> {
        let core = Arc::new(Core::open(files, bounds, fresh)?);
        let thread = checkpoint::spawn(core.clone())?;
        Ok(Journaled {
            core,
            thread: Mutex::new(Some(thread)),
        })
    }
}

impl Store for Journaled {
    fn view(&self) -> Result<Box<dyn View + '_>, StoreFault> {
        self.core.view()
    }
    fn commit(&self, batch: &Batch, sync: bool) -> Result<(), StoreFault> {
        self.core.commit(batch, sync)
    }
    fn live_bytes(&self) -> u64 {
        self.core.live_bytes()
    }
    fn file_bytes(&self) -> u64 {
        self.core.file_bytes()
    }
}

impl Drop for Journaled {
    /// Brings all to the base, so that the next start finds a short journal.
    fn drop(&mut self) {
        lock(&self.core.state).closing = true;
        self.core.changed.notify_all();
        let thread = lock(&self.thread).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the checkpoint thread panicked");
        }
    }
}

/// The store without its thread: checkpoints are taken by whoever calls for them.
struct Core {
    files: Arc<dyn Files>,
    bounds: Bounds,
    base: Mutex<Side>,
    log: Mutex<Log>,
    state: Mutex<State>,
    /// The state changed in a way that somebody may wait for.
    changed: Condvar,
    base_bytes: AtomicU64,
    journal_bytes: AtomicU64,
}

/// What readers begin from.
struct State {
    reading: Arc<Reading>,
    /// Live bytes of the base.
    live: u64,
    /// The first segment of the journal that the base needs.
    segment: u64,
    frozen: Option<Frozen>,
    active: Arc<Layer>,
    /// The last commit that may be seen.
    seen: u64,
    /// How long the last checkpoint took, and when the one that runs began.
    took: Duration,
    began: Option<Instant>,
    /// Why the last checkpoint failed.
    failing: Option<StoreFault>,
    /// The checkpoint thread has something to do.
    wanted: bool,
    /// It should make a segment ahead.
    spare_wanted: bool,
    closing: bool,
}

impl State {
    /// How long the checkpoint that runs may take: as long as the last one, or longer, if it is late.
    fn takes(&self) -> Duration {
        self.took
            .max(self.began.map_or(Duration::ZERO, |began| began.elapsed() * 2))
    }
}

/// A layer that is being written to the base.
#[derive(Clone)]
struct Frozen {
    layer: Arc<Layer>,
    /// Its last commit.
    through: u64,
    /// Later records are in this segment of the journal, or after it.
    segment: u64,
}

impl Core {
    fn open(files: Arc<dyn Files>, bounds: Bounds, fresh: bool) -> Result<Core, StoreFault> {
        if fresh {
            make(&*files)?;
        }
        let mut base = open_base(&files, BASE, CACHE_BYTES)?;
        discard_new(&*files)?;
        let head = base.head();
        let layer = Layer::default();
        let ending = recover::recover(&*files, head, bounds.segment, &mut |seq, record| {
            let changes = format::decode(record).ok_or(StoreFault::Newer { what: "the journal" })?;
            layer.add(seq, changes, 0);
            Ok(())
        })?;
        let seen = ending.last;
        let mut log = Log::resume(files.clone(), bounds, head.segment, ending);
        if let Err(fault) = make_sure(&*files) {
            tracing::error!(%fault, "the base cannot be synced; segments that are not needed stay");
        } else {
            log.retire(head.segment);
        }
        if let Err(fault) = log.heal() {
            tracing::error!(%fault, "the journal cannot be written; commits are refused until it can");
        } else if let Err(error) = recover::forget_endings(&*files) {
            tracing::warn!(%error, "a file that says where the journal ends could not be removed");
        }
        let state = State {
            reading: Arc::new(base.reading()?),
            live: head.live,
            segment: head.segment,
            frozen: None,
            active: Arc::new(layer),
            seen,
            took: FIRST_TAKES,
            began: None,
            failing: None,
            wanted: true,
            spare_wanted: false,
            closing: false,
        };
        let core = Core {
            files,
            bounds,
            base: Mutex::new(Side::new(base)),
            log: Mutex::new(log),
            state: Mutex::new(state),
            changed: Condvar::new(),
            base_bytes: AtomicU64::new(0),
            journal_bytes: AtomicU64::new(0),
        };
        core.measure(&lock(&core.base), &lock(&core.log));
        Ok(core)
    }

    fn view(&self) -> Result<Box<dyn View>, StoreFault> {
        Ok(Box::new(self.snapshot()?))
    }

    fn snapshot(&self) -> Result<Snapshot, StoreFault> {
        let mut state = lock(&self.state);
        if state.reading.is_suspect() {
            drop(state);
            self.reopen()?;
            state = lock(&self.state);
        }
        let frozen = state.frozen.as_ref().map(|frozen| frozen.layer.clone());
        Ok(Snapshot {
            base: state.reading.clone(),
            layers: [Some(state.active.clone()), frozen],
            seq: state.seen,
        })
    }

    fn commit(&self, batch: &Batch, sync: bool) -> Result<(), StoreFault> {
        if batch.is_empty() {
            return if sync { lock(&self.log).sync() } else { Ok(()) };
        }
        let record = format::encode(batch);
        let rows: usize = Table::ALL.iter().map(|table| batch.table(*table).len()).sum();
        self.wait_for_room(record.len() + rows * layer::ROW_OVERHEAD)?;
        let gone = self.removed_bytes(batch);
        let mut log = lock(&self.log);
        let (seq, record) = log.append(record, sync)?;
        let changes = format::decode(&record).ok_or(StoreFault::Newer { what: "the journal" })?;
        let delta = added_bytes(&changes) - gone;
        let active = lock(&self.state).active.clone();
        active.add(seq, changes, delta);
        lock(&self.state).seen = seq;
        self.journal_bytes.store(log.file_bytes(), Ordering::Relaxed);
        if active.bytes() >= self.bounds.layer {
            self.freeze(&log);
        }
        if log.wants_spare() {
            let mut state = lock(&self.state);
            (state.wanted, state.spare_wanted) = (true, true);
            self.changed.notify_all();
        }
        Ok(())
    }

    /// Waits while the checkpoint that runs is behind: the less room there is, the longer, and where there is
    /// none until it is done. Where checkpoints fail nothing that has no room is taken.
    fn wait_for_room(&self, bytes: usize) -> Result<(), StoreFault> {
        let mut state = lock(&self.state);
        let mut delay = self.bounds.delay(state.active.bytes(), bytes, state.takes());
        while state.frozen.is_some() && !delay.is_zero() {
            let full = state.active.bytes() >= self.bounds.full;
            match &state.failing {
                Some(fault) if full => return Err(fault.clone()),
                Some(_) => return Ok(()),
                None => state.wanted = true,
            }
            self.changed.notify_all();
            let at_least = if full { FULL_WAIT } else { Duration::ZERO };
            let waited = self.changed.wait_timeout(state, delay.max(at_least));
            let timeout;
            (state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            if timeout.timed_out() && !full {
                break;
            }
            delay = delay.min(self.bounds.delay(state.active.bytes(), bytes, state.takes()));
        }
        Ok(())
    }

    /// Begins a new active layer, if the one before it has been written. Says whether one is to be.
    fn freeze(&self, log: &Log) -> bool {
        let mut state = lock(&self.state);
        // With nothing to write, the base may still hold on to segments that it has done with.
        let wanted = !state.active.is_empty() || log.begun() > state.segment;
        if state.frozen.is_none() && wanted {
            let layer = std::mem::take(&mut state.active);
            state.frozen = Some(Frozen {
                layer,
                through: log.last(),
                segment: log.begun(),
            });
            state.wanted = true;
            self.changed.notify_all();
        }
        state.frozen.is_some()
    }

    /// Bytes of the rows that a batch removes. What a batch overwrites is found out by the checkpoint.
    fn removed_bytes(&self, batch: &Batch) -> i64 {
        let removes = |table| {
            let changes = batch.table(table).iter();
            changes
                .filter(|(_, value)| value.is_none())
                .map(move |(key, _)| (table, key))
        };
        let mut removed = Table::ALL.iter().flat_map(|table| removes(*table)).peekable();
        if removed.peek().is_none() {
            return 0;
        }
        // What cannot be read counts for nothing until the checkpoint.
        let Ok(snapshot) = self.snapshot() else { return 0 };
        removed
            .filter_map(|(table, key)| Some((key.len() + snapshot.get(table, key).ok()??.len()) as i64))
            .sum()
    }

    fn live_bytes(&self) -> u64 {
        let state = lock(&self.state);
        let frozen = state.frozen.as_ref().map_or(0, |frozen| frozen.layer.delta());
        state.live.saturating_add_signed(frozen + state.active.delta())
    }

    fn file_bytes(&self) -> u64 {
        self.base_bytes.load(Ordering::Relaxed) + self.journal_bytes.load(Ordering::Relaxed)
    }
}

fn added_bytes(changes: &[Change]) -> i64 {
    let put = changes
        .iter()
        .filter_map(|(_, key, value)| Some(key.len() + value.as_ref()?.len()));
    put.sum::<usize>() as i64
}

/// Makes the base where there is none: elsewhere first, so that one whose making was cut short is never
/// taken for a store.
fn make(files: &dyn Files) -> Result<(), StoreFault> {
    let io = |error| files::fault(files, "make", BASE, &error);
    if files.names().map_err(io)?.iter().any(|name| name == BASE) {
        return Ok(());
    }
    discard_new(files)?;
    let file = files.open(NEW_BASE, true).map_err(io)?;
    let open: Opener = Box::new(move || builder(CACHE_BYTES).create_with_backend(file.clone()));
    drop(Base::open(files.shown(NEW_BASE), open)?);
    files.rename(NEW_BASE, BASE).map_err(io)?;
    files.sync_names().map_err(io)
}

/// Brings the base and its name to the disk: a process that was killed may have left it in memory only.
fn make_sure(files: &dyn Files) -> Result<(), StoreFault> {
    let io = |error| files::fault(files, "sync", BASE, &error);
    files
        .open(BASE, false)
        .and_then(|base| base.0.sync_data())
        .and_then(|()| files.sync_names())
        .map_err(io)
}

/// Takes away what a rewrite, or the making of a base, left when it was cut short.
fn discard_new(files: &dyn Files) -> Result<(), StoreFault> {
    match files.remove(NEW_BASE) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(files::fault(files, "remove", NEW_BASE, &error))
        }
        _ => Ok(()),
    }
}

/// Opens a base that is there.
fn open_base(files: &Arc<dyn Files>, name: &'static str, cache_bytes: usize) -> Result<Base, StoreFault> {
    Base::open(files.shown(name), opener(files, name, cache_bytes))
}

fn opener(files: &Arc<dyn Files>, name: &'static str, cache_bytes: usize) -> Opener {
    let files = files.clone();
    Box::new(move || {
        let file = files.open(name, false).map_err(redb::StorageError::from)?;
        if file.0.len().map_err(redb::StorageError::from)? == 0 {
            return Err(redb::StorageError::Corrupted("the file is empty".to_owned()).into());
        }
        builder(cache_bytes).create_with_backend(file)
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
