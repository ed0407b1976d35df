//! The HTTP API: one file per resource. Everything that is not a session's own wire.
//!
//! Invariant: a 202 comes after the engine's receipt. Every refusal is a problem document (RFC 9457), every
//! answer says `no-store`, and a panic is a 500 without detail.

mod body;
mod cancel;
mod dead_letters;
mod demo;
mod edge;
mod history;
mod inbox;
mod notification;
mod order;
mod publish;
mod query;
mod redrive;
mod refusal;
mod stream;
mod submit;
mod ticket;
mod timeline;
mod users;

pub use demo::DemoPage;

use crate::auth::{ApiKey, Auth, Scope};
use crate::bodies::Bodies;
use crate::bridge::{self, Bridge};
use crate::drain::Drain;
use crate::metrics::Metrics;
use crate::tasks::Tasks;
use axum::Router;
use axum::http::{HeaderMap, header};
use axum::routing::{any, delete, get, post};
pub(crate) use order::Order;
use postrider_engine::Engine;
use postrider_router::Limits;
use postrider_transports::Problem;
pub use redrive::AT_A_RATE as MAX_REDRIVES;
pub(crate) use refusal::Refusal;
use std::sync::Arc;
pub(crate) use submit::Submission;
use tokio::sync::Semaphore;

/// What the API serves from.
pub struct Api {
    /// Where notifications are.
    pub engine: Arc<dyn Engine>,
    /// Who may do what.
    pub auth: Arc<Auth>,
    /// Bounds on what is published.
    pub limits: Limits,
    /// Most bytes of a body, and of a line of NDJSON.
    pub max_body: usize,
    /// The room that bodies have together.
    pub bodies: Arc<Bodies>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Whether the node stops.
    pub drain: Drain,
    /// Where tasks start.
    pub tasks: Tasks,
    /// The way of an inbox request that came on a connection of the API.
    pub bridge: Arc<dyn Bridge>,
    /// Turns of redrives that go on by themselves: so many may.
    pub redrives: Arc<Semaphore>,
    /// The sample page, in a demo.
    pub demo: Option<DemoPage>,
}

impl Api {
    /// The API key of a request, if it has the scope.
    fn key(&self, headers: &HeaderMap, scope: Scope) -> Result<Arc<ApiKey>, Problem> {
        self.key_of(text(headers, header::AUTHORIZATION.as_str()), scope)
    }

    /// The API key of an `Authorization` header, if it has the scope.
    fn key_of(&self, authorization: Option<&str>, scope: Scope) -> Result<Arc<ApiKey>, Problem> {
        let key = self.auth.api_key(authorization)?;
        key.require(scope)?;
        Ok(key)
    }
}

/// A header as text; one that is no text counts as empty, so that it is refused rather than overlooked.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or(""))
}

/// The public API.
pub fn router(api: Arc<Api>) -> Router {
    let mut router = Router::new()
        .route("/v1/notifications", post(publish::publish))
        .route(
            "/v1/notifications/{id}",
            get(notification::show).delete(cancel::cancel),
        )
        .route("/v1/notifications/{id}/timeline", get(timeline::timeline))
        .route("/v1/inbox/ack", post(inbox::ack))
        .route("/v1/inbox/read", post(inbox::read))
        .route("/v1/inbox/history", get(history::history))
        .route("/v1/tickets", post(ticket::issue))
        .route("/v1/dead-letters", get(dead_letters::list))
        .route("/v1/dead-letters/redrive", post(redrive::by_filter))
        .route(
            "/v1/dead-letters/{id}",
            get(dead_letters::show).delete(dead_letters::delete),
        )
        .route("/v1/dead-letters/{id}/redrive", post(dead_letters::redrive))
        .route("/v1/users/{id}", delete(users::erase));
    for path in bridge::PATHS {
        // Not `get`, which would also promise `HEAD`.
        router = router.route(path, any(bridge::carry));
    }
    if api.demo.is_some() {
        router = router.route("/demo", get(demo::page));
    }
    let routes = router
        .fallback(|| async { Refusal::from(Problem::not_found()) })
        .method_not_allowed_fallback(|| async { Refusal::from(edge::method_not_allowed()) })
        .with_state(api.clone());
    // Around the whole, since only outside of its routes does a 405 have its `Allow`.
    let edge = axum::middleware::from_fn_with_state(api, edge::edge);
    Router::new().fallback_service(routes).layer(edge)
}
