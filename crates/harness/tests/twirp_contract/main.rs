//! One contract over the HTTP API and Twirp, with JSON and with protobuf.
//!
//! Invariant checked: what one caller is told, another is told who asks the same by another way; and what they publish
//! reaches the user as it was written.

#![allow(missing_docs, clippy::unwrap_used)]
#![allow(
    clippy::disallowed_methods,
    reason = "a black-box test is a driver: it reads clocks, spawns and draws"
)]

mod cases;
mod ways;

use anyhow::{Context as _, Result, ensure};
use cases::{CASES, Case, Expected};
use postrider_harness::http::{Request, once};
use postrider_harness::node::{KEY, KEY_PUBLISH, KEY_READ, Node};
use postrider_harness::token;
use serde_json::{Value, json};
use ways::{Service, Told, Way, empty};

fn check(test: fn() -> Result<()>) {
    if let Err(e) = test() {
        panic!("{e:?}");
    }
}

#[test]
fn every_way_tells_the_same() {
    check(|| {
        let node = Node::start(&[
            ("limits.data", "1KiB"),
            ("limits.array", "5"),
            ("limits.users_per_notification", "20"),
            ("limits.json_depth", "8"),
        ])?;
        let service = Service::new(node.endpoint.addr()?)?;
        let (mut called, mut faults) = (Vec::new(), Vec::new());
        for case in CASES {
            let [rest, json, protobuf] = Way::ALL.map(|way| tell(&service, case, way));
            let (rest, others) = (rest?, [json?, protobuf?]);
            let as_expected = match (case.expected, &rest) {
                (Expected::Done, Told::Done(_)) => true,
                (Expected::Refused(expected), Told::Refused { code, .. }) => expected == code,
                _ => false,
            };
            if !as_expected || others.iter().any(|told| *told != rest) {
                faults.push(format!("{}: {rest:?} and {others:?}", case.name));
            }
            called.push(case.method);
        }
        ensure!(faults.is_empty(), "{}", faults.join("\n"));
        for method in service.methods() {
            ensure!(called.contains(&method.as_str()), "no case calls {method}");
        }
        Ok(())
    });
}

/// What a way is told of a case. Each has names of its own, by `~`, which are made equal again.
fn tell(service: &Service, case: &Case, way: Way) -> Result<Told> {
    let mark = format!("~{}", way.name());
    let request: Value = serde_json::from_str(&case.request.replace('~', &mark)).context(case.name)?;
    let credential = match case.who {
        "" => None,
        "key" => Some(KEY.to_owned()),
        "publish" => Some(KEY_PUBLISH.to_owned()),
        "read" => Some(KEY_READ.to_owned()),
        user => Some(token::user(&user.replace('~', &mark))?),
    };
    let authorization = credential.map(|credential| format!("Bearer {credential}"));
    let idempotency = case.idempotency.map(|key| key.replace('~', &mark));
    let headers: Vec<(&str, &str)> = [
        authorization.as_deref().map(|value| ("Authorization", value)),
        idempotency.as_deref().map(|value| ("Idempotency-Key", value)),
    ]
    .into_iter()
    .flatten()
    .collect();
    let told = service.call(way, &headers, case.method, &request)?;
    Ok(match told {
        Told::Done(value) => Told::Done(serde_json::from_str(
            &cases::plain(&value).to_string().replace(&mark, "~"),
        )?),
        refused => refused,
    })
}

#[test]
fn a_payload_arrives_as_it_was_written() {
    check(|| {
        let node = Node::start(&[])?;
        let addr = node.endpoint.addr()?;
        let service = Service::new(addr)?;
        let bearer = format!("Bearer {KEY}");
        let headers = [("Authorization", bearer.as_str())];
        let data = r#"{"z":9007199254740993,"a":[1.0,1e5,"\u00e9"]}"#;
        let json = format!(r#"{{"users":{{"ids":["json"]}},"data": {data} }}"#);
        let text = format!(r#"{{"users":{{"ids":["text"]}},"dataJson":{}}}"#, json!(data));
        for body in [json, text] {
            let answer = service.raw(
                "Publish",
                &headers,
                "application/json; charset=utf-8",
                body.into(),
            )?;
            ensure!(answer.status() == 200, "{}", answer.text());
        }
        let request = json!({"users": {"ids": ["proto"]}, "data_json": data});
        service.call(Way::Protobuf, &headers, "Publish", &request)?;
        for user in ["json", "text", "proto"] {
            let request = Request::new("GET", "/v1/inbox").bearer(&token::user(user)?);
            let inbox = once(addr, &request)?.text();
            ensure!(inbox.contains(&format!(r#""data":{data}"#)), "{user}: {inbox}");
        }
        let accepted = node.metric(r#"postrider_notifications_accepted_total{source="twirp"}"#)?;
        ensure!(accepted == 3.0, "{accepted} counted");
        Ok(())
    });
}

/// One request, however it is written, for one `Idempotency-Key`.
#[test]
fn an_idempotency_key_stands_for_what_is_said() {
    check(|| {
        let node = Node::start(&[])?;
        let service = Service::new(node.endpoint.addr()?)?;
        let bearer = format!("Bearer {KEY}");
        let headers = [("Authorization", bearer.as_str()), ("Idempotency-Key", "k-1")];
        let request = json!({"users": {"ids": ["ada"]}, "data": {"a": 1}});
        let first = service.call(Way::Json, &headers, "Publish", &request)?;
        ensure!(matches!(first, Told::Done(_)), "{first:?}");
        ensure!(service.call(Way::Protobuf, &headers, "Publish", &request)? == first);
        for (way, method) in [(Way::Json, "PublishBatch"), (Way::Rest, "Publish")] {
            let request = match method {
                "Publish" => request.clone(),
                _ => json!({ "notifications": [request] }),
            };
            let told = service.call(way, &headers, method, &request)?;
            ensure!(
                matches!(&told, Told::Refused { code, .. } if code == "id_conflict"),
                "{told:?}"
            );
        }
        Ok(())
    });
}

#[test]
fn a_rate_and_a_bound_hold_for_every_way() {
    check(|| {
        for way in Way::ALL {
            let node = Node::start(&[("limits.publish_rate", "1"), ("http.max_body", "4KiB")])?;
            let service = Service::new(node.endpoint.addr()?)?;
            let bearer = format!("Bearer {KEY}");
            let headers = [("Authorization", bearer.as_str())];
            let small = json!({"users": {"ids": ["ada"]}, "data": 1});
            let batch = json!({"notifications": [small, small]});
            let told = service.call(way, &headers, "PublishBatch", &batch)?;
            let Told::Done(told) = told else {
                anyhow::bail!("{told:?}")
            };
            ensure!(told["rejected"][0]["code"] == "rate_limited", "{way:?}: {told}");
            let large = json!({"users": {"ids": ["ada"]}, "data": "x".repeat(5000)});
            let told = service.call(way, &headers, "Publish", &large)?;
            ensure!(
                matches!(&told, Told::Refused { code, .. } if code == "too_large"),
                "{way:?}: {told:?}"
            );
            let refused = node.metric(r#"postrider_notifications_rejected_total{code="too_large"}"#)?;
            ensure!(refused == 1.0, "{way:?}: {refused} counted");
        }
        Ok(())
    });
}

/// What Twirp says of routes, and of bodies that are no messages.
#[test]
fn wrong_routes_and_bodies_are_told_as_twirp_tells_them() {
    check(|| {
        let node = Node::start(&[])?;
        let addr = node.endpoint.addr()?;
        let service = Service::new(addr)?;
        let bearer = format!("Bearer {KEY}");
        let headers = [("Authorization", bearer.as_str())];
        let (json, protobuf) = ("application/json", "application/protobuf");
        let code = |answer: &postrider_harness::http::Answer| -> Result<(u16, String)> {
            Ok((
                answer.status(),
                answer.json()?["code"].as_str().unwrap_or_default().to_owned(),
            ))
        };
        let bodies: [(&str, &str, &[u8], _); 9] = [
            ("Nothing", json, b"{}", (404, "bad_route")),
            ("publish", json, b"{}", (404, "bad_route")),
            ("Publish", "text/plain", b"{}", (404, "bad_route")),
            ("Publish", json, b"{", (400, "malformed")),
            ("Publish", json, b"[]", (400, "malformed")),
            ("Publish", json, br#"{"user":["ada"]}"#, (400, "malformed")),
            ("Publish", protobuf, b"\xff", (400, "malformed")),
            ("Publish", protobuf, b"\x0a\x05\x0a\x03ad", (400, "malformed")),
            ("Publish", protobuf, b"\x0a\x03\x0a\x01\xff", (400, "malformed")),
        ];
        for (method, media_type, body, expected) in bodies {
            let answer = service.raw(method, &headers, media_type, body.to_vec())?;
            ensure!(
                code(&answer)? == (expected.0, expected.1.to_owned()),
                "{method} {body:?}: {}",
                answer.text()
            );
        }
        let answer = service.raw("Publish", &[], json, b"{".to_vec())?;
        ensure!(
            code(&answer)? == (401, "unauthenticated".to_owned()),
            "read before let in: {}",
            answer.text()
        );
        for (method, path) in [
            ("GET", "/twirp/postrider.v1.NotificationService/Publish"),
            ("POST", "/twirp/other.v1.Service/Publish"),
            ("POST", "/twirp/postrider.v1.NotificationService"),
        ] {
            let answer = once(addr, &Request::new(method, path).bearer(KEY).body(json, "{}"))?;
            ensure!(
                code(&answer)? == (404, "bad_route".to_owned()),
                "{method} {path}: {}",
                answer.text()
            );
            let route = answer.json()?["meta"]["twirp_invalid_route"].clone();
            ensure!(route == format!("{method} {path}"), "{route}");
        }
        let asked = Request::new("OPTIONS", "/twirp/postrider.v1.NotificationService/Publish");
        let answer = once(addr, &asked)?;
        ensure!(
            answer.status() == 204 && answer.head.header("allow") == Some("POST,OPTIONS"),
            "{:?}",
            answer.head
        );
        let few = [0x0a, 0x00].repeat(4 << 20);
        let answer = service.raw("PublishBatch", &headers, protobuf, few)?;
        ensure!(answer.json()?["meta"]["code"] == "too_large", "{}", answer.text());
        let told = service.call(Way::Json, &headers, "Publish", &empty())?;
        ensure!(
            matches!(&told, Told::Refused { code, .. } if code == "invalid_notification"),
            "{told:?}"
        );
        Ok(())
    });
}
