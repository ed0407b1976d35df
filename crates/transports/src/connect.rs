//! Reads an inbox request: who asks, from where to go on, over which wire. Pure but for the gate.

use crate::addresses::Address;
use crate::gate::{Credentials, Gate, Identity};
use crate::head::{Head, InboxRoute, Params};
use crate::notify::Dialect;
use crate::problem::Problem;
use crate::raw::Trace;
use crate::websocket::{self, Handshake};
use postrider_delivery::AckMode;
use postrider_model::{Cursor, MAX_INBOX_FEEDS, Timestamp, Topic, Transport};

/// The longest a poll may wait, in seconds.
const MAX_WAIT_S: u32 = 120;
const DEFAULT_WAIT_S: u32 = 30;
const MAX_LIMIT: usize = 1000;
const DEFAULT_LIMIT: usize = 100;
/// Feeds of an inbox that are no topics: the user's own, and `all`.
const OTHER_FEEDS: usize = 2;
/// The parameters of a request for an inbox.
const NAMES: [&str; 7] = ["ticket", "ack", "topics", "cursor", "state", "wait", "limit"];

type Asked<'a> = Params<'a, 'static, { NAMES.len() }>;

/// A request for an inbox, let in and understood.
#[derive(Debug)]
pub(crate) struct Request {
    pub identity: Identity,
    /// The ticket that it came with, to be spent when everything else is in order, and whether it resumes.
    pub ticket: Option<(String, bool)>,
    pub ack: AckMode,
    pub cursor: Option<Cursor>,
    pub topics: Vec<Topic>,
    pub state: bool,
    pub wire: WireRequest,
}

/// What differs by transport.
#[derive(Debug)]
pub(crate) enum WireRequest {
    Poll {
        wait_s: u32,
        limit: usize,
        keep_alive: bool,
    },
    Stream,
    /// Bare bodies, each a chunk of HTTP/1.1 where the client speaks that; and by what the request is found in logs.
    Raw {
        trace: Trace,
        is_chunked: bool,
    },
    WebSocket(Handshake, Dialect),
}

impl WireRequest {
    pub fn transport(&self) -> Transport {
        match self {
            WireRequest::Poll { .. } => Transport::LongPoll,
            WireRequest::Stream | WireRequest::Raw { .. } => Transport::Sse,
            WireRequest::WebSocket(..) => Transport::WebSocket,
        }
    }
}

/// Checks a request from its head alone.
pub(crate) fn read(
    head: &Head<'_>,
    route: InboxRoute,
    client: Option<Address>,
    gate: &dyn Gate,
    now: Timestamp,
    max_feeds: usize,
) -> Result<Request, Problem> {
    if head.has_body() {
        return Err(Problem::invalid_request("A request for an inbox has no body."));
    }
    let params = head.params(NAMES);
    let ticket = params.get("ticket")?;
    let resumes = names_a_cursor(head, &params, route);
    let by_ticket = head.header("authorization").is_none();
    let identity = gate.identify(
        &Credentials {
            authorization: head.header("authorization"),
            cookie: head.header("cookie"),
            ticket: ticket.as_deref(),
            origin: head.header("origin"),
            sec_fetch_site: head.header("sec-fetch-site"),
            host: head.header("host"),
            resumes,
            client,
        },
        now,
    )?;
    let handshake = match route {
        InboxRoute::WebSocket => Some(websocket::handshake(head)?),
        _ => None,
    };
    let ack = match params.get("ack")? {
        None => AckMode::default(),
        Some(text) => AckMode::parse(&text)
            .ok_or_else(|| Problem::invalid_request("`ack` is one of auto, explicit and none."))?,
    };
    let topics = topics(&params, gate, &identity, max_feeds)?;
    let cursor = cursor(head, &params, route, &identity)?;
    let state = match params.get("state")?.as_deref() {
        None | Some("0") => false,
        Some("1") => true,
        Some(_) => return Err(Problem::invalid_request("`state` is 0 or 1.")),
    };
    let wire = match (route, handshake) {
        (_, Some(handshake)) => WireRequest::WebSocket(handshake, Dialect::Postrider),
        (InboxRoute::Stream, None) => WireRequest::Stream,
        _ => WireRequest::Poll {
            wait_s: number(&params, "wait", 0, MAX_WAIT_S, DEFAULT_WAIT_S)?,
            limit: number(&params, "limit", 1, MAX_LIMIT as u32, DEFAULT_LIMIT as u32)? as usize,
            keep_alive: head.keep_alive(),
        },
    };
    Ok(Request {
        identity,
        ticket: ticket
            .filter(|_| by_ticket)
            .map(|ticket| (ticket.into_owned(), resumes)),
        ack,
        cursor,
        topics,
        state,
        wire,
    })
}

/// Whether the client goes on from somewhere; what it named is checked later.
fn names_a_cursor(head: &Head<'_>, params: &Asked<'_>, route: InboxRoute) -> bool {
    let last_event_id = head
        .header("last-event-id")
        .filter(|_| route == InboxRoute::Stream);
    let parameter = params.get("cursor").ok().flatten();
    last_event_id
        .or(parameter.as_deref())
        .is_some_and(|token| !token.is_empty())
}

/// EventSource reconnects to the same URL, whose `cursor` is old by then: `Last-Event-ID` goes first.
fn cursor(
    head: &Head<'_>,
    params: &Asked<'_>,
    route: InboxRoute,
    identity: &Identity,
) -> Result<Option<Cursor>, Problem> {
    let last_event_id = head
        .header("last-event-id")
        .filter(|id| route == InboxRoute::Stream && !id.is_empty());
    let parameter = params
        .get("cursor")
        .map_err(|problem| Problem::invalid_cursor(problem.detail))?;
    let Some(token) = last_event_id.or(parameter.as_deref().filter(|token| !token.is_empty())) else {
        return Ok(None);
    };
    Cursor::decode(token, &identity.user).map(Some).map_err(|error| {
        Problem::invalid_cursor(format!(
            "It cannot be used: {error}. Connect without one to start with what is pending."
        ))
    })
}

fn topics(
    params: &Asked<'_>,
    gate: &dyn Gate,
    identity: &Identity,
    max_feeds: usize,
) -> Result<Vec<Topic>, Problem> {
    let most = max_feeds.min(MAX_INBOX_FEEDS).saturating_sub(OTHER_FEEDS);
    let mut topics = Vec::new();
    let Some(list) = params.get("topics")? else {
        return Ok(topics);
    };
    for name in list.split(',').filter(|name| !name.is_empty()) {
        let topic =
            Topic::new(name).map_err(|error| Problem::invalid_request(format!("In `topics`: {error}.")))?;
        if !gate.may_subscribe(identity, &topic) {
            return Err(Problem {
                detail: format!(
                    "The token does not allow the topic `{topic}`. Use one that does, or open it with `topics.open`."
                ),
                ..Problem::scope("topics")
            });
        }
        if !topics.contains(&topic) {
            topics.push(topic);
        }
        if topics.len() > most {
            return Err(Problem::invalid_request(format!(
                "`topics` may name at most {most} topics."
            )));
        }
    }
    Ok(topics)
}

fn number(params: &Asked<'_>, name: &str, least: u32, most: u32, default: u32) -> Result<u32, Problem> {
    let Some(text) = params.get(name)? else {
        return Ok(default);
    };
    let number = text.parse().ok().filter(|n| (least..=most).contains(n));
    number.ok_or_else(|| {
        Problem::invalid_request(format!("`{name}` is a whole number from {least} to {most}."))
    })
}
