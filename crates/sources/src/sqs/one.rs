//! The source `sqs`: one queue.
//!
//! Invariant: a queue is taken away only if this source made it, and only where nothing says that a message may be in it.
//! SQS counts late and approximately, so that its counts alone are not believed.

use super::aws::{fault, is_no_queue};
use super::plan::Plan;
use super::pump::{Pump, Tasks};
use super::{QueueName, SqsOptions};
use crate::queue::{Delivery, Lag, Promise, Source, SourceFault};
use async_trait::async_trait;
use postrider_aws::Trouble;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;

/// SQS counts a message that was given back after a minute at the latest; and a drain takes some time.
const COUNTED_AFTER: Duration = Duration::from_secs(120);
/// How long it is waited for a last message before a queue is taken away. Such a poll asks all of SQS' servers.
const LAST_LOOK: Duration = Duration::from_secs(2);

/// See the module above.
pub struct Sqs {
    name: QueueName,
    create: bool,
    remove: bool,
    pump: Arc<Pump>,
    tasks: Mutex<Tasks>,
    /// Its address, once it is found.
    url: Mutex<Option<Arc<str>>>,
    is_open: AtomicBool,
    /// This source made the queue.
    was_made: AtomicBool,
    /// Somebody may still send to it.
    is_kept: AtomicBool,
}

impl Sqs {
    /// Reads as these options say; asks nothing before it is opened.
    pub fn new(options: SqsOptions) -> Sqs {
        let plan = Plan::one(options.access.wait, options.workers);
        let (pump, tasks) = Pump::new(options.access, plan, options.steady, options.random);
        Sqs {
            name: options.queue,
            create: options.create,
            remove: options.remove,
            pump,
            tasks: Mutex::new(tasks),
            url: Mutex::new(None),
            is_open: AtomicBool::new(false),
            was_made: AtomicBool::new(false),
            is_kept: AtomicBool::new(false),
        }
    }

    /// The address of the queue; found, or made where that is wanted.
    async fn found(&self) -> Result<String, SourceFault> {
        let service = &self.pump.service;
        let (name, found) = match &self.name {
            QueueName::Url(url) => {
                let there = match service.counts(url).await {
                    Ok(_) => Some(url.clone()),
                    Err(trouble) if is_no_queue(&trouble) => None,
                    Err(trouble) => return Err(fault(&trouble)),
                };
                (url.rsplit('/').next().unwrap_or_default(), there)
            }
            QueueName::Name(name) => (
                name.as_str(),
                service.find(name).await.map_err(|trouble| fault(&trouble))?,
            ),
        };
        if let Some(url) = found {
            return Ok(url);
        }
        if !self.create {
            return Err(SourceFault::Refused(format!("there is no queue {name}")));
        }
        let made = service.create(name).await.map_err(|trouble| fault(&trouble))?;
        let made =
            made.ok_or_else(|| SourceFault::Refused(format!("no address came for the new queue {name}")))?;
        self.was_made.store(true, Ordering::Release);
        tracing::info!(queue = made, "the queue was made");
        Ok(made)
    }

    /// Takes the queue away that was made for this node, if nothing can be in it.
    async fn remove(&self, url: &str) {
        let removed = match self.why_left(url).await {
            Ok(None) => self.pump.service.remove(url).await,
            Ok(Some(why)) => {
                tracing::warn!(queue = url, why, "the queue that was made is left");
                return;
            }
            Err(trouble) => Err(trouble),
        };
        match removed {
            Ok(()) => tracing::info!(queue = url, "the queue that was made was taken away"),
            Err(trouble) => tracing::warn!(queue = url, %trouble, "the queue that was made is left"),
        }
    }

    /// Why the queue is not to be taken away, if there is a reason.
    async fn why_left(&self, url: &str) -> Result<Option<&'static str>, Trouble> {
        if self.is_kept.load(Ordering::Acquire) {
            return Ok(Some("somebody may still send to it"));
        }
        let service = &self.pump.service;
        match service.counts(url).await? {
            None => return Ok(Some("SQS does not say what is in it")),
            Some(counts) if counts.visible + counts.in_flight + counts.delayed > 0 => {
                return Ok(Some("something is in it"));
            }
            Some(_) => {}
        }
        if service.has_any(url, LAST_LOOK).await? {
            return Ok(Some("something has come to it"));
        }
        // Only now: a poll that is still under way gives back what it brings.
        let gave_back = service.gave_back_within(COUNTED_AFTER);
        Ok(gave_back.then_some("a message was given back, which SQS may not count yet"))
    }
}

#[async_trait]
impl Source for Sqs {
    fn promise(&self) -> Promise {
        Promise::AtLeastOnce
    }

    async fn open(&self) -> Result<(), SourceFault> {
        if self.is_open.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut url = self.url.lock().await;
        // Another worker may have opened it meanwhile.
        if self.is_open.load(Ordering::Acquire) {
            return Ok(());
        }
        self.pump.start(&mut *self.tasks.lock().await);
        let found: Arc<str> = self.found().await?.into();
        *url = Some(found.clone());
        self.pump.forget_fault();
        self.pump.plan(|plan| {
            if let Plan::One { queue, .. } = plan {
                *queue = Some(found);
            }
        });
        self.is_open.store(true, Ordering::Release);
        Ok(())
    }

    async fn receive(&self, _worker: usize, most: usize) -> Result<Vec<Delivery>, SourceFault> {
        let received = self.pump.receive(most).await;
        if received.is_err() {
            self.is_open.store(false, Ordering::Release);
        }
        received
    }

    async fn lag(&self) -> Result<Option<Lag>, SourceFault> {
        let Some(url) = self.url.lock().await.clone() else {
            return Ok(None);
        };
        let counts = self
            .pump
            .service
            .counts(&url)
            .await
            .map_err(|trouble| fault(&trouble))?;
        Ok(counts.map(|counts| Lag {
            waiting: Some(counts.visible + counts.delayed),
            unsettled: counts.in_flight,
            ..Lag::default()
        }))
    }

    fn keep(&self) {
        self.is_kept.store(true, Ordering::Release);
    }

    async fn close(&self) {
        self.pump.close().await;
        let url = self.url.lock().await.clone();
        if let Some(url) = url.filter(|_| self.remove && self.was_made.load(Ordering::Acquire)) {
            self.remove(&url).await;
        }
    }
}
