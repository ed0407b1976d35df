//! The HTTP API: one file per resource. Everything that is not a session's own wire.
//!
//! Invariant: a 202 comes after the engine's receipt. Every refusal is a problem document (RFC 9457), and a panic is a
//! 500 without detail. Every answer says `no-store`, but for the interface's description (`/openapi.json` and `/docs`)
//! and static files, which may be kept for as long as they say.

mod body;
mod cancel;
mod dead_letters;
mod demo;
mod edge;
mod history;
mod import;
mod inbox;
mod notification;
mod notify;
pub(crate) mod openapi;
mod order;
mod presence;
mod presence_stream;
mod publish;
mod query;
mod redrive;
mod refusal;
mod registry;
pub(crate) mod routes;
mod source_post;
mod state;
mod stream;
mod submit;
mod ticket;
mod timeline;
mod topics;
pub(crate) mod twirp;
mod users;

pub use demo::DemoPage;

use crate::auth::{ApiKey, Auth, Scope};
use crate::bodies::Bodies;
use crate::bridge::{self, Bridge};
use crate::config::RawConfig;
use crate::drain::Drain;
use crate::metrics::Metrics;
use crate::registry::Lookup;
use crate::sources::{Doors, Waits};
use crate::static_files::StaticFiles;
use crate::tasks::Tasks;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Uri, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get, post};
pub(crate) use order::Order;
use postrider_engine::{Engine, Presence};
use postrider_router::Limits;
use postrider_transports::Problem;
pub use redrive::AT_A_RATE as MAX_REDRIVES;
pub(crate) use refusal::Refusal;
use routes::Routes;
use std::sync::Arc;
pub(crate) use submit::Submission;
use tokio::sync::Semaphore;

/// What the API serves from.
pub struct Api {
    /// Where notifications are.
    pub engine: Arc<dyn Engine>,
    /// Who is there.
    pub presence: Arc<dyn Presence>,
    /// Who may do what.
    pub auth: Arc<Auth>,
    /// Bounds on what is published.
    pub limits: Limits,
    /// Topics that a user may be a member of.
    pub topics_per_user: usize,
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
    /// Where the notify dialect is served, if it is.
    pub notify_path: Option<String>,
    /// Where the raw dialect is served, and where its health is told.
    pub raw: RawConfig,
    /// Who waits for settlements.
    pub waits: Arc<Waits>,
    /// Sources that are posted to.
    pub doors: Arc<Doors>,
    /// Which instance has a user.
    pub registry: Lookup,
    /// What is served where the API has nothing.
    pub static_files: Option<StaticFiles>,
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

/// The public API's routes, but for the demo's.
fn routes() -> Routes<Arc<Api>> {
    Routes::new()
        .add(openapi::publish(), publish::publish)
        // Not `add`, which would also promise `HEAD`.
        .serve(openapi::poll(), any(bridge::carry))
        .serve(openapi::stream(), any(bridge::carry))
        .serve(openapi::websocket(), any(bridge::carry))
        .add(openapi::past(), history::history)
        .add(openapi::ticket(), ticket::issue)
        .add(openapi::ack(), inbox::ack)
        .add(openapi::read(), inbox::read)
        .add(openapi::show(), notification::show)
        .add(openapi::story(), timeline::timeline)
        .add(openapi::cancel(), cancel::cancel)
        .add(openapi::letters(), dead_letters::list)
        .add(openapi::redrive_letters(), redrive::by_filter)
        .add(openapi::letter(), dead_letters::show)
        .add(openapi::delete_letter(), dead_letters::delete)
        .add(openapi::redrive_letter(), dead_letters::redrive)
        .add(openapi::users(), users::list)
        .add(openapi::import(), import::import)
        .add(openapi::user_import(), users::show_import)
        .add(openapi::put_user_import(), users::put_import)
        .add(openapi::delete_user_import(), users::delete_import)
        .add(openapi::user(), users::show)
        .add(openapi::put_user(), users::put)
        .add(openapi::delete_user(), users::delete)
        .add(openapi::topic(), topics::show)
        .add(openapi::members(), topics::members)
        .add(openapi::join(), topics::join)
        .add(openapi::leave(), topics::leave)
        .add(openapi::state(), state::show)
        .add(openapi::own_state(), state::own)
        .add(openapi::merge(), state::merge)
        .add(openapi::increment(), state::increment)
        .add(openapi::clear(), state::clear)
        .add(openapi::user_presence(), presence::user)
        .add(openapi::topic_presence(), presence::topic)
        .add(openapi::presence_stream(), presence_stream::stream)
        .add(openapi::user_instance(), registry::of_user)
        .add(openapi::describe(), openapi::serve_document)
        .add(openapi::docs(), openapi::serve_page)
}

/// Where the API has nothing there may be a file.
async fn elsewhere(State(api): State<Arc<Api>>, method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let found = match &api.static_files {
        Some(files) => files.serve(&method, uri.path(), &headers).await,
        None => None,
    };
    found.unwrap_or_else(|| Refusal::from(Problem::not_found()).into_response())
}

/// The public API.
pub fn router(api: Arc<Api>) -> Router {
    let mut router = routes().into_router();
    if api.demo.is_some() {
        router = router.merge(demo::routes());
    }
    if let Some(path) = &api.notify_path {
        router = router.merge(notify::routes(path));
    }
    if let Some(path) = &api.raw.path {
        router = router.route(path, any(bridge::carry));
    }
    if let Some(path) = &api.raw.health {
        router = router.route(path, get(async || "ok\n"));
    }
    let routes = router
        .route("/v1/sources/{source}", post(source_post::post))
        .merge(twirp::routes())
        .fallback(elsewhere)
        .method_not_allowed_fallback(|| async { Refusal::from(edge::method_not_allowed()) })
        .with_state(api.clone());
    // Around the whole, since only outside of its routes does a 405 have its `Allow`.
    let edge = axum::middleware::from_fn_with_state(api, edge::edge);
    Router::new().fallback_service(routes).layer(edge)
}
