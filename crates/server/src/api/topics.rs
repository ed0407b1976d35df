//! `/v1/topics/{topic}`: who is a member, and joining and leaving.

use super::refusal::{Refusal, directory_problem};
use super::{Api, query};
use crate::auth::Scope;
use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use postrider_engine::MemberChange;
use postrider_model::{Topic, UserId};
use postrider_transports::Problem;
use schemars::JsonSchema;
use serde::Serialize;
use std::sync::Arc;

/// A topic, in numbers.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "TopicFacts")]
pub struct TopicShown {
    /// Which topic.
    #[schemars(with = "String")]
    topic: Topic,
    /// How many members it has.
    members: u64,
    /// Who hears it now, members and session topics alike.
    presence: PresentCount,
}

/// How many are there now.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PresentCount {
    /// Sessions.
    pub sessions: u64,
    /// Distinct users.
    pub users: u64,
}

/// Members of a topic.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Members")]
pub struct MembersShown {
    /// By rising id.
    #[schemars(with = "Vec<String>")]
    members: Vec<UserId>,
    /// How many members the topic has in all.
    count: u64,
    /// What to send as `after` for those that follow; null at the end.
    #[schemars(with = "Option<String>")]
    after: Option<UserId>,
}

/// What became of joining or leaving.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Changed {
    /// False where it was so already.
    changed: bool,
}

/// Shows a topic. One that nobody uses is as good as any.
pub async fn show(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<TopicShown>, Refusal> {
    api.key(&headers, Scope::Manage)?;
    let topic = query::topic(path)?;
    let members = api.engine.members(&topic, None, 0).await?.count;
    let present = api.presence.topic_presence(&topic, None, 0).await?;
    Ok(Json(TopicShown {
        topic,
        members,
        presence: PresentCount {
            sessions: present.sessions,
            users: present.users,
        },
    }))
}

/// A page of its members.
pub async fn members(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    path: Result<Path<String>, PathRejection>,
    wanted: Result<Query<query::Page>, QueryRejection>,
) -> Result<Json<MembersShown>, Refusal> {
    api.key(&headers, Scope::Manage)?;
    let topic = query::topic(path)?;
    let (after, limit) = query::query(wanted)?.bounds()?;
    let page = api.engine.members(&topic, after, limit).await?;
    let after = page.users.last().filter(|_| page.more).cloned();
    Ok(Json(MembersShown {
        members: page.users,
        count: page.count,
        after,
    }))
}

/// Makes a user a member.
pub async fn join(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<Changed>, Refusal> {
    change(&api, &headers, path, true).await
}

/// Ends a user's membership.
pub async fn leave(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<Changed>, Refusal> {
    change(&api, &headers, path, false).await
}

async fn change(
    api: &Api,
    headers: &HeaderMap,
    path: Result<Path<(String, String)>, PathRejection>,
    joins: bool,
) -> Result<Json<Changed>, Refusal> {
    api.key(headers, Scope::Manage)?;
    let Path((topic, user)) = path.map_err(|_| Problem::not_found())?;
    let (topic, user) = (query::topic_of(&topic)?, query::user_of(&user)?);
    let change = MemberChange { topic, user, joins };
    let changed = api.engine.change_members(vec![change]).await?;
    // One answer for one change; without it nothing is promised.
    let changed = changed
        .into_iter()
        .next()
        .ok_or_else(|| Problem::unavailable(1))?;
    let changed = changed.map_err(|error| directory_problem(&error, None))?;
    Ok(Json(Changed { changed }))
}
