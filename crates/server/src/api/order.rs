//! A request of one notification, or an array of them, from its whole body to its answer: the one place for the rules
//! of such requests, whether the API reads them or a [`Desk`](crate::desk) does.
//!
//! Invariant: an order that was taken is counted once, when it is answered.

use super::Api;
use super::publish::{array_json, push_accepted};
use super::refusal::intake_problem;
use super::submit::{Batch, Item, Outcome, Submission};
use postrider_engine::EngineError;
use postrider_model::{Publication, Receipt};
use postrider_router::{Draft, Fault};
use postrider_sources::http::{self, Body, Most};
use postrider_transports::{Answer, Problem};
use std::sync::Arc;

/// Bytes of an answer that accepts one, as a rule.
const ACCEPTED_BYTES: usize = 80;

/// A request on its way through the engine.
pub struct Order {
    api: Arc<Api>,
    batch: Batch,
    is_array: bool,
    /// What it is counted as.
    source: &'static str,
}

impl Order {
    /// Takes a whole body through intake. A fault of the body itself refuses it; a fault of an item does not.
    pub fn take(mut submission: Submission, body: &[u8]) -> Result<Order, Problem> {
        submission.bind(body);
        let api = submission.api().clone();
        let decoded = http::decode_body(body, &Most::from(&api.limits)).map_err(|fault| {
            api.metrics.count_rejected(fault.code.as_str());
            intake_problem(fault)
        })?;
        Ok(match decoded {
            Body::One(draft) => Order::of(&submission, [*draft], false),
            Body::Array(drafts) => Order::of(&submission, drafts, true),
        })
    }

    /// Takes what was decoded through intake.
    pub fn of(
        submission: &Submission,
        drafts: impl IntoIterator<Item = Result<Draft, Fault>>,
        is_array: bool,
    ) -> Order {
        let drafts = (0u64..).zip(drafts);
        let mut items: Vec<Item> = drafts
            .map(|(index, draft)| submission.admit(draft, index))
            .collect();
        submission.pace(&mut items);
        let api = submission.api().clone();
        Order {
            batch: Batch::new(&*api.engine, items),
            api,
            is_array,
            source: submission.source(),
        }
    }

    /// Has the engine store what is to be stored.
    pub async fn store(&mut self) -> Vec<Result<Receipt, EngineError>> {
        let publications = self.publications();
        if publications.is_empty() {
            return Vec::new();
        }
        self.api.engine.publish(publications).await
    }

    /// What is to be stored; a second call finds nothing.
    pub fn publications(&mut self) -> Vec<Publication> {
        self.batch.take()
    }

    /// What became of each, from what became of those that were to be stored; or why none was taken.
    pub fn outcomes(mut self, receipts: Vec<Result<Receipt, EngineError>>) -> Result<Vec<Outcome>, Problem> {
        self.batch.settle(receipts);
        let outcomes = self.batch.into_outcomes();
        self.api.metrics.count_outcomes(self.source, &outcomes);
        match of_all(&outcomes).filter(|_| self.is_array) {
            Some(problem) => Err(problem.clone()),
            None => Ok(outcomes),
        }
    }

    /// The answer, in the same way.
    pub fn answer(self, receipts: Vec<Result<Receipt, EngineError>>) -> Answer {
        let is_array = self.is_array;
        let outcomes = self.outcomes(receipts)?;
        if is_array {
            return Ok(array_json(&outcomes));
        }
        match outcomes.into_iter().next() {
            Some(Ok(id)) => {
                let mut json = Vec::with_capacity(ACCEPTED_BYTES);
                push_accepted(&mut json, &id);
                Ok(json)
            }
            Some(Err(problem)) => Err(problem),
            None => Err(Problem::unavailable(1)),
        }
    }
}

/// Where nothing of an array was taken, and trying again can help, the request as a whole is refused. A key that was
/// used with another body refuses it as a whole too; a pointer tells the conflict of one item from that.
fn of_all(outcomes: &[Outcome]) -> Option<&Problem> {
    if outcomes.iter().any(Result::is_ok) {
        return None;
    }
    outcomes.iter().find_map(|outcome| {
        let problem = outcome.as_ref().err()?;
        let request_conflict = problem.code == "id_conflict" && problem.pointer.is_none();
        (request_conflict || problem.retry_after.is_some()).then_some(problem)
    })
}
