//! The files of a certificate and its key, and what may be wrong with them.
//!
//! Invariant: a pair that is loaded belongs together. It is not checked against any root: whether clients trust it
//! is theirs to say.

use crate::config::TlsConfig;
use postrider_model::Timestamp;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, RootCertStore};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A certificate or key file is smaller than this, or is none.
const FILE_BYTES: u64 = 1 << 20;
/// So long before its end a certificate is warned about.
const ENDS_SOON: Duration = Duration::from_secs(7 * 24 * 3600);
const CERT: &str = "http.tls.cert";
const KEY: &str = "http.tls.key";

/// Why a certificate and a key cannot be used. Each is one line that begins with the configuration key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsConfigFault {
    /// Only one of the two is set.
    #[error("{missing}: must be set too, or neither")]
    Half {
        /// The one that is not.
        missing: &'static str,
    },
    /// A file cannot be read.
    #[error("{key}: {}: {source}", path.display())]
    Unreadable {
        /// The configuration key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{key}: {}: {what}", path.display())]
    Unusable {
        /// The configuration key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The key is of another certificate.
    #[error("http.tls.key: {}: is not the key of the certificate in {}", key.display(), cert.display())]
    Mismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's.
        cert: PathBuf,
    },
    /// The library refuses to serve.
    #[error("http.tls: {0}")]
    Library(rustls::Error),
}

/// Where the pair is.
#[derive(Debug, Clone)]
pub struct Files {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Files {
    /// `None` without TLS.
    pub fn from(config: &TlsConfig) -> Result<Option<Files>, TlsConfigFault> {
        let half = |missing| Err(TlsConfigFault::Half { missing });
        match (&config.cert, &config.key) {
            (None, None) => Ok(None),
            (Some(_), None) => half("http.tls.key"),
            (None, Some(_)) => half("http.tls.cert"),
            (Some(cert), Some(key)) => Ok(Some(Files {
                cert: cert.clone(),
                key: key.clone(),
            })),
        }
    }

    /// Reads both.
    pub fn load(&self, provider: &CryptoProvider) -> Result<CertifiedKey, TlsConfigFault> {
        let chain = certificates(&self.cert)?;
        let key = private_key(&self.key)?;
        CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => TlsConfigFault::Mismatch {
                key: self.key.clone(),
                cert: self.cert.clone(),
            },
            rustls::Error::InvalidCertificate(error) => unusable(
                CERT,
                &self.cert,
                format!("its first certificate cannot be read ({error:?})"),
            ),
            _ => unusable(
                KEY,
                &self.key,
                "is of a kind that is not supported: RSA of 2048 bits or more, ECDSA P-256 or P-384, Ed25519",
            ),
        })
    }

    /// By what it is told that a file has changed.
    pub fn stamp(&self) -> Stamp {
        [&self.cert, &self.key].map(|path| {
            let found = std::fs::metadata(path).ok()?;
            Some((found.modified().ok()?, found.len()))
        })
    }
}

/// When each file was written, and how long it is; `None` for one that is not there.
pub type Stamp = [Option<(SystemTime, u64)>; 2];

/// How a certificate stands in its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    Good,
    EndsSoon,
    Expired,
    NotYet,
}

fn unusable(key: &'static str, path: &Path, what: impl Into<String>) -> TlsConfigFault {
    TlsConfigFault::Unusable {
        key,
        path: path.to_owned(),
        what: what.into(),
    }
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, TlsConfigFault> {
    let mut bytes = Vec::new();
    // A pipe would hold up whoever reads it, for as long as nobody writes.
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(unusable(key, path, "is no regular file"));
    }
    let read = std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES + 1).read_to_end(&mut bytes));
    match read {
        Err(source) => Err(TlsConfigFault::Unreadable {
            key,
            path: path.to_owned(),
            source,
        }),
        Ok(_) if bytes.len() as u64 > FILE_BYTES => Err(unusable(key, path, "is larger than 1 MiB")),
        Ok(_) => Ok(bytes),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsConfigFault> {
    let bytes = read(CERT, path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err(unusable(
            CERT,
            path,
            "holds no certificate (-----BEGIN CERTIFICATE-----)",
        )),
        Ok(chain) => Ok(chain),
        Err(error) => Err(unusable(CERT, path, format!("is not whole PEM ({error})"))),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsConfigFault> {
    let bytes = read(KEY, path)?;
    let encrypted = b"-----BEGIN ENCRYPTED PRIVATE KEY-----";
    if bytes.windows(encrypted.len()).any(|window| window == encrypted) {
        return Err(unusable(KEY, path, "is encrypted: take its passphrase off"));
    }
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound => {
            unusable(KEY, path, "holds no private key (PEM of PKCS#8, PKCS#1 or SEC1)")
        }
        error => unusable(KEY, path, format!("is not whole PEM ({error})")),
    })
}

/// How the first certificate stands. It is checked against no root: its time is all that is asked.
pub fn validity(pair: &CertifiedKey, provider: &CryptoProvider, now: Timestamp) -> Validity {
    let at = |after: Duration| {
        let time = Duration::from_millis(now.0) + after;
        let end = pair.end_entity_cert().ok()?;
        let checked = verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end).ok()?,
            &RootCertStore::empty(),
            &[],
            UnixTime::since_unix_epoch(time),
            provider.signature_verification_algorithms.all,
        );
        match checked {
            Err(rustls::Error::InvalidCertificate(error)) => Some(error),
            _ => None,
        }
    };
    let is_over = |error| {
        matches!(
            error,
            Some(CertificateError::Expired | CertificateError::ExpiredContext { .. })
        )
    };
    match at(Duration::ZERO) {
        Some(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => Validity::NotYet,
        error if is_over(error.clone()) => Validity::Expired,
        _ if is_over(at(ENDS_SOON)) => Validity::EndsSoon,
        _ => Validity::Good,
    }
}
