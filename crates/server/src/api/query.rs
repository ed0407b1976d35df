//! Path and query parameters.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query};
use postrider_model::NotificationId;
use postrider_transports::Problem;

/// The id in a path; one that cannot exist is not found.
pub fn id(path: Result<Path<String>, PathRejection>) -> Result<NotificationId, Problem> {
    let Path(text) = path.map_err(|_| Problem::not_found())?;
    NotificationId::new(&text).map_err(|_| Problem::not_found())
}

/// The query, decoded.
pub fn query<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Problem> {
    let Query(query) = query
        .map_err(|e| Problem::invalid_request(format!("The query cannot be read: {}.", e.body_text())))?;
    Ok(query)
}
