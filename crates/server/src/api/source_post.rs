//! `POST /v1/sources/{source}`: where a source is posted to, rather than asked.

use super::body::{Most, read_whole};
use super::{Api, Refusal};
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use postrider_transports::Problem;
use std::sync::Arc;

/// Bytes of a post: SNS publishes at most 256 KiB, which its JSON may write six times as long.
const POST_BYTES: usize = 2 << 20;

/// Takes a post, and answers when it is settled.
pub async fn post(
    State(api): State<Arc<Api>>,
    Path(source): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    match take(&api, &source, headers, body).await {
        Ok(()) => StatusCode::OK.into_response(),
        Err(problem) => refused(problem),
    }
}

async fn take(api: &Api, source: &str, headers: HeaderMap, body: Body) -> Result<(), Problem> {
    let door = api.doors.find(source).ok_or_else(Problem::not_found)?;
    door.admit(&headers)?;
    let body = read_whole(api, &headers, body, Most::bytes(POST_BYTES)).await?;
    door.post(headers, body).await
}

fn refused(problem: Problem) -> Response {
    let asks_for_password = problem.status == StatusCode::UNAUTHORIZED.as_u16();
    let mut response = Refusal::from(problem).into_response();
    if asks_for_password {
        // SNS sends the name and password of an address only when it is asked for them so.
        let basic = HeaderValue::from_static("Basic realm=\"postrider\", charset=\"UTF-8\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, basic);
    }
    response
}
