//! User tokens: JSON Web Tokens (RFC 7519) signed with a shared secret, or with the private key whose public
//! one is configured.
//!
//! Invariant: the configured keys decide which algorithms there are; a header that names any other is refused,
//! whatever it is signed with. The secret checks HS tokens and nothing else, and nothing else checks those: the
//! bytes of a public key are never a secret (RFC 8725, 2.1). Claims are looked at only after the signature.

use super::public_key::{KeyFault, PublicKey};
use crate::config::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use postrider_model::{Millis, Timestamp, UserId};
use postrider_transports::{Identity, Problem};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;

/// A longer token is refused unread.
const TOKEN_BYTES: usize = 16 * 1024;
/// More patterns than this in the claim `topics` are not looked at.
const TOPIC_PATTERNS: usize = 100;

/// `auth.jwt.*`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JwtConfig {
    /// The shared secret of HS256, HS384 and HS512 tokens; at least 32 bytes.
    pub hmac_secret: Option<Secret>,
    /// The public key of signed tokens, as PEM text or `file:PATH`: RSA (RS256 to PS512), EC P-256 or P-384
    /// (ES256, ES384), or Ed25519 (EdDSA). The key's type fixes the algorithms.
    pub public_key_pem: Option<String>,
    /// The claim that names the user: a string, or an integer taken as decimal text.
    pub user_claim: String,
    /// What `iss` must be.
    pub issuer: Option<String>,
    /// What `aud` must be or hold.
    pub audience: Option<String>,
    /// How far clocks may differ.
    pub leeway: Millis,
    /// Whether a token must have `exp`.
    pub require_exp: bool,
}

impl Default for JwtConfig {
    fn default() -> Self {
        JwtConfig {
            hmac_secret: None,
            public_key_pem: None,
            user_claim: "sub".into(),
            issuer: None,
            audience: None,
            leeway: Millis::from_secs(30),
            require_exp: true,
        }
    }
}

/// Checks user tokens.
pub(super) struct Jwt {
    secret: Option<DecodingKey>,
    public_key: Option<PublicKey>,
    config: JwtConfig,
}

impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwt")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Jwt {
    /// Fails where the public key cannot be used.
    pub(super) fn new(config: &JwtConfig) -> Result<Jwt, KeyFault> {
        let secret = config
            .hmac_secret
            .as_ref()
            .map(|secret| DecodingKey::from_secret(secret.expose().as_bytes()));
        let public_key = config.public_key_pem.as_deref().map(PublicKey::read);
        Ok(Jwt {
            secret,
            public_key: public_key.transpose()?,
            config: JwtConfig {
                hmac_secret: None,
                ..config.clone()
            },
        })
    }

    /// The one key that may have signed with this algorithm.
    fn key(&self, algorithm: Algorithm) -> Option<&DecodingKey> {
        match algorithm {
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => self.secret.as_ref(),
            _ => self.public_key.as_ref()?.for_algorithm(algorithm),
        }
    }

    /// The user whom a token speaks of, if all of it holds at `now`.
    pub(super) fn verify(&self, token: &str, now: Timestamp) -> Result<Identity, Problem> {
        let claims = self.signed_claims(token)?;
        self.check_times(&claims, now)?;
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        if self
            .config
            .issuer
            .as_deref()
            .is_some_and(|issuer| text("iss") != Some(issuer))
        {
            return Err(Problem::token_claims());
        }
        if let Some(audience) = self.config.audience.as_deref() {
            let listed = claims.get("aud").and_then(Value::as_array);
            let listed = listed.is_some_and(|all| all.iter().any(|aud| aud.as_str() == Some(audience)));
            if text("aud") != Some(audience) && !listed {
                return Err(Problem::token_claims());
            }
        }
        Ok(Identity {
            user: self.user(&claims)?,
            expires_at: self.ends(&claims, now),
            topics: topic_patterns(&claims)?,
        })
    }

    fn signed_claims(&self, token: &str) -> Result<Map<String, Value>, Problem> {
        if token.len() > TOKEN_BYTES {
            return Err(Problem::token_malformed());
        }
        let (message, signature) = token.rsplit_once('.').ok_or_else(Problem::token_malformed)?;
        let (header, payload) = message.split_once('.').ok_or_else(Problem::token_malformed)?;
        let header = object(header).ok_or_else(Problem::token_malformed)?;
        let algorithm = header
            .get("alg")
            .and_then(Value::as_str)
            .ok_or_else(Problem::token_malformed)?;
        let algorithm = algorithm_named(algorithm).ok_or_else(Problem::token_signature)?;
        // RFC 7515, 4.1.11: an extension that must be understood, and is not.
        if header.contains_key("crit") {
            return Err(Problem::token_signature());
        }
        let base64url = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if !signature.bytes().all(base64url) || payload.contains('.') {
            return Err(Problem::token_malformed());
        }
        let key = self.key(algorithm).ok_or_else(Problem::token_signature)?;
        match jsonwebtoken::crypto::verify(signature, message.as_bytes(), key, algorithm) {
            Ok(true) => object(payload).ok_or_else(Problem::token_malformed),
            Ok(false) | Err(_) => Err(Problem::token_signature()),
        }
    }

    fn check_times(&self, claims: &Map<String, Value>, now: Timestamp) -> Result<(), Problem> {
        match numeric_date(claims, "exp")? {
            None if self.config.require_exp => return Err(Problem::token_claims()),
            Some(exp) if exp.plus(self.config.leeway) <= now => return Err(Problem::token_expired()),
            _ => {}
        }
        match numeric_date(claims, "nbf")? {
            Some(nbf) if nbf > now.plus(self.config.leeway) => Err(Problem::token_claims()),
            _ => Ok(()),
        }
    }

    /// `exp`; for a token that is good only by the leeway, the end of the leeway.
    fn ends(&self, claims: &Map<String, Value>, now: Timestamp) -> Option<Timestamp> {
        let exp = numeric_date(claims, "exp").ok().flatten()?;
        Some(if exp > now {
            exp
        } else {
            exp.plus(self.config.leeway)
        })
    }

    fn user(&self, claims: &Map<String, Value>) -> Result<UserId, Problem> {
        let text = match claims.get(&self.config.user_claim) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) if number.is_i64() || number.is_u64() => number.to_string(),
            _ => return Err(Problem::token_claims()),
        };
        UserId::new(&text).map_err(|_| Problem::token_claims())
    }
}

/// An algorithm by its exact name (RFC 7518, 3.1; RFC 8037, 3.1).
fn algorithm_named(name: &str) -> Option<Algorithm> {
    Some(match name {
        "HS256" => Algorithm::HS256,
        "HS384" => Algorithm::HS384,
        "HS512" => Algorithm::HS512,
        "RS256" => Algorithm::RS256,
        "RS384" => Algorithm::RS384,
        "RS512" => Algorithm::RS512,
        "PS256" => Algorithm::PS256,
        "PS384" => Algorithm::PS384,
        "PS512" => Algorithm::PS512,
        "ES256" => Algorithm::ES256,
        "ES384" => Algorithm::ES384,
        "EdDSA" => Algorithm::EdDSA,
        _ => return None,
    })
}

/// The patterns of session topics that the token allows.
fn topic_patterns(claims: &Map<String, Value>) -> Result<Vec<String>, Problem> {
    let Some(claim) = claims.get("topics") else {
        return Ok(Vec::new());
    };
    let items = claim.as_array().ok_or_else(Problem::token_claims)?;
    let texts = items.iter().take(TOPIC_PATTERNS);
    texts
        .map(|item| item.as_str().map(str::to_owned).ok_or_else(Problem::token_claims))
        .collect()
}

/// Seconds since 1970, possibly with a fraction (RFC 7519, 2).
fn numeric_date(claims: &Map<String, Value>, name: &str) -> Result<Option<Timestamp>, Problem> {
    let Some(value) = claims.get(name) else {
        return Ok(None);
    };
    let seconds = value
        .as_f64()
        .filter(|s| s.is_finite())
        .ok_or_else(Problem::token_claims)?;
    Ok(Some(Timestamp(
        ((seconds.max(0.0) * 1000.0) as u64).min(Timestamp::MAX.0),
    )))
}

fn object(part: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}
