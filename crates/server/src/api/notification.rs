//! `GET /v1/notifications/{id}`: what became of it, in numbers.

use super::openapi::shapes;
use super::refusal::{Refusal, engine_problem};
use super::{Api, query};
use crate::auth::Scope;
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
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
) -> Result<Json<Shown>, Refusal> {
    api.key(&headers, Scope::Read)?;
    Ok(Json(find(&api, query::id(path)?).await?))
}

/// What became of the notification of this id.
pub async fn find(api: &Api, id: NotificationId) -> Result<Shown, Problem> {
    let refused = |error| engine_problem(&error);
    let stored = api.engine.lookup(&id).await.map_err(refused)?;
    let stored = stored.ok_or_else(Problem::not_found)?;
    let recipients = api
        .engine
        .recipients(&id, Recipients::All)
        .await
        .map_err(refused)?;
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
    Ok(Shown {
        id,
        time: stored.notification.time,
        subject: stored.notification.subject.clone(),
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
    })
}

/// What became of a notification.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "NotificationStatus")]
pub struct Shown {
    #[schemars(with = "shapes::NotificationText")]
    pub id: NotificationId,
    /// When it was accepted.
    #[schemars(with = "shapes::Time")]
    pub time: Timestamp,
    pub subject: Option<String>,
    pub audience: Reach,
    pub counts: Counts,
}

/// Whom it was for.
#[derive(Serialize, JsonSchema)]
pub struct Reach {
    /// `users`, `topics` or `everyone`.
    pub kind: &'static str,
    /// How many; null for a wide audience.
    pub count: Option<u64>,
}

/// Recipients by state; for a wide audience, those of whom something is recorded.
#[derive(Serialize, JsonSchema)]
pub struct Counts {
    /// Null for a wide audience.
    pub pending: Option<usize>,
    pub delivered: usize,
    pub read: usize,
    pub expired: usize,
    pub cancelled: usize,
    pub dead: usize,
}
