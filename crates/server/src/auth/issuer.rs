//! An issuer's key set, kept up to date by a thread of its own: it sleeps until the cache says that a fetch is
//! due, fetches, and hands the outcome back. Whoever checks a token looks at what is known and never waits.
//!
//! Invariant: the thread ends when its [`Issuer`] is dropped, at the latest after one fetch's time limit. A
//! failure is logged as a warning once, and again only after a success.

use super::jwk::{self, KeySet, SetFault};
use super::key_cache::{Answer, KeyCache, Rules};
use super::key_fetch::FetchFault;
use super::public_key::PublicKey;
use crate::clock::SteadyClock;
use postrider_model::Timestamp;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Asks the issuer for its key set.
pub(super) type Fetch = Box<dyn Fn() -> Result<Vec<u8>, FetchFault> + Send>;

/// An issuer whose keys are published.
pub(super) struct Issuer {
    url: String,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Rings when a fetch may be due sooner than it was.
    bell: Condvar,
    clock: SteadyClock,
}

struct State {
    cache: KeyCache,
    is_closed: bool,
}

/// Why there is no new key set.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Fetch(#[from] FetchFault),
    #[error(transparent)]
    Set(#[from] SetFault),
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl Issuer {
    /// Starts to fetch. Fails only where the system gives no thread.
    pub fn start(url: &str, rules: Rules, clock: SteadyClock, fetch: Fetch) -> std::io::Result<Issuer> {
        let state = State {
            cache: KeyCache::new(rules, clock()),
            is_closed: false,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            bell: Condvar::new(),
            clock,
        });
        let worker = shared.clone();
        std::thread::Builder::new()
            .name("issuer-keys".into())
            .spawn(move || worker.run(&fetch))?;
        Ok(Issuer {
            url: url.to_owned(),
            shared,
        })
    }

    /// Where the set is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What to say to a token that names this key, or none.
    pub fn ask(&self, id: Option<&str>) -> Answer {
        self.question(|cache, now| cache.ask(id, now))
    }

    /// What to say to a token that names this key, or none, and is signed with none that is known.
    pub fn doubt(&self, id: Option<&str>) -> Answer {
        self.question(|cache, now| cache.doubt(id, now))
    }

    fn question(&self, ask: impl FnOnce(&mut KeyCache, Timestamp) -> Answer) -> Answer {
        let mut state = self.shared.lock();
        let now = (self.shared.clock)();
        let before = state.cache.wait(now);
        let answer = ask(&mut state.cache, now);
        if state.cache.wait(now) != before {
            self.shared.bell.notify_one();
        }
        answer
    }

    /// Whether there are keys that can be used.
    pub fn is_ready(&self) -> bool {
        self.shared.lock().cache.is_ready((self.shared.clock)())
    }

    /// The keys that tokens are checked with now, if there are any.
    pub fn keys_in_use(&self) -> Option<Arc<Vec<PublicKey>>> {
        self.shared.lock().cache.usable((self.shared.clock)())
    }

    /// Other rules from now on, and a fetch at once.
    pub fn renew(&self, rules: Rules) {
        self.shared.lock().cache.renew(rules, (self.shared.clock)());
        self.shared.bell.notify_one();
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.bell.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, fetch: &Fetch) {
        let mut is_failing = false;
        while self.await_due() {
            let outcome = fetch()
                .map_err(Fault::from)
                .and_then(|text| Ok(jwk::read(&text)?));
            is_failing = self.end(outcome, is_failing);
        }
    }

    /// Sleeps until a fetch is due, and begins it; false where there will be no more.
    fn await_due(&self) -> bool {
        let mut state = self.lock();
        loop {
            let now = (self.clock)();
            if state.is_closed {
                return false;
            }
            match state.cache.wait(now) {
                Some(wait) if wait.0 > 0 => {
                    let waited = self.bell.wait_timeout(state, wait.as_duration());
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                _ => {
                    state.cache.begin(now);
                    return true;
                }
            }
        }
    }

    /// Takes the outcome of a fetch; returns whether it failed.
    fn end(&self, outcome: Result<KeySet, Fault>, was_failing: bool) -> bool {
        let jitter = jitter();
        let mut state = self.lock();
        let now = (self.clock)();
        let had_keys = state.cache.is_ready(now);
        match outcome {
            Ok(set) => {
                let KeySet { keys, passed_over } = set;
                let count = keys.len();
                state.cache.succeeded(keys, now, jitter);
                drop(state);
                if was_failing || !had_keys {
                    tracing::info!(
                        keys = count,
                        passed_over,
                        "auth.jwt.jwks_url: the key set was fetched"
                    );
                }
                false
            }
            Err(fault) => {
                state.cache.failed(now, jitter);
                let still = state.cache.is_ready(now);
                drop(state);
                if was_failing {
                    tracing::debug!("auth.jwt.jwks_url: {fault}");
                } else if still {
                    tracing::warn!("auth.jwt.jwks_url: {fault}; the last key set goes on being used");
                } else {
                    tracing::warn!(
                        "auth.jwt.jwks_url: {fault}; tokens of this issuer cannot be checked until it answers"
                    );
                }
                true
            }
        }
    }
}

/// A random number; without randomness nodes may ask at the same time, and nothing worse.
fn jitter() -> u8 {
    let mut byte = [0u8];
    match getrandom::fill(&mut byte) {
        Ok(()) => byte[0],
        Err(_) => 0,
    }
}

#[cfg(test)]
#[path = "issuer_tests.rs"]
mod tests;
