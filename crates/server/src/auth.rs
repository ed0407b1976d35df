//! Who someone is and what they may do: user tokens, tickets and cookies for inboxes, API keys for the rest.
//!
//! Invariant: no token, key or ticket leaves this module, not in an error and not in a log. API keys are held
//! only as hashes, and compared in constant time.
//!
//! Knows nothing of sockets or clocks: headers and the time come in as arguments.

mod api_keys;
mod gate;
mod jwt;
mod origins;
mod patterns;
mod public_key;
mod ticket;
mod ticket_key;
mod tickets;

pub use api_keys::{ApiKey, ApiKeyConfig, Scope};
pub use jwt::JwtConfig;
pub use origins::Origins;
pub use patterns::is_topic_pattern;
pub use public_key::{KeyFault, PublicKey};
pub use ticket_key::TicketKey;

use api_keys::ApiKeys;
use jwt::Jwt;
use patterns::matches_any;
use postrider_model::{Millis, Timestamp};
use postrider_transports::{Identity, Problem};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, PoisonError};
use tickets::Tickets;

/// `auth.*`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// User tokens.
    pub jwt: JwtConfig,
    /// Who may publish, read and manage.
    pub api_keys: Vec<ApiKeyConfig>,
    /// The cookie that may hold a user token; unset: none may.
    pub cookie: Option<String>,
    /// How long a ticket can start a session.
    pub ticket_ttl: Millis,
}

impl Default for AuthConfig {
    fn default() -> Self {
        AuthConfig {
            jwt: JwtConfig::default(),
            api_keys: Vec::new(),
            cookie: None,
            ticket_ttl: Millis::from_secs(30),
        }
    }
}

/// All that is needed to tell who someone is.
#[derive(Debug)]
pub struct Auth {
    jwt: Jwt,
    keys: ApiKeys,
    tickets: Mutex<Tickets>,
    ticket_ttl: Millis,
    cookie: Option<String>,
    origins: Origins,
    open_topics: Vec<String>,
}

impl Auth {
    /// From the configuration, of which only hashes of the API keys are kept. Fails where the public key
    /// cannot be used, or the system has no randomness.
    pub fn new(
        config: &AuthConfig,
        allowed_origins: &[String],
        open_topics: &[String],
        ticket_key: TicketKey,
    ) -> Result<Auth, AuthFault> {
        let tickets = Tickets::new(ticket_key, random()?, config.ticket_ttl);
        Ok(Auth {
            jwt: Jwt::new(&config.jwt)?,
            keys: ApiKeys::new(&config.api_keys),
            tickets: Mutex::new(tickets),
            ticket_ttl: config.ticket_ttl,
            cookie: config.cookie.clone(),
            origins: Origins::new(allowed_origins),
            open_topics: open_topics.to_vec(),
        })
    }

    /// The API key of an `Authorization` header.
    pub fn api_key(&self, authorization: Option<&str>) -> Result<Arc<ApiKey>, Problem> {
        let key = bearer(authorization.ok_or_else(Problem::key_missing)?).ok_or_else(Problem::key_invalid)?;
        self.keys.find(key).ok_or_else(Problem::key_invalid)
    }

    /// Makes a ticket for a user who has shown a token. Returns it and how many seconds it can start a session.
    pub fn issue_ticket(&self, identity: Identity, now: Timestamp) -> Result<(String, u64), Problem> {
        let nonce = random().map_err(|_| Problem::unavailable(1))?;
        let tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        let ticket = tickets.issue(identity, nonce, now)?;
        Ok((ticket, self.ticket_ttl.0.div_ceil(1000)))
    }

    /// The origins whose pages may use the API.
    pub fn origins(&self) -> &Origins {
        &self.origins
    }
}

/// Why nobody can be told from anybody else.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthFault {
    /// `auth.jwt.public_key_pem`
    #[error("auth.jwt.public_key_pem {0}")]
    PublicKey(#[from] KeyFault),
    /// The system has no randomness.
    #[error("the system has no randomness")]
    Random(#[from] getrandom::Error),
}

fn random<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0u8; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// The credential of a `Bearer` header; the scheme's case does not matter (RFC 9110, 11.1).
fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, credential) = authorization.trim().split_once(' ')?;
    let credential = credential.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !credential.is_empty()).then_some(credential)
}

#[cfg(test)]
#[path = "auth/auth_tests.rs"]
mod tests;
