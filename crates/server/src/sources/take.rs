//! From a batch of deliveries to settled ones: decode, intake, engine, acknowledge.
//!
//! Invariant: a delivery is acknowledged only after the engine's receipt, or after its dead letter was kept. One message
//! never changes what becomes of another. Whatever is waited for, what is in hand is held, and nobody else is given it.

use super::Running;
use super::wait::{Fate, hold_every};
use crate::clock::fresh_number;
use crate::config::{Offline, SettleOn};
use futures_util::future::join_all;
use postrider_engine::EngineError;
use postrider_model::{
    DeadBody, DeadLetter, DeadLetterId, DeadReason, Durability, Millis, NotificationId, Publication,
};
use postrider_router::{Arrival, Fault, FaultCode, Publisher, admit, derived_id};
use postrider_sources::queue::{Delivery, Message, Pauses, SourceFault};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Interval;

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
    fn new(hold: Interval) -> Batch {
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
        let mut batch = Batch::new(hold_every(self.handling.hold_every));
        let mut bound = Vec::new();
        for delivery in deliveries {
            let message = delivery.message();
            if message.deliveries > 1 {
                self.plant.metrics.sources().count_redelivered(self.name, 1);
            }
            let is_over = message.deliveries > self.handling.max_deliveries;
            match self.publication(message) {
                Err(fault) => batch.lost.push_back(self.undecodable(delivery, &fault)),
                Ok(_) if !self.ways.inbox => match self.too_often(&delivery) {
                    None => bound.push(delivery),
                    Some((reason, why)) => batch.lost.push_back(Lost {
                        delivery,
                        reason,
                        why,
                    }),
                },
                Ok(_) if is_over => batch.over.push_back(delivery),
                Ok(_) => batch.waiting.push(delivery),
            }
        }
        self.push_out(bound, &mut permit);
        self.publish(&mut batch, &mut permit).await;
        while let Some(delivery) = batch.over.pop_front() {
            self.try_last(delivery, &mut batch, &mut permit).await;
        }
        while let Some(one) = batch.lost.pop_front() {
            self.bury(one, &mut batch).await;
        }
    }

    /// Why a message that goes to channels alone is not pushed once more, where it was given out too often. One more
    /// time than is allowed is: whoever had it before may have been ended by another.
    fn too_often(&self, delivery: &Delivery) -> Option<(DeadReason, String)> {
        if self.done.holds(delivery.message().name.as_deref()) {
            return None;
        }
        let before = delivery.message().deliveries.saturating_sub(1);
        let why = || format!("it was given out {before} times and never settled");
        let is_tried = !is_untried(delivery.message(), self.handling.max_deliveries);
        is_tried.then(|| (DeadReason::MaxAttempts, why()))
    }

    /// Says to the source what is stored, or waits for its recipients first.
    async fn settle(
        self: &Arc<Self>,
        stored: Vec<(Delivery, NotificationId)>,
        permit: &mut OwnedSemaphorePermit,
    ) {
        self.plant.metrics.count_accepted(self.name, stored.len() as u64);
        if !self.ways.channels.is_empty() {
            return self.push_out(stored.into_iter().map(|(delivery, _)| delivery).collect(), permit);
        }
        if self.handling.settle_on == SettleOn::Stored {
            return self.ack_beside(stored.into_iter().map(|(delivery, _)| delivery).collect(), permit);
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
            let held = join_all(batch.all().map(Delivery::hold));
            tokio::select! {
                biased;
                done = &mut work => return done,
                held = held => self.log_all(held),
            }
        }
    }

    /// What a message asks for. The same message always gives the same id and content.
    pub(super) fn publication(&self, message: &Message) -> Result<Publication, Fault> {
        let mut draft = self.handling.decoding.decode(message)?;
        let key = self.handling.decoding.key(message, &mut draft);
        draft.ttl = draft.ttl.or(self.handling.ttl);
        let publisher = Publisher {
            name: self.name,
            may_broadcast: self.handling.may_broadcast,
        };
        let now = crate::now();
        let arrival = Arrival {
            now,
            fresh: uuid::Uuid::from_u64_pair(fresh_number(), fresh_number()),
            derived: key.map(|key| derived_id(self.name, &key, 0)),
            request: None,
        };
        let publication = admit(draft, &publisher, &self.plant.limits, arrival).map_err(of_source)?;
        self.check_ways(&publication)?;
        Ok(publication)
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
        let Some(is_safe) = self.is_safe(&id, batch).await else {
            return;
        };
        let Some(delivery) = batch.waiting.pop() else {
            return;
        };
        if is_safe {
            return self.ack_all(vec![delivery]).await;
        }
        let before = delivery.message().deliveries.saturating_sub(1);
        if is_untried(delivery.message(), self.handling.max_deliveries) {
            batch.waiting.push(delivery);
            return self.publish(batch, permit).await;
        }
        batch.lost.push_back(Lost {
            delivery,
            reason: DeadReason::MaxAttempts,
            why: format!("it was given out {before} times and never settled"),
        });
    }

    /// Whether nothing is lost where this message goes: the engine knows its notification; or, where the queue is the
    /// store, its recipients have it. `None` where the node drains before that can be told, and what waits was given
    /// back.
    async fn is_safe(&self, id: &NotificationId, batch: &mut Batch) -> Option<bool> {
        let mut tries = 0;
        loop {
            if self.handling.offline == Offline::Leave {
                if let Some(is_had) = self.hold_while(batch, self.is_had(id)).await {
                    return Some(is_had);
                }
            } else {
                match self.hold_while(batch, self.plant.engine.lookup(id)).await {
                    Ok(found) => return Some(found.is_some()),
                    Err(error) if !error.is_transient() => return Some(false),
                    Err(_) => {}
                }
            }
            if !self.may_try_again(batch, &mut tries).await {
                return None;
            }
        }
    }

    /// Hands to the engine what waits until it has taken or refused each, and settles what it took; in a drain what it has
    /// not is given back.
    async fn publish(self: &Arc<Self>, batch: &mut Batch, permit: &mut OwnedSemaphorePermit) {
        self.leave_absent(batch, permit).await;
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

    /// With `offline: leave`, gives back what is for nobody who is there, and acknowledges what was had meanwhile.
    async fn leave_absent(self: &Arc<Self>, batch: &mut Batch, permit: &mut OwnedSemaphorePermit) {
        if self.handling.offline == Offline::Store {
            return;
        }
        let asked = batch.waiting.iter().map(|one| self.asked(one.message()));
        let asked: Vec<_> = asked.collect();
        let fates = self.hold_while(batch, self.fates(asked)).await;
        let (mut had, mut absent) = (Vec::new(), Vec::new());
        for (delivery, fate) in std::mem::take(&mut batch.waiting).into_iter().zip(fates) {
            match fate {
                Fate::Publish => batch.waiting.push(delivery),
                Fate::Had => had.push(delivery),
                Fate::Absent => absent.push(delivery),
            }
        }
        if had.is_empty() && absent.is_empty() {
            return;
        }
        let own = self.clone();
        let part = permit.split(had.len() + absent.len());
        // The worker goes on.
        self.plant.tasks.spawn("source leaves", async move {
            let after = own.handling.leave_for;
            let absent = absent.into_iter().map(|delivery| own.give_back(delivery, after));
            tokio::join!(own.ack_all(had), join_all(absent));
            drop(part);
        });
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
            detail: DeadLetter::detail_of(&lost.why),
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
        if let Some(unsaid) = self.buried.due(crate::now()) {
            tracing::warn!(source = self.name, dead_letter = %kept, why, unsaid, "a message was kept as a dead letter");
        }
        if let Some(lost) = batch.lost.pop_front() {
            self.ack_all(vec![lost.delivery]).await;
        }
    }

    /// Acknowledges what is safe while its worker goes on. Until then it counts as unsettled.
    fn ack_beside(self: &Arc<Self>, deliveries: Vec<Delivery>, permit: &mut OwnedSemaphorePermit) {
        let own = self.clone();
        let part = permit.split(deliveries.len());
        self.plant.tasks.spawn("source acknowledges", async move {
            own.ack_all(deliveries).await;
            drop(part);
        });
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
        if let Some(fault) = failed.first()
            && let Some(unsaid) = self.unsettled.due(crate::now())
        {
            let count = failed.len();
            tracing::warn!(source = self.name, count, %fault, unsaid, "messages could not be settled; they come again");
        }
    }

    /// The pause before a message that was given out so often comes again.
    pub(super) fn pause_after(&self, deliveries: u32) -> Millis {
        self.handling
            .retry
            .nth(deliveries.saturating_sub(1), fresh_number())
    }
}

/// Whether a message that was given out too often is to have its last try, alone: it is the first time that is one too
/// many, or whoever had it last was another. A message that ends whoever takes it had it last here, when it comes again.
fn is_untried(message: &Message, max_deliveries: u32) -> bool {
    message.was_elsewhere || message.deliveries.saturating_sub(1) <= max_deliveries
}

/// Rules that speak of keys, in the words of a source: it has none.
pub(super) fn of_source(fault: Fault) -> Fault {
    match fault.code {
        FaultCode::Scope => Fault::new(
            FaultCode::Scope,
            "without `users` or `topics` it goes to everyone, which the source's `broadcast: true` would have to allow",
        ),
        _ => fault,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_last_try_is_had_once_and_after_another_program_again() {
        let is_untried = |deliveries, was_elsewhere| {
            let message = Message {
                deliveries,
                was_elsewhere,
                ..Message::default()
            };
            is_untried(&message, 3)
        };
        assert!(is_untried(4, false), "it was given out three times before");
        assert!(!is_untried(5, false), "it had its last try");
        assert!(is_untried(5, true), "of another");
    }

    #[test]
    fn who_may_not_broadcast_is_told_so_in_the_words_of_a_source() {
        let draft = postrider_router::Draft::default();
        let publisher = Publisher {
            name: "orders",
            may_broadcast: false,
        };
        let arrival = Arrival {
            now: postrider_model::Timestamp(0),
            fresh: uuid::Uuid::nil(),
            derived: None,
            request: None,
        };
        let refused = admit(draft, &publisher, &postrider_router::Limits::default(), arrival);
        let fault = of_source(refused.unwrap_err());
        assert!(
            fault.detail.contains("`broadcast: true`") && !fault.detail.contains("key"),
            "{fault}"
        );
    }
}
