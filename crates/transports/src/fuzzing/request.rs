//! Requests for an inbox: parameters of all three transports, and the headers that matter to them.

use crate::connect::{self, WireRequest};
use crate::gate::{Credentials, Gate, Identity};
use crate::head::{InboxRoute, Parsed, parse};
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
    let (route, path) = match choice % 3 {
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
    fn cors(&self, _: &str) -> Option<Vec<(&'static str, String)>> {
        None
    }
}
