//! A cursor: the positions of an inbox's feeds as a short URL-safe token.
//!
//! Layout before base64url: version 1, namespace 0, then per feed a tag (kind, and for a topic eight bytes
//! of its name's hash), the epoch (4 bytes, little-endian) and the offset (LEB128); for a client that follows the
//! user's state map, tag 4 and the version that it has (LEB128); then a four-byte check over user and payload. The
//! check is no signature: it tells damage, and another user's cursor, from a position. A made-up cursor can hurt only
//! the inbox of the user who made it.

use crate::{Epoch, FeedId, FeedKind, Position, UserId};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The most that `inbox.max_feeds` may be.
pub const MAX_INBOX_FEEDS: usize = 128;
/// More feeds than this no cursor holds: a session may ask for as many topics as an inbox has feeds, and its user be a
/// member of as many others.
pub const MAX_CURSOR_FEEDS: usize = 2 * MAX_INBOX_FEEDS;

const VERSION: u8 = 1;
const NAMESPACE: u8 = 0;
/// Begins the version of the state, where a feed's kind would stand. No feed's kind.
const STATE: u8 = 4;

/// Why a text is not a cursor of this user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// Not made by this server, cut, or mistyped.
    #[error("the cursor is damaged or was not made by this server")]
    Malformed,
    /// Made by a newer version.
    #[error("the cursor was made by a newer version")]
    Version,
    /// Whole, but made for another user.
    #[error("the cursor belongs to another user, or is damaged")]
    Check,
}

/// Positions by feed. The name of a topic is not kept, only its hash.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor {
    places: Vec<(Tag, Position)>,
    state: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Tag(FeedKind, u64);

impl Tag {
    fn of(feed: &FeedId) -> Tag {
        match feed {
            FeedId::Topic(topic) => Tag(FeedKind::Topic, xxh3_64(topic.as_str().as_bytes())),
            _ => Tag(feed.kind(), 0),
        }
    }
}

impl Cursor {
    /// Gathers positions. A feed named twice keeps the last.
    pub fn new<'a>(positions: impl IntoIterator<Item = (&'a FeedId, Position)>) -> Cursor {
        let mut cursor = Cursor::default();
        for (feed, position) in positions {
            let tag = Tag::of(feed);
            match cursor.places.binary_search_by_key(&tag, |place| place.0) {
                Ok(i) => cursor.places[i].1 = position,
                Err(i) => cursor.places.insert(i, (tag, position)),
            }
        }
        cursor
    }

    /// The position it holds for `feed`.
    pub fn get(&self, feed: &FeedId) -> Option<Position> {
        let tag = Tag::of(feed);
        self.places
            .binary_search_by_key(&tag, |place| place.0)
            .ok()
            .map(|i| self.places[i].1)
    }

    /// The version of the user's state map that its client has; `None` where it has none.
    pub fn state(&self) -> Option<u64> {
        self.state
    }

    /// The same places, with this version of the state map.
    pub fn with_state(self, state: Option<u64>) -> Cursor {
        Cursor { state, ..self }
    }

    /// The token, for this user.
    pub fn encode(&self, user: &UserId) -> String {
        let mut bytes = vec![VERSION, NAMESPACE];
        for (Tag(kind, hash), position) in &self.places {
            bytes.push(*kind as u8);
            if *kind == FeedKind::Topic {
                bytes.extend_from_slice(&hash.to_le_bytes());
            }
            bytes.extend_from_slice(&position.epoch.0.to_le_bytes());
            push_leb128(&mut bytes, position.offset);
        }
        if let Some(version) = self.state {
            bytes.push(STATE);
            push_leb128(&mut bytes, version);
        }
        bytes.extend_from_slice(&check(user, &bytes).to_le_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a token that [`Cursor::encode`] made for the same user.
    pub fn decode(token: &str, user: &UserId) -> Result<Cursor, CursorError> {
        let bytes = URL_SAFE_NO_PAD
            .decode(token)
            .map_err(|_| CursorError::Malformed)?;
        let (payload, given) = bytes.split_last_chunk::<4>().ok_or(CursorError::Malformed)?;
        match payload {
            [VERSION, NAMESPACE, ..] => {}
            [version, ..] if *version > VERSION => return Err(CursorError::Version),
            _ => return Err(CursorError::Malformed),
        }
        if check(user, payload).to_le_bytes() != *given {
            return Err(CursorError::Check);
        }
        let mut places = Vec::new();
        let mut state = None;
        let mut rest = &payload[2..];
        while !rest.is_empty() {
            if let Some(mut version) = rest.strip_prefix(&[STATE]) {
                // It stands last.
                state = Some(read_leb128(&mut version).ok_or(CursorError::Malformed)?);
                match version {
                    [] => break,
                    _ => return Err(CursorError::Malformed),
                }
            }
            let place = read_place(&mut rest).ok_or(CursorError::Malformed)?;
            if places.len() >= MAX_CURSOR_FEEDS || places.last().is_some_and(|(tag, _)| *tag >= place.0) {
                return Err(CursorError::Malformed);
            }
            places.push(place);
        }
        Ok(Cursor { places, state })
    }
}

/// What every cursor of one user is sealed with, so that one who makes many need not look at the name each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CursorSeal(u64);

/// Bytes of a cursor of two feeds before base64url: two of head, twice a tag, an epoch and an offset, and the check.
const MAX_TWO: usize = 2 + 2 * (1 + 4 + 10) + 4;

impl CursorSeal {
    /// For this user.
    pub fn of(user: &UserId) -> CursorSeal {
        CursorSeal(xxh3_64(user.as_str().as_bytes()))
    }

    /// Appends the token of an inbox without topics: what [`Cursor::encode`] makes of the places in `all` and in the
    /// user's own feed.
    pub fn push(&self, out: &mut Vec<u8>, all: Option<Position>, own: Option<Position>) {
        let mut bytes = Scratch {
            bytes: [0; MAX_TWO],
            len: 0,
        };
        bytes.push(&[VERSION, NAMESPACE]);
        for (kind, place) in [(FeedKind::All, all), (FeedKind::User, own)] {
            if let Some(place) = place {
                bytes.push(&[kind as u8]);
                bytes.push(&place.epoch.0.to_le_bytes());
                bytes.push_leb128(place.offset);
            }
        }
        let check = xxh3_64_with_seed(&bytes.bytes[..bytes.len], self.0) as u32;
        bytes.push(&check.to_le_bytes());
        let mut text = [0; MAX_TWO.div_ceil(3) * 4];
        // It is long enough for all of the bytes, so there is no error.
        let len = URL_SAFE_NO_PAD
            .encode_slice(&bytes.bytes[..bytes.len], &mut text)
            .unwrap_or(0);
        out.extend_from_slice(&text[..len]);
    }
}

/// The bytes of a short cursor, on the stack.
struct Scratch {
    bytes: [u8; MAX_TWO],
    len: usize,
}

impl Scratch {
    fn push(&mut self, more: &[u8]) {
        self.bytes[self.len..self.len + more.len()].copy_from_slice(more);
        self.len += more.len();
    }

    fn push_leb128(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.push(&[n as u8 | 0x80]);
            n >>= 7;
        }
        self.push(&[n as u8]);
    }
}

fn read_place(rest: &mut &[u8]) -> Option<(Tag, Position)> {
    let kind = match rest.split_off_first()? {
        1 => FeedKind::All,
        2 => FeedKind::Topic,
        3 => FeedKind::User,
        _ => return None,
    };
    let hash = match kind {
        FeedKind::Topic => u64::from_le_bytes(rest.split_off(..8)?.try_into().ok()?),
        _ => 0,
    };
    let epoch = Epoch(u32::from_le_bytes(rest.split_off(..4)?.try_into().ok()?));
    Some((
        Tag(kind, hash),
        Position {
            epoch,
            offset: read_leb128(rest)?,
        },
    ))
}

/// A token of any payload, with the check that this payload needs.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn sealed(payload: &[u8], user: &UserId) -> String {
    URL_SAFE_NO_PAD.encode([payload, &check(user, payload).to_le_bytes()].concat())
}

fn check(user: &UserId, payload: &[u8]) -> u32 {
    xxh3_64_with_seed(payload, xxh3_64(user.as_str().as_bytes())) as u32
}

fn push_leb128(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn read_leb128(rest: &mut &[u8]) -> Option<u64> {
    let mut n = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *rest.split_off_first()?;
        let part = u64::from(byte & 0x7f);
        n |= part
            .checked_shl(shift)
            .filter(|shifted| shifted >> shift == part)?;
        if byte & 0x80 == 0 {
            return Some(n);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Topic;
    use proptest::prelude::*;

    fn user(name: &str) -> UserId {
        UserId::new(name).unwrap()
    }

    proptest! {
        #[test]
        fn reads_back_what_it_wrote(
            places in proptest::collection::vec((0u8..12, any::<u32>(), any::<u64>()), 0..12),
            state in any::<Option<u64>>(),
        ) {
            let feeds: Vec<_> = places.iter().map(|(n, epoch, offset)| {
                let feed = match n {
                    0 => FeedId::All,
                    1 => FeedId::User(user("ada")),
                    n => FeedId::Topic(Topic::new(&format!("t{n}")).unwrap()),
                };
                (feed, Position { epoch: Epoch(*epoch), offset: *offset })
            }).collect();
            let cursor = Cursor::new(feeds.iter().map(|(feed, position)| (feed, *position))).with_state(state);
            prop_assert_eq!(cursor.state(), state);
            let token = cursor.encode(&user("ada"));
            prop_assert_eq!(Cursor::decode(&token, &user("ada")), Ok(cursor.clone()));
            prop_assert_eq!(Cursor::decode(&token, &user("bob")), Err(CursorError::Check));
            for (feed, _) in &feeds {
                prop_assert!(cursor.get(feed).is_some());
            }
        }

        #[test]
        fn a_pushed_cursor_is_an_encoded_one(all in any::<Option<(u32, u64)>>(), own in any::<Option<(u32, u64)>>()) {
            let [all, own] = [all, own].map(|place| place.map(|(epoch, offset)| Position { epoch: Epoch(epoch), offset }));
            let feeds = [(FeedId::All, all), (FeedId::User(user("ada")), own)];
            let cursor = Cursor::new(feeds.iter().filter_map(|(feed, place)| Some((feed, (*place)?))));
            let mut pushed = b"before".to_vec();
            CursorSeal::of(&user("ada")).push(&mut pushed, all, own);
            prop_assert_eq!(pushed, [b"before", cursor.encode(&user("ada")).as_bytes()].concat());
        }

        #[test]
        fn never_panics_on_noise(token in "[A-Za-z0-9_-]{0,60}") {
            prop_assert!(Cursor::decode(&token, &user("ada")).is_err());
        }
    }

    #[test]
    fn the_state_stands_last_and_once() {
        let ada = user("ada");
        let place = [1, 7, 0, 0, 0, 5];
        for (payload, wanted) in [
            (&[&place[..], &[STATE, 9]].concat()[..], Ok(Some(9))),
            (&[STATE, 0], Ok(Some(0))),
            (&place, Ok(None)),
            (&[&[STATE, 9], &place[..]].concat(), Err(CursorError::Malformed)),
            (&[STATE, 9, STATE, 9], Err(CursorError::Malformed)),
            (&[STATE], Err(CursorError::Malformed)),
            (&[STATE, 0x80], Err(CursorError::Malformed)),
        ] {
            let token = sealed(&[&[VERSION, NAMESPACE], payload].concat(), &ada);
            assert_eq!(
                Cursor::decode(&token, &ada).map(|cursor| cursor.state()),
                wanted,
                "{payload:?}"
            );
        }
    }

    #[test]
    fn a_usual_cursor_is_short() {
        let place = Position {
            epoch: Epoch(0xdead_beef),
            offset: 123_456,
        };
        let cursor = Cursor::new([(&FeedId::All, place), (&FeedId::User(user("ada")), place)]);
        assert_eq!(cursor.encode(&user("ada")).len(), 30);
    }
}
