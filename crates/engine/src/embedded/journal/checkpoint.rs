//! Brings the journal to the base: writes a frozen layer in one transaction, with the seq up to which the
//! journal is applied, and then lets go of the segments that nobody needs any more.
//!
//! Invariant: a segment is taken away, or used anew, only after the base that holds its records is on the
//! disk under the base's own name. A checkpoint that failed is tried again, whole; doing one twice changes
//! nothing.

use super::files::{fault, segment_name};
use super::layer::Layer;
use super::log::{Log, make_segment};
use super::rewrite::Rewrite;
use super::{BASE, Core, Frozen, State, lock};
use crate::embedded::StoreFault;
use crate::embedded::base::{Base, Filling};
use crate::embedded::store::Table;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a commit may stay in the journal only, so that the next start has little to read.
const AGE: Duration = Duration::from_secs(10);
/// How long after a checkpoint failed it is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// How long a layer that is read no more may stay in memory.
const SPENT: Duration = Duration::from_millis(100);

/// The side of the store that is written by checkpoints only.
pub(super) struct Side {
    pub base: Base,
    pub rewrite: Option<Rewrite>,
    /// The base was given its name, and a loss of power may still take that back.
    pub renamed: bool,
    /// The base's length after it was last rewritten.
    pub rewritten: u64,
    /// The bytes of its rows then.
    pub rewritten_live: u64,
    /// Checkpoints to be taken before a rewrite that failed is tried again.
    pub resting: u32,
    /// Layers that are in the base, and which somebody may still read. Freeing one takes a while: that is
    /// not left to the reader who happens to be the last.
    spent: Vec<Arc<Layer>>,
}

impl Side {
    pub fn new(base: Base) -> Side {
        Side {
            base,
            rewrite: None,
            renamed: false,
            rewritten: 0,
            rewritten_live: 0,
            resting: 0,
            spent: Vec::new(),
        }
    }

    /// Frees the layers that nobody reads any more. Says whether there are others.
    fn let_go(&mut self) -> bool {
        self.spent.retain(|layer| Arc::strong_count(layer) > 1);
        !self.spent.is_empty()
    }
}

impl Frozen {
    /// Writes the layer's changes of the tables and keys that `wanted` picks.
    pub fn fill(
        &self,
        filling: &mut Filling<'_>,
        wanted: impl Fn(Table, &[u8]) -> bool,
    ) -> Result<(), redb::Error> {
        Table::ALL.iter().try_for_each(|&table| {
            self.layer.newest(table, |changes| {
                filling.change(table, changes.filter(|(key, _)| wanted(table, key)))
            })
        })
    }
}

impl Core {
    /// Freezes what is not in the base, if no layer is frozen.
    pub(super) fn freeze_now(&self) -> bool {
        let log = lock(&self.log);
        self.freeze(&log)
    }

    /// Writes what is frozen to the base. Nothing frozen is no error.
    pub(super) fn checkpoint(&self) -> Result<(), StoreFault> {
        let began = now();
        lock(&self.state).began = Some(began);
        let outcome = self.try_checkpoint();
        let mut state = lock(&self.state);
        (state.took, state.began) = (began.elapsed(), None);
        state.failing = outcome.as_ref().err().cloned();
        drop(state);
        self.changed.notify_all();
        outcome
    }

    fn try_checkpoint(&self) -> Result<(), StoreFault> {
        let mut side = lock(&self.base);
        self.keep_name(&mut side)?;
        let Some(frozen) = lock(&self.state).frozen.clone() else {
            return Ok(());
        };
        let written = side.base.write(frozen.through, frozen.segment, |filling| {
            frozen.fill(filling, |_, _| true)
        });
        if let Err(fault) = written {
            // The file was closed under whoever reads it.
            lock(&self.state).reading.suspect();
            return Err(fault);
        }
        side.follow(&*self.files, &frozen);
        let reading = Arc::new(side.base.reading()?);
        {
            let mut state = lock(&self.state);
            state.reading = reading;
            state.live = side.base.head().live;
            state.segment = frozen.segment;
            state.frozen = None;
            self.changed.notify_all();
        }
        side.spent.push(frozen.layer);
        let mut log = lock(&self.log);
        log.note_synced(frozen.through);
        log.retire(frozen.segment);
        self.measure(&side, &log);
        Ok(())
    }

    /// Brings the base's name to the disk, where it was given anew.
    pub(super) fn keep_name(&self, side: &mut Side) -> Result<(), StoreFault> {
        if side.renamed {
            let synced = self.files.sync_names();
            synced.map_err(|error| fault(&*self.files, "sync the name of", BASE, &error))?;
            side.renamed = false;
        }
        Ok(())
    }

    /// Makes a segment ahead, from one that is not needed any more if there is one.
    pub(super) fn make_spare(&self) -> Result<(), StoreFault> {
        lock(&self.state).spare_wanted = false;
        let side = lock(&self.base);
        let (number, old) = {
            let mut log = lock(&self.log);
            (log.take_number(), log.take_kept().map(segment_name))
        };
        let made = make_segment(&*self.files, self.bounds.segment, number, old.as_deref());
        let mut log = lock(&self.log);
        log.add_spare(made?);
        self.measure(&side, &log);
        Ok(())
    }

    /// Opens the base anew after a failure, unless somebody else has.
    pub(super) fn reopen(&self) -> Result<(), StoreFault> {
        let mut side = lock(&self.base);
        if !lock(&self.state).reading.is_suspect() {
            return Ok(());
        }
        side.base.distrust();
        let reading = Arc::new(side.base.reading()?);
        let mut state = lock(&self.state);
        state.reading = reading;
        state.live = side.base.head().live;
        Ok(())
    }

    /// Looks at how large the files are.
    pub(super) fn measure(&self, side: &Side, log: &Log) {
        self.journal_bytes.store(log.file_bytes(), Ordering::Relaxed);
        match self.files.taken(BASE) {
            Ok(length) => self
                .base_bytes
                .store(length + side.new_bytes(&*self.files), Ordering::Relaxed),
            Err(error) => tracing::warn!(%error, "the base cannot be measured"),
        }
    }
}

/// What the thread finds to do.
struct Call {
    closing: bool,
    spare: bool,
}

/// Starts the thread that takes checkpoints. It ends once the store closes.
pub(super) fn spawn(core: Arc<Core>) -> Result<JoinHandle<()>, StoreFault> {
    std::thread::Builder::new()
        .name("checkpoint".into())
        .spawn(move || {
            Thread {
                core,
                failing: false,
                since: None,
            }
            .run()
        })
        .map_err(|error| StoreFault::Io(error.to_string()))
}

#[allow(
    clippy::disallowed_methods,
    reason = "decides at what pace the base is written, never what; what is stored is the same at any"
)]
fn now() -> Instant {
    Instant::now()
}

struct Thread {
    core: Arc<Core>,
    /// The last thing it tried failed, and that was told.
    failing: bool,
    /// When it last looked for something to freeze. What a start read from the journal is old already.
    since: Option<Instant>,
}

impl Drop for Thread {
    /// Commits must not wait for a thread that is no more.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let fault =
                StoreFault::Io("the checkpoint thread ended; the store must be opened anew".to_owned());
            lock(&self.core.state).failing = Some(fault);
            self.core.changed.notify_all();
        }
    }
}

impl Thread {
    fn run(mut self) {
        let mut wait = Duration::ZERO;
        loop {
            let call = self.wait(wait);
            let outcome = self.turn(&call);
            if let Err(fault) = &outcome
                && !self.failing
            {
                tracing::error!(%fault, "the journal could not be brought to the base; it is tried again");
            }
            self.failing = outcome.is_err();
            if call.closing {
                break;
            }
            wait = if self.failing { RETRY } else { self.rewrite() };
            if lock(&self.core.base).let_go() {
                wait = wait.min(SPENT);
            }
        }
        lock(&self.core.base).abandon(&*self.core.files);
    }

    /// Waits until there is something to do, or so long.
    fn wait(&self, at_most: Duration) -> Call {
        let idle = |state: &mut State| !state.closing && (self.failing || !state.wanted);
        let state = lock(&self.core.state);
        let waited = self.core.changed.wait_timeout_while(state, at_most, idle);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.wanted = false;
        Call {
            closing: state.closing,
            spare: state.spare_wanted,
        }
    }

    fn turn(&mut self, call: &Call) -> Result<(), StoreFault> {
        let frozen = lock(&self.core.state).frozen.is_some();
        if frozen {
            self.core.checkpoint()?;
        }
        if call.spare {
            self.core.make_spare()?;
        }
        let aged = self.since.is_none_or(|since| since.elapsed() >= AGE);
        if aged || call.closing {
            self.since = Some(now());
            if self.core.freeze_now() {
                self.core.checkpoint()?;
            }
        }
        Ok(())
    }

    /// Goes on with a rewrite, or begins one that is due. Says how long to wait before the next part: as
    /// long as this one took, so that half of the time is left to others.
    fn rewrite(&self) -> Duration {
        let begin = now();
        match self.core.rewrite_some() {
            true => begin.elapsed(),
            false => AGE,
        }
    }
}
