use super::*;
use crate::head::{Parsed, parse};
use postrider_model::{Audience, EntryKind, FeedId, Notification, NotificationId, Position, Topic, UserId};
use std::sync::Arc;

/// Lets in whoever shows `good-<name>`, until 700.
struct Names;

impl Gate for Names {
    fn identify(&self, credentials: &Credentials<'_>, _: Timestamp) -> Result<Identity, Problem> {
        let token = credentials.authorization.ok_or_else(Problem::token_missing)?;
        let name = token.strip_prefix("Bearer good-");
        Ok(Identity {
            user: UserId::new(name.ok_or_else(Problem::token_signature)?).unwrap(),
            expires_at: Some(Timestamp(700)),
            topics: Vec::new(),
        })
    }
    fn spend(&self, _: &str, _: bool, _: Timestamp) -> Result<(), Problem> {
        Ok(())
    }
    fn renew(&self, _: &UserId, _: &str, _: Timestamp) -> Result<Timestamp, Problem> {
        Ok(Timestamp::MAX)
    }
    fn may_subscribe(&self, _: &Identity, _: &Topic) -> bool {
        false
    }
    fn cookie<'c>(&self, _: &'c str) -> Option<&'c str> {
        None
    }
    fn cors(&self, _: &str) -> Option<Vec<(&'static str, String)>> {
        None
    }
}

fn rules(ends_with_token: bool, max_time: u64) -> RawRules {
    RawRules {
        path: "/notifications".into(),
        max_time: Millis(max_time),
        ends_with_token,
    }
}

fn asked(headers: &str, rules: &RawRules) -> Result<Request, Problem> {
    let text = format!("GET /notifications HTTP/1.1\r\nhost: a\r\n{headers}\r\n");
    let Parsed::Complete(head, _) = parse(text.as_bytes()) else {
        panic!("{text}");
    };
    read(&head, None, rules, Trace::of(&head, 7), &Names, Timestamp(100))
}

#[test]
fn a_session_ends_when_its_time_is_over_or_with_its_token_where_that_is_asked() {
    for (ends_with_token, max_time, ends) in [(false, 2_000, 2_100), (true, 2_000, 700), (true, 300, 400)] {
        let request = asked(
            "authorization: Bearer good-ada\r\n",
            &rules(ends_with_token, max_time),
        )
        .unwrap();
        assert_eq!(request.identity.user.as_str(), "ada");
        assert_eq!(request.identity.expires_at, Some(Timestamp(ends)));
        assert_eq!((request.ack, request.state), (AckMode::Auto, false));
        assert_eq!(request.wire.transport(), postrider_model::Transport::Sse);
    }
    let with_body = asked(
        "authorization: Bearer good-ada\r\ncontent-length: 3\r\n",
        &rules(false, 1),
    );
    assert_eq!(with_body.unwrap_err().code, "invalid_request");
}

#[test]
fn refusals_are_told_as_its_clients_know_them() {
    let trace = Trace("t-1".into());
    for (problem, status, code) in [
        (Problem::token_missing(), 401, "ERROR_INVALID_JWT"),
        (Problem::token_malformed(), 401, "ERROR_INVALID_JWT"),
        (Problem::token_signature(), 401, "ERROR_INVALID_SIGNATURE"),
        (Problem::token_expired(), 401, "ERROR_TOKEN_EXPIRED"),
        (Problem::token_claims(), 401, "ERROR_TOKEN_PROCESSABLE"),
        (Problem::internal(), 500, "ERROR_INTERNAL_SERVER_ERROR"),
        (Problem::unavailable(3), 500, "ERROR_INTERNAL_SERVER_ERROR"),
        (Problem::session_limit(), 429, "ERROR_TOO_MANY_REQUESTS"),
        (Problem::invalid_request("No."), 400, "ERROR_BAD_REQUEST"),
    ] {
        let (told, body) = refusal(&problem, &trace);
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((told, json["error"].as_str()), (status, Some(code)), "{json}");
        assert_eq!(json["context"], "t-1");
        assert!(json["message"].as_str().unwrap().ends_with('.'), "{json}");
        assert_eq!(json.as_object().unwrap().len(), 3);
    }
}

fn trace(headers: &str) -> String {
    let text = format!("GET / HTTP/1.1\r\nhost: a\r\n{headers}\r\n");
    let Parsed::Complete(head, _) = parse(text.as_bytes()) else {
        panic!("{text}");
    };
    Trace::of(&head, u128::MAX).as_str().to_owned()
}

#[test]
fn a_request_keeps_its_name_or_gets_a_uuid() {
    let fresh = "ffffffff-ffff-8fff-bfff-ffffffffffff";
    assert_eq!(trace("trace-id: ab-7\r\n"), "ab-7");
    let longest = "x".repeat(MAX_TRACE);
    assert_eq!(trace(&format!("Trace-Id: {longest}\r\n")), longest);
    for odd in ["", "trace-id: \r\n", "trace-id: a b\r\n", "trace-id: a\u{e4}\r\n"] {
        assert_eq!(trace(odd), fresh, "{odd:?}");
    }
    assert_eq!(trace(&format!("trace-id: {longest}x\r\n")), fresh);
    assert_eq!(uuid(0), "00000000-0000-8000-8000-000000000000");
}

fn entry(data: &str) -> Entry {
    let user = UserId::new("ada").unwrap();
    let data = bytes::Bytes::copy_from_slice(data.as_bytes());
    let id = NotificationId::new("n").unwrap();
    let notification = Notification::plain(id, Timestamp(0), Audience::Users(vec![user.clone()]), data);
    Entry {
        feed: FeedId::User(user),
        position: Position::START,
        kind: EntryKind::Notification(Arc::new(notification), None),
        forms: Arc::default(),
    }
}

#[test]
fn a_body_is_what_the_publisher_wrote() {
    for (data, written) in [
        (r#"{"order": 7}"#, r#"{"order": 7}"#),
        ("[1,2]", "[1,2]"),
        ("true", "true"),
        ("-0.10e2", "-0.10e2"),
        (r#""plain""#, "plain"),
        (r#""\"quoted\" \n \u00fc""#, "\"quoted\" \n \u{fc}"),
        (r#""""#, ""),
    ] {
        let mut out = b"before".to_vec();
        push_body(&mut out, &entry(data), false);
        assert_eq!(out, format!("before{written}").into_bytes(), "{data}");
        let mut out = Vec::new();
        push_body(&mut out, &entry(data), true);
        let chunk = format!("{:x}\r\n{written}\r\n", written.len());
        // A chunk without bytes would be the last.
        let chunk = if written.is_empty() { String::new() } else { chunk };
        assert_eq!(out, chunk.into_bytes(), "{data}");
    }
}
