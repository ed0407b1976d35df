//! What has to hold of this crate's parsers for any bytes: one function per fuzz target, which panics where it
//! does not. The targets under `fuzz/` feed them for hours, the tests with the inputs that are kept.
//!
//! No part of the interface: it is there for tests and under the feature `fuzzing`.

use crate::cursor::sealed;
use crate::{
    ByteSize, Cursor, CursorSeal, FeedId, Millis, NotificationId, SessionId, Timestamp, Topic, UserId,
};

/// A cursor: from text as it stands, or from a payload that is given its right check, since no fuzzer guesses
/// one. What is read can be written, and reads the same; only its user can read it.
pub fn cursor(data: &[u8]) {
    let (Ok(ada), Ok(bob)) = (UserId::new("ada"), UserId::new("bob")) else {
        return;
    };
    let Some((choice, rest)) = data.split_first() else {
        return;
    };
    let token = match choice & 1 {
        0 => String::from_utf8_lossy(rest).into_owned(),
        _ => sealed(rest, &ada),
    };
    let Ok(cursor) = Cursor::decode(&token, &ada) else {
        return;
    };
    assert_eq!(Cursor::decode(&cursor.encode(&ada), &ada).as_ref(), Ok(&cursor));
    assert!(
        cursor.encode(&ada).len() <= token.len(),
        "what is written is the shortest"
    );
    assert!(Cursor::decode(&token, &bob).is_err(), "another user reads it");
    let own = FeedId::User(ada.clone());
    let (all, mine) = (cursor.get(&FeedId::All), cursor.get(&own));
    let places = [(FeedId::All, all), (own.clone(), mine)];
    let short = Cursor::new(places.iter().filter_map(|(feed, place)| Some((feed, (*place)?))));
    let mut pushed = Vec::new();
    CursorSeal::of(&ada).push(&mut pushed, all, mine);
    assert_eq!(
        pushed,
        short.encode(&ada).as_bytes(),
        "two ways to write one cursor"
    );
    for feed in [FeedId::All, own] {
        if let Some(position) = cursor.get(&feed) {
            assert_eq!(Cursor::new([(&feed, position)]).get(&feed), Some(position));
        }
    }
}

/// Ids, feeds, lengths of time, sizes and instants: what is read is written so that it reads the same.
pub fn words(data: &[u8]) {
    if let Some((feed, rest)) = FeedId::read_key(data) {
        let mut key = Vec::new();
        feed.write_key(&mut key);
        assert_eq!([key.as_slice(), rest].concat(), data);
    }
    let Ok(text) = str::from_utf8(data) else { return };
    for read in [
        UserId::new(text).map(|id| id.to_string()),
        Topic::new(text).map(|id| id.to_string()),
        NotificationId::new(text).map(|id| id.to_string()),
        SessionId::new(text).map(|id| id.to_string()),
        FeedId::parse(text).map(|id| id.to_string()),
    ] {
        assert!(read.is_err() || read.as_deref() == Ok(text));
    }
    if let Ok(span) = Millis::parse(text) {
        assert_eq!(Millis::parse(&span.to_string()), Ok(span), "{text}");
    }
    if let Ok(size) = ByteSize::parse(text) {
        assert_eq!(ByteSize::parse(&size.to_string()), Ok(size), "{text}");
    }
    if let Some(time) = Timestamp::parse_rfc3339(text) {
        assert!(time <= Timestamp::MAX);
        assert_eq!(Timestamp::parse_rfc3339(&time.to_string()), Some(time), "{text}");
    }
}

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::replay::corpus;

    #[test]
    fn the_kept_inputs_hold() {
        corpus("cursor", super::cursor);
        corpus("words", super::words);
    }
}
