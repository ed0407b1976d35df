//! The one writer: gathers the commands that wait, applies them in one transaction, syncs once, and only
//! then answers and wakes. Many publishers share one sync, and none waits for a timer. What is too large
//! for one transaction goes on in the next, in turn with whatever else waits.
//!
//! Over a store that others write too nothing is remembered from one transaction to the next: each rests on what
//! it read, and where another node changed that meanwhile it is done again. Of what is due it does what [falls to
//! it](Store::share), and what is too old is left to the node that [keeps house](Store::keeps_house). See [`shared`].
//!
//! Invariant: an answer of success, and a wake, come after the commit that makes them true. When a commit
//! fails nobody is told success, and what the writer remembers of feeds is read anew.

mod shared;

use super::StoreFault;
use super::apply::{Apply, Counts, Told};
use super::codec::Writer;
use super::hot::Hot;
use super::job::{Job, Step};
use super::rules::Rules;
use super::store::{Batch, Store, Table, Txn};
use crate::{
    Answered, DirectoryError, EngineError, MemberChange, MemberWake, Put, Redriven, Sync, UserPut, Wake,
};
use foldhash::HashMap;
use postrider_model::{
    Attempt, DeadLetter, DeadLetterId, Entry, Epoch, FeedId, FeedSpan, NotificationId, Publication, Receipt,
    Settlement, StateChange, StateError, Timestamp, UserId, UserState,
};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Commands that may wait; one more is refused as busy.
pub(super) const MAX_WAITING: usize = 4096;
/// Bytes of notifications that may wait.
const MAX_WAITING_BYTES: usize = 64 << 20;
/// Publications and settlements in one transaction; the last may exceed it.
const MAX_BATCH: usize = 4096;
/// Unfinished commands beside which new ones are taken in.
const MAX_CARRIED: usize = 16;
/// Feeds whose spans are remembered between transactions.
const MAX_SPANS: usize = 200_000;
/// Entries in one wake, so that a wide fan-out is not one long turn for its listeners.
const MAX_WAKE: usize = 1024;
/// How often due times are looked at when nothing else happens.
const DUE_INTERVAL: Duration = Duration::from_millis(100);
/// How long to wait after what is too old could not be forgotten.
const SWEEP_RETRY: Duration = Duration::from_secs(10);
/// How often it is tried whether a store that failed works again.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// How long what nobody waits for may stay off the disk.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);

pub(super) type Reply<T> = oneshot::Sender<Result<T, EngineError>>;
pub(super) type Listener = Box<dyn Fn(Wake) + Send + std::marker::Sync>;

/// Whoever submitted a batch, until it is answered; once in any case.
pub(super) struct Receipts {
    answered: Option<Answered>,
    count: usize,
}

impl Receipts {
    pub fn new(count: usize, answered: Answered) -> Receipts {
        Receipts {
            answered: Some(answered),
            count,
        }
    }

    pub fn answer(mut self, receipts: Vec<Result<Receipt, EngineError>>) {
        if let Some(answered) = self.answered.take() {
            answered(receipts);
        }
    }
}

impl Drop for Receipts {
    /// The writer ended without an answer.
    fn drop(&mut self) {
        if let Some(answered) = self.answered.take() {
            answered(vec![Err(EngineError::Closed); self.count]);
        }
    }
}

pub(super) enum Command {
    Publish(Vec<Publication>, Receipts),
    Settle(Vec<Settlement>, Sync, Option<Reply<Vec<u64>>>),
    Cancel(NotificationId, Reply<Option<Option<u64>>>),
    Trim(FeedId, u64, Reply<()>),
    Attempt(Vec<Attempt>),
    Redrive(Vec<DeadLetterId>, Reply<Vec<Redriven>>),
    Discard(DeadLetterId, Reply<bool>),
    Bury(Box<DeadLetter>, Reply<DeadLetterId>),
    /// Something at this place cannot be read.
    Repair(FeedId, u64, Reply<()>),
    Erase(UserId, Reply<bool>),
    Arrive(UserId, Reply<()>),
    PutUsers(Vec<UserPut>, Reply<Vec<Result<Put, DirectoryError>>>),
    RemoveUser(UserId, Reply<bool>),
    ChangeMembers(Vec<MemberChange>, Reply<Vec<Result<bool, DirectoryError>>>),
    ChangeState(UserId, StateChange, Reply<Result<UserState, StateError>>),
    /// Look at due times now.
    Tick(Reply<()>),
    Close,
}

impl Command {
    fn bytes(&self) -> usize {
        match self {
            Command::Publish(batch, _) => batch
                .iter()
                .map(|p| p.notification.data.len() + p.feeds.len() * 64 + 256)
                .sum(),
            Command::Bury(letter, _) => letter.body.len() + 256,
            Command::Attempt(batch) => batch.len() * 128,
            Command::PutUsers(batch, _) => batch.iter().map(put_bytes).sum(),
            Command::ChangeMembers(batch, _) => batch.len() * 256,
            Command::ChangeState(_, change, _) => 256 + change_bytes(change),
            Command::Close => 0,
            _ => 256,
        }
    }
    fn weight(&self) -> usize {
        match self {
            Command::Publish(batch, _) => batch.iter().map(|p| p.feeds.len().max(1)).sum(),
            Command::Settle(batch, ..) => batch.len(),
            Command::Attempt(batch) => batch.len(),
            Command::PutUsers(batch, _) => batch.len(),
            Command::ChangeMembers(batch, _) => batch.len(),
            _ => 1,
        }
    }
    pub fn needs_sync(&self) -> bool {
        !matches!(self, Command::Settle(_, Sync::Lazy, _) | Command::Attempt(_))
    }
}

/// What a user to be written takes in memory, about.
fn put_bytes(put: &UserPut) -> usize {
    let attributes = put.profile.attributes.iter();
    let attributes: usize = attributes.map(|(key, value)| key.len() + value.len() + 64).sum();
    let topics = put.topics.as_ref().map_or(0, Vec::len);
    512 + attributes + topics * 128
}

fn change_bytes(change: &StateChange) -> usize {
    match change {
        StateChange::Merge(members) => members
            .iter()
            .map(|(key, value)| key.len() + value.as_ref().map_or(0, String::len) + 64)
            .sum(),
        StateChange::Increment(members) => members.iter().map(|(key, _)| key.len() + 64).sum(),
        StateChange::Clear => 0,
    }
}

/// The way in: bounded by count and by bytes.
pub(super) struct Queue {
    sender: SyncSender<Command>,
    bytes: Arc<AtomicUsize>,
}

impl Queue {
    pub fn new() -> (Queue, Receiver<Command>, Arc<AtomicUsize>) {
        let (sender, receiver) = std::sync::mpsc::sync_channel(MAX_WAITING);
        let bytes = Arc::new(AtomicUsize::new(0));
        (
            Queue {
                sender,
                bytes: bytes.clone(),
            },
            receiver,
            bytes,
        )
    }

    pub fn send(&self, command: Command) -> Result<(), EngineError> {
        self.offer(command).map_err(|(error, _)| error)
    }

    /// Gives the command back where it is refused.
    pub fn offer(&self, command: Command) -> Result<(), (EngineError, Command)> {
        let size = command.bytes();
        // One that is larger than all that may wait is taken where nothing else waits.
        if self.bytes.fetch_add(size, Ordering::AcqRel) + size > MAX_WAITING_BYTES.max(size) {
            self.bytes.fetch_sub(size, Ordering::AcqRel);
            return Err((EngineError::Busy, command));
        }
        self.sender.try_send(command).map_err(|error| {
            self.bytes.fetch_sub(size, Ordering::AcqRel);
            match error {
                TrySendError::Full(command) => (EngineError::Busy, command),
                TrySendError::Disconnected(command) => (EngineError::Closed, command),
            }
        })
    }

    /// Tells the writer to finish what waits and end; where there is no room it ends when whoever sends is gone.
    pub fn leave(&self) {
        if self.sender.try_send(Command::Close).is_err() {
            tracing::debug!("the writer ends later");
        }
    }

    /// Tells the writer to finish what waits and end. Waits for room.
    pub fn close(&self) {
        if self.sender.send(Command::Close).is_err() {
            tracing::debug!("the writer had ended already");
        }
    }
}

/// What the writer tells of each transaction: how many commands, and how long the commit took.
pub(super) type OnCommit = Box<dyn Fn(usize, Duration) + Send>;

/// Told what a commit appended, in order, once it can be read: before any wake and any answer, and before the
/// next transaction begins.
pub(super) type OnDurable = Box<dyn Fn(&[Arc<Entry>]) + Send>;

/// What others may see of the writer at any time.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// The last transaction failed.
    pub failing: AtomicBool,
    /// Dead letters there are.
    pub letters: AtomicU64,
    /// Bytes that notifications hold.
    pub held: AtomicU64,
    /// Transactions that were done again because of another node's.
    pub clashes: AtomicU64,
    /// How often the writer came to what nobody asked for.
    pub chores: AtomicU64,
    /// Nobody waits any more for a store that is away.
    pub leaving: AtomicBool,
}

pub(super) struct WriterThread {
    pub store: Arc<dyn Store>,
    /// What is known of the store without looking; it follows each commit.
    pub hot: Arc<Hot>,
    pub epoch: Epoch,
    pub rules: Rules,
    pub health: Arc<Health>,
    pub clock: Arc<dyn Fn() -> Timestamp + Send + std::marker::Sync>,
    pub receiver: Receiver<Command>,
    pub waiting_bytes: Arc<AtomicUsize>,
    pub listeners: Arc<RwLock<Vec<Listener>>>,
    pub on_commit: OnCommit,
    pub on_durable: OnDurable,
    /// How long commands wait for a store that is away, or that others keep changing, before they are refused.
    pub patience: Duration,
}

/// What the writer remembers between transactions.
struct Turn {
    spans: HashMap<FeedId, FeedSpan>,
    /// `None` until read, and after a failure.
    counts: Option<Counts>,
    jobs: VecDeque<Job>,
    more_due: bool,
    /// What is due by this time was done.
    now: Timestamp,
    /// Before this nothing more becomes due.
    calm_until: Timestamp,
    /// There may be more that is too old.
    more_old: bool,
    /// When to look for what is too old.
    sweep: Option<Instant>,
    closing: bool,
    /// Since when something lies in the store that is not synced.
    unsynced: Option<Instant>,
    /// Memory of the last transaction, for the next.
    spare: Vec<u8>,
    /// The last transaction that wrote something failed.
    failing: bool,
    /// When to try to write although nothing asks for it.
    probe: Option<Instant>,
    /// What only matters where others write too.
    shared: shared::Turn,
}

impl WriterThread {
    pub fn run(self) {
        let mut turn = Turn {
            spans: HashMap::default(),
            counts: None,
            jobs: VecDeque::new(),
            more_due: true,
            now: Timestamp(0),
            calm_until: Timestamp(0),
            more_old: false,
            sweep: None,
            closing: false,
            unsynced: None,
            spare: Vec::new(),
            failing: false,
            probe: None,
            shared: shared::Turn::default(),
        };
        let shared = self.store.is_shared();
        while !(turn.closing && turn.jobs.is_empty()) {
            if turn.jobs.len() <= MAX_CARRIED && !turn.closing {
                self.gather(&mut turn);
            }
            if shared {
                self.turn_shared(&mut turn);
                continue;
            }
            self.transact(&mut turn);
            self.sweep(&mut turn);
            self.flush(&mut turn);
        }
    }

    /// Takes what waits into `jobs`. Waits for it where there is nothing else to do.
    fn gather(&self, turn: &mut Turn) {
        let idle = turn.jobs.is_empty() && !turn.more_due && !turn.more_old;
        let wait = if idle { turn.shared.rest() } else { Duration::ZERO };
        let mut next = match self.receiver.recv_timeout(wait) {
            Ok(command) => Some(command),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                turn.closing = true;
                None
            }
        };
        if next.is_some() {
            // Those who share this core and are about to bring more do so first: one commit for all costs them less
            // than one each. Where nobody else has anything to do this returns at once.
            std::thread::yield_now();
        }
        let mut weight = 0;
        while let Some(command) = next {
            self.waiting_bytes.fetch_sub(command.bytes(), Ordering::AcqRel);
            if matches!(command, Command::Close) {
                turn.closing = true;
                return;
            }
            weight += command.weight();
            turn.jobs.push_back(Job::new(command));
            if weight >= MAX_BATCH {
                return;
            }
            next = self.receiver.try_recv().ok();
        }
    }

    /// Runs one transaction over the jobs, as far as one transaction should go.
    fn transact(&self, turn: &mut Turn) {
        // Taken, so that after a failure none are left.
        let mut apply = match self.begin(turn) {
            Ok(apply) => apply,
            Err(fault) => return self.fail(turn, VecDeque::new(), fault),
        };
        let (mut stepped, mut room) = (VecDeque::new(), MAX_BATCH);
        let mut broken = None;
        while broken.is_none()
            && room > 0
            && let Some(mut job) = turn.jobs.pop_front()
        {
            let step = job.step(&mut apply, room);
            room = match step {
                Ok(Step { used, .. }) => room.saturating_sub(used.max(1)),
                Err(_) => 0,
            };
            match step {
                Ok(Step { done, .. }) => stepped.push_back((job, done)),
                // What is wrong with one row is the trouble of those who ask for it.
                Err(fault @ (StoreFault::Corrupt { .. } | StoreFault::Newer { .. })) => {
                    return refuse_alone(turn, stepped, job, &fault);
                }
                Err(fault) => {
                    broken = Some(fault);
                    stepped.push_back((job, true));
                }
            }
        }
        apply.note_young();
        let Apply {
            txn,
            counts,
            spans,
            appended,
            told,
            behind,
            overdue,
            calm_until,
            ..
        } = apply;
        let sync = !appended.is_empty() || stepped.iter().any(|(job, _)| job.needs_sync());
        let outcome = match broken {
            Some(fault) => Err(fault),
            None => self.commit(txn, counts, sync, stepped.len(), turn),
        };
        if let Err(fault) = outcome {
            return self.fail(turn, stepped, fault);
        }
        self.tell(appended, told);
        for (mut job, done) in stepped {
            if done {
                job.answer();
            } else {
                job.committed();
                turn.jobs.push_back(job);
            }
        }
        turn.more_due = behind && !overdue;
        turn.calm_until = calm_until;
        if spans.len() <= MAX_SPANS {
            turn.spans = spans;
        }
    }

    /// Begins with what is due, so that whatever has run out by now is recorded as such first.
    fn begin(&self, turn: &mut Turn) -> Result<Apply<'_>, StoreFault> {
        let mut apply = self.open(turn)?;
        turn.now = apply.now;
        match apply.due() {
            Ok(()) => Ok(apply),
            // One record that cannot be read must not keep all else from being accepted.
            Err(fault @ (StoreFault::Corrupt { .. } | StoreFault::Newer { .. })) => {
                tracing::error!(%fault, "what is due cannot be done");
                drop(apply);
                let mut apply = self.open(turn)?;
                apply.behind = true;
                apply.overdue = true;
                Ok(apply)
            }
            Err(fault) => Err(fault),
        }
    }

    fn open(&self, turn: &mut Turn) -> Result<Apply<'_>, StoreFault> {
        let txn = Txn::new(&*self.store, std::mem::take(&mut turn.spare))?;
        self.open_on(txn, turn)
    }

    fn open_on<'s>(&'s self, txn: Txn<'s>, turn: &mut Turn) -> Result<Apply<'s>, StoreFault> {
        let counts = match turn.counts {
            Some(counts) => counts,
            None => *turn.counts.insert(Counts::read(&txn)?),
        };
        // Taken, so that after a failure none are left.
        let spans = std::mem::take(&mut turn.spans);
        let now = (self.clock)();
        let mut apply = Apply::new(txn, self.epoch, now, spans, &self.rules, counts, &self.hot);
        apply.calm_until = turn.calm_until;
        Ok(apply)
    }

    fn commit(
        &self,
        mut txn: Txn<'_>,
        counts: Counts,
        sync: bool,
        jobs: usize,
        turn: &mut Turn,
    ) -> Result<(), StoreFault> {
        if turn.counts != Some(counts) {
            let (row, value) = counts.row();
            txn.put(Table::Meta, row, value);
        }
        // Where it failed before, only a write tells whether it works again.
        let probe = turn.failing && turn.probe.is_none_or(|at| now() >= at);
        if probe {
            txn.put(
                Table::Meta,
                b"probe".to_vec(),
                Writer::new().u64(turn.now.0).done(),
            );
            turn.probe = Some(now() + PROBE_INTERVAL);
        }
        let (view, batch) = txn.into_parts();
        drop(view);
        if batch.is_empty() && sync && turn.unsynced.is_some() {
            // What is answered may rest on what was written before, and only written.
            self.store.commit(&batch, true)?;
            turn.unsynced = None;
        }
        if !batch.is_empty() {
            let begin = now();
            let sync = sync || probe;
            self.store.commit(&batch, sync)?;
            (self.on_commit)(jobs, begin.elapsed());
            turn.unsynced = (!sync).then(|| turn.unsynced.unwrap_or(begin));
            if sync && std::mem::take(&mut turn.failing) {
                tracing::info!("the store works again");
                self.health.failing.store(false, Ordering::Relaxed);
            }
        }
        turn.spare = batch.into_spare();
        turn.counts = Some(counts);
        self.health.letters.store(counts.letters, Ordering::Relaxed);
        self.health.held.store(counts.held, Ordering::Relaxed);
        Ok(())
    }

    /// Forgets some of what is too old or too much, now and then, in a transaction of its own: what is wrong
    /// with an old row is nobody else's trouble.
    fn sweep(&self, turn: &mut Turn) {
        let idle = turn.closing || turn.failing || turn.more_due;
        if idle || turn.sweep.is_some_and(|at| now() < at) {
            return;
        }
        let swept = self.open(turn).and_then(|mut apply| {
            // Never ahead of what is due: that comes first.
            apply.now = turn.now;
            let more = apply.sweep()?;
            let Apply {
                txn,
                counts,
                spans,
                appended,
                told,
                calm_until,
                ..
            } = apply;
            let sync = !appended.is_empty();
            self.commit(txn, counts, sync, 1, turn)?;
            self.tell(appended, told);
            turn.calm_until = calm_until;
            turn.spans = spans;
            Ok(more)
        });
        turn.more_old = matches!(swept, Ok(true));
        let rest = match swept {
            Ok(true) => Duration::ZERO,
            Ok(false) => DUE_INTERVAL,
            Err(fault) => {
                tracing::error!(%fault, "what is too old cannot be forgotten; trying again later");
                turn.counts = None;
                SWEEP_RETRY
            }
        };
        turn.sweep = Some(now() + rest);
    }

    /// Brings to the disk what nobody waited for, once that is old enough or nothing else will come.
    fn flush(&self, turn: &mut Turn) {
        let ending = turn.closing && turn.jobs.is_empty();
        if turn
            .unsynced
            .is_some_and(|since| ending || since.elapsed() >= FLUSH_INTERVAL)
        {
            turn.unsynced = None;
            if let Err(fault) = self.store.commit(&Batch::default(), true) {
                self.fail(turn, VecDeque::new(), fault);
            }
        }
    }

    /// Tells everyone who waits. A command that could not even begin may be asked again.
    fn fail(&self, turn: &mut Turn, stepped: VecDeque<(Job, bool)>, fault: StoreFault) {
        if !turn.failing {
            tracing::error!(%fault, "the store failed; nothing of this batch was accepted");
        }
        turn.failing = true;
        self.health.failing.store(true, Ordering::Relaxed);
        turn.spans = HashMap::default();
        turn.counts = None;
        turn.calm_until = Timestamp(0);
        // Looking again at once would spin.
        turn.more_due = false;
        let error = EngineError::Store(fault.to_string());
        let stepped = stepped.into_iter().map(|(job, _)| job);
        for job in stepped.chain(turn.jobs.drain(..)) {
            job.refuse(&error);
        }
    }

    /// Tells of what is durable, in the order in which it came about.
    fn tell(&self, mut appended: Vec<Arc<Entry>>, told: Vec<(usize, Told)>) {
        if !appended.is_empty() {
            (self.on_durable)(&appended);
        }
        let (mut done, mut moves) = (0, Vec::new());
        for (after, told) in told {
            if after > done || moves.len() >= MAX_WAKE || matches!(told, Told::State(..)) {
                self.tell_moves(&mut moves);
            }
            let rest = appended.split_off(after - done);
            self.tell_appended(std::mem::replace(&mut appended, rest));
            done = after;
            match told {
                Told::Member(one) => moves.push(one),
                Told::State(user, state) => self.wake(&Wake::State(user, state)),
            }
        }
        self.tell_moves(&mut moves);
        self.tell_appended(appended);
    }

    fn tell_moves(&self, moves: &mut Vec<MemberWake>) {
        if !moves.is_empty() {
            self.wake(&Wake::Members(std::mem::take(moves).into()));
        }
    }

    fn tell_appended(&self, appended: Vec<Arc<Entry>>) {
        match appended.len() {
            0 => {}
            1..=MAX_WAKE => self.wake(&Wake::Appended(appended.into())),
            _ => {
                for chunk in appended.chunks(MAX_WAKE) {
                    self.wake(&Wake::Appended(chunk.into()));
                }
            }
        }
    }

    fn wake(&self, wake: &Wake) {
        for listener in self
            .listeners
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            listener(wake.clone());
        }
    }
}

/// Measures commits and paces the writer; nothing that is stored depends on it.
#[allow(
    clippy::disallowed_methods,
    reason = "the one place; no decision about what is stored"
)]
fn now() -> Instant {
    Instant::now()
}

/// One command met a damaged row: it, or one publication of it, is refused, and the others are done in another
/// transaction.
fn refuse_alone(turn: &mut Turn, stepped: VecDeque<(Job, bool)>, mut job: Job, fault: &StoreFault) {
    tracing::error!(%fault, "a command was refused; the others go on");
    let error = EngineError::Store(fault.to_string());
    if job.spare_others(&error) {
        turn.jobs.push_front(job);
    } else {
        job.refuse(&error);
    }
    for (mut job, _) in stepped.into_iter().rev() {
        job.roll_back();
        turn.jobs.push_front(job);
    }
}
