//! Where Redis is, as an operator writes it. Pure: nothing is resolved or connected here.
//!
//! ```text
//! redis://[user:password@]host[:port][/database]
//! redis+sentinel://[user:password@]host[:port],host[:port]…/service[/database]
//! redis+cluster://[user:password@]host[:port],host[:port]…
//! ```
//!
//! `rediss` in place of `redis` is the same over TLS. Invariant: neither a fault nor a printed address shows a password.

use std::fmt;
use std::str::FromStr;

/// Port of a server that names none.
const SERVER_PORT: u16 = 6379;
/// Port of a Sentinel that names none.
const SENTINEL_PORT: u16 = 26_379;
/// Most hosts that one address names.
const MAX_HOSTS: usize = 64;

/// Where Redis is and who asks it.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    tls: bool,
    kind: RedisKind,
    hosts: Vec<Address>,
    login: Option<Login>,
    database: u16,
}

/// What stands behind an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisKind {
    /// One server.
    Single,
    /// A master that Sentinels know under this name.
    Sentinel {
        /// The master's name.
        service: String,
    },
    /// A Cluster; the hosts are those to ask first.
    Cluster,
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// A name or an IP address, without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

/// Whom a connection says it is.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The ACL user; `default` where none is named.
    pub(crate) user: String,
    pub(crate) password: String,
}

/// What is wrong with an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlFault {
    /// Another beginning than those that are known.
    #[error("must begin with redis://, rediss://, redis+sentinel:// or redis+cluster://")]
    Scheme,
    /// A user without a password, or several `@`.
    #[error(
        "what stands before the host must be `user:password@` or `:password@`, with @, : and / in it written %40, %3A, %2F"
    )]
    Login,
    /// A `%` that is not followed by two hexadecimal digits, or what is no UTF-8.
    #[error(
        "a % in the user, password or service must be followed by two hexadecimal digits, and give UTF-8"
    )]
    Escape,
    /// No host, or one that cannot be a name.
    #[error("the host at place {0} is empty or not a name or address")]
    Host(usize),
    /// Not a port.
    #[error("the port at place {0} must be a number from 1 to 65535")]
    Port(usize),
    /// Several hosts for one server.
    #[error("one server has one host; several need redis+sentinel:// or redis+cluster://")]
    SeveralHosts,
    /// More hosts than are taken.
    #[error("at most {MAX_HOSTS} hosts")]
    TooManyHosts,
    /// No service behind the Sentinels.
    #[error(
        "redis+sentinel:// needs the master's name after the hosts, as in redis+sentinel://host:26379/mymaster"
    )]
    NoService,
    /// Not a database.
    #[error("the database must be a number from 0 to 65535")]
    Database,
    /// A database of a Cluster.
    #[error("a Cluster has one database; nothing may follow its hosts")]
    ClusterDatabase,
    /// A query, a fragment, or more path than there is meaning for.
    #[error("nothing may follow the database: no query, no fragment")]
    Rest,
}

impl RedisUrl {
    /// What stands behind it.
    pub fn kind(&self) -> &RedisKind {
        &self.kind
    }

    /// True for a Cluster.
    pub fn is_cluster(&self) -> bool {
        self.kind == RedisKind::Cluster
    }

    /// Whether it is asked over TLS.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// The hosts it names, in order: the server, the Sentinels, or the first nodes of a Cluster.
    pub fn hosts(&self) -> &[Address] {
        &self.hosts
    }

    /// The database; 0 unless said.
    pub fn database(&self) -> u16 {
        self.database
    }

    pub(crate) fn login(&self) -> Option<&Login> {
        self.login.as_ref()
    }
}

impl FromStr for RedisUrl {
    type Err = UrlFault;

    fn from_str(text: &str) -> Result<RedisUrl, UrlFault> {
        let (scheme, rest) = text.split_once("://").ok_or(UrlFault::Scheme)?;
        let (tls, family) = match scheme.strip_prefix("redis") {
            Some(rest) => match rest.strip_prefix('s') {
                // `redis+sentinel` has no `s` straight after `redis`, so this is the TLS one.
                Some(rest) => (true, rest),
                None => (false, rest),
            },
            None => return Err(UrlFault::Scheme),
        };
        if rest.contains(['?', '#']) {
            return Err(UrlFault::Rest);
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) = login(authority)?;
        let port = if family == "+sentinel" {
            SENTINEL_PORT
        } else {
            SERVER_PORT
        };
        let hosts = addresses(hosts, port)?;
        let (kind, database) = match family {
            "" if hosts.len() > 1 => return Err(UrlFault::SeveralHosts),
            "" => (RedisKind::Single, database(path)?),
            "+sentinel" => {
                let (service, path) = path.split_once('/').unwrap_or((path, ""));
                let service = unescaped(service)?;
                if service.is_empty() {
                    return Err(UrlFault::NoService);
                }
                (RedisKind::Sentinel { service }, database(path)?)
            }
            "+cluster" if path.is_empty() => (RedisKind::Cluster, 0),
            "+cluster" => return Err(UrlFault::ClusterDatabase),
            _ => return Err(UrlFault::Scheme),
        };
        Ok(RedisUrl {
            tls,
            kind,
            hosts,
            login,
            database,
        })
    }
}

fn login(authority: &str) -> Result<(Option<Login>, &str), UrlFault> {
    let Some((login, hosts)) = authority.rsplit_once('@') else {
        return Ok((None, authority));
    };
    let (user, password) = login.split_once(':').ok_or(UrlFault::Login)?;
    if login.contains('@') || password.contains(':') || password.is_empty() {
        return Err(UrlFault::Login);
    }
    let user = if user.is_empty() {
        "default".to_owned()
    } else {
        unescaped(user)?
    };
    Ok((
        Some(Login {
            user,
            password: unescaped(password)?,
        }),
        hosts,
    ))
}

fn addresses(hosts: &str, port: u16) -> Result<Vec<Address>, UrlFault> {
    if hosts.split(',').count() > MAX_HOSTS {
        return Err(UrlFault::TooManyHosts);
    }
    hosts
        .split(',')
        .enumerate()
        .map(|(at, host)| address(host, port, at + 1))
        .collect()
}

/// One host of a list; `place` counts from 1, for the fault.
fn address(text: &str, default_port: u16, place: usize) -> Result<Address, UrlFault> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or(UrlFault::Host(place))?;
            host.parse::<std::net::Ipv6Addr>()
                .map_err(|_| UrlFault::Host(place))?;
            match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if after.is_empty() => (host, None),
                None => return Err(UrlFault::Host(place)),
            }
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if host.is_empty() || !host.chars().all(is_name) {
        return Err(UrlFault::Host(place));
    }
    let port = match port {
        None => default_port,
        Some(port) => number(port)
            .filter(|port| *port > 0)
            .ok_or(UrlFault::Port(place))?,
    };
    Ok(Address {
        host: host.to_owned(),
        port,
    })
}

fn database(path: &str) -> Result<u16, UrlFault> {
    match path {
        "" => Ok(0),
        path if path.contains('/') => Err(UrlFault::Rest),
        path => number(path).ok_or(UrlFault::Database),
    }
}

/// Digits and nothing else: `parse` alone would take a `+`.
fn number(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

fn unescaped(text: &str) -> Result<String, UrlFault> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2).ok_or(UrlFault::Escape)?;
        let digit = |digit: u8| char::from(digit).to_digit(16).ok_or(UrlFault::Escape);
        let value = digit(digits[0])? * 16 + digit(digits[1])?;
        bytes.push(u8::try_from(value).map_err(|_| UrlFault::Escape)?);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| UrlFault::Escape)
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.kind {
            RedisKind::Single => "",
            RedisKind::Sentinel { .. } => "+sentinel",
            RedisKind::Cluster => "+cluster",
        };
        write!(f, "redis{}{family}://", if self.tls { "s" } else { "" })?;
        if let Some(login) = &self.login {
            write!(f, "{}:***@", login.user)?;
        }
        for (at, host) in self.hosts.iter().enumerate() {
            write!(f, "{}{host}", if at == 0 { "" } else { "," })?;
        }
        if let RedisKind::Sentinel { service } = &self.kind {
            write!(f, "/{service}")?;
        }
        if self.database > 0 {
            write!(f, "/{}", self.database)?;
        }
        Ok(())
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisUrl({self})")
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({}:***)", self.user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> RedisUrl {
        text.parse().unwrap_or_else(|fault| panic!("{text}: {fault}"))
    }

    fn fault(text: &str) -> UrlFault {
        text.parse::<RedisUrl>().expect_err(text)
    }

    #[test]
    fn every_form_is_read() {
        let single = read("redis://cache");
        assert_eq!(
            single.hosts(),
            [Address {
                host: "cache".into(),
                port: 6379
            }]
        );
        assert_eq!(
            (single.is_tls(), single.database(), single.login()),
            (false, 0, None)
        );
        let full = read("rediss://app:p%40ss%3A%2f@[::1]:7000/12");
        assert_eq!(
            full.hosts()[0],
            Address {
                host: "::1".into(),
                port: 7000
            }
        );
        assert_eq!((full.is_tls(), full.database()), (true, 12));
        assert_eq!(full.login().map(|login| login.password.as_str()), Some("p@ss:/"));
        let only_password = read("redis://:secret@h");
        assert_eq!(
            only_password.login().map(|login| login.user.as_str()),
            Some("default")
        );
        let sentinel = read("redis+sentinel://a,b:5000,c/my%20master/3");
        assert_eq!(
            sentinel.kind(),
            &RedisKind::Sentinel {
                service: "my master".into()
            }
        );
        assert_eq!(
            sentinel.hosts().iter().map(|host| host.port).collect::<Vec<_>>(),
            [26_379, 5000, 26_379]
        );
        assert_eq!(sentinel.database(), 3);
        let cluster = read("rediss+cluster://u:p@a:1,b:2");
        assert!(cluster.is_cluster() && cluster.is_tls());
        assert_eq!(cluster.hosts().len(), 2);
    }

    #[test]
    fn every_fault_is_told() {
        for text in [
            "",
            "cache",
            "http://h",
            "redisx://h",
            "redis+pool://h",
            "redi://h",
            "Redis://h",
        ] {
            assert_eq!(fault(text), UrlFault::Scheme, "{text}");
        }
        for text in [
            "redis://u@h",
            "redis://a:b@c@h",
            "redis://u:@h",
            "redis://u:a:b@h",
        ] {
            assert_eq!(fault(text), UrlFault::Login, "{text}");
        }
        for text in [
            "redis://u:%4@h",
            "redis://u:%zz@h",
            "redis://u:%ff@h",
            "redis://u:a%@h",
        ] {
            assert_eq!(fault(text), UrlFault::Escape, "{text}");
        }
        for text in [
            "redis://",
            "redis://:6379",
            "redis://::1",
            "redis://a b",
            "redis://[::1",
            "redis://[h]:1",
            "redis://[::1]x",
        ] {
            assert_eq!(fault(text), UrlFault::Host(1), "{text}");
        }
        assert_eq!(fault("redis+cluster://a,"), UrlFault::Host(2));
        for text in ["redis://h:", "redis://h:0", "redis://h:65536", "redis://h:+1"] {
            assert_eq!(fault(text), UrlFault::Port(1), "{text}");
        }
        assert_eq!(fault("redis://a,b"), UrlFault::SeveralHosts);
        assert_eq!(fault("redis+sentinel://a,b"), UrlFault::NoService);
        assert_eq!(fault("redis+sentinel://a//1"), UrlFault::NoService);
        assert_eq!(fault("redis://h/x"), UrlFault::Database);
        assert_eq!(fault("redis://h/70000"), UrlFault::Database);
        assert_eq!(fault("redis+cluster://h/0"), UrlFault::ClusterDatabase);
        for text in ["redis://h/1/2", "redis://h?db=1", "redis://h/1#x"] {
            assert_eq!(fault(text), UrlFault::Rest, "{text}");
        }
        let many = format!("redis+cluster://{}", vec!["h"; MAX_HOSTS + 1].join(","));
        assert_eq!(fault(&many), UrlFault::TooManyHosts);
    }

    #[test]
    fn what_is_printed_shows_no_password() {
        let url = read("rediss+sentinel://app:hunter2@a,[::1]:7/main/2");
        assert_eq!(
            url.to_string(),
            "rediss+sentinel://app:***@a:26379,[::1]:7/main/2"
        );
        assert!(!format!("{url:?} {:?}", url.login()).contains("hunter2"));
    }

    proptest! {
        #[test]
        fn no_fault_shows_a_password(scheme in "redis(s?)(\\+sentinel|\\+cluster)?", tail in "[a-z0-9@:/,?%\\[\\]]{0,20}") {
            let text = format!("{scheme}://u:hunter2{tail}");
            match text.parse::<RedisUrl>() {
                Ok(url) => if url.login().is_some() { prop_assert!(!url.to_string().contains("hunter2")) },
                Err(fault) => {
                    let told = format!("{fault} {fault:?}");
                    prop_assert!(!told.contains("hunter2"), "{}", told);
                },
            }
        }
    }
}
