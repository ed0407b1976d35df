//! Public keys as PEM (RFC 7468): text of the configuration, or a file that it names. There may be several, of
//! the kinds `PUBLIC KEY`, `RSA PUBLIC KEY` and `CERTIFICATE`; of a certificate only the key counts, not its
//! dates, names or signature.
//!
//! Invariant: a fault never repeats the text, and names the key by its place.

use super::der::{CONTEXT_0, Der, SEQUENCE};
use super::public_key::PublicKey;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fs::File;
use std::io::{self, Read as _};

/// A longer text is no list of keys.
const PEM_BYTES: u64 = 64 * 1024;
/// Most keys. A token that names none is checked against each that fits its algorithm.
pub(super) const MAX_PEM_KEYS: usize = 16;

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// Why a text holds no keys that can be used.
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
    /// There are more keys than are looked at.
    #[error("holds more than {MAX_PEM_KEYS} keys")]
    TooMany,
    /// Such keys cannot be used.
    #[error(
        "holds, as number {0}, a key of a kind that is not supported; there are RSA of 2048 to 4096 bits, EC P-256 and P-384, and Ed25519"
    )]
    Unsupported(usize),
}

impl PublicKey {
    /// Reads what `auth.jwt.public_key_pem` holds: at least one key.
    pub fn read(setting: &str) -> Result<Vec<PublicKey>, KeyFault> {
        match setting.trim().strip_prefix("file:") {
            Some(path) => {
                let mut text = String::new();
                let file = File::open(path).map_err(KeyFault::File)?;
                let read = file.take(PEM_BYTES).read_to_string(&mut text);
                read.map_err(KeyFault::File)?;
                keys(&text)
            }
            None => keys(setting),
        }
    }
}

fn keys(text: &str) -> Result<Vec<PublicKey>, KeyFault> {
    // Environment files often hold a line break as these two letters.
    let text = text.replace("\\n", "\n");
    if text.contains("PRIVATE KEY-----") {
        return Err(KeyFault::Private);
    }
    let mut keys = Vec::new();
    let mut rest = text.as_str();
    while let Some((_, begun)) = rest.split_once(BEGIN) {
        if keys.len() == MAX_PEM_KEYS {
            return Err(KeyFault::TooMany);
        }
        let (label, begun) = begun.split_once(DASHES).ok_or(KeyFault::NotPem)?;
        let end = format!("{END}{label}{DASHES}");
        let (body, after) = begun.split_once(&end).ok_or(KeyFault::NotPem)?;
        let body: String = body.chars().filter(|c| !c.is_whitespace()).collect();
        let der = STANDARD.decode(body).map_err(|_| KeyFault::NotPem)?;
        let key = match label {
            "PUBLIC KEY" => PublicKey::from_spki(&der),
            "RSA PUBLIC KEY" => PublicKey::from_pkcs1(&der),
            "CERTIFICATE" => spki_of_certificate(&der).and_then(PublicKey::from_spki),
            _ => return Err(KeyFault::NotPem),
        };
        keys.push(key.ok_or(KeyFault::Unsupported(keys.len() + 1))?);
        rest = after;
    }
    if keys.is_empty() {
        return Err(KeyFault::NotPem);
    }
    Ok(keys)
}

/// The key of a certificate (RFC 5280, 4.1): version, serial number, signature, issuer, validity and subject
/// come before it.
fn spki_of_certificate(der: &[u8]) -> Option<&[u8]> {
    let mut certificate = Der::new(der).inside(SEQUENCE)?;
    let mut signed = certificate.inside(SEQUENCE)?;
    if signed.tag() == Some(CONTEXT_0) {
        signed.whole()?;
    }
    for _ in ["serial number", "signature", "issuer", "validity", "subject"] {
        signed.whole()?;
    }
    signed.whole()
}

#[cfg(test)]
#[path = "pem_tests.rs"]
mod tests;
