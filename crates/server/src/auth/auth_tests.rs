use super::public_key::tests::{ED25519_PRIVATE, ED25519_PUBLIC};
use super::*;
use crate::config::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use postrider_model::{Topic, UserId};
use postrider_transports::{Credentials, Gate as _};
use serde_json::{Value, json};

const SECRET: &str = "a secret of more than thirty-two bytes, to sign with";
const NOW: Timestamp = Timestamp(1_000_000_000);

fn auth(change: impl FnOnce(&mut AuthConfig)) -> Auth {
    Auth::new(
        &config_with(change),
        TicketKey::new(&[7; 32]),
        crate::steady_clock(),
    )
    .unwrap()
}

fn config_with(change: impl FnOnce(&mut AuthConfig)) -> Config {
    let mut config = AuthConfig {
        cookie: Some("pr".into()),
        ..AuthConfig::default()
    };
    config.jwt.hmac_secret = Some(Secret::new(SECRET));
    config.api_keys = vec![ApiKeyConfig {
        name: "backend".into(),
        key: Secret::new("key-1"),
        scopes: vec![Scope::Publish],
    }];
    change(&mut config);
    let mut whole = Config {
        auth: config,
        ..Config::default()
    };
    whole.http.allowed_origins = vec!["https://app.example".into(), "*".into()];
    whole.topics.open = vec!["open/*".into()];
    whole
}

fn token(algorithm: Algorithm, header: Value, claims: &Value, secret: &str) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(&header), part(claims));
    let key = EncodingKey::from_secret(secret.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm).unwrap();
    format!("{message}.{signature}")
}

fn hs256(claims: Value) -> String {
    token(Algorithm::HS256, json!({"alg":"HS256"}), &claims, SECRET)
}

fn verify(auth: &Auth, token: &str) -> Result<Identity, &'static str> {
    let header = format!("Bearer {token}");
    let credentials = Credentials {
        authorization: Some(&header),
        ..Credentials::default()
    };
    auth.identify(&credentials, NOW).map_err(|problem| problem.code)
}

#[test]
fn good_tokens_name_their_user() {
    let auth = auth(|_| {});
    for (algorithm, name) in [
        (Algorithm::HS256, "HS256"),
        (Algorithm::HS384, "HS384"),
        (Algorithm::HS512, "HS512"),
    ] {
        let token = token(
            algorithm,
            json!({"alg": name}),
            &json!({"sub":"ada","exp":1_000_060}),
            SECRET,
        );
        let identity = verify(&auth, &token).unwrap();
        assert_eq!(identity.user.as_str(), "ada");
        assert_eq!(identity.expires_at, Some(Timestamp(1_000_060_000)));
    }
    assert_eq!(
        verify(&auth, &hs256(json!({"sub":42,"exp":1_000_060})))
            .unwrap()
            .user
            .as_str(),
        "42"
    );
    let leeway = verify(&auth, &hs256(json!({"sub":"ada","exp":999_990}))).unwrap();
    assert_eq!(leeway.expires_at, Some(Timestamp(1_000_020_000)));
}

#[test]
fn every_broken_token_has_its_code() {
    let claims = json!({"sub":"ada","exp":1_000_060});
    let good = hs256(claims.clone());
    let (message, signature) = good.rsplit_once('.').unwrap();
    let with_header = |header: Value| token(Algorithm::HS256, header, &claims, SECRET);
    let table = [
        ("", "token_malformed"),
        ("x", "token_malformed"),
        ("a.b.c", "token_malformed"),
        (message, "token_malformed"),
        (&format!("{message}."), "token_signature"),
        (&format!("{message}.%%%"), "token_malformed"),
        (&format!("{good}.x"), "token_malformed"),
        (
            &format!("{message}.{}", signature.chars().rev().collect::<String>()),
            "token_signature",
        ),
        (
            &token(
                Algorithm::HS256,
                json!({"alg":"HS256"}),
                &claims,
                "another secret",
            ),
            "token_signature",
        ),
        (&with_header(json!({"alg":"none"})), "token_signature"),
        (&with_header(json!({"alg":"RS256"})), "token_signature"),
        (&with_header(json!({"alg":"HS512"})), "token_signature"),
        (
            &with_header(json!({"alg":"HS256","crit":["x"]})),
            "token_signature",
        ),
        (&with_header(json!({"typ":"JWT"})), "token_malformed"),
        (&hs256(json!(["ada"])), "token_malformed"),
        (&hs256(json!({"sub":"ada"})), "token_claims"),
        (&hs256(json!({"sub":"ada","exp":"soon"})), "token_claims"),
        (&hs256(json!({"sub":"ada","exp":999_970})), "token_expired"),
        (
            &hs256(json!({"sub":"ada","exp":1_000_060,"nbf":1_000_031})),
            "token_expired",
        ),
        (&hs256(json!({"sub":1.5,"exp":1_000_060})), "token_claims"),
        (&hs256(json!({"sub":"","exp":1_000_060})), "token_claims"),
        (&hs256(json!({"exp":1_000_060})), "token_claims"),
        (
            &hs256(json!({"sub":"a","exp":1_000_060,"topics":"x"})),
            "token_claims",
        ),
    ];
    let auth = auth(|_| {});
    for (token, code) in table {
        assert_eq!(verify(&auth, token).unwrap_err(), code, "{token}");
    }
}

#[test]
fn the_key_of_the_algorithm_checks_and_never_the_other() {
    let claims = json!({"sub":"ada","exp":1_000_060});
    let key = EncodingKey::from_ed_pem(ED25519_PRIVATE.as_bytes()).unwrap();
    let eddsa = |header: Value| {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(&header), part(&claims));
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::EdDSA).unwrap();
        format!("{message}.{signature}")
    };
    let by_pem = |name: &str| token(Algorithm::HS256, json!({"alg": name}), &claims, ED25519_PUBLIC);
    let public_only = auth(|config| {
        config.jwt.hmac_secret = None;
        config.jwt.public_key_pem = Some(ED25519_PUBLIC.into());
    });
    let both = auth(|config| config.jwt.public_key_pem = Some(ED25519_PUBLIC.into()));
    let secret_only = auth(|_| {});
    let (good, hs) = (eddsa(json!({"alg":"EdDSA"})), hs256(claims.clone()));
    for (name, auth, by_key, by_secret) in [
        ("public key", &public_only, true, false),
        ("both", &both, true, true),
        ("secret", &secret_only, false, true),
    ] {
        let refused = Err("token_signature");
        let user = |token: &str| verify(auth, token).map(|identity| identity.user.to_string());
        let let_in = |is: bool| if is { Ok("ada".to_owned()) } else { refused.clone() };
        assert_eq!(user(&good), let_in(by_key), "{name}");
        assert_eq!(user(&hs), let_in(by_secret), "{name}");
        for alg in ["HS256", "EdDSA", "ES256", "RS256", "eddsa", "none"] {
            assert_eq!(user(&by_pem(alg)), refused, "{name}: HMAC with the PEM as {alg}");
        }
        for alg in ["HS256", "RS256", "ES256", "PS256"] {
            assert_eq!(
                user(&eddsa(json!({"alg": alg}))),
                refused,
                "{name}: EdDSA as {alg}"
            );
        }
    }
}

#[test]
fn a_ticket_outlives_its_process() {
    let credentials = |ticket, resumes| Credentials {
        ticket: Some(ticket),
        resumes,
        ..Credentials::default()
    };
    let identity = verify(&auth(|_| {}), &hs256(json!({"sub":"ada","exp":1_000_060}))).unwrap();
    let before = auth(|_| {});
    let (ticket, seconds) = before.issue_ticket(identity.clone(), NOW).unwrap();
    assert_eq!(seconds, 30);
    let later = NOW.plus(Millis::from_secs(31));
    // To be looked at uses nothing up; to be spent does, once.
    for _ in 0..2 {
        let looked_at = before.identify(&credentials(&ticket, false), NOW);
        assert_eq!(looked_at, Ok(identity.clone()));
    }
    assert_eq!(before.spend(&ticket, false, NOW), Ok(()));
    assert_eq!(
        before.spend(&ticket, false, NOW).unwrap_err().code,
        "token_expired"
    );
    let after = auth(|_| {});
    assert_eq!(after.identify(&credentials(&ticket, true), later), Ok(identity));
    let code = |ticket, resumes| {
        after
            .identify(&credentials(ticket, resumes), later)
            .unwrap_err()
            .code
    };
    assert_eq!(code(&ticket, false), "token_expired");
    assert_eq!(code("", true), "token_malformed");
}

#[test]
fn issuer_audience_and_claim_are_the_configured_ones() {
    let auth = auth(|config| {
        config.jwt.issuer = Some("me".into());
        config.jwt.audience = Some("pr".into());
        config.jwt.user_claim = "user_id".into();
        config.jwt.require_exp = false;
    });
    assert!(verify(&auth, &hs256(json!({"user_id":"ada","iss":"me","aud":"pr"}))).is_ok());
    assert!(
        verify(
            &auth,
            &hs256(json!({"user_id":"ada","iss":"me","aud":["x","pr"]}))
        )
        .is_ok()
    );
    for claims in [
        json!({"user_id":"ada","iss":"me"}),
        json!({"user_id":"ada","iss":"you","aud":"pr"}),
        json!({"sub":"ada","iss":"me","aud":"pr"}),
    ] {
        assert_eq!(verify(&auth, &hs256(claims)).unwrap_err(), "token_claims");
    }
}

#[test]
fn a_cookie_needs_a_proof_of_origin() {
    let auth = auth(|_| {});
    let cookie = format!("x=1; pr={}", hs256(json!({"sub":"ada","exp":1_000_060})));
    let with = |origin, sec_fetch_site| {
        let credentials = Credentials {
            cookie: Some(&cookie),
            origin,
            sec_fetch_site,
            ..Credentials::default()
        };
        auth.identify(&credentials, NOW)
            .map(|id| id.user.to_string())
            .map_err(|problem| problem.code)
    };
    assert_eq!(with(None, Some("same-origin")), Ok("ada".into()));
    assert_eq!(
        with(Some("https://app.example"), Some("cross-site")),
        Ok("ada".into())
    );
    for (origin, site) in [
        (None, None),
        (Some("https://evil.example"), Some("cross-site")),
        (None, Some("same-site")),
    ] {
        assert_eq!(with(origin, site), Err("origin"));
    }
    assert_eq!(
        auth.identify(&Credentials::default(), NOW).unwrap_err().code,
        "token_missing"
    );
}

#[test]
fn keys_and_scopes() {
    let auth = auth(|_| {});
    let key = auth.api_key(Some("bearer  key-1")).unwrap();
    assert_eq!(key.name, "backend");
    assert!(key.require(Scope::Publish).is_ok());
    assert_eq!(key.require(Scope::Broadcast).unwrap_err().code, "scope");
    assert_eq!(auth.api_key(None).unwrap_err().code, "key_missing");
    for wrong in ["key-1", "Bearer", "Bearer key-2", "Basic key-1"] {
        assert_eq!(auth.api_key(Some(wrong)).unwrap_err().code, "key_invalid");
    }
}

#[test]
fn topics_are_open_or_claimed_and_a_new_token_must_be_of_the_same_user() {
    let auth = auth(|_| {});
    let token = hs256(json!({"sub":"ada","exp":1_000_060,"topics":["mine/*"]}));
    let identity = verify(&auth, &token).unwrap();
    for (topic, expected) in [("open/x", true), ("mine/x", true), ("other", false)] {
        assert_eq!(
            auth.may_subscribe(&identity, &Topic::new(topic).unwrap()),
            expected
        );
    }
    let user = |name| UserId::new(name).unwrap();
    assert_eq!(
        auth.renew(&user("ada"), &token, NOW),
        Ok(Timestamp(1_000_060_000))
    );
    assert_eq!(
        auth.renew(&user("bob"), &token, NOW).unwrap_err().code,
        "token_claims"
    );
}

#[test]
fn a_reload_replaces_keys_and_rules_whole() {
    let auth = Arc::new(auth(|_| {}));
    let token = hs256(json!({"sub":"ada","exp":1_000_060}));
    let (ticket, _) = auth.issue_ticket(verify(&auth, &token).unwrap(), NOW).unwrap();
    let bad = config_with(|config| config.jwt.public_key_pem = Some("no key".into()));
    assert!(
        auth.prepare(&bad)
            .err()
            .unwrap()
            .starts_with("auth.jwt.public_key_pem")
    );
    assert!(verify(&auth, &token).is_ok(), "a bad one changes nothing");
    let next = config_with(|config| {
        config.jwt.hmac_secret = Some(Secret::new("another secret of more than thirty-two bytes"));
        config.api_keys[0].key = Secret::new("key-2");
        config.ticket_ttl = Millis::from_secs(5);
    });
    let apply = auth.prepare(&next).unwrap();
    assert!(verify(&auth, &token).is_ok(), "what is prepared is not in force");
    apply();
    assert_eq!(verify(&auth, &token).unwrap_err(), "token_signature");
    assert_eq!(
        auth.api_key(Some("Bearer key-1")).unwrap_err().code,
        "key_invalid"
    );
    assert!(auth.api_key(Some("Bearer key-2")).is_ok());
    assert!(auth.spend(&ticket, false, NOW).is_ok(), "who was let in stays");
}

#[test]
fn a_key_publishes_by_its_rate() {
    let mut config = config_with(|_| {});
    config.limits.publish_rate = 10;
    let clock: crate::SteadyClock = Arc::new(|| Timestamp(0));
    let auth = Auth::new(&config, TicketKey::new(&[7; 32]), clock).unwrap();
    let key = auth.api_key(Some("Bearer key-1")).unwrap();
    assert_eq!(key.burst(), 10);
    assert_eq!(key.take_up_to(25, Timestamp(0)), 10);
    assert_eq!(
        (key.take_up_to(1, Timestamp(0)), key.retry_after_s(Timestamp(0))),
        (0, 1)
    );
    assert_eq!(key.reserve(20, Timestamp(0)), Millis(2000));
    assert_eq!(
        key.retry_after_s(Timestamp(0)),
        3,
        "others wait behind what was promised"
    );
    assert_eq!(
        auth.api_key(Some("Bearer key-1"))
            .unwrap()
            .take_up_to(1, Timestamp(2000)),
        0,
        "by key, not by request"
    );
}

#[test]
fn guesses_are_counted_and_mistakes_are_not() {
    let auth = auth(|config| config.failures_per_address = 3);
    let client = Some(Address::from("192.0.2.7".parse::<std::net::IpAddr>().unwrap()));
    let come = |token: &str| {
        let header = format!("Bearer {token}");
        let credentials = Credentials {
            authorization: Some(&header),
            client,
            ..Credentials::default()
        };
        auth.identify(&credentials, NOW).map_err(|problem| problem.code)
    };
    let (good, late) = (
        hs256(json!({"sub":"ada","exp":1_000_060})),
        hs256(json!({"sub":"ada","exp":1})),
    );
    for _ in 0..10 {
        assert_eq!(come(&late), Err("token_expired"));
        assert!(come(&good).is_ok());
    }
    for _ in 0..3 {
        assert!(come(&good).is_ok());
        assert_eq!(come("a.b.c"), Err("token_malformed"));
    }
    assert_eq!(come("a.b.c"), Err("rate_limited"));
    assert_eq!(come(&good), Err("rate_limited"), "nothing is checked then");
    assert_eq!(auth.listen(client).unwrap_err().retry_after, Some(4));
    assert!(auth.listen(None).is_ok());
}

#[test]
fn a_token_that_was_good_is_asked_again_when_it_is_shown_again() {
    let auth = auth(|_| {});
    let at = |token: &str, now: u64| {
        let header = format!("Bearer {token}");
        let credentials = Credentials {
            authorization: Some(&header),
            ..Credentials::default()
        };
        let identity = auth.identify(&credentials, Timestamp(now));
        identity.map_err(|problem| problem.code)
    };
    let token = hs256(json!({"sub":"ada","exp":1_000_060,"nbf":1_000_000,"topics":["news/*"]}));
    let first = at(&token, 1_000_000_000).unwrap();
    assert_eq!(
        at(&token, 1_000_001_000),
        Ok(first.clone()),
        "all of it, topics too"
    );
    // By the leeway alone, then not at all, and good again for a clock that was set back; not before it begins.
    let by_leeway = at(&token, 1_000_060_000).unwrap();
    assert_eq!(by_leeway.expires_at, Some(Timestamp(1_000_090_000)));
    assert_eq!(at(&token, 1_000_090_000), Err("token_expired"));
    assert_eq!(at(&token, 1_000_000_000), Ok(first.clone()));
    assert_eq!(at(&token, 999_960_000), Err("token_expired"));
    // One that is good makes none like it good, and what was refused is not kept.
    let (message, signature) = token.rsplit_once('.').unwrap();
    for _ in 0..2 {
        assert_eq!(
            at(&format!("{message}.{}", signature.to_uppercase()), 1_000_000_000),
            Err("token_signature")
        );
    }
}

#[test]
fn other_keys_make_a_token_that_was_good_a_bad_one() {
    let auth = Arc::new(auth(|_| {}));
    let token = hs256(json!({"sub":"ada","exp":1_000_060}));
    verify(&auth, &token).unwrap();
    let other = config_with(|auth| {
        auth.jwt.hmac_secret = Some(Secret::new("another secret of more than thirty-two bytes"));
    });
    auth.prepare(&other).unwrap()();
    assert_eq!(verify(&auth, &token), Err("token_signature"));
    auth.prepare(&config_with(|auth| auth.jwt.user_claim = "uid".into()))
        .unwrap()();
    assert_eq!(
        verify(&auth, &token),
        Err("token_claims"),
        "other rules count too"
    );
}
