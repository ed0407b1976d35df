//! Mints user tokens, good ones and any broken one that a test needs.
//!
//! Invariant: what is asked for is what is signed; no claim or header is added in secret.
//!
//! It does not verify tokens: that is the server's work.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

/// The secret that every node of the harness is started with.
pub const SECRET: &str = "harness-secret-of-more-than-thirty-two-bytes";

/// Seconds since 1970.
pub fn now_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map(|d| d.as_secs())
        .unwrap_or_default()
}

/// A valid token for a user, good for a day.
pub fn user(sub: &str) -> Result<String> {
    with_claims(json!({"sub": sub, "exp": now_seconds() + 86_400}))
}

/// A token for a user that ends at a time, in seconds since 1970.
pub fn until(sub: &str, exp: u64) -> Result<String> {
    with_claims(json!({"sub": sub, "exp": exp}))
}

/// Exactly these claims, signed by HS256 with [`SECRET`].
pub fn with_claims(claims: Value) -> Result<String> {
    signed(
        &json!({"alg": "HS256", "typ": "JWT"}),
        claims.to_string().as_bytes(),
        SECRET.as_bytes(),
    )
}

/// Exactly this header and payload, signed by HS256 whatever the header says.
pub fn signed(header: &Value, payload: &[u8], secret: &[u8]) -> Result<String> {
    let message = unsigned(header, payload);
    let signature = jsonwebtoken::crypto::sign(
        message.as_bytes(),
        &EncodingKey::from_secret(secret),
        Algorithm::HS256,
    )?;
    Ok(format!("{message}.{signature}"))
}

/// Exactly this header and payload, signed by RS256 with a private key in PEM.
pub fn signed_rs256(header: &Value, payload: &[u8], private_pem: &[u8]) -> Result<String> {
    let message = unsigned(header, payload);
    let key = EncodingKey::from_rsa_pem(private_pem)?;
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::RS256)?;
    Ok(format!("{message}.{signature}"))
}

/// Header and payload without a signature and without the dot before it.
pub fn unsigned(header: &Value, payload: &[u8]) -> String {
    format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header.to_string()),
        URL_SAFE_NO_PAD.encode(payload)
    )
}
