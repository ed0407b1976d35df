//! Decides when an issuer's key set is fetched, and what is said to a token meanwhile. Knows nothing of sockets
//! or clocks: time and randomness come in, so any course of events can be replayed.
//!
//! The rules, all for the node as a whole and never per request:
//! * fetched at the start, and every [`Rules::refresh`]; after a failure again with growing pauses;
//! * a token whose key id is in no known set makes the set be fetched soon, but not within
//!   [`Rules::min_interval`] of the fetch before. Until a fetch that began after the id was first seen is back,
//!   nobody can say whether that key exists: the token is put off, not refused;
//! * an id that is missing in that set is refused. Those that come up to [`Rules::min_interval`] after the first that
//!   was refused are too; then the id asks again, as the issuer may have it by now;
//! * where a bad signature makes the set be fetched too, all tokens that name one id and are signed with no known key
//!   count as one question, which is asked again only after [`Rules::refresh`]. A set that was just fetched because the
//!   id was unknown answers it too;
//! * while the issuer cannot be reached the last set goes on being used, for at most [`Rules::max_stale`].
//!
//! Invariant: at most one fetch is under way; at most [`MAX_ASKED`] questions are remembered, by the id's hash. Further
//! ones are put off, but whatever is fetched serves them too.

use super::api_keys::hash;
use super::public_key::PublicKey;
use postrider_model::{Millis, Timestamp};
use std::collections::HashMap;
use std::sync::Arc;

/// Questions that are remembered.
const MAX_ASKED: usize = 1024;
/// The first pause after a failure; it doubles up to the minimal interval.
const FIRST_PAUSE: Millis = Millis::from_secs(1);
/// The longest `Retry-After` that is given to a token that has to wait.
const MAX_RETRY_S: u64 = 60;
/// An answer stands at least so long for a token that was put off to come back and hear it.
const UNHEARD: Millis = Millis::from_secs(10);

/// How long things take (`auth.jwt.jwks_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rules {
    pub refresh: Millis,
    pub min_interval: Millis,
    pub max_stale: Millis,
}

/// SHA-256 of a key id.
type IdHash = [u8; 32];

/// What only a further fetch can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Question {
    /// Whether the issuer has a key of this id.
    IsThere(IdHash),
    /// Whether it has another key of this id than the one that is known, or for tokens without an id.
    IsOther(IdHash),
}

#[derive(Debug)]
struct Asked {
    /// How many fetches had begun when it first came up: the next one is to answer it. Counted, as many things happen in
    /// one millisecond.
    after: u64,
    /// Until when the answer stands; `None` before there is one.
    stands: Option<Timestamp>,
}

/// What is said to a token.
#[derive(Debug)]
pub(super) enum Answer {
    /// These are the keys; if none of them fits, it is refused.
    Keys(Arc<Vec<PublicKey>>),
    /// Nobody can say now; to be asked again in so many seconds.
    Later(u32),
}

/// An issuer's keys as they are known.
#[derive(Debug)]
pub(super) struct KeyCache {
    rules: Rules,
    known: Option<Known>,
    /// When the fetch under way began.
    fetching: Option<Timestamp>,
    /// When the last one began.
    last_begun: Option<Timestamp>,
    /// How many began.
    begun: u64,
    /// When the next one is to begin.
    due: Timestamp,
    failures: u32,
    /// An operator asked while one was under way: another is to follow it.
    again: bool,
    asked: HashMap<Question, Asked>,
}

#[derive(Debug)]
struct Known {
    keys: Arc<Vec<PublicKey>>,
    /// When the fetch that brought them began.
    begun: Timestamp,
}

impl KeyCache {
    /// Knows nothing, and is to be filled at once.
    pub fn new(rules: Rules, now: Timestamp) -> KeyCache {
        KeyCache {
            rules,
            known: None,
            fetching: None,
            last_begun: None,
            begun: 0,
            due: now,
            failures: 0,
            again: false,
            asked: HashMap::new(),
        }
    }

    /// What to say to a token that names this key, or none. An unknown one may bring the next fetch forward.
    pub fn ask(&mut self, id: Option<&str>, now: Timestamp) -> Answer {
        let Some(keys) = self.usable(now) else {
            return self.later(now);
        };
        let Some(id) = id else {
            return Answer::Keys(keys);
        };
        let question = Question::IsThere(hash(id));
        if is_known(&keys, id) {
            // Who waited for it has it.
            self.hear(question, now);
            return Answer::Keys(keys);
        }
        self.unless_answered(question, keys, now)
    }

    /// What to say to a token that names a key of the set, or none, and is signed with none of the set: the issuer may
    /// have another key now. May bring the next fetch forward, as an unknown id does.
    pub fn doubt(&mut self, id: Option<&str>, now: Timestamp) -> Answer {
        let Some(keys) = self.usable(now) else {
            return self.later(now);
        };
        let name = hash(id.unwrap_or_default());
        // What was just fetched for the id, found or not, is as fresh as another set would be.
        let is_unknown = id.is_some_and(|id| !is_known(&keys, id));
        if is_unknown || self.hear(Question::IsThere(name), now) {
            return Answer::Keys(keys);
        }
        self.unless_answered(Question::IsOther(name), keys, now)
    }

    /// The keys, where they were fetched after this question came up; else the token has to wait for a fetch.
    fn unless_answered(&mut self, question: Question, keys: Arc<Vec<PublicKey>>, now: Timestamp) -> Answer {
        if self.hear(question, now) {
            return Answer::Keys(keys);
        }
        // Where there is no room one that was answered makes it; without, the question is a new one each time.
        if self.asked.len() >= MAX_ASKED && !self.asked.contains_key(&question) {
            self.forget_answered();
        }
        if self.asked.len() < MAX_ASKED {
            let after = self.begun;
            let stands = None;
            self.asked.entry(question).or_insert(Asked { after, stands });
        }
        let earliest = self.last_begun.map_or(now, |at| at.plus(self.rules.min_interval));
        self.due = self.due.min(earliest.max(now));
        self.later(now)
    }

    /// Whether there is an answer that stands, which a token hears now. One that has stood long enough is forgotten.
    fn hear(&mut self, question: Question, now: Timestamp) -> bool {
        let Some(asked) = self.asked.get_mut(&question) else {
            return false;
        };
        let Some(stands) = asked.stands else {
            return false;
        };
        if stands <= now {
            self.asked.remove(&question);
            return false;
        }
        if let Question::IsThere(_) = question {
            asked.stands = Some(stands.min(now.plus(self.rules.min_interval)));
        }
        true
    }

    /// Takes away a question that was answered.
    fn forget_answered(&mut self) {
        let answered = self.asked.iter().find(|(_, asked)| asked.stands.is_some());
        if let Some(question) = answered.map(|(question, _)| *question) {
            self.asked.remove(&question);
        }
    }

    /// The keys, unless there are none or they are too old.
    pub fn usable(&self, now: Timestamp) -> Option<Arc<Vec<PublicKey>>> {
        let known = self.known.as_ref()?;
        (now < known.begun.plus(self.rules.max_stale)).then(|| known.keys.clone())
    }

    fn later(&self, now: Timestamp) -> Answer {
        let wait = match self.fetching {
            Some(_) => 1,
            None => self.due.since(now).0.div_ceil(1000),
        };
        Answer::Later(wait.clamp(1, MAX_RETRY_S) as u32)
    }

    /// Whether there are keys that can be used.
    pub fn is_ready(&self, now: Timestamp) -> bool {
        self.usable(now).is_some()
    }

    /// How long until the next fetch is to begin; `None` while one is under way.
    pub fn wait(&self, now: Timestamp) -> Option<Millis> {
        self.fetching.is_none().then(|| self.due.since(now))
    }

    /// A fetch begins.
    pub fn begin(&mut self, now: Timestamp) {
        self.fetching = Some(now);
        self.last_begun = Some(now);
        self.begun += 1;
    }

    /// The fetch brought a set. `jitter` is 0 to 255: nodes that started together do not stay together.
    pub fn succeeded(&mut self, keys: Vec<PublicKey>, now: Timestamp, jitter: u8) {
        let begun = self.fetching.take().unwrap_or(now);
        self.failures = 0;
        self.due = now.plus(spread(self.rules.refresh, jitter));
        self.asked
            .retain(|_, asked| asked.stands.is_none_or(|until| now < until));
        let there: Vec<_> = keys
            .iter()
            .filter_map(|key| Some(Question::IsThere(hash(key.id()?))))
            .collect();
        let unheard = UNHEARD.max(self.rules.min_interval);
        for (question, asked) in &mut self.asked {
            // One that came while it was under way is answered only by a key that is there.
            if asked.stands.is_none() && (asked.after < self.begun || there.contains(question)) {
                asked.stands = Some(now.plus(match question {
                    Question::IsThere(_) => unheard,
                    Question::IsOther(_) => unheard.max(self.rules.refresh),
                }));
            }
        }
        self.known = Some(Known {
            keys: Arc::new(keys),
            begun,
        });
        if self.asked.values().any(|asked| asked.stands.is_none()) {
            self.due = self.due.min(begun.plus(self.rules.min_interval).max(now));
        }
        self.follow_up(now);
    }

    /// The fetch brought nothing.
    pub fn failed(&mut self, now: Timestamp, jitter: u8) {
        self.fetching = None;
        let most = self
            .rules
            .min_interval
            .max(FIRST_PAUSE)
            .min(self.rules.refresh.max(FIRST_PAUSE));
        let pause = FIRST_PAUSE
            .0
            .saturating_mul(1 << self.failures.min(16))
            .min(most.0);
        self.failures = self.failures.saturating_add(1);
        self.due = now.plus(spread(Millis(pause), jitter));
        self.follow_up(now);
    }

    fn follow_up(&mut self, now: Timestamp) {
        if std::mem::take(&mut self.again) {
            self.due = now;
        }
    }

    /// An operator asks: other rules from now on, and a fetch at once.
    pub fn renew(&mut self, rules: Rules, now: Timestamp) {
        self.rules = rules;
        self.due = now;
        self.again = self.fetching.is_some();
        self.asked.clear();
    }
}

/// Whether a key of this id may be among these. A set of keys without ids says nothing about any id.
fn is_known(keys: &[PublicKey], id: &str) -> bool {
    keys.iter().any(|key| key.id().is_none_or(|own| own == id))
}

/// Up to a tenth less.
fn spread(time: Millis, jitter: u8) -> Millis {
    Millis(time.0 - time.0 / 10 * u64::from(jitter) / 255)
}

#[cfg(test)]
#[path = "key_cache_tests.rs"]
mod tests;
