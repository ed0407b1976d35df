//! Tokens that were found good a moment ago: a client that polls shows the same one every time, and one that comes
//! back the one it had. What is kept is what a token claims and by which keys it was found good, never the token: it
//! is known by a keyed digest, whose key nobody else has.
//!
//! Invariant: only what was found good is kept, and nothing that goes by the time of day is taken from here: whether
//! the token is good now is asked every time. Of these there are as many as the keys they were found good by: other
//! keys of the configuration come with another [`Seen`], and what an issuer's keys signed counts only while exactly
//! those are in use.
//!
//! At most [`MAX_TOKENS`] are kept; those that nobody showed for longest make room.

use super::claims::Times;
use super::public_key::PublicKey;
use foldhash::HashMap;
use postrider_model::UserId;
use sha2::{Digest as _, Sha256};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, PoisonError, Weak};

/// Tokens that are kept.
const MAX_TOKENS: usize = 65_536;

/// Bytes of patterns that one of them may hold; one with more is checked each time.
const MAX_PATTERNS: usize = 512;

/// A token's name here.
pub(super) type TokenDigest = [u8; DIGEST_BYTES];

/// Of a digest; nobody can look for two tokens with the same one.
const DIGEST_BYTES: usize = 16;

/// What a good token says.
#[derive(Debug, Clone)]
pub(super) struct Good {
    pub user: UserId,
    pub times: Times,
    /// What most have not.
    pub more: Option<Box<More>>,
}

/// What few tokens have.
#[derive(Debug, Clone, Default)]
pub(super) struct More {
    /// The patterns of session topics that it allows.
    pub topics: Vec<String>,
    /// The issuer's keys, where one of them signed it.
    pub keys: Option<Weak<Vec<PublicKey>>>,
}

impl More {
    /// These, if there is anything.
    pub fn of(topics: &[String], keys: Option<Weak<Vec<PublicKey>>>) -> Option<Box<More>> {
        let topics = topics.to_vec();
        (!topics.is_empty() || keys.is_some()).then(|| Box::new(More { topics, keys }))
    }
}

/// Good tokens of late.
pub(super) struct Seen {
    salt: [u8; 32],
    tokens: Mutex<Tokens>,
}

/// Two generations: the young ones become the old ones when there are many, and the old ones are forgotten.
#[derive(Default)]
struct Tokens {
    young: HashMap<TokenDigest, Good>,
    old: HashMap<TokenDigest, Good>,
}

impl Seen {
    /// Knows nothing yet.
    pub fn new() -> Seen {
        // Keyed by the system's randomness, as every map of this process is.
        let random = RandomState::new();
        let mut salt = [0; 32];
        for (n, part) in salt.chunks_exact_mut(8).enumerate() {
            part.copy_from_slice(&random.hash_one(n).to_le_bytes());
        }
        Seen {
            salt,
            tokens: Mutex::default(),
        }
    }

    /// A token's name here.
    pub fn digest(&self, token: &str) -> TokenDigest {
        let digest = Sha256::new_with_prefix(self.salt).chain_update(token).finalize();
        let mut name = TokenDigest::default();
        name.copy_from_slice(&digest[..DIGEST_BYTES]);
        name
    }

    /// What it said when it was found good.
    pub fn find(&self, token: &TokenDigest) -> Option<Good> {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(good) = tokens.young.get(token) {
            return Some(good.clone());
        }
        let good = tokens.old.remove(token)?;
        tokens.keep(*token, good.clone());
        Some(good)
    }

    /// It was found good.
    pub fn keep(&self, token: TokenDigest, good: Good) {
        let patterns = good.more.iter().flat_map(|more| &more.topics);
        let patterns = patterns.map(String::len).sum::<usize>();
        if patterns > MAX_PATTERNS {
            return;
        }
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.keep(token, good);
    }
}

impl Tokens {
    fn keep(&mut self, token: TokenDigest, good: Good) {
        if self.young.len() >= MAX_TOKENS / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(token, good);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(user: &str) -> Good {
        Good {
            user: UserId::new(user).unwrap(),
            times: Times::default(),
            more: None,
        }
    }

    #[test]
    fn a_token_is_known_by_all_of_it_and_by_one_process_alone() {
        let seen = Seen::new();
        seen.keep(seen.digest("a.b.c"), good("ada"));
        assert_eq!(seen.find(&seen.digest("a.b.c")).unwrap().user.as_str(), "ada");
        for other in ["a.b.d", "a.b.c ", "a.b", ""] {
            assert!(seen.find(&seen.digest(other)).is_none(), "{other:?}");
        }
        assert_ne!(seen.digest("a.b.c"), Seen::new().digest("a.b.c"));
    }

    #[test]
    fn those_that_are_shown_stay_and_the_table_is_bounded() {
        let seen = Seen::new();
        let shown = seen.digest("shown");
        seen.keep(shown, good("ada"));
        let first = seen.digest("0");
        for n in 0..2 * MAX_TOKENS {
            seen.keep(seen.digest(&n.to_string()), good("bob"));
            if n % 1000 == 0 {
                assert!(seen.find(&shown).is_some());
            }
        }
        assert!(seen.find(&first).is_none());
        let tokens = seen.tokens.lock().unwrap();
        assert!(tokens.young.len() + tokens.old.len() <= MAX_TOKENS);
    }
}
