//! `POST /v1/tickets`: a ticket for a place where no header can be sent.

use super::refusal::Refusal;
use super::{Api, inbox};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;

/// Makes a ticket for the user of the token.
pub async fn issue(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    let identity = inbox::identify(&api, &headers)?;
    let (ticket, expires_in) = api.auth.issue_ticket(identity, crate::now())?;
    Ok((
        StatusCode::CREATED,
        Json(json!({ "ticket": ticket, "expires_in": expires_in })),
    ))
}
