//! `DELETE /v1/notifications/{id}`: takes one back.

use super::refusal::{Refusal, engine_problem};
use super::{Api, query, text};
use crate::auth::{ApiKey, Scope};
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use postrider_model::NotificationId;
use postrider_transports::Problem;
use serde_json::{Value, json};
use std::sync::Arc;

/// Cancels a notification for the key that published it, or one with the scope `manage`.
pub async fn cancel(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Refusal> {
    let key = api.auth.api_key(text(&headers, header::AUTHORIZATION.as_str()))?;
    let cancelled = take_back(&api, &key, &query::id(path)?).await?;
    Ok(Json(json!({ "cancelled": cancelled })))
}

/// Takes it back, and says of how many recipients; `None` where nobody counts them.
pub async fn take_back(api: &Api, key: &ApiKey, id: &NotificationId) -> Result<Option<u64>, Problem> {
    let stored = api.engine.lookup(id).await.map_err(|e| engine_problem(&e))?;
    if stored.ok_or_else(Problem::not_found)?.notification.publisher != key.name {
        key.require(Scope::Manage)?;
    }
    let cancelled = api.engine.cancel(id).await.map_err(|e| engine_problem(&e))?;
    cancelled.ok_or_else(Problem::not_found)
}
