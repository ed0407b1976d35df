//! The operations listener: whether the node lives, whether it is ready, and what it counts. It has a port
//! of its own, which does not belong on a public network.

use crate::connection::serve_connection;
use crate::drain::Drain;
use crate::metrics::{CONTENT_TYPE, Metrics};
use crate::tasks::Tasks;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Connections at a time; further ones wait.
const CONNECTIONS: usize = 64;
/// After a failed accept, which usually means too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Brings gauges that others count up to date before they are shown.
pub type Refresh = Arc<dyn Fn(&Metrics) + Send + Sync>;

/// `/health`, `/ready`, `/metrics`.
pub fn router(metrics: Arc<Metrics>, refresh: Refresh, drain: Drain) -> Router {
    let version = env!("CARGO_PKG_VERSION");
    let health = move || async move { Json(json!({ "status": "ok", "version": version })) };
    let ready = move || {
        let draining = drain.has_begun();
        async move {
            let status = if draining {
                StatusCode::SERVICE_UNAVAILABLE
            } else {
                StatusCode::OK
            };
            (status, Json(json!({ "ready": !draining, "draining": draining })))
        }
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

/// Accepts until the runtime ends: a draining node still answers its probes.
pub async fn serve(listener: TcpListener, router: Router, tasks: Tasks, never: Drain) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((socket, peer)) => {
                let served = serve_connection(router.clone(), socket, Bytes::new(), peer, never.clone());
                tasks.spawn("ops connection", async move {
                    served.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the operations listener");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
