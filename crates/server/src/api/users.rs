//! `/v1/users`: the directory. Users are written, shown, listed, taken out, and erased.

use super::refusal::{Refusal, directory_problem, input_problem};
use super::{Api, body, query};
use crate::auth::Scope;
use axum::Json;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use postrider_engine::{Put, UserEntry, UserPut};
use postrider_model::{Timestamp, Topic, UserId};
use postrider_sources::users::{self, UserDraft};
use postrider_transports::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A user as it is written.
// Read by `postrider_sources::users`, which says precisely what is wrong; this says what may be there.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[schemars(rename = "UserProfile")]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "describes what another crate reads")]
pub struct UserBody {
    /// Where e-mail reaches the user.
    #[schemars(length(max = 320))]
    email: Option<String>,
    /// Where a text message does.
    #[schemars(length(max = 32))]
    mobile: Option<String>,
    /// A language tag such as `de-AT`.
    #[schemars(length(max = 35))]
    locale: Option<String>,
    /// A name of the IANA time zone database such as `Europe/Vienna`.
    #[schemars(length(max = 64))]
    time_zone: Option<String>,
    /// Whatever else is to be kept, by name: at most 64, names of at most 64 bytes, values of at most 1024, without
    /// control characters but tabs and ends of lines.
    attributes: Option<BTreeMap<String, String>>,
    /// The topics to be a member of, and of no others. Left out, or null: memberships stay as they are.
    topics: Option<Vec<String>>,
}

/// A user, as the directory has it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "User")]
pub struct UserShown {
    /// Who.
    #[schemars(with = "String")]
    id: UserId,
    /// Where e-mail reaches the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<String>,
    /// Where a text message does.
    #[serde(skip_serializing_if = "Option::is_none")]
    mobile: Option<String>,
    /// A language tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    locale: Option<String>,
    /// A name of the IANA time zone database.
    #[serde(skip_serializing_if = "Option::is_none")]
    time_zone: Option<String>,
    /// Whatever else is kept.
    attributes: BTreeMap<String, String>,
    /// The topics that the user is a member of now, by name.
    topics: Vec<TopicOfUser>,
    /// When the user was added.
    #[schemars(with = "String")]
    created_at: Timestamp,
    /// When something of this last changed.
    #[schemars(with = "String")]
    changed_at: Timestamp,
}

/// A topic that a user is a member of.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TopicOfUser {
    /// Its name.
    #[schemars(with = "String")]
    topic: Topic,
}

/// Users of the directory.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Users")]
pub struct UsersShown {
    /// By rising id.
    users: Vec<UserShown>,
    /// What to send as `after` for those that follow; null at the end.
    #[schemars(with = "Option<String>")]
    after: Option<UserId>,
}

/// What became of a user who was to be taken out.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Gone {
    /// Of the directory only.
    Removed {
        /// False where the directory knew nothing.
        removed: bool,
    },
    /// Of everything.
    Erased {
        /// False where nothing was known.
        erased: bool,
    },
}

impl From<UserEntry> for UserShown {
    fn from(entry: UserEntry) -> UserShown {
        let current = entry.memberships.into_iter().filter(|one| one.is_current());
        UserShown {
            id: entry.user,
            email: entry.profile.email,
            mobile: entry.profile.mobile,
            locale: entry.profile.locale,
            time_zone: entry.profile.time_zone,
            attributes: entry.profile.attributes,
            topics: current.map(|one| TopicOfUser { topic: one.topic }).collect(),
            created_at: entry.created_at,
            changed_at: entry.changed_at,
        }
    }
}

/// Writes a user: what was known is replaced.
pub async fn put(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    path: Result<Path<String>, PathRejection>,
    body: Body,
) -> Result<Response, Refusal> {
    api.key(&headers, Scope::Manage)?;
    let user = query::user(path)?;
    body::media_type(&headers, &["application/json"])?;
    let body = body::read_whole(&api, &headers, body, body::Most::bytes(users::LINE_BYTES)).await?;
    let draft = users::decode_user(user.clone(), &body)
        .map_err(|fault| input_problem(fault, Problem::invalid_user("", None)))?;
    let put = api.engine.put_users(vec![user_put(draft)]).await?;
    // One answer for one user; without it nothing is promised.
    let put = put.into_iter().next().ok_or_else(|| Problem::unavailable(1))?;
    let status = match put.map_err(|error| directory_problem(&error, Some("/topics")))? {
        Put::Created => StatusCode::CREATED,
        Put::Changed | Put::Same => StatusCode::OK,
    };
    // Who was removed again in the meantime is not there.
    let entry = api.engine.user(&user).await?.ok_or_else(Problem::not_found)?;
    Ok((status, Json(UserShown::from(entry))).into_response())
}

/// A user may be called as the import is: this path is both, by its methods.
fn import() -> Result<Path<String>, PathRejection> {
    Ok(Path("import".to_owned()))
}

/// Writes the user `import`.
pub async fn put_import(api: State<Arc<Api>>, headers: HeaderMap, body: Body) -> Result<Response, Refusal> {
    put(api, headers, import(), body).await
}

/// Shows the user `import`.
pub async fn show_import(api: State<Arc<Api>>, headers: HeaderMap) -> Result<Json<UserShown>, Refusal> {
    show(api, headers, import()).await
}

/// Takes the user `import` out of the directory, or removes all that is known of the user.
pub async fn delete_import(
    api: State<Arc<Api>>,
    headers: HeaderMap,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<Gone>, Refusal> {
    delete(api, headers, import(), wanted).await
}

/// What was written, as the engine takes it.
pub fn user_put(draft: UserDraft) -> UserPut {
    UserPut {
        user: draft.user,
        profile: draft.profile,
        topics: draft.topics,
    }
}

/// Shows a user.
pub async fn show(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<UserShown>, Refusal> {
    api.key(&headers, Scope::Manage)?;
    let entry = api.engine.user(&query::user(path)?).await?;
    Ok(Json(entry.ok_or_else(Problem::not_found)?.into()))
}

/// A page of all users.
pub async fn list(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    wanted: Result<Query<query::Page>, QueryRejection>,
) -> Result<Json<UsersShown>, Refusal> {
    api.key(&headers, Scope::Manage)?;
    let (after, limit) = query::query(wanted)?.bounds()?;
    let page = api.engine.users(after, limit).await?;
    let last = page.users.last().filter(|_| page.more);
    let after = last.map(|entry| entry.user.clone());
    let users = page.users.into_iter().map(UserShown::from).collect();
    Ok(Json(UsersShown { users, after }))
}

/// How much is to be forgotten.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// All that is known of the user: feed, states, dead letters, and notifications for nobody else. Otherwise only
    /// what the directory says, and the memberships.
    erase: Option<bool>,
}

/// Takes a user out of the directory, or removes all that is known of the user.
pub async fn delete(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    path: Result<Path<String>, PathRejection>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<Gone>, Refusal> {
    api.key(&headers, Scope::Manage)?;
    let user = query::user(path)?;
    Ok(Json(match query::query(wanted)?.erase {
        Some(true) => Gone::Erased {
            erased: api.engine.erase(&user).await?,
        },
        _ => Gone::Removed {
            removed: api.engine.remove_user(&user).await?,
        },
    }))
}
