//! The connection to the database, and what its errors mean.
//!
//! Invariant: a session has no task of its own: it is driven while a statement is waited for, and is closed when it is
//! dropped.

use super::address::Address;
use super::{ANSWER, CONNECT, STATEMENT, Value, tls};
use crate::registry::RegistryFault;
use std::error::Error as _;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, Error, NoTls, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

/// A connection at rest is asked by the system whether it still stands after this.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// A text for the operator has at most so many characters.
const MOST_CHARS: usize = 400;

/// What moves the bytes of a connection; it ends with it.
type Driver = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// Makes connections.
pub(super) struct Link {
    config: Config,
    tls: Option<MakeRustlsConnect>,
}

impl Link {
    pub fn new(address: &Address) -> Result<Link, RegistryFault> {
        let mut config = Config::new();
        config
            .host(&address.host)
            .port(address.port)
            .user(&address.user)
            .dbname(&address.database)
            .application_name("postrider")
            .connect_timeout(CONNECT)
            .keepalives_idle(KEEPALIVE)
            .ssl_mode(if address.tls {
                SslMode::Require
            } else {
                SslMode::Disable
            });
        if let Some(password) = &address.password {
            config.password(password);
        }
        Ok(Link {
            config,
            tls: tls::of(address)?,
        })
    }

    /// A connection that gives up what takes too long.
    pub async fn connect(&self) -> Result<Session, RegistryFault> {
        let made = tokio::time::timeout(ANSWER, self.made()).await;
        let late = || RegistryFault::Away("the database does not answer".into());
        let mut session = made.map_err(|_| late())?.map_err(|error| fault(&error))?;
        let limit = format!("SET statement_timeout = {}", STATEMENT.as_millis());
        session.query(&limit, &[]).await?;
        Ok(session)
    }

    async fn made(&self) -> Result<Session, Error> {
        Ok(match &self.tls {
            None => {
                let (client, connection) = self.config.connect(NoTls).await?;
                Session::new(client, Box::pin(connection))
            }
            Some(tls) => {
                let (client, connection) = self.config.connect(tls.clone()).await?;
                Session::new(client, Box::pin(connection))
            }
        })
    }
}

/// A connection.
pub(super) struct Session {
    client: Client,
    driver: Driver,
}

impl Session {
    fn new(client: Client, driver: Driver) -> Session {
        Session { client, driver }
    }

    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Runs one statement. After [`RegistryFault::Away`] the session is of no use.
    pub async fn query(&mut self, statement: &str, values: &[Value<'_>]) -> Result<Vec<Row>, RegistryFault> {
        let gone = || RegistryFault::Away("the connection to the database is gone".into());
        let Session { client, driver } = self;
        let answer = tokio::time::timeout(ANSWER, async {
            tokio::select! {
                biased;
                ended = driver => match ended {
                    Ok(()) => Err(gone()),
                    Err(error) => Err(RegistryFault::Away(reasons(&error))),
                },
                answer = client.query_typed(statement, values) => answer.map_err(|error| fault(&error)),
            }
        });
        let late = || RegistryFault::Away("the database does not answer".into());
        answer.await.map_err(|_| late())?
    }
}

/// What an error means (classes of SQLSTATE: PostgreSQL's manual, appendix A).
fn fault(error: &Error) -> RegistryFault {
    let text = reasons(error);
    match error.code().map(|state| &state.code()[..2]) {
        // No answer of the database: the connection, TLS, or the name of the host.
        None => RegistryFault::Away(text),
        // Data that a column cannot hold, or a constraint does not let in.
        Some("22" | "23") => RegistryFault::Unfit(text),
        // Broken connections; deadlocks; too few resources; locks; shutdowns and time limits; the system's own.
        Some("08" | "40" | "53" | "55" | "57" | "58") => RegistryFault::Away(text),
        Some(_) => RegistryFault::Refused(text),
    }
}

/// An error and what caused it, in one line.
fn reasons(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    one_line.chars().take(MOST_CHARS).collect()
}
