use super::*;
use crate::head::{Parsed, parse};

/// Lets in whoever shows `good-<name>`.
struct Names;

impl Gate for Names {
    fn identify(&self, credentials: &Credentials<'_>, _: Timestamp) -> Result<Identity, Problem> {
        let token = credentials
            .authorization
            .and_then(|text| text.strip_prefix("Bearer "));
        let name = token.and_then(|token| token.strip_prefix("good-"));
        Ok(Identity {
            user: UserId::new(name.ok_or_else(Problem::token_signature)?).unwrap(),
            expires_at: Some(Timestamp(7)),
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
        topic.as_str() != "closed"
    }
    fn cookie<'c>(&self, cookies: &'c str) -> Option<&'c str> {
        cookies.strip_prefix("session=")
    }
    fn cors(&self, _: &str) -> Option<Vec<(&'static str, String)>> {
        None
    }
}

fn rules(origins: &[&str]) -> NotifyRules {
    NotifyRules {
        path: "/notify/ws".into(),
        origins: origins.iter().map(|&one| one.to_owned()).collect(),
        ends_with_token: false,
    }
}

const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

fn ask(query: &str, headers: &str, form: &str, rules: &NotifyRules) -> Reading {
    let text = format!("GET /notify/ws{query} HTTP/1.1\r\nhost: app.example\r\n{UPGRADE}{headers}\r\n");
    match parse(text.as_bytes()) {
        Parsed::Complete(head, _) => read(&head, form.as_bytes(), None, rules, &Names, Timestamp(1), 100),
        other => panic!("{other:?}"),
    }
}

/// The user and the topics, or the code of the refusal.
fn outcome(query: &str, headers: &str, form: &str, origins: &[&str]) -> Result<String, &'static str> {
    match ask(query, headers, form, &rules(origins)) {
        Reading::Open(request) => {
            let topics: Vec<_> = request.topics.iter().map(Topic::as_str).collect();
            Ok(format!("{} {}", request.identity.user, topics.join(" ")))
        }
        Reading::Refused(_, problem) => Err(problem.code),
        Reading::Unanswerable(problem) => panic!("{problem:?}"),
    }
}

#[test]
fn the_token_comes_in_many_ways_and_the_cookie_wins() {
    let any = &["*"][..];
    for (query, headers, form, expected) in [
        ("?authorization=good-ada", "", "", Ok("ada ")),
        ("?authorization=Bearer%20good-ada", "", "", Ok("ada ")),
        ("?authorization=bearer+good-ada", "", "", Ok("ada ")),
        ("", "", "authorization=Bearer+good-ada", Ok("ada ")),
        (
            "?authorization=good-bob",
            "",
            "authorization=good-ada",
            Ok("ada "),
        ),
        ("", "authorization: Bearer good-ada\r\n", "", Ok("ada ")),
        (
            "?authorization=good-ada",
            "authorization: Bearer bad\r\n",
            "",
            Ok("ada "),
        ),
        (
            "?authorization=good-bob",
            "cookie: session=good-ada\r\n",
            "",
            Ok("ada "),
        ),
        (
            "?authorization=good-bob",
            "cookie: session=bad\r\n",
            "",
            Err("token_signature"),
        ),
        ("?authorization=good-ada", "cookie: other=x\r\n", "", Ok("ada ")),
        ("?authorization=bad", "", "", Err("token_signature")),
        ("?authorization=", "", "", Err("token_missing")),
        ("", "", "", Err("token_missing")),
        ("?authorization=%zz", "", "", Err("invalid_request")),
    ] {
        let outcome = outcome(query, headers, form, any);
        assert_eq!(
            outcome.as_deref().map_err(|code| *code),
            expected,
            "{query} {headers}"
        );
    }
}

#[test]
fn topics_are_separated_by_commas_or_white_space() {
    let of = |query: &str| outcome(&format!("?authorization=good-ada&{query}"), "", "", &["*"]);
    for query in [
        "topic=a,b",
        "topic=a+b",
        "topic=a%20%09b%0A",
        "topic=,a,,b,a,",
        "topic=a&topic=b",
    ] {
        assert_eq!(of(query), Ok("ada a b".into()), "{query}");
    }
    assert_eq!(of("topic="), Ok("ada ".into()));
    assert_eq!(of("topic=a,closed"), Err("scope"));
    assert_eq!(of("topic=%E2%82%AC"), Err("invalid_request"));
    let many: Vec<_> = (0..99).map(|n| n.to_string()).collect();
    assert_eq!(of(&format!("topic={}", many.join(","))), Err("invalid_request"));
    assert!(of(&format!("topic={}", many[..98].join(","))).is_ok());
}

#[test]
fn a_cookie_needs_a_page_of_this_site_or_of_one_that_is_named() {
    let (query, cookie) = ("?authorization=good-ada", "cookie: session=good-ada\r\n");
    let here = "origin: https://app.example\r\n";
    let there = "origin: https://other.example\r\n";
    for (query, headers, origins, lets_in) in [
        (query, String::new(), &[][..], true),
        (query, here.into(), &[], true),
        (query, there.into(), &[], false),
        (query, there.into(), &["*"], true),
        (query, there.into(), &["https://OTHER.example"], true),
        ("", cookie.into(), &[], true),
        ("", format!("{cookie}{here}"), &[], true),
        ("", format!("{cookie}{there}"), &["*"], false),
        ("", format!("{cookie}{there}"), &["https://other.example"], true),
        ("", format!("{cookie}origin: null\r\n"), &["*"], false),
    ] {
        let outcome = outcome(query, &headers, "", origins);
        let expected = if lets_in { Ok("ada ".into()) } else { Err("origin") };
        assert_eq!(outcome, expected, "{headers}{origins:?}");
    }
}

#[test]
fn a_session_outlives_its_token_only_where_it_may() {
    for (ends_with_token, expected) in [(false, None), (true, Some(Timestamp(7)))] {
        let rules = NotifyRules {
            ends_with_token,
            ..rules(&[])
        };
        match ask("?authorization=good-ada", "", "", &rules) {
            Reading::Open(request) => assert_eq!(request.identity.expires_at, expected),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_is_no_websocket_is_answered_as_http() {
    let text = "GET /notify/ws?authorization=good-ada HTTP/1.1\r\nhost: h\r\n\r\n";
    let Parsed::Complete(head, _) = parse(text.as_bytes()) else {
        panic!("a head");
    };
    match read(&head, b"", None, &rules(&[]), &Names, Timestamp(1), 100) {
        Reading::Unanswerable(problem) => assert_eq!(problem.status, 426),
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_a_form_may_come_with_the_request() {
    let length = |headers: &str| {
        let text = format!("GET /notify/ws HTTP/1.1\r\nhost: h\r\n{headers}\r\n");
        match parse(text.as_bytes()) {
            Parsed::Complete(head, length) => form_length(&head, length).map_err(|problem| problem.status),
            other => panic!("{other:?}"),
        }
    };
    let form = "content-type: application/x-www-form-urlencoded; charset=utf-8\r\n";
    assert_eq!(length(""), Ok(0));
    assert_eq!(length(&format!("{form}content-length: 8192\r\n")), Ok(8192));
    assert_eq!(length(&format!("{form}content-length: 8193\r\n")), Err(413));
    let long = format!("x: {}\r\n", "x".repeat(9000));
    assert_eq!(length(&format!("{form}{long}content-length: 8192\r\n")), Err(413));
    assert_eq!(
        length("content-type: application/json\r\ncontent-length: 2\r\n"),
        Err(400)
    );
    assert_eq!(length(&format!("{form}transfer-encoding: chunked\r\n")), Err(400));
}

#[test]
fn the_words_of_the_dialect() {
    let text = |frame: &[u8]| match frame[1] {
        126 => String::from_utf8(frame[4..].to_vec()).unwrap(),
        _ => String::from_utf8(frame[2..].to_vec()).unwrap(),
    };
    let mut connect = Vec::new();
    push_connect_frame(&mut connect, &UserId::new("a\"1").unwrap());
    assert_eq!(text(&connect), r#"{"kind":"connect","userID":"a\"1"}"#);
    assert_eq!(
        text(&state_frame(br#"{"a":"1"}"#)),
        r#"{"kind":"state","state":{"a":"1"}}"#
    );
    let refused = Problem::token_expired();
    assert_eq!(
        text(&error_frame(&refused)),
        format!(
            r#"{{"kind":"error","code":"unauthenticated","msg":"{}","meta":{{"code":"token_expired"}}}}"#,
            refused.detail
        )
    );
    for problem in [Problem::token_missing(), Problem::origin()] {
        let told = text(&error_frame(&problem));
        assert!(
            !told.contains("Bearer") && !told.contains("http.") && !told.contains("ticket"),
            "{told}"
        );
    }
    assert_eq!(refusal_close(&refused)[2..4], 1008u16.to_be_bytes());
    assert_eq!(
        refusal_close(&Problem::unavailable(1))[2..4],
        1013u16.to_be_bytes()
    );
    for (ours, theirs) in [
        (4000, 1001u16),
        (4001, 1008),
        (4002, 1013),
        (4500, 1008),
        (4501, 1002),
    ] {
        assert_eq!(close_frame(ours, "x")[2..4], theirs.to_be_bytes());
    }
}
