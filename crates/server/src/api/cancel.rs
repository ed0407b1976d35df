//! `DELETE /v1/notifications/{id}`: takes one back.

use super::refusal::Refusal;
use super::{Api, query, text};
use crate::auth::Scope;
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
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
    let id = query::id(path)?;
    let stored = api.engine.lookup(&id).await?.ok_or_else(Problem::not_found)?;
    if stored.notification.publisher != key.name {
        key.require(Scope::Manage)?;
    }
    let cancelled = api.engine.cancel(&id).await?.ok_or_else(Problem::not_found)?;
    Ok(Json(json!({ "cancelled": cancelled })))
}
