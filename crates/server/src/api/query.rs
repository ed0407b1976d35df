//! Path and query parameters.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query};
use postrider_model::{NotificationId, Topic, UserId};
use postrider_transports::Problem;
use schemars::JsonSchema;
use serde::Deserialize;

/// Items of a page, by default and at most.
const LIMIT_DEFAULT: usize = 50;
const LIMIT_MOST: usize = 1000;

/// The id in a path; one that cannot exist is not found.
pub fn id(path: Result<Path<String>, PathRejection>) -> Result<NotificationId, Problem> {
    let Path(text) = path.map_err(|_| Problem::not_found())?;
    NotificationId::new(&text).map_err(|_| Problem::not_found())
}

/// The user in a path.
pub fn user(path: Result<Path<String>, PathRejection>) -> Result<UserId, Problem> {
    let Path(text) = path.map_err(|_| Problem::not_found())?;
    user_of(&text)
}

/// The topic in a path.
pub fn topic(path: Result<Path<String>, PathRejection>) -> Result<Topic, Problem> {
    let Path(text) = path.map_err(|_| Problem::not_found())?;
    topic_of(&text)
}

/// A user's id.
pub fn user_of(text: &str) -> Result<UserId, Problem> {
    UserId::new(text).map_err(|e| Problem::invalid_request(format!("The user: {e}.")))
}

/// A topic.
pub fn topic_of(text: &str) -> Result<Topic, Problem> {
    Topic::new(text).map_err(|e| Problem::invalid_request(format!("The topic: {e}.")))
}

/// The query, decoded.
pub fn query<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Problem> {
    let Query(query) = query
        .map_err(|e| Problem::invalid_request(format!("The query cannot be read: {}.", e.body_text())))?;
    Ok(query)
}

/// Which page of a list by user id is asked for.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Page {
    /// Those that come after this user id; what an answer says as `after`.
    #[schemars(with = "Option<super::openapi::shapes::UserText>")]
    pub after: Option<String>,
    /// Most of them: 1 to 1000, 50 by default.
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<usize>,
}

impl Page {
    /// The user after whom it begins, and its length.
    pub fn bounds(&self) -> Result<(Option<UserId>, usize), Problem> {
        let limit = self.limit.unwrap_or(LIMIT_DEFAULT);
        if limit == 0 || limit > LIMIT_MOST {
            let detail = format!("The parameter limit must be 1 to {LIMIT_MOST}.");
            return Err(Problem::invalid_request(detail));
        }
        let after = self.after.as_deref().map(user_of).transpose()?;
        Ok((after, limit))
    }
}
