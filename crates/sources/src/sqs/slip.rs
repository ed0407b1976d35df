//! What becomes of one message.

use super::aws::seconds;
use super::counted::Counted;
use super::holds::Holds;
use super::pump::Pump;
use super::settle::What;
use crate::queue::{Receipt, SourceFault};
use async_trait::async_trait;
use futures_util::future::join_all;
use postrider_model::Millis;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// SQS hides a message for at most so long.
const HIDDEN_MOST: i32 = 43_200;

/// A message that was given out.
pub(super) struct Slip {
    pub pump: Arc<Pump>,
    pub queue: Arc<str>,
    pub handle: String,
    pub holds: Holds,
    /// Its group, in a FIFO queue: what came behind it waits for it.
    pub group: Option<String>,
    pub is_settled: AtomicBool,
    /// That it is here, among its user's; until it is settled, or dropped.
    pub _counted: Option<Counted>,
}

impl Slip {
    async fn say(&self, what: What) -> Result<(), SourceFault> {
        self.pump.say(&self.queue, &self.handle, what).await
    }
}

#[async_trait]
impl Receipt for Slip {
    async fn ack(&self) -> Result<(), SourceFault> {
        let told = self.say(What::Delete).await;
        let is_first = !self.is_settled.swap(true, Ordering::Relaxed);
        if let (true, Some(group)) = (is_first, &self.group) {
            // Also where it could not be said: it is done with, and what comes again of it is known by its id.
            self.pump.let_out_next(group);
        }
        told
    }

    async fn nack(&self, after: Millis) -> Result<(), SourceFault> {
        let after = seconds(after.as_duration()).min(HIDDEN_MOST);
        self.holds.ended().await;
        let told = self.say(What::GiveBack(after)).await;
        self.is_settled.store(true, Ordering::Relaxed);
        if let Some(group) = &self.group {
            // Hidden as long as it, and not given out before it: SQS holds a group back while any of it is hidden. An emulator
            // gives out what is made visible sooner.
            let behind = self.pump.behind(group);
            self.pump.give_back(behind, after).await;
        }
        told
    }

    async fn hold(&self) -> Result<(), SourceFault> {
        let time = seconds(self.pump.visibility());
        let mut held = vec![(self.handle.clone(), self.holds.clone())];
        if let Some(group) = &self.group {
            held.extend(self.pump.keep_behind(group));
        }
        let said = held
            .iter()
            .map(|(handle, holds)| self.pump.hold(&self.queue, handle, holds, time));
        join_all(said).await.into_iter().collect()
    }
}

impl Drop for Slip {
    fn drop(&mut self) {
        // Nobody settles it: it comes again in its time, and what was behind it after it.
        if let (false, Some(group)) = (self.is_settled.load(Ordering::Relaxed), &self.group) {
            drop(self.pump.behind(group));
        }
    }
}
