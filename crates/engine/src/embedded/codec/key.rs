//! Keys. Each function builds one table's key, or the prefix that its rows share.

use postrider_model::{FeedId, Millis, NotificationId, Timestamp, Topic, UserId};

pub fn feed(feed: &FeedId) -> Vec<u8> {
    let mut key = Vec::with_capacity(32);
    feed.write_key(&mut key);
    key
}
pub fn entry(of: &FeedId, offset: u64) -> Vec<u8> {
    let mut key = feed(of);
    key.extend_from_slice(&offset.to_be_bytes());
    key
}
/// Among the past entries of a feed, for what never was one: beyond all offsets that are given.
pub fn unplaced(of: &FeedId, id: &NotificationId) -> Vec<u8> {
    entry(of, 1 << 63 | xxhash_rust::xxh3::xxh3_64(id.as_str().as_bytes()))
}
pub fn offset_of(key: &[u8]) -> Option<u64> {
    key.last_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes))
}
pub fn recipients(id: &NotificationId) -> Vec<u8> {
    let mut key = id.as_str().as_bytes().to_vec();
    key.push(0);
    key
}
pub fn recipient(id: &NotificationId, user: &UserId) -> Vec<u8> {
    let mut key = recipients(id);
    key.extend_from_slice(user.as_str().as_bytes());
    key
}
pub fn user_feed(user: &UserId, of: &FeedId) -> Vec<u8> {
    let mut key = user.as_str().as_bytes().to_vec();
    key.push(0);
    of.write_key(&mut key);
    key
}
pub fn floor(user: &UserId, of: &FeedId, kind: u8) -> Vec<u8> {
    let mut key = user_feed(user, of);
    key.push(kind);
    key
}
pub fn mark(user: &UserId, of: &FeedId, offset: u64, kind: u8) -> Vec<u8> {
    let mut key = user_feed(user, of);
    key.extend_from_slice(&offset.to_be_bytes());
    key.push(kind);
    key
}
pub fn range(user: &UserId, of: &FeedId, last: u64) -> Vec<u8> {
    let mut key = user_feed(user, of);
    key.extend_from_slice(&last.to_be_bytes());
    key
}
pub fn settler(of: &FeedId, user: &UserId) -> Vec<u8> {
    let mut key = feed(of);
    key.extend_from_slice(user.as_str().as_bytes());
    key
}
pub fn collapse(of: &FeedId, collapse_key: &str) -> Vec<u8> {
    let mut key = feed(of);
    key.extend_from_slice(collapse_key.as_bytes());
    key
}
pub fn due(at: Timestamp, kind: u8, id: &NotificationId) -> Vec<u8> {
    let mut key = at.0.to_be_bytes().to_vec();
    key.push(kind);
    key.extend_from_slice(id.as_str().as_bytes());
    key
}
pub fn give_up(at: Timestamp, kind: u8, id: &NotificationId, user: &UserId) -> Vec<u8> {
    let mut key = due(at, kind, id);
    key.push(0);
    key.extend_from_slice(user.as_str().as_bytes());
    key
}
pub fn age(stage: u8, at: Timestamp, what: &[u8]) -> Vec<u8> {
    let mut key = vec![stage];
    key.extend_from_slice(&at.0.to_be_bytes());
    key.extend_from_slice(what);
    key
}
/// A cohort: what was accepted at a time, to live so long; and a number, as there may be several.
pub fn cohort(stage: u8, span: Millis, at: Timestamp, number: u64) -> Vec<u8> {
    let mut key = vec![stage];
    for part in [span.0, at.0, number] {
        key.extend_from_slice(&part.to_be_bytes());
    }
    key
}
/// The time to live and the time of a cohort.
pub fn cohort_parts(key: &[u8]) -> Option<(Millis, Timestamp)> {
    let (span, rest) = key.get(1..)?.split_first_chunk::<8>()?;
    let at = rest.first_chunk::<8>()?;
    Some((
        Millis(u64::from_be_bytes(*span)),
        Timestamp(u64::from_be_bytes(*at)),
    ))
}
/// The time and the subject of a row of ages.
pub fn age_parts(key: &[u8]) -> Option<(Timestamp, &[u8])> {
    let (at, what) = key.get(1..)?.split_first_chunk::<8>()?;
    Some((Timestamp(u64::from_be_bytes(*at)), what))
}
pub fn letters_of(user: &UserId) -> Vec<u8> {
    let mut key = user.as_str().as_bytes().to_vec();
    key.push(0);
    key
}
pub fn letter_of(user: &UserId, letter: u64) -> Vec<u8> {
    let mut key = letters_of(user);
    key.extend_from_slice(&letter.to_be_bytes());
    key
}
pub fn members(of: &Topic) -> Vec<u8> {
    let mut key = of.as_str().as_bytes().to_vec();
    key.push(0);
    key
}
pub fn member(of: &Topic, user: &UserId) -> Vec<u8> {
    let mut key = members(of);
    key.extend_from_slice(user.as_str().as_bytes());
    key
}
/// In tables that have one row for each user.
pub fn user(user: &UserId) -> Vec<u8> {
    user.as_str().as_bytes().to_vec()
}
/// Names a user's state map without saying whose it is.
pub fn erased_state(of: &UserId) -> Vec<u8> {
    let mut key = feed(&FeedId::User(of.clone()));
    key.extend_from_slice(b"state");
    xxhash_rust::xxh3::xxh3_128(&key).to_be_bytes().to_vec()
}
/// Names a feed without saying whose it is.
pub fn erased(of: &FeedId) -> Vec<u8> {
    xxhash_rust::xxh3::xxh3_128(&feed(of)).to_be_bytes().to_vec()
}
/// The first key after every key that begins with `prefix`.
pub fn after(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    vec![0xff; 300]
}
