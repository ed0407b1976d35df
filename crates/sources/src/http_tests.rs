use super::*;
use proptest::prelude::*;

const MOST: Most = Most {
    depth: 64,
    array: 3,
    users: 4,
    exclude_users: 3,
    topics: 2,
};

fn one(text: &str) -> Result<Draft, Fault> {
    match decode_body(text.as_bytes(), &MOST)? {
        Body::One(draft) => *draft,
        Body::Array(_) => panic!("an array"),
    }
}

#[test]
fn every_field_is_decoded() {
    let draft = one(
        r#" {"users": ["ada","b\u00f6b"], "exclude_users": ["eve"], "subject": "Order \"7\"", "data": {"order": 7.0, "big": 12345678901234567890123},
            "id": "n", "durability": "transient", "ttl": "24h", "deliver_at": "2026-12-01T09:00:00Z", "collapse_key": "c", "policy": "default", "devices": "first"} "#,
    )
    .unwrap();
    assert_eq!(draft.users.unwrap(), ["ada", "böb"]);
    assert_eq!(draft.exclude_users, ["eve"]);
    assert_eq!(draft.data, r#"{"order":7.0,"big":12345678901234567890123}"#);
    assert_eq!(draft.durability, Durability::Transient);
    assert_eq!(draft.ttl, Some(Millis::from_secs(86_400)));
    assert_eq!(draft.deliver_at.unwrap().to_string(), "2026-12-01T09:00:00.000Z");
    assert_eq!(draft.devices, Devices::First);
    assert_eq!(one(r#"{"data":null,"ttl":1.5}"#).unwrap().ttl, Some(Millis(1500)));
    assert_eq!(one(r#"{"d\u0061ta":null}"#).unwrap().data, "null");
}

#[test]
fn faults_point_at_their_place() {
    let table = [
        (r#"{}"#, Some("/data")),
        (r#"{"data":1,"user":["ada"]}"#, Some("/user")),
        (r#"{"data":1,"a/b~":1}"#, Some("/a~1b~0")),
        (r#"{"data":1,"data":2}"#, Some("/data")),
        (r#"{"data":1,"users":"ada"}"#, Some("/users")),
        (r#"{"data":1,"users":null}"#, Some("/users")),
        (r#"{"data":1,"users":["ada",7]}"#, Some("/users/1")),
        (r#"{"data":1,"users":["\ud800"]}"#, Some("/users/0")),
        (r#"{"data":1,"subject":{}}"#, Some("/subject")),
        (r#"{"data":1,"subject":null}"#, Some("/subject")),
        (r#"{"data":1,"durability":"maybe"}"#, Some("/durability")),
        (r#"{"data":1,"devices":"second"}"#, Some("/devices")),
        (r#"{"data":1,"ttl":"soon"}"#, Some("/ttl")),
        (r#"{"data":1,"ttl":-1}"#, Some("/ttl")),
        (r#"{"data":1,"ttl":1e99}"#, Some("/ttl")),
        (r#"{"data":1,"ttl":true}"#, Some("/ttl")),
        (r#"{"data":1,"deliver_at":"tomorrow"}"#, Some("/deliver_at")),
        (r#"7"#, Some("")),
        (r#""#, None),
        (r#"{"data":1"#, None),
        (r#"{"data":1} {}"#, None),
        (r#"{"data":01}"#, None),
    ];
    for (text, pointer) in table {
        let fault = one(text).unwrap_err();
        assert_eq!(fault.code, FaultCode::InvalidNotification, "{text}");
        assert_eq!(fault.pointer.as_deref(), pointer, "{text}: {fault}");
    }
    assert!(
        one(r#"{"data":1,"user":[]}"#)
            .unwrap_err()
            .detail
            .contains("`users`")
    );
    assert!(decode_body(b"{\"data\":\"\xff\"}", &MOST).is_err());
}

#[test]
fn items_of_an_array_stand_each_for_itself() {
    let Ok(Body::Array(mut items)) = decode_body(br#"[{"data":1}, 7, {"data":[]}]"#, &MOST) else {
        panic!()
    };
    assert!(items.next().unwrap().is_ok());
    assert!(items.next().unwrap().is_err());
    assert!(items.next().unwrap().is_ok());
    assert!(items.next().is_none());
    let Ok(Body::Array(mut items)) = decode_body(b"[]", &MOST) else {
        panic!()
    };
    assert!(items.next().is_none());
    let fault = decode_body(b"[1,2,3,4]", &MOST).unwrap_err();
    assert_eq!(fault.code, FaultCode::TooLarge);
    assert!(decode_body(br#"[{"data":1},"#, &MOST).is_err());
    assert!(decode_body(br#"[{"data":1}]]"#, &MOST).is_err());
}

#[test]
fn of_lists_that_are_too_long_one_more_than_is_allowed_is_kept() {
    let names = |field: &str, names: &str| one(&format!(r#"{{"data":1,"{field}":[{names}]}}"#));
    let many = vec![r#""a\n""#; 1000].join(",");
    assert_eq!(names("users", &many).unwrap().users.unwrap(), ["a\n"; 5]);
    assert_eq!(names("exclude_users", &many).unwrap().exclude_users.len(), 4);
    assert_eq!(names("topics", &many).unwrap().topics.unwrap().len(), 3);
    // What is wrong is found among those; what is not kept is still JSON, or the body is none.
    assert_eq!(
        names("users", r#""a","b","c",4,"e""#)
            .unwrap_err()
            .pointer
            .as_deref(),
        Some("/users/3")
    );
    assert_eq!(
        names("topics", r#""a","b","c",4"#).unwrap().topics.unwrap().len(),
        3
    );
    assert!(names("topics", r#""a","b","c",04"#).is_err());
}

#[test]
fn nesting_is_bounded_without_recursion() {
    let nested = |depth: usize| format!(r#"{{"data":{}1{}}}"#, "[".repeat(depth), "]".repeat(depth));
    assert!(one(&nested(63)).is_ok());
    assert!(one(&nested(64)).unwrap_err().detail.contains("65 deep"));
    assert!(one(&nested(1_000_000)).is_err());
    assert!(decode_body("[".repeat(1_000_000).as_bytes(), &MOST).is_err());
}

proptest! {
    #[test]
    fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in r#"[\[\]{}":,a-z0-9\\ ]{0,80}"#) {
        for input in [&bytes[..], text.as_bytes()] {
            if let Err(fault) = decode_body(input, &Most { depth: 8, ..MOST }) {
                prop_assert!(!fault.detail.is_empty());
            }
        }
    }
}
