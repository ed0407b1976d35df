//! `DELETE /v1/users/{id}?erase=true`: forgets a user.

use super::refusal::Refusal;
use super::{Api, query};
use crate::auth::Scope;
use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use postrider_model::UserId;
use postrider_transports::Problem;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// The query.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    erase: Option<bool>,
}

/// Removes all that is known of the user: feed, states, dead letters, and notifications for nobody else.
pub async fn erase(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    path: Result<Path<String>, PathRejection>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<Value>, Refusal> {
    api.key(&headers, Scope::Manage)?;
    let Path(id) = path.map_err(|_| Problem::not_found())?;
    let user = UserId::new(&id).map_err(|e| Problem::invalid_request(format!("The user: {e}.")))?;
    if query::query(wanted)?.erase != Some(true) {
        let detail =
            "Say `?erase=true`: all that is known of the user is removed, and that cannot be undone.";
        return Err(Problem::invalid_request(detail).into());
    }
    let erased = api.engine.erase(&user).await?;
    Ok(Json(json!({ "erased": erased })))
}
