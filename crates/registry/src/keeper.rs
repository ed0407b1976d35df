//! From the ledger to the table: batches, leases, rounds, and what is done when the table is away.
//!
//! Invariant: statements follow each other, one at a time, in the order of the words; between two steps is at least
//! [`PACE`]. A statement is never given up in the middle: what would be done later than what came after it would stay.
//! Between two statements of a batch the own lease is prolonged where that is due. What was written is not written again
//! because of what was not, and after a fault fewer rows are tried at once: a table that takes but few comes on.

use crate::ledger::{Batch, Ledger};
use crate::registry::{Lease, Registry, RegistryFault};
use postrider_model::{LogPace, Millis, Pauses, Timestamp, UserId};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Words of so long are written together.
const PACE: Duration = Duration::from_millis(100);
/// Without a word it is looked so often what is due.
const IDLE: Duration = Duration::from_secs(1);
/// A lease is prolonged so many times while it lasts.
const BEATS: u64 = 3;
/// At the end the rows are cleared within this, or are left to the lease.
const LEAVE_WITHIN: Duration = Duration::from_secs(10);
/// Between two tries of a table that is away.
const PAUSES: Pauses = Pauses {
    first: Millis(250),
    most: Millis::from_secs(10),
};

/// Sees how it goes.
pub trait Watch: Send + Sync {
    /// Whether the table is there.
    fn ready(&self, is_ready: bool);
    /// So many users' rows were written.
    fn wrote(&self, rows: u64);
    /// So many changes wait.
    fn waiting(&self, changes: usize);
    /// A user that the table cannot hold.
    fn unfit(&self);
}

/// Keeps one table.
pub struct Keeper {
    registry: Arc<dyn Registry>,
    ledger: Arc<Ledger>,
    watch: Arc<dyn Watch>,
    /// Most rows of one statement.
    rows: usize,
    /// How long a lease lasts.
    lease: Millis,
    /// Counts milliseconds and never jumps.
    steady: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    random: fn() -> u64,
    is_open: AtomicBool,
    unfit_lines: LogPace,
}

/// What is done to users' rows.
#[derive(Clone, Copy)]
enum Change {
    Put,
    TakeOver,
    Clear,
}

impl Keeper {
    /// Of this table, of which one statement is to have at most so many `rows` ([`crate::MOST_ROWS`], or fewer); nothing is
    /// reached yet.
    pub fn new(
        registry: Arc<dyn Registry>,
        rows: usize,
        ledger: Arc<Ledger>,
        watch: Arc<dyn Watch>,
        lease: Millis,
        steady: Arc<dyn Fn() -> Timestamp + Send + Sync>,
        random: fn() -> u64,
    ) -> Keeper {
        Keeper {
            registry,
            ledger,
            watch,
            rows: rows.clamp(1, crate::MOST_ROWS),
            lease,
            steady,
            random,
            is_open: AtomicBool::new(false),
            unfit_lines: LogPace::new(),
        }
    }

    /// Writes what the ledger says until `end`, and then clears all rows of this instance.
    pub async fn run(self, end: impl Future<Output = ()>) {
        tokio::pin!(end);
        let mut turn = Turn {
            rows: self.rows,
            ..Turn::default()
        };
        let mut failures = 0;
        loop {
            let pause = match self.step(&mut turn).await {
                Ok(()) => {
                    self.went_well(failures);
                    failures = 0;
                    None
                }
                Err(fault) => {
                    self.failed(&fault, failures);
                    turn.is_open = false;
                    failures += 1;
                    let pause = PAUSES.nth(failures, (self.random)());
                    // Shorter than between two beats: with a step that is slow the lease would end meanwhile.
                    Some(pause.min(Millis(self.lease.0 / BEATS / 2)).as_duration())
                }
            };
            self.watch.waiting(self.ledger.waiting());
            tokio::select! {
                () = &mut end => break,
                () = self.pause(pause) => {}
            }
        }
        self.leave(turn.is_open).await;
    }

    async fn pause(&self, after_fault: Option<Duration>) {
        if let Some(pause) = after_fault {
            return tokio::time::sleep(pause.max(PACE)).await;
        }
        if !self.ledger.is_behind() {
            tokio::select! {
                () = self.ledger.word() => {}
                () = tokio::time::sleep(IDLE) => {}
            }
        }
        tokio::time::sleep(PACE).await;
    }

    /// What is due now.
    async fn step(&self, turn: &mut Turn) -> Result<(), RegistryFault> {
        if !turn.is_open {
            self.registry.open().await?;
            turn.next_beat = Timestamp(0);
        }
        if !turn.has_begun || self.ledger.must_start_over() {
            // What an earlier run under the same name left, or what nobody remembers one by one.
            self.registry.leave().await?;
            turn.has_begun = true;
            turn.next_beat = Timestamp(0);
            self.ledger.started_over();
        }
        self.prolong(turn).await?;
        turn.is_open = true;
        let batch = self.ledger.take();
        if !batch.is_empty() {
            self.write_batch(turn, batch).await?;
        }
        let mut page = self.ledger.page((self.steady)());
        self.write_all(turn, Change::TakeOver, &mut page).await
    }

    /// A beat, if it is due.
    async fn prolong(&self, turn: &mut Turn) -> Result<(), RegistryFault> {
        let now = (self.steady)();
        if now < turn.next_beat {
            return Ok(());
        }
        let lease = self.registry.beat().await?;
        turn.next_beat = now.plus(Millis(self.lease.0 / BEATS));
        if lease == Lease::Lapsed || !turn.is_open {
            self.ledger.hurry();
        }
        Ok(())
    }

    async fn write_batch(&self, turn: &mut Turn, mut batch: Batch) -> Result<(), RegistryFault> {
        let mut written = self.write_all(turn, Change::Clear, &mut batch.gone).await;
        if written.is_ok() {
            written = self.write_all(turn, Change::Put, &mut batch.here).await;
        }
        if written.is_err() {
            self.ledger.put_back(batch);
        }
        written
    }

    /// Does it to all of them, some at a time; after a fault those are left to whom it was not done.
    async fn write_all(
        &self,
        turn: &mut Turn,
        change: Change,
        users: &mut Vec<UserId>,
    ) -> Result<(), RegistryFault> {
        while !users.is_empty() {
            self.prolong(turn).await?;
            let count = turn.rows.min(users.len());
            let written = self.write(change, &users[..count]).await;
            turn.rows = match written {
                Ok(()) => (turn.rows + turn.rows / 8 + 1).min(self.rows),
                Err(_) => (turn.rows / 2).max(1),
            };
            written?;
            users.drain(..count);
        }
        Ok(())
    }

    /// Does it to all whom the table can hold; the others are found by halves.
    async fn write(&self, change: Change, users: &[UserId]) -> Result<(), RegistryFault> {
        let mut parts = vec![users];
        while let Some(part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            let done = match change {
                Change::Put => self.registry.put(part).await.map(|()| part.len() as u64),
                Change::Clear => self.registry.clear(part).await.map(|()| part.len() as u64),
                Change::TakeOver => self.registry.take_over(part).await,
            };
            match done {
                Ok(rows) => self.watch.wrote(rows),
                Err(RegistryFault::Unfit(what)) => match part {
                    [one] => self.strike_off(one, &what),
                    _ => {
                        let (left, right) = part.split_at(part.len() / 2);
                        parts.extend([left, right]);
                    }
                },
                Err(fault) => return Err(fault),
            }
        }
        Ok(())
    }

    fn strike_off(&self, user: &UserId, what: &str) {
        self.ledger.strike_off(user);
        self.watch.unfit();
        if let Some(unsaid) = self.unfit_lines.due((self.steady)()) {
            tracing::warn!(
                user = user.as_str(),
                what,
                unsaid,
                "the registry cannot hold a user"
            );
        }
    }

    fn went_well(&self, failures: u32) {
        if !self.is_open.swap(true, Ordering::Relaxed) || failures > 0 {
            tracing::info!(failures, "the registry is there");
        }
        self.watch.ready(true);
    }

    /// The first of a row of faults is logged, and then ever fewer.
    fn failed(&self, fault: &RegistryFault, failures: u32) {
        self.watch.ready(false);
        if (failures + 1).is_power_of_two() {
            let again = failures + 1;
            tracing::warn!(%fault, again, "the registry cannot be written; it is tried again");
        }
    }

    async fn leave(&self, is_open: bool) {
        let leave = async {
            if !is_open {
                self.registry.open().await?;
            }
            self.registry.leave().await
        };
        match tokio::time::timeout(LEAVE_WITHIN, leave).await {
            Ok(Ok(())) => tracing::debug!("no row of the registry names this instance any more"),
            Ok(Err(fault)) => tracing::warn!(%fault, "rows of the registry still name this instance"),
            Err(_) => tracing::warn!("rows of the registry still name this instance: it does not answer"),
        }
    }
}

/// Where a keeper stands.
#[derive(Default)]
struct Turn {
    is_open: bool,
    /// What an earlier run left is cleared.
    has_begun: bool,
    next_beat: Timestamp,
    /// Rows of the next statement: half as many after a fault, and then a little more each time.
    rows: usize,
}

#[cfg(test)]
#[path = "keeper_tests.rs"]
mod tests;
