//! `/v1/users/{id}/state` and `/v1/inbox/state`: a user's state map.
//!
//! Invariant: a change is made whole or not at all, and is durable when it is answered. The answer is the map as this
//! change left it, with its version: later changes have higher ones.

use super::inbox::identify;
use super::refusal::{Refusal, engine_problem, input_problem, sentence};
use super::{Api, body, query};
use crate::auth::Scope;
use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use postrider_model::{StateChange, StateError, UserId, UserState};
use postrider_sources::{InputFault, state};
use postrider_transports::Problem;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most bytes of a change: the largest map, with every character escaped.
pub const BODY_BYTES: usize = 128 * 1024;
/// What a merge may be called. The second is its name (RFC 7396).
const MERGE_TYPES: [&str; 2] = ["application/json", "application/merge-patch+json"];

/// A user's state map.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "UserState")]
pub struct StateShown {
    /// The map, keys in order.
    state: BTreeMap<String, String>,
    /// Rises with every change; 0 where it was never set.
    version: u64,
}

impl From<UserState> for StateShown {
    fn from(state: UserState) -> StateShown {
        StateShown {
            version: state.version(),
            state: state.map().clone(),
        }
    }
}

/// A user's map.
pub async fn of_user(api: &Api, user: &UserId) -> Result<UserState, Problem> {
    api.engine
        .state(user)
        .await
        .map_err(|error| engine_problem(&error))
}

/// Shows it.
pub async fn show(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<StateShown>, Refusal> {
    api.key(&headers, Scope::Manage)?;
    let state = of_user(&api, &query::user(path)?).await?;
    Ok(Json(state.into()))
}

/// Shows users their own.
pub async fn own(State(api): State<Arc<Api>>, headers: HeaderMap) -> Result<Json<StateShown>, Refusal> {
    let user = identify(&api, &headers)?.user;
    Ok(Json(of_user(&api, &user).await?.into()))
}

/// Sets and removes.
pub async fn merge(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    path: Result<Path<String>, PathRejection>,
    body: Body,
) -> Result<Json<StateShown>, Refusal> {
    api.key(&headers, Scope::Manage)?;
    let user = query::user(path)?;
    let change = read(&api, &headers, body, &MERGE_TYPES, state::decode_merge).await?;
    apply(&api, &user, change).await
}

/// Adds.
pub async fn increment(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    path: Result<Path<String>, PathRejection>,
    body: Body,
) -> Result<Json<StateShown>, Refusal> {
    api.key(&headers, Scope::Manage)?;
    let user = query::user(path)?;
    let change = read(&api, &headers, body, &MERGE_TYPES[..1], state::decode_increment).await?;
    apply(&api, &user, change).await
}

/// Removes all of it.
pub async fn clear(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<StateShown>, Refusal> {
    api.key(&headers, Scope::Manage)?;
    apply(&api, &query::user(path)?, StateChange::Clear).await
}

async fn read(
    api: &Api,
    headers: &HeaderMap,
    body: Body,
    types: &[&'static str],
    decode: fn(&[u8]) -> Result<StateChange, InputFault>,
) -> Result<StateChange, Problem> {
    body::media_type(headers, types)?;
    let body = body::read_whole(api, headers, body, body::Most::bytes(BODY_BYTES)).await?;
    decode(&body).map_err(unreadable)
}

async fn apply(api: &Api, user: &UserId, change: StateChange) -> Result<Json<StateShown>, Refusal> {
    Ok(Json(change_of(api, user, change).await?.into()))
}

/// Changes it, and gives what the change left.
pub async fn change_of(api: &Api, user: &UserId, change: StateChange) -> Result<UserState, Problem> {
    let changed = api.engine.change_state(user, change).await;
    changed.map_err(|e| engine_problem(&e))?.map_err(|e| problem(&e))
}

/// A merge as it was written.
pub fn read_merge(body: &[u8]) -> Result<StateChange, Problem> {
    state::decode_merge(body).map_err(unreadable)
}

fn unreadable(fault: InputFault) -> Problem {
    input_problem(fault, Problem::invalid_request(""))
}

/// Why a map cannot be changed so, as the client is told it.
fn problem(error: &StateError) -> Problem {
    let at = |key: &str| Some(format!("/{}", key.replace('~', "~0").replace('/', "~1")));
    let detail = sentence(error);
    match error {
        StateError::NotANumber { key } | StateError::Overflow { key } => {
            Problem::state_conflict(format!("{detail} Nothing was changed."), at(key))
        }
        StateError::BadKey { key } => Problem {
            pointer: at(key),
            ..Problem::invalid_request(detail)
        },
        StateError::TooLarge { .. } | StateError::TooManyKeys { .. } => Problem::too_large(detail, None),
    }
}
