//! Tokens that must not let anyone in, by every door: the three transports and `POST /v1/inbox/ack`.
//!
//! Invariant checked: each is refused with 401 and the code that names its fault, and a good token still works after
//! it. The good counterparts are tried too, so that a server that refuses everything fails.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]
#![allow(
    clippy::disallowed_methods,
    reason = "a black-box test is a driver: it reads clocks, spawns and draws"
)]

use anyhow::{Context, Result, ensure};
use postrider_harness::http::{Answer, Request, once};
use postrider_harness::inbox::{Connect, TRANSPORTS, next_notification};
use postrider_harness::node::{KEY, Node};
use postrider_harness::publish::Publisher;
use postrider_harness::token::{SECRET, now_seconds, signed, signed_rs256, unsigned, user, with_claims};
use postrider_harness::wait::within;
use serde_json::{Value, json};

const RSA_PUBLIC: &str = include_str!("keys/rsa_public.pem");
const RSA_PRIVATE: &str = include_str!("keys/rsa_private.pem");
/// Another server's secret.
const OTHER_SECRET: &[u8] = b"another-secret-of-more-than-thirty-two-bytes";

/// A token with its name and the codes that may refuse it.
type Case = (String, String, &'static [&'static str]);

const MALFORMED: &[&str] = &["token_malformed"];
const SIGNATURE: &[&str] = &["token_signature"];
const CLAIMS: &[&str] = &["token_claims"];
const EXPIRED: &[&str] = &["token_expired"];
/// A header that names no accepted algorithm: the interface does not say whether that is its form or its signature.
const ALGORITHM: &[&str] = &["token_signature", "token_malformed"];

fn good_claims() -> Value {
    json!({"sub": "ada", "exp": now_seconds() + 3600})
}

fn hs256() -> Value {
    json!({"alg": "HS256", "typ": "JWT"})
}

/// Every door's answer to a token.
fn doors(node: &Node, token: &str) -> Result<Vec<(String, Answer)>> {
    let mut answers = Vec::new();
    for transport in TRANSPORTS {
        let refusal = Connect::new(&node.endpoint, token).refusal(transport);
        answers.push((transport.to_string(), refusal?));
    }
    for path in ["/v1/inbox/ack", "/v1/inbox/read"] {
        let request = Request::new("POST", path)
            .bearer(token)
            .body("application/json", r#"{"ids":["n"]}"#);
        answers.push((path.to_owned(), once(node.endpoint.addr()?, &request)?));
    }
    let tickets = Request::new("POST", "/v1/tickets").bearer(token);
    answers.push(("/v1/tickets".to_owned(), once(node.endpoint.addr()?, &tickets)?));
    Ok(answers)
}

fn refused_everywhere(node: &Node, cases: Vec<Case>) -> Result<()> {
    let mut failures = Vec::new();
    for (name, token, codes) in cases {
        match doors(node, &token) {
            Err(e) => failures.push(format!("{name}: {e:#}")),
            Ok(answers) => failures.extend(answers.iter().filter_map(|(door, answer)| {
                let code = answer.code().unwrap_or_default();
                let fine = answer.status() == 401 && codes.contains(&code.as_str());
                (!fine).then(|| {
                    format!(
                        "{name} at {door}: wanted 401 {codes:?}, got {} {code}",
                        answer.status()
                    )
                })
            })),
        }
        if token.len() > 16 && node.log().contains(&token) {
            failures.push(format!("{name}: the token was logged"));
        }
    }
    let_in(node, &user("ada")?, "ada").context("a good token after all that")?;
    ensure!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures.join("\n")
    );
    Ok(())
}

/// The token opens every transport, as this user.
fn let_in(node: &Node, token: &str, name: &str) -> Result<()> {
    let body = json!({"users": [name], "data": name});
    for transport in TRANSPORTS {
        let id = Publisher::new(&node.endpoint, KEY).accepted(&body)?;
        let mut inbox = Connect::new(&node.endpoint, token)
            .ack(postrider_harness::inbox::AckMode::None)
            .open(transport)
            .with_context(|| format!("{name:?} on {transport}"))?;
        while next_notification(&mut *inbox, within(10))?.id != id {}
    }
    Ok(())
}

fn check(test: impl FnOnce(&Node) -> Result<()>, sets: &[(&str, &str)]) {
    let node = Node::start(sets).unwrap();
    if let Err(e) = test(&node) {
        panic!("{e:?}");
    }
}

#[test]
fn forged_tokens() {
    let claims = good_claims().to_string();
    let payload = claims.as_bytes();
    let sign = |header: Value, secret: &[u8]| signed(&header, payload, secret).unwrap();
    let good = sign(hs256(), SECRET.as_bytes());
    let body = good.rsplit_once('.').unwrap().0;
    let mut cases: Vec<Case> = Vec::new();
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        let bare = unsigned(&json!({"alg": alg, "typ": "JWT"}), payload);
        cases.push((
            format!("alg {alg:?} with an empty signature"),
            format!("{bare}."),
            ALGORITHM,
        ));
        let kept = sign(json!({"alg": alg}), SECRET.as_bytes());
        cases.push((format!("alg {alg:?} over a good signature"), kept, ALGORITHM));
    }
    for alg in [
        json!("HS384"),
        json!("HS512"),
        json!("RS256"),
        json!("ES256"),
        json!("hs256"),
        json!(null),
        json!(1),
    ] {
        let name = format!("alg {alg} over an HS256 signature");
        cases.push((
            name,
            sign(json!({"alg": alg, "typ": "JWT"}), SECRET.as_bytes()),
            ALGORITHM,
        ));
    }
    cases.push((
        "no alg".into(),
        sign(json!({"typ": "JWT"}), SECRET.as_bytes()),
        ALGORITHM,
    ));
    let crit = json!({"alg": "HS256", "crit": ["exp"], "exp": 1});
    cases.push(("crit".into(), sign(crit, SECRET.as_bytes()), ALGORITHM));
    cases.push(("another secret".into(), sign(hs256(), OTHER_SECRET), SIGNATURE));
    cases.push(("an empty secret".into(), sign(hs256(), b""), SIGNATURE));
    let jwk = json!({"alg": "HS256", "jwk": {"kty": "oct", "k": "AA"}});
    cases.push((
        "a key of its own in the header".into(),
        sign(jwk, b"\0"),
        SIGNATURE,
    ));
    let kid = json!({"alg": "HS256", "kid": "../../../../dev/null"});
    cases.push(("a path as kid".into(), sign(kid, b""), SIGNATURE));
    let other = unsigned(
        &hs256(),
        json!({"sub": "bob", "exp": now_seconds() + 3600})
            .to_string()
            .as_bytes(),
    );
    let signature = good.rsplit_once('.').unwrap().1;
    cases.push((
        "another payload under a good signature".into(),
        format!("{other}.{signature}"),
        SIGNATURE,
    ));
    let flipped = if signature.starts_with('A') { "B" } else { "A" };
    cases.push((
        "a signature with one bit off".into(),
        format!("{body}.{flipped}{}", &signature[1..]),
        SIGNATURE,
    ));
    cases.push((
        "half a signature".into(),
        format!("{body}.{}", &signature[..20]),
        ALGORITHM,
    ));
    cases.push(("signature stripped".into(), format!("{body}."), ALGORITHM));
    check(|node| refused_everywhere(node, cases), &[]);
}

#[test]
fn malformed_tokens() {
    let good = user("ada").unwrap();
    let (body, signature) = good.rsplit_once('.').unwrap();
    let mut cases: Vec<Case> = [
        ("one part", "abc".to_owned()),
        ("two parts", body.to_owned()),
        ("dots only", "..".to_owned()),
        ("four parts", format!("{good}.x")),
        ("five parts, as an encrypted one", format!("{good}.x.y")),
        ("a dot before", format!(".{good}")),
        ("a dot behind", format!("{good}.")),
        ("a dot doubled", format!("{body}..{signature}")),
        ("not base64", format!("!{good}")),
        ("not JSON", format!("YWJj.YWJj.{signature}")),
        ("an API key", KEY.to_owned()),
    ]
    .into_iter()
    .map(|(name, token)| (name.to_owned(), token, MALFORMED))
    .collect();
    cases.push(("truncated".into(), good[..good.len() - 5].to_owned(), ALGORITHM));
    let padded = signed(&hs256(), good_claims().to_string().as_bytes(), SECRET.as_bytes()).unwrap();
    cases.push((
        "padded as base64, not base64url".into(),
        format!("{padded}="),
        ALGORITHM,
    ));
    check(|node| refused_everywhere(node, cases), &[]);
}

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
            CLAIMS,
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

/// The server knows a secret and a public key: the text of the key must not serve as a secret.
#[test]
fn algorithm_confusion() {
    let claims = good_claims().to_string();
    let rs256 = json!({"alg": "RS256", "typ": "JWT"});
    let mut cases: Vec<Case> = Vec::new();
    let spellings = [
        RSA_PUBLIC.to_owned(),
        RSA_PUBLIC.trim_end().to_owned(),
        RSA_PUBLIC.replace('\n', "\r\n"),
    ];
    for secret in spellings {
        for header in [hs256(), rs256.clone()] {
            let token = signed(&header, claims.as_bytes(), secret.as_bytes()).unwrap();
            cases.push((
                format!("{} by HMAC with the public key", header["alg"]),
                token,
                ALGORITHM,
            ));
        }
    }
    let mixed = signed_rs256(&hs256(), claims.as_bytes(), RSA_PRIVATE.as_bytes()).unwrap();
    cases.push(("an RSA signature that says HS256".into(), mixed, ALGORITHM));
    check(
        |node| {
            refused_everywhere(node, cases)?;
            let good = signed_rs256(&rs256, claims.as_bytes(), RSA_PRIVATE.as_bytes())?;
            let_in(node, &good, "ada").context("a good RS256 token")
        },
        &[("auth.jwt.public_key_pem", RSA_PUBLIC)],
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

/// Tokens too large for a head, and credentials that are not where they belong.
#[test]
fn wrong_places() {
    let pad =
        |size: usize| with_claims(json!({"sub": "ada", "exp": now_seconds() + 60, "pad": "x".repeat(size)}));
    check(
        |node| {
            for size in [20_000, 200_000, 2_000_000] {
                let answer = once(
                    node.endpoint.addr()?,
                    &Request::new("GET", "/v1/inbox?wait=0").bearer(&pad(size)?),
                );
                // A head beyond all bounds may also end the connection.
                if let Ok(answer) = answer {
                    ensure!(
                        matches!(answer.status(), 401 | 431),
                        "{size} bytes: {}",
                        answer.status()
                    );
                }
            }
            let token = user("ada")?;
            let ask = |header: Option<&str>, query: &str| {
                let request = Request::new("GET", &format!("/v1/inbox?wait=0{query}"));
                let request = header.map_or(request.clone(), |value| request.header("Authorization", value));
                once(node.endpoint.addr()?, &request)
            };
            for scheme in ["Basic", "Token", "Bearer:", "JWT", ""] {
                let answer = ask(Some(&format!("{scheme} {token}")), "")?;
                let code = answer.code().unwrap_or_default();
                ensure!(
                    answer.status() == 401 && ["token_missing", "token_malformed"].contains(&code.as_str()),
                    "scheme {scheme:?}: {} {code}",
                    answer.status()
                );
            }
            for query in ["&token=", "&access_token=", "&ticket="] {
                let answer = ask(None, &format!("{query}{token}"))?;
                ensure!(
                    answer.status() == 401,
                    "a token let in by {query}: {}",
                    answer.status()
                );
            }
            let cookie = Request::new("GET", "/v1/inbox?wait=0").header("Cookie", &format!("token={token}"));
            ensure!(
                once(node.endpoint.addr()?, &cookie)?.status() == 401,
                "a cookie that was not configured"
            );
            ensure!(
                ask(Some(&format!("bearer {token}")), "")?.status() == 200,
                "the scheme has no case"
            );
            ensure!(!node.log().contains(&token), "the token was logged");
            Ok(())
        },
        &[],
    );
}

/// A user token is no API key.
#[test]
fn a_user_token_does_not_publish() {
    check(
        |node| {
            let forged = with_claims(json!({
                "sub": "ada", "exp": now_seconds() + 3600, "scope": "publish broadcast manage", "scopes": ["publish"],
            }))?;
            for token in [user("ada")?, forged, SECRET.to_owned(), "test".to_owned()] {
                let mut publisher = Publisher::new(&node.endpoint, &token);
                for answer in [
                    publisher.one(&json!({"users": ["ada"], "data": 1}))?,
                    publisher.one(&json!({"data": 1}))?,
                    publisher.look("n")?,
                    publisher.cancel("n")?,
                ] {
                    let code = answer.code().unwrap_or_default();
                    ensure!(
                        answer.status() == 401 && code == "key_invalid",
                        "{} {code}",
                        answer.status()
                    );
                }
            }
            ensure!(
                postrider_harness::user::User::new(&node.endpoint, "ada")?
                    .pending()?
                    .is_empty()
            );
            Ok(())
        },
        &[],
    );
}
