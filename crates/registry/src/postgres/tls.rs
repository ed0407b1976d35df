//! TLS to the database: rustls with ring, and the server's certificate checked, its name included.

use super::address::Address;
use crate::registry::RegistryFault;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;
use tokio_postgres_rustls::MakeRustlsConnect;

/// What connects by TLS; `None` where the address has none.
pub(super) fn of(address: &Address) -> Result<Option<MakeRustlsConnect>, RegistryFault> {
    if !address.tls {
        return Ok(None);
    }
    let refused = |what: String| RegistryFault::Refused(what);
    let mut roots = RootCertStore::empty();
    let (good, _bad) = roots.add_parsable_certificates(trusted(address)?);
    if good == 0 {
        return Err(refused(
            "there is no certificate to check the database's against".into(),
        ));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| refused(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Some(MakeRustlsConnect::new(config)))
}

fn trusted(address: &Address) -> Result<Vec<CertificateDer<'static>>, RegistryFault> {
    let Some(path) = &address.ca else {
        return Ok(rustls_native_certs::load_native_certs().certs);
    };
    let read = || -> Result<Vec<_>, rustls::pki_types::pem::Error> {
        CertificateDer::pem_file_iter(path)?.collect()
    };
    read().map_err(|error| RegistryFault::Refused(format!("{}: {error}", path.display())))
}
