//! Twirp (<https://twitchtv.github.io/twirp/docs/spec_v7.html>): `POST /twirp/<package>.<Service>/<Method>` with a
//! message as protobuf or JSON.
//!
//! A service is a trait that is made from its `.proto` (`cargo xtask proto`), and what implements it. Everything a
//! service shares stands here: the way of a call ([`Call`]), its errors ([`Fault`]), the JSON of messages
//! ([`form`]) and what they weigh ([`weight`]).
//!
//! Invariant: whatever is answered under `/twirp/` is a message or Twirp's error document. Nobody's body is read before
//! they were let in, and no message takes more memory than it was given room for.
//!
//! It has no rules of its own: what a service does is what the rest of the API does.

mod call;
mod draft;
mod fault;
pub(crate) mod form;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod generated;
mod notifications;
mod times;
pub(crate) mod weight;

pub use call::{Admitted, Call, Reply};
pub use fault::Fault;
pub use form::Unknown;
pub use generated::notify;
pub use postrider_transports::Problem;

use super::Api;
use axum::Router;
use axum::extract::{OriginalUri, Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, post};
use generated::postrider_v1::NOTIFICATION_SERVICE;
use std::future::Future;
use std::sync::Arc;

/// Where all services are.
const ROOT: &str = "/twirp/";

/// Whether what is wrong with a request to this path is told as Twirp does.
pub fn is_path(path: &str) -> bool {
    path.starts_with(ROOT)
}

/// The routes of the node's own service, and the answer to whatever else is asked for here.
pub fn routes() -> Router<Arc<Api>> {
    service(NOTIFICATION_SERVICE, notifications::serve).route(
        "/twirp/{*rest}",
        any(|OriginalUri(uri): OriginalUri, request: Request| async move {
            Fault::bad_route("There is no such service.", request.method(), uri.path())
        }),
    )
}

/// The routes of a service, by its name with its package. A call comes here once it is a `POST` with a message.
pub fn service<F, R>(name: &str, serve: F) -> Router<Arc<Api>>
where
    F: Fn(Arc<Api>, Call) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Reply> + Send,
{
    let answer = async |serve: F, api: Arc<Api>, method: String, request: Request| -> Response {
        let call = Call::open(api.clone(), method, request);
        let reply = match call {
            Ok(call) => serve(api, call).await,
            Err(fault) => Err(fault),
        };
        reply.unwrap_or_else(Fault::into_response)
    };
    let handler = move |State(api): State<Arc<Api>>, Path(method): Path<String>, request: Request| {
        answer(serve.clone(), api, method, request)
    };
    Router::new().route(
        &format!("{ROOT}{name}/{{method}}"),
        post(handler).fallback(call::wrong_http_method),
    )
}
