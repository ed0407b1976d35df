//! Bad notifications: as one object, inside an array, and as a line of NDJSON.

use anyhow::{Context, Result, ensure};
use postrider_harness::http::Request;
use postrider_harness::node::{KEY, KEY_PUBLISH, KEY_READ};
use postrider_harness::publish::{Item, Publisher};
use postrider_harness::wait::within;
use serde_json::{Value, json};

use crate::{Bench, Wanted, at, run, status, wanted};

const INVALID: &str = "invalid_notification";

/// Bodies of valid JSON that are no valid notification, with the code and pointer that each must be refused with.
fn bad_notifications() -> Vec<(Value, u16, &'static str, &'static str)> {
    let base = |extra: Value| {
        let mut body = json!({"users": ["ada"], "data": 1});
        body.as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        body
    };
    let long = |length: usize| "x".repeat(length);
    let users = |count: usize| (0..count).map(|n| format!("u{n}")).collect::<Vec<_>>();
    let mut cases = vec![
        (json!({"users": ["ada"]}), 400, INVALID, "/data"),
        (json!({}), 400, INVALID, "/data"),
        (json!({"users": [], "data": 1}), 400, "empty_audience", "/users"),
        (json!({"topics": [], "data": 1}), 400, "empty_audience", "/topics"),
        (base(json!({"topics": ["t"]})), 400, INVALID, ""),
        (base(json!({"users": "ada"})), 400, INVALID, "/users"),
        (base(json!({"users": {"ada": true}})), 400, INVALID, "/users"),
        (base(json!({"users": ["ada", 7]})), 400, INVALID, "/users/1"),
        (base(json!({"users": ["ada", null]})), 400, INVALID, "/users/1"),
        (base(json!({"users": ["ada", ""]})), 400, INVALID, "/users/1"),
        (base(json!({"users": ["ada", "b\nc"]})), 400, INVALID, "/users/1"),
        (
            base(json!({"users": ["ada", "b\u{0}c"]})),
            400,
            INVALID,
            "/users/1",
        ),
        (
            base(json!({"users": ["ada", "b\u{7f}c"]})),
            400,
            INVALID,
            "/users/1",
        ),
        (
            base(json!({"users": ["ada", "b\u{85}c"]})),
            400,
            INVALID,
            "/users/1",
        ),
        (
            base(json!({"users": ["ada", long(257)]})),
            400,
            INVALID,
            "/users/1",
        ),
        (
            base(json!({"users": ["ada", "é".repeat(129)]})),
            400,
            INVALID,
            "/users/1",
        ),
        (base(json!({"users": users(10_001)})), 413, "too_large", "/users"),
        (
            base(json!({"exclude_users": users(1_001)})),
            413,
            "too_large",
            "/exclude_users",
        ),
        (
            base(json!({"exclude_users": ["b", "a\tb"]})),
            400,
            INVALID,
            "/exclude_users/1",
        ),
        (
            base(json!({"exclude_users": "b"})),
            400,
            INVALID,
            "/exclude_users",
        ),
        (json!({"topics": ["a b"], "data": 1}), 400, INVALID, "/topics/0"),
        (
            json!({"topics": ["ok", ""], "data": 1}),
            400,
            INVALID,
            "/topics/1",
        ),
        (
            json!({"topics": ["ok", "é"], "data": 1}),
            400,
            INVALID,
            "/topics/1",
        ),
        (
            json!({"topics": [long(129)], "data": 1}),
            400,
            INVALID,
            "/topics/0",
        ),
        (json!({"topics": "t", "data": 1}), 400, INVALID, "/topics"),
        (base(json!({"id": ""})), 400, INVALID, "/id"),
        (base(json!({"id": "a b"})), 400, INVALID, "/id"),
        (base(json!({"id": "a/b"})), 400, INVALID, "/id"),
        (base(json!({"id": long(129)})), 400, INVALID, "/id"),
        (base(json!({"id": 7})), 400, INVALID, "/id"),
        (base(json!({"subject": 7})), 400, INVALID, "/subject"),
        (base(json!({"subject": ["s"]})), 400, INVALID, "/subject"),
        (
            base(json!({"durability": "forever"})),
            400,
            INVALID,
            "/durability",
        ),
        (base(json!({"durability": true})), 400, INVALID, "/durability"),
        (
            base(json!({"durability": "transient", "collapse_key": "k"})),
            400,
            INVALID,
            "/collapse_key",
        ),
        (
            base(json!({"durability": "transient", "policy": "default"})),
            400,
            INVALID,
            "/policy",
        ),
        (
            base(json!({"durability": "transient", "deliver_at": "2099-01-01T00:00:00Z"})),
            400,
            INVALID,
            "/deliver_at",
        ),
        (base(json!({"policy": "no-such-policy"})), 400, INVALID, "/policy"),
        (
            base(json!({"deliver_at": "tomorrow"})),
            400,
            INVALID,
            "/deliver_at",
        ),
        (
            base(json!({"deliver_at": "2026-02-30T00:00:00Z"})),
            400,
            INVALID,
            "/deliver_at",
        ),
        (
            base(json!({"deliver_at": 1_900_000_000})),
            400,
            INVALID,
            "/deliver_at",
        ),
        (base(json!({"collapse_key": ""})), 400, INVALID, "/collapse_key"),
        (base(json!({"collapse_key": 7})), 400, INVALID, "/collapse_key"),
        (base(json!({"devices": "some"})), 400, INVALID, "/devices"),
        (base(json!({"surprise": 1})), 400, INVALID, "/surprise"),
        (base(json!({"Users": ["bob"]})), 400, INVALID, "/Users"),
        (base(json!({"data": long(256 * 1024)})), 413, "too_large", "/data"),
        (json!("text"), 400, INVALID, ""),
        (json!(7), 400, INVALID, ""),
        (json!(null), 400, INVALID, ""),
    ];
    let ttls = [
        "",
        "soon",
        "-1s",
        "1 fortnight",
        "24",
        "h",
        "1h-1m",
        "99999999999999999999d",
        "1.5.1h",
    ];
    cases.extend(ttls.map(|ttl| (base(json!({"ttl": ttl})), 400, INVALID, "/ttl")));
    let ttls = [
        json!(-1),
        json!(1e300),
        json!(true),
        json!(["1h"]),
        json!({"hours": 1}),
    ];
    cases.extend(ttls.map(|ttl| (base(json!({"ttl": ttl})), 400, INVALID, "/ttl")));
    cases
}

fn post(content_type: &str, body: impl Into<Vec<u8>>) -> Request {
    Request::new("POST", "/v1/notifications")
        .bearer(KEY)
        .body(content_type, body)
}

fn shorten(body: &str) -> String {
    body.chars().take(120).collect()
}

#[test]
fn one_bad_notification() {
    let cases = bad_notifications()
        .into_iter()
        .map(|(body, code, name, pointer)| {
            let request = post("application/json", body.to_string());
            let status: &[u16] = if code == 413 { &[413] } else { &[400] };
            let wanted = Wanted {
                status,
                code: Some(name),
                pointer: (!pointer.is_empty()).then_some(pointer),
            };
            (shorten(&body.to_string()), request, wanted)
        });
    run(cases.collect());
}

#[test]
fn bad_bodies() {
    let deep = |depth: usize| {
        format!(
            r#"{{"users":["ada"],"data":{}{}}}"#,
            "[".repeat(depth),
            "]".repeat(depth)
        )
    };
    let good = r#"{"users":["ada"],"data":1}"#;
    let bad = wanted(&[400], INVALID);
    let json: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("white space", b" \n".to_vec()),
        ("broken", br#"{"users":["ada"],"data":1"#.to_vec()),
        ("trailing comma", br#"{"users":["ada"],"data":1,}"#.to_vec()),
        ("trailing bytes", format!("{good}x").into_bytes()),
        ("two objects", format!("{good}{good}").into_bytes()),
        ("single quotes", br#"{'users':['ada'],'data':1}"#.to_vec()),
        ("comment", format!("/* */{good}").into_bytes()),
        ("NaN", br#"{"users":["ada"],"data":NaN}"#.to_vec()),
        ("leading zero", br#"{"users":["ada"],"data":01}"#.to_vec()),
        (
            "control character in a string",
            b"{\"users\":[\"ada\"],\"data\":\"a\nb\"}".to_vec(),
        ),
        ("bad escape", br#"{"users":["ada"],"data":"\x"}"#.to_vec()),
        (
            "invalid UTF-8 in data",
            b"{\"users\":[\"ada\"],\"data\":\"\xff\xfe\"}".to_vec(),
        ),
        (
            "invalid UTF-8 in a user",
            b"{\"users\":[\"ada\",\"\xc3\x28\"],\"data\":1}".to_vec(),
        ),
        (
            "lone surrogate in a user",
            br#"{"users":["ada","\ud800"],"data":1}"#.to_vec(),
        ),
        (
            "the same field twice",
            br#"{"users":["ada"],"data":1,"data":2}"#.to_vec(),
        ),
        (
            "the same audience twice",
            br#"{"users":["ada"],"users":["bob"],"data":2}"#.to_vec(),
        ),
        ("too deep", deep(64).into_bytes()),
        ("very deep", deep(100_000).into_bytes()),
        ("deep and open", b"[".repeat(200_000)),
        ("UTF-16", good.encode_utf16().flat_map(u16::to_le_bytes).collect()),
    ];
    let mut cases: Vec<(String, Request, Wanted)> = json
        .into_iter()
        .map(|(name, body)| (name.to_owned(), post("application/json", body), Wanted { ..bad }))
        .collect();
    let types = [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/xml",
        "",
        "application/jsonx",
    ];
    for content_type in types {
        cases.push((
            format!("type {content_type:?}"),
            post(content_type, good),
            status(&[415]),
        ));
    }
    let no_type = "POST /v1/notifications";
    cases.push((
        format!("{no_type} with two content types"),
        post("text/plain", good).header("Content-Type", "application/xml"),
        status(&[400, 415]),
    ));
    let large = format!("[{}]", vec![good; 1001].join(","));
    cases.push((
        "array of 1001".into(),
        post("application/json", large),
        wanted(&[413], "too_large"),
    ));
    let huge = format!(r#"{{"users":["ada"],"data":"{}"}}"#, "x".repeat(5 << 20));
    cases.push((
        "body over http.max_body".into(),
        post("application/json", huge),
        wanted(&[413], "too_large"),
    ));
    cases.push((
        "a bad Idempotency-Key".into(),
        post("application/json", good).header("Idempotency-Key", &"k".repeat(10_000)),
        status(&[400, 431]),
    ));
    run(cases);
}

#[test]
fn who_may_publish() {
    let body = |audience: &str| format!(r#"{{{audience}"data":1}}"#);
    let to_ada = body(r#""users":["ada"],"#);
    let by = |key: &str, body: &str| {
        Request::new("POST", "/v1/notifications")
            .bearer(key)
            .body("application/json", body)
    };
    let bare = |header: Option<&str>| {
        let request = Request::new("POST", "/v1/notifications").body("application/json", to_ada.as_str());
        header.map_or(request.clone(), |value| request.header("Authorization", value))
    };
    let token = postrider_harness::token::user("ada").unwrap();
    run(vec![
        ("no key".into(), bare(None), wanted(&[401], "key_missing")),
        ("empty key".into(), bare(Some("Bearer ")), status(&[401])),
        ("basic".into(), bare(Some("Basic YTpi")), status(&[401])),
        (
            "wrong key".into(),
            by("nonsense", &to_ada),
            wanted(&[401], "key_invalid"),
        ),
        (
            "a prefix of a key".into(),
            by(&KEY[..KEY.len() - 1], &to_ada),
            wanted(&[401], "key_invalid"),
        ),
        (
            "key and more".into(),
            by(&format!("{KEY}x"), &to_ada),
            wanted(&[401], "key_invalid"),
        ),
        (
            "a user token".into(),
            by(&token, &to_ada),
            wanted(&[401], "key_invalid"),
        ),
        (
            "scope read".into(),
            by(KEY_READ, &to_ada),
            wanted(&[403], "scope"),
        ),
        (
            "broadcast without the scope".into(),
            by(KEY_PUBLISH, &body("")),
            wanted(&[403], "scope"),
        ),
        (
            "everyone but one, without the scope".into(),
            by(KEY_PUBLISH, &body(r#""exclude_users":["eve"],"#)),
            wanted(&[403], "scope"),
        ),
        (
            "transient broadcast".into(),
            by(KEY_PUBLISH, &body(r#""durability":"transient","#)),
            wanted(&[403], "scope"),
        ),
    ]);
}

/// A bad item rejects itself only, with the same code as if it stood alone and a pointer inside itself.
#[test]
fn bad_items_of_arrays_and_streams() -> Result<()> {
    let mut bench = Bench::start()?;
    let small = |body: &Value| body.to_string().len() < 100_000;
    let bad: Vec<_> = bad_notifications()
        .into_iter()
        .filter(|(body, ..)| small(body))
        .collect();
    let bodies: Vec<Value> = bad.iter().map(|(body, ..)| body.clone()).collect();
    let mut publisher = Publisher::new(&bench.node.endpoint, KEY);
    let by_array = publisher.array(&bodies)?;
    let mut stream = publisher.stream()?;
    for body in &bodies {
        stream.send(&body.to_string())?;
    }
    stream.finish()?;
    let mut failures = Vec::new();
    for ((body, _, code, pointer), item) in bad.iter().zip(by_array) {
        let line = stream
            .answer(within(30))?
            .with_context(|| format!("no line for {body}"))?;
        for (shape, item) in [("array", item), ("stream", line)] {
            let matches = match &item {
                Item::Rejected(told, whole) => {
                    told == code
                        && (pointer.is_empty() || whole["pointer"] == **pointer)
                        && whole["detail"].is_string()
                }
                Item::Accepted(_) => false,
            };
            if !matches {
                failures.push(format!(
                    "{shape}, {}: wanted {code} at {pointer:?}, got {item:?}",
                    shorten(&body.to_string())
                ));
            }
        }
    }
    ensure!(stream.answer(within(30))?.is_none(), "more lines than were sent");
    ensure!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures.join("\n")
    );
    bench.unharmed()
}

#[test]
fn bad_lines_of_a_stream() -> Result<()> {
    let mut bench = Bench::start()?;
    let publisher = Publisher::new(&bench.node.endpoint, KEY);
    let mut stream = publisher.stream()?;
    let huge = format!(r#"{{"users":["ada"],"data":"{}"}}"#, "x".repeat(8 << 20));
    let deep = "[".repeat(10_000);
    let good = r#"{"id":"good","users":["eve"],"data":1}"#;
    // An empty line is no item; each of the others has its answer, and the stream goes on.
    for line in [
        "{",
        "nonsense",
        "",
        "[1,2]",
        &deep,
        &huge,
        "\u{0}",
        "\"\u{7f}\"",
        good,
    ] {
        stream.send(line)?;
    }
    stream.finish()?;
    let wanted = [INVALID, INVALID, INVALID, INVALID, "too_large", INVALID, INVALID];
    for (at, wanted) in wanted.into_iter().enumerate() {
        match stream.answer(within(30))? {
            Some(Item::Rejected(code, _)) if code == wanted => {}
            other => anyhow::bail!("answer {at}: wanted {wanted}, got {other:?}"),
        }
    }
    ensure!(stream.answer(within(30))? == Some(Item::Accepted("good".into())));
    ensure!(stream.answer(within(30))?.is_none());
    bench.unharmed()
}

/// The limits themselves are inside.
#[test]
fn what_is_just_allowed() -> Result<()> {
    let bench = Bench::start()?;
    let mut publisher = Publisher::new(&bench.node.endpoint, KEY);
    let users: Vec<String> = (0..10_000).map(|n| format!("u{n}")).collect();
    let excluded: Vec<String> = (0..1_000).map(|n| format!("u{n}")).collect();
    let deep = format!("{}{}", "[".repeat(60), "]".repeat(60));
    for body in [
        json!({"users": users, "exclude_users": excluded, "data": 1}),
        json!({"users": ["x".repeat(256)], "data": 1}),
        json!({"topics": ["A-Za-z0-9._:/@+~-", "x".repeat(128)], "data": 1}),
        json!({"id": "A-Za-z0-9._:~+@-", "users": ["u"], "data": 1}),
        json!({"id": "x".repeat(128), "users": ["u"], "data": 1}),
        json!({"users": ["u"], "data": serde_json::from_str::<Value>(&deep)?}),
        json!({"users": ["u"], "data": 1, "ttl": 60}),
        json!({"users": ["u"], "data": 1, "ttl": "90m"}),
        json!({"users": ["u"], "data": 1, "ttl": "30d"}),
        json!({"users": ["u"], "data": 1, "devices": "first", "policy": "default"}),
    ] {
        publisher
            .accepted(&body)
            .with_context(|| shorten(&body.to_string()))?;
    }
    let items = publisher.array(&vec![json!({"users": ["u"], "data": 1}); 1000])?;
    ensure!(
        items.iter().all(|item| matches!(item, Item::Accepted(_))),
        "an array of 1000"
    );
    let answer = publisher.array(&[])?;
    ensure!(answer.is_empty(), "an empty array");
    Ok(())
}

/// Pointers follow RFC 6901: `/` and `~` in a field's name are escaped.
#[test]
fn pointers_are_escaped() {
    let body = r#"{"users":["ada"],"data":1,"a/b~c":1}"#;
    run(vec![(
        "unknown a/b~c".into(),
        post("application/json", body),
        at(&[400], INVALID, "/a~1b~0c"),
    )]);
}
