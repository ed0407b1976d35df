//! The raw dialect: `GET` on a path answers with a stream of bare bodies, one after another as they come, until the client
//! leaves or the time is over. What it has not in common with the other streams stands here: how it is asked for, what a
//! body is, and how a refusal is said.
//!
//! A session of it is one like any other, in `auto`: what its client's TCP acknowledged is settled, and nothing else is,
//! so that what was only written comes again. It has no words of its own: no cursors, marks, gaps or keep-alives, which
//! its clients would take for bodies. That a client is there is for TCP to say.
//!
//! Invariant: nothing but bodies follows the head, over HTTP/1.1 each as one chunk. Where the publisher's text was kept as a
//! JSON string, the body is that text; else it is the JSON as it was written.

use crate::addresses::Address;
use crate::connect::{Request, WireRequest};
use crate::gate::{Credentials, Gate, Identity};
use crate::head::Head;
use crate::problem::Problem;
use postrider_delivery::AckMode;
use postrider_model::json::push_string;
use postrider_model::{Entry, Millis, Timestamp};
use std::borrow::Cow;
use std::io::Write as _;

/// How the dialect is served.
#[derive(Debug, Clone)]
pub struct RawRules {
    /// The path of its request.
    pub path: String,
    /// A session ends after so long.
    pub max_time: Millis,
    /// Whether a session ends with its token, as others do.
    pub ends_with_token: bool,
}

/// The header that names a request in logs and in refusals.
pub(crate) const TRACE_HEADER: &str = "trace-id";
/// A longer name of a request is not kept.
const MAX_TRACE: usize = 128;

/// By what a request is found in logs: as its client named it, or a fresh UUID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trace(Box<str>);

impl Trace {
    /// The client's, where it can stand in a log and in a header; else `fresh`.
    pub fn of(head: &Head<'_>, fresh: u128) -> Trace {
        let given = head.header(TRACE_HEADER).filter(|given| {
            (1..=MAX_TRACE).contains(&given.len()) && given.bytes().all(|byte| byte.is_ascii_graphic())
        });
        match given {
            Some(given) => Trace(given.into()),
            None => Trace(uuid(fresh).into()),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A UUID of version 8 (RFC 9562, 5.8) with these bits.
fn uuid(bits: u128) -> String {
    let bits = bits & !(0xf000_u128 << 64) & !(0xc_u128 << 60) | 0x8000_u128 << 64 | 0x8_u128 << 60;
    let hex = format!("{bits:032x}");
    let part = |from, to| hex.get(from..to).unwrap_or_default();
    format!(
        "{}-{}-{}-{}-{}",
        part(0, 8),
        part(8, 12),
        part(12, 16),
        part(16, 20),
        part(20, 32)
    )
}

/// Checks a request.
pub(crate) fn read(
    head: &Head<'_>,
    client: Option<Address>,
    rules: &RawRules,
    trace: Trace,
    gate: &dyn Gate,
    now: Timestamp,
) -> Result<Request, Problem> {
    if head.has_body() {
        return Err(Problem::invalid_request(
            "A request for notifications has no body.",
        ));
    }
    let credentials = Credentials {
        authorization: head.header("authorization"),
        origin: head.header("origin"),
        host: head.header("host"),
        client,
        ..Credentials::default()
    };
    let identity = gate.identify(&credentials, now)?;
    let ends = now.plus(rules.max_time);
    let with_token = identity.expires_at.filter(|_| rules.ends_with_token);
    Ok(Request {
        identity: Identity {
            expires_at: Some(with_token.map_or(ends, |at| at.min(ends))),
            ..identity
        },
        ticket: None,
        ack: AckMode::Auto,
        cursor: None,
        topics: Vec::new(),
        state: false,
        wire: WireRequest::Raw {
            trace,
            is_chunked: head.version_minor > 0,
        },
    })
}

/// What ends a stream of chunks (RFC 9112, 7.1).
pub(crate) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Appends what the client gets of a notification: nothing more, and as a chunk of its own where it is to be one, by which
/// clients that can see chunks tell bodies apart. An empty body is nothing at all: as a chunk it would end the stream.
pub(crate) fn push_body(out: &mut Vec<u8>, entry: &Entry, is_chunked: bool) {
    let body = body(entry);
    if !is_chunked {
        out.extend_from_slice(&body);
    } else if !body.is_empty() {
        // Into a Vec nothing fails.
        write!(out, "{:x}\r\n", body.len()).unwrap_or_default();
        out.extend_from_slice(&body);
        out.extend_from_slice(b"\r\n");
    }
}

/// What a publisher wrote.
fn body(entry: &Entry) -> Cow<'_, [u8]> {
    let payload = entry.payload();
    if entry.forms.raw.is_some() || payload.first() != Some(&b'"') {
        return Cow::Borrowed(payload);
    }
    match serde_json::from_slice::<String>(payload) {
        Ok(text) => Cow::Owned(text.into_bytes()),
        Err(_) => Cow::Borrowed(payload),
    }
}

/// A refusal: its status, and its body.
pub(crate) fn refusal(problem: &Problem, trace: &Trace) -> (u16, Vec<u8>) {
    let (status, code) = said(problem);
    let mut body = br#"{"error":"#.to_vec();
    push_string(&mut body, code);
    body.extend_from_slice(br#","message":"#);
    push_string(&mut body, detail(problem));
    body.extend_from_slice(br#","context":"#);
    push_string(&mut body, trace.as_str());
    body.push(b'}');
    (status, body)
}

/// What its clients know. They know of no 503: what this server cannot do now is a 500 with `Retry-After`.
fn said(problem: &Problem) -> (u16, &'static str) {
    let code = match (problem.status, problem.code) {
        (_, "token_missing" | "token_malformed") => "ERROR_INVALID_JWT",
        (_, "token_signature") => "ERROR_INVALID_SIGNATURE",
        (_, "token_expired") => "ERROR_TOKEN_EXPIRED",
        (401, _) => "ERROR_TOKEN_PROCESSABLE",
        (429, _) => "ERROR_TOO_MANY_REQUESTS",
        (500.., _) => "ERROR_INTERNAL_SERVER_ERROR",
        _ => "ERROR_BAD_REQUEST",
    };
    (problem.status.min(500), code)
}

fn detail(problem: &Problem) -> &str {
    match problem.code {
        "token_missing" => "No user token was given. Send it as `Authorization: Bearer`.",
        _ => &problem.detail,
    }
}

#[cfg(test)]
#[path = "raw_tests.rs"]
mod tests;
