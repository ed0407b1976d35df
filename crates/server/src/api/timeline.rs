//! `GET /v1/notifications/{id}/timeline`: the story of a notification, for all or for one user.

use super::openapi::shapes;
use super::refusal::Refusal;
use super::{Api, query};
use crate::auth::Scope;
use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use postrider_engine::{RecipientState, Recipients, Stored};
use postrider_model::{Mark, MarkKind, NotificationId, State as DeliveryState, Timestamp, UserId};
use postrider_transports::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// One answer tells at most so many events; the earliest of those it has.
const EVENTS: usize = 10_000;

/// The query.
#[derive(Deserialize, JsonSchema)]
pub struct Wanted {
    /// Of this user only.
    #[schemars(with = "Option<shapes::UserText>")]
    user: Option<String>,
}

/// Tells the story.
pub async fn timeline(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    path: Result<Path<String>, PathRejection>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Refusal> {
    api.key(&headers, Scope::Read)?;
    let id = query::id(path)?;
    let user = match query::query(wanted)?.user {
        Some(text) => {
            Some(UserId::new(&text).map_err(|e| Problem::invalid_request(format!("The user: {e}.")))?)
        }
        None => None,
    };
    let stored = api.engine.lookup(&id).await?.ok_or_else(Problem::not_found)?;
    let which = user.clone().map_or(Recipients::All, Recipients::One);
    let recipients = api.engine.recipients(&id, which).await?;
    let state = user
        .and_then(|_| recipients.first())
        .map(|recipient| recipient.state.as_str());
    let story = Story {
        id: &id,
        state,
        events: events(&stored, &recipients),
    };
    Ok(Json(story).into_response())
}

/// The story of a notification.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Timeline")]
pub struct Story<'a> {
    #[schemars(with = "shapes::NotificationText")]
    id: &'a NotificationId,
    /// Of the one user who was asked for, if that is a recipient.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    /// In the order of time.
    events: Vec<Event<'a>>,
}

/// One line of the story.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "TimelineEvent")]
struct Event<'a> {
    #[schemars(with = "shapes::Time")]
    time: Timestamp,
    /// `accepted`, `scheduled`, `delivered`, `read`, `withdrawn`, `expired`, `cancelled`, `dead` or `redriven`.
    event: &'static str,
    /// Whom it befell; not there for what befell all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<shapes::UserText>")]
    user: Option<&'a UserId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transport: Option<&'static str>,
    /// What told that it was delivered: `pong`, `tcp`, `cursor` or `client`.
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

/// What is recorded, in the order of time. What was true of all recipients has no user.
fn events<'a>(stored: &'a Stored, recipients: &'a [RecipientState]) -> Vec<Event<'a>> {
    let notification = &stored.notification;
    let plain = |time, event| Event {
        time,
        event,
        user: None,
        session: None,
        transport: None,
        evidence: None,
        reason: None,
    };
    let mut events = vec![plain(notification.time, "accepted")];
    events.extend(notification.deliver_at.map(|at| plain(at, "scheduled")));
    for recipient in recipients {
        let marks = recipient.marks.iter();
        events.extend(marks.map(|mark| of_mark(&recipient.user, mark)));
        let has_end = recipient.marks.iter().any(|mark| mark.kind == MarkKind::Expired);
        if let (DeliveryState::Expired, Some(at), false) = (recipient.state, notification.expires_at, has_end)
        {
            events.push(Event {
                user: Some(&recipient.user),
                ..plain(at, "expired")
            });
        }
    }
    let told = events.iter().any(|event| event.event == "cancelled");
    if let (Some(at), false) = (stored.cancelled_at, told) {
        events.push(plain(at, "cancelled"));
    }
    events.sort_by_key(|event| event.time);
    events.truncate(EVENTS);
    events
}

fn of_mark<'a>(user: &'a UserId, mark: &'a Mark) -> Event<'a> {
    let event = match mark.kind {
        MarkKind::Delivered => "delivered",
        MarkKind::Read => "read",
        MarkKind::Cancelled => "cancelled",
        MarkKind::Expired => "expired",
        MarkKind::Dead => "dead",
        MarkKind::Dismissed => "withdrawn",
        MarkKind::Redriven => "redriven",
    };
    let is_evidence = matches!(mark.kind, MarkKind::Delivered | MarkKind::Read);
    let why = (!mark.why.is_empty()).then_some(mark.why.as_str());
    Event {
        time: mark.time,
        event,
        user: Some(user),
        session: mark.session.as_ref().map(|session| session.as_str()),
        transport: mark.transport.map(|transport| transport.as_str()),
        evidence: why.filter(|_| is_evidence),
        reason: why.filter(|_| !is_evidence),
    }
}
