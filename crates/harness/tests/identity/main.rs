//! Identity, from outside: every kind of key, an issuer whose keys are fetched, what a SIGHUP changes, and rates.
//!
//! The issuer is a stand-in that counts how often it is asked and that the test turns off, breaks and rotates.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]
#![allow(
    clippy::disallowed_methods,
    reason = "a black-box test is a driver: it reads clocks, spawns and draws"
)]

mod algorithms;
mod cors;
mod failures;
mod fetched_keys;
mod issuer;
mod rates;
mod reload;
mod tickets;

use anyhow::{Result, ensure};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use postrider_harness::http::{Answer, Request, once};
use postrider_harness::node::Node;
use postrider_harness::token::now_seconds;
use serde_json::{Value, json};
use std::sync::LazyLock;

/// A private key, its public one as PEM, and what it signs.
pub struct Pair {
    pub private: EncodingKey,
    pub public: &'static str,
    pub algorithms: &'static [Algorithm],
}

pub static RSA: LazyLock<Pair> = LazyLock::new(|| Pair {
    private: EncodingKey::from_rsa_pem(include_bytes!("../keys/rsa_private.pem")).unwrap(),
    public: include_str!("../keys/rsa_public.pem"),
    algorithms: &[
        Algorithm::RS256,
        Algorithm::RS384,
        Algorithm::RS512,
        Algorithm::PS256,
        Algorithm::PS384,
        Algorithm::PS512,
    ],
});
pub static P256: LazyLock<Pair> = LazyLock::new(|| Pair {
    private: EncodingKey::from_ec_pem(include_bytes!("../keys/p256_private.pem")).unwrap(),
    public: include_str!("../keys/p256_public.pem"),
    algorithms: &[Algorithm::ES256],
});
pub static P384: LazyLock<Pair> = LazyLock::new(|| Pair {
    private: EncodingKey::from_ec_pem(include_bytes!("../keys/p384_private.pem")).unwrap(),
    public: include_str!("../keys/p384_public.pem"),
    algorithms: &[Algorithm::ES384],
});
pub static ED25519: LazyLock<Pair> = LazyLock::new(|| Pair {
    private: EncodingKey::from_ed_pem(include_bytes!("../keys/ed25519_private.pem")).unwrap(),
    public: include_str!("../keys/ed25519_public.pem"),
    algorithms: &[Algorithm::EdDSA],
});

pub fn pairs() -> [&'static Pair; 4] {
    [&RSA, &P256, &P384, &ED25519]
}

impl Pair {
    /// A token of ada, good for an hour.
    pub fn token(&self, algorithm: Algorithm, kid: Option<&str>) -> Result<String> {
        self.signed(
            algorithm,
            kid,
            &json!({"sub": "ada", "exp": now_seconds() + 3600}),
        )
    }

    pub fn signed(&self, algorithm: Algorithm, kid: Option<&str>, claims: &Value) -> Result<String> {
        let header = Header {
            kid: kid.map(str::to_owned),
            ..Header::new(algorithm)
        };
        Ok(jsonwebtoken::encode(&header, claims, &self.private)?)
    }

    /// The public key as an entry of a JWK set, without `alg`.
    pub fn jwk(&self, kid: Option<&str>) -> Value {
        let jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&self.private, self.algorithms[0]).unwrap();
        let mut jwk = serde_json::to_value(jwk).unwrap();
        let fields = jwk.as_object_mut().unwrap();
        fields.remove("alg");
        if let Some(kid) = kid {
            fields.insert("kid".into(), kid.into());
        }
        jwk
    }
}

/// What a poll that does not wait is answered.
pub fn poll(node: &Node, token: &str) -> Result<Answer> {
    let request = Request::new("GET", "/v1/inbox?wait=0").bearer(token);
    once(node.endpoint.addr()?, &request)
}

/// Status and code: `200`, or such as `401 token_signature`.
pub fn said(answer: &Answer) -> String {
    match answer.code() {
        Some(code) => format!("{} {code}", answer.status()),
        None => answer.status().to_string(),
    }
}

pub fn expect(node: &Node, token: &str, expected: &str, what: &str) -> Result<()> {
    let found = said(&poll(node, token)?);
    ensure!(found == expected, "{what}: {found} instead of {expected}");
    Ok(())
}

/// Runs a test against a node with these settings.
pub fn check(sets: &[(&str, &str)], test: impl FnOnce(&Node) -> Result<()>) {
    let node = Node::start(sets).unwrap();
    if let Err(error) = test(&node) {
        panic!("{error:?}");
    }
}
