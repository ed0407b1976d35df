//! Requests for an inbox: parameters of all three transports and of the notify dialect, and the headers that matter to
//! them.

use crate::connect::{self, WireRequest};
use crate::gate::{Credentials, Gate, Identity};
use crate::head::{InboxRoute, MAX_HEAD, Parsed, parse};
use crate::notify::{self, NotifyRules, Reading};
use crate::problem::Problem;
use postrider_model::{Timestamp, Topic, UserId};

/// `inbox.max_feeds` by default.
const MAX_FEEDS: usize = 100;

/// The first byte chooses the transport; the rest is the query, then, after a line break, headers. What is let in
/// is within its bounds, and is let in again; what is not is the client's fault.
pub fn inbox_request(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else {
        return;
    };
    let Ok(text) = str::from_utf8(rest) else { return };
    let (query, headers) = text.split_once('\n').unwrap_or((text, ""));
    if choice % 4 == 3 {
        return notify_request(query, headers);
    }
    let (route, path) = match choice % 4 {
        0 => (InboxRoute::Poll, "/v1/inbox"),
        1 => (InboxRoute::Stream, "/v1/inbox/stream"),
        _ => (InboxRoute::WebSocket, "/v1/inbox/ws"),
    };
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
        sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let upgrade = if route == InboxRoute::WebSocket {
        upgrade
    } else {
        ""
    };
    let request = format!("GET {path}?{query} HTTP/1.1\r\nhost: h\r\n{upgrade}{headers}\r\n\r\n");
    let Parsed::Complete(head, _) = parse(request.as_bytes()) else {
        return;
    };
    let read = || connect::read(&head, route, None, &Everyone, Timestamp(0), MAX_FEEDS);
    match read() {
        Ok(request) => {
            assert_within_bounds(&request);
            assert!(
                read().is_ok_and(|again| again.cursor == request.cursor && again.topics == request.topics)
            );
        }
        Err(problem) => assert!((400..500).contains(&problem.status), "{problem:?}"),
    }
}

/// The query of the dialect, whose first line of headers is its form.
fn notify_request(query: &str, headers: &str) {
    let (form, headers) = headers.split_once('\n').unwrap_or((headers, ""));
    let request = format!(
        "GET /notify/ws?{query} HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n\r\n"
    );
    let Parsed::Complete(head, length) = parse(request.as_bytes()) else {
        return;
    };
    if let Ok(form) = notify::form_length(&head, length) {
        assert!(form + length <= MAX_HEAD);
    }
    let rules = NotifyRules {
        path: head.path.to_owned(),
        origins: vec!["*".into()],
        ends_with_token: true,
    };
    let form = form.as_bytes();
    match notify::read(&head, form, None, &rules, &Everyone, Timestamp(0), MAX_FEEDS) {
        Reading::Open(request) => assert_within_bounds(&request),
        Reading::Refused(_, problem) | Reading::Unanswerable(problem) => {
            assert!((400..500).contains(&problem.status), "{problem:?}");
        }
    }
}

fn assert_within_bounds(request: &connect::Request) {
    assert!(request.topics.len() + 2 <= MAX_FEEDS);
    for (i, topic) in request.topics.iter().enumerate() {
        assert!(!request.topics[..i].contains(topic), "{topic} twice");
    }
    if let WireRequest::Poll { wait_s, limit, .. } = request.wire {
        assert!(wait_s <= 120 && (1..=1000).contains(&limit));
    }
}

/// Lets everybody in as the same user.
struct Everyone;

impl Gate for Everyone {
    fn identify(&self, _: &Credentials<'_>, _: Timestamp) -> Result<Identity, Problem> {
        Ok(Identity {
            user: UserId::new("ada").map_err(|_| Problem::token_claims())?,
            expires_at: None,
            topics: Vec::new(),
        })
    }
    fn spend(&self, _: &str, _: bool, _: Timestamp) -> Result<(), Problem> {
        Ok(())
    }
    fn renew(&self, _: &UserId, _: &str, _: Timestamp) -> Result<Timestamp, Problem> {
        Ok(Timestamp::MAX)
    }
    fn may_subscribe(&self, _: &Identity, topic: &Topic) -> bool {
        !topic.as_str().starts_with('-')
    }
    fn cookie<'c>(&self, _: &'c str) -> Option<&'c str> {
        None
    }
    fn cors(&self, _: &str) -> Option<Vec<(&'static str, String)>> {
        None
    }
}
