//! What every request passes: CORS, `OPTIONS`, `no-store`, the bound on wrong credentials, and the net under panics.

use super::refusal::Code;
use super::{Api, Refusal, text, twirp};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use postrider_transports::{Address, Gate as _, Problem};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

/// How long a browser may keep the answer to a preflight.
const PREFLIGHT_MAX_AGE_S: &str = "600";
/// Headers that a page may send.
const ALLOWED_HEADERS: &str = "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Cache-Control";

/// Around every request.
pub async fn edge(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let origin = text(request.headers(), header::ORIGIN.as_str()).map(str::to_owned);
    let asks_options = request.method() == Method::OPTIONS;
    let client = request.extensions().get::<Address>().copied();
    let refuse: fn(Problem) -> Response = match twirp::is_path(request.uri().path()) {
        true => |problem| twirp::Fault::from(problem).into_response(),
        false => |problem| Refusal::from(problem).into_response(),
    };
    let mut response = match api.auth.listen(client) {
        Err(problem) if !asks_options => refuse(problem),
        _ => CatchPanic(Box::pin(next.run(request)), refuse).await,
    };
    if let Some(Code(code)) = response.extensions().get() {
        api.auth.count_failure(client, code);
    }
    if asks_options && response.status() == StatusCode::METHOD_NOT_ALLOWED {
        response = options(&response, origin.is_some());
    }
    let headers = response.headers_mut();
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    if let Some(cors) = origin.and_then(|origin| api.auth.cors(&origin)) {
        for (name, value) in cors {
            put(headers, name, &value);
        }
    }
    response
}

/// The answer to a method that a resource does not have; the router adds `Allow`.
pub fn method_not_allowed() -> Problem {
    let detail = "This resource has no such method. The header Allow lists those it has.";
    Problem {
        detail: detail.into(),
        allow: None,
        ..Problem::method_not_allowed("")
    }
}

/// `OPTIONS`: what the router would allow, and for a page the rest of a preflight's answer.
fn options(refused: &Response, from_page: bool) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let allow = refused
        .headers()
        .get(header::ALLOW)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    let allow = format!("{allow}{}OPTIONS", if allow.is_empty() { "" } else { "," });
    let headers = response.headers_mut();
    put(headers, "allow", &allow);
    if from_page {
        put(headers, "access-control-allow-methods", &allow);
        put(headers, "access-control-allow-headers", ALLOWED_HEADERS);
        put(headers, "access-control-max-age", PREFLIGHT_MAX_AGE_S);
    }
    response
}

fn put(headers: &mut HeaderMap, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
        headers.insert(name, value);
    }
}

/// Turns a panic into an answer, so that it costs one request and not the connection.
struct CatchPanic<F>(Pin<Box<F>>, fn(Problem) -> Response);

impl<F: Future<Output = Response>> Future for CatchPanic<F> {
    type Output = Response;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response> {
        let inner = pin!(&mut self.0);
        match catch_unwind(AssertUnwindSafe(|| inner.poll(cx))) {
            Ok(poll) => poll,
            Err(_) => {
                tracing::error!("a request's handler panicked");
                Poll::Ready((self.1)(Problem::internal()))
            }
        }
    }
}
