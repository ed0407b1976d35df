use super::super::der::{BIT_STRING, Der, INTEGER, SEQUENCE};
use super::super::public_key::tests::{
    ED25519_PRIVATE, ED25519_PUBLIC, P256_PRIVATE, P256_PUBLIC, P384_PRIVATE, P384_PUBLIC, RSA_1024_PUBLIC,
    RSA_PRIVATE, RSA_PUBLIC, spki,
};
use super::*;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde_json::json;

fn b64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The bits of a key that was written as PEM.
fn bits(pem: &str) -> Vec<u8> {
    let der = spki(pem);
    let mut spki = Der::new(&der).inside(SEQUENCE).unwrap();
    spki.inside(SEQUENCE).unwrap();
    spki.take(BIT_STRING).unwrap()[1..].to_vec()
}

fn rsa(pem: &str) -> Value {
    let bits = bits(pem);
    let mut numbers = Der::new(&bits).inside(SEQUENCE).unwrap();
    let (n, e) = (numbers.take(INTEGER).unwrap(), numbers.take(INTEGER).unwrap());
    json!({"kty": "RSA", "n": b64(n), "e": b64(e)})
}

fn ec(pem: &str, curve: &str) -> Value {
    let point = bits(pem);
    let (x, y) = point[1..].split_at((point.len() - 1) / 2);
    json!({"kty": "EC", "crv": curve, "x": b64(x), "y": b64(y)})
}

fn ed() -> Value {
    json!({"kty": "OKP", "crv": "Ed25519", "x": b64(&bits(ED25519_PUBLIC))})
}

fn with(mut jwk: Value, name: &str, value: Value) -> Value {
    jwk[name] = value;
    jwk
}

fn set(keys: Vec<Value>) -> Result<KeySet, SetFault> {
    read(json!({ "keys": keys }).to_string().as_bytes())
}

fn one(jwk: Value) -> Option<PublicKey> {
    set(vec![jwk]).ok()?.keys.pop()
}

#[test]
fn every_kind_of_key_checks_what_its_private_key_signed() {
    let ec_key = |pem: &str| EncodingKey::from_ec_pem(pem.as_bytes()).unwrap();
    let rsa_key = EncodingKey::from_rsa_pem(RSA_PRIVATE.as_bytes()).unwrap();
    let ed_key = EncodingKey::from_ed_pem(ED25519_PRIVATE.as_bytes()).unwrap();
    for (jwk, private, algorithm) in [
        (rsa(RSA_PUBLIC), &rsa_key, Algorithm::RS256),
        (rsa(RSA_PUBLIC), &rsa_key, Algorithm::PS512),
        (ec(P256_PUBLIC, "P-256"), &ec_key(P256_PRIVATE), Algorithm::ES256),
        (ec(P384_PUBLIC, "P-384"), &ec_key(P384_PRIVATE), Algorithm::ES384),
        (ed(), &ed_key, Algorithm::EdDSA),
    ] {
        let key = one(jwk).unwrap();
        let signature = crypto::sign(b"message", private, algorithm).unwrap();
        assert!(key.signed(b"message", &signature, algorithm), "{algorithm:?}");
        assert!(!key.signed(b"massage", &signature, algorithm), "{algorithm:?}");
        assert!(!key.checks(Algorithm::HS256));
    }
}

#[test]
fn what_a_key_says_of_itself_narrows_what_it_checks() {
    let all = one(rsa(RSA_PUBLIC)).unwrap();
    assert!(all.checks(Algorithm::RS256) && all.checks(Algorithm::PS384) && all.id().is_none());
    let one_algorithm = one(with(rsa(RSA_PUBLIC), "alg", json!("RS384"))).unwrap();
    assert!(one_algorithm.checks(Algorithm::RS384) && !one_algorithm.checks(Algorithm::RS256));
    let named = one(with(rsa(RSA_PUBLIC), "kid", json!("k1"))).unwrap();
    assert!(named.fits(Algorithm::RS256, Some("k1")) && named.fits(Algorithm::RS256, None));
    assert!(!named.fits(Algorithm::RS256, Some("k2")) && !named.fits(Algorithm::ES256, Some("k1")));
    assert!(
        one(with(ed(), "alg", json!("Ed25519")))
            .unwrap()
            .checks(Algorithm::EdDSA)
    );
    for (name, value) in [
        ("use", json!("sig")),
        ("key_ops", json!(["sign", "verify"])),
        ("x5c", json!("?")),
    ] {
        assert!(one(with(ed(), name, value.clone())).is_some(), "{name} {value}");
    }
}

#[test]
fn what_cannot_be_used_is_passed_over_and_touches_no_other() {
    let p256 = ec(P256_PUBLIC, "P-256");
    let bad = vec![
        json!(null),
        json!({}),
        json!({"kty": "oct", "k": "AAAA"}),
        json!({"kty": "RSA"}),
        json!({"kty": 1}),
        rsa(RSA_1024_PUBLIC),
        with(rsa(RSA_PUBLIC), "e", json!("AQ")),
        with(rsa(RSA_PUBLIC), "e", json!("AAAC")),
        with(rsa(RSA_PUBLIC), "e", json!("")),
        with(rsa(RSA_PUBLIC), "n", json!("!")),
        with(rsa(RSA_PUBLIC), "d", json!("AQAB")),
        with(rsa(RSA_PUBLIC), "use", json!("enc")),
        with(rsa(RSA_PUBLIC), "use", json!(["sig"])),
        with(rsa(RSA_PUBLIC), "key_ops", json!(["encrypt"])),
        with(rsa(RSA_PUBLIC), "key_ops", json!("verify")),
        with(rsa(RSA_PUBLIC), "alg", json!("RSA-OAEP")),
        with(rsa(RSA_PUBLIC), "alg", json!("HS256")),
        with(rsa(RSA_PUBLIC), "alg", json!("none")),
        with(rsa(RSA_PUBLIC), "alg", json!("ES256")),
        with(rsa(RSA_PUBLIC), "alg", json!(256)),
        with(rsa(RSA_PUBLIC), "kid", json!(1)),
        with(rsa(RSA_PUBLIC), "kid", json!("k".repeat(MAX_ID_BYTES + 1))),
        with(p256.clone(), "crv", json!("P-384")),
        with(p256.clone(), "crv", json!("P-521")),
        with(p256.clone(), "crv", json!("secp256k1")),
        with(p256.clone(), "alg", json!("ES384")),
        // A point that is not on the curve, and one that is too short.
        with(p256.clone(), "x", p256["y"].clone()),
        with(p256.clone(), "x", json!("AA")),
        with(ed(), "x", json!("AAAA")),
        with(ed(), "x", json!("")),
        with(ed(), "crv", json!("Ed448")),
        with(ed(), "crv", json!("X25519")),
    ];
    for jwk in &bad {
        assert!(one(jwk.clone()).is_none(), "{jwk}");
    }
    let mixed = set([bad.clone(), vec![ed()], bad.clone()].concat()).unwrap();
    assert_eq!((mixed.keys.len(), mixed.passed_over), (1, bad.len() * 2));
}

#[test]
fn what_is_no_set() {
    let read = |text: &str| read(text.as_bytes()).unwrap_err();
    for text in [
        "",
        "[]",
        "{}",
        "null",
        r#"{"keys":{}}"#,
        r#"{"keys":[}"#,
        "<html>",
    ] {
        assert_eq!(read(text), SetFault::NotASet, "{text}");
    }
    assert_eq!(read(r#"{"keys":[]}"#), SetFault::Unusable(0));
    assert_eq!(read(r#"{"keys":[{}]}"#), SetFault::Unusable(1));
    assert_eq!(set(vec![ed(); MAX_KEYS + 1]).unwrap_err(), SetFault::TooMany);
    assert_eq!(set(vec![ed(); MAX_KEYS]).unwrap().keys.len(), MAX_KEYS);
}
