//! Fetches small things over HTTP, by a blocking client: to be called on a thread for that.
//!
//! The certificates trusted are the system's, so that a server inside a company with a root of its own works by
//! `SSL_CERT_FILE` or the system's store; where a system has none (a container from scratch), Mozilla's, which are
//! compiled in. Proxies are taken from the environment (`HTTPS_PROXY`, `NO_PROXY`).
//!
//! Invariant: an answer is as small and as fast as the caller asked for, and comes from the place that was named: redirects
//! are refused.

use std::sync::Arc;
use std::time::Duration;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// What is fetched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct What {
    /// The header `Accept`.
    pub accept: &'static str,
    /// A longer answer is refused.
    pub most: u64,
    /// For everything together: name, connection, answer.
    pub within: Duration,
}

/// Why nothing was fetched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchFault {
    /// No answer, or none that could be read.
    #[error("{0}")]
    Http(#[from] Box<ureq::Error>),
    /// An answer of another kind.
    #[error("it answered {0}{hint}", hint = if (300..400).contains(.0) { ": redirects are not followed, so name the last place" } else { "" })]
    Status(u16),
}

/// Fetches what is there now.
pub(crate) fn get(url: &str, what: &What) -> Result<Vec<u8>, FetchFault> {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(what.within))
        .max_redirects(0)
        .http_status_as_error(false)
        .user_agent(concat!("postrider/", env!("CARGO_PKG_VERSION")))
        .tls_config(TlsConfig::builder().root_certs(roots(url)).build())
        .build();
    let asked = ureq::Agent::new_with_config(config)
        .get(url)
        .header("Accept", what.accept)
        .call();
    let mut answer = asked.map_err(Box::new)?;
    if answer.status() != 200 {
        return Err(FetchFault::Status(answer.status().as_u16()));
    }
    let body = answer.body_mut().with_config().limit(what.most).read_to_vec();
    Ok(body.map_err(Box::new)?)
}

/// Read anew for each fetch, so that a new root needs no restart.
fn roots(url: &str) -> RootCerts {
    if !url.starts_with("https:") {
        return RootCerts::WebPki;
    }
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!(%error, "a trusted certificate could not be read");
    }
    if found.certs.is_empty() {
        return RootCerts::WebPki;
    }
    let certificates = found
        .certs
        .iter()
        .map(|der| Certificate::from_der(der).to_owned());
    RootCerts::Specific(Arc::new(certificates.collect()))
}
