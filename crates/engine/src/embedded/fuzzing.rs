//! What has to hold of the store's readers for any bytes: one function per fuzz target, which panics where it
//! does not. The targets under `fuzz/` feed them for hours, the tests with the inputs that are kept.
//!
//! No part of the interface: it is there for tests and under the feature `fuzzing`.

pub use super::journal::fuzzing::journal;

use super::codec::people::{UserRecord, decode_memberships, decode_state, encode_memberships, encode_state};
use super::codec::{
    EntryRecord, Held, LetterRecord, Reader, Record, decode_mark, encode_mark, encode_range, key,
};
use postrider_model::{MarkKind, NotificationId, UserId};

/// The kinds of row that came after the others: a user's record, memberships, a state map.
const LATER: u8 = 0xf0;
const MEMBERSHIPS: u8 = LATER + 1;
const STATE: u8 = LATER + 2;

/// A row's value, of the kind that the first byte chooses: whatever a disk made of it, reading it is an answer or
/// an error, and an answer is written so that it reads the same.
pub fn record(data: &[u8]) {
    let (Some((choice, value)), Ok(id)) = (data.split_first(), NotificationId::new("n-1")) else {
        return;
    };
    // Those that came later stand apart, so that the inputs that are kept mean what they meant.
    match if *choice < LATER { choice % 8 } else { *choice } {
        LATER => {
            if let Ok(user) = UserRecord::decode(value) {
                assert!(UserRecord::decode(&longer(value)).is_err());
                assert_eq!(UserRecord::decode(&user.encode()).ok(), Some(user));
            }
        }
        MEMBERSHIPS => {
            if let Ok(memberships) = decode_memberships(value) {
                assert!(decode_memberships(&longer(value)).is_err());
                let again = decode_memberships(&encode_memberships(&memberships));
                assert_eq!(again.ok(), Some(memberships));
            }
        }
        STATE => {
            if let Ok(state) = decode_state(value) {
                assert!(state.json().len() >= 2, "no object");
                assert!(decode_state(&longer(value)).is_err());
                assert_eq!(decode_state(&encode_state(&state)).ok(), Some(state));
            }
        }
        0 => {
            if let Ok(record) = Record::decode(&id, value) {
                assert!(held(&record) <= value.len(), "more than there was");
                assert!(Record::decode(&id, &longer(value)).is_err());
                assert_eq!(Record::decode(&id, &record.encode()).ok(), Some(record));
            }
        }
        1 => {
            if let Ok(entry) = EntryRecord::decode(value) {
                assert_eq!(EntryRecord::decode(&entry.encode()).ok(), Some(entry));
            }
        }
        2 => {
            if let Ok(letter) = LetterRecord::decode(value) {
                assert!(LetterRecord::decode(&longer(value)).is_err());
                assert_eq!(LetterRecord::decode(&letter.encode()).ok(), Some(letter));
            }
        }
        3 => {
            if let Ok(mark) = decode_mark(7, MarkKind::Read, value) {
                assert!(decode_mark(7, MarkKind::Read, &longer(value)).is_err());
                assert_eq!(
                    decode_mark(7, MarkKind::Read, &encode_mark(&mark)).ok(),
                    Some(mark)
                );
            }
        }
        4 => range(value),
        5 => whole(value),
        6 => {
            if let Ok(Some(home)) = Held::home(value) {
                assert!(Held::home(&longer(value)).is_err());
                assert_eq!(Held::home(&Held::encode_home(&home)).ok(), Some(Some(home)));
                assert!(Record::decode(&id, value).is_err(), "a record and a place");
            }
        }
        _ => {
            if let Some((at, what)) = key::age_parts(value) {
                assert_eq!(key::age(value[0], at, what), value);
            }
        }
    }
}

/// A mark in `ranges`, whose kind stands before it.
fn range(value: &[u8]) {
    let read = |value: &[u8]| {
        let mut reader = Reader::new("ranges", value).ok()?;
        let kind = MarkKind::from_byte(reader.u8().ok()?)?;
        reader.mark(7, kind).ok()
    };
    if let Some(mark) = read(value) {
        assert_eq!(read(&encode_range(&mark)), Some(mark));
    }
}

/// An entry in which a notification stands whole, with its record.
fn whole(value: &[u8]) {
    let Ok(user) = UserId::new("ada") else { return };
    let Ok(Some(record)) = Record::of_entry(value, &user, 9) else {
        return;
    };
    assert!(Record::of_entry(&longer(value), &user, 9).is_err());
    let entry = EntryRecord::decode(value).expect("its entry is read as well");
    let again = Record::of_entry(&record.encode_entry(entry.epoch), &user, 9);
    assert_eq!(again.ok(), Some(Some(record)));
}

/// What is no value, since nothing follows one.
fn longer(value: &[u8]) -> Vec<u8> {
    [value, b"\0"].concat()
}

/// Bytes of text and data in a record.
fn held(record: &Record) -> usize {
    let notification = &record.notification;
    let texts = [
        &notification.subject,
        &notification.collapse_key,
        &notification.policy,
    ];
    let texts: usize = texts.into_iter().flatten().map(String::len).sum();
    let users: usize = notification.exclude.iter().map(|user| user.as_str().len()).sum();
    texts + users + notification.publisher.len() + notification.data.len()
}

/// What nodes tell one another: whatever comes is an answer or an error, and an answer is said again as it came.
pub fn news(data: &[u8]) {
    if let Ok(heard) = super::news::decode(data) {
        assert!(super::news::decode(&longer(data)).is_err());
        let said = super::news::encode(&heard);
        let again = super::news::decode(&said).map(|heard| super::news::encode(&heard));
        assert_eq!(again.ok(), Some(said));
    }
}

#[cfg(test)]
#[path = "../../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::replay::corpus;

    #[test]
    fn the_kept_inputs_hold() {
        corpus("record", super::record);
        corpus("journal", super::journal);
        corpus("news", super::news);
    }
}
