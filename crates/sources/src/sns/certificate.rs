//! The certificate of a key that SNS signs with.
//!
//! Invariant: a certificate is there only with an RSA key of at least 2,048 bits. Who is vouched for by it is not judged
//! here: it counts because of where it came from.

use postrider_model::Timestamp;
use ring::signature::{
    RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
};
use x509_parser::pem::Pem;
use x509_parser::public_key::PublicKey;

/// Bits of a key that count.
const LEAST_BITS: usize = 2_048;

/// A key, and for how long it counts.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// `RSAPublicKey` (RFC 8017).
    key: Vec<u8>,
    /// Seconds since 1970.
    from: i64,
    until: i64,
}

/// Why a file is no certificate that counts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateFault {
    /// It cannot be read.
    #[error("this is no certificate in PEM: {0}")]
    Unreadable(String),
    /// Its key is of another kind, or short.
    #[error("its key is no RSA key of at least {LEAST_BITS} bits")]
    Key,
}

impl Certificate {
    /// The first certificate of a PEM file.
    ///
    /// # Errors
    /// There is none, or none whose key counts.
    pub fn read(pem: &[u8]) -> Result<Certificate, CertificateFault> {
        let unreadable = |error: &dyn std::fmt::Display| CertificateFault::Unreadable(error.to_string());
        // Anything before it would be skipped: what others wrote, in an answer that is none.
        if !pem.starts_with(b"-----BEGIN CERTIFICATE-----") {
            return Err(unreadable(&"it does not begin as one"));
        }
        let pem = Pem::iter_from_buffer(pem)
            .next()
            .ok_or_else(|| unreadable(&"it is empty"))?
            .map_err(|e| unreadable(&e))?;
        let found = pem.parse_x509().map_err(|e| unreadable(&e))?;
        let spki = found.public_key();
        match spki.parsed() {
            Ok(PublicKey::RSA(key)) if key.key_size() >= LEAST_BITS => {}
            _ => return Err(CertificateFault::Key),
        }
        Ok(Certificate {
            key: spki.subject_public_key.data.to_vec(),
            from: found.validity().not_before.timestamp(),
            until: found.validity().not_after.timestamp(),
        })
    }

    /// Whether it counts at this time.
    pub fn counts_at(&self, now: Timestamp) -> bool {
        let now = i64::try_from(now.0 / 1_000).unwrap_or(i64::MAX);
        (self.from..=self.until).contains(&now)
    }

    /// Whether its key made this signature of a text, by the rule of a signature version.
    pub fn has_signed(&self, version: &str, text: &[u8], signature: &[u8]) -> bool {
        let rule = match version {
            "1" => &RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
            "2" => &RSA_PKCS1_2048_8192_SHA256,
            _ => return false,
        };
        UnparsedPublicKey::new(rule, &self.key)
            .verify(text, signature)
            .is_ok()
    }
}
