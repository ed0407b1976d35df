//! Who is there: `/v1/users/{id}/presence`, `/v1/topics/{topic}/presence`, and `/v1/presence/stream`.

use super::refusal::{Refusal, engine_problem};
use super::{Api, query, text};
use crate::auth::Scope;
use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, header};
use postrider_engine::UserPresence;
use postrider_model::{SessionId, Topic, UserId};
use postrider_transports::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Whether a user is there.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "UserPresence")]
pub struct UserPresenceShown {
    /// Who.
    #[schemars(with = "String")]
    user: UserId,
    /// Has a session, or had one a moment ago (`presence.linger`).
    online: bool,
    /// The sessions there are now, by id.
    sessions: Vec<SessionShown>,
}

/// A session.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Session")]
pub struct SessionShown {
    /// Its id.
    #[schemars(with = "String")]
    session: SessionId,
    /// `long_poll`, `sse` or `websocket`.
    transport: &'static str,
}

/// Who hears a topic now: members and session topics alike.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "TopicPresence")]
pub struct TopicPresenceShown {
    /// Which topic.
    #[schemars(with = "String")]
    topic: Topic,
    /// Sessions.
    sessions: u64,
    /// Distinct users.
    users: u64,
    /// Some of them, by rising id; where they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<String>>")]
    present: Option<Vec<UserId>>,
    /// What to send as `after` for those that follow; null at the end. Where they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "super::openapi::shapes::UserOrNone")]
    after: Option<Option<UserId>>,
}

/// What is wanted of a topic's presence.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TopicWanted {
    /// Names users, too.
    users: Option<bool>,
    /// Those that come after this user id; what an answer says as `after`.
    #[schemars(with = "Option<super::openapi::shapes::UserText>")]
    after: Option<String>,
    /// Most of them: 1 to 1000, 50 by default.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<usize>,
}

/// Refuses a key that has neither of the scopes that may see presence.
pub fn allow(api: &Api, headers: &HeaderMap) -> Result<(), Problem> {
    let key = api.auth.api_key(text(headers, header::AUTHORIZATION.as_str()))?;
    match key.has(Scope::Manage) {
        true => Ok(()),
        false => key.require(Scope::Read),
    }
}

/// Whether a user is there.
pub async fn of_user(api: &Api, user: &UserId) -> Result<UserPresence, Problem> {
    let presence = api.presence.user_presence(user).await;
    presence.map_err(|error| engine_problem(&error))
}

/// Shows whether a user is there.
pub async fn user(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<UserPresenceShown>, Refusal> {
    allow(&api, &headers)?;
    let user = query::user(path)?;
    let presence = of_user(&api, &user).await?;
    let sessions = presence.sessions.into_iter().map(|one| SessionShown {
        session: one.session,
        transport: one.transport.as_str(),
    });
    Ok(Json(UserPresenceShown {
        user,
        online: presence.online,
        sessions: sessions.collect(),
    }))
}

/// Shows who hears a topic.
pub async fn topic(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    path: Result<Path<String>, PathRejection>,
    wanted: Result<Query<TopicWanted>, QueryRejection>,
) -> Result<Json<TopicPresenceShown>, Refusal> {
    allow(&api, &headers)?;
    let topic = query::topic(path)?;
    let TopicWanted { users, after, limit } = query::query(wanted)?;
    let (after, limit) = query::Page { after, limit }.bounds()?;
    let is_named = users == Some(true);
    let limit = if is_named { limit } else { 0 };
    let presence = api.presence.topic_presence(&topic, after, limit).await?;
    let last = presence.page.last().filter(|_| presence.more).cloned();
    Ok(Json(TopicPresenceShown {
        topic,
        sessions: presence.sessions,
        users: presence.users,
        present: is_named.then_some(presence.page),
        after: is_named.then_some(last),
    }))
}
