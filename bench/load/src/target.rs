//! What a load talks to: a server of some kind, and the users whose sessions the load holds.

use anyhow::Result;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use std::net::SocketAddr;

/// What speaks at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The product.
    Postrider,
    /// The bare loop.
    Floor,
    /// nginx with Nchan.
    Nchan,
    /// nats-server with its WebSocket listener.
    Nats,
}

impl Kind {
    /// Its name in results: nothing for the product itself.
    pub fn prefix(self) -> &'static str {
        match self {
            Kind::Postrider => "",
            Kind::Floor => "floor, ",
            Kind::Nchan => "nchan, ",
            Kind::Nats => "nats, ",
        }
    }
}

/// A server.
#[derive(Debug, Clone)]
pub struct Target {
    /// What it is.
    pub kind: Kind,
    /// Where its clients connect.
    pub addr: SocketAddr,
    /// Where publications go in, which for some is another door.
    pub intake: SocketAddr,
    /// The `Host` of requests.
    pub host: String,
    /// The key that publishes, where there is one.
    pub key: String,
}

/// Users, each with a name and, where the server asks for one, a token.
#[derive(Debug, Clone, Default)]
pub struct Users {
    /// Their ids.
    pub names: Vec<String>,
    /// Their tokens, in the same order.
    pub tokens: Vec<String>,
}

impl Users {
    /// The first `count` users of a prefix, with tokens signed by HS256 that are good until `exp` (seconds since
    /// 1970); `claims` are added to those that every token has.
    ///
    /// # Errors
    /// The secret cannot sign.
    pub fn sign(
        prefix: &str,
        count: usize,
        secret: &str,
        exp: u64,
        claims: &serde_json::Map<String, serde_json::Value>,
    ) -> Result<Users> {
        let key = EncodingKey::from_secret(secret.as_bytes());
        let names = Users::names(prefix, count);
        let tokens = names
            .iter()
            .map(|name| {
                let mut all = claims.clone();
                all.entry("sub").or_insert_with(|| name.as_str().into());
                all.insert("exp".into(), exp.into());
                Ok(jsonwebtoken::encode(&Header::new(Algorithm::HS256), &all, &key)?)
            })
            .collect::<Result<_>>()?;
        Ok(Users { names, tokens })
    }

    /// The ids of the first `count` users of a prefix. All have the same length.
    pub fn names(prefix: &str, count: usize) -> Vec<String> {
        (0..count).map(|index| format!("{prefix}{index:06}")).collect()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.names.len()
    }
}
