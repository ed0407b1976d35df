//! Tokens whose form, algorithm or signature is wrong.

use anyhow::Context;
use postrider_harness::node::KEY;
use postrider_harness::token::{SECRET, now_seconds, signed, signed_rs256, unsigned, user};
use serde_json::json;

use crate::*;

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
