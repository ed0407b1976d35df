//! Reads a JWK set (RFC 7517): the keys of it that can check user tokens.
//!
//! Invariant: a key that is for something else (`use`, `key_ops`, `alg`), that is secret or private, or that is
//! malformed is passed over and touches no other; a set without one usable key is no set. Nothing of it is
//! repeated in a fault.

use super::public_key::{PublicKey, algorithm_named};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// Most keys of a set.
const MAX_KEYS: usize = 100;
/// A longer key id is nobody's.
pub(super) const MAX_ID_BYTES: usize = 256;

/// Why a text is no set of keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SetFault {
    /// It is no JSON object with a list `keys`.
    #[error("the answer is no JWK set: an object with a list `keys` is needed")]
    NotASet,
    /// It has too many.
    #[error("the JWK set has more than {MAX_KEYS} keys")]
    TooMany,
    /// It has none.
    #[error("the JWK set has no key that can be used; {0} were passed over")]
    Unusable(usize),
}

/// The usable keys of a set, and how many others there were.
#[derive(Debug)]
pub(super) struct KeySet {
    pub keys: Vec<PublicKey>,
    pub passed_over: usize,
}

/// Reads a set.
pub(super) fn read(text: &[u8]) -> Result<KeySet, SetFault> {
    let set: Value = serde_json::from_slice(text).map_err(|_| SetFault::NotASet)?;
    let entries = set
        .get("keys")
        .and_then(Value::as_array)
        .ok_or(SetFault::NotASet)?;
    if entries.len() > MAX_KEYS {
        return Err(SetFault::TooMany);
    }
    let keys: Vec<PublicKey> = entries
        .iter()
        .filter_map(|entry| key(entry.as_object()?))
        .collect();
    let passed_over = entries.len() - keys.len();
    if keys.is_empty() {
        return Err(SetFault::Unusable(passed_over));
    }
    Ok(KeySet { keys, passed_over })
}

fn key(jwk: &Map<String, Value>) -> Option<PublicKey> {
    // Members of private and symmetric keys: what was published is no secret any more (RFC 7518, 6.2.2).
    if ["d", "k", "p", "q"].iter().any(|name| jwk.contains_key(*name)) || !is_for_tokens(jwk) {
        return None;
    }
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
    let key = match text("kty")? {
        "RSA" => PublicKey::rsa(&bytes("n")?, &bytes("e")?),
        "EC" => PublicKey::ec(text("crv")?, &bytes("x")?, &bytes("y")?),
        "OKP" if text("crv") == Some("Ed25519") => PublicKey::ed25519(&bytes("x")?),
        _ => None,
    }?;
    let key = match jwk.get("alg") {
        Some(name) => key.only(algorithm_named(name.as_str()?)?)?,
        None => key,
    };
    match jwk.get("kid") {
        None => Some(key),
        Some(id) => {
            let id = id.as_str().filter(|id| id.len() <= MAX_ID_BYTES)?;
            Some(key.named(Some(id.to_owned())))
        }
    }
}

/// Whether it may check signatures (RFC 7517, 4.2 and 4.3): it does not say otherwise.
fn is_for_tokens(jwk: &Map<String, Value>) -> bool {
    let by_use = jwk.get("use").is_none_or(|is| is == "sig");
    let by_operations = jwk.get("key_ops").is_none_or(|operations| {
        operations
            .as_array()
            .is_some_and(|all| all.iter().any(|operation| operation == "verify"))
    });
    by_use && by_operations
}

#[cfg(test)]
#[path = "jwk_tests.rs"]
mod tests;
