//! A request of one notification, or an array of them, from its whole body to its answer: the one place for the rules
//! of such requests, whether the API reads them or a [`Desk`](crate::desk) does.
//!
//! Invariant: an order that was taken is counted once, when it is answered.

use super::Api;
use super::publish::{array_json, push_accepted};
use super::refusal::intake_problem;
use super::submit::{Batch, Outcome, Submission};
use postrider_engine::EngineError;
use postrider_model::{Publication, Receipt};
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
        let (mut items, is_array) = match decoded {
            Body::One(draft) => (vec![submission.admit(*draft, 0)], false),
            Body::Array(drafts) => {
                let drafts = (0u64..).zip(drafts);
                let items = drafts.map(|(index, draft)| submission.admit(draft, index));
                (items.collect(), true)
            }
        };
        submission.pace(&mut items);
        let batch = Batch::new(&*api.engine, items);
        Ok(Order { api, batch, is_array })
    }

    /// What is to be stored; a second call finds nothing.
    pub fn publications(&mut self) -> Vec<Publication> {
        self.batch.take()
    }

    /// The answer, from what became of these.
    pub fn answer(mut self, receipts: Vec<Result<Receipt, EngineError>>) -> Answer {
        self.batch.settle(receipts);
        let outcomes = self.batch.into_outcomes();
        self.api.metrics.count_outcomes(&outcomes);
        if self.is_array {
            return array(&outcomes);
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

fn array(outcomes: &[Outcome]) -> Answer {
    // Nothing was taken, and trying again can help: the request as a whole is refused. A key that was used
    // with another body refuses it as a whole too; a pointer tells the conflict of one item from that.
    let of_all = outcomes.iter().find_map(|outcome| {
        let problem = outcome.as_ref().err()?;
        let request_conflict = problem.code == "id_conflict" && problem.pointer.is_none();
        (request_conflict || problem.retry_after.is_some()).then_some(problem)
    });
    match of_all {
        Some(problem) if !outcomes.iter().any(Result::is_ok) => Err(problem.clone()),
        _ => Ok(array_json(outcomes)),
    }
}
