//! Where Redis is, as one text: `redis://`, `rediss://`, `redis+sentinel://`, `redis+cluster://`.
//!
//! Invariant: an address that was parsed can be connected to, as far as a text can tell. It is never shown: it may hold a
//! password.

use std::fmt;

/// The port where none is given.
const PORT: u16 = 6379;
/// The port of a Sentinel where none is given.
const SENTINEL_PORT: u16 = 26379;
/// Hosts of one address.
const MOST_HOSTS: usize = 32;

/// How the server that has a key is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shape {
    /// It is the one.
    Single,
    /// The hosts are Sentinels, which know the master of this name.
    Sentinel(String),
    /// The hosts are some of a Cluster.
    Cluster,
}

/// Where Redis is, and as whom it is spoken to.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisAddress {
    pub(super) shape: Shape,
    pub(super) hosts: Vec<(String, u16)>,
    pub(super) is_tls: bool,
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
    pub(super) db: i64,
}

impl fmt::Debug for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisAddress({:?}, {:?})", self.shape, self.hosts)
    }
}

impl RedisAddress {
    /// Reads `scheme://[[user]:password@]host[:port][,host[:port]…][/db]`; with `redis+sentinel` the path is
    /// `/master[/db]`. `rediss` in place of `redis` is the same over TLS.
    ///
    /// # Errors
    /// What is wrong, without repeating any of it.
    pub fn parse(text: &str) -> Result<RedisAddress, &'static str> {
        const SCHEMES: &str = "must begin with redis://, rediss://, redis+sentinel:// or redis+cluster://";
        let (scheme, rest) = text.split_once("://").ok_or(SCHEMES)?;
        let is_tls = scheme == "rediss" || scheme.starts_with("rediss+");
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) = match authority.rsplit_once('@') {
            Some((login, hosts)) => (Some(login), hosts),
            None => (None, authority),
        };
        let (shape, db) = match scheme {
            "redis" | "rediss" => (Shape::Single, path),
            "redis+cluster" | "rediss+cluster" => (Shape::Cluster, path),
            "redis+sentinel" | "rediss+sentinel" => {
                let (master, db) = path.split_once('/').unwrap_or((path, ""));
                if master.is_empty() {
                    return Err("names no master: write redis+sentinel://host:port/master");
                }
                (Shape::Sentinel(master.to_owned()), db)
            }
            _ => return Err(SCHEMES),
        };
        let port = if matches!(shape, Shape::Sentinel(_)) {
            SENTINEL_PORT
        } else {
            PORT
        };
        let hosts = hosts
            .split(',')
            .map(|one| host(one, port))
            .collect::<Result<Vec<_>, _>>()?;
        if hosts.len() > MOST_HOSTS || (shape == Shape::Single && hosts.len() > 1) {
            return Err("names too many hosts");
        }
        let db = match db {
            "" => 0,
            db => db
                .parse::<u16>()
                .map_err(|_| "has a path that is no number of a database")?,
        };
        if db != 0 && shape == Shape::Cluster {
            return Err("names a database, and a Cluster has but one");
        }
        let (username, password) = login.map_or(Ok((None, None)), credentials)?;
        let db = i64::from(db);
        Ok(RedisAddress {
            shape,
            hosts,
            is_tls,
            username,
            password,
            db,
        })
    }

    /// Whether it is a Cluster.
    pub fn is_cluster(&self) -> bool {
        self.shape == Shape::Cluster
    }
}

fn host(text: &str, port: u16) -> Result<(String, u16), &'static str> {
    const PORTS: &str = "has a port that is no number from 1 to 65535";
    let (name, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, "")) => (name, port),
        Some((name, rest)) => (
            name,
            rest.strip_prefix(':')
                .and_then(|port| port.parse().ok())
                .ok_or(PORTS)?,
        ),
        None => match text.split_once(':') {
            Some((name, port)) => (name, port.parse().map_err(|_| PORTS)?),
            None => (text, port),
        },
    };
    if name.is_empty() || port == 0 {
        return Err("has an empty host, or port 0");
    }
    Ok((name.to_owned(), port))
}

type Login = (Option<String>, Option<String>);

fn credentials(login: &str) -> Result<Login, &'static str> {
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let given = |text: &str| -> Result<Option<String>, &'static str> {
        let text = unescaped(text).ok_or("has a user or password with a wrong % escape")?;
        Ok(Some(text).filter(|text| !text.is_empty()))
    };
    Ok((given(user)?, given(password)?))
}

/// RFC 3986, 2.1.
fn unescaped(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            out.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            out.push(*first);
            rest = after;
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let address = RedisAddress::parse("redis://localhost").unwrap();
        assert_eq!(address.hosts, [("localhost".to_owned(), 6379)]);
        assert_eq!(
            (address.shape, address.is_tls, address.db),
            (Shape::Single, false, 0)
        );
        let address = RedisAddress::parse("rediss://ada:p%40ss@[::1]:7000/3").unwrap();
        assert_eq!(address.hosts, [("::1".to_owned(), 7000)]);
        assert_eq!(
            (address.username.as_deref(), address.password.as_deref()),
            (Some("ada"), Some("p@ss"))
        );
        assert_eq!((address.is_tls, address.db), (true, 3));
        let address = RedisAddress::parse("redis+sentinel://:pw@a,b:1/main/2").unwrap();
        assert_eq!(address.hosts, [("a".to_owned(), 26379), ("b".to_owned(), 1)]);
        assert_eq!(
            (address.shape.clone(), address.db),
            (Shape::Sentinel("main".into()), 2)
        );
        assert!(!format!("{address:?}").contains("pw"));
        let address = RedisAddress::parse("rediss+cluster://a:1,b:2").unwrap();
        assert!(address.is_cluster() && address.is_tls);
    }

    #[test]
    fn what_is_no_address() {
        for text in [
            "localhost",
            "http://a",
            "redis://",
            "redis://a:x",
            "redis://a:0",
            "redis://a,b",
            "redis://a/x",
            "redis+sentinel://a",
            "redis+cluster://a/1",
            "redis://:%zz@a",
            "redis://[::1",
            "redis://[::1]x",
        ] {
            assert!(RedisAddress::parse(text).is_err(), "{text}");
        }
    }
}
