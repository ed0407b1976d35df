//! `POST /v1/notifications`: one, an array, or a stream of them.

use super::refusal::{Refusal, intake_problem};
use super::stream;
use super::submit::{Outcome, Submission};
use super::{Api, body, text};
use crate::auth::Scope;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use postrider_model::{NotificationId, json};
use postrider_router::{Draft, Fault, request_content};
use postrider_sources::http::{self, Body as Decoded};
use postrider_transports::Problem;
use std::sync::Arc;

/// The names that NDJSON goes by; the first is the usual one.
const NDJSON: [&str; 3] = ["application/x-ndjson", "application/ndjson", "application/jsonl"];
/// An `Idempotency-Key` has at most so many characters.
const IDEMPOTENCY_KEY_BYTES: usize = 256;

/// Takes notifications in.
pub async fn publish(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let key = api.key(&headers, Scope::Publish)?;
    let mut submission = Submission::new(api.clone(), key, idempotency_key(&headers)?);
    let types = [&["application/json"][..], &NDJSON].concat();
    if body::media_type(&headers, &types)?.is_some_and(|given| NDJSON.contains(&given)) {
        return Ok(stream::answer(&api, submission, body));
    }
    let body = body::read_whole(&headers, body, api.max_body)
        .await
        .inspect_err(|p| api.metrics.count_rejected(p.code))?;
    submission.request = submission.request_key(request_content(&body));
    match http::decode_body(&body, api.limits.json_depth, api.limits.array) {
        Err(fault) => {
            api.metrics.count_rejected(fault.code.as_str());
            Err(intake_problem(fault).into())
        }
        Ok(Decoded::One(draft)) => one(&submission, *draft).await,
        Ok(Decoded::Array(drafts)) => array(&submission, drafts).await,
    }
}

async fn one(submission: &Submission, draft: Result<Draft, Fault>) -> Result<Response, Refusal> {
    let item = submission.admit(draft, 0);
    match submission.submit(vec![item], false).await.pop() {
        Some(Ok(id)) => Ok(accepted(accepted_json(&id))),
        Some(Err(problem)) => Err(problem.into()),
        None => Err(Problem::unavailable(1).into()),
    }
}

async fn array(submission: &Submission, drafts: Vec<Result<Draft, Fault>>) -> Result<Response, Refusal> {
    let items = (0u64..)
        .zip(drafts)
        .map(|(index, draft)| submission.admit(draft, index))
        .collect();
    let outcomes = submission.submit(items, false).await;
    let any_accepted = outcomes.iter().any(Result::is_ok);
    // Nothing was taken, and trying again can help: the request as a whole is refused. A key that was used
    // with another body refuses it as a whole too; a pointer tells the conflict of one item from that.
    let of_all = outcomes.iter().find_map(|outcome| {
        let problem = outcome.as_ref().err()?;
        let request_conflict = problem.code == "id_conflict" && problem.pointer.is_none();
        (request_conflict || problem.retry_after.is_some()).then_some(problem)
    });
    match of_all {
        Some(problem) if !any_accepted => Err(problem.clone().into()),
        _ => Ok(accepted(array_json(&outcomes))),
    }
}

fn accepted(json: Vec<u8>) -> Response {
    (
        StatusCode::ACCEPTED,
        [(header::CONTENT_TYPE, "application/json")],
        json,
    )
        .into_response()
}

fn array_json(outcomes: &[Outcome]) -> Vec<u8> {
    let mut accepted = Vec::new();
    let mut rejected = Vec::new();
    for (index, outcome) in outcomes.iter().enumerate() {
        let list = if outcome.is_ok() {
            &mut accepted
        } else {
            &mut rejected
        };
        if !list.is_empty() {
            list.push(b',');
        }
        list.extend_from_slice(format!("{{\"index\":{index},").as_bytes());
        match outcome {
            Ok(id) => push_member(list, "id", id.as_str()),
            Err(problem) => push_problem(list, problem),
        }
        list.push(b'}');
    }
    [
        &b"{\"accepted\":["[..],
        &accepted,
        b"],\"rejected\":[",
        &rejected,
        b"]}",
    ]
    .concat()
}

/// `{"id":"…","accepted":true}`
pub fn accepted_json(id: &NotificationId) -> Vec<u8> {
    let mut out = Vec::with_capacity(80);
    out.push(b'{');
    push_member(&mut out, "id", id.as_str());
    out.extend_from_slice(b",\"accepted\":true}");
    out
}

/// `"code":"…","detail":"…","pointer":"…"`
pub fn push_problem(out: &mut Vec<u8>, problem: &Problem) {
    push_member(out, "code", problem.code);
    out.push(b',');
    push_member(out, "detail", &problem.detail);
    if let Some(pointer) = &problem.pointer {
        out.push(b',');
        push_member(out, "pointer", pointer);
    }
}

fn push_member(out: &mut Vec<u8>, name: &str, value: &str) {
    json::push_string(out, name);
    out.push(b':');
    json::push_string(out, value);
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(key) = text(headers, "idempotency-key") else {
        return Ok(None);
    };
    let key = key.trim();
    if key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES {
        let detail = format!(
            "The header Idempotency-Key must hold 1 to {IDEMPOTENCY_KEY_BYTES} visible ASCII characters."
        );
        return Err(Problem::invalid_request(detail));
    }
    Ok(Some(key.to_owned()))
}
