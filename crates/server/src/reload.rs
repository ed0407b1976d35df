//! Takes a new configuration into a running node: what can change without a restart changes, all of it or none.
//!
//! Each part of the node that can change registers once, with the keys it takes. A reload first lets every part
//! prepare (read its files, build its keys) and only then lets them all apply, which cannot fail: a configuration
//! that is bad in any part leaves everything as it was.
//!
//! Invariant: the configuration kept here is the one in force, as far as any part has taken it. It does not read
//! files or signals: a loaded [`Config`] comes in.

use crate::config::{Config, changed};
use std::sync::{Mutex, PoisonError};

/// Brings what a part has prepared into force.
pub type Apply = Box<dyn FnOnce() + Send>;
/// Prepares a part for a configuration, and touches nothing yet. An error is one line: the key, and what is wrong.
pub type Prepare = Box<dyn Fn(&Config) -> Result<Apply, String> + Send + Sync>;

/// The parts of a node that can change, and the configuration in force.
pub struct Reload {
    parts: Mutex<Vec<Part>>,
    /// Held over a whole reload, so that two cannot mix.
    current: Mutex<Config>,
    /// What keys that nobody takes are as.
    started: Config,
}

struct Part {
    keys: &'static [&'static str],
    prepare: Prepare,
}

/// What a reload did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Keys that changed and are in force.
    pub changed: Vec<String>,
    /// Keys that changed and need a restart.
    pub needs_restart: Vec<String>,
}

impl Reload {
    /// For a node that starts with this configuration.
    pub fn new(config: Config) -> Reload {
        Reload {
            parts: Mutex::default(),
            current: Mutex::new(config.clone()),
            started: config,
        }
    }

    /// Adds a part that takes `keys`; a key stands for all below it, so that `auth.jwt` takes `auth.jwt.issuer`.
    pub fn register(
        &self,
        keys: &'static [&'static str],
        prepare: impl Fn(&Config) -> Result<Apply, String> + Send + Sync + 'static,
    ) {
        let prepare = Box::new(prepare);
        self.parts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Part { keys, prepare });
    }

    /// Takes a new configuration. Every part prepares, whether its keys changed or not: a key may name a file
    /// that did.
    ///
    /// # Errors
    /// One line per part that cannot take it; then nothing has changed.
    pub fn reload(&self, config: Config) -> Result<Reloaded, Vec<String>> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut prepared = Vec::new();
        let mut faults = Vec::new();
        for part in parts.iter() {
            match (part.prepare)(&config) {
                Ok(apply) => prepared.push(apply),
                Err(fault) => faults.push(fault),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        prepared.into_iter().for_each(|apply| apply());
        let mut reloaded = Reloaded::default();
        let is_taken = |key: &String| {
            let mut taken = parts.iter().flat_map(|part| part.keys);
            taken.any(|taken| covers(taken, key))
        };
        let since = changed(&current, &config).into_iter();
        reloaded.changed.extend(since.filter(|key| is_taken(key)));
        // What nobody takes is as it was at the start, however often it was changed since.
        let since = changed(&self.started, &config).into_iter();
        reloaded.needs_restart.extend(since.filter(|key| !is_taken(key)));
        *current = config;
        Ok(reloaded)
    }
}

fn covers(taken: &str, key: &str) -> bool {
    key.strip_prefix(taken)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn with(change: impl FnOnce(&mut Config)) -> Config {
        let mut config = Config::default();
        change(&mut config);
        config
    }

    /// A part that counts how often it was applied, and refuses an empty `auth.jwt.user_claim`.
    fn part(reload: &Reload, keys: &'static [&'static str]) -> Arc<AtomicUsize> {
        let applied = Arc::new(AtomicUsize::new(0));
        let count = applied.clone();
        reload.register(keys, move |config| {
            if config.auth.jwt.user_claim.is_empty() {
                return Err("auth.jwt.user_claim: is empty".into());
            }
            let count = count.clone();
            Ok(Box::new(move || {
                count.fetch_add(1, Ordering::Relaxed);
            }))
        });
        applied
    }

    #[test]
    fn all_parts_take_it_or_none() {
        let reload = Reload::new(Config::default());
        let first = part(&reload, &["auth.jwt"]);
        let second = part(&reload, &["log.level"]);
        let refused = reload.reload(with(|config| config.auth.jwt.user_claim.clear()));
        assert_eq!(refused.unwrap_err().len(), 2);
        assert_eq!(
            (first.load(Ordering::Relaxed), second.load(Ordering::Relaxed)),
            (0, 0)
        );
        reload.reload(Config::default()).unwrap();
        assert_eq!(
            (first.load(Ordering::Relaxed), second.load(Ordering::Relaxed)),
            (1, 1)
        );
    }

    #[test]
    fn what_changed_is_told_by_whether_some_part_takes_it() {
        let reload = Reload::new(Config::default());
        part(&reload, &["auth.jwt", "http.allowed_origins"]);
        let next = with(|config| {
            config.auth.jwt.user_claim = "uid".into();
            config.auth.ticket_ttl.0 += 1;
            config.http.allowed_origins = vec!["*".into()];
        });
        let told = reload.reload(next.clone()).unwrap();
        assert_eq!(told.changed, ["auth.jwt.user_claim", "http.allowed_origins"]);
        assert_eq!(told.needs_restart, ["auth.ticket_ttl"]);
        // What is in force is told once; what is not, for as long as that is so.
        let told = reload.reload(next.clone()).unwrap();
        assert_eq!(told.changed, Vec::<String>::new());
        assert_eq!(told.needs_restart, ["auth.ticket_ttl"]);
        let back = Config {
            auth: crate::auth::AuthConfig {
                ticket_ttl: Config::default().auth.ticket_ttl,
                ..next.auth.clone()
            },
            ..next
        };
        assert_eq!(reload.reload(back), Ok(Reloaded::default()));
    }

    #[test]
    fn a_key_covers_what_is_below_it_and_no_other_word() {
        assert!(covers("auth.jwt", "auth.jwt") && covers("auth.jwt", "auth.jwt.leeway"));
        assert!(!covers("auth.jwt", "auth.jwtx") && !covers("auth.jwt.leeway", "auth.jwt"));
    }
}
