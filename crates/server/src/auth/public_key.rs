//! The public key of user tokens: PEM text, or the file that holds it.
//!
//! Invariant: the key's own type says which algorithms it checks; no token can name another. Only a key that
//! can check signatures comes out of [`PublicKey::read`]: a private key, a weak one, or one of another curve
//! is a fault at the start, not a refusal of every token later. A fault never repeats the text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use std::fs::File;
use std::io::{self, Read as _};

/// A longer text is no key.
const PEM_BYTES: u64 = 64 * 1024;
/// Bytes of an RSA modulus: 2048 bits at least (RFC 7518, 3.3), and 4096 at most, which is what the
/// library checks with.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=512;

const RSA: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];
const P256: &[Algorithm] = &[Algorithm::ES256];
const P384: &[Algorithm] = &[Algorithm::ES384];
const ED25519: &[Algorithm] = &[Algorithm::EdDSA];

/// Why a text is no key that can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFault {
    /// The file cannot be read.
    #[error("names a file that cannot be read: {0}")]
    File(#[source] io::Error),
    /// It is something else.
    #[error(
        "is no public key in PEM: give the text from -----BEGIN PUBLIC KEY----- to -----END PUBLIC KEY-----, or file:PATH"
    )]
    NotPem,
    /// It is, or holds, a private key.
    #[error(
        "holds a private key, which does not belong here; `openssl pkey -in private.pem -pubout` writes the public one"
    )]
    Private,
    /// There is more than one key.
    #[error("holds more than one key; one can be used")]
    Several,
    /// Such keys cannot be used.
    #[error(
        "is of a kind that is not supported; there are RSA of 2048 to 4096 bits, EC P-256 and P-384, and Ed25519"
    )]
    Unsupported,
}

/// A key that checks signatures.
#[derive(Debug, Clone)]
pub struct PublicKey {
    key: DecodingKey,
    algorithms: &'static [Algorithm],
}

impl PublicKey {
    /// Reads what `auth.jwt.public_key_pem` holds.
    pub fn read(setting: &str) -> Result<PublicKey, KeyFault> {
        match setting.trim().strip_prefix("file:") {
            Some(path) => {
                let mut text = String::new();
                let file = File::open(path).map_err(KeyFault::File)?;
                let read = file.take(PEM_BYTES).read_to_string(&mut text);
                read.map_err(KeyFault::File)?;
                PublicKey::from_pem(&text)
            }
            None => PublicKey::from_pem(setting),
        }
    }

    fn from_pem(text: &str) -> Result<PublicKey, KeyFault> {
        // Environment files often hold a line break as these two letters.
        let text = text.replace("\\n", "\n");
        if text.contains("PRIVATE KEY-----") {
            return Err(KeyFault::Private);
        }
        let is_pkcs1 = match text.matches("-----BEGIN ").count() {
            0 => return Err(KeyFault::NotPem),
            1 => text.contains("-----BEGIN RSA PUBLIC KEY-----"),
            _ => return Err(KeyFault::Several),
        };
        if !is_pkcs1 && !text.contains("-----BEGIN PUBLIC KEY-----") {
            return Err(KeyFault::NotPem);
        }
        let der = der(&text).ok_or(KeyFault::NotPem)?;
        let pem = text.trim().as_bytes();
        let (key, algorithms) = if is_pkcs1 || has(&der, OID_RSA) {
            (DecodingKey::from_rsa_pem(pem), RSA)
        } else if has(&der, OID_P256) {
            (DecodingKey::from_ec_pem(pem), P256)
        } else if has(&der, OID_P384) {
            (DecodingKey::from_ec_pem(pem), P384)
        } else if has(&der, OID_ED25519) {
            (DecodingKey::from_ed_pem(pem), ED25519)
        } else {
            return Err(KeyFault::Unsupported);
        };
        let key = key.map_err(|_| KeyFault::NotPem)?;
        PublicKey { key, algorithms }.tried()
    }

    /// The key, if it can check signatures.
    fn tried(self) -> Result<PublicKey, KeyFault> {
        let bytes = self.key.try_get_as_bytes().map_err(|_| KeyFault::NotPem)?;
        let is_sound = match self.algorithms[0] {
            Algorithm::RS256 => rsa_modulus_bytes(bytes).is_some_and(|n| RSA_BYTES.contains(&n)),
            Algorithm::EdDSA => bytes.len() == 32,
            _ => true,
        };
        // What it says of this signature does not matter; that it can say anything does.
        if is_sound && crypto::verify("AA", b"", &self.key, self.algorithms[0]).is_ok() {
            Ok(self)
        } else {
            Err(KeyFault::Unsupported)
        }
    }

    /// The key, for one of its own algorithms.
    pub(super) fn for_algorithm(&self, algorithm: Algorithm) -> Option<&DecodingKey> {
        self.algorithms.contains(&algorithm).then_some(&self.key)
    }
}

/// Object identifiers as they stand in a key (RFC 8017, C; RFC 5480, 2.1.1.1; RFC 8410, 3).
const OID_RSA: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
const OID_P256: &[u8] = &[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const OID_P384: &[u8] = &[0x06, 5, 0x2b, 0x81, 0x04, 0, 0x22];
const OID_ED25519: &[u8] = &[0x06, 3, 0x2b, 0x65, 0x70];

/// Whether the head of a key, before its numbers, names this.
fn has(der: &[u8], oid: &[u8]) -> bool {
    const HEAD: usize = 32;
    der[..der.len().min(HEAD)]
        .windows(oid.len())
        .any(|part| part == oid)
}

/// What stands between a PEM's first and last line.
fn der(text: &str) -> Option<Vec<u8>> {
    let (_, rest) = text.split_once("-----BEGIN ")?.1.split_once("-----")?;
    let (body, _) = rest.split_once("-----END ")?;
    let body: String = body.chars().filter(|c| !c.is_whitespace()).collect();
    STANDARD.decode(body).ok()
}

/// How long the modulus of a PKCS #1 key is: SEQUENCE { INTEGER modulus, … } (RFC 8017, A.1.1). Only keys that
/// are long enough have lengths of two bytes.
fn rsa_modulus_bytes(der: &[u8]) -> Option<usize> {
    let [0x30, 0x82, _, _, 0x02, 0x82, high, low, first, ..] = *der else {
        return None;
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    Some(length - usize::from(first == 0 && length > 0))
}

#[cfg(test)]
#[path = "public_key_tests.rs"]
mod tests;
