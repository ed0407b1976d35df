//! What a source brings that keeps nothing: handed to the sessions of this node at once, and to no other node, since each
//! node hears such a source for itself.

use super::Running;
use super::take::of_source;
use crate::clock::fresh_uuid;
use postrider_model::{Durability, Entry, EntryKind, FeedId, Forms, NotificationId, Position, Publication};
use postrider_router::{Arrival, Fault, FaultCode, Publisher, admit, derived_id};
use postrider_sources::queue::{Decoder, Delivery, Direction, Message};
use std::sync::Arc;

/// Messages that are passed over are logged: the first, and then one in so many.
const LOG_ONE_IN: u64 = 1_000;

impl Running {
    /// Hands messages to the sessions that hear their feeds.
    pub(super) fn hand_out(&self, deliveries: Vec<Delivery>) {
        let mut count = 0;
        for delivery in &deliveries {
            match self.entries(delivery.message()) {
                Ok(entries) => {
                    count += 1;
                    (self.plant.bring)(entries);
                }
                Err(fault) => self.refuse(&fault),
            }
        }
        if count > 0 {
            self.plant.metrics.count_accepted(self.name, count);
        }
    }

    /// Such a message is not kept when it is good, so it is not kept when it is bad.
    fn refuse(&self, fault: &Fault) {
        self.plant.metrics.count_rejected(fault.code.as_str());
        self.plant.metrics.sources().count_undecodable(self.name);
        if let Some(count) = self.passed_over.due(LOG_ONE_IN) {
            tracing::warn!(source = self.name, %fault, count, "a message was passed over");
        }
    }

    fn entries(&self, message: &Message) -> Result<Arc<[Arc<Entry>]>, Fault> {
        let now = crate::now();
        let unavailable = |_| Fault::new(FaultCode::InvalidNotification, "no randomness for an id");
        let fresh = fresh_uuid(now).map_err(unavailable)?;
        let decoding = &self.handling.decoding;
        if let (Decoder::Raw, Direction::Channel, Some(feed), Some(body)) = (
            decoding.decoder,
            &decoding.direction,
            &message.feed,
            &message.body,
        ) {
            self.check_size(body.len())?;
            // As it came, for a wire that carries bare payloads.
            let id =
                NotificationId::new(&fresh.to_string()).map_err(|e| Fault::invalid("/id", e.to_string()))?;
            let entry = Entry::raw(feed.clone(), id, now, body.clone(), self.name);
            return Ok([Arc::new(entry)].into());
        }
        let mut draft = decoding.decode(message)?;
        let key = decoding.key(message, &mut draft);
        draft.durability = Durability::Transient;
        let publisher = Publisher {
            name: self.name,
            may_broadcast: self.handling.may_broadcast,
        };
        let arrival = Arrival {
            now,
            fresh,
            derived: key.map(|key| derived_id(self.name, &key, 0)),
            request: None,
        };
        let publication = admit(draft, &publisher, &self.plant.limits, arrival).map_err(of_source)?;
        Ok(transient(&publication))
    }

    fn check_size(&self, bytes: usize) -> Result<(), Fault> {
        let most = self.handling.max_payload;
        if bytes <= most {
            return Ok(());
        }
        let detail = format!("the payload has {bytes} bytes; at most {most} are allowed");
        Err(Fault::new(FaultCode::TooLarge, detail))
    }
}

/// The entries of a transient notification, one for each feed.
fn transient(publication: &Publication) -> Arc<[Arc<Entry>]> {
    let shared: Arc<Forms> = Arc::default();
    let entry = |feed: &FeedId| {
        // The frame of a wide feed's entry names the topic.
        let forms = if feed.is_wide() {
            Arc::default()
        } else {
            shared.clone()
        };
        Arc::new(Entry {
            feed: feed.clone(),
            position: Position::START,
            kind: EntryKind::Notification(publication.notification.clone(), None),
            forms,
        })
    };
    publication.feeds.iter().map(entry).collect()
}
