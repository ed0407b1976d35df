//! Bad bodies and content types, who may publish at all, and what is just inside the limits.

use anyhow::{Context, Result, ensure};
use postrider_harness::http::Request;
use postrider_harness::node::{KEY, KEY_PUBLISH, KEY_READ};
use postrider_harness::publish::{Item, Publisher};
use postrider_harness::wait::within;
use serde_json::{Value, json};

use crate::notifications::{INVALID, post, shorten};
use crate::{Bench, Wanted, at, run, status, wanted};

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
        json!({"users": ["u"], "data": 1, "devices": "all", "policy": "default"}),
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
