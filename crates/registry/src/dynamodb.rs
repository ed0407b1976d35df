//! The table in DynamoDB: an item for each user with the instance in an attribute, and a table of leases beside it.
//!
//! Rows that come to name this instance are written some at a time, in one transaction with a look at its lease: one step
//! after another, since two that look at the same lease would be refused. Every row that is cleared is one conditional
//! `UpdateItem`, many at a time: DynamoDB's batches write whole items without conditions. To look rows over is to read them
//! in batches, which costs a tenth of a write that changes nothing.
//!
//! Leases rest on no wall clock: see [`vigil`]. The rows of a node that died are found by an index over the instance where
//! the table has one; else by reading the table once, which costs less than an index that is written with every row. One
//! node claims them, a little with every beat, and another goes on where it stops.
//!
//! Invariant: whatever else stands in a user's item stays. A call that was begun is waited for: what was said later is
//! never overtaken by it, as far as DynamoDB answers within the time limit. Where there are leases, a row comes to name an
//! instance only while its lease has the beat that this instance gave it last. Who clears the rows of another gives the
//! lease a beat of his own before, and ends it only with that: so no row is left that nobody would find.

mod calls;
mod tables;
mod vigil;

use crate::names::DynamoTableName;
use crate::registry::{Lease, Registry, RegistryFault};
use async_trait::async_trait;
use calls::{Calls, Change, Item, Step};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use postrider_aws::{Account, Reach, Trouble};
use postrider_model::{Millis, Timestamp, UserId};
use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tables::Shape;
use tokio::sync::OnceCell;
use vigil::{Seen, Vigil};

/// What [`Reach::answer`] is best: long enough for a page of the table, short enough for who waits.
pub const ANSWER: Duration = Duration::from_secs(5);
/// Calls at a time, and so connections.
const CALLS: usize = 64;
/// What a keeper best gives at once: to clear a row is a call, and a row that is throttled takes seconds.
pub const ROWS: usize = CALLS;
/// Rows of one step. DynamoDB takes 99 beside the lease.
const TOGETHER: usize = ROWS;
/// A step that others came before is tried so often.
const TRIES: usize = 8;
/// Users of one batch that is read; DynamoDB takes no more.
const BATCH: usize = 100;
/// Leases that are looked at; the others wait until some of these are gone.
const MOST_LEASES: usize = 10_000;
/// The rows of the dead are cleared for this part of a lease with each beat, so that the own one does not end meanwhile.
const SWEEP_PART: u64 = 6;

/// How the table is reached.
#[derive(Clone)]
pub struct Options {
    /// Who asks.
    pub account: Arc<Account>,
    /// Where it is. What is throttled is repeated here: [`Reach::tries`] is 1.
    pub reach: Reach,
    /// What it is called.
    pub names: Names,
    /// Whether it, and the leases, are made where they are missing.
    pub create: bool,
    /// What this instance is called.
    pub instance: String,
    /// How long its lease lasts.
    pub lease: Millis,
    /// Counts milliseconds and never jumps.
    pub steady: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// Any number.
    pub random: fn() -> u64,
}

/// What the table and its attributes are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The table.
    pub table: DynamoTableName,
    /// Its key, a string: the user.
    pub user: String,
    /// The attribute that names the instance; the key of the leases too.
    pub instance: String,
}

/// The table, as one instance writes it.
pub struct DynamoDb {
    calls: Calls,
    create: bool,
    instance: String,
    lease: Millis,
    steady: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// As the tables were found.
    shape: Mutex<Option<Shape>>,
    /// Users whose rows may name this instance, as far as this run wrote them. As many as have sessions here, and those
    /// whose end is not written yet.
    mine: Mutex<BTreeSet<UserId>>,
    /// Nothing names this instance but what this run wrote.
    has_begun: AtomicBool,
    beats: AtomicU64,
    /// The beat that this run gave its lease last, where that is known. Whoever holds it writes rows or the lease.
    beat: tokio::sync::Mutex<Option<String>>,
    watch: tokio::sync::Mutex<Watch>,
}

/// What is known of others.
#[derive(Default)]
struct Watch {
    vigil: Vigil,
    sweep: Option<Sweep>,
}

/// The rows of one that died, which this instance clears.
struct Sweep {
    claim: Seen,
    /// The last row that was looked at.
    after: Option<Item>,
}

impl DynamoDb {
    /// Nothing is reached yet.
    pub fn new(options: Options) -> DynamoDb {
        DynamoDb {
            calls: Calls {
                names: options.names,
                account: options.account,
                reach: options.reach,
                random: options.random,
                made: OnceCell::new(),
            },
            create: options.create,
            instance: options.instance,
            lease: options.lease,
            steady: options.steady,
            shape: Mutex::default(),
            mine: Mutex::default(),
            has_begun: AtomicBool::new(false),
            beats: AtomicU64::new(0),
            beat: tokio::sync::Mutex::default(),
            watch: tokio::sync::Mutex::default(),
        }
    }

    fn shape(&self) -> Result<Shape, RegistryFault> {
        let unopened = || RegistryFault::Away("the table was not looked at yet".into());
        lock(&self.shape).clone().ok_or_else(unopened)
    }

    /// A beat that nobody has had.
    fn fresh(&self) -> String {
        let count = self.beats.fetch_add(1, Ordering::Relaxed);
        format!("{:016x}-{count}", (self.calls.random)())
    }

    /// Does this to these users' rows, some at a time. After a fault no other is begun, and those under way are waited
    /// for. Returns how many changed.
    async fn each(&self, users: &[&str], change: Change<'_>) -> Result<u64, RegistryFault> {
        let mut users = users.iter();
        let mut under_way = FuturesUnordered::new();
        let (mut changed, mut fault) = (0, None);
        loop {
            while fault.is_none()
                && under_way.len() < CALLS
                && let Some(user) = users.next()
            {
                under_way.push(self.calls.change(user, change).boxed());
            }
            match under_way.next().await {
                Some(Ok(has_changed)) => changed += u64::from(has_changed),
                Some(Err(found)) => fault = fault.or(Some(found)),
                None => return fault.map_or(Ok(changed), Err),
            }
        }
    }

    /// Has these users' rows name this instance, or those of them that are free. Returns how many do.
    async fn name(&self, users: &[&str], only_free: bool) -> Result<u64, RegistryFault> {
        if !self.shape()?.has_leases {
            let change = match only_free {
                true => Change::TakeOver(&self.instance),
                false => Change::Put(&self.instance),
            };
            return self.each(users, change).await;
        }
        let mut beat = self.beat.lock().await;
        let mut changed = 0;
        for some in users.chunks(TOGETHER) {
            changed += self.name_some(some.to_vec(), only_free, &mut beat).await?;
        }
        Ok(changed)
    }

    async fn name_some(
        &self,
        mut users: Vec<&str>,
        only_free: bool,
        beat: &mut Option<String>,
    ) -> Result<u64, RegistryFault> {
        for _ in 0..TRIES {
            if users.is_empty() {
                return Ok(0);
            }
            let leased = match beat.take() {
                Some(leased) => leased,
                // There is no lease, or another clears the rows: he is to look again.
                None => {
                    let fresh = self.fresh();
                    self.calls.lapse(&self.instance, &fresh).await?;
                    fresh
                }
            };
            let step = self
                .calls
                .name_together(&users, &self.instance, &leased, only_free)
                .await;
            if !matches!(step, Ok(Step::Unleased)) {
                *beat = Some(leased);
            }
            match step? {
                Step::Done => return Ok(users.len() as u64),
                Step::Unleased => {}
                Step::Named(named) => {
                    let mut nth = 0..;
                    users.retain(|_| nth.next().is_some_and(|nth| !named.contains(&nth)));
                }
            }
        }
        Err(RegistryFault::Away(
            "others write the same rows all the time".into(),
        ))
    }

    /// Does the rest of what one beat may do for the dead.
    async fn sweep(&self, shape: &Shape, dead: Vec<Seen>, watch: &mut Watch) -> Result<(), RegistryFault> {
        let until = (self.steady)().plus(Millis(self.lease.0 / SWEEP_PART));
        let mut dead = dead.into_iter();
        while (self.steady)() < until {
            let sweep = match watch.sweep.take() {
                Some(sweep) => sweep,
                None => match dead.next() {
                    Some(claim) => Sweep { claim, after: None },
                    None => break,
                },
            };
            watch.sweep = self.go_on(shape, sweep, until).await?;
        }
        Ok(())
    }

    /// Clears pages until there is none, or it is time. `None`: there is nothing left, or it is another's now.
    async fn go_on(
        &self,
        shape: &Shape,
        mut sweep: Sweep,
        until: Timestamp,
    ) -> Result<Option<Sweep>, RegistryFault> {
        let beat = self.fresh();
        if !self.calls.claim(&sweep.claim, &beat, self.lease).await? {
            return Ok(None);
        }
        sweep.claim.beat = beat;
        let instance = sweep.claim.instance.clone();
        loop {
            let index = shape.index.as_deref();
            let (users, after) = self.calls.page(index, &instance, sweep.after.clone()).await?;
            let users: Vec<&str> = users.iter().map(String::as_str).collect();
            let mut left = users.chunks(ROWS);
            for some in left.by_ref() {
                self.each(some, Change::Clear(&instance)).await?;
                if (self.steady)() >= until {
                    break;
                }
            }
            if left.len() > 0 {
                // The page is read again: those that are cleared are not on it then.
                return Ok(Some(sweep));
            }
            if after.is_none() {
                self.calls.end(&instance, Some(&sweep.claim.beat)).await?;
                return Ok(None);
            }
            sweep.after = after;
            if (self.steady)() >= until {
                return Ok(Some(sweep));
            }
        }
    }

    /// Clears what an earlier run under this name left. By reading the table: an index lags behind, and nobody looks again.
    async fn clear_earlier(&self, shape: &Shape) -> Result<(), RegistryFault> {
        let mut leases = Vec::new();
        if shape.has_leases {
            leases = self.calls.leases().await?;
        }
        let had_a_lease = |lease: &Seen| lease.instance == self.instance;
        // An earlier run that was not cleared after has its lease still.
        if shape.has_leases && leases.len() < MOST_LEASES && !leases.iter().any(had_a_lease) {
            return Ok(());
        }
        let mut after = None;
        loop {
            let (users, next) = self.calls.page(None, &self.instance, after).await?;
            let users: Vec<&str> = users.iter().map(String::as_str).collect();
            self.each(&users, Change::Clear(&self.instance)).await?;
            match next {
                None => return Ok(()),
                next => after = next,
            }
        }
    }
}

#[async_trait]
impl Registry for DynamoDb {
    async fn open(&self) -> Result<(), RegistryFault> {
        let shape = tables::look(&self.calls, self.create).await?;
        let is_first = lock(&self.shape).replace(shape.clone()).is_none();
        if is_first && !shape.has_leases {
            let leases = self.calls.names.table.leases();
            tracing::warn!(
                leases,
                "the registry has no table of leases: rows of a node that dies stay"
            );
        }
        Ok(())
    }

    async fn put(&self, users: &[UserId]) -> Result<(), RegistryFault> {
        self.shape()?;
        lock(&self.mine).extend(users.iter().cloned());
        self.name(&texts(users), false).await.map(drop)
    }

    async fn take_over(&self, users: &[UserId]) -> Result<u64, RegistryFault> {
        self.shape()?;
        let mut named = HashSet::new();
        for batch in users.chunks(BATCH) {
            named.extend(self.calls.named(&texts(batch)).await?);
        }
        let free = users.iter().filter(|user| !named.contains(user.as_str()));
        let free: Vec<UserId> = free.cloned().collect();
        lock(&self.mine).extend(free.iter().cloned());
        self.name(&texts(&free), true).await
    }

    async fn clear(&self, users: &[UserId]) -> Result<(), RegistryFault> {
        self.shape()?;
        let clear = Change::Clear(&self.instance);
        self.each(&texts(users), clear).await?;
        let mut mine = lock(&self.mine);
        users.iter().for_each(|user| {
            mine.remove(user);
        });
        Ok(())
    }

    async fn beat(&self) -> Result<Lease, RegistryFault> {
        let shape = self.shape()?;
        if !shape.has_leases {
            return Ok(Lease::Held);
        }
        let held = {
            let mut beat = self.beat.lock().await;
            let fresh = self.fresh();
            // Where there is no answer it is not known which of the two the lease has.
            *beat = None;
            let held = self.calls.prolong(&self.instance, &fresh, self.lease).await?;
            *beat = Some(fresh);
            held
        };
        let mut others = self.calls.leases().await?;
        others.retain(|lease| lease.instance != self.instance);
        let mut watch = self.watch.lock().await;
        let dead = watch.vigil.look((self.steady)(), others);
        self.sweep(&shape, dead, &mut watch).await?;
        Ok(if held { Lease::Held } else { Lease::Lapsed })
    }

    async fn leave(&self) -> Result<(), RegistryFault> {
        let shape = self.shape()?;
        if !self.has_begun.load(Ordering::Relaxed) {
            self.clear_earlier(&shape).await?;
            self.has_begun.store(true, Ordering::Relaxed);
        }
        let mine: Vec<UserId> = lock(&self.mine).iter().cloned().collect();
        for page in mine.chunks(crate::MOST_ROWS) {
            self.clear(page).await?;
        }
        if shape.has_leases {
            let mut beat = self.beat.lock().await;
            *beat = None;
            self.calls.end(&self.instance, None).await?;
        }
        Ok(())
    }

    async fn instance_of(&self, user: &UserId) -> Result<Option<String>, RegistryFault> {
        self.calls.read(user.as_str()).await
    }
}

fn texts(users: &[UserId]) -> Vec<&str> {
    users.iter().map(UserId::as_str).collect()
}

fn fault(trouble: Trouble) -> RegistryFault {
    match trouble {
        Trouble::Refused { text, .. } => RegistryFault::Refused(text),
        other => RegistryFault::Away(other.to_string()),
    }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}
