//! One connection: TCP, TLS where it is asked for, and the greeting that says who we are and what the server is.

use super::beside::first;
use super::fault::LinkFault;
use super::frame::{Frame, FrameFault};
use super::options::{LinkOptions, TlsOptions};
use super::url::{Address, Login};
use bytes::{Buf as _, BytesMut};
use redis::{Cmd, Value};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

/// For TCP alone: shorter than the kernel's first retransmission grows, so that a mended network is noticed soon.
const TCP_TIMEOUT: Duration = Duration::from_secs(1);
/// For all of it. A server that is paused takes the connection and answers the greeting when it goes on.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// While no greeting comes, another connection is tried beside those that wait for theirs.
const BESIDE: Duration = Duration::from_millis(400);
/// Oldest server with functions and sharded Pub/Sub.
const OLDEST_MAJOR: u32 = 7;
/// Room that one read may fill.
const READ_BYTES: usize = 64 << 10;
/// Longest name that we call ourselves.
const MAX_NAME_BYTES: usize = 64;

/// The bytes that go out.
pub type Writer = WriteHalf<Box<dyn DuplexStream>>;

/// What a connection runs over.
pub trait DuplexStream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> DuplexStream for T {}

/// How a connection is made, but for where to.
pub struct Dialer {
    login: Option<Login>,
    database: u16,
    name: String,
    tls: Option<TlsConnector>,
}

/// Which protocol a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speech {
    /// Commands: an answer to each, in order.
    Resp2,
    /// Pub/Sub: messages come between the answers.
    Resp3,
}

/// What a server said of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Greeting {
    /// Major and minor version.
    pub version: (u32, u32),
    /// `standalone`, `cluster` or `sentinel`.
    pub mode: String,
    /// `master` or `replica`; Sentinels say nothing.
    pub role: String,
}

/// A connection that was greeted.
pub struct Wire {
    pub replies: Replies,
    pub writer: Writer,
    pub greeting: Greeting,
}

/// The answers as they come in.
pub struct Replies {
    socket: ReadHalf<Box<dyn DuplexStream>>,
    buffer: BytesMut,
    frame: Frame,
}

impl Dialer {
    /// Reads the certificates; fails where they cannot be used.
    pub fn new(options: &LinkOptions) -> Result<Dialer, LinkFault> {
        let url = &options.url;
        Ok(Dialer {
            login: url.login().cloned(),
            database: url.database(),
            name: client_name(&options.node),
            tls: if url.is_tls() {
                Some(connector(&options.tls)?)
            } else {
                None
            },
        })
    }

    /// A connection to a server of the data.
    pub async fn dial(&self, to: &Address, speech: Speech) -> Result<Wire, LinkFault> {
        self.timed(to, || {
            self.greeted(to, speech, self.login.as_ref(), self.database)
        })
        .await
    }

    /// A connection to a Sentinel. It may know other users than the servers do, or none.
    pub async fn dial_sentinel(&self, to: &Address) -> Result<Wire, LinkFault> {
        match self
            .timed(to, || self.greeted(to, Speech::Resp2, self.login.as_ref(), 0))
            .await
        {
            Err(LinkFault::Refused { code, .. }) if self.login.is_some() && code == "WRONGPASS" => {
                self.timed(to, || self.greeted(to, Speech::Resp2, None, 0)).await
            }
            wire => wire,
        }
    }

    async fn timed<F>(&self, to: &Address, dial: impl FnMut() -> F) -> Result<Wire, LinkFault>
    where
        F: Future<Output = Result<Wire, LinkFault>>,
    {
        first(BESIDE, CONNECT_TIMEOUT, dial)
            .await
            .unwrap_or_else(|| Err(not_sent(format!("{to} does not answer"))))
    }

    async fn greeted(
        &self,
        to: &Address,
        speech: Speech,
        login: Option<&Login>,
        database: u16,
    ) -> Result<Wire, LinkFault> {
        let (read, writer) = tokio::io::split(self.socket(to).await?);
        let replies = Replies {
            socket: read,
            buffer: BytesMut::new(),
            frame: Frame::default(),
        };
        let mut wire = Wire {
            replies,
            writer,
            greeting: Greeting::default(),
        };
        let hello = wire.ask(&hello(speech, login, &self.name)).await?;
        wire.greeting = Greeting::read(&hello);
        if wire.greeting.version.0 < OLDEST_MAJOR {
            let (major, minor) = wire.greeting.version;
            let needs = format!("{to} has version {major}.{minor}; 7.0 or newer is needed");
            return Err(LinkFault::Unfit(needs));
        }
        if database > 0 {
            wire.ask(redis::cmd("SELECT").arg(database)).await?;
        }
        Ok(wire)
    }

    async fn socket(&self, to: &Address) -> Result<Box<dyn DuplexStream>, LinkFault> {
        let failed = |error: std::io::Error| not_sent(format!("{to}: {error}"));
        let connecting = TcpStream::connect((to.host.as_str(), to.port));
        let tcp = match timeout(TCP_TIMEOUT, connecting).await {
            Ok(tcp) => tcp.map_err(failed)?,
            Err(_) => return Err(not_sent(format!("{to} does not answer"))),
        };
        tcp.set_nodelay(true).map_err(failed)?;
        let Some(tls) = &self.tls else {
            return Ok(Box::new(tcp));
        };
        let name = ServerName::try_from(to.host.clone())
            .map_err(|_| LinkFault::Unfit(format!("{} cannot stand in a certificate", to.host)))?;
        Ok(Box::new(tls.connect(name, tcp).await.map_err(failed)?))
    }
}

impl Wire {
    /// One command and its answer, before anything else goes over the connection.
    async fn ask(&mut self, command: &Cmd) -> Result<Value, LinkFault> {
        let lost = |error: std::io::Error| not_sent(format!("the connection ended: {error}"));
        self.writer
            .write_all(&command.get_packed_command())
            .await
            .map_err(lost)?;
        loop {
            match self.replies.next().map_err(|fault| not_sent(fault.to_string()))? {
                Some(Value::ServerError(error)) => return Err(refused(&error)),
                Some(value) => return Ok(value),
                None if self.replies.fill().await.map_err(lost)? == 0 => {
                    return Err(not_sent("the server closed the connection"));
                }
                None => {}
            }
        }
    }
}

impl Replies {
    /// Reads what has come; 0 at the end. Cancel-safe.
    pub async fn fill(&mut self) -> std::io::Result<usize> {
        self.buffer.reserve(READ_BYTES);
        self.socket.read_buf(&mut self.buffer).await
    }

    /// The next whole answer among what was read.
    pub fn next(&mut self) -> Result<Option<Value>, FrameFault> {
        let Some((value, bytes)) = self.frame.take(&self.buffer)? else {
            return Ok(None);
        };
        self.buffer.advance(bytes);
        Ok(Some(value))
    }
}

impl Greeting {
    /// From the answer to `HELLO`: names and values, as a map or a flat list.
    fn read(hello: &Value) -> Greeting {
        let mut greeting = Greeting::default();
        let mut note = |name: &Value, value: &Value| match text(name).as_deref() {
            Some("version") => greeting.version = version(&text(value).unwrap_or_default()),
            Some("mode") => greeting.mode = text(value).unwrap_or_default(),
            Some("role") => greeting.role = text(value).unwrap_or_default(),
            _ => {}
        };
        match hello {
            Value::Map(pairs) => pairs.iter().for_each(|(name, value)| note(name, value)),
            Value::Array(items) => {
                items.chunks_exact(2).for_each(|pair| note(&pair[0], &pair[1]));
            }
            _ => {}
        }
        greeting
    }
}

/// What a server says against a command.
pub fn refused(error: &redis::ServerError) -> LinkFault {
    LinkFault::Refused {
        code: error.code().to_owned(),
        detail: error.details().unwrap_or_default().to_owned(),
    }
}

/// A text, whatever kind of string it came as.
pub fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text.clone()),
        Value::Okay => Some("OK".to_owned()),
        _ => None,
    }
}

pub fn not_sent(why: impl Into<Cow<'static, str>>) -> LinkFault {
    LinkFault::NotSent(why.into())
}

fn hello(speech: Speech, login: Option<&Login>, name: &str) -> Cmd {
    let mut hello = redis::cmd("HELLO");
    hello.arg(if speech == Speech::Resp3 { 3 } else { 2 });
    if let Some(login) = login {
        hello.arg("AUTH").arg(&login.user).arg(&login.password);
    }
    hello.arg("SETNAME").arg(name);
    hello
}

fn version(text: &str) -> (u32, u32) {
    let mut parts = text.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// A name for `CLIENT LIST`, which takes no spaces.
fn client_name(node: &str) -> String {
    let is_kept = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let node: String = node.chars().filter(is_kept).take(MAX_NAME_BYTES).collect();
    format!("postrider-{node}")
}

fn connector(options: &TlsOptions) -> Result<TlsConnector, LinkFault> {
    let unfit = |what: &str, error: &dyn std::fmt::Display| LinkFault::Unfit(format!("{what}: {error}"));
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| unfit("TLS", &error))?
        .with_root_certificates(authorities(options)?);
    let config = match &options.identity {
        None => config.with_no_client_auth(),
        Some(identity) => {
            let chain = certificates(&identity.certificates)?;
            let key = PrivateKeyDer::from_pem_slice(&identity.key)
                .map_err(|error| unfit("the private key", &error))?;
            config
                .with_client_auth_cert(chain, key)
                .map_err(|error| unfit("the certificate", &error))?
        }
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

fn authorities(options: &TlsOptions) -> Result<RootCertStore, LinkFault> {
    let mut roots = RootCertStore::empty();
    let found = match &options.authorities {
        Some(pem) => certificates(pem)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    // A system's store may hold some that cannot be used; what counts is that there are others.
    roots.add_parsable_certificates(found);
    if roots.is_empty() {
        return Err(LinkFault::Unfit(
            "no certificate of an authority was found".to_owned(),
        ));
    }
    Ok(roots)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, LinkFault> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| LinkFault::Unfit(format!("a certificate: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_is_read_from_both_protocols() {
        let pair =
            |name: &str, value: &str| (Value::BulkString(name.into()), Value::BulkString(value.into()));
        let pairs = vec![
            pair("server", "redis"),
            pair("version", "7.2.4"),
            pair("mode", "cluster"),
            pair("role", "master"),
        ];
        let flat = pairs
            .iter()
            .flat_map(|(name, value)| [name.clone(), value.clone()])
            .collect();
        let greeting = Greeting {
            version: (7, 2),
            mode: "cluster".into(),
            role: "master".into(),
        };
        assert_eq!(Greeting::read(&Value::Array(flat)), greeting);
        assert_eq!(Greeting::read(&Value::Map(pairs)), greeting);
        assert_eq!(Greeting::read(&Value::Okay), Greeting::default());
    }

    #[test]
    fn a_name_is_fit_for_the_list_of_clients() {
        assert_eq!(client_name("eu-1 \n{x}"), "postrider-eu-1x");
        assert_eq!(client_name(&"a".repeat(500)).len(), MAX_NAME_BYTES + 10);
    }
}
