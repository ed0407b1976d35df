//! Which instance has a user: `/v1/registry/{id}`.

use super::refusal::{Refusal, engine_problem};
use super::{Api, query};
use crate::auth::Scope;
use crate::registry::LookupFault;
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use postrider_model::UserId;
use postrider_transports::Problem;
use schemars::JsonSchema;
use serde::Serialize;
use std::sync::Arc;

/// After how many seconds it is worth asking again where the table cannot be read.
const RETRY_S: u32 = 1;

/// Which instance has a user.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "UserInstance")]
pub struct UserInstanceShown {
    /// Who.
    #[schemars(with = "String")]
    user: UserId,
    /// The `instance` of a node that has a session of the user; null while none has.
    instance: Option<String>,
}

/// Shows which instance has a user.
pub async fn of_user(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<UserInstanceShown>, Refusal> {
    api.key(&headers, Scope::Publish)?;
    let user = query::user(path)?;
    let found = api.registry.instance_of(&user, &*api.presence).await;
    let instance = found.map_err(problem)?;
    Ok(Json(UserInstanceShown { user, instance }))
}

fn problem(fault: LookupFault) -> Problem {
    match fault {
        LookupFault::None => Problem {
            detail: "No registry is configured here, so nobody can tell: `registry.type` says where one is."
                .into(),
            ..Problem::not_found()
        },
        LookupFault::Presence(error) => engine_problem(&error),
        fault => {
            // That the table is away is told as a warning by who writes it, and a refusal where it was met.
            tracing::debug!(%fault, "the registry cannot be read");
            Problem::unavailable(RETRY_S)
        }
    }
}
