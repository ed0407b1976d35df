//! User tokens: JSON Web Tokens (RFC 7519) signed with a shared secret, or with a private key whose public one is
//! configured, or published by an issuer as a JWK set.
//!
//! Invariant: the keys decide which algorithms there are; a header that names any other is refused, whatever it
//! is signed with. The secret checks HS tokens and nothing else, and nothing else checks those: the bytes of a
//! public key are never a secret (RFC 8725, 2.1). A token's `kid` chooses among the keys that are there, and
//! nothing else of its header (`jwk`, `jku`, `x5u`, `x5c`) is looked at. Claims are looked at only after the
//! signature.

use super::claims::{self, Unique};
use super::issuer::Issuer;
use super::key_cache::{Answer, Rules};
use super::one_or_many::OneOrMany;
use super::pem::KeyFault;
use super::public_key::{PublicKey, algorithm_named};
use super::seen::{Good, More, Seen};
use crate::config::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use postrider_model::{Millis, Timestamp};
use postrider_transports::{Identity, Problem};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;
use std::sync::{Arc, Weak};

/// A longer token is refused unread.
const TOKEN_BYTES: usize = 16 * 1024;
/// Keys that one token is checked against. Only a token that names no key fits more than a few.
const MAX_TRIED: usize = 16;

/// `auth.jwt.*`
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct JwtConfig {
    /// The shared secret of HS256, HS384 and HS512 tokens; at least 32 bytes.
    pub hmac_secret: Option<Secret>,
    /// The public keys of signed tokens, as PEM text or `file:PATH`, one or more: RSA (RS256 to PS512), EC P-256
    /// or P-384 (ES256, ES384), or Ed25519 (EdDSA). A key's type fixes its algorithms.
    #[schemars(extend("x-type" = "pem"))]
    pub public_key_pem: Option<String>,
    /// Where the issuer publishes its keys as a JWK set (RFC 7517), such as `https://id.example/jwks.json`.
    pub jwks_url: Option<String>,
    /// How often the JWK set is fetched again.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "7d"))]
    pub jwks_refresh: Millis,
    /// An unknown key id makes the set be fetched at most once in this time.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "1h"))]
    pub jwks_min_interval: Millis,
    /// Whether a bad signature makes the set be fetched too, for an issuer that changes a key and keeps its id: once in
    /// `auth.jwt.jwks_refresh` for each id, and by `auth.jwt.jwks_min_interval`. Until then the token is put off, and
    /// refused after that.
    pub jwks_doubt: bool,
    /// How long the last JWK set is used while its issuer cannot be reached.
    #[schemars(extend("x-minimum" = "0s", "x-maximum" = "90d"))]
    pub jwks_max_stale: Millis,
    /// The claim that names the user: a string, or an integer taken as decimal text; `app.user` is `user` in `app`.
    pub user_claim: String,
    /// What `iss` must be: a text, or a list of which one.
    pub issuer: Option<OneOrMany>,
    /// What `aud` must be or hold: a text, or a list of which one.
    pub audience: Option<OneOrMany>,
    /// How far clocks may differ.
    #[schemars(extend("x-minimum" = "0s", "x-maximum" = "1h"))]
    pub leeway: Millis,
    /// Whether a token must have `exp`.
    pub require_exp: bool,
}

impl Default for JwtConfig {
    fn default() -> Self {
        JwtConfig {
            hmac_secret: None,
            public_key_pem: None,
            jwks_url: None,
            jwks_refresh: Millis::from_secs(600),
            jwks_min_interval: Millis::from_secs(30),
            jwks_doubt: false,
            jwks_max_stale: Millis::from_secs(24 * 3600),
            user_claim: "sub".into(),
            issuer: None,
            audience: None,
            leeway: Millis::from_secs(30),
            require_exp: true,
        }
    }
}

impl JwtConfig {
    /// How the issuer's keys are kept.
    pub(super) fn cache_rules(&self) -> Rules {
        Rules {
            refresh: self.jwks_refresh,
            min_interval: self.jwks_min_interval,
            max_stale: self.jwks_max_stale,
        }
    }
}

/// Checks user tokens.
pub(super) struct Jwt {
    secret: Option<DecodingKey>,
    keys: Vec<PublicKey>,
    issuer: Option<Arc<Issuer>>,
    config: JwtConfig,
    seen: Seen,
}

/// Whose key signed a token.
enum Signer {
    /// One of the configuration, which does not change.
    Configured,
    /// One of these of the issuer's.
    Issuer(Arc<Vec<PublicKey>>),
}

impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwt")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// What a token says of its signature.
struct Signed<'a> {
    algorithm: Algorithm,
    key_id: Option<String>,
    message: &'a str,
    payload: &'a str,
    signature: &'a str,
}

impl Jwt {
    /// Fails where a public key cannot be used. `issuer` is where `auth.jwt.jwks_url` leads.
    pub(super) fn new(config: &JwtConfig, issuer: Option<Arc<Issuer>>) -> Result<Jwt, KeyFault> {
        let secret = config
            .hmac_secret
            .as_ref()
            .map(|secret| DecodingKey::from_secret(secret.expose().as_bytes()));
        let keys = config
            .public_key_pem
            .as_deref()
            .map(PublicKey::read)
            .transpose()?;
        Ok(Jwt {
            secret,
            keys: keys.unwrap_or_default(),
            issuer,
            config: JwtConfig {
                hmac_secret: None,
                ..config.clone()
            },
            seen: Seen::new(),
        })
    }

    /// Where keys are fetched from.
    pub(super) fn issuer(&self) -> Option<&Arc<Issuer>> {
        self.issuer.as_ref()
    }

    /// The user whom a token speaks of, if all of it holds at `now`.
    pub(super) fn verify(&self, token: &str, now: Timestamp) -> Result<Identity, Problem> {
        if token.len() > TOKEN_BYTES {
            return Err(Problem::token_malformed());
        }
        let digest = self.seen.digest(token);
        if let Some(identity) = self.seen.find(&digest).and_then(|good| self.again(good, now)) {
            return Ok(identity);
        }
        let signed = read(token)?;
        let signer = self.check_signature(&signed)?;
        let claims = object(signed.payload).ok_or_else(Problem::token_malformed)?;
        let (identity, times) = claims::identity(&claims, &self.config, now)?;
        let good = Good {
            user: identity.user.clone(),
            times,
            more: More::of(
                &identity.topics,
                match signer {
                    Signer::Configured => None,
                    Signer::Issuer(keys) => Some(Arc::downgrade(&keys)),
                },
            ),
        };
        self.seen.keep(digest, good);
        Ok(identity)
    }

    /// What a token that was found good says, if it would be found good now. If not, it is checked anew: why it is
    /// refused is said in one place.
    fn again(&self, good: Good, now: Timestamp) -> Option<Identity> {
        let more = good.more.map(|more| *more).unwrap_or_default();
        if let Some(keys) = &more.keys {
            let in_use = self.issuer.as_ref()?.keys_in_use()?;
            if !Weak::ptr_eq(keys, &Arc::downgrade(&in_use)) {
                return None;
            }
        }
        good.times.check(&self.config, now).ok()?;
        Some(Identity {
            user: good.user,
            expires_at: good.times.ends(&self.config, now),
            topics: more.topics,
        })
    }

    fn check_signature(&self, token: &Signed<'_>) -> Result<Signer, Problem> {
        let message = token.message.as_bytes();
        if let Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 = token.algorithm {
            let secret = self.secret.as_ref().ok_or_else(Problem::token_signature)?;
            let verified = jsonwebtoken::crypto::verify(token.signature, message, secret, token.algorithm);
            return match verified {
                Ok(true) => Ok(Signer::Configured),
                Ok(false) | Err(_) => Err(Problem::token_signature()),
            };
        }
        let key_id = token.key_id.as_deref();
        let is_signed = |keys: &[PublicKey]| {
            keys.iter()
                .filter(|key| key.fits(token.algorithm, key_id))
                .take(MAX_TRIED)
                .any(|key| key.signed(message, token.signature, token.algorithm))
        };
        if is_signed(&self.keys) {
            return Ok(Signer::Configured);
        }
        let Some(issuer) = &self.issuer else {
            return Err(Problem::token_signature());
        };
        match issuer.ask(key_id) {
            Answer::Keys(keys) if is_signed(&keys) => Ok(Signer::Issuer(keys)),
            Answer::Keys(_) if self.config.jwks_doubt => match issuer.doubt(key_id) {
                Answer::Keys(keys) if is_signed(&keys) => Ok(Signer::Issuer(keys)),
                Answer::Keys(_) => Err(Problem::token_signature()),
                Answer::Later(seconds) => Err(keys_unavailable(seconds)),
            },
            Answer::Keys(_) => Err(Problem::token_signature()),
            Answer::Later(seconds) => Err(keys_unavailable(seconds)),
        }
    }
}

/// The keys of the token's issuer are not known now.
fn keys_unavailable(retry_after_s: u32) -> Problem {
    let detail = "The keys of the token's issuer are not known here at this time. Wait as long as Retry-After says, then send the token again.";
    Problem {
        detail: detail.into(),
        ..Problem::unavailable(retry_after_s)
    }
}

/// The three parts of a token (RFC 7515, 7.1), of which the header is read.
fn read(token: &str) -> Result<Signed<'_>, Problem> {
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
    let key_id = match header.get("kid") {
        None => None,
        Some(Value::String(id)) => Some(id.clone()),
        Some(_) => return Err(Problem::token_malformed()),
    };
    let base64url = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if !signature.bytes().all(base64url) || payload.contains('.') {
        return Err(Problem::token_malformed());
    }
    Ok(Signed {
        algorithm,
        key_id,
        message,
        payload,
        signature,
    })
}

fn object(part: &str) -> Option<Map<String, Value>> {
    let Unique(map) = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()?;
    Some(map)
}
