//! `POST /v1/notifications`: one, an array, or a stream of them.

use super::order::Order;
use super::refusal::Refusal;
use super::stream;
use super::submit::{Outcome, Submission};
use super::{Api, body, text};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use postrider_model::{NotificationId, json};
use postrider_transports::Problem;
use std::sync::Arc;

/// The names that NDJSON goes by; the first is the usual one.
const NDJSON: [&str; 3] = ["application/x-ndjson", "application/ndjson", "application/jsonl"];
/// All that a body may be.
const TYPES: [&str; 4] = ["application/json", NDJSON[0], NDJSON[1], NDJSON[2]];

/// Takes notifications in.
pub async fn publish(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let (authorization, idempotency_key) = (header::AUTHORIZATION.as_str(), "idempotency-key");
    let submission = Submission::open(
        &api,
        text(&headers, authorization),
        text(&headers, idempotency_key),
    )?;
    if body::media_type(&headers, &TYPES)?.is_some_and(|given| NDJSON.contains(&given)) {
        return Ok(stream::answer(&api, submission, body));
    }
    let most = body::Most {
        bytes: api.max_body,
        otherwise: "Send less, or NDJSON.",
    };
    let body = body::read_whole(&api, &headers, body, most)
        .await
        .inspect_err(|p| api.metrics.count_rejected(p.code))?;
    let mut order = Order::take(submission, &body)?;
    drop(body);
    let receipts = order.store().await;
    let json = order.answer(receipts)?;
    let content_type = (header::CONTENT_TYPE, "application/json");
    Ok((StatusCode::ACCEPTED, [content_type], json).into_response())
}

/// `{"accepted":[{"index":0,"id":"…"}],"rejected":[…]}`
pub fn array_json(outcomes: &[Outcome]) -> Vec<u8> {
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
pub fn push_accepted(out: &mut Vec<u8>, id: &NotificationId) {
    out.push(b'{');
    push_member(out, "id", id.as_str());
    out.extend_from_slice(b",\"accepted\":true}");
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
