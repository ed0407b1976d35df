//! From drafts to answers: intake, then the engine; what was refused keeps its place among the accepted.

use super::Api;
use super::refusal::{engine_problem, intake_problem};
use crate::auth::{ApiKey, Scope};
use crate::clock::fresh_uuid;
use postrider_engine::EngineError;
use postrider_model::{Durability, NotificationId, Publication, RequestKey};
use postrider_router::{Arrival, Draft, Fault, Publisher, admit, derived_id};
use postrider_transports::Problem;
use std::sync::Arc;
use std::time::Duration;

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
    pub idempotency: Option<String>,
    /// The whole request as a key, where its body is known whole.
    pub request: Option<RequestKey>,
}

impl Submission {
    /// A request of this key.
    pub fn new(api: Arc<Api>, key: Arc<ApiKey>, idempotency: Option<String>) -> Submission {
        Submission {
            api,
            key,
            idempotency,
            request: None,
        }
    }

    /// The `Idempotency-Key`, scoped by the publisher's name.
    pub fn request_key(&self, content: u128) -> Option<RequestKey> {
        let key = self.idempotency.as_ref()?;
        Some(RequestKey {
            key: format!("{}:{}{key}", self.key.name.len(), self.key.name),
            content,
        })
    }

    /// Intake of the `index`th item.
    pub fn admit(&self, draft: Result<Draft, Fault>, index: u64) -> Item {
        let now = crate::now();
        let arrival = Arrival {
            now,
            fresh: fresh_uuid(now).map_err(|error| {
                tracing::error!(%error, "no randomness for an id");
                Problem::unavailable(1)
            })?,
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
        draft
            .and_then(|draft| admit(draft, &publisher, &self.api.limits, arrival))
            .map_err(intake_problem)
    }

    /// Hands items to the engine, in order. The outcomes stand in the same order. A `patient` one asks a
    /// busy engine again, in order, for as long as the node runs and about a minute at most.
    pub async fn submit(&self, mut items: Vec<Item>, patient: bool) -> Vec<Outcome> {
        self.pace(&mut items, patient).await;
        let mut outcomes: Vec<Outcome> = Vec::with_capacity(items.len());
        let mut waiting = Vec::with_capacity(items.len());
        for (place, item) in items.into_iter().enumerate() {
            outcomes.push(item.map(|publication| {
                let id = publication.notification.id.clone();
                if publication.notification.durability == Durability::Transient {
                    self.api.engine.transmit(publication);
                } else {
                    waiting.push((place, publication));
                }
                id
            }));
        }
        let mut pause = BUSY_PAUSE;
        let mut pauses = 0;
        while !waiting.is_empty() {
            let last = !patient || pauses == BUSY_PAUSES || self.api.drain.has_begun();
            waiting = self.publish(waiting, &mut outcomes, last).await;
            if !waiting.is_empty() {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(BUSY_PAUSE_MOST);
                pauses += 1;
            }
        }
        self.count(&outcomes);
        outcomes
    }

    /// Most items that a patient request submits at once: one second's worth of the key's rate.
    pub fn batch_lines(&self) -> usize {
        self.key.burst()
    }

    /// Lets as many items pass as the key may publish now. A patient request waits for the turn of all of its,
    /// or for the drain, whose lines are not left behind; another has the rest refused, in order.
    async fn pace(&self, items: &mut [Item], patient: bool) {
        let count = items.iter().filter(|item| item.is_ok()).count();
        let now = self.api.auth.steady_now();
        if patient {
            let wait = self.key.reserve(count, now);
            if wait.0 > 0 {
                tokio::select! {
                    () = tokio::time::sleep(wait.as_duration()) => {}
                    () = self.api.drain.begun() => {}
                }
            }
            return;
        }
        let passed = self.key.take_up_to(count, now);
        let refused = items.iter_mut().filter(|item| item.is_ok()).skip(passed);
        for item in refused {
            *item = Err(Problem::rate_limited(self.key.retry_after_s(now)));
        }
    }

    /// One attempt. Returns those for which the engine was busy, unless this is the last.
    async fn publish(
        &self,
        waiting: Vec<(usize, Publication)>,
        outcomes: &mut [Outcome],
        last: bool,
    ) -> Vec<(usize, Publication)> {
        let batch: Vec<Publication> = waiting
            .iter()
            .map(|(_, publication)| publication.clone())
            .collect();
        let answers = self.api.engine.publish(batch).await;
        let mut busy = Vec::new();
        let mut answers = answers.into_iter();
        for (place, publication) in waiting {
            match answers.next().unwrap_or(Err(EngineError::Closed)) {
                Ok(receipt) => outcomes[place] = Ok(receipt.id),
                Err(EngineError::Busy) if !last => busy.push((place, publication)),
                Err(error) => outcomes[place] = Err(engine_problem(&error)),
            }
        }
        busy
    }

    fn count(&self, outcomes: &[Outcome]) {
        let accepted = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        self.api.metrics.count_accepted("http", accepted as u64);
        for problem in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
            self.api.metrics.count_rejected(problem.code);
        }
    }
}
