//! Every algorithm by every way to configure its key, and no key for another's algorithm.

use crate::issuer::Issuer;
use crate::*;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use postrider_harness::token::{SECRET, signed, user};
use postrider_harness::wait::{until_true, within};

const ALL: [Algorithm; 12] = [
    Algorithm::HS256,
    Algorithm::HS384,
    Algorithm::HS512,
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// A header that claims any algorithm over a signature that is this key's.
fn claims_to_be(pair: &Pair, alg: &str) -> Result<String> {
    let header = json!({"alg": alg, "typ": "JWT"}).to_string();
    let claims = json!({"sub": "ada", "exp": now_seconds() + 3600}).to_string();
    let message = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(claims)
    );
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &pair.private, pair.algorithms[0])?;
    Ok(format!("{message}.{signature}"))
}

fn all_are_let_in_and_no_other(node: &Node, known: &[&Pair]) -> Result<()> {
    for pair in pairs() {
        let is_known = known.iter().any(|other| other.public == pair.public);
        let expected = if is_known { "200" } else { "401 token_signature" };
        for algorithm in pair.algorithms {
            let token = pair.token(*algorithm, None)?;
            expect(node, &token, expected, &format!("{algorithm:?}"))?;
        }
        for other in ALL.iter().filter(|other| !pair.algorithms.contains(other)) {
            let name = format!("{other:?}");
            expect(
                node,
                &claims_to_be(pair, &name)?,
                "401 token_signature",
                &format!("its signature as {name}"),
            )?;
        }
        // The bytes of a public key are never a secret.
        for name in ["HS256", "EdDSA", "ES256", "RS256"] {
            let claims = json!({"sub": "ada", "exp": now_seconds() + 3600}).to_string();
            let forged = signed(&json!({"alg": name}), claims.as_bytes(), pair.public.as_bytes())?;
            expect(
                node,
                &forged,
                "401 token_signature",
                &format!("HMAC with the public key as {name}"),
            )?;
        }
    }
    expect(node, &claims_to_be(&RSA, "none")?, "401 token_signature", "none")?;
    expect(node, &user("ada")?, "200", "HS256 beside them")
}

#[test]
fn by_one_pem() {
    for pair in pairs() {
        check(&[("auth.jwt.public_key_pem", pair.public)], |node| {
            all_are_let_in_and_no_other(node, &[pair])
        });
    }
}

#[test]
fn by_several_pems_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.pem");
    let pems: String = pairs().iter().map(|pair| pair.public).collect();
    std::fs::write(&path, pems).unwrap();
    let file = format!("file:{}", path.display());
    check(&[("auth.jwt.public_key_pem", &file)], |node| {
        all_are_let_in_and_no_other(node, &pairs())
    });
}

#[test]
fn by_a_jwk_set() {
    let issuer = Issuer::start(&pairs().map(|pair| pair.jwk(None))).unwrap();
    check(&[("auth.jwt.jwks_url", &issuer.url())], |node| {
        until_true("the keys are fetched", within(20), || {
            Ok(poll(node, &RSA.token(Algorithm::RS256, None)?)?.status() == 200)
        })?;
        all_are_let_in_and_no_other(node, &pairs())
    });
}

#[test]
fn all_of_hmac() {
    check(&[], |node| {
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let claims = json!({"sub": "ada", "exp": now_seconds() + 3600});
            let key = EncodingKey::from_secret(SECRET.as_bytes());
            let token = jsonwebtoken::encode(&Header::new(algorithm), &claims, &key)?;
            expect(node, &token, "200", &format!("{algorithm:?}"))?;
        }
        Ok(())
    });
}
