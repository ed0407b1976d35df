//! API keys: held as SHA-256, compared in constant time, each with a name and scopes.

use crate::config::Secret;
use crate::rates::Bucket;
use postrider_model::{Millis, Timestamp};
use postrider_transports::Problem;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use subtle::ConstantTimeEq as _;

/// `limits.publish_rate` is by the second.
const RATE_WINDOW: Millis = Millis::from_secs(1);

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Publish to named users and topics.
    Publish,
    /// Publish to everyone.
    Broadcast,
    /// Cancel what others published, see to dead letters, erase users.
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
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
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
#[derive(Debug)]
pub struct ApiKey {
    /// Its name.
    pub name: String,
    scopes: Vec<Scope>,
    /// What it may publish (`limits.publish_rate`); `None`: as much as it likes.
    rate: Option<Mutex<Bucket>>,
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

/// Its rate. The times are of a clock that nobody sets.
impl ApiKey {
    /// Takes as many notifications of the rate as there are, at most `wanted`; returns how many.
    pub fn take_up_to(&self, wanted: usize, now: Timestamp) -> usize {
        self.rate
            .as_ref()
            .map_or(wanted, |rate| lock(rate).take_up_to(wanted, now))
    }

    /// Most that it may publish at once.
    pub fn burst(&self) -> usize {
        self.rate
            .as_ref()
            .map_or(usize::MAX, |rate| lock(rate).capacity())
    }

    /// Takes `count` and returns how long they have to wait for their turn.
    pub fn reserve(&self, count: usize, now: Timestamp) -> Millis {
        self.rate
            .as_ref()
            .map_or(Millis(0), |rate| lock(rate).reserve(count, now))
    }

    /// In how many seconds it may publish again.
    pub fn retry_after_s(&self, now: Timestamp) -> u32 {
        let wait = self
            .rate
            .as_ref()
            .map_or(Millis(0), |rate| lock(rate).wait_for(1, now));
        u32::try_from(wait.0.div_ceil(1000)).unwrap_or(u32::MAX).max(1)
    }
}

fn lock(rate: &Mutex<Bucket>) -> MutexGuard<'_, Bucket> {
    rate.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All keys.
#[derive(Debug)]
pub(super) struct ApiKeys {
    keys: Vec<([u8; 32], Arc<ApiKey>)>,
}

impl ApiKeys {
    /// Each key may publish `rate` notifications a second, and as many at once; 0: any number.
    pub(super) fn new(config: &[ApiKeyConfig], rate: u32, now: Timestamp) -> ApiKeys {
        let keys = config.iter().map(|entry| {
            let key = ApiKey {
                name: entry.name.clone(),
                scopes: entry.scopes.clone(),
                rate: (rate > 0).then(|| Mutex::new(Bucket::new(rate, RATE_WINDOW, now))),
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
