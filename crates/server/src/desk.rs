//! The desk: takes the publish requests that the loops read themselves, by the rules of the API.
//!
//! Invariant: what a request is answered here is what the API would answer. The rules are not here:
//! [`Submission`] and [`Order`] have them, and the API's own handler goes by the same.

use crate::api::{Api, Order, Submission};
use postrider_engine::EngineError;
use postrider_model::{Publication, Receipt};
use postrider_transports::head::Head;
use postrider_transports::{Address, Answer, Desk, Problem, Taken};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

/// Takes publish requests for the API.
#[derive(Default)]
pub struct PublishDesk {
    /// Set once the hub, which the API needs, is there.
    api: OnceLock<Arc<Api>>,
}

impl PublishDesk {
    /// Gives it the API. The first one stays.
    pub fn open(&self, api: Arc<Api>) {
        self.api.get_or_init(|| api);
    }

    fn submission(&self, request: &Head<'_>, client: Option<Address>) -> Result<Submission, Problem> {
        let api = self.api.get().ok_or_else(|| Problem::unavailable(1))?;
        api.auth.listen(client)?;
        let (authorization, idempotency_key) =
            (request.header("authorization"), request.header("idempotency-key"));
        Submission::open(api, authorization, idempotency_key)
            .inspect_err(|problem| api.auth.count_failure(client, problem.code))
    }
}

impl Desk for PublishDesk {
    fn max_body(&self) -> usize {
        self.api.get().map_or(0, |api| api.max_body)
    }

    fn admit(&self, request: &Head<'_>, client: Option<Address>) -> Result<(), Problem> {
        self.submission(request, client).map(drop)
    }

    fn take(&self, request: &Head<'_>, client: Option<Address>, body: &[u8]) -> Taken {
        let order = caught(|| Order::take(self.submission(request, client)?, body));
        match order {
            Err(problem) => Taken::Answer(Err(problem)),
            Ok(mut order) => match order.publications() {
                none if none.is_empty() => Taken::Answer(caught(|| order.answer(Vec::new()))),
                publications => Taken::Order(Box::new(Taking { publications, order })),
            },
        }
    }

    fn refused(&self, problem: &Problem) {
        if let Some(api) = self.api.get() {
            api.metrics.count_rejected(problem.code);
        }
    }
}

/// An order of which the engine is not told yet.
struct Taking {
    publications: Vec<Publication>,
    order: Order,
}

impl postrider_transports::Order for Taking {
    fn publications(&mut self) -> Vec<Publication> {
        std::mem::take(&mut self.publications)
    }

    fn answer(self: Box<Self>, receipts: Vec<Result<Receipt, EngineError>>) -> Answer {
        caught(|| self.order.answer(receipts))
    }
}

/// Turns a panic into an answer, so that it costs one request and not the loop with all its sessions.
fn caught<T>(work: impl FnOnce() -> Result<T, Problem>) -> Result<T, Problem> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        tracing::error!("a publish request panicked");
        Err(Problem::internal())
    })
}
