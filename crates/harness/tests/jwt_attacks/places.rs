//! Good credentials where they do not belong, and tokens too large for a head.

use anyhow::ensure;
use postrider_harness::http::{Request, once};
use postrider_harness::publish::Publisher;
use postrider_harness::token::{SECRET, now_seconds, user, with_claims};
use serde_json::json;

use crate::*;

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
