//! Bad notifications: as one object, inside an array, and as a line of NDJSON.

use anyhow::{Context, Result, ensure};
use postrider_harness::http::Request;
use postrider_harness::node::KEY;
use postrider_harness::publish::{Item, Publisher};
use postrider_harness::wait::within;
use serde_json::{Value, json};

use crate::{Bench, Wanted, run};

pub const INVALID: &str = "invalid_notification";

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

pub fn post(content_type: &str, body: impl Into<Vec<u8>>) -> Request {
    Request::new("POST", "/v1/notifications")
        .bearer(KEY)
        .body(content_type, body)
}

pub fn shorten(body: &str) -> String {
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
