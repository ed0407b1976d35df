//! Tokens with a good signature over claims that must not let anyone in: times, users, issuer, audience.

use postrider_harness::node::Node;
use postrider_harness::token::{SECRET, now_seconds, signed, with_claims};
use serde_json::{Value, json};

use crate::*;

#[test]
fn times() {
    let at = |claims: Value| with_claims(claims).unwrap();
    let now = now_seconds();
    let cases: Vec<Case> = vec![
        (
            "expired".into(),
            at(json!({"sub": "ada", "exp": now - 3600})),
            EXPIRED,
        ),
        (
            "expired beyond the leeway".into(),
            at(json!({"sub": "ada", "exp": now - 40})),
            EXPIRED,
        ),
        ("exp 0".into(), at(json!({"sub": "ada", "exp": 0})), EXPIRED),
        (
            "not yet valid".into(),
            at(json!({"sub": "ada", "exp": now + 7200, "nbf": now + 3600})),
            EXPIRED,
        ),
        ("no exp".into(), at(json!({"sub": "ada"})), CLAIMS),
        (
            "exp as text".into(),
            at(json!({"sub": "ada", "exp": (now + 3600).to_string()})),
            CLAIMS,
        ),
        ("exp null".into(), at(json!({"sub": "ada", "exp": null})), CLAIMS),
        ("exp true".into(), at(json!({"sub": "ada", "exp": true})), CLAIMS),
        (
            "exp below zero".into(),
            at(json!({"sub": "ada", "exp": -1})),
            &["token_expired", "token_claims"],
        ),
    ];
    check(
        |node| {
            refused_everywhere(node, cases)?;
            // Inside the leeway of 30 s, both ways.
            let now = now_seconds();
            let_in(
                node,
                &at(json!({"sub": "ada", "exp": now - 5, "nbf": now + 5})),
                "ada",
            )?;
            let_in(
                node,
                &at(json!({"sub": "ada", "exp": now as f64 + 3600.5})),
                "ada",
            )
        },
        &[],
    );
}

#[test]
fn users() {
    let exp = now_seconds() + 3600;
    let sub = |sub: Value| with_claims(json!({"sub": sub, "exp": exp})).unwrap();
    let long = "x".repeat(257);
    let bad = [
        json!(""),
        json!(1.5),
        json!(1e30),
        json!(true),
        json!(null),
        json!({"id": "ada"}),
        json!(["ada"]),
        json!(long),
        json!("é".repeat(129)),
        json!("a\nb"),
        json!("a\u{0}b"),
        json!("a\u{7f}"),
        json!("\u{85}a"),
    ];
    let mut cases: Vec<Case> = bad
        .into_iter()
        .map(|value| (format!("sub {value}"), sub(value), CLAIMS))
        .collect();
    cases.push((
        "no sub".into(),
        with_claims(json!({"exp": exp, "user": "ada"})).unwrap(),
        CLAIMS,
    ));
    for payload in ["[]", "\"ada\"", "null", "7"] {
        let token = signed(&hs256(), payload.as_bytes(), SECRET.as_bytes()).unwrap();
        cases.push((
            format!("claims {payload}"),
            token,
            &["token_claims", "token_malformed"],
        ));
    }
    check(
        |node| {
            refused_everywhere(node, cases)?;
            for (value, name) in [
                (json!(42), "42"),
                (json!(-7), "-7"),
                (json!(u64::MAX), "18446744073709551615"),
            ] {
                let_in(node, &sub(value), name)?;
            }
            let_in(node, &sub(json!("é".repeat(128))), &"é".repeat(128))
        },
        &[],
    );
}

#[test]
fn issuer_and_audience() {
    let exp = now_seconds() + 3600;
    let claims = |iss: Value, aud: Value| {
        with_claims(json!({"sub": "ada", "exp": exp, "iss": iss, "aud": aud})).unwrap()
    };
    let cases: Vec<Case> = vec![
        (
            "another issuer".into(),
            claims(json!("evil"), json!("inbox")),
            CLAIMS,
        ),
        (
            "no issuer".into(),
            with_claims(json!({"sub": "ada", "exp": exp, "aud": "inbox"})).unwrap(),
            CLAIMS,
        ),
        (
            "another audience".into(),
            claims(json!("shop"), json!("other")),
            CLAIMS,
        ),
        (
            "other audiences".into(),
            claims(json!("shop"), json!(["a", "b"])),
            CLAIMS,
        ),
        (
            "no audience".into(),
            with_claims(json!({"sub": "ada", "exp": exp, "iss": "shop"})).unwrap(),
            CLAIMS,
        ),
    ];
    let sets = [("auth.jwt.issuer", "shop"), ("auth.jwt.audience", "inbox")];
    let node = Node::start(&sets).unwrap();
    for (name, token, codes) in cases {
        for (door, answer) in doors(&node, &token).unwrap() {
            let code = answer.code().unwrap_or_default();
            assert!(
                answer.status() == 401 && codes.contains(&code.as_str()),
                "{name} at {door}: {code}"
            );
        }
    }
    let_in(&node, &claims(json!("shop"), json!(["x", "inbox"])), "ada").unwrap();
}
