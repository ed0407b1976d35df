use super::*;
use postrider_model::Millis;
use serde_json::json;

const NOW: Timestamp = Timestamp(1_000_000_000);

fn check(config: &JwtConfig, claims: Value) -> Result<Identity, &'static str> {
    let Value::Object(claims) = claims else {
        panic!("claims are an object");
    };
    let told = identity(&claims, config, NOW).map_err(|problem| problem.code)?;
    Ok(told.0)
}

fn with(change: impl FnOnce(&mut JwtConfig)) -> JwtConfig {
    let mut config = JwtConfig::default();
    change(&mut config);
    config
}

#[test]
fn times() {
    let strict = with(|_| {});
    let loose = with(|config| config.require_exp = false);
    let exact = with(|config| config.leeway = Millis(0));
    for (config, claims, expected) in [
        (&strict, json!({"exp": 1_000_060}), Ok(Some(1_000_060_000))),
        (&strict, json!({"exp": 1_000_060.5}), Ok(Some(1_000_060_500))),
        // Good by the leeway alone: it ends when the leeway does.
        (&strict, json!({"exp": 999_980}), Ok(Some(1_000_010_000))),
        (&strict, json!({"exp": 999_970}), Err("token_expired")),
        (&exact, json!({"exp": 1_000_000}), Err("token_expired")),
        (&strict, json!({"exp": 0}), Err("token_expired")),
        (&strict, json!({"exp": -1e300}), Err("token_expired")),
        (&strict, json!({"exp": 1e300}), Ok(Some(Timestamp::MAX.0))),
        (&strict, json!({"exp": u64::MAX}), Ok(Some(Timestamp::MAX.0))),
        (&strict, json!({}), Err("token_claims")),
        (&strict, json!({"exp": null}), Err("token_claims")),
        (&strict, json!({"exp": "1000060"}), Err("token_claims")),
        (&strict, json!({"exp": [1_000_060]}), Err("token_claims")),
        (&loose, json!({}), Ok(None)),
        (&loose, json!({"exp": 1}), Err("token_expired")),
        (&loose, json!({"exp": "never"}), Err("token_claims")),
        (&loose, json!({"nbf": 1_000_030}), Ok(None)),
        (&loose, json!({"nbf": 1_000_031}), Err("token_expired")),
        (&loose, json!({"nbf": "0"}), Err("token_claims")),
        (
            &exact,
            json!({"exp": 1_000_060, "nbf": 1_000_000.001}),
            Err("token_expired"),
        ),
    ] {
        let mut all = claims.clone();
        all["sub"] = json!("ada");
        let ends = check(config, all).map(|identity| identity.expires_at.map(|at| at.0));
        assert_eq!(ends, expected, "{claims}");
    }
}

#[test]
fn issuers_and_audiences() {
    let config = with(|config| {
        config.require_exp = false;
        config.issuer = serde_json::from_value(json!(["one", "two"])).unwrap();
        config.audience = Some("inbox".into());
    });
    for (iss, aud, is_good) in [
        (json!("one"), json!("inbox"), true),
        (json!("two"), json!(["shop", "inbox"]), true),
        (json!("three"), json!("inbox"), false),
        (json!("One"), json!("inbox"), false),
        (json!(["one"]), json!("inbox"), false),
        (json!(null), json!("inbox"), false),
        (json!("one"), json!("inbox "), false),
        (json!("one"), json!([]), false),
        (json!("one"), json!(["shop", ["inbox"]]), false),
        (json!("one"), json!({"inbox": true}), false),
        (json!("one"), json!(null), false),
    ] {
        let checked = check(&config, json!({"sub": "ada", "iss": iss, "aud": aud}));
        assert_eq!(checked.is_ok(), is_good, "iss {iss} aud {aud}");
        assert!(is_good || checked == Err("token_claims"));
    }
}

#[test]
fn the_user() {
    let user = |claim: &str, claims: Value| {
        let config = with(|config| {
            config.require_exp = false;
            config.user_claim = claim.into();
        });
        check(&config, claims)
            .map(|identity| identity.user.to_string())
            .ok()
    };
    let is = |name: &str| Some(name.to_owned());
    assert_eq!(user("sub", json!({"sub": "ada"})), is("ada"));
    assert_eq!(user("sub", json!({"sub": 42})), is("42"));
    assert_eq!(user("sub", json!({"sub": -7})), is("-7"));
    assert_eq!(user("sub", json!({"sub": u64::MAX})), is("18446744073709551615"));
    assert_eq!(user("app.user.id", json!({"app": {"user": {"id": 7}}})), is("7"));
    assert_eq!(
        user("https://a.b/user", json!({"https://a.b/user": "ada"})),
        is("ada")
    );
    assert_eq!(
        user("a.b", json!({"a": {"b": "inner"}, "a.b": "whole"})),
        is("whole")
    );
    for (claim, claims) in [
        ("sub", json!({})),
        ("sub", json!({"sub": ""})),
        ("sub", json!({"sub": 4.0})),
        ("sub", json!({"sub": 1e3})),
        ("sub", json!({"sub": true})),
        ("sub", json!({"sub": ["ada"]})),
        ("sub", json!({"sub": "a\u{0}"})),
        ("sub", json!({"sub": "a".repeat(257)})),
        ("app.user", json!({"app": "user"})),
        ("app.0", json!({"app": ["ada"]})),
        ("app.", json!({"app": {"x": "ada"}})),
    ] {
        assert_eq!(user(claim, claims.clone()), None, "{claim} of {claims}");
    }
}

#[test]
fn a_name_that_stands_twice_is_refused() {
    let read = |text: &str| serde_json::from_str::<Unique>(text).is_ok();
    assert!(read(r#"{"sub":"ada","exp":1}"#) && read("{}"));
    for text in [
        r#"{"sub":"ada","sub":"bob"}"#,
        r#"{"sub":"ada","sub":"ada"}"#,
        r#"{"sub":"ada","\u0073ub":"bob"}"#,
        r#"[]"#,
        r#""x""#,
        r#"{"a":1}{"#,
    ] {
        assert!(!read(text), "{text}");
    }
}
