//! The embedded engine: feeds in an ordered store on this machine's disk (or in memory), one writer with
//! group commit, any number of readers.
//!
//! Invariant: the store holds everything; what this process remembers can be dropped at any time. A new
//! epoch begins at every start, so that a directory restored from a backup shows what it lost as a gap.

mod apply;
mod codec;
mod directory;
mod disk;
#[cfg(test)]
mod faults;
mod job;
#[cfg(test)]
mod model_test;
mod reader;
mod store;
mod tables;
#[cfg(test)]
mod tests;
mod writer;

pub use store::StoreFault;

use crate::{
    EngineError, Feeds, Page, ReadLimit, RecipientState, Recipients, Settlements, Stored, Sync, Wake, Wakes,
};
use async_trait::async_trait;
use postrider_model::{
    Entry, EntryKind, Epoch, FeedId, FeedSpan, Forms, NotificationId, Position, Publication, Receipt,
    Settlement, Standing, Timestamp, UserId,
};
use reader::Reader;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;
use store::{Memory, Store};
use tokio::sync::oneshot;
use writer::{Command, Listener, Queue, WriterThread};

/// How to open an embedded engine.
pub struct EmbeddedOptions {
    /// Where the data is kept; `None` keeps it in memory only.
    pub data_dir: Option<PathBuf>,
    /// Tells the time.
    pub clock: Arc<dyn Fn() -> Timestamp + Send + std::marker::Sync>,
    /// Called after each commit with the number of commands it carried and how long it took.
    pub on_commit: Box<dyn Fn(usize, Duration) + Send>,
}

/// The embedded engine. Closing it, or dropping it, finishes what it has taken in.
pub struct Embedded {
    store: Arc<dyn Store>,
    queue: Queue,
    listeners: Arc<RwLock<Vec<Listener>>>,
    clock: Arc<dyn Fn() -> Timestamp + Send + std::marker::Sync>,
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
                let file = dir.join("feeds.redb");
                if claim.fresh {
                    disk::Disk::make(&file)?;
                    directory::complete(dir)?;
                }
                (Arc::new(disk::Disk::open(&file)?), Some(claim))
            }
        };
        Embedded::with_store(store, claim, options)
    }

    fn with_store(
        store: Arc<dyn Store>,
        claim: Option<directory::Claim>,
        options: EmbeddedOptions,
    ) -> Result<Embedded, StoreFault> {
        let (queue, receiver, waiting_bytes) = Queue::new();
        let listeners = Arc::<RwLock<Vec<Listener>>>::default();
        let writer = WriterThread {
            store: store.clone(),
            epoch: new_epoch()?,
            clock: options.clock.clone(),
            receiver,
            waiting_bytes,
            listeners: listeners.clone(),
            on_commit: options.on_commit,
        };
        let writer = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run())
            .map_err(|error| StoreFault::Io(error.to_string()))?;
        let writer = Mutex::new(Some(writer));
        Ok(Embedded {
            store,
            queue,
            listeners,
            clock: options.clock,
            writer,
            _claim: claim,
        })
    }

    /// Does what is due by the clock now, and returns when it is done.
    pub async fn tick(&self) -> Result<(), EngineError> {
        self.ask(Command::Tick).await
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

    async fn ask<T>(&self, command: impl FnOnce(writer::Reply<T>) -> Command) -> Result<T, EngineError> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(command(reply))?;
        answer.await.unwrap_or(Err(EngineError::Closed))
    }

    /// What the store holds now, to be read and let go.
    fn reader(&self) -> Result<Reader<'_>, StoreFault> {
        Ok(Reader {
            view: self.store.view()?,
            now: (self.clock)(),
        })
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.close();
    }
}

#[async_trait]
impl Feeds for Embedded {
    async fn publish(&self, batch: Vec<Publication>) -> Vec<Result<Receipt, EngineError>> {
        let count = batch.len();
        let (reply, answer) = oneshot::channel();
        if let Err(error) = self.queue.send(Command::Publish(batch, reply)) {
            return vec![Err(error); count];
        }
        answer
            .await
            .unwrap_or_else(|_| vec![Err(EngineError::Closed); count])
    }

    async fn read(&self, feed: &FeedId, after: u64, limit: ReadLimit) -> Result<Page, EngineError> {
        Ok(self.reader()?.read_page(feed, after, limit)?)
    }

    async fn spans(&self, feeds: &[FeedId]) -> Result<Vec<FeedSpan>, EngineError> {
        let reader = self.reader()?;
        feeds
            .iter()
            .map(|feed| Ok(tables::span(&*reader.view, feed)?))
            .collect()
    }

    async fn holds(&self, places: &[(FeedId, Position)]) -> Result<Vec<bool>, EngineError> {
        let reader = self.reader()?;
        places
            .iter()
            .map(|(feed, place)| Ok(reader.is_held(feed, *place)?))
            .collect()
    }

    async fn lookup(&self, id: &NotificationId) -> Result<Option<Stored>, EngineError> {
        let record = tables::record(&*self.reader()?.view, id)?;
        Ok(record.map(|record| Stored {
            cancelled_at: record.cancelled_at,
            recipients: record.recipients,
            notification: Arc::new(record.notification),
        }))
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
        Ok(tables::standing(&*self.reader()?.view, user, feed, from, to)?)
    }

    async fn recipients(
        &self,
        id: &NotificationId,
        which: Recipients,
    ) -> Result<Vec<RecipientState>, EngineError> {
        Ok(self.reader()?.recipient_states(id, which)?)
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
        EngineError::Store(fault.to_string())
    }
}

/// A random epoch: a store restored from a backup must not number entries in an epoch it used before.
fn new_epoch() -> Result<Epoch, StoreFault> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).map_err(|error| StoreFault::Io(error.to_string()))?;
    Ok(Epoch(u32::from_le_bytes(bytes).max(1)))
}
