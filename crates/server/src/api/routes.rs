//! Routes together with what is written about them, so that neither can be there without the other.
//!
//! Invariant: a route's method and path stand in its [`Operation`] and nowhere else.

use super::openapi::Operation;
use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodFilter, MethodRouter, on};

/// A router that is being made, and its operations.
pub struct Routes<S> {
    router: Router<S>,
    operations: Vec<Operation>,
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    /// No routes.
    pub fn new() -> Routes<S> {
        Routes {
            router: Router::new(),
            operations: Vec::new(),
        }
    }

    /// One more operation, and what serves it.
    pub fn add<H, T>(self, operation: Operation, handler: H) -> Routes<S>
    where
        H: Handler<T, S>,
        T: 'static,
    {
        let filter = filter(&operation);
        self.serve(operation, on(filter, handler))
    }

    /// One more operation, of a resource that judges the method itself.
    pub fn serve(mut self, operation: Operation, service: MethodRouter<S>) -> Routes<S> {
        self.router = self.router.route(operation.path(), service);
        self.operations.push(operation);
        self
    }

    /// What was written about them.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// The router.
    pub fn into_router(self) -> Router<S> {
        self.router
    }
}

fn filter(operation: &Operation) -> MethodFilter {
    // Operations come from constructors of these four.
    match operation.method() {
        "post" => MethodFilter::POST,
        "put" => MethodFilter::PUT,
        "patch" => MethodFilter::PATCH,
        "delete" => MethodFilter::DELETE,
        _ => MethodFilter::GET,
    }
}
