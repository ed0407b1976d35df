//! How the links are opened.

use super::url::RedisUrl;
use std::fmt;
use std::time::Duration;

/// How long a call may take from asking to answer, unless said otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where Redis is, who asks, and how long an answer is waited for.
#[derive(Debug, Clone)]
pub struct LinkOptions {
    /// Where it is.
    pub url: RedisUrl,
    /// This node's name, as `CLIENT LIST` shows it. Letters, digits, `-`, `_` and `.` are kept of it.
    pub node: String,
    /// From asking to answer, reconnecting and asking again included.
    pub timeout: Duration,
    /// Whose word on a server's certificate counts, where the URL says TLS.
    pub tls: TlsOptions,
}

/// Certificates for connections over TLS. Default: those the system trusts, and none of our own.
#[derive(Clone, Default)]
pub struct TlsOptions {
    /// Certificates of authorities, PEM; `None`: those that the system trusts.
    pub authorities: Option<Vec<u8>>,
    /// Our own certificate chain and key, PEM, for servers with `tls-auth-clients yes`.
    pub identity: Option<TlsIdentity>,
}

/// A certificate chain and its private key.
#[derive(Clone)]
pub struct TlsIdentity {
    /// The chain, PEM, our own certificate first.
    pub certificates: Vec<u8>,
    /// The key, PEM.
    pub key: Vec<u8>,
}

impl LinkOptions {
    /// For this address, with what is usual for the rest.
    pub fn new(url: RedisUrl, node: impl Into<String>) -> LinkOptions {
        LinkOptions {
            url,
            node: node.into(),
            timeout: DEFAULT_TIMEOUT,
            tls: TlsOptions::default(),
        }
    }
}

impl fmt::Debug for TlsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsOptions")
            .field("own_authorities", &self.authorities.is_some())
            .field("identity", &self.identity.is_some())
            .finish()
    }
}
