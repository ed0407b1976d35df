//! The embedded engine: feeds in an ordered store on this machine's disk (or in memory), one writer with
//! group commit, any number of readers.
//!
//! Invariant: the store holds everything; what this process remembers can be dropped at any time. A new
//! epoch begins at every start, so that a directory restored from a backup shows what it lost as a gap.

mod apply;
mod base;
pub(crate) mod codec;
mod directory;
#[cfg(feature = "stores")]
mod disk;
#[cfg(test)]
mod faults;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod hot;
mod inboxes;
mod job;
mod journal;
pub(crate) mod lanes;
mod looks;
#[cfg(test)]
pub(crate) mod model_test;
pub(crate) mod news;
mod people;
#[cfg(test)]
mod people_tests;
mod reader;
mod row_key;
mod rules;
mod shared;
mod starts;
pub(crate) mod store;
mod tables;
#[cfg(test)]
mod tests;
mod upgrade;
mod users;
mod wants;
mod writer;

pub use rules::{Broadcasts, Rules};
pub use store::StoreFault;

/// The stores by themselves, for those who measure them against others.
#[cfg(feature = "stores")]
pub mod stores {
    pub use super::disk::Disk;
    pub use super::journal::Journaled;
    pub use super::store::{Batch, Memory, Row, Store, StoreFault, Table, View};
}

use crate::{
    Answered, DeadLetters, EngineError, Feeds, Page, ReadLimit, RecipientState, Recipients, Redriven,
    Settlements, Stored, Sync, Users, Wake, Wakes,
};
use async_trait::async_trait;
use hot::{Hot, Watched};
use journal::Journaled;
use looks::Looks;
use postrider_model::{
    Attempt, DeadLetter, DeadLetterFilter, DeadLetterId, DeadLetterPage, Entry, EntryKind, Epoch, FeedId,
    FeedSpan, Forms, NotificationId, Position, Publication, Settlement, Standing, Timestamp, UserId,
};
use reader::{Reader, Unreadable};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;
use store::{Memory, Store};
use tokio::sync::oneshot;
use writer::{Command, Health, Listener, Queue, Receipts, WriterThread};

/// Damaged entries that one read gives up before it does so itself.
const MAX_REPAIRS: usize = 256;

/// How to open an embedded engine.
pub struct EmbeddedOptions {
    /// Where the data is kept; `None` keeps it in memory only.
    pub data_dir: Option<PathBuf>,
    /// What is kept, how long, and when to give up.
    pub rules: Rules,
    /// Tells the time.
    pub clock: Arc<dyn Fn() -> Timestamp + Send + std::marker::Sync>,
    /// Called after each commit with the number of commands it carried and how long it took.
    pub on_commit: Box<dyn Fn(usize, Duration) + Send>,
}

/// The embedded engine. Closing it, or dropping it, finishes what it has taken in.
pub struct Embedded {
    store: Arc<dyn Store>,
    hot: Arc<Hot>,
    shared: shared::Shared,
    queue: Queue,
    listeners: Arc<RwLock<Vec<Listener>>>,
    clock: Arc<dyn Fn() -> Timestamp + Send + std::marker::Sync>,
    health: Arc<Health>,
    broadcasts: Broadcasts,
    /// How long a read is done again that others' writes tear.
    patience: Duration,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Held for as long as the engine lives, so that no second process opens the directory.
    _claim: Option<directory::Claim>,
}

impl Embedded {
    /// Opens the directory, or makes it. Refuses one that is in use, or was written by a newer version.
    pub fn open(options: EmbeddedOptions) -> Result<Embedded, StoreFault> {
        let (store, claim): (Arc<dyn Store>, _) = match &options.data_dir {
            None => (Arc::new(Memory::default()), None),
            Some(dir) => {
                let claim = directory::claim(dir)?;
                let store = Journaled::open(dir, claim.found.is_none())?;
                if claim.found == Some(1) {
                    upgrade::from_first(&store)?;
                }
                if claim.found != Some(directory::FORMAT) {
                    directory::complete(dir)?;
                }
                (Arc::new(store), Some(claim))
            }
        };
        Embedded::with_store(store, claim, options)
    }

    /// The engine over a store of the caller's; `data_dir` is not looked at.
    #[cfg(feature = "stores")]
    pub fn over(store: Arc<dyn Store>, options: EmbeddedOptions) -> Result<Embedded, StoreFault> {
        Embedded::with_store(store, None, options)
    }

    /// The engine of one node over a store that others write too, and that tells the nodes what was appended. What
    /// waits for a store that is away is refused after `patience`.
    pub(crate) fn over_shared(
        store: Arc<dyn Store>,
        options: EmbeddedOptions,
        patience: Duration,
    ) -> Result<Embedded, StoreFault> {
        Embedded::run(store, Arc::new(Hot::off()), None, options, patience)
    }

    fn with_store(
        store: Arc<dyn Store>,
        claim: Option<directory::Claim>,
        options: EmbeddedOptions,
    ) -> Result<Embedded, StoreFault> {
        let hot = Arc::new(Hot::new());
        let store: Arc<dyn Store> = Arc::new(Watched::new(store, hot.clone()));
        Embedded::run(store, hot, claim, options, Duration::ZERO)
    }

    fn run(
        store: Arc<dyn Store>,
        hot: Arc<Hot>,
        claim: Option<directory::Claim>,
        options: EmbeddedOptions,
        patience: Duration,
    ) -> Result<Embedded, StoreFault> {
        let (queue, receiver, waiting_bytes) = Queue::new();
        let listeners = Arc::<RwLock<Vec<Listener>>>::default();
        let health = Arc::<Health>::default();
        let broadcasts = options.rules.broadcasts;
        let writer = WriterThread {
            store: store.clone(),
            hot: hot.clone(),
            rules: options.rules,
            health: health.clone(),
            epoch: new_epoch()?,
            clock: options.clock.clone(),
            receiver,
            waiting_bytes,
            listeners: listeners.clone(),
            on_commit: options.on_commit,
            on_durable: {
                let hot = hot.clone();
                Box::new(move |appended| hot.appended(appended))
            },
            patience,
        };
        let writer = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run())
            .map_err(|error| StoreFault::Io(error.to_string()))?;
        let writer = Mutex::new(Some(writer));
        Ok(Embedded {
            store,
            hot,
            shared: shared::Shared::default(),
            queue,
            listeners,
            clock: options.clock,
            health,
            broadcasts,
            patience,
            writer,
            _claim: claim,
        })
    }

    /// Does what is due by the clock now, and returns when it is done.
    pub async fn tick(&self) -> Result<(), EngineError> {
        self.ask(Command::Tick).await
    }

    /// Whether the last thing that was to be stored could not be.
    pub fn is_failing(&self) -> bool {
        self.health.failing.load(Ordering::Relaxed)
    }

    /// Dead letters there are, as of the last transaction.
    pub fn dead_letter_count(&self) -> u64 {
        self.health.letters.load(Ordering::Relaxed)
    }

    /// Bytes that the store takes on the disk.
    pub fn file_bytes(&self) -> u64 {
        self.store.file_bytes()
    }

    /// Bytes of the rows in the store.
    pub fn live_bytes(&self) -> u64 {
        self.store.live_bytes()
    }

    /// Bytes that notifications hold, as `retention.total_bytes` counts them.
    pub fn held_bytes(&self) -> u64 {
        self.health.held.load(Ordering::Relaxed)
    }

    /// Finishes what was taken in and ends the writer. What comes later is refused as closed.
    pub fn close(&self) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            self.queue.close();
            if writer.join().is_err() {
                tracing::error!("the writer panicked");
            }
        }
    }

    /// What the store does not take now is refused from now on: nobody waits for it to come back.
    pub(crate) fn give_up(&self) {
        self.health.leaving.store(true, Ordering::Relaxed);
    }

    /// Tells the writer to finish and end, without waiting for it.
    pub(crate) fn leave(&self) {
        self.give_up();
        if self
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
            .is_some()
        {
            self.queue.leave();
        }
    }

    async fn ask<T>(&self, command: impl FnOnce(writer::Reply<T>) -> Command) -> Result<T, EngineError> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(command(reply))?;
        answer.await.unwrap_or(Err(EngineError::Closed))
    }

    /// What of that which nobody asks for falls to this node.
    #[cfg(test)]
    pub(crate) fn share(&self) -> lanes::Share {
        self.store.share()
    }

    /// Transactions that were done again because of another node's.
    pub(crate) fn clashes(&self) -> u64 {
        self.health.clashes.load(Ordering::Relaxed)
    }

    /// How often the writer came to what nobody asked for: some times in a second, where nothing holds it up.
    pub(crate) fn chores(&self) -> u64 {
        self.health.chores.load(Ordering::Relaxed)
    }

    /// Tells the listeners what was heard.
    pub(crate) fn tell(&self, wake: &Wake) {
        let listeners = self.listeners.read().unwrap_or_else(PoisonError::into_inner);
        listeners.iter().for_each(|listener| listener(wake.clone()));
    }

    /// What the store holds now, to be read and let go.
    fn reader(&self) -> Result<Reader<'_>, StoreFault> {
        Ok(Reader {
            view: self.store.view()?,
            now: (self.clock)(),
        })
    }

    /// Reads what the store holds at one moment. Where others change it meanwhile that takes several looks; what is
    /// asked for again and again at the busiest of places is at last answered by rows that were each there.
    fn look<T>(&self, read: impl Fn(&Reader<'_>) -> Result<T, StoreFault>) -> Result<T, StoreFault> {
        self.look_for(read, |_| true)
    }

    /// The same, where what is found says itself of some of it that it cannot be read: that is believed only where
    /// one moment left it so.
    fn look_for<T>(
        &self,
        read: impl Fn(&Reader<'_>) -> Result<T, StoreFault>,
        is_sound: impl Fn(&T) -> bool,
    ) -> Result<T, StoreFault> {
        let mut looks = Looks::new(self.patience);
        loop {
            let reader = self.reader()?;
            let found = match read(&reader) {
                // It found out by itself.
                Err(StoreFault::Conflict) => None,
                found => match reader.view.is_whole() {
                    Ok(()) => return found,
                    Err(StoreFault::Conflict) => found.ok(),
                    Err(fault) => return Err(fault),
                },
            };
            drop(reader);
            let is_sound = found.as_ref().is_some_and(&is_sound);
            if let Some(answer) = looks.torn(found, is_sound) {
                return answer;
            }
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.close();
    }
}

#[async_trait]
impl Feeds for Embedded {
    fn submit(&self, batch: Vec<Publication>, answered: Answered) {
        let count = batch.len();
        let receipts = Receipts::new(count, answered);
        if let Err((error, Command::Publish(_, receipts))) =
            self.queue.offer(Command::Publish(batch, receipts))
        {
            receipts.answer(vec![Err(error); count]);
        }
    }

    async fn read(&self, feed: &FeedId, after: u64, limit: ReadLimit) -> Result<Page, EngineError> {
        for _ in 0..MAX_REPAIRS {
            let read = |reader: &Reader<'_>| match reader.read_page(feed, after, limit) {
                Err(Unreadable { fault, .. }) if !fault.is_of_a_row() => Err(fault),
                page => Ok(page),
            };
            let place = match self.look_for(read, Result::is_ok)? {
                Ok(page) => return Ok(page),
                Err(Unreadable { offset, fault }) => offset.ok_or(fault)?,
            };
            self.ask(|reply| Command::Repair(feed.clone(), place, reply))
                .await?;
        }
        Err(EngineError::Store(format!("too much of {feed} is damaged")))
    }

    async fn spans(&self, feeds: &[FeedId]) -> Result<Vec<FeedSpan>, EngineError> {
        Ok(self.look(|reader| {
            let mut wanted = Vec::new();
            feeds.iter().for_each(|feed| wants::of_span(feed, &mut wanted));
            reader.view.prefetch(&wanted)?;
            let spans = feeds.iter().map(|feed| tables::span(&*reader.view, feed));
            spans.collect()
        })?)
    }

    async fn holds(&self, places: &[(FeedId, Position)]) -> Result<Vec<bool>, EngineError> {
        Ok(self.look(|reader| {
            let held = places.iter().map(|(feed, place)| reader.is_held(feed, *place));
            held.collect()
        })?)
    }

    async fn cancel(&self, id: &NotificationId) -> Result<Option<Option<u64>>, EngineError> {
        self.ask(|reply| Command::Cancel(id.clone(), reply)).await
    }

    async fn trim(&self, feed: &FeedId, before: u64) -> Result<(), EngineError> {
        self.ask(|reply| Command::Trim(feed.clone(), before, reply)).await
    }
}

#[async_trait]
impl Settlements for Embedded {
    async fn settle(&self, batch: Vec<Settlement>, sync: Sync) -> Result<Vec<u64>, EngineError> {
        match sync {
            Sync::Durable => self.ask(|reply| Command::Settle(batch, sync, Some(reply))).await,
            Sync::Lazy => {
                let count = batch.len();
                self.queue.send(Command::Settle(batch, sync, None))?;
                Ok(vec![0; count])
            }
        }
    }

    async fn standing(
        &self,
        user: &UserId,
        feed: &FeedId,
        from: u64,
        to: u64,
    ) -> Result<Standing, EngineError> {
        Ok(self.look(|reader| tables::standing_for_session(&*reader.view, user, feed, from, to))?)
    }

    async fn attempt(&self, batch: Vec<Attempt>) -> Result<(), EngineError> {
        self.queue.send(Command::Attempt(batch))
    }

    async fn lookup(&self, id: &NotificationId) -> Result<Option<Stored>, EngineError> {
        let record = self.look(|reader| {
            let record = tables::record(&*reader.view, id)?;
            if record.is_none() {
                tables::vouch_unknown(&*reader.view, id)?;
            }
            Ok(record)
        })?;
        Ok(record.map(|record| Stored {
            cancelled_at: record.cancelled_at,
            recipients: record.recipients,
            notification: record.notification,
        }))
    }

    async fn recipients(
        &self,
        id: &NotificationId,
        which: Recipients,
    ) -> Result<Vec<RecipientState>, EngineError> {
        Ok(self.look(|reader| reader.recipient_states(id, which.clone()))?)
    }
}

#[async_trait]
impl DeadLetters for Embedded {
    async fn dead_letters(
        &self,
        filter: &DeadLetterFilter,
        after: Option<DeadLetterId>,
        limit: usize,
    ) -> Result<DeadLetterPage, EngineError> {
        let after = after.unwrap_or(DeadLetterId::START);
        Ok(self.look(|reader| reader.letters(filter, after, limit.max(1)))?)
    }

    async fn dead_letter(&self, id: DeadLetterId) -> Result<Option<DeadLetter>, EngineError> {
        Ok(self.look(|reader| reader.letter(id))?)
    }

    async fn redrive(&self, ids: Vec<DeadLetterId>) -> Result<Vec<Redriven>, EngineError> {
        self.ask(|reply| Command::Redrive(ids, reply)).await
    }

    async fn discard(&self, id: DeadLetterId) -> Result<bool, EngineError> {
        self.ask(|reply| Command::Discard(id, reply)).await
    }

    async fn bury(&self, letter: DeadLetter) -> Result<DeadLetterId, EngineError> {
        self.ask(|reply| Command::Bury(Box::new(letter), reply)).await
    }

    async fn count_dead_letters(&self) -> Result<u64, EngineError> {
        Ok(self.look(|reader| Ok(apply::Counts::read(&*reader.view)?.letters))?)
    }
}

#[async_trait]
impl Users for Embedded {
    async fn erase(&self, user: &UserId) -> Result<bool, EngineError> {
        self.ask(|reply| Command::Erase(user.clone(), reply)).await
    }

    async fn arrive(&self, user: &UserId) -> Result<(), EngineError> {
        if self.broadcasts == Broadcasts::Retained {
            return Ok(());
        }
        let all = FeedId::All;
        let joined = self.look(|reader| tables::floor(&*reader.view, user, &all, tables::FLOOR_JOINED))?;
        if joined > 0 {
            return Ok(());
        }
        self.ask(|reply| Command::Arrive(user.clone(), reply)).await
    }
}

impl Wakes for Embedded {
    fn listen(&self, listener: Box<dyn Fn(Wake) + Send + std::marker::Sync>) {
        self.listeners
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .push(listener);
    }

    fn transmit(&self, publication: Publication) {
        let forms: Arc<Forms> = Arc::default();
        let entries: Arc<[Arc<Entry>]> = publication
            .feeds
            .iter()
            .map(|feed| {
                let kind = EntryKind::Notification(publication.notification.clone(), None);
                let forms = if feed.is_wide() {
                    Arc::default()
                } else {
                    forms.clone()
                };
                Arc::new(Entry {
                    feed: feed.clone(),
                    position: Position::START,
                    kind,
                    forms,
                })
            })
            .collect();
        for listener in self
            .listeners
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            listener(Wake::Transient(entries.clone()));
        }
    }
}

impl From<StoreFault> for EngineError {
    fn from(fault: StoreFault) -> Self {
        match fault {
            StoreFault::Unready(why) => EngineError::Unready(why),
            fault => EngineError::Store(fault.to_string()),
        }
    }
}

/// A random epoch: a store restored from a backup must not number entries in an epoch it used before.
fn new_epoch() -> Result<Epoch, StoreFault> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).map_err(|error| StoreFault::Io(error.to_string()))?;
    Ok(Epoch(u32::from_le_bytes(bytes).max(1)))
}
