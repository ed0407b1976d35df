//! Keys by a JWK set: rotation, storms of unknown key ids, an issuer that is away, late, wrong or back.

use crate::issuer::Issuer;
use crate::*;
use postrider_harness::wait::{until_true, within};

const INTERVAL: (&str, &str) = ("auth.jwt.jwks_min_interval", "1s");

fn becomes(node: &Node, token: &str, expected: &str) -> Result<()> {
    until_true(expected, within(60), || Ok(said(&poll(node, token)?) == expected))
}

#[test]
fn a_rotated_key_is_found_by_its_id() {
    let issuer = Issuer::start(&[P256.jwk(Some("first"))]).unwrap();
    check(&[("auth.jwt.jwks_url", &issuer.url()), INTERVAL], |node| {
        let first = P256.token(Algorithm::ES256, Some("first"))?;
        becomes(node, &first, "200")?;
        issuer.publish(&[ED25519.jwk(Some("second"))]);
        let second = ED25519.token(Algorithm::EdDSA, Some("second"))?;
        let answer = poll(node, &second)?;
        ensure!(
            said(&answer) == "503 unavailable",
            "put off, not refused: {}",
            said(&answer)
        );
        let wait: u32 = answer.head.header("retry-after").unwrap_or_default().parse()?;
        ensure!((1..=2).contains(&wait), "Retry-After: {wait}");
        becomes(node, &second, "200")?;
        expect(
            node,
            &first,
            "503 unavailable",
            "a key that is gone may be a new one too, until a set says no",
        )?;
        becomes(node, &first, "401 token_signature")
    });
}

#[test]
fn an_id_that_names_another_key_is_refused() {
    let issuer = Issuer::start(&[P256.jwk(Some("a")), RSA.jwk(Some("b"))]).unwrap();
    check(&[("auth.jwt.jwks_url", &issuer.url())], |node| {
        becomes(node, &P256.token(Algorithm::ES256, Some("a"))?, "200")?;
        expect(node, &RSA.token(Algorithm::PS384, Some("b"))?, "200", "the other")?;
        expect(node, &RSA.token(Algorithm::RS256, None)?, "200", "without an id")?;
        expect(
            node,
            &P256.token(Algorithm::ES256, Some("b"))?,
            "401 token_signature",
            "the other's id",
        )?;
        expect(
            node,
            &ED25519.token(Algorithm::EdDSA, Some("a"))?,
            "401 token_signature",
            "a stranger's key",
        )
    });
}

#[test]
fn a_storm_of_unknown_ids_makes_no_storm_of_fetches() {
    let issuer = Issuer::start(&[P256.jwk(Some("a"))]).unwrap();
    // Longer than the storm lasts on any machine.
    let seldom = ("auth.jwt.jwks_min_interval", "1h");
    check(&[("auth.jwt.jwks_url", &issuer.url()), seldom], |node| {
        let good = P256.token(Algorithm::ES256, Some("a"))?;
        becomes(node, &good, "200")?;
        for n in 0..1000 {
            let token = ED25519.token(Algorithm::EdDSA, Some(&format!("made up {}", n % 500)))?;
            expect(node, &token, "503 unavailable", "nobody can say yet")?;
        }
        expect(node, &good, "200", "the others are not kept waiting")?;
        ensure!(issuer.fetches() <= 2, "{} fetches", issuer.fetches());
        Ok(())
    });
}

#[test]
fn an_issuer_that_is_away_at_the_start() {
    let issuer = Issuer::start(&[]).unwrap();
    let (addr, url) = (issuer.addr(), issuer.url());
    drop(issuer);
    check(&[("auth.jwt.jwks_url", &url), INTERVAL], |node| {
        let token = P256.token(Algorithm::ES256, Some("a"))?;
        let answer = poll(node, &token)?;
        ensure!(said(&answer) == "503 unavailable", "{}", said(&answer));
        ensure!(answer.head.header("retry-after").is_some(), "no Retry-After");
        expect(
            node,
            &postrider_harness::token::user("ada")?,
            "200",
            "the secret's tokens need no issuer",
        )?;
        let (status, told) = node.ready()?;
        ensure!(
            status == 200 && told["awaiting"] == json!(["auth.jwt.jwks_url"]),
            "{status} {told}"
        );
        let _back = Issuer::at(addr, &[P256.jwk(Some("a"))])?;
        becomes(node, &token, "200")?;
        let (_, told) = node.ready()?;
        ensure!(told.get("awaiting").is_none(), "{told}");
        let warnings = node
            .log()
            .matches("auth.jwt.jwks_url: the key set could not be fetched")
            .count();
        ensure!(warnings == 1, "warned {warnings} times");
        Ok(())
    });
}

#[test]
fn an_issuer_that_goes_and_comes_back() {
    let issuer = Issuer::start(&[P256.jwk(Some("a"))]).unwrap();
    let addr = issuer.addr();
    let sets = [
        ("auth.jwt.jwks_url", &*issuer.url()),
        ("auth.jwt.jwks_refresh", "1s"),
        ("auth.jwt.jwks_max_stale", "15s"),
        INTERVAL,
    ];
    check(&sets, |node| {
        let token = P256.token(Algorithm::ES256, Some("a"))?;
        becomes(node, &token, "200")?;
        // Answers that are no set change nothing.
        let before = issuer.fetches();
        issuer.answer("200 OK", "<html>sorry</html>");
        until_true("a bad set was fetched", within(60), || {
            Ok(issuer.fetches() > before + 1)
        })?;
        expect(node, &token, "200", "after a bad set")?;
        issuer.publish(&[P256.jwk(Some("a"))]);
        let before = issuer.fetches();
        until_true("a good one was", within(60), || Ok(issuer.fetches() > before))?;
        drop(issuer);
        expect(node, &token, "200", "by the last set")?;
        becomes(node, &token, "503 unavailable")?;
        let _back = Issuer::at(addr, &[P256.jwk(Some("a"))])?;
        becomes(node, &token, "200")
    });
}

#[test]
fn answers_that_are_not_taken() {
    let large = format!("{{\"keys\":[],\"pad\":\"{}\"}}", "x".repeat(2 << 20));
    let good = json!({"keys": [P256.jwk(Some("a"))]}).to_string();
    for (status, body, logged) in [
        (
            "302 Found\r\nLocation: http://127.0.0.1:1/",
            &*good,
            "redirects are not followed",
        ),
        ("500 Oops", &good, "answered 500"),
        ("404 Not Found", &good, "answered 404"),
        ("200 OK", &large, "could not be fetched"),
        ("200 OK", "{\"keys\":[]}", "no key that can be used"),
        ("200 OK", "[]", "is no JWK set"),
    ] {
        let issuer = Issuer::start(&[]).unwrap();
        issuer.answer(status, body);
        check(&[("auth.jwt.jwks_url", &issuer.url()), INTERVAL], |node| {
            until_true(logged, within(60), || Ok(node.log().contains(logged)))?;
            expect(
                node,
                &P256.token(Algorithm::ES256, Some("a"))?,
                "503 unavailable",
                logged,
            )
        });
    }
}

#[test]
fn issuer_audience_and_user_are_looked_at() {
    let issuer = Issuer::start(&[P256.jwk(Some("a"))]).unwrap();
    let sets = [
        ("auth.jwt.jwks_url", &*issuer.url()),
        (
            "auth.jwt.issuer",
            r#"["https://one.example","https://two.example"]"#,
        ),
        ("auth.jwt.audience", "inbox"),
        ("auth.jwt.user_claim", "app.user"),
    ];
    check(&sets, |node| {
        let token = |iss: &str, aud: Value, user: Value| {
            let claims = json!({"iss": iss, "aud": aud, "app": {"user": user}, "exp": now_seconds() + 60});
            P256.signed(Algorithm::ES256, Some("a"), &claims)
        };
        becomes(
            node,
            &token("https://two.example", json!(["shop", "inbox"]), json!(42))?,
            "200",
        )?;
        for bad in [
            token("https://three.example", json!("inbox"), json!("ada"))?,
            token("https://one.example", json!("shop"), json!("ada"))?,
            token("https://one.example", json!("inbox"), json!(null))?,
        ] {
            expect(node, &bad, "401 token_claims", "wrong claims")?;
        }
        Ok(())
    });
}
