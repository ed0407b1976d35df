//! Who someone is and what they may do: user tokens, tickets and cookies for inboxes, API keys for the rest.
//!
//! Invariant: no token, key or ticket leaves this module, not in an error and not in a log. API keys are held
//! only as hashes, and compared in constant time. A request sees one state of the rules, before or after a
//! reload, never parts of both.
//!
//! Knows nothing of sockets: headers, the client's address and the time of day come in as arguments. Rates and
//! the age of fetched keys go by a clock that nobody sets.

mod api_keys;
mod claims;
mod der;
mod failures;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod gate;
mod issuer;
mod jwk;
mod jwt;
mod key_cache;
mod key_fetch;
mod one_or_many;
mod origins;
mod patterns;
mod pem;
mod public_key;
mod seen;
mod ticket;
mod ticket_key;
mod tickets;

pub use api_keys::{ApiKey, ApiKeyConfig, Scope};
pub use jwt::JwtConfig;
pub(crate) use key_fetch::{is_open_to_all, jwks_url_fault};
pub use one_or_many::OneOrMany;
pub use origins::Origins;
pub use patterns::is_topic_pattern;
pub use pem::KeyFault;
pub use public_key::PublicKey;
pub use ticket_key::TicketKey;

use crate::clock::SteadyClock;
use crate::config::Config;
use crate::reload::Apply;
use api_keys::ApiKeys;
use failures::Failures;
use issuer::Issuer;
use jwt::Jwt;
use patterns::matches_any;
use postrider_model::{Millis, Timestamp};
use postrider_transports::{Address, Identity, Problem};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use tickets::Tickets;

/// Fetches an issuer's key set once, as a node does, and counts the keys that can be used.
///
/// # Errors
/// Why no node could use it now.
pub fn try_issuer(url: &str) -> Result<usize, String> {
    let set = key_fetch::fetch(url).map_err(|fault| fault.to_string())?;
    let set = jwk::read(&set).map_err(|fault| fault.to_string())?;
    Ok(set.keys.len())
}

/// `auth.*`
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// User tokens.
    pub jwt: JwtConfig,
    /// Who may publish, read and manage.
    pub api_keys: Vec<ApiKeyConfig>,
    /// The cookie that may hold a user token; unset: none may.
    pub cookie: Option<String>,
    /// How long a ticket can start a session.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "1h"))]
    pub ticket_ttl: Millis,
    /// Wrong keys, tokens and tickets of one client address in 10 s, before it is answered 429; 0: any number.
    /// 127.0.0.1 and ::1, where a proxy on the same machine comes from, are not counted.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub failures_per_address: u32,
}

impl Default for AuthConfig {
    fn default() -> Self {
        AuthConfig {
            jwt: JwtConfig::default(),
            api_keys: Vec::new(),
            cookie: None,
            ticket_ttl: Millis::from_secs(30),
            failures_per_address: 100,
        }
    }
}

/// All that is needed to tell who someone is.
pub struct Auth {
    rules: RwLock<Arc<Rules>>,
    tickets: Mutex<Tickets>,
    failures: Failures,
    clock: SteadyClock,
}

/// What a reload replaces as a whole.
#[derive(Debug)]
struct Rules {
    jwt: Jwt,
    keys: ApiKeys,
    cookie: Option<String>,
    origins: Origins,
    open_topics: Vec<String>,
    ticket_ttl: Millis,
    failures_per_address: u32,
}

/// The keys of the configuration that [`Auth::prepare`] takes.
pub(crate) const RELOADED: &[&str] = &[
    "auth",
    "http.allowed_origins",
    "topics.open",
    "limits.publish_rate",
];

impl Auth {
    /// From the configuration, of which only hashes of the API keys are kept. Fails where a public key cannot be
    /// used, or the system has no randomness or no thread.
    pub fn new(config: &Config, ticket_key: TicketKey, clock: SteadyClock) -> Result<Auth, AuthFault> {
        let rules = Rules::new(config, None, &clock)?;
        let tickets = Tickets::new(ticket_key, random()?, rules.ticket_ttl);
        Ok(Auth {
            rules: RwLock::new(Arc::new(rules)),
            tickets: Mutex::new(tickets),
            failures: Failures::default(),
            clock,
        })
    }

    /// Makes ready what a new configuration asks for. What is in force stays until it is applied; then keys that
    /// are fetched are fetched anew, and rates begin anew. Tickets and sessions that were let in stay.
    pub fn prepare(self: &Arc<Self>, config: &Config) -> Result<Apply, String> {
        let before = self.rules();
        let rules =
            Rules::new(config, before.jwt.issuer(), &self.clock).map_err(|fault| fault.to_string())?;
        let cache_rules = config.auth.jwt.cache_rules();
        let auth = self.clone();
        Ok(Box::new(move || {
            if let Some(issuer) = rules.jwt.issuer() {
                issuer.renew(cache_rules);
            }
            auth.tickets().set_ttl(rules.ticket_ttl);
            *auth.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
        }))
    }

    /// The API key of an `Authorization` header.
    pub fn api_key(&self, authorization: Option<&str>) -> Result<Arc<ApiKey>, Problem> {
        let key = bearer(authorization.ok_or_else(Problem::key_missing)?).ok_or_else(Problem::key_invalid)?;
        self.rules().keys.find(key).ok_or_else(Problem::key_invalid)
    }

    /// Makes a ticket for a user who has shown a token. Returns it and how many seconds it can start a session.
    pub fn issue_ticket(&self, identity: Identity, now: Timestamp) -> Result<(String, u64), Problem> {
        let nonce = random().map_err(|_| Problem::unavailable(1))?;
        let ticket = self.tickets().issue(identity, nonce, now)?;
        Ok((ticket, self.rules().ticket_ttl.0.div_ceil(1000)))
    }

    /// What tells a ticket from all others, and until when it can start a session.
    #[cfg(feature = "redis")]
    pub(crate) fn ticket_claim(&self, ticket: &str) -> Option<([u8; 16], Timestamp)> {
        self.tickets().claim(ticket)
    }

    /// Refuses a client that has shown too many wrong credentials.
    pub fn listen(&self, client: Option<Address>) -> Result<(), Problem> {
        let most = self.rules().failures_per_address;
        match self.failures.blocked(client, most, (self.clock)()) {
            Some(seconds) => Err(Problem {
                detail: "Too many wrong keys, tokens or tickets came from this address. Wait as long as Retry-After says.".into(),
                ..Problem::rate_limited(seconds)
            }),
            None => Ok(()),
        }
    }

    /// Counts a refusal with this code, if it tells of a wrong credential.
    pub fn count_failure(&self, client: Option<Address>, code: &str) {
        if matches!(code, "key_invalid" | "token_malformed" | "token_signature") {
            let most = self.rules().failures_per_address;
            self.failures.count(client, most, (self.clock)());
        }
    }

    /// What has to be had before all tokens can be checked, and is not.
    pub fn awaited(&self) -> Option<&'static str> {
        let rules = self.rules();
        let is_waiting = rules.jwt.issuer().is_some_and(|issuer| !issuer.is_ready());
        is_waiting.then_some("auth.jwt.jwks_url")
    }

    /// The clock that rates go by.
    pub fn steady_now(&self) -> Timestamp {
        (self.clock)()
    }

    fn rules(&self) -> Arc<Rules> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn tickets(&self) -> MutexGuard<'_, Tickets> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rules {
    /// Goes on with the issuer there is, if the configuration names the same place.
    fn new(config: &Config, issuer: Option<&Arc<Issuer>>, clock: &SteadyClock) -> Result<Rules, AuthFault> {
        let auth = &config.auth;
        let issuer = match (auth.jwt.jwks_url.as_deref(), issuer) {
            (Some(url), Some(issuer)) if issuer.url() == url => Some(issuer.clone()),
            (Some(url), _) => Some(start_issuer(url, &auth.jwt, clock)?),
            (None, _) => None,
        };
        Ok(Rules {
            jwt: Jwt::new(&auth.jwt, issuer)?,
            keys: ApiKeys::new(&auth.api_keys, config.limits.publish_rate, clock()),
            cookie: auth.cookie.clone(),
            origins: Origins::new(&config.http.allowed_origins),
            open_topics: config.topics.open.clone(),
            ticket_ttl: auth.ticket_ttl,
            failures_per_address: auth.failures_per_address,
        })
    }
}

fn start_issuer(url: &str, config: &JwtConfig, clock: &SteadyClock) -> Result<Arc<Issuer>, AuthFault> {
    let place = url.to_owned();
    let fetch = Box::new(move || key_fetch::fetch(&place));
    let issuer = Issuer::start(url, config.cache_rules(), clock.clone(), fetch);
    issuer.map(Arc::new).map_err(AuthFault::Thread)
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
    /// The system gives no thread.
    #[error("auth.jwt.jwks_url: the system gives no thread to fetch keys with: {0}")]
    Thread(#[source] std::io::Error),
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
