//! TLS of the public listener: the certificate and its key, read, checked, and read again when they change.
//!
//! Invariant: what is in force is a pair that belongs together. A pair that cannot be read, or does not, is said
//! once and changes nothing; connections that are open keep the pair they began with.
//!
//! It does not get certificates (ACME) and asks clients for none.

mod files;

use crate::config::{Config, TlsConfig};
use crate::drain::Drain;
use crate::reload::{Apply, Reload};
use crate::tasks::Tasks;
pub use files::TlsConfigFault;
use files::{Files, Stamp, Validity, validity};
use postrider_model::Timestamp;
use postrider_transports::tls::{ALPN_HTTP1, ALPN_HTTP2};
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

/// How often the files are looked at, whether they changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// The pair in force.
#[derive(Debug)]
pub struct Certificates {
    provider: Arc<CryptoProvider>,
    current: RwLock<Arc<CertifiedKey>>,
    watched: Mutex<Watched>,
}

#[derive(Debug)]
struct Watched {
    files: Files,
    /// As they were when they were last read, for good or ill.
    stamp: Stamp,
    /// What was last said of the certificate's time.
    said: Validity,
}

impl Certificates {
    /// Reads the pair that the configuration names; `None` without TLS.
    ///
    /// # Errors
    /// Where there is a half of it, or a bad one.
    pub fn open(config: &TlsConfig, now: Timestamp) -> Result<Option<Arc<Certificates>>, TlsConfigFault> {
        let Some(files) = Files::from(config)? else {
            return Ok(None);
        };
        let provider = Arc::new(ring::default_provider());
        let stamp = files.stamp();
        let pair = files.load(&provider)?;
        let said = validity(&pair, &provider, now);
        say(said, &files);
        Ok(Some(Arc::new(Certificates {
            provider,
            current: RwLock::new(Arc::new(pair)),
            watched: Mutex::new(Watched { files, stamp, said }),
        })))
    }

    /// What connections begin with: TLS 1.2 and 1.3, HTTP/2 (if it is wanted) before HTTP/1.1, resumption by
    /// tickets, no early data.
    ///
    /// # Errors
    /// Where the library refuses.
    pub fn server_config(self: &Arc<Self>, http2: bool) -> Result<Arc<ServerConfig>, TlsConfigFault> {
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(TlsConfigFault::Library)?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        let protocols = http2.then_some(ALPN_HTTP2).into_iter().chain([ALPN_HTTP1]);
        config.alpn_protocols = protocols.map(<[u8]>::to_vec).collect();
        // A ticket holds all that resumption needs; the node keeps nothing.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = ring::Ticketer::new().map_err(TlsConfigFault::Library)?;
        config.max_early_data_size = 0;
        Ok(Arc::new(config))
    }

    /// Takes part in reloads: on SIGHUP the files are read whether they seem to have changed or not.
    pub fn register(self: &Arc<Self>, reload: &Reload) {
        let certificates = self.clone();
        reload.register(&["http.tls"], move |config| certificates.prepare(config));
    }

    fn prepare(self: &Arc<Self>, config: &Config) -> Result<Apply, String> {
        let files = Files::from(&config.http.tls).map_err(|fault| fault.to_string())?;
        let Some(files) = files else {
            return Err("http.tls.cert: TLS cannot be turned off in a running node; restart it".into());
        };
        let stamp = files.stamp();
        let pair = files.load(&self.provider).map_err(|fault| fault.to_string())?;
        let certificates = self.clone();
        Ok(Box::new(move || {
            let mut watched = certificates.lock();
            watched.files = files;
            certificates.take(&mut watched, stamp, pair, crate::now());
        }))
    }

    /// Looks at the files from time to time, until the node drains.
    pub fn watch(self: &Arc<Self>, tasks: &Tasks, drain: Drain) {
        let certificates = self.clone();
        tasks.spawn("certificate files", async move {
            while tokio::time::timeout(LOOK_INTERVAL, drain.begun()).await.is_err() {
                certificates.look(crate::now());
            }
        });
    }

    /// Reads the files again if they changed since they were last read.
    fn look(&self, now: Timestamp) {
        let mut watched = self.lock();
        let stamp = watched.files.stamp();
        if stamp == watched.stamp {
            let current = self.current();
            let validity = validity(&current, &self.provider, now);
            if std::mem::replace(&mut watched.said, validity) != validity {
                say(validity, &watched.files);
            }
            return;
        }
        match watched.files.load(&self.provider) {
            Ok(pair) => self.take(&mut watched, stamp, pair, now),
            Err(fault) => {
                // Said once: not again before a file changes.
                watched.stamp = stamp;
                tracing::error!("the certificate in force is kept: {fault}");
            }
        }
    }

    fn take(&self, watched: &mut Watched, stamp: Stamp, pair: CertifiedKey, now: Timestamp) {
        watched.stamp = stamp;
        watched.said = validity(&pair, &self.provider, now);
        say(watched.said, &watched.files);
        let path = watched.files.cert.display().to_string();
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(pair);
        tracing::info!(path, "a certificate was read again; new connections use it");
    }

    fn current(&self) -> Arc<CertifiedKey> {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

/// What deserves a word about the certificate with which a node of this configuration would begin.
///
/// # Errors
/// Where it would not begin at all.
pub fn check(config: &Config) -> Result<Option<String>, TlsConfigFault> {
    let Some(files) = Files::from(&config.http.tls)? else {
        return Ok(None);
    };
    let provider = ring::default_provider();
    let pair = files.load(&provider)?;
    Ok(word(validity(&pair, &provider, crate::now()), &files))
}

fn say(validity: Validity, files: &Files) {
    if let Some(word) = word(validity, files) {
        tracing::warn!("{word}");
    }
}

fn word(validity: Validity, files: &Files) -> Option<String> {
    let what = match validity {
        Validity::Good => return None,
        Validity::EndsSoon => "expires within seven days",
        Validity::Expired => "has expired: clients will refuse it",
        Validity::NotYet => "is not valid yet: clients will refuse it",
    };
    Some(format!(
        "http.tls.cert: {}: the certificate {what}",
        files.cert.display()
    ))
}

#[cfg(test)]
mod tests;
