//! API keys: held as SHA-256, compared in constant time, each with a name and scopes.

use crate::config::Secret;
use postrider_transports::Problem;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use subtle::ConstantTimeEq as _;

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Publish to named users and topics.
    Publish,
    /// Publish to everyone.
    Broadcast,
    /// Cancel what others published.
    Manage,
    /// See what became of notifications.
    Read,
}

impl Scope {
    /// All of them.
    pub const ALL: [Scope; 4] = [Scope::Publish, Scope::Broadcast, Scope::Manage, Scope::Read];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::Publish => "publish",
            Scope::Broadcast => "broadcast",
            Scope::Manage => "manage",
            Scope::Read => "read",
        }
    }
}

/// One entry of `auth.api_keys`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyConfig {
    /// The publisher's name, as notifications and logs carry it.
    pub name: String,
    /// The key itself.
    pub key: Secret,
    /// What it may do.
    pub scopes: Vec<Scope>,
}

/// A key that was recognised; the key itself is not in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Its name.
    pub name: String,
    scopes: Vec<Scope>,
}

impl ApiKey {
    /// Whether it has the scope.
    pub fn has(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }

    /// Refuses where it lacks the scope.
    pub fn require(&self, scope: Scope) -> Result<(), Problem> {
        if self.has(scope) {
            Ok(())
        } else {
            Err(Problem::scope(scope.as_str()))
        }
    }
}

/// All keys.
#[derive(Debug)]
pub(super) struct ApiKeys {
    keys: Vec<([u8; 32], Arc<ApiKey>)>,
}

impl ApiKeys {
    pub(super) fn new(config: &[ApiKeyConfig]) -> ApiKeys {
        let keys = config.iter().map(|entry| {
            let key = ApiKey {
                name: entry.name.clone(),
                scopes: entry.scopes.clone(),
            };
            (hash(entry.key.expose()), Arc::new(key))
        });
        ApiKeys { keys: keys.collect() }
    }

    /// Looks at every key, whichever matches, so that the time tells nothing.
    pub(super) fn find(&self, given: &str) -> Option<Arc<ApiKey>> {
        let given = hash(given);
        let mut found = None;
        for (hash, key) in &self.keys {
            if bool::from(hash.ct_eq(&given)) {
                found = Some(key);
            }
        }
        found.cloned()
    }
}

/// SHA-256 of a credential.
pub(super) fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}
