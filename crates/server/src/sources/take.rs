//! From a batch of deliveries to settled ones: decode, intake, engine, acknowledge.
//!
//! Invariant: a delivery is acknowledged only after the engine's receipt, or after its dead letter was kept. One message
//! never changes what becomes of another. Whatever is waited for, what is in hand is held, and nobody else is given it.

use super::Running;
use crate::clock::fresh_number;
use crate::config::SettleOn;
use futures_util::future::join_all;
use postrider_engine::EngineError;
use postrider_model::{
    DeadBody, DeadLetter, DeadLetterId, DeadReason, Durability, Millis, NotificationId, Publication,
};
use postrider_router::{Arrival, Fault, Publisher, admit, derived_id};
use postrider_sources::queue::{Delivery, Message, Pauses, SourceFault};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Interval, MissedTickBehavior};

/// Between two tries to hand something to an engine that is busy, full or failing.
const ENGINE: Pauses = Pauses {
    first: Millis(20),
    most: Millis(2_000),
};
/// A dead letter keeps no more than this of a message.
const MOST_RAW: usize = 1 << 20;

/// What becomes of a message that no notification is made of.
struct Lost {
    delivery: Delivery,
    reason: DeadReason,
    why: String,
}

/// What of a batch is not settled yet.
struct Batch {
    /// For the engine.
    waiting: Vec<Delivery>,
    /// Given out too often.
    over: VecDeque<Delivery>,
    /// To become dead letters.
    lost: VecDeque<Lost>,
    hold: Interval,
}

impl Batch {
    fn new(hold_every: Millis) -> Batch {
        let mut hold = tokio::time::interval(hold_every.max(Millis(1)).as_duration());
        hold.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Not at once.
        hold.reset();
        Batch {
            waiting: Vec::new(),
            over: VecDeque::new(),
            lost: VecDeque::new(),
            hold,
        }
    }

    fn all(&self) -> impl Iterator<Item = &Delivery> {
        let lost = self.lost.iter().map(|lost| &lost.delivery);
        self.waiting.iter().chain(&self.over).chain(lost)
    }
}

impl Running {
    /// Takes a batch: returns when every delivery is settled, but for those that wait for their recipients, which go on
    /// with their part of the permit. What is stored is settled at once, and never waits for what cannot be.
    pub(super) async fn take(self: &Arc<Self>, deliveries: Vec<Delivery>, mut permit: OwnedSemaphorePermit) {
        let mut batch = Batch::new(self.handling.hold_every);
        for delivery in deliveries {
            let message = delivery.message();
            if message.deliveries > 1 {
                self.plant.metrics.sources().count_redelivered(self.name, 1);
            }
            let is_over = message.deliveries > self.handling.max_deliveries;
            match self.publication(message) {
                Err(fault) => batch.lost.push_back(self.undecodable(delivery, &fault)),
                Ok(_) if is_over => batch.over.push_back(delivery),
                Ok(_) => batch.waiting.push(delivery),
            }
        }
        self.publish(&mut batch, &mut permit).await;
        while let Some(delivery) = batch.over.pop_front() {
            self.try_last(delivery, &mut batch, &mut permit).await;
        }
        while let Some(one) = batch.lost.pop_front() {
            self.bury(one, &mut batch).await;
        }
    }

    /// Says to the source what is stored, or waits for its recipients first.
    async fn settle(
        self: &Arc<Self>,
        stored: Vec<(Delivery, NotificationId)>,
        permit: &mut OwnedSemaphorePermit,
    ) {
        self.plant.metrics.count_accepted(self.name, stored.len() as u64);
        if self.handling.settle_on == SettleOn::Stored {
            return self
                .ack_all(stored.into_iter().map(|(delivery, _)| delivery).collect())
                .await;
        }
        for (delivery, id) in stored {
            let own = self.clone();
            let part = permit.split(1);
            self.plant.tasks.spawn("source waits", async move {
                own.wait_for(delivery, id).await;
                drop(part);
            });
        }
    }

    /// Waits for `work`; meanwhile the batch is held, so that nobody else is given any of it.
    async fn hold_while<T>(&self, batch: &mut Batch, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                _ = batch.hold.tick() => {}
            }
            let held = join_all(batch.all().map(Delivery::hold)).await;
            self.log_all(held);
        }
    }

    /// What a message asks for. The same message always gives the same id and content.
    fn publication(&self, message: &Message) -> Result<Publication, Fault> {
        let draft = self.handling.decoding.decode(message)?;
        let publisher = Publisher {
            name: self.name,
            may_broadcast: self.handling.may_broadcast,
        };
        let now = crate::now();
        let arrival = Arrival {
            now,
            fresh: uuid::Uuid::from_u64_pair(fresh_number(), fresh_number()),
            derived: message.name.as_deref().map(|name| derived_id(self.name, name, 0)),
            request: None,
        };
        admit(draft, &publisher, &self.plant.limits, arrival)
    }

    fn undecodable(&self, delivery: Delivery, fault: &Fault) -> Lost {
        self.plant.metrics.count_rejected(fault.code.as_str());
        self.plant.metrics.sources().count_undecodable(self.name);
        Lost {
            delivery,
            reason: DeadReason::Undecodable,
            why: fault.to_string(),
        }
    }

    /// A message that was given out too often. Where its notification is stored, nothing is lost with it. Else it is tried
    /// once more, alone: an engine that was long away, or another message that ended whoever took it, makes it no bad one.
    async fn try_last(
        self: &Arc<Self>,
        delivery: Delivery,
        batch: &mut Batch,
        permit: &mut OwnedSemaphorePermit,
    ) {
        let id = match self.publication(delivery.message()) {
            Ok(publication) => publication.notification.id.clone(),
            Err(fault) => return batch.lost.push_back(self.undecodable(delivery, &fault)),
        };
        batch.waiting.push(delivery);
        let Some(is_stored) = self.is_stored(&id, batch).await else {
            return;
        };
        let Some(delivery) = batch.waiting.pop() else {
            return;
        };
        if is_stored {
            return self.ack_all(vec![delivery]).await;
        }
        let before = delivery.message().deliveries - 1;
        if before == self.handling.max_deliveries {
            batch.waiting.push(delivery);
            return self.publish(batch, permit).await;
        }
        batch.lost.push_back(Lost {
            delivery,
            reason: DeadReason::MaxAttempts,
            why: format!("it was given out {before} times and never settled"),
        });
    }

    /// Whether the engine knows this notification. `None` where the node drains before it says so, and what waits was
    /// given back.
    async fn is_stored(&self, id: &NotificationId, batch: &mut Batch) -> Option<bool> {
        let mut tries = 0;
        loop {
            match self.hold_while(batch, self.plant.engine.lookup(id)).await {
                Ok(found) => return Some(found.is_some()),
                Err(error) if !error.is_transient() => return Some(false),
                Err(_) => {}
            }
            if !self.may_try_again(batch, &mut tries).await {
                return None;
            }
        }
    }

    /// Hands to the engine what waits until it has taken or refused each, and settles what it took; in a drain what it has
    /// not is given back.
    async fn publish(self: &Arc<Self>, batch: &mut Batch, permit: &mut OwnedSemaphorePermit) {
        let mut tries = 0;
        while !batch.waiting.is_empty() {
            let (mut stored, mut publications) = (Vec::new(), Vec::new());
            for delivery in std::mem::take(&mut batch.waiting) {
                match self.publication(delivery.message()) {
                    Err(fault) => batch.lost.push_back(self.undecodable(delivery, &fault)),
                    Ok(publication) if publication.notification.durability == Durability::Transient => {
                        stored.push((delivery, publication.notification.id.clone()));
                        self.plant.engine.transmit(publication);
                    }
                    Ok(publication) => {
                        publications.push(publication);
                        batch.waiting.push(delivery);
                    }
                }
            }
            let receipts = match publications.is_empty() {
                true => Vec::new(),
                false => {
                    self.hold_while(batch, self.plant.engine.publish(publications))
                        .await
                }
            };
            // Of what the engine says nothing, nothing is promised.
            let receipts = receipts
                .into_iter()
                .chain(std::iter::repeat(Err(EngineError::Closed)));
            for (delivery, receipt) in std::mem::take(&mut batch.waiting).into_iter().zip(receipts) {
                match receipt {
                    Ok(receipt) => stored.push((delivery, receipt.id)),
                    Err(error) if error.is_transient() => batch.waiting.push(delivery),
                    Err(error) => batch.lost.push_back(self.refused(delivery, &error)),
                }
            }
            self.settle(stored, permit).await;
            if !self.may_try_again(batch, &mut tries).await {
                return;
            }
        }
    }

    fn refused(&self, delivery: Delivery, error: &EngineError) -> Lost {
        self.plant.metrics.count_rejected("id_conflict");
        Lost {
            delivery,
            reason: DeadReason::Undecodable,
            why: error.to_string(),
        }
    }

    /// Waits before the engine is asked again. In a drain what waits is given back instead.
    async fn may_try_again(&self, batch: &mut Batch, tries: &mut u32) -> bool {
        if batch.waiting.is_empty() {
            return true;
        }
        if self.plant.drain.has_begun() {
            let waiting = batch.waiting.drain(..);
            join_all(waiting.map(|delivery| self.give_back(delivery, Millis(0)))).await;
            return false;
        }
        if *tries == 0 {
            tracing::warn!(
                source = self.name,
                count = batch.waiting.len(),
                "the engine does not take what came; it is asked again"
            );
        }
        let pause = self.pause(ENGINE.nth(*tries, fresh_number()).as_duration());
        self.hold_while(batch, pause).await;
        *tries = tries.saturating_add(1);
        true
    }

    /// Keeps a message as a dead letter, and only then acknowledges it.
    async fn bury(&self, lost: Lost, batch: &mut Batch) {
        let mut raw = lost.delivery.message().raw();
        raw.truncate(MOST_RAW);
        let letter = DeadLetter {
            id: DeadLetterId::START,
            notification: None,
            user: None,
            reason: lost.reason,
            source: self.name.to_owned(),
            attempts: lost.delivery.message().deliveries,
            time: crate::now(),
            subject: None,
            body: DeadBody::Raw(raw),
        };
        let why = lost.why.clone();
        // In its place, so that it is held with the others.
        batch.lost.push_front(lost);
        let mut tries = 0;
        let kept = loop {
            let error = match self
                .hold_while(batch, self.plant.engine.bury(letter.clone()))
                .await
            {
                Ok(kept) => break kept,
                Err(error) => error,
            };
            if self.plant.drain.has_begun() {
                if let Some(lost) = batch.lost.pop_front() {
                    self.give_back(lost.delivery, Millis(0)).await;
                }
                return;
            }
            if tries == 0 {
                tracing::warn!(source = self.name, %error, "a dead letter cannot be kept; it is tried again");
            }
            let pause = self.pause(ENGINE.nth(tries, fresh_number()).as_duration());
            self.hold_while(batch, pause).await;
            tries = tries.saturating_add(1);
        };
        // A dead letter has no place for it.
        tracing::warn!(source = self.name, dead_letter = %kept, why, "a message was kept as a dead letter");
        if let Some(lost) = batch.lost.pop_front() {
            self.ack_all(vec![lost.delivery]).await;
        }
    }

    pub(super) async fn ack_all(&self, deliveries: Vec<Delivery>) {
        let acked = join_all(deliveries.into_iter().map(Delivery::ack)).await;
        self.log_all(acked);
    }

    pub(super) async fn give_back(&self, delivery: Delivery, after: Millis) {
        self.plant.metrics.sources().count_given_back(self.name);
        let told = delivery.nack(after).await;
        self.log_all(vec![told]);
    }

    /// What could not be said to the source: the message comes again, under the same id.
    pub(super) fn log_all(&self, told: Vec<Result<(), SourceFault>>) {
        let failed = told.into_iter().filter_map(Result::err).collect::<Vec<_>>();
        if let Some(fault) = failed.first() {
            tracing::warn!(source = self.name, count = failed.len(), %fault, "messages could not be settled; they come again");
        }
    }

    /// The pause before a message that was given out so often comes again.
    pub(super) fn pause_after(&self, deliveries: u32) -> Millis {
        self.handling
            .retry
            .nth(deliveries.saturating_sub(1), fresh_number())
    }
}

/// How often a delivery that is worked on is held.
pub(super) fn is_hold_due(since: &mut Duration, passed: Duration, every: Millis) -> bool {
    *since += passed;
    let is_due = *since >= every.as_duration();
    if is_due {
        *since = Duration::ZERO;
    }
    is_due
}
