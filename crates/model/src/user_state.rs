//! A user's state map: a few texts by name that belong to the user, not to a notification: badges, preferences of a
//! screen. Changed as a whole or not at all.
//!
//! Invariant: a map never exceeds [`MAX_STATE_KEYS`] and [`MAX_STATE_BYTES`]; its JSON is the map's.

use crate::json;
use bytes::Bytes;
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_64;

/// Keys of one map.
pub const MAX_STATE_KEYS: usize = 256;
/// Bytes of its keys and values together.
pub const MAX_STATE_BYTES: usize = 16 << 10;
/// Bytes of one key.
pub const MAX_STATE_KEY: usize = 128;

/// A user's state map at one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserState {
    version: u64,
    map: BTreeMap<String, String>,
    json: Bytes,
}

/// A change of a state map; all of it or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateChange {
    /// `Some` sets, `None` removes.
    Merge(Vec<(String, Option<String>)>),
    /// Adds to decimal integers (`i64`). A key that is not there counts as 0.
    Increment(Vec<(String, i64)>),
    /// Removes all.
    Clear,
}

/// Why a state map cannot be changed so. Nothing of the change is done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// What is to be added to holds another text.
    #[error("`{key}` holds no integer")]
    NotANumber {
        /// Under which key.
        key: String,
    },
    /// The sum is none of 64 bits.
    #[error("the sum under `{key}` is too large")]
    Overflow {
        /// Under which key.
        key: String,
    },
    /// Keys and values would have more bytes together.
    #[error("the keys and values of a state have at most {most} bytes together")]
    TooLarge {
        /// Bytes.
        most: usize,
    },
    /// There would be more keys.
    #[error("a state has at most {most} keys")]
    TooManyKeys {
        /// Keys.
        most: usize,
    },
    /// It is empty, too long, or holds a control character.
    #[error("a key has 1 to 128 bytes and no control characters")]
    BadKey {
        /// Which.
        key: String,
    },
}

impl UserState {
    /// What was kept.
    pub fn new(version: u64, map: BTreeMap<String, String>) -> UserState {
        let mut json = vec![b'{'];
        for (i, (key, value)) in map.iter().enumerate() {
            if i > 0 {
                json.push(b',');
            }
            json::push_string(&mut json, key);
            json.push(b':');
            json::push_string(&mut json, value);
        }
        json.push(b'}');
        let json = json.into();
        UserState { version, map, json }
    }

    /// Rises with every change, also over an erase; 0: never set.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What it holds.
    pub fn map(&self) -> &BTreeMap<String, String> {
        &self.map
    }

    /// The map as a JSON object, keys in order.
    pub fn json(&self) -> &Bytes {
        &self.json
    }

    /// Tells this map from others, whatever their versions.
    pub fn digest(&self) -> u64 {
        xxh3_64(&self.json)
    }

    /// The same after a change, which gets this version.
    pub fn changed(&self, change: &StateChange, version: u64) -> Result<UserState, StateError> {
        let mut map = self.map.clone();
        match change {
            StateChange::Merge(members) => {
                for (key, value) in members {
                    match value {
                        Some(value) => map.insert(checked(key)?.to_owned(), value.clone()),
                        None => map.remove(key),
                    };
                }
            }
            StateChange::Increment(members) => {
                for (key, by) in members {
                    let sum = sum(checked(key)?, map.get(key), *by)?;
                    map.insert(key.clone(), sum.to_string());
                }
            }
            StateChange::Clear => map.clear(),
        }
        if map.len() > MAX_STATE_KEYS {
            let most = MAX_STATE_KEYS;
            return Err(StateError::TooManyKeys { most });
        }
        let bytes: usize = map.iter().map(|(key, value)| key.len() + value.len()).sum();
        if bytes > MAX_STATE_BYTES {
            let most = MAX_STATE_BYTES;
            return Err(StateError::TooLarge { most });
        }
        Ok(UserState::new(version, map))
    }
}

impl Default for UserState {
    /// Never set.
    fn default() -> Self {
        UserState::new(0, BTreeMap::new())
    }
}

fn checked(key: &str) -> Result<&str, StateError> {
    let is_good = (1..=MAX_STATE_KEY).contains(&key.len()) && !key.chars().any(char::is_control);
    is_good
        .then_some(key)
        .ok_or_else(|| StateError::BadKey { key: key.to_owned() })
}

fn sum(key: &str, before: Option<&String>, by: i64) -> Result<i64, StateError> {
    let before = before.map_or(Ok(0), |text| text.parse::<i64>());
    let before = before.map_err(|_| StateError::NotANumber { key: key.to_owned() })?;
    before
        .checked_add(by)
        .ok_or_else(|| StateError::Overflow { key: key.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merge(members: &[(&str, Option<&str>)]) -> StateChange {
        let members = members.iter();
        StateChange::Merge(
            members
                .map(|(k, v)| ((*k).to_owned(), v.map(str::to_owned)))
                .collect(),
        )
    }

    fn add(members: &[(&str, i64)]) -> StateChange {
        StateChange::Increment(members.iter().map(|(k, by)| ((*k).to_owned(), *by)).collect())
    }

    #[test]
    fn changes_are_whole_or_nothing() {
        let state = UserState::default();
        let state = state
            .changed(&merge(&[("unread", Some("3")), ("b\"", Some("ü\n"))]), 7)
            .unwrap();
        assert_eq!(state.json(), r#"{"b\"":"ü\n","unread":"3"}"#);
        let state = state.changed(&add(&[("unread", -4), ("new", 2)]), 8).unwrap();
        assert_eq!(state.json(), r#"{"b\"":"ü\n","new":"2","unread":"-1"}"#);
        assert_eq!(state.version(), 8);
        let faults = [
            (
                add(&[("new", 1), ("b\"", 1)]),
                StateError::NotANumber { key: "b\"".into() },
            ),
            (
                add(&[("new", i64::MAX)]),
                StateError::Overflow { key: "new".into() },
            ),
            (
                merge(&[("x", Some("1")), ("", Some("1"))]),
                StateError::BadKey { key: String::new() },
            ),
            (
                merge(&[("a\nb", Some("1"))]),
                StateError::BadKey { key: "a\nb".into() },
            ),
            (
                merge(&[("x", Some(&"x".repeat(MAX_STATE_BYTES)))]),
                StateError::TooLarge {
                    most: MAX_STATE_BYTES,
                },
            ),
        ];
        for (change, fault) in faults {
            assert_eq!(state.changed(&change, 9), Err(fault));
        }
        let state = state
            .changed(&merge(&[("unread", None), ("never", None)]), 9)
            .unwrap();
        assert_eq!(state.map().len(), 2);
        assert_eq!(state.changed(&StateChange::Clear, 10).unwrap().json(), "{}");
    }

    #[test]
    fn it_is_bounded() {
        let many: Vec<_> = (0..=MAX_STATE_KEYS)
            .map(|n| (format!("k{n}"), Some(String::new())))
            .collect();
        let fits = StateChange::Merge(many[..MAX_STATE_KEYS].to_vec());
        assert!(UserState::default().changed(&fits, 1).is_ok());
        let most = MAX_STATE_KEYS;
        let fault = UserState::default().changed(&StateChange::Merge(many), 1);
        assert_eq!(fault, Err(StateError::TooManyKeys { most }));
        let key = "k".repeat(MAX_STATE_KEY);
        let value = "v".repeat(MAX_STATE_BYTES - MAX_STATE_KEY);
        assert!(
            UserState::default()
                .changed(&merge(&[(&key, Some(&value))]), 1)
                .is_ok()
        );
        let longer = merge(&[(&format!("{key}k"), Some(""))]);
        assert!(matches!(
            UserState::default().changed(&longer, 1),
            Err(StateError::BadKey { .. })
        ));
    }
}
