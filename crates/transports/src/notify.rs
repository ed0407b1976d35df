//! The notify dialect: a WebSocket that speaks like the Redis notify service. Its client is greeted with who it is and
//! with its user's state, and then gets the data of notifications and nothing around it. What it has not in common
//! with the other WebSocket stands here: how it is asked for, and its words.
//!
//! A session of it is one like any other, in `auto`: stored notifications are sent too, and settled by the pong to a
//! ping behind them; one that comes back gets what is pending. It has no words for marks, gaps and what was dropped.
//!
//! Invariant: whoever asks for it with a proper WebSocket handshake gets a WebSocket; what is wrong then is said in it,
//! as a text frame, before it is closed.

use crate::addresses::Address;
use crate::connect::{Request, WireRequest};
use crate::gate::{Credentials, Gate, Identity};
use crate::head::{Head, MAX_HEAD, form_values};
use crate::problem::Problem;
use crate::websocket::{self, Handshake};
use bytes::Bytes;
use postrider_delivery::AckMode;
use postrider_model::json::push_string;
use postrider_model::{MAX_INBOX_FEEDS, Timestamp, Topic, UserId};
use std::borrow::Cow;

/// How the dialect is served.
#[derive(Debug, Clone)]
pub struct NotifyRules {
    /// The path of its request.
    pub path: String,
    /// Origins whose pages may ask for it; `*` is any, without the cookie.
    pub origins: Vec<String>,
    /// Whether a session ends with its token, as others do. Clients of the dialect cannot send a new one.
    pub ends_with_token: bool,
}

/// Bytes of a form that comes as the request's body.
const MAX_FORM: usize = 8 << 10;
/// Feeds of an inbox that are no topics.
const OTHER_FEEDS: usize = 2;

/// What a WebSocket speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `postrider.v1`: typed frames.
    Postrider,
    /// Bare data.
    Notify,
}

/// What a request for the dialect comes to.
#[derive(Debug)]
pub(crate) enum Reading {
    /// It is let in.
    Open(Box<Request>),
    /// It gets its WebSocket, and is told in it why nothing comes of it.
    Refused(Handshake, Problem),
    /// It is no WebSocket that this server can speak.
    Unanswerable(Problem),
}

/// How many bytes of a form follow the head, which has so many itself: no more is read of both than of any head.
pub(crate) fn form_length(head: &Head<'_>, head_length: usize) -> Result<usize, Problem> {
    if !head.has_body() {
        return Ok(0);
    }
    let is_form = head.header("content-type").is_some_and(|kind| {
        let kind = kind.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")
    });
    let length = head
        .header("content-length")
        .and_then(|digits| digits.parse().ok());
    match length.filter(|_| is_form) {
        Some(length) if length <= MAX_FORM.min(MAX_HEAD.saturating_sub(head_length)) => Ok(length),
        Some(_) => Err(Problem::too_large(
            "The form may have 8 KiB at most, and 16 KiB together with the head.",
            None,
        )),
        None => Err(Problem::invalid_request(
            "A request for this WebSocket may have a form as its body (application/x-www-form-urlencoded, with content-length), and nothing else.",
        )),
    }
}

/// Checks a request; `form` is its body.
pub(crate) fn read(
    head: &Head<'_>,
    form: &[u8],
    client: Option<Address>,
    rules: &NotifyRules,
    gate: &dyn Gate,
    now: Timestamp,
    max_feeds: usize,
) -> Reading {
    let handshake = match websocket::handshake(head) {
        Ok(handshake) => handshake,
        Err(problem) => return Reading::Unanswerable(problem),
    };
    let form = str::from_utf8(form).unwrap_or_default();
    let asked = Asked::read(head.query, form);
    let (identity, topics) = match let_in(head, &asked, client, rules, gate, now, max_feeds) {
        Ok(let_in) => let_in,
        Err(problem) => return Reading::Refused(handshake, problem),
    };
    let expires_at = identity.expires_at.filter(|_| rules.ends_with_token);
    Reading::Open(Box::new(Request {
        identity: Identity {
            expires_at,
            ..identity
        },
        ticket: None,
        ack: AckMode::Auto,
        cursor: None,
        topics,
        state: true,
        wire: WireRequest::WebSocket(handshake, Dialect::Notify),
    }))
}

/// The parameters of the dialect, of the query and of the form.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked<'a> {
    authorization: Option<Cow<'a, str>>,
    topics: Vec<Cow<'a, str>>,
    /// An escape that means nothing.
    is_broken: bool,
}

impl<'a> Asked<'a> {
    /// The form's values go before those of the query, as in Go's `FormValue`.
    fn read(query: &'a str, form: &'a str) -> Asked<'a> {
        let mut asked = Asked::default();
        for (name, value) in form_values(form).chain(form_values(query)) {
            let (Some(name), Some(value)) = (name, value) else {
                asked.is_broken = true;
                continue;
            };
            match &*name {
                "authorization" if asked.authorization.is_none() && !value.trim().is_empty() => {
                    asked.authorization = Some(value);
                }
                "topic" => asked.topics.push(value),
                _ => {}
            }
        }
        asked
    }
}

fn let_in(
    head: &Head<'_>,
    asked: &Asked<'_>,
    client: Option<Address>,
    rules: &NotifyRules,
    gate: &dyn Gate,
    now: Timestamp,
    max_feeds: usize,
) -> Result<(Identity, Vec<Topic>), Problem> {
    if asked.is_broken {
        return Err(Problem::invalid_request(
            "A parameter is not percent-encoded UTF-8. Encode it anew.",
        ));
    }
    let cookie = head.header("cookie").and_then(|cookies| gate.cookie(cookies));
    if !may_ask(head, rules, cookie.is_some()) {
        return Err(Problem::origin());
    }
    let token = cookie
        .or(asked.authorization.as_deref())
        .or(head.header("authorization"))
        .map(bare_token)
        .ok_or_else(Problem::token_missing)?;
    let authorization = format!("Bearer {token}");
    let credentials = Credentials {
        authorization: Some(&authorization),
        client,
        ..Credentials::default()
    };
    let identity = gate.identify(&credentials, now)?;
    let topics = topics(&asked.topics, gate, &identity, max_feeds)?;
    Ok((identity, topics))
}

/// Whether a page of this origin may open it. A browser names the origin of the page, and sends cookies unasked: with
/// one, the page has to be of the same host, or of an origin that is named. A client that names none is no browser.
fn may_ask(head: &Head<'_>, rules: &NotifyRules, by_cookie: bool) -> bool {
    let Some(origin) = head.header("origin") else {
        return true;
    };
    let host = head.header("host").unwrap_or_default();
    let of_same_host = origin
        .split_once("://")
        .is_some_and(|(_, of)| of.eq_ignore_ascii_case(host));
    let named = |one: &String| one.eq_ignore_ascii_case(origin) || (one == "*" && !by_cookie);
    of_same_host || rules.origins.iter().any(named)
}

/// A token with or without its scheme.
pub fn bare_token(given: &str) -> &str {
    const SCHEME: &str = "bearer ";
    let given = given.trim();
    match given.get(..SCHEME.len()) {
        Some(scheme) if scheme.eq_ignore_ascii_case(SCHEME) => given[SCHEME.len()..].trim(),
        _ => given,
    }
}

fn topics(
    lists: &[Cow<'_, str>],
    gate: &dyn Gate,
    identity: &Identity,
    max_feeds: usize,
) -> Result<Vec<Topic>, Problem> {
    let most = max_feeds.min(MAX_INBOX_FEEDS).saturating_sub(OTHER_FEEDS);
    let names = lists
        .iter()
        .flat_map(|list| list.split(|c: char| c == ',' || c.is_whitespace()));
    let mut topics = Vec::new();
    for name in names.filter(|name| !name.is_empty()) {
        let topic =
            Topic::new(name).map_err(|error| Problem::invalid_request(format!("In `topic`: {error}.")))?;
        if !gate.may_subscribe(identity, &topic) {
            return Err(Problem::scope("topics"));
        }
        if !topics.contains(&topic) {
            topics.push(topic);
        }
        if topics.len() > most {
            let detail = format!("`topic` may name at most {most} topics.");
            return Err(Problem::invalid_request(detail));
        }
    }
    Ok(topics)
}

/// Appends the first frame: who the client is.
pub(crate) fn push_connect_frame(out: &mut Vec<u8>, user: &UserId) {
    let mut text = br#"{"kind":"connect","userID":"#.to_vec();
    push_string(&mut text, user.as_str());
    text.push(b'}');
    out.extend_from_slice(&websocket::text_frame(&text));
}

/// The second frame: the user's state, a JSON object.
pub(crate) fn state_frame(state_json: &[u8]) -> Bytes {
    websocket::text_frame(&[br#"{"kind":"state","state":"#, state_json, b"}"].concat())
}

/// Why nothing comes of it: an error as Twirp writes them, with this server's own code beside.
pub(crate) fn error_frame(problem: &Problem) -> Bytes {
    let mut text = br#"{"kind":"error","code":"#.to_vec();
    push_string(&mut text, twirp_code(problem.status));
    text.extend_from_slice(br#","msg":"#);
    push_string(&mut text, detail(problem));
    text.extend_from_slice(br#","meta":{"code":"#);
    push_string(&mut text, problem.code);
    text.extend_from_slice(b"}}");
    websocket::text_frame(&text)
}

/// What to do, in the terms of a client that opens a WebSocket with a token among its parameters.
fn detail(problem: &Problem) -> &str {
    match problem.code {
        "token_missing" => {
            "No user token was given. Send it as the parameter `authorization`, or as the session cookie."
        }
        "origin" => {
            "This page may not open this WebSocket. Open it from a page of the same host, or have its origin allowed."
        }
        _ => &problem.detail,
    }
}

/// Twirp's word for what an HTTP status says (Twirp specification 7, "Error Codes").
fn twirp_code(status: u16) -> &'static str {
    match status {
        401 => "unauthenticated",
        403 => "permission_denied",
        404 => "not_found",
        429 => "resource_exhausted",
        503 => "unavailable",
        400..=499 => "invalid_argument",
        _ => "internal",
    }
}

/// The last word after [`error_frame`]: refused for what the client asked (1008), or come back later (1013).
pub(crate) fn refusal_close(problem: &Problem) -> Bytes {
    let code = if matches!(problem.status, 429 | 503) {
        1013
    } else {
        1008
    };
    websocket::close(code, problem.code)
}

/// The last word of a session, by the code that the other dialect gives: its clients know only those of RFC 6455.
pub(crate) fn close_frame(code: u16, reason: &str) -> Bytes {
    let code = match code {
        4000 => 1001,
        4001 | 4500 => 1008,
        4002 => 1013,
        _ => 1002,
    };
    websocket::close(code, reason)
}

#[cfg(test)]
#[path = "notify_tests.rs"]
mod tests;
