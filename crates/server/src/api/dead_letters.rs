//! `/v1/dead-letters`: what nothing could deliver, listed, shown, thrown away, redriven singly.

use super::openapi::shapes;
use super::refusal::Refusal;
use super::{Api, query};
use crate::auth::Scope;
use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postrider_engine::Redriven;
use postrider_model::{DeadBody, DeadLetter, DeadLetterFilter, DeadLetterId, DeadReason, UserId, json};
use postrider_transports::Problem;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// Dead letters of a page, by default and at most.
const LIMIT_DEFAULT: usize = 50;
const LIMIT_MOST: usize = 1000;

/// Which are asked for.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Of this user.
    #[schemars(with = "Option<shapes::UserText>")]
    user: Option<String>,
    /// Given up for this reason.
    #[schemars(with = "Option<shapes::DeadReason>")]
    reason: Option<String>,
    /// From this source.
    source: Option<String>,
    /// Most of a page; 50 where it is not said.
    #[schemars(range(min = 1, max = LIMIT_MOST))]
    limit: Option<usize>,
    /// Where to go on: what the page before said.
    #[schemars(with = "Option<shapes::LetterText>")]
    after: Option<String>,
}

/// A page of them, oldest first.
pub async fn list(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Refusal> {
    api.key(&headers, Scope::Manage)?;
    let wanted = query::query(wanted)?;
    let limit = wanted.limit.unwrap_or(LIMIT_DEFAULT);
    if limit == 0 || limit > LIMIT_MOST {
        let detail = format!("The parameter limit must be 1 to {LIMIT_MOST}.");
        return Err(Problem::invalid_request(detail).into());
    }
    let after = match &wanted.after {
        None => None,
        Some(text) => Some(DeadLetterId::parse(text).ok_or_else(|| {
            Problem::invalid_request("The parameter after must be what an earlier answer said.")
        })?),
    };
    let filter = filter(
        wanted.user.as_deref(),
        wanted.reason.as_deref(),
        wanted.source.as_deref(),
    )?;
    let page = api.engine.dead_letters(&filter, after, limit).await?;
    let mut out = br#"{"dead_letters":["#.to_vec();
    for (i, letter) in page.letters.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        push_letter(&mut out, letter);
    }
    out.extend_from_slice(br#"],"after":"#);
    match page.after {
        Some(id) => json::push_string(&mut out, &id.to_string()),
        None => out.extend_from_slice(b"null"),
    }
    out.push(b'}');
    Ok(json_response(out))
}

/// One of them.
pub async fn show(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Refusal> {
    api.key(&headers, Scope::Manage)?;
    let letter = api.engine.dead_letter(letter_id(path)?).await?;
    let mut out = Vec::new();
    push_letter(&mut out, &letter.ok_or_else(Problem::not_found)?);
    Ok(json_response(out))
}

/// Throws one away.
pub async fn delete(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Refusal> {
    api.key(&headers, Scope::Manage)?;
    match api.engine.discard(letter_id(path)?).await? {
        true => Ok(Json(json!({ "deleted": 1 }))),
        false => Err(Problem::not_found().into()),
    }
}

/// Puts one into its user's inbox anew.
pub async fn redrive(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    path: Result<Path<String>, PathRejection>,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    api.key(&headers, Scope::Manage)?;
    let answers = api.engine.redrive(vec![letter_id(path)?]).await?;
    match answers.first() {
        Some(Redriven::Yes) => Ok((StatusCode::ACCEPTED, Json(json!({ "redriven": 1 })))),
        None | Some(Redriven::Unknown) => Err(Problem::not_found().into()),
        Some(Redriven::Expired) => Err(gone("Its time to live has run out. Publish it anew.")),
        Some(Redriven::Impossible) => {
            let detail =
                "There is no notification in it that could be delivered. Look at it, and publish anew.";
            Err(gone(detail))
        }
    }
}

/// The parts of a filter, checked.
pub(super) fn filter(
    user: Option<&str>,
    reason: Option<&str>,
    source: Option<&str>,
) -> Result<DeadLetterFilter, Problem> {
    let user = user.map(UserId::new).transpose();
    let user = user.map_err(|e| Problem::invalid_request(format!("The user: {e}.")))?;
    let reason = match reason {
        None => None,
        Some(text) => Some(DeadReason::parse(text).ok_or_else(|| {
            let known = DeadReason::ALL.map(DeadReason::as_str).join(", ");
            Problem::invalid_request(format!("The reason must be one of {known}."))
        })?),
    };
    Ok(DeadLetterFilter {
        user,
        reason,
        source: source.map(str::to_owned),
        bare: false,
    })
}

fn gone(detail: &str) -> Refusal {
    let detail = detail.to_owned();
    Refusal::from(Problem {
        detail,
        ..Problem::gone()
    })
}

fn letter_id(path: Result<Path<String>, PathRejection>) -> Result<DeadLetterId, Problem> {
    let Path(text) = path.map_err(|_| Problem::not_found())?;
    DeadLetterId::parse(&text).ok_or_else(Problem::not_found)
}

fn push_letter(out: &mut Vec<u8>, letter: &DeadLetter) {
    let text = |out: &mut Vec<u8>, name: &str, value: Option<&str>| {
        out.extend_from_slice(format!(r#","{name}":"#).as_bytes());
        match value {
            Some(value) => json::push_string(out, value),
            None => out.extend_from_slice(b"null"),
        }
    };
    out.extend_from_slice(br#"{"id":"#);
    json::push_string(out, &letter.id.to_string());
    text(
        out,
        "notification",
        letter.notification.as_ref().map(|id| id.as_str()),
    );
    text(out, "user", letter.user.as_ref().map(|user| user.as_str()));
    text(out, "reason", Some(letter.reason.as_str()));
    if letter.detail.is_some() {
        text(out, "detail", letter.detail.as_deref());
    }
    text(out, "source", Some(&letter.source));
    out.extend_from_slice(format!(r#","attempts":{},"time":"{}""#, letter.attempts, letter.time).as_bytes());
    if letter.subject.is_some() {
        text(out, "subject", letter.subject.as_deref());
    }
    match &letter.body {
        DeadBody::Data(data) => {
            out.extend_from_slice(br#","data":"#);
            out.extend_from_slice(data);
        }
        DeadBody::Raw(raw) => text(out, "raw_base64", Some(&STANDARD.encode(raw))),
        DeadBody::Missing => {}
    }
    out.push(b'}');
}

fn json_response(body: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}
