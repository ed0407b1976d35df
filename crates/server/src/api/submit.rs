//! From drafts to outcomes: intake, then the engine; what was refused keeps its place among the accepted.

use super::Api;
use super::refusal::{engine_problem, intake_problem};
use crate::auth::{ApiKey, Scope};
use postrider_engine::{Engine, EngineError};
use postrider_model::{Durability, Notification, NotificationId, Publication, Receipt, RequestKey};
use postrider_router::{Arrival, Draft, Fault, Publisher, admit, derived_id, request_content};
use postrider_transports::Problem;
use std::sync::Arc;
use std::time::Duration;

/// What requests are counted as that say nothing else.
const HTTP: &str = "http";
/// An `Idempotency-Key` has at most so many characters.
const IDEMPOTENCY_KEY_BYTES: usize = 256;
/// First and longest pause before a busy engine is asked again, and for how long in all.
const BUSY_PAUSE: Duration = Duration::from_millis(5);
const BUSY_PAUSE_MOST: Duration = Duration::from_millis(500);
const BUSY_PAUSES: u32 = 120;

/// One item on its way: fit to be stored, or refused.
pub type Item = Result<Publication, Problem>;
/// What became of one item.
pub type Outcome = Result<NotificationId, Problem>;

/// One publish request: who sends it, and under which `Idempotency-Key`.
pub struct Submission {
    api: Arc<Api>,
    key: Arc<ApiKey>,
    /// The header, where there is one.
    idempotency: Option<String>,
    /// The whole request as a key, where its body is known whole.
    request: Option<RequestKey>,
    /// What it is counted as.
    source: &'static str,
}

impl Submission {
    /// A request with these headers, from whoever may publish.
    pub fn open(
        api: &Arc<Api>,
        authorization: Option<&str>,
        idempotency_key: Option<&str>,
    ) -> Result<Submission, Problem> {
        let key = api.key_of(authorization, Scope::Publish)?;
        Ok(Submission {
            idempotency: idempotency_key.map(checked).transpose()?,
            api: api.clone(),
            key,
            request: None,
            source: HTTP,
        })
    }

    /// The same request, which came by another way.
    pub fn by(self, source: &'static str) -> Submission {
        Submission { source, ..self }
    }

    /// The way that it came.
    pub fn source(&self) -> &'static str {
        self.source
    }

    /// Whether the request as a whole may come twice.
    pub fn is_idempotent(&self) -> bool {
        self.idempotency.is_some()
    }

    /// The API that it came to.
    pub fn api(&self) -> &Arc<Api> {
        &self.api
    }

    /// Binds the `Idempotency-Key`, where there is one, to the request's whole body.
    pub fn bind(&mut self, body: &[u8]) {
        self.request = self.idempotency.as_ref().map(|key| RequestKey {
            // Scoped by the publisher's name.
            key: format!("{}:{}{key}", self.key.name.len(), self.key.name),
            content: request_content(body),
        });
    }

    /// Intake of the `index`th item.
    pub fn admit(&self, draft: Result<Draft, Fault>, index: u64) -> Item {
        let draft = draft.map_err(intake_problem)?;
        let now = crate::now();
        let fresh = crate::clock::fresh_uuid(now).map_err(|error| {
            tracing::error!(%error, "no randomness for an id");
            Problem::unavailable(1)
        })?;
        let arrival = Arrival {
            now,
            fresh,
            derived: self
                .idempotency
                .as_ref()
                .map(|key| derived_id(&self.key.name, key, index)),
            request: self.request.clone(),
        };
        let publisher = Publisher {
            name: &self.key.name,
            may_broadcast: self.key.has(Scope::Broadcast),
        };
        admit(draft, &publisher, &self.api.limits, arrival).map_err(intake_problem)
    }

    /// Lets as many items pass as the key may publish now; the rest is refused, in order.
    pub fn pace(&self, items: &mut [Item]) {
        let count = items.iter().filter(|item| item.is_ok()).count();
        let now = self.api.auth.steady_now();
        let passed = self.key.take_up_to(count, now);
        let refused = items.iter_mut().filter(|item| item.is_ok()).skip(passed);
        for item in refused {
            *item = Err(Problem::rate_limited(self.key.retry_after_s(now)));
        }
    }

    /// Most items that a patient request submits at once: one second's worth of the key's rate.
    pub fn batch_lines(&self) -> usize {
        self.key.burst()
    }

    /// Hands items to the engine, in order, when their turn has come by the key's rate. A busy engine is asked again,
    /// in order, for as long as the node runs and about a minute at most. The outcomes stand in the same order.
    pub async fn submit_patiently(&self, items: Vec<Item>) -> Vec<Outcome> {
        self.wait_turn(items.iter().filter(|item| item.is_ok()).count())
            .await;
        let mut batch = Batch::new(&*self.api.engine, items);
        let mut pause = BUSY_PAUSE;
        let mut pauses = 0;
        while !batch.is_settled() {
            let last = pauses == BUSY_PAUSES || self.api.drain.has_begun();
            let publications = batch.take();
            let kept: Vec<Kept> = publications.iter().map(Kept::of).collect();
            let receipts = self.api.engine.publish(publications).await;
            if last {
                batch.settle(receipts);
            } else {
                batch.settle_unless_busy(receipts, kept);
            }
            if !batch.is_settled() {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(BUSY_PAUSE_MOST);
                pauses += 1;
            }
        }
        let outcomes = batch.into_outcomes();
        self.api.metrics.count_outcomes(self.source, &outcomes);
        outcomes
    }

    /// Waits for the turn of so many items, or for the drain, whose lines are not left behind.
    async fn wait_turn(&self, count: usize) {
        let wait = self.key.reserve(count, self.api.auth.steady_now());
        if wait.0 > 0 {
            tokio::select! {
                () = tokio::time::sleep(wait.as_duration()) => {}
                () = self.api.drain.begun() => {}
            }
        }
    }
}

/// Items that go to the engine together, and what becomes of each.
pub struct Batch {
    /// What is known, and for those that wait the id that they will have.
    outcomes: Vec<Outcome>,
    /// Those that the engine has to store, and their places.
    waiting: Vec<Publication>,
    places: Vec<usize>,
}

impl Batch {
    /// Of these items. What is transient goes out at once.
    pub fn new(engine: &dyn Engine, items: Vec<Item>) -> Batch {
        let mut batch = Batch {
            outcomes: Vec::with_capacity(items.len()),
            waiting: Vec::with_capacity(items.len()),
            places: Vec::with_capacity(items.len()),
        };
        for (place, item) in items.into_iter().enumerate() {
            batch.outcomes.push(item.map(|publication| {
                let id = publication.notification.id.clone();
                if publication.notification.durability == Durability::Transient {
                    engine.transmit(publication);
                } else {
                    batch.waiting.push(publication);
                    batch.places.push(place);
                }
                id
            }));
        }
        batch
    }

    /// What the engine has to store, in order; a second call finds nothing.
    pub fn take(&mut self) -> Vec<Publication> {
        std::mem::take(&mut self.waiting)
    }

    fn is_settled(&self) -> bool {
        self.places.is_empty()
    }

    /// What became of those that waited, in order; of whatever the engine has not told nothing is promised.
    pub fn settle(&mut self, receipts: Vec<Result<Receipt, EngineError>>) {
        let mut receipts = receipts.into_iter();
        for place in std::mem::take(&mut self.places) {
            let receipt = receipts.next().unwrap_or(Err(EngineError::Closed));
            self.outcomes[place] = outcome(receipt);
        }
    }

    /// As [`Batch::settle`], but those for which the engine was busy wait on.
    fn settle_unless_busy(&mut self, receipts: Vec<Result<Receipt, EngineError>>, kept: Vec<Kept>) {
        let mut receipts = receipts.into_iter();
        let places = std::mem::take(&mut self.places).into_iter();
        for (place, kept) in places.zip(kept) {
            match receipts.next().unwrap_or(Err(EngineError::Closed)) {
                Err(EngineError::Busy) => {
                    self.places.push(place);
                    self.waiting.push(kept.again());
                }
                receipt => self.outcomes[place] = outcome(receipt),
            }
        }
    }

    /// What became of each item.
    pub fn into_outcomes(self) -> Vec<Outcome> {
        self.outcomes
    }
}

/// What it takes to hand a publication in again. A copy of it would cost more, and a busy engine is rare.
struct Kept {
    notification: Arc<Notification>,
    content: u128,
    request: Option<RequestKey>,
}

impl Kept {
    fn of(publication: &Publication) -> Kept {
        Kept {
            notification: publication.notification.clone(),
            content: publication.content,
            request: publication.request.clone(),
        }
    }

    fn again(self) -> Publication {
        Publication {
            feeds: self.notification.feeds(),
            notification: self.notification,
            content: self.content,
            request: self.request,
        }
    }
}

fn outcome(receipt: Result<Receipt, EngineError>) -> Outcome {
    receipt
        .map(|receipt| receipt.id)
        .map_err(|error| engine_problem(&error))
}

fn checked(idempotency_key: &str) -> Result<String, Problem> {
    let key = idempotency_key.trim();
    let is_visible = key
        .bytes()
        .all(|byte| (b' '..=b'~').contains(&byte) || byte == b'\t');
    if key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES || !is_visible {
        let detail = format!(
            "The header Idempotency-Key must hold 1 to {IDEMPOTENCY_KEY_BYTES} visible ASCII characters."
        );
        return Err(Problem::invalid_request(detail));
    }
    Ok(key.to_owned())
}
