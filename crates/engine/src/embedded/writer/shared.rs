//! The writer's turns over a store that other nodes write too.
//!
//! Invariant: what another node changed under a transaction is never overwritten: the store refuses, and all that
//! was done in it is done again on what is there then; the same commands again, where the store keeps for them what
//! they rest on. While the store is away nothing is refused for `patience`;
//! what waits then is bounded by the queue. Each thing that is due is done in a transaction of its own kind, by any
//! node, and by [`Command::Tick`].

mod chores;

use super::{Job, MAX_BATCH, Step, WriterThread, now};
use crate::EngineError;
use crate::embedded::StoreFault;
use crate::embedded::apply::{Apply, Counts};
use crate::embedded::looks::{AT_ONCE, MAX_PAUSE, pause, pause_after};
use crate::embedded::news;
use crate::embedded::store::{Refused, Txn, View, With};
use crate::embedded::{people, wants};
use chores::Rhythm;
use postrider_model::Timestamp;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Items in one transaction: another node's that rests on the same waits no longer than it takes.
const MAX_SHARED: usize = 512;
/// A transaction takes no more publications once it has so many bytes; the last may exceed it.
const MAX_SHARED_BYTES: usize = 1 << 20;

/// What the writer of one node remembers between its transactions.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// Transactions in a row that another node got in the way of, and since when.
    clashes: u32,
    clashing: Option<Instant>,
    /// Since when the store is away.
    away: Option<Instant>,
    /// What is left of the last transaction, which is to be done again.
    kept: Option<Kept>,
    /// So many of the commands that wait are each tried by itself: together with others they were refused, as the store
    /// takes nothing that is to be kept.
    apart: usize,
    /// When to look for what is due.
    rhythm: Rhythm,
    /// The newest dead letter's id, as far as this node knows.
    last_letter: Option<u64>,
    /// The last number this node gave a cohort.
    cohorts: Option<u64>,
}

impl Turn {
    /// How long the writer may rest where nothing else is to be done.
    pub fn rest(&self) -> Duration {
        self.rhythm.rest(now())
    }

    /// What was in the way is not any more: what waits for it got through.
    fn passed(&mut self) {
        (self.clashes, self.clashing) = (0, None);
    }
}

/// A transaction that others got in the way of.
struct Kept {
    /// What it read and is as it was.
    view: Box<dyn View>,
    /// It held so many of the commands that wait: what comes behind them is not in it.
    jobs: usize,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept")
            .field("jobs", &self.jobs)
            .finish_non_exhaustive()
    }
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
        if turn.shared.kept.is_some() {
            // Others wait for it.
            return;
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
        let kept = turn.shared.kept.take();
        let most = kept.as_ref().map_or(usize::MAX, |kept| kept.jobs);
        let is_apart = turn.shared.apart > 0;
        let most = if is_apart { 1 } else { most };
        let mut apply = match self.open_again(kept, turn) {
            Ok(apply) => apply,
            Err(fault) => return self.again(turn, VecDeque::new(), fault),
        };
        let mut stepped = VecDeque::new();
        let wanted = wants::of_jobs(turn.jobs.iter().take(most), room, &self.rules);
        if let Err(fault) = apply.txn.prefetch(&wanted) {
            drop(apply);
            return self.again(turn, stepped, fault);
        }
        let mut left = room;
        while left > 0
            && stepped.len() < most
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
        let tries = Some(turn.shared.clashes);
        let fate = self.try_to_commit(apply, sync, stepped.len(), tries, turn);
        if is_apart && !matches!(fate, Fate::Again(_)) {
            turn.shared.apart -= 1;
        }
        match fate {
            Fate::Done => turn.shared.passed(),
            Fate::Again(fault) => return self.again(turn, stepped, fault),
            Fate::Unknown(fault @ StoreFault::Unready(_)) if !is_apart => {
                return self.refuse_what_is_new(turn, stepped, &fault);
            }
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
        self.open_again(None, turn)
    }

    fn open_again(&self, kept: Option<Kept>, turn: &mut super::Turn) -> Result<Apply<'_>, StoreFault> {
        turn.counts = None;
        turn.spans.clear();
        // Nothing is known of what is due; what this transaction puts lowers it.
        turn.calm_until = Timestamp(u64::MAX);
        let mut apply = match kept {
            Some(kept) => self.open_on(Txn::on(kept.view, std::mem::take(&mut turn.spare)), turn)?,
            None => self.open(turn)?,
        };
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

    /// `tries`: as of [`With`].
    fn try_to_commit(
        &self,
        mut apply: Apply<'_>,
        sync: bool,
        jobs: usize,
        tries: Option<u32>,
        turn: &mut super::Turn,
    ) -> Fate {
        apply.note_young();
        turn.shared.rhythm.put(apply.calm_until, apply.now, now());
        let Apply {
            txn,
            counts,
            appended,
            told,
            joined,
            ..
        } = apply;
        // Also what is not applied has used up its numbers.
        (turn.shared.last_letter, turn.shared.cohorts) = (Some(counts.last_letter), Some(counts.cohorts));
        let (view, batch) = txn.into_parts();
        let news = news::of_transaction(&appended, &told);
        let added = people::added(&joined);
        let with = With {
            sync,
            tally: counts.moved,
            news: &news,
            added: &added,
            tries,
        };
        let begin = now();
        match self.store.commit_on(view, &batch, &with) {
            Ok(()) => {}
            Err(Refused {
                fault: fault @ StoreFault::Conflict,
                kept,
            }) => {
                turn.shared.kept = kept.map(|view| Kept { view, jobs });
                return Fate::Again(fault);
            }
            Err(refused) => return Fate::Unknown(refused.fault),
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
                turn.shared.kept = None;
                self.store.gives_up();
                self.refuse_shared(turn, first.into_iter().collect(), &fault);
            }
            fault => {
                turn.shared.apart = 0;
                let all = turn.jobs.drain(..).map(|job| (job, false)).collect();
                self.refuse_shared(turn, all, &fault);
            }
        }
    }

    /// The store takes nothing that is to be kept. What was with it in the transaction may free something, or need not be
    /// kept as safely: it is tried again, each by itself.
    fn refuse_what_is_new(&self, turn: &mut super::Turn, stepped: VecDeque<(Job, bool)>, fault: &StoreFault) {
        let (new, mut others): (VecDeque<_>, VecDeque<_>) =
            stepped.into_iter().partition(|(job, _)| job.is_new());
        if new.is_empty() && others.len() == 1 {
            return self.refuse_shared(turn, others, fault);
        }
        turn.shared.apart = others.len();
        while let Some((mut job, _)) = others.pop_back() {
            job.roll_back();
            turn.jobs.push_front(job);
        }
        self.refuse_shared(turn, new, fault);
    }

    /// Notes a failure, and waits a little where that helps. False once it went on for too long.
    fn is_to_be_tried_again(&self, turn: &mut super::Turn, fault: &StoreFault) -> bool {
        let shared = &mut turn.shared;
        let since = match fault {
            // It is there, and waiting does not mend it.
            StoreFault::Unready(_) => return false,
            StoreFault::Conflict => {
                self.health.clashes.fetch_add(1, super::Ordering::Relaxed);
                shared.clashes += 1;
                // What is kept for it was waited for.
                if let Some(most) = pause_after(shared.clashes).filter(|_| shared.kept.is_none()) {
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
        // What is not ready says itself when it is, and logs it.
        if !matches!(fault, StoreFault::Conflict | StoreFault::Unready(_)) {
            if !turn.failing {
                tracing::error!(%fault, "the store failed; nothing of this batch was answered as accepted");
            }
            turn.failing = true;
            self.health.failing.store(true, super::Ordering::Relaxed);
        }
        let error = EngineError::from(fault.clone());
        for (job, _) in jobs {
            job.refuse(&error);
        }
    }

    fn says(&self, counts: &Counts) {
        self.health
            .letters
            .store(counts.letters, super::Ordering::Relaxed);
        self.health.held.store(counts.held, super::Ordering::Relaxed);
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
