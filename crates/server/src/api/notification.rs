//! `GET /v1/notifications/{id}`: what became of it, in numbers.

use super::refusal::Refusal;
use super::{Api, query};
use crate::auth::Scope;
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use postrider_engine::Recipients;
use postrider_model::{Audience, State as DeliveryState};
use postrider_transports::Problem;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Shows a notification.
pub async fn show(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Refusal> {
    api.key(&headers, Scope::Read)?;
    let id = query::id(path)?;
    let stored = api.engine.lookup(&id).await?.ok_or_else(Problem::not_found)?;
    let recipients = api.engine.recipients(&id, Recipients::All).await?;
    let (kind, is_wide) = match &stored.notification.audience {
        Audience::Users(_) => ("users", false),
        Audience::Topics(_) => ("topics", true),
        Audience::Everyone => ("everyone", true),
    };
    let mut counts = Map::new();
    for state in DeliveryState::ALL {
        let count = recipients.iter().filter(|recipient| recipient.state == state).count();
        let known = !(is_wide && state == DeliveryState::Pending);
        counts.insert(state.as_str().into(), if known { count.into() } else { Value::Null });
    }
    Ok(Json(json!({
        "id": id,
        "time": stored.notification.time,
        "subject": stored.notification.subject,
        "audience": {"kind": kind, "count": stored.recipients},
        "counts": counts,
    })))
}
