//! What is written reads back, and damage is an error.

use super::*;
use crate::embedded::StoreFault;
use bytes::Bytes;
use postrider_model::{
    Audience, DeadReason, Devices, Durability, Epoch, FeedId, Mark, MarkKind, Notification, NotificationId,
    Position, SessionId, Timestamp, Topic, Transport, UserId, WithdrawReason,
};
use std::sync::Arc;

fn sample() -> Record {
    Record {
        notification: Arc::new(Notification {
            id: NotificationId::new("n-1").unwrap(),
            time: Timestamp(5),
            subject: Some("s".into()),
            data: Bytes::from_static(b"{}"),
            audience: Audience::Topics(vec![Topic::new("t").unwrap()]),
            exclude: vec![UserId::new("eve").unwrap()],
            durability: Durability::Stored,
            expires_at: Some(Timestamp(9)),
            deliver_at: None,
            collapse_key: Some("k".into()),
            policy: None,
            devices: Devices::First,
            publisher: "test".into(),
        }),
        content: 7,
        cancelled_at: Some(Timestamp(8)),
        kept_from: Timestamp(6),
        bodiless: true,
        home: None,
        scheduled: true,
        recipients: None,
        placements: vec![(
            FeedId::Topic(Topic::new("t").unwrap()),
            Position {
                epoch: Epoch(1),
                offset: 2,
            },
        )],
    }
}

#[test]
fn records_read_back_and_any_cut_is_an_error() {
    let record = sample();
    let bytes = record.encode();
    let id = &record.notification.id;
    assert_eq!(Record::decode(id, &bytes).unwrap(), record);
    for cut in 0..bytes.len() {
        assert!(Record::decode(id, &bytes[..cut]).is_err(), "cut at {cut}");
    }
    let mut newer = bytes;
    newer[0] = VERSION + 1;
    assert!(matches!(
        Record::decode(id, &newer),
        Err(StoreFault::Newer { .. })
    ));
}

#[test]
fn what_stands_whole_in_an_entry_reads_back_and_any_cut_is_an_error() {
    let (user, epoch, offset) = (UserId::new("ada").unwrap(), Epoch(3), 9);
    let home = (user.clone(), Position { epoch, offset });
    let record = Record {
        home: Some(home.clone()),
        ..sample()
    };
    let bytes = record.encode_entry(epoch);
    assert_eq!(
        Record::of_entry(&bytes, &user, offset).unwrap(),
        Some(record.clone())
    );
    let entry = EntryRecord::decode(&bytes).unwrap();
    let id = record.notification.id.clone();
    let kind = EntryKindRecord::Notification { id, withdrawn: None };
    assert_eq!(entry, EntryRecord { epoch, kind });
    assert_eq!(Record::of_entry(&entry.encode(), &user, offset).unwrap(), None);
    for cut in 0..bytes.len() {
        assert!(
            Record::of_entry(&bytes[..cut], &user, offset).is_err(),
            "cut at {cut}"
        );
    }
    let bytes = Held::encode_home(&home);
    assert_eq!(Held::home(&bytes).unwrap(), Some(home));
    assert_eq!(Held::home(&record.encode()).unwrap(), None);
    for cut in 0..bytes.len() {
        assert!(Held::home(&bytes[..cut]).is_err(), "cut at {cut}");
    }
}

#[test]
fn what_follows_a_value_is_damage() {
    let longer = |bytes: Vec<u8>| [&bytes[..], b"\0"].concat();
    let record = sample();
    let id = record.notification.id.clone();
    let user = UserId::new("ada").unwrap();
    let kind = EntryKindRecord::Notification {
        id: id.clone(),
        withdrawn: None,
    };
    let entry = EntryRecord {
        epoch: Epoch(3),
        kind,
    };
    let letter = LetterRecord {
        notification: Some(id.clone()),
        user: None,
        reason: DeadReason::Overflow,
        source: "test".into(),
        attempts: 4,
        time: Timestamp(3),
        raw: None,
        detail: None,
    };
    let mark = Mark {
        offset: 9,
        from: 3,
        kind: MarkKind::Delivered,
        time: Timestamp(1),
        session: None,
        transport: None,
        why: String::new(),
    };
    assert!(Record::decode(&id, &longer(record.encode())).is_err());
    assert!(Record::of_entry(&longer(record.encode_entry(Epoch(3))), &user, 9).is_err());
    assert!(EntryRecord::decode(&longer(entry.encode())).is_err());
    assert!(LetterRecord::decode(&longer(letter.encode())).is_err());
    let detailed = LetterRecord {
        detail: Some("no JSON".into()),
        ..letter
    };
    assert!(LetterRecord::decode(&longer(detailed.encode())).is_err());
    assert!(decode_mark(9, mark.kind, &longer(encode_mark(&mark))).is_err());
    assert!(Held::decode(&id, &longer(Held::encode_home(&(user, Position::START)))).is_err());
}

#[test]
fn a_dead_letter_without_a_detail_is_written_as_it_ever_was() {
    // By the code that knew no details.
    let old = b"\x03\0\x01\x03\0\0\0ada\x02\x01\0\0\0q\x05\0\0\0\x09\0\0\0\0\0\0\0\x01\x02\0\0\0\xff{";
    let letter = LetterRecord {
        notification: None,
        user: Some(UserId::new("ada").unwrap()),
        reason: DeadReason::Undecodable,
        source: "q".into(),
        attempts: 5,
        time: Timestamp(9),
        raw: Some(Bytes::from_static(b"\xff{")),
        detail: None,
    };
    assert_eq!(letter.encode(), old);
    for version in 1..=VERSION {
        let old = [&[version], &old[1..]].concat();
        assert_eq!(LetterRecord::decode(&old).unwrap(), letter, "version {version}");
    }
    let detailed = LetterRecord {
        detail: Some("why".into()),
        ..letter
    };
    let new = [&[4], &old[1..], b"\x03\0\0\0why"].concat();
    assert_eq!(detailed.encode(), new);
    assert_eq!(LetterRecord::decode(&new).unwrap(), detailed);
    for cut in 0..new.len() {
        assert!(LetterRecord::decode(&new[..cut]).is_err(), "cut at {cut}");
    }
    let newer = [&[5], &new[1..]].concat();
    assert!(matches!(
        LetterRecord::decode(&newer),
        Err(StoreFault::Newer { .. })
    ));
}

#[test]
fn keys_of_a_prefix_end_before_after() {
    assert_eq!(key::after(b"ab"), b"ac");
    assert_eq!(key::after(&[1, 0xff]), [2]);
    let all = key::recipients(&NotificationId::new("a").unwrap());
    let other = key::recipients(&NotificationId::new("a.b").unwrap());
    assert!(!other.starts_with(&all));
}

proptest::proptest! {
    /// Whatever a disk makes of a value, reading it is an answer or an error.
    #[test]
    fn damage_never_panics(cut in 0usize..400, flips in proptest::collection::vec((0usize..400, 0u8..8), 0..6)) {
        let record = sample();
        let id = record.notification.id.clone();
        let ids = vec![id.clone(), NotificationId::new("n-2").unwrap()];
        let origin = Some(SessionId::new("s").unwrap());
        let kinds = [
            EntryKindRecord::Notification { id: id.clone(), withdrawn: Some(WithdrawReason::Taken) },
            EntryKindRecord::Read { ids, origin: origin.clone() },
            EntryKindRecord::Withdrawn { id: id.clone(), target: 4, reason: WithdrawReason::Expired, origin: origin.clone() },
        ];
        let mark = Mark {
            offset: 9,
            from: 3,
            kind: MarkKind::Delivered,
            time: Timestamp(1),
            session: origin,
            transport: Some(Transport::Sse),
            why: "pong".into(),
        };
        proptest::prop_assert_eq!(&decode_mark(9, mark.kind, &encode_mark(&mark)).unwrap(), &mark);
        let mut values = vec![record.encode(), encode_mark(&mark), encode_range(&mark)];
        for kind in kinds {
            let entry = EntryRecord { epoch: Epoch(3), kind };
            proptest::prop_assert_eq!(&EntryRecord::decode(&entry.encode()).unwrap(), &entry);
            values.push(entry.encode());
        }
        let letter = LetterRecord {
            notification: Some(id.clone()),
            user: Some(UserId::new("ada").unwrap()),
            reason: DeadReason::Overflow,
            source: "test".into(),
            attempts: 4,
            time: Timestamp(3),
            raw: Some(Bytes::from_static(b"raw")),
            detail: None,
        };
        let detailed = LetterRecord { detail: Some("at byte 3: no JSON".into()), ..letter.clone() };
        for letter in [letter, detailed] {
            proptest::prop_assert_eq!(&LetterRecord::decode(&letter.encode()).unwrap(), &letter);
            values.push(letter.encode());
        }
        values.push(record.encode_entry(Epoch(3)));
        let ada = UserId::new("ada").unwrap();
        values.push(Held::encode_home(&(ada.clone(), Position::START)));
        for mut value in values {
            value.truncate(cut);
            for (at, bit) in &flips {
                if let Some(byte) = value.get_mut(*at) {
                    *byte ^= 1 << bit;
                }
            }
            drop(Record::decode(&id, &value));
            drop(EntryRecord::decode(&value));
            drop(Record::of_entry(&value, &ada, 1));
            drop(Held::decode(&id, &value));
            drop(LetterRecord::decode(&value));
            drop(decode_mark(1, MarkKind::Read, &value));
            drop(FeedId::read_key(&value));
        }
    }
}
