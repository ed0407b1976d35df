//! Messages that lead to channels: pushed to all whom they are for, and only then settled.
//!
//! Invariant: a message is settled when of each recipient it is known what became of it: notified, gone, or kept as a dead
//! letter of its own. Until then it is held. One that a crash interrupts comes again as a whole, under the same id. One that
//! was pushed and comes again to this node, since the word was lost, is settled without another push.

use super::Running;
use super::wait::hold_every;
use crate::channels::{BatchTally, Channels, Named};
use crate::clock::fresh_number;
use crate::config::{INBOX, SettleOn};
use async_trait::async_trait;
use futures_util::future::join_all;
use postrider_channels::{Failure, Happened, Ledger, Push, Tally, Whom};
use postrider_model::{DeadBody, DeadLetter, DeadLetterId, DeadReason, Millis, Pauses, Publication, UserId};
use postrider_router::{Fault, FaultCode};
use postrider_sources::queue::{Delivery, SourceFault};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// In a drain a push that is under way may go on for so long; then its message is given back.
const DRAIN_GRACE: Duration = Duration::from_secs(5);
/// Between two tries to keep a dead letter.
const KEEPING: Pauses = Pauses {
    first: Millis(20),
    most: Millis(2_000),
};
/// How often a source that is away is told that a message was pushed, and the pauses between. After that it comes again.
const ACK_TRIES: u32 = 4;
const ACKING: Pauses = Pauses {
    first: Millis(200),
    most: Millis(2_000),
};

/// Where the notifications of a source go.
#[derive(Clone)]
pub(super) struct Ways {
    /// To the inboxes of their users, and so to sessions.
    pub inbox: bool,
    /// To these channels.
    pub channels: Vec<Named>,
}

impl Ways {
    /// From the words of the configuration.
    pub fn of(words: &[String], channels: &Channels) -> Ways {
        Ways {
            inbox: words.iter().any(|word| word == INBOX),
            channels: channels.of(words),
        }
    }
}

/// Keeps what one channel could not hand to one recipient.
struct Book<'a> {
    running: &'a Running,
    channel: &'static str,
    publication: &'a Publication,
}

impl Running {
    /// Whether a notification could go where this source's go.
    pub(super) fn check_ways(&self, publication: &Publication) -> Result<(), Fault> {
        if self.ways.channels.is_empty() {
            return Ok(());
        }
        let refuse = |what: String| Err(Fault::new(FaultCode::InvalidNotification, what));
        if publication.notification.deliver_at.is_some() {
            return refuse("a channel delivers at once: it has no `deliver_at`".into());
        }
        let push = match push_of(publication) {
            Ok(push) => push,
            Err(fault) => return refuse(fault.to_string()),
        };
        for one in &self.ways.channels {
            if let Err(unfit) = one.channel.check(&push) {
                let what = format!("channel {}: {unfit}", one.name);
                return Err(Fault::new(FaultCode::TooLarge, what));
            }
        }
        Ok(())
    }

    /// Pushes messages to the channels, each beside the others, with its part of the permit.
    pub(super) fn push_out(self: &Arc<Self>, deliveries: Vec<Delivery>, permit: &mut OwnedSemaphorePermit) {
        if deliveries.is_empty() {
            return;
        }
        let batch = BatchTally::begin(self.name, deliveries.len(), crate::steady_clock());
        for delivery in deliveries {
            let (own, batch, part) = (self.clone(), batch.clone(), permit.split(1));
            self.plant.tasks.spawn("source pushes", async move {
                own.push_one(delivery, &batch).await;
                drop(part);
            });
        }
    }

    async fn push_one(&self, delivery: Delivery, batch: &BatchTally) {
        let end = |tally| batch.end(tally, &self.ways.channels, &self.plant.metrics);
        // It was decoded before.
        let Ok(publication) = self.publication(delivery.message()) else {
            self.give_back(delivery, Millis(0)).await;
            return end(None);
        };
        let name = delivery.message().name.clone();
        if self.done.holds(name.as_deref()) {
            end(None);
        } else {
            let Some(tally) = self.pushed(&delivery, &publication).await else {
                self.give_back(delivery, Millis(0)).await;
                return end(None);
            };
            self.done.note(name.as_deref());
            end(Some(tally));
            if !self.ways.inbox {
                self.plant.metrics.count_accepted(self.name, 1);
            }
        }
        if self.ways.inbox && self.handling.settle_on == SettleOn::Delivered {
            self.wait_for(delivery, publication.notification.id.clone()).await;
        } else {
            self.ack_pushed(delivery).await;
        }
    }

    /// Acknowledges what was pushed, and tries again where the source is away: else all of it would come again.
    async fn ack_pushed(&self, mut delivery: Delivery) {
        for nth in 1..ACK_TRIES {
            match delivery.try_ack().await {
                Ok(()) => return,
                Err(SourceFault::Refused(_)) => break,
                Err(SourceFault::Away(_) | SourceFault::Throttled(_)) => {}
            }
            // What could not be said either is no matter: the next try tells.
            self.log_all(vec![delivery.hold().await]);
            self.pause(ACKING.nth(nth - 1, fresh_number()).as_duration())
                .await;
        }
        self.ack_all(vec![delivery]).await;
    }

    /// Pushes one to all channels while it is held. `None` where the node drains before that was done.
    async fn pushed(&self, delivery: &Delivery, publication: &Publication) -> Option<Tally> {
        let mut work = std::pin::pin!(self.push_to_all(publication));
        let mut patience = std::pin::pin!(async {
            self.plant.drain.begun().await;
            tokio::time::sleep(DRAIN_GRACE).await;
        });
        tokio::select! {
            biased;
            tally = &mut work => Some(tally),
            () = &mut patience => None,
            never = self.hold_on(delivery) => match never {},
        }
    }

    /// Holds a delivery until it is dropped: beside the work, which does not wait for it.
    async fn hold_on(&self, delivery: &Delivery) -> Infallible {
        let mut hold = hold_every(self.handling.hold_every);
        loop {
            hold.tick().await;
            self.log_all(vec![delivery.hold().await]);
        }
    }

    async fn push_to_all(&self, publication: &Publication) -> Tally {
        let is_over = publication
            .notification
            .expires_at
            .is_some_and(|end| end <= crate::now());
        let Ok(push) = push_of(publication) else {
            return Tally::default();
        };
        if is_over {
            return Tally::default();
        }
        let pushes = self.ways.channels.iter().map(|one| async {
            let book = Book {
                running: self,
                channel: one.name,
                publication,
            };
            let tally = one.channel.push(&push, &book).await;
            self.plant.metrics.channels().count_record(one.name);
            tally
        });
        let mut sum = Tally::default();
        join_all(pushes).await.into_iter().for_each(|tally| sum += tally);
        sum
    }
}

/// A notification on its way out.
fn push_of(publication: &Publication) -> Result<Push, postrider_channels::WithoutTopics> {
    let notification = &publication.notification;
    Ok(Push {
        id: notification.id.clone(),
        whom: Whom::of(&notification.audience, &notification.exclude)?,
        data: notification.data.clone(),
    })
}

#[async_trait]
impl Ledger for Book<'_> {
    fn note(&self, what: Happened) {
        self.running.plant.metrics.channels().count(self.channel, what);
    }

    async fn keep(&self, failure: Failure) {
        let notification = &self.publication.notification;
        let letter = DeadLetter {
            id: DeadLetterId::START,
            // It is of one connection: what becomes of the notification elsewhere is another matter.
            notification: None,
            user: UserId::new(&failure.user).ok(),
            reason: DeadReason::MaxAttempts,
            detail: DeadLetter::detail_of(&format!(
                "channel {}, notification {}: {}",
                self.channel, notification.id, failure.why
            )),
            source: self.running.name.to_owned(),
            attempts: failure.attempts,
            time: crate::now(),
            subject: notification.subject.clone(),
            body: DeadBody::Raw(notification.data.clone()),
        };
        let mut tries = 0;
        while let Err(error) = self.running.plant.engine.bury(letter.clone()).await {
            if tries == 0 {
                tracing::warn!(channel = self.channel, %error, "a dead letter cannot be kept; it is tried again");
            }
            let pause = KEEPING.nth(tries, fresh_number());
            tokio::time::sleep(pause.as_duration()).await;
            tries = tries.saturating_add(1);
        }
        self.running
            .plant
            .metrics
            .channels()
            .count_undelivered(self.channel);
    }
}
