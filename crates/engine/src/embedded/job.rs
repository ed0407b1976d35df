//! A command on its way through the writer: how far it got, and what it will answer.
//!
//! Invariant: an answer of success is sent only for what was committed.

use super::StoreFault;
use super::apply::{Apply, Erasing, Settled};
use super::writer::Command;
use crate::{DirectoryError, EngineError, Put, Redriven, Sync};
use postrider_model::{DeadLetterId, Receipt, StateError, UserState};

/// Entries that one step of a command may walk: one transaction should take milliseconds.
const MAX_STEPS: usize = 2048;
/// Dead letters redriven in one transaction: each may bring a body of its own.
const MAX_REDRIVEN: usize = 256;
/// Attempts counted in one transaction.
const MAX_ATTEMPTS: usize = 512;
/// Publications of one command that are refused alone for a damaged row; with one more all that is left of it is.
const MAX_ALONE: usize = 16;
/// Rows of each table that one transaction erases.
const MAX_ERASED: usize = 512;

pub(super) struct Job {
    command: Command,
    /// Publications answered so far, of which the first `safe` are committed.
    receipts: Vec<Result<Receipt, EngineError>>,
    safe: usize,
    /// Publications, by their place, that met a damaged row.
    damaged: Vec<(usize, EngineError)>,
    /// How far it got, and how far of that is committed.
    progress: Progress,
    committed: Progress,
}

/// How far a command got.
#[derive(Debug, Clone, Default)]
struct Progress {
    /// Settlements done, and one count for each, the last perhaps unfinished.
    settled: usize,
    counts: Vec<u64>,
    attempted: usize,
    cancelled: Option<Option<u64>>,
    redriven: Vec<Redriven>,
    discarded: bool,
    buried: Option<DeadLetterId>,
    erasing: Erasing,
    put: Vec<Result<Put, DirectoryError>>,
    moved: Vec<Result<bool, DirectoryError>>,
    removed: bool,
    state: Option<Result<UserState, StateError>>,
}

/// What one step did.
pub(super) struct Step {
    /// Whether the command is done.
    pub done: bool,
    /// How much of the transaction it used.
    pub used: usize,
}

impl Job {
    pub fn new(command: Command) -> Job {
        let counts = match &command {
            Command::Settle(batch, ..) => vec![0; batch.len()],
            _ => Vec::new(),
        };
        let progress = Progress {
            counts,
            ..Progress::default()
        };
        Job {
            command,
            receipts: Vec::new(),
            safe: 0,
            damaged: Vec::new(),
            committed: progress.clone(),
            progress,
        }
    }

    pub fn needs_sync(&self) -> bool {
        self.command.needs_sync()
    }

    pub fn command(&self) -> &Command {
        &self.command
    }

    /// Nothing but what is due, and what is too old.
    pub fn is_tick(&self) -> bool {
        matches!(self.command, Command::Tick(_))
    }

    /// What it brings takes room, and mostly gives none back.
    pub fn is_new(&self) -> bool {
        match self.command {
            Command::Publish(..)
            | Command::Bury(..)
            | Command::Redrive(..)
            | Command::Arrive(..)
            | Command::PutUsers(..)
            // Many of a transaction are of these, and each is asked for again by whoever has it.
            | Command::Settle(..)
            | Command::Attempt(_) => true,
            Command::ChangeMembers(..)
            | Command::ChangeState(..)
            | Command::Cancel(..)
            | Command::Trim(..)
            | Command::Discard(..)
            | Command::Repair(..)
            | Command::Erase(..)
            | Command::RemoveUser(..)
            | Command::Tick(_)
            | Command::Close => false,
        }
    }

    /// What is left of it comes before what was asked for later.
    pub fn is_in_order(&self) -> bool {
        matches!(self.command, Command::Publish(..))
    }

    /// How many of its parts are done.
    pub fn done_so_far(&self) -> usize {
        match &self.command {
            Command::Publish(..) => self.receipts.len(),
            Command::Settle(..) => self.progress.settled,
            Command::Attempt(_) => self.progress.attempted,
            Command::PutUsers(..) => self.progress.put.len(),
            Command::ChangeMembers(..) => self.progress.moved.len(),
            _ => 0,
        }
    }

    /// Goes on, using about `room`; always at least a little. After a fault the transaction is void.
    pub fn step(&mut self, apply: &mut Apply<'_>, room: usize) -> Result<Step, StoreFault> {
        let mut used = 0;
        let done = match &self.command {
            Command::Publish(batch, _) => {
                while used < room
                    && (used == 0 || apply.has_room())
                    && let Some(publication) = batch.get(self.receipts.len())
                {
                    used += publication.feeds.len().max(1);
                    let place = self.receipts.len();
                    let damaged = self.damaged.iter().find(|(at, _)| *at == place);
                    self.receipts.push(match damaged {
                        Some((_, error)) => Err(error.clone()),
                        None => apply.publish(publication)?,
                    });
                }
                self.receipts.len() == batch.len()
            }
            Command::Settle(batch, sync, _) => {
                let steps = room.min(MAX_STEPS);
                while used < room
                    && let Some(settlement) = batch.get(self.progress.settled)
                {
                    let Settled {
                        changed,
                        walked,
                        done,
                    } = apply.settle(settlement, *sync == Sync::Durable, steps as u64)?;
                    self.progress.counts[self.progress.settled] += changed;
                    self.progress.settled += usize::from(done);
                    used += walked.max(1);
                }
                self.progress.settled == batch.len()
            }
            Command::Cancel(id, _) => {
                self.progress.cancelled = apply.cancel(id)?;
                let count = self.progress.cancelled.flatten().unwrap_or(1);
                used = usize::try_from(count).unwrap_or(usize::MAX);
                true
            }
            Command::Trim(feed, before, _) => {
                let steps = room.min(MAX_STEPS);
                used = steps;
                !apply.trim(feed, *before, steps)?
            }
            Command::Attempt(batch) => {
                while used < room.min(MAX_ATTEMPTS)
                    && let Some(attempt) = batch.get(self.progress.attempted)
                {
                    used += 1;
                    self.progress.attempted += 1;
                    apply.attempt(attempt)?;
                }
                self.progress.attempted == batch.len()
            }
            Command::Redrive(ids, _) => {
                let next = ids.iter().skip(self.progress.redriven.len());
                let next: Vec<_> = next.take(room.min(MAX_REDRIVEN)).copied().collect();
                apply.foresee_letters(&next)?;
                while used < room.min(MAX_REDRIVEN)
                    && let Some(id) = ids.get(self.progress.redriven.len())
                {
                    used += 1;
                    self.progress.redriven.push(apply.redrive(*id)?);
                }
                self.progress.redriven.len() == ids.len()
            }
            Command::Discard(id, _) => {
                self.progress.discarded = apply.discard(*id)?;
                true
            }
            Command::Bury(letter, _) => {
                self.progress.buried = Some(apply.bury(letter)?);
                true
            }
            Command::Erase(user, _) => {
                used = MAX_ERASED;
                apply.erase(user, &mut self.progress.erasing, MAX_ERASED)?
            }
            Command::Repair(feed, offset, _) => {
                apply.repair(feed, *offset)?;
                true
            }
            Command::Arrive(user, _) => {
                apply.arrive(user)?;
                true
            }
            Command::PutUsers(batch, _) => {
                while used < room
                    && let Some(put) = batch.get(self.progress.put.len())
                {
                    used += 1 + put.topics.as_ref().map_or(0, Vec::len);
                    self.progress.put.push(own_trouble(apply.put_user(put))?);
                }
                self.progress.put.len() == batch.len()
            }
            Command::ChangeMembers(batch, _) => {
                while used < room
                    && let Some(change) = batch.get(self.progress.moved.len())
                {
                    used += 1;
                    self.progress
                        .moved
                        .push(own_trouble(apply.change_member(change))?);
                }
                self.progress.moved.len() == batch.len()
            }
            Command::RemoveUser(user, _) => {
                self.progress.removed = apply.remove_user(user)?;
                true
            }
            Command::ChangeState(user, change, _) => {
                self.progress.state = Some(apply.change_state(user, change)?);
                true
            }
            // Also what is too old, all of it.
            Command::Tick(_) => (!apply.behind || apply.overdue) && !apply.sweep()?,
            Command::Close => true,
        };
        Ok(Step { done, used })
    }

    /// What was done so far is committed.
    pub fn committed(&mut self) {
        self.safe = self.receipts.len();
        self.committed = self.progress.clone();
    }

    /// The last step met a damaged row: refuses only what met it, where something else is left to be done. Then this
    /// is to be done again.
    pub fn spare_others(&mut self, error: &EngineError) -> bool {
        let can = matches!(&self.command, Command::Publish(batch, _) if batch.len() > 1);
        if !can || self.damaged.len() >= MAX_ALONE {
            return false;
        }
        self.damaged.push((self.receipts.len(), error.clone()));
        self.roll_back();
        true
    }

    /// What was done and not committed is to be done again.
    pub fn roll_back(&mut self) {
        self.receipts.truncate(self.safe);
        self.progress = self.committed.clone();
    }

    /// All is done and committed.
    pub fn answer(self) {
        told(match self.command {
            Command::Publish(_, reply) => {
                reply.answer(self.receipts);
                true
            }
            Command::Settle(_, _, Some(reply)) => reply.send(Ok(self.progress.counts)).is_ok(),
            Command::Cancel(_, reply) => reply.send(Ok(self.progress.cancelled)).is_ok(),
            Command::Redrive(_, reply) => reply.send(Ok(self.progress.redriven)).is_ok(),
            Command::Discard(_, reply) => reply.send(Ok(self.progress.discarded)).is_ok(),
            Command::Bury(_, reply) => {
                let id = self.progress.buried.unwrap_or(DeadLetterId::START);
                reply.send(Ok(id)).is_ok()
            }
            Command::Erase(_, reply) => reply.send(Ok(self.progress.erasing.known)).is_ok(),
            Command::PutUsers(_, reply) => reply.send(Ok(self.progress.put)).is_ok(),
            Command::ChangeMembers(_, reply) => reply.send(Ok(self.progress.moved)).is_ok(),
            Command::RemoveUser(_, reply) => reply.send(Ok(self.progress.removed)).is_ok(),
            Command::ChangeState(_, _, reply) => {
                let state = self.progress.state.ok_or(EngineError::Closed);
                reply.send(state).is_ok()
            }
            Command::Trim(_, _, reply)
            | Command::Repair(_, _, reply)
            | Command::Tick(reply)
            | Command::Arrive(_, reply) => reply.send(Ok(())).is_ok(),
            Command::Settle(_, _, None) | Command::Attempt(_) | Command::Close => true,
        });
    }

    /// What was not committed by now is not done.
    pub fn refuse(mut self, error: &EngineError) {
        told(match self.command {
            Command::Publish(batch, reply) => {
                // What was refused for its own sake stays refused for it.
                for receipt in self.receipts.iter_mut().skip(self.safe).filter(|r| r.is_ok()) {
                    *receipt = Err(error.clone());
                }
                self.receipts.resize(batch.len(), Err(error.clone()));
                reply.answer(self.receipts);
                true
            }
            Command::Settle(_, _, Some(reply)) => reply.send(Err(error.clone())).is_ok(),
            Command::Cancel(_, reply) => reply.send(Err(error.clone())).is_ok(),
            Command::Redrive(_, reply) => reply.send(Err(error.clone())).is_ok(),
            Command::Discard(_, reply) | Command::Erase(_, reply) | Command::RemoveUser(_, reply) => {
                reply.send(Err(error.clone())).is_ok()
            }
            Command::PutUsers(_, reply) => reply.send(Err(error.clone())).is_ok(),
            Command::ChangeMembers(_, reply) => reply.send(Err(error.clone())).is_ok(),
            Command::ChangeState(_, _, reply) => reply.send(Err(error.clone())).is_ok(),
            Command::Bury(_, reply) => reply.send(Err(error.clone())).is_ok(),
            Command::Trim(_, _, reply)
            | Command::Repair(_, _, reply)
            | Command::Tick(reply)
            | Command::Arrive(_, reply) => reply.send(Err(error.clone())).is_ok(),
            Command::Settle(_, _, None) | Command::Attempt(_) | Command::Close => true,
        });
    }
}

/// What is kept of one user cannot be read: that is told of this one, and the others go on. Nothing of it was written.
fn own_trouble<T>(
    done: Result<Result<T, DirectoryError>, StoreFault>,
) -> Result<Result<T, DirectoryError>, StoreFault> {
    match done {
        Err(fault @ (StoreFault::Corrupt { .. } | StoreFault::Newer { .. })) => {
            tracing::error!(%fault, "what is kept of a user cannot be read");
            let fault = fault.to_string();
            Ok(Err(DirectoryError::Unreadable { fault }))
        }
        done => done,
    }
}

/// A caller who went away does not need the answer; the work stands.
fn told(heard: bool) {
    if !heard {
        tracing::trace!("the caller had gone before the answer");
    }
}
