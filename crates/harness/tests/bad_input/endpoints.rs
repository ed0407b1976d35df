//! Bad requests to every endpoint but publishing: parameters, bodies, paths, methods, content types.

use anyhow::{Result, ensure};
use postrider_harness::http::Request;
use postrider_harness::node::{KEY, KEY_PUBLISH, KEY_READ};
use postrider_harness::token;

use crate::{Bench, Wanted, run, status, wanted};

fn as_ada(method: &str, target: &str) -> Request {
    Request::new(method, target).bearer(&token::user("ada").unwrap())
}

fn with_key(method: &str, target: &str) -> Request {
    Request::new(method, target).bearer(KEY)
}

#[test]
fn inbox_parameters() {
    let mut cases: Vec<(String, Request, Wanted)> = Vec::new();
    let numbers = [
        "wait=-1",
        "wait=121",
        "wait=x",
        "wait=",
        "wait=1e9",
        "wait=99999999999999999999",
    ];
    let limits = [
        "limit=0",
        "limit=-1",
        "limit=1001",
        "limit=x",
        "limit=",
        "limit=1.5",
    ];
    for query in numbers.into_iter().chain(limits) {
        cases.push((
            query.into(),
            as_ada("GET", &format!("/v1/inbox?{query}")),
            status(&[400]),
        ));
    }
    for path in ["/v1/inbox", "/v1/inbox/stream", "/v1/inbox/history"] {
        let name = if path.ends_with("history") {
            "before"
        } else {
            "cursor"
        };
        for cursor in ["x", "%00", "%ff", "AAAA%3D%3D", "..%2F..%2Fetc"] {
            let request = as_ada("GET", &format!("{path}?wait=0&{name}={cursor}"));
            let request = if name == "before" {
                as_ada("GET", &format!("{path}?before={cursor}"))
            } else {
                request
            };
            cases.push((
                format!("{path} {name}={cursor}"),
                request,
                wanted(&[400], "invalid_cursor"),
            ));
        }
    }
    for path in ["/v1/inbox", "/v1/inbox/stream"] {
        for query in ["ack=maybe", "topics=a%20b", "topics=%C3%A9", "state=perhaps"] {
            cases.push((
                format!("{path}?{query}"),
                as_ada("GET", &format!("{path}?{query}")),
                status(&[400]),
            ));
        }
        cases.push((
            format!("{path} without a token"),
            Request::new("GET", path),
            wanted(&[401], "token_missing"),
        ));
    }
    let resumed = as_ada("GET", "/v1/inbox/stream").header("Last-Event-ID", "nonsense");
    cases.push(("Last-Event-ID".into(), resumed, wanted(&[400], "invalid_cursor")));
    for limit in ["0", "-1", "x", "100000"] {
        cases.push((
            format!("history limit={limit}"),
            as_ada("GET", &format!("/v1/inbox/history?limit={limit}")),
            status(&[400]),
        ));
    }
    run(cases);
}

#[test]
fn websocket_handshakes() {
    let good = |drop: &str| {
        let headers = [
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let kept = headers.into_iter().filter(|(name, _)| *name != drop);
        kept.fold(as_ada("GET", "/v1/inbox/ws"), |request, (name, value)| {
            request.header(name, value)
        })
    };
    let mut cases: Vec<(String, Request, Wanted)> = Vec::new();
    for drop in [
        "Connection",
        "Upgrade",
        "Sec-WebSocket-Version",
        "Sec-WebSocket-Key",
    ] {
        cases.push((format!("without {drop}"), good(drop), status(&[400, 426])));
    }
    let version = good("Sec-WebSocket-Version").header("Sec-WebSocket-Version", "8");
    cases.push(("version 8".into(), version, status(&[400, 426])));
    let key = good("Sec-WebSocket-Key").header("Sec-WebSocket-Key", "short");
    cases.push(("a key that is not 16 bytes".into(), key, status(&[400])));
    run(cases);
}

#[test]
fn ack_and_read_bodies() {
    let json = "application/json";
    let many = format!(r#"{{"ids":[{}]}}"#, vec![r#""n""#; 100_001].join(","));
    let bodies = [
        "",
        "{",
        "[]",
        "null",
        "7",
        "{}",
        r#"{"ids":"n"}"#,
        r#"{"ids":[7]}"#,
        r#"{"ids":[null]}"#,
        r#"{"ids":{}}"#,
        r#"{"ids":["a b"]}"#,
        r#"{"ids":[""]}"#,
        r#"{"ids":["n"],"cursor":"x"}"#,
        r#"{"ids":["n"],"more":1}"#,
        r#"{"cursor":7}"#,
    ];
    let mut cases: Vec<(String, Request, Wanted)> = Vec::new();
    for path in ["/v1/inbox/ack", "/v1/inbox/read"] {
        for body in bodies {
            cases.push((
                format!("{path} {body}"),
                as_ada("POST", path).body(json, body),
                status(&[400]),
            ));
        }
        let cursor = as_ada("POST", path).body(json, r#"{"cursor":"nonsense"}"#);
        cases.push((format!("{path} cursor"), cursor, wanted(&[400], "invalid_cursor")));
        cases.push((
            format!("{path} many"),
            as_ada("POST", path).body(json, many.as_str()),
            status(&[400, 413]),
        ));
        let text = as_ada("POST", path).body("text/plain", r#"{"ids":["n"]}"#);
        cases.push((format!("{path} as text"), text, status(&[415])));
        let nobody = Request::new("POST", path).body(json, r#"{"ids":["n"]}"#);
        cases.push((
            format!("{path} without a token"),
            nobody,
            wanted(&[401], "token_missing"),
        ));
        cases.push((format!("{path} GET"), as_ada("GET", path), status(&[405])));
    }
    run(cases);
}

#[test]
fn one_notification() {
    let id = "/v1/notifications/no-such-id";
    let mut cases: Vec<(String, Request, Wanted)> = Vec::new();
    for (method, path) in [
        ("GET", id.to_owned()),
        ("DELETE", id.to_owned()),
        ("GET", format!("{id}/timeline")),
    ] {
        let name = |what: &str| format!("{method} {path} {what}");
        cases.push((
            name("unknown"),
            with_key(method, &path),
            wanted(&[404], "not_found"),
        ));
        cases.push((
            name("without a key"),
            Request::new(method, &path),
            wanted(&[401], "key_missing"),
        ));
        cases.push((
            name("user token"),
            as_ada(method, &path),
            wanted(&[401], "key_invalid"),
        ));
    }
    let look = Request::new("GET", id).bearer(KEY_PUBLISH);
    cases.push(("GET without scope read".into(), look, wanted(&[403], "scope")));
    for bad in ["a%20b", "%00", "%2e%2e%2f", "%C3%A9", &"x".repeat(129)] {
        let path = format!("/v1/notifications/{bad}");
        cases.push((path.clone(), with_key("GET", &path), status(&[400, 404])));
        cases.push((
            format!("DELETE {path}"),
            with_key("DELETE", &path),
            status(&[400, 404]),
        ));
    }
    run(cases);
}

#[test]
fn cancelling_is_for_the_publisher_or_a_manager() -> Result<()> {
    use postrider_harness::publish::Publisher;
    let mut bench = Bench::start()?;
    let mut publisher = Publisher::new(&bench.node.endpoint, KEY);
    let id = publisher.accepted(&serde_json::json!({"users": ["eve"], "data": 1}))?;
    for key in [KEY_PUBLISH, KEY_READ] {
        let request = Request::new("DELETE", &format!("/v1/notifications/{id}")).bearer(key);
        bench.case("cancel another's", &request, &wanted(&[403], "scope"))?;
    }
    ensure!(
        publisher.count(&id, "pending")? == 1,
        "it was cancelled all the same"
    );
    let mut own = Publisher::new(&bench.node.endpoint, KEY_PUBLISH);
    let id = own.accepted(&serde_json::json!({"users": ["eve"], "data": 1}))?;
    ensure!(
        own.cancel(&id)?.status() == 200,
        "the publishing key may cancel its own"
    );
    let id = own.accepted(&serde_json::json!({"users": ["eve"], "data": 1}))?;
    ensure!(publisher.cancel(&id)?.status() == 200, "manage may cancel any");
    Ok(())
}

#[test]
fn tickets() {
    run(vec![
        (
            "without a token".into(),
            Request::new("POST", "/v1/tickets"),
            wanted(&[401], "token_missing"),
        ),
        (
            "with a key".into(),
            with_key("POST", "/v1/tickets"),
            status(&[401]),
        ),
        ("GET".into(), as_ada("GET", "/v1/tickets"), status(&[405])),
        (
            "unknown ticket".into(),
            Request::new("GET", "/v1/inbox?wait=0&ticket=nonsense"),
            status(&[401]),
        ),
        (
            "empty ticket".into(),
            Request::new("GET", "/v1/inbox?wait=0&ticket="),
            status(&[401]),
        ),
    ]);
}

#[test]
fn unknown_paths_and_methods() {
    let mut cases: Vec<(String, Request, Wanted)> = Vec::new();
    let unknown = [
        "/",
        "/v1",
        "/v1/",
        "/v2/notifications",
        "/v1/notifications/",
        "/v1/Notifications",
        "/v1/inbox/",
        "/v1/inbox/nothing",
        "/v1/notifications/a/b/c",
        "/v1/inbox/../notifications",
        "//v1/inbox",
        "/v1/inbox%2fack",
        "/metrics",
        "/health",
    ];
    for path in unknown {
        cases.push((
            format!("GET {path}"),
            with_key("GET", path),
            wanted(&[404], "not_found"),
        ));
    }
    let methods = [
        ("PUT", "/v1/notifications"),
        ("PATCH", "/v1/notifications"),
        ("DELETE", "/v1/notifications"),
        ("POST", "/v1/inbox"),
        ("DELETE", "/v1/inbox"),
        ("POST", "/v1/inbox/stream"),
        ("POST", "/v1/inbox/ws"),
        ("POST", "/v1/inbox/history"),
        ("PUT", "/v1/inbox/ack"),
        ("TRACE", "/v1/inbox"),
        ("BREW", "/v1/inbox"),
    ];
    for (method, path) in methods {
        cases.push((format!("{method} {path}"), with_key(method, path), status(&[405])));
    }
    run(cases);
}

#[test]
fn answers_are_not_to_be_cached_and_methods_are_told() -> Result<()> {
    let bench = Bench::start()?;
    let allow = bench.ask(&with_key("PUT", "/v1/notifications"))?;
    let told = allow.head.header("allow").unwrap_or_default().to_owned();
    ensure!(
        told.split(',').any(|m| m.trim() == "POST"),
        "405 without Allow: POST (RFC 9110, 15.5.6): {told:?}"
    );
    for target in [
        "/v1/inbox?wait=0",
        "/v1/inbox?wait=0&cursor=nonsense",
        "/v1/inbox/history",
    ] {
        let answer = bench.ask(&as_ada("GET", target))?;
        let control = answer.head.header("cache-control").unwrap_or_default();
        ensure!(
            control.contains("no-store"),
            "{target}: Cache-Control {control:?}"
        );
    }
    let refused = bench.ask(&Request::new("GET", "/v1/inbox"))?;
    let challenge = refused.head.header("www-authenticate").unwrap_or_default();
    ensure!(
        challenge.starts_with("Bearer"),
        "401 without WWW-Authenticate (RFC 9110, 15.5.2): {challenge:?}"
    );
    Ok(())
}
