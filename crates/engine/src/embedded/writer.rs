//! The one writer: gathers the commands that wait, applies them in one transaction, syncs once, and only
//! then answers and wakes. Many publishers share one sync, and none waits for a timer.
//!
//! Invariant: an answer of success, and a wake, come after the commit that makes them true. When a commit
//! fails nobody is told success, and what the writer remembers of feeds is read anew.

use super::StoreFault;
use super::apply::Apply;
use super::store::{Store, Txn};
use crate::{EngineError, Sync, Wake};
use postrider_model::{Epoch, FeedId, FeedSpan, NotificationId, Publication, Receipt, Settlement, Timestamp};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Commands that may wait; one more is refused as busy.
pub(super) const MAX_WAITING: usize = 4096;
/// Bytes of notifications that may wait.
const MAX_WAITING_BYTES: usize = 64 << 20;
/// Publications and settlements in one transaction.
const MAX_BATCH: usize = 4096;
/// Due notifications handled in one transaction.
const MAX_DUE: usize = 64;
/// Rows that one transaction trims.
const MAX_TRIM: usize = 4096;
/// Feeds whose spans are remembered between transactions.
const MAX_SPANS: usize = 200_000;
/// How often due times are looked at when nothing else happens.
const DUE_INTERVAL: Duration = Duration::from_millis(100);

pub(super) type Reply<T> = oneshot::Sender<Result<T, EngineError>>;
pub(super) type Listener = Box<dyn Fn(Wake) + Send + std::marker::Sync>;

pub(super) enum Command {
    Publish(
        Vec<Publication>,
        oneshot::Sender<Vec<Result<Receipt, EngineError>>>,
    ),
    Settle(Vec<Settlement>, Sync, Option<Reply<Vec<u64>>>),
    Cancel(NotificationId, Reply<Option<Option<u64>>>),
    Trim(FeedId, u64, Reply<()>),
    /// Look at due times now.
    Tick(Reply<()>),
    Close,
}

impl Command {
    fn bytes(&self) -> usize {
        match self {
            Command::Publish(batch, _) => batch.iter().map(|p| p.notification.data.len() + 256).sum(),
            _ => 256,
        }
    }
    fn weight(&self) -> usize {
        match self {
            Command::Publish(batch, _) => batch.iter().map(|p| p.feeds.len().max(1)).sum(),
            Command::Settle(batch, ..) => batch.len(),
            _ => 1,
        }
    }
    fn refuse(self, error: &EngineError) {
        let heard = match self {
            Command::Publish(batch, reply) => reply.send(vec![Err(error.clone()); batch.len()]).is_ok(),
            Command::Settle(_, _, Some(reply)) => reply.send(Err(error.clone())).is_ok(),
            Command::Cancel(_, reply) => reply.send(Err(error.clone())).is_ok(),
            Command::Trim(_, _, reply) | Command::Tick(reply) => reply.send(Err(error.clone())).is_ok(),
            Command::Settle(_, _, None) | Command::Close => true,
        };
        told(heard);
    }
    fn needs_sync(&self) -> bool {
        !matches!(self, Command::Settle(_, Sync::Lazy, _))
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
        let size = command.bytes();
        if self.bytes.fetch_add(size, Ordering::AcqRel) + size > MAX_WAITING_BYTES.max(size) {
            self.bytes.fetch_sub(size, Ordering::AcqRel);
            return Err(EngineError::Busy);
        }
        self.sender.try_send(command).map_err(|error| {
            self.bytes.fetch_sub(size, Ordering::AcqRel);
            match error {
                TrySendError::Full(_) => EngineError::Busy,
                TrySendError::Disconnected(_) => EngineError::Closed,
            }
        })
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

pub(super) struct WriterThread {
    pub store: Arc<dyn Store>,
    pub epoch: Epoch,
    pub clock: Arc<dyn Fn() -> Timestamp + Send + std::marker::Sync>,
    pub receiver: Receiver<Command>,
    pub waiting_bytes: Arc<AtomicUsize>,
    pub listeners: Arc<RwLock<Vec<Listener>>>,
    pub on_commit: OnCommit,
}

/// An answer held back until the commit.
type Answer = Box<dyn FnOnce(Result<(), EngineError>) + Send>;

impl WriterThread {
    pub fn run(self) {
        let mut spans = HashMap::new();
        let mut more_due = true;
        loop {
            let wait = if more_due { Duration::ZERO } else { DUE_INTERVAL };
            let mut commands = Vec::new();
            let mut weight = 0;
            let mut closing = false;
            match self.receiver.recv_timeout(wait) {
                Ok(first) => {
                    let mut next = Ok(first);
                    while let Ok(command) = next {
                        self.waiting_bytes.fetch_sub(command.bytes(), Ordering::AcqRel);
                        closing |= matches!(command, Command::Close);
                        weight += command.weight();
                        commands.push(command);
                        if closing || weight >= MAX_BATCH {
                            break;
                        }
                        next = self.receiver.try_recv();
                    }
                    if matches!(self.receiver.try_recv(), Err(TryRecvError::Disconnected))
                        && commands.is_empty()
                    {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            more_due = self.transact(commands, &mut spans);
            if closing {
                return;
            }
        }
    }

    /// Runs one transaction; true if more is due.
    fn transact(&self, commands: Vec<Command>, spans: &mut HashMap<FeedId, FeedSpan>) -> bool {
        let sync = commands.iter().any(Command::needs_sync);
        let count = commands.len();
        let txn = match Txn::new(&*self.store) {
            Ok(txn) => txn,
            Err(fault) => {
                tracing::error!(%fault, "the store cannot be read; nothing of this batch was accepted");
                let error = EngineError::Store(fault.to_string());
                commands.into_iter().for_each(|command| command.refuse(&error));
                return false;
            }
        };
        let mut apply = Apply {
            txn,
            epoch: self.epoch,
            now: (self.clock)(),
            spans,
            appended: Vec::new(),
        };
        let mut answers: Vec<Answer> = Vec::with_capacity(count);
        let mut more_due = false;
        let mut broken = None;
        // Before anything else, so that whatever has run out by now is recorded as such first.
        match apply.due(MAX_DUE) {
            Ok(more) => more_due = more,
            Err(fault) => broken = Some(fault),
        }
        for command in commands {
            match apply_one(&mut apply, command) {
                Ok(answer) => answers.push(answer),
                Err((fault, answer)) => {
                    answers.push(answer);
                    broken.get_or_insert(fault);
                }
            }
        }
        let Apply {
            txn, appended, spans, ..
        } = apply;
        let batch = txn.into_batch();
        let outcome = match broken {
            Some(fault) => Err(fault),
            None if batch.is_empty() => Ok(()),
            None => {
                #[allow(
                    clippy::disallowed_methods,
                    reason = "measures the commit for the metrics; decides nothing"
                )]
                let begin = Instant::now();
                let outcome = self.store.commit(&batch, sync || !appended.is_empty());
                (self.on_commit)(count, begin.elapsed());
                outcome
            }
        };
        match outcome {
            Ok(()) => {
                for chunk in appended.chunks(MAX_WAKE) {
                    self.wake(Wake::Appended(chunk.into()));
                }
                answers.into_iter().for_each(|answer| answer(Ok(())));
                if spans.len() > MAX_SPANS {
                    spans.clear();
                }
            }
            Err(fault) => {
                tracing::error!(%fault, "the store failed; nothing of this batch was accepted");
                spans.clear();
                let error = EngineError::Store(fault.to_string());
                answers.into_iter().for_each(|answer| answer(Err(error.clone())));
                // Whatever made it fail, looking again at once would spin.
                more_due = false;
            }
        }
        more_due
    }

    fn wake(&self, wake: Wake) {
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

/// Entries in one wake, so that a wide fan-out is not one long turn for its listeners.
const MAX_WAKE: usize = 1024;

/// Applies one command and returns how to answer it once the commit is done. A fault of the store breaks
/// the whole transaction.
fn apply_one(apply: &mut Apply<'_>, command: Command) -> Result<Answer, (StoreFault, Answer)> {
    match command {
        Command::Publish(batch, reply) => {
            let mut fault = None;
            let mut receipts: Vec<_> = batch
                .iter()
                .map(|publication| apply.publish(publication))
                .collect();
            for receipt in &receipts {
                if let Err(EngineError::Store(detail)) = receipt {
                    fault = Some(StoreFault::Io(detail.clone()));
                }
            }
            let answer: Answer = Box::new(move |outcome| {
                if let Err(error) = outcome {
                    for receipt in receipts.iter_mut().filter(|receipt| receipt.is_ok()) {
                        *receipt = Err(error.clone());
                    }
                }
                told(reply.send(receipts).is_ok());
            });
            match fault {
                None => Ok(answer),
                Some(fault) => Err((fault, answer)),
            }
        }
        Command::Settle(batch, sync, reply) => {
            let count = sync == Sync::Durable;
            let changed = batch
                .iter()
                .map(|settlement| apply.settle(settlement, count))
                .collect::<Result<Vec<_>, _>>();
            held(changed, reply)
        }
        Command::Cancel(id, reply) => held(apply.cancel(&id), Some(reply)),
        Command::Trim(feed, before, reply) => {
            let mut more = Ok(true);
            while matches!(more, Ok(true)) {
                more = apply.trim(&feed, before, MAX_TRIM);
            }
            held(more.map(|_| ()), Some(reply))
        }
        Command::Tick(reply) => held(Ok(()), Some(reply)),
        Command::Close => Ok(Box::new(|_| {})),
    }
}

fn held<T: Send + 'static>(
    value: Result<T, StoreFault>,
    reply: Option<Reply<T>>,
) -> Result<Answer, (StoreFault, Answer)> {
    let send = |reply: Option<Reply<T>>, value| {
        if let Some(reply) = reply {
            told(reply.send(value).is_ok());
        }
    };
    match value {
        Ok(value) => Ok(Box::new(move |outcome| send(reply, outcome.map(|()| value)))),
        Err(fault) => Err((
            fault,
            Box::new(move |outcome| {
                let error = outcome.err().unwrap_or(EngineError::Closed);
                send(reply, Err(error));
            }),
        )),
    }
}

/// A caller who went away does not need the answer; the work stands.
fn told(heard: bool) {
    if !heard {
        tracing::trace!("the caller had gone before the answer");
    }
}
