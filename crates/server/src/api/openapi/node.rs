//! The node itself: probes, metrics, this description.

use super::operation::{Operation, Task};
use super::shapes;
use crate::{metrics, ops};
use serde_json::json;

const JSON: &str = "application/json";

/// `GET /health`
pub fn health() -> Operation {
    Operation::get("/health", "health")
        .says(Task::Operate, "Is the process alive?", "For a liveness probe.")
        .answers(200, "It is.")
        .holding::<ops::Health>(
            JSON,
            vec![("alive", json!({ "status": "ok", "version": "0.1.0" }))],
        )
}

/// `GET /ready`
pub fn ready() -> Operation {
    Operation::get("/ready", "ready")
        .says(
            Task::Operate,
            "Should anyone be sent here?",
            "For a readiness probe. What is full, or awaited from elsewhere, is told and does not make it unready.",
        )
        .answers(200, "Yes.")
        .holding::<ops::Ready>(JSON, vec![("ready", json!({ "ready": true, "draining": false }))])
        .answers(503, "No, and why.")
        .holding::<ops::Ready>(
            JSON,
            vec![("draining", json!({ "ready": false, "draining": true, "reason": "the node drains" }))],
        )
}

/// `GET /metrics`
pub fn counted() -> Operation {
    Operation::get("/metrics", "metrics")
        .says(Task::Operate, "What the node counts", "For Prometheus.")
        .answers(200, "OpenMetrics text.")
        .holding::<shapes::Text>(
            metrics::CONTENT_TYPE,
            vec![(
                "some",
                json!(
                    "# TYPE postrider_sessions gauge\npostrider_sessions{transport=\"websocket\"} 2\n# EOF\n"
                ),
            )],
        )
}

/// `GET /openapi.json`
pub fn document() -> Operation {
    Operation::get("/openapi.json", "openapi")
        .says(Task::Describe, "This document", "OpenAPI 3.1.")
        .answers(200, "The document.")
        .holding::<shapes::Object>(JSON, Vec::new())
}

/// `GET /docs`
pub fn page() -> Operation {
    Operation::get("/docs", "docs")
        .says(Task::Describe, "The same, to be read", "A page without scripts.")
        .answers(200, "The page.")
        .holding::<shapes::Text>("text/html; charset=utf-8", Vec::new())
}
