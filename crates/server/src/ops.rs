//! The operations listener: whether the node lives, whether it is ready, and what it counts. It has a port
//! of its own, which does not belong on a public network.

use crate::connection::serve_http1;
use crate::drain::Drain;
use crate::metrics::{CONTENT_TYPE, Metrics};
use crate::places::Places;
use crate::tasks::Tasks;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// Connections at a time; one more is closed, unless one rests.
const CONNECTIONS: usize = 64;
/// A connection may rest so long between two requests.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// After a failed accept, which usually means too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Brings gauges that others count up to date before they are shown.
pub type Refresh = Arc<dyn Fn(&Metrics) + Send + Sync>;
/// Why the node cannot do its work now, if so; for whoever asks, so without detail.
pub type Failing = Arc<dyn Fn() -> Option<&'static str> + Send + Sync>;

/// What is full, so that publishing is refused until somebody makes room. Another node would help as little, and
/// receiving and making room go on here: this too is told and does not make it unready.
pub type Refusing = Arc<dyn Fn() -> Option<&'static str> + Send + Sync>;

/// The configuration's key of what the node needs from elsewhere and has not got. It serves the rest meanwhile, so
/// this is told and does not make it unready.
pub type Awaiting = Arc<dyn Fn() -> Option<&'static str> + Send + Sync>;

/// `/health`, `/ready`, `/metrics`.
pub fn router(
    metrics: Arc<Metrics>,
    refresh: Refresh,
    drain: Drain,
    failing: Failing,
    refusing: Refusing,
    awaiting: Awaiting,
) -> Router {
    let version = env!("CARGO_PKG_VERSION");
    let health = move || async move { Json(json!({ "status": "ok", "version": version })) };
    let ready = move || {
        let answer = readiness(drain.has_begun(), failing(), refusing(), awaiting());
        async move { answer }
    };
    let metrics = move || {
        refresh(&metrics);
        let text = metrics.render();
        async move { ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response() }
    };
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
}

/// Whether anyone should be sent here, and why not.
fn readiness(
    draining: bool,
    failing: Option<&'static str>,
    refusing: Option<&'static str>,
    awaiting: Option<&'static str>,
) -> (StatusCode, Json<Value>) {
    let reason = if draining {
        Some("the node drains")
    } else {
        failing
    };
    match reason {
        None => {
            let mut told = json!({ "ready": true, "draining": false });
            if let Some(full) = refusing {
                told["refusing"] = json!(full);
            }
            if let Some(key) = awaiting {
                told["awaiting"] = json!([key]);
            }
            (StatusCode::OK, Json(told))
        }
        Some(reason) => (
            StatusCode::SERVICE_UNAVAILABLE,
            Json(json!({ "ready": false, "draining": draining, "reason": reason })),
        ),
    }
}

/// Accepts until the runtime ends: a draining node still answers its probes.
pub async fn serve(listener: TcpListener, router: Router, tasks: Tasks, never: Drain) {
    let places = Places::new(CONNECTIONS);
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => {
                let Some(place) = places.take() else {
                    continue;
                };
                place.rest();
                let (router, never) = (router.clone(), never.clone());
                let served = serve_http1(router, socket, peer, never, IDLE_TIMEOUT, place);
                tasks.spawn("ops connection", served);
            }
            Err(error) => {
                tracing::warn!(%error, "the operations listener");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_ready_says_why() {
        let ready = |draining, failing| {
            let (status, Json(told)) = readiness(draining, failing, Some("letters"), None);
            (status.as_u16(), told["reason"].as_str().map(str::to_owned))
        };
        assert_eq!(ready(false, None), (200, None));
        assert_eq!(ready(false, Some("full")), (503, Some("full".to_owned())));
        // A drain does not end, so it is the better reason of the two.
        assert_eq!(
            ready(true, Some("full")),
            (503, Some("the node drains".to_owned()))
        );
    }
    #[test]
    fn what_is_ready_says_what_does_not_work() {
        let ready = |refusing, awaiting| {
            let (status, Json(told)) = readiness(false, None, refusing, awaiting);
            (status.as_u16(), told)
        };
        let plain = json!({"ready": true, "draining": false});
        assert_eq!(ready(None, None), (200, plain));
        let both = json!({"ready": true, "draining": false, "refusing": "letters", "awaiting": ["url"]});
        assert_eq!(ready(Some("letters"), Some("url")), (200, both));
    }
}
