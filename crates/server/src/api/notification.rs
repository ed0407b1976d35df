//! `GET /v1/notifications/{id}`: what became of it, in numbers.

use super::openapi::shapes;
use super::refusal::Refusal;
use super::{Api, query};
use crate::auth::Scope;
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use postrider_engine::Recipients;
use postrider_model::{Audience, NotificationId, State as DeliveryState, Timestamp};
use postrider_transports::Problem;
use schemars::JsonSchema;
use serde::Serialize;
use std::sync::Arc;

/// Shows a notification.
pub async fn show(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Refusal> {
    api.key(&headers, Scope::Read)?;
    let id = query::id(path)?;
    let stored = api.engine.lookup(&id).await?.ok_or_else(Problem::not_found)?;
    let recipients = api.engine.recipients(&id, Recipients::All).await?;
    let (kind, is_wide) = match &stored.notification.audience {
        Audience::Users(_) => ("users", false),
        Audience::Topics(_) => ("topics", true),
        Audience::Everyone => ("everyone", true),
    };
    let count = |state| {
        recipients
            .iter()
            .filter(|recipient| recipient.state == state)
            .count()
    };
    let shown = Shown {
        id: &id,
        time: stored.notification.time,
        subject: stored.notification.subject.as_deref(),
        audience: Reach {
            kind,
            count: stored.recipients,
        },
        counts: Counts {
            pending: (!is_wide).then(|| count(DeliveryState::Pending)),
            delivered: count(DeliveryState::Delivered),
            read: count(DeliveryState::Read),
            expired: count(DeliveryState::Expired),
            cancelled: count(DeliveryState::Cancelled),
            dead: count(DeliveryState::Dead),
        },
    };
    Ok(Json(shown).into_response())
}

/// What became of a notification.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "NotificationStatus")]
pub struct Shown<'a> {
    #[schemars(with = "shapes::NotificationText")]
    id: &'a NotificationId,
    /// When it was accepted.
    #[schemars(with = "shapes::Time")]
    time: Timestamp,
    subject: Option<&'a str>,
    audience: Reach,
    counts: Counts,
}

/// Whom it was for.
#[derive(Serialize, JsonSchema)]
struct Reach {
    /// `users`, `topics` or `everyone`.
    kind: &'static str,
    /// How many; null for a wide audience.
    count: Option<u64>,
}

/// Recipients by state; for a wide audience, those of whom something is recorded.
#[derive(Serialize, JsonSchema)]
struct Counts {
    /// Null for a wide audience.
    pending: Option<usize>,
    delivered: usize,
    read: usize,
    expired: usize,
    cancelled: usize,
    dead: usize,
}
