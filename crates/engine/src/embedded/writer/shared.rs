//! The writer's turns over a store that other nodes write too.
//!
//! Invariant: what another node changed under a transaction is never overwritten: the store refuses, and all that
//! was done in it is done again on what is there then. While the store is away nothing is refused for `patience`;
//! what waits then is bounded by the queue. Each thing that is due is done in a transaction of its own kind, by any
//! node, and by [`Command::Tick`].

use super::{DUE_INTERVAL, Job, MAX_BATCH, SWEEP_RETRY, Step, WriterThread, now};
use crate::EngineError;
use crate::embedded::StoreFault;
use crate::embedded::apply::{Apply, Counts};
use crate::embedded::looks::{AT_ONCE, MAX_PAUSE, pause, pause_after};
use crate::embedded::news;
use crate::embedded::store::{View, With};
use crate::embedded::wants;
use postrider_model::Timestamp;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Items in one transaction: another node's that rests on the same waits no longer than it takes.
const MAX_SHARED: usize = 512;
/// A transaction takes no more publications once it has so many bytes; the last may exceed it.
const MAX_SHARED_BYTES: usize = 1 << 20;
/// How often what is too old is looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// What the writer of one node remembers between its transactions.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// Transactions in a row that another node got in the way of, and since when.
    clashes: u32,
    clashing: Option<Instant>,
    /// Since when the store is away.
    away: Option<Instant>,
    /// When to look for what is due.
    due: Option<Instant>,
    /// The newest dead letter's id, as far as this node knows.
    last_letter: Option<u64>,
    /// The last number this node gave a cohort.
    cohorts: Option<u64>,
}

impl Turn {
    /// What was in the way is not any more: what waits for it got through.
    fn passed(&mut self) {
        (self.clashes, self.clashing) = (0, None);
    }
}

/// What a transaction does that nobody asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chore {
    Due,
    Sweep,
}

/// A transaction that is applied, or why it is not.
enum Fate {
    Done,
    /// Not applied, for sure.
    Again(StoreFault),
    /// It may have been applied.
    Unknown(StoreFault),
}

impl WriterThread {
    /// One turn: what waits, then what is due.
    pub(super) fn turn_shared(&self, turn: &mut super::Turn) {
        if turn.jobs.front().is_some_and(Job::is_tick) {
            self.tick(turn);
        } else if !turn.jobs.is_empty() {
            self.transact_shared(turn);
        }
        self.keep_house(turn);
        if turn.closing && turn.jobs.is_empty() {
            return;
        }
        if turn.shared.away.is_some() {
            pause(MAX_PAUSE);
        }
    }

    fn transact_shared(&self, turn: &mut super::Turn) {
        let room = (MAX_SHARED >> turn.shared.clashes.saturating_sub(AT_ONCE).min(9)).max(1);
        let mut apply = match self.open_shared(turn) {
            Ok(apply) => apply,
            Err(fault) => return self.again(turn, VecDeque::new(), fault),
        };
        let mut stepped = VecDeque::new();
        if let Err(fault) = apply.txn.prefetch(&wants::of_jobs(&turn.jobs, room, &self.rules)) {
            drop(apply);
            return self.again(turn, stepped, fault);
        }
        let mut left = room;
        while left > 0
            && apply.txn.batch().bytes() < MAX_SHARED_BYTES
            && let Some(mut job) = turn.jobs.pop_front_if(|job| !job.is_tick())
        {
            let step = self.step_shared(&mut job, &mut apply, left);
            match step {
                Ok(Step { done, used }) => {
                    left = left.saturating_sub(used.max(1));
                    stepped.push_back((job, done));
                }
                Err(fault @ (StoreFault::Corrupt { .. } | StoreFault::Newer { .. })) => {
                    drop(apply);
                    return super::refuse_alone(turn, stepped, job, &fault);
                }
                Err(fault) => {
                    stepped.push_back((job, false));
                    drop(apply);
                    return self.again(turn, stepped, fault);
                }
            }
        }
        let sync = !apply.appended.is_empty() || stepped.iter().any(|(job, _)| job.needs_sync());
        match self.commit_shared(apply, sync, stepped.len(), turn) {
            Fate::Done => turn.shared.passed(),
            Fate::Again(fault) => return self.again(turn, stepped, fault),
            Fate::Unknown(fault) => return self.refuse_shared(turn, stepped, &fault),
        }
        for (mut job, done) in stepped {
            if done {
                job.answer();
                continue;
            }
            job.committed();
            match job.is_in_order() {
                // It is the last for which there was room, so what was submitted after it comes after it.
                true => turn.jobs.push_front(job),
                false => turn.jobs.push_back(job),
            }
        }
    }

    /// A step; what it says of damaged rows is believed only where it read what one moment left.
    fn step_shared(&self, job: &mut Job, apply: &mut Apply<'_>, room: usize) -> Result<Step, StoreFault> {
        wants::go_on(job.command(), &apply.txn)?;
        job.step(apply, room).map_err(|fault| believed(&apply.txn, fault))
    }

    fn open_shared(&self, turn: &mut super::Turn) -> Result<Apply<'_>, StoreFault> {
        turn.counts = None;
        turn.spans.clear();
        turn.calm_until = Timestamp(0);
        let mut apply = self.open(turn)?;
        let known = &mut turn.shared;
        let last = match known.last_letter {
            Some(last) => last,
            None => *known.last_letter.insert(apply.newest_letter()?),
        };
        let cohorts = match known.cohorts {
            Some(cohorts) => cohorts,
            None => *known.cohorts.insert(random()?),
        };
        (apply.counts.last_letter, apply.counts.cohorts) = (last, cohorts);
        turn.counts = Some(apply.counts);
        if let Some(epoch) = apply.txn.epoch()? {
            apply.epoch = epoch;
        }
        apply.behind = true;
        apply.is_shared = true;
        apply.most_bytes = MAX_SHARED_BYTES;
        Ok(apply)
    }

    fn commit_shared(&self, mut apply: Apply<'_>, sync: bool, jobs: usize, turn: &mut super::Turn) -> Fate {
        apply.note_young();
        let Apply {
            txn,
            counts,
            appended,
            told,
            ..
        } = apply;
        // Also what is not applied has used up its numbers.
        (turn.shared.last_letter, turn.shared.cohorts) = (Some(counts.last_letter), Some(counts.cohorts));
        let (view, batch) = txn.into_parts();
        let news = news::of_transaction(&appended, &told);
        let with = With {
            sync,
            tally: counts.moved,
            news: &news,
        };
        let begin = now();
        match self.store.commit_on(view, &batch, &with) {
            Ok(()) => {}
            Err(StoreFault::Conflict) => return Fate::Again(StoreFault::Conflict),
            Err(fault) => return Fate::Unknown(fault),
        }
        if !batch.is_empty() {
            (self.on_commit)(jobs, begin.elapsed());
        }
        turn.spare = batch.into_spare();
        self.says(&counts);
        self.works(turn);
        Fate::Done
    }

    /// The store answers. Says nothing of what others are in the way of.
    fn works(&self, turn: &mut super::Turn) {
        turn.shared.away = None;
        if std::mem::take(&mut turn.failing) {
            tracing::info!("the store works again");
            self.health.failing.store(false, super::Ordering::Relaxed);
        }
    }

    /// Nothing of it was applied: it is to be done again, unless that went on for too long.
    fn again(&self, turn: &mut super::Turn, stepped: VecDeque<(Job, bool)>, fault: StoreFault) {
        for (mut job, _) in stepped.into_iter().rev() {
            job.roll_back();
            turn.jobs.push_front(job);
        }
        if self.is_to_be_tried_again(turn, &fault) {
            return;
        }
        match fault {
            // The first of them may be what is in everybody's way.
            StoreFault::Conflict => {
                let first = turn.jobs.pop_front().map(|job| (job, false));
                turn.shared.passed();
                self.refuse_shared(turn, first.into_iter().collect(), &fault);
            }
            fault => {
                let all = turn.jobs.drain(..).map(|job| (job, false)).collect();
                self.refuse_shared(turn, all, &fault);
            }
        }
    }

    /// Notes a failure, and waits a little where that helps. False once it went on for too long.
    fn is_to_be_tried_again(&self, turn: &mut super::Turn, fault: &StoreFault) -> bool {
        let shared = &mut turn.shared;
        let since = match fault {
            StoreFault::Conflict => {
                self.health.clashes.fetch_add(1, super::Ordering::Relaxed);
                shared.clashes += 1;
                if let Some(most) = pause_after(shared.clashes) {
                    pause(most);
                }
                &mut shared.clashing
            }
            _ => &mut shared.away,
        };
        let waited = since.get_or_insert_with(now).elapsed();
        // Whoever leaves does not wait for a store that is away; one that others write is there.
        let is_left =
            !matches!(fault, StoreFault::Conflict) && self.health.leaving.load(super::Ordering::Relaxed);
        waited < self.patience && !is_left
    }

    /// Tells those who wait that the store failed.
    fn refuse_shared(&self, turn: &mut super::Turn, jobs: VecDeque<(Job, bool)>, fault: &StoreFault) {
        if !matches!(fault, StoreFault::Conflict) {
            if !turn.failing {
                tracing::error!(%fault, "the store failed; nothing of this batch was answered as accepted");
            }
            turn.failing = true;
            self.health.failing.store(true, super::Ordering::Relaxed);
        }
        let error = EngineError::Store(fault.to_string());
        for (job, _) in jobs {
            job.refuse(&error);
        }
    }

    /// Does all that is due by now, and answers.
    fn tick(&self, turn: &mut super::Turn) {
        for chore in [Chore::Due, Chore::Sweep] {
            loop {
                match self.chore(turn, chore) {
                    Ok(true) => turn.shared.passed(),
                    Ok(false) => {
                        turn.shared.passed();
                        break;
                    }
                    Err(fault) if self.is_to_be_tried_again(turn, &fault) => {}
                    Err(fault) => {
                        let tick = turn.jobs.pop_front().map(|job| (job, false));
                        return self.refuse_shared(turn, tick.into_iter().collect(), &fault);
                    }
                }
            }
        }
        if let Some(tick) = turn.jobs.pop_front() {
            tick.answer();
        }
    }

    /// Where it falls to this node: does some of what is due, and forgets some of what is too old.
    fn keep_house(&self, turn: &mut super::Turn) {
        if turn.closing {
            return;
        }
        if !self.store.keeps_house() {
            // It is another's: nothing here keeps the writer from its rest.
            (turn.more_due, turn.more_old) = (false, false);
            return self.count(turn);
        }
        if turn.more_due || turn.shared.due.is_none_or(|at| now() >= at) {
            turn.more_due = self.kept(turn, Chore::Due) == Some(true);
            turn.shared.due = Some(now() + DUE_INTERVAL);
        }
        if !turn.more_due && (turn.more_old || turn.sweep.is_none_or(|at| now() >= at)) {
            let swept = self.kept(turn, Chore::Sweep);
            turn.more_old = swept == Some(true);
            let rest = if swept.is_some() {
                SWEEP_INTERVAL
            } else {
                SWEEP_RETRY
            };
            turn.sweep = Some(now() + rest);
        }
    }

    /// Where another node keeps house: now and then looks how much there is.
    fn count(&self, turn: &mut super::Turn) {
        if turn.sweep.is_some_and(|at| now() < at) {
            return;
        }
        turn.sweep = Some(now() + SWEEP_INTERVAL);
        match self.store.view().and_then(|view| view.tally()) {
            Ok(tally) => {
                let counts = Counts::of_tally(&tally.unwrap_or_default());
                self.says(&counts);
                self.works(turn);
            }
            Err(fault) => {
                self.is_to_be_tried_again(turn, &fault);
            }
        }
    }

    fn says(&self, counts: &Counts) {
        self.health
            .letters
            .store(counts.letters, super::Ordering::Relaxed);
        self.health.held.store(counts.held, super::Ordering::Relaxed);
    }

    /// Does a chore; `None` where it could not be done.
    fn kept(&self, turn: &mut super::Turn, chore: Chore) -> Option<bool> {
        match self.chore(turn, chore) {
            Ok(more) => Some(more),
            // Somebody else does it, or it is done next time: not at once, as others are at work there.
            Err(StoreFault::Conflict) => {
                self.health.clashes.fetch_add(1, super::Ordering::Relaxed);
                Some(false)
            }
            Err(fault) => {
                tracing::warn!(?chore, %fault, "what is due, or too old, waits");
                self.is_to_be_tried_again(turn, &fault);
                None
            }
        }
    }

    /// One transaction of it. True if there is more.
    fn chore(&self, turn: &mut super::Turn, chore: Chore) -> Result<bool, StoreFault> {
        let mut apply = self.open_shared(turn)?;
        apply.txn.prefetch(&wants::of_chores(apply.now))?;
        let done = match chore {
            Chore::Due => apply.due().map(|()| {
                let more = apply.behind;
                apply.behind = true;
                more
            }),
            Chore::Sweep => {
                // Never ahead of what is due: that comes first.
                apply.now = apply.now.min(turn.now);
                apply.sweep()
            }
        };
        let more = match done.map_err(|fault| believed(&apply.txn, fault)) {
            Err(fault @ (StoreFault::Corrupt { .. } | StoreFault::Newer { .. })) => {
                tracing::error!(?chore, %fault, "what is due, or too old, cannot be done");
                return Ok(false);
            }
            done => done?,
        };
        let reached = apply.now;
        let sync = !apply.appended.is_empty();
        if apply.txn.batch().is_empty() {
            self.works(turn);
        } else {
            match self.commit_shared(apply, sync, 1, turn) {
                Fate::Done => {}
                Fate::Again(fault) | Fate::Unknown(fault) => return Err(fault),
            }
        }
        if chore == Chore::Due && !more {
            turn.now = reached;
        }
        Ok(more)
    }
}

/// What a reader made of rows that may be of several moments is believed only where they are of one.
fn believed(view: &dyn View, fault: StoreFault) -> StoreFault {
    match fault {
        StoreFault::Corrupt { .. } | StoreFault::Newer { .. } => view.is_whole().err().unwrap_or(fault),
        fault => fault,
    }
}

fn random() -> Result<u64, StoreFault> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| StoreFault::Io(error.to_string()))?;
    Ok(u64::from_le_bytes(bytes))
}

const _: () = assert!(MAX_SHARED <= MAX_BATCH);
