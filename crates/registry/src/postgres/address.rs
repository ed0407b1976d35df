//! Where the database is.

use std::fmt;
use std::path::PathBuf;

/// Where the database is and who asks it. Its `Debug` has no password.
#[derive(Clone)]
pub struct Address {
    /// A name or an address.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// Who.
    pub user: String,
    /// Its password; unset: none.
    pub password: Option<String>,
    /// The database.
    pub database: String,
    /// Whether TLS is spoken; then never without.
    pub tls: bool,
    /// With TLS, the file of the certificates that the server's is checked against; unset: those that the system trusts.
    pub ca: Option<PathBuf>,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tls = if self.tls { " with TLS" } else { "" };
        let (host, port, user, database) = (&self.host, self.port, &self.user, &self.database);
        write!(f, "{user}@{host}:{port}/{database}{tls}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_shows_no_password() {
        let address = Address {
            host: "db".into(),
            port: 5432,
            user: "me".into(),
            password: Some("hush".into()),
            database: "d".into(),
            tls: true,
            ca: None,
        };
        assert_eq!(format!("{address:?}"), "me@db:5432/d with TLS");
    }
}
