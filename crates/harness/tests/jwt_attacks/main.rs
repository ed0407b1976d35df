//! Tokens that must not let anyone in, by every door: the three transports and `POST /v1/inbox/ack`.
//!
//! Invariant checked: each is refused with 401 and the code that names its fault, and a good token still works after
//! it. The good counterparts are tried too, so that a server that refuses everything fails.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]
#![allow(
    clippy::disallowed_methods,
    reason = "a black-box test is a driver: it reads clocks, spawns and draws"
)]

mod claims;
mod forging;
mod places;

use anyhow::{Context, Result, ensure};
use postrider_harness::http::{Answer, Request, once};
use postrider_harness::inbox::{Connect, TRANSPORTS, next_notification};
use postrider_harness::node::{KEY, Node};
use postrider_harness::publish::Publisher;
use postrider_harness::token::{now_seconds, user};
use postrider_harness::wait::within;
use serde_json::{Value, json};

pub const RSA_PUBLIC: &str = include_str!("../keys/rsa_public.pem");
pub const RSA_PRIVATE: &str = include_str!("../keys/rsa_private.pem");
/// Another server's secret.
pub const OTHER_SECRET: &[u8] = b"another-secret-of-more-than-thirty-two-bytes";

/// A token with its name and the codes that may refuse it.
pub type Case = (String, String, &'static [&'static str]);

pub const MALFORMED: &[&str] = &["token_malformed"];
pub const SIGNATURE: &[&str] = &["token_signature"];
pub const CLAIMS: &[&str] = &["token_claims"];
pub const EXPIRED: &[&str] = &["token_expired"];
/// A header that names no accepted algorithm: the interface does not say whether that is its form or its signature.
pub const ALGORITHM: &[&str] = &["token_signature", "token_malformed"];

pub fn good_claims() -> Value {
    json!({"sub": "ada", "exp": now_seconds() + 3600})
}

pub fn hs256() -> Value {
    json!({"alg": "HS256", "typ": "JWT"})
}

/// Every door's answer to a token.
pub fn doors(node: &Node, token: &str) -> Result<Vec<(String, Answer)>> {
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

pub fn refused_everywhere(node: &Node, cases: Vec<Case>) -> Result<()> {
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
pub fn let_in(node: &Node, token: &str, name: &str) -> Result<()> {
    let body = json!({"users": [name], "data": name});
    for transport in TRANSPORTS {
        let id = Publisher::new(&node.endpoint, KEY).accepted(&body)?;
        let mut inbox = Connect::new(&node.endpoint, token)
            .ack(postrider_harness::inbox::AckMode::None)
            .open(transport)
            .with_context(|| format!("{name:?} on {transport}"))?;
        while next_notification(&mut *inbox, within(30))?.id != id {}
    }
    Ok(())
}

pub fn check(test: impl FnOnce(&Node) -> Result<()>, sets: &[(&str, &str)]) {
    let node = Node::start(sets).unwrap();
    if let Err(e) = test(&node) {
        panic!("{e:?}");
    }
}
