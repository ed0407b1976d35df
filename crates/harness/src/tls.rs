//! TLS for the harness's clients, and certificates of the test's own.
//!
//! Invariant: a client trusts its [`Authority`] and nobody else, so that a session that works shows that the right
//! certificate was served.
//!
//! It does not choose how a node ends a connection: whether there was a goodbye shows in how reading ends.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::node::{Node, NodeOptions};

/// The name in every certificate, beside 127.0.0.1.
pub const NAME: &str = "localhost";

/// Who signs certificates, and the files of the one that it signed last.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    root_pem: String,
    dir: tempfile::TempDir,
}

impl Authority {
    /// A new one that has issued a certificate.
    pub fn new() -> Result<Authority> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        let authority = Authority {
            root: certificate.der().clone(),
            root_pem: certificate.pem(),
            issuer: Issuer::new(params, key),
            dir: tempfile::Builder::new().prefix("postrider-tls-").tempdir()?,
        };
        authority.issue()?;
        Ok(authority)
    }

    /// Puts a new certificate and key in the place of the old, and returns the certificate.
    pub fn issue(&self) -> Result<CertificateDer<'static>> {
        let key = KeyPair::generate()?;
        let params = CertificateParams::new(vec![NAME.to_owned(), "127.0.0.1".to_owned()])?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        std::fs::write(self.cert(), certificate.pem())?;
        std::fs::write(self.key(), key.serialize_pem())?;
        Ok(certificate.der().clone())
    }

    /// The file of the certificate.
    pub fn cert(&self) -> PathBuf {
        self.dir.path().join("cert.pem")
    }

    /// The file of its key.
    pub fn key(&self) -> PathBuf {
        self.dir.path().join("key.pem")
    }

    /// Writes the authority's own certificate to a file, for a client that is another program.
    pub fn root_file(&self) -> Result<PathBuf> {
        let path = self.dir.path().join("root.pem");
        std::fs::write(&path, &self.root_pem)?;
        Ok(path)
    }

    /// A client that trusts this authority and offers these protocols.
    pub fn client(&self, alpn: &[&str]) -> Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone())?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(Arc::new(config))
    }

    /// Starts a node with the certificate; whoever has its endpoint speaks HTTP/1.1 over TLS with it.
    pub fn start(&self, sets: &[(&str, &str)]) -> Result<Node> {
        let (cert, key) = (
            self.cert().display().to_string(),
            self.key().display().to_string(),
        );
        let own = [("http.tls.cert", cert.as_str()), ("http.tls.key", key.as_str())];
        let node = Node::start_with(NodeOptions::sets(&[sets, &own].concat()))?;
        node.endpoint.speak_tls(self.client(&["http/1.1"])?);
        Ok(node)
    }
}

/// A connection's bytes, with TLS or without.
pub enum Stream {
    /// As they are.
    Plain(TcpStream),
    /// Through TLS.
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    /// A client on a connected socket. The handshake is made with the first write.
    pub fn new(socket: TcpStream, tls: Option<Arc<ClientConfig>>) -> Result<Stream> {
        let Some(config) = tls else {
            return Ok(Stream::Plain(socket));
        };
        let session = ClientConnection::new(config, ServerName::try_from(NAME)?)?;
        Ok(Stream::Tls(Box::new(StreamOwned::new(session, socket))))
    }

    /// The socket under it.
    pub fn socket(&self) -> &TcpStream {
        match self {
            Stream::Plain(socket) => socket,
            Stream::Tls(stream) => &stream.sock,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.read(buffer),
            Stream::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.write(bytes),
            Stream::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(socket) => socket.flush(),
            Stream::Tls(stream) => stream.flush(),
        }
    }
}
