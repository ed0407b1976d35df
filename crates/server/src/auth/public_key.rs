//! A public key that checks user tokens: what kind it is, which algorithms that allows, and its key id.
//!
//! Invariant: the key decides which algorithms it checks: its type and curve, and the narrower choice of a JWK's
//! `alg`; no token can name another. Only a key that can check signatures comes to be: one that is weak, or of
//! another curve, is a fault when it is read, not a refusal of every token later.
//!
//! How keys are written is read in [`super::pem`] and [`super::jwk`].

use super::der::{BIT_STRING, Der, INTEGER, OID, SEQUENCE, positive};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, crypto};

/// Bits of an RSA modulus: 2048 at least (RFC 7518, 3.3), and 4096 at most, which is what the library checks with.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;
/// Bytes of an Ed25519 key (RFC 8032, 5.1.5).
const ED25519_BYTES: usize = 32;

pub(super) const RSA: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];
pub(super) const P256: &[Algorithm] = &[Algorithm::ES256];
pub(super) const P384: &[Algorithm] = &[Algorithm::ES384];
pub(super) const ED25519: &[Algorithm] = &[Algorithm::EdDSA];

/// Object identifiers (RFC 8017, C; RFC 5480, 2.1.1; RFC 8410, 3).
const OID_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
const OID_EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
const OID_P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const OID_P384: &[u8] = &[0x2b, 0x81, 0x04, 0, 0x22];
const OID_ED25519: &[u8] = &[0x2b, 0x65, 0x70];

/// A key that checks signatures.
#[derive(Debug, Clone)]
pub struct PublicKey {
    key: DecodingKey,
    algorithms: Vec<Algorithm>,
    id: Option<String>,
}

impl PublicKey {
    /// SubjectPublicKeyInfo (RFC 5280, 4.1.2.7).
    pub(super) fn from_spki(der: &[u8]) -> Option<PublicKey> {
        let mut outer = Der::new(der);
        let mut spki = outer.inside(SEQUENCE)?;
        let mut kind = spki.inside(SEQUENCE)?;
        let (unused, bits) = spki.take(BIT_STRING)?.split_first()?;
        if *unused != 0 || !spki.is_empty() || !outer.is_empty() {
            return None;
        }
        match kind.take(OID)? {
            OID_RSA => PublicKey::from_pkcs1(bits),
            OID_EC => match kind.take(OID)? {
                OID_P256 => PublicKey::tried(DecodingKey::from_ec_der(bits), P256),
                OID_P384 => PublicKey::tried(DecodingKey::from_ec_der(bits), P384),
                _ => None,
            },
            OID_ED25519 => PublicKey::ed25519(bits),
            _ => None,
        }
    }

    /// RSAPublicKey (RFC 8017, A.1.1).
    pub(super) fn from_pkcs1(der: &[u8]) -> Option<PublicKey> {
        let mut outer = Der::new(der);
        let mut numbers = outer.inside(SEQUENCE)?;
        let (modulus, exponent) = (numbers.take(INTEGER)?, numbers.take(INTEGER)?);
        if !numbers.is_empty() || !outer.is_empty() {
            return None;
        }
        PublicKey::rsa(positive(modulus)?, positive(exponent)?)
    }

    /// An RSA key by its numbers.
    pub(super) fn rsa(modulus: &[u8], exponent: &[u8]) -> Option<PublicKey> {
        let (modulus, exponent) = (strip_zeros(modulus), strip_zeros(exponent));
        let bits = modulus.len() * 8 - modulus.first()?.leading_zeros() as usize;
        let is_odd = |number: &[u8]| number.last().is_some_and(|byte| byte % 2 == 1);
        if !RSA_BITS.contains(&bits) || !is_odd(modulus) || !is_odd(exponent) || exponent == [1] {
            return None;
        }
        PublicKey::tried(DecodingKey::from_rsa_raw_components(modulus, exponent), RSA)
    }

    /// A point of P-256 or P-384, each coordinate as long as the curve's field.
    pub(super) fn ec(curve: &str, x: &[u8], y: &[u8]) -> Option<PublicKey> {
        let (bytes, algorithms) = match curve {
            "P-256" => (32, P256),
            "P-384" => (48, P384),
            _ => return None,
        };
        if x.len() != bytes || y.len() != bytes {
            return None;
        }
        let text = |coordinate| URL_SAFE_NO_PAD.encode(coordinate);
        PublicKey::tried(
            DecodingKey::from_ec_components(&text(x), &text(y)).ok()?,
            algorithms,
        )
    }

    /// An Ed25519 key. The library takes longer ones, and panics at shorter.
    pub(super) fn ed25519(bytes: &[u8]) -> Option<PublicKey> {
        if bytes.len() != ED25519_BYTES {
            return None;
        }
        PublicKey::tried(DecodingKey::from_ed_der(bytes), ED25519)
    }

    /// The key, if it can check signatures.
    fn tried(key: DecodingKey, algorithms: &[Algorithm]) -> Option<PublicKey> {
        // What it says of this signature does not matter; that it can say anything does.
        crypto::verify("AA", b"", &key, algorithms[0]).ok()?;
        Some(PublicKey {
            key,
            algorithms: algorithms.to_vec(),
            id: None,
        })
    }

    /// The same key for tokens that name this id, or none.
    pub(super) fn named(self, id: Option<String>) -> PublicKey {
        PublicKey { id, ..self }
    }

    /// The same key for one of its algorithms; `None` where it has no such.
    pub(super) fn only(self, algorithm: Algorithm) -> Option<PublicKey> {
        self.checks(algorithm).then(|| PublicKey {
            algorithms: vec![algorithm],
            ..self
        })
    }

    /// Its key id, where it has one.
    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Whether it may check this algorithm.
    pub(super) fn checks(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// Whether it may check a token with this header: where both name a key, they name the same.
    pub(super) fn fits(&self, algorithm: Algorithm, id: Option<&str>) -> bool {
        let is_named = match (self.id(), id) {
            (Some(own), Some(asked)) => own == asked,
            _ => true,
        };
        is_named && self.checks(algorithm)
    }

    /// Whether a signature, as base64url, is of this key. False for an algorithm that is not its own.
    pub(super) fn signed(&self, message: &[u8], signature: &str, algorithm: Algorithm) -> bool {
        self.checks(algorithm) && crypto::verify(signature, message, &self.key, algorithm).unwrap_or(false)
    }
}

fn strip_zeros(number: &[u8]) -> &[u8] {
    &number[number.iter().take_while(|byte| **byte == 0).count()..]
}

/// An algorithm by its exact name (RFC 7518, 3.1; RFC 8037, 3.1; RFC 9864, 2.2).
pub(super) fn algorithm_named(name: &str) -> Option<Algorithm> {
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
        "EdDSA" | "Ed25519" => Algorithm::EdDSA,
        _ => return None,
    })
}

#[cfg(test)]
#[path = "public_key_tests.rs"]
pub(super) mod tests;
