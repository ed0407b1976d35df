//! The operations listener: whether the node lives, whether it is ready, and what it counts. It has a port
//! of its own, which does not belong on a public network.

use crate::api::openapi;
use crate::api::routes::Routes;
use crate::connection::serve_http1;
use crate::drain::Drain;
use crate::metrics::{CONTENT_TYPE, Metrics};
use crate::places::Places;
use crate::tasks::Tasks;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::{Json, Router};
use schemars::JsonSchema;
use serde::Serialize;
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

/// What the node needs from elsewhere and has not got: the configuration's key of it, or the name of a source that is
/// away. It serves the rest meanwhile, so this is told and does not make it unready.
pub type Awaiting = Arc<dyn Fn() -> Vec<&'static str> + Send + Sync>;

/// `/health`, `/ready`, `/metrics`.
pub fn router(
    metrics: Arc<Metrics>,
    refresh: Refresh,
    drain: Drain,
    failing: Failing,
    refusing: Refusing,
    awaiting: Awaiting,
) -> Router {
    routes().into_router().with_state(Arc::new(Ops {
        metrics,
        refresh,
        drain,
        failing,
        refusing,
        awaiting,
    }))
}

/// The routes, described.
pub fn routes() -> Routes<Arc<Ops>> {
    Routes::new()
        .add(openapi::health(), health)
        .add(openapi::ready(), ready)
        .add(openapi::counted(), counted)
}

/// What the listener tells of.
pub struct Ops {
    metrics: Arc<Metrics>,
    refresh: Refresh,
    drain: Drain,
    failing: Failing,
    refusing: Refusing,
    awaiting: Awaiting,
}

async fn health() -> Json<Health> {
    Json(Health {
        status: "ok",
        version: env!("CARGO_PKG_VERSION"),
    })
}

async fn ready(State(ops): State<Arc<Ops>>) -> (StatusCode, Json<Ready>) {
    readiness(
        ops.drain.has_begun(),
        (ops.failing)(),
        (ops.refusing)(),
        (ops.awaiting)(),
    )
}

async fn counted(State(ops): State<Arc<Ops>>) -> impl IntoResponse {
    (ops.refresh)(&ops.metrics);
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], ops.metrics.render())
}

/// That the process lives.
#[derive(Serialize, JsonSchema)]
pub struct Health {
    /// `ok`
    status: &'static str,
    /// Of the server.
    version: &'static str,
}

/// Whether anyone should be sent here.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
pub struct Ready {
    ready: bool,
    /// It stops, and takes no new sessions.
    draining: bool,
    /// Why it is not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// What is full, so that publishing is refused until somebody makes room.
    #[serde(skip_serializing_if = "Option::is_none")]
    refusing: Option<&'static str>,
    /// What is needed from elsewhere and is not there: keys of the configuration that name it, and names of sources.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    awaiting: Vec<&'static str>,
}

/// Whether anyone should be sent here, and why not.
fn readiness(
    draining: bool,
    failing: Option<&'static str>,
    refusing: Option<&'static str>,
    awaiting: Vec<&'static str>,
) -> (StatusCode, Json<Ready>) {
    let reason = if draining {
        Some("the node drains")
    } else {
        failing
    };
    let is_ready = reason.is_none();
    let status = if is_ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let ready = Ready {
        ready: is_ready,
        draining,
        reason,
        refusing: refusing.filter(|_| is_ready),
        awaiting: if is_ready { awaiting } else { Vec::new() },
    };
    (status, Json(ready))
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
    use serde_json::json;

    #[test]
    fn what_is_not_ready_says_why() {
        let ready = |draining, failing| {
            let (status, Json(told)) = readiness(draining, failing, Some("letters"), Vec::new());
            (status.as_u16(), told.reason)
        };
        assert_eq!(ready(false, None), (200, None));
        assert_eq!(ready(false, Some("full")), (503, Some("full")));
        // A drain does not end, so it is the better reason of the two.
        assert_eq!(ready(true, Some("full")), (503, Some("the node drains")));
    }
    #[test]
    fn what_is_ready_says_what_does_not_work() {
        let ready = |refusing, awaiting| {
            let (status, Json(told)) = readiness(false, None, refusing, awaiting);
            (status.as_u16(), serde_json::to_value(told).unwrap())
        };
        let plain = json!({"ready": true, "draining": false});
        assert_eq!(ready(None, vec![]), (200, plain));
        let both = json!({"ready": true, "draining": false, "refusing": "letters", "awaiting": ["url"]});
        assert_eq!(ready(Some("letters"), vec!["url"]), (200, both));
    }
}
