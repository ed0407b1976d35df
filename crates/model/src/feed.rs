//! Feeds and places in them. A feed is an ordered log; a position names one entry of it together with
//! the epoch that numbered that entry, so that a lost and renumbered tail shows as a gap.

use crate::{IdError, Topic, UserId};
use std::fmt;

/// An ordered log of entries.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FeedId {
    /// What was addressed to one user by name.
    User(UserId),
    /// What was addressed to a topic's subscribers.
    Topic(Topic),
    /// What was addressed to everyone.
    All,
}

/// The three kinds of feed, as a byte in keys and cursors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum FeedKind {
    /// `all`
    All = 1,
    /// `topic/<name>`
    Topic = 2,
    /// `user/<id>`
    User = 3,
}

/// The only namespace there is for now; every key and cursor begins with it.
const NAMESPACE_DEFAULT: u8 = 0;

impl FeedId {
    /// Which kind of feed this is.
    pub fn kind(&self) -> FeedKind {
        match self {
            FeedId::All => FeedKind::All,
            FeedId::Topic(_) => FeedKind::Topic,
            FeedId::User(_) => FeedKind::User,
        }
    }

    /// Whether one entry of it serves many users (fan-out on read).
    pub fn is_wide(&self) -> bool {
        !matches!(self, FeedId::User(_))
    }

    /// Appends the key form: namespace, kind, name, and a zero byte, which no name can hold. So no key
    /// is a prefix of another feed's, and no character of a name has a meaning.
    pub fn write_key(&self, key: &mut Vec<u8>) {
        let name = match self {
            FeedId::All => "",
            FeedId::Topic(topic) => topic.as_str(),
            FeedId::User(user) => user.as_str(),
        };
        FeedId::join_key(self.kind(), name, key);
    }

    /// Appends the key form of the feed of this kind and name.
    pub fn join_key(kind: FeedKind, name: &str, key: &mut Vec<u8>) {
        key.extend_from_slice(&[NAMESPACE_DEFAULT, kind as u8]);
        key.extend_from_slice(name.as_bytes());
        key.push(0);
    }

    /// Reads a key form and returns what follows it.
    pub fn read_key(key: &[u8]) -> Option<(FeedId, &[u8])> {
        let (kind, name, rest) = FeedId::split_key(key)?;
        let feed = match kind {
            FeedKind::All => FeedId::All,
            FeedKind::Topic => FeedId::Topic(Topic::new(name).ok()?),
            FeedKind::User => FeedId::User(UserId::new(name).ok()?),
        };
        Some((feed, rest))
    }

    /// Takes a key form apart: the kind, the name as it stands there, and what follows.
    pub fn split_key(key: &[u8]) -> Option<(FeedKind, &str, &[u8])> {
        let [NAMESPACE_DEFAULT, kind, rest @ ..] = key else {
            return None;
        };
        let end = rest.iter().position(|b| *b == 0)?;
        let name = std::str::from_utf8(&rest[..end]).ok()?;
        let kind = match *kind {
            1 if name.is_empty() => FeedKind::All,
            2 => FeedKind::Topic,
            3 => FeedKind::User,
            _ => return None,
        };
        Some((kind, name, &rest[end + 1..]))
    }

    /// Reads the text form that `Display` writes.
    pub fn parse(text: &str) -> Result<FeedId, IdError> {
        match text.split_once('/') {
            Some(("user", id)) => UserId::new(id).map(FeedId::User),
            Some(("topic", name)) => Topic::new(name).map(FeedId::Topic),
            _ if text == "all" => Ok(FeedId::All),
            _ => Err(IdError {
                what: "a feed",
                fault: "is user/<id>, topic/<name> or all",
            }),
        }
    }
}

impl fmt::Display for FeedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FeedId::All => f.write_str("all"),
            FeedId::Topic(topic) => write!(f, "topic/{topic}"),
            FeedId::User(user) => write!(f, "user/{user}"),
        }
    }
}

/// Which life of a store numbered an entry. An engine takes a new one whenever it cannot be sure that it
/// holds everything it ever numbered. Zero is no epoch: the place before the first entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Epoch(pub u32);

/// A place in a feed: the entry at `offset`, numbered in `epoch`. Offset 0 is before the first entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Position {
    /// Who numbered the entry.
    pub epoch: Epoch,
    /// 1 for the first entry of a feed, then without holes.
    pub offset: u64,
}

impl Position {
    /// Before the first entry of any feed.
    pub const START: Position = Position {
        epoch: Epoch(0),
        offset: 0,
    };
}

/// What of a feed is held: the offsets `first..=head.offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FeedSpan {
    /// The oldest offset still held; `head.offset + 1` where nothing is.
    pub first: u64,
    /// The newest entry; [`Position::START`] in a feed without entries.
    pub head: Position,
}

impl FeedSpan {
    /// A feed that never had an entry.
    pub const EMPTY: FeedSpan = FeedSpan {
        first: 1,
        head: Position::START,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back_and_never_overlap() {
        let feeds = [
            FeedId::All,
            FeedId::Topic(Topic::new("a").unwrap()),
            FeedId::Topic(Topic::new("a/b").unwrap()),
            FeedId::User(UserId::new("a").unwrap()),
            FeedId::User(UserId::new("ab").unwrap()),
        ];
        let key = |feed: &FeedId| {
            let mut key = Vec::new();
            feed.write_key(&mut key);
            key
        };
        for feed in &feeds {
            let mut with_rest = key(feed);
            with_rest.extend_from_slice(b"rest");
            assert_eq!(FeedId::read_key(&with_rest), Some((feed.clone(), &b"rest"[..])));
            assert_eq!(FeedId::parse(&feed.to_string()).as_ref(), Ok(feed));
            for other in feeds.iter().filter(|other| *other != feed) {
                assert!(!key(other).starts_with(&key(feed)));
            }
        }
    }
}
