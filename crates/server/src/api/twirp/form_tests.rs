use super::super::generated::notify::AuthRequest;
use super::super::generated::postrider_v1::publish_request::{Audience, Payload};
use super::super::generated::postrider_v1::{
    Durability, GetResponse, PatchStateRequest, PublishBatchRequest, PublishRequest, Users, get_response,
};
use super::*;
use crate::bodies::Bodies;

fn budget() -> Budget {
    Budget::new(Bodies::new(1 << 20).room(), 1 << 20)
}

fn of<M: Form>(text: &str) -> Result<M, Unreadable> {
    read(text.as_bytes(), Unknown::Refused, &mut budget())
}

/// Where and why.
fn fault<M: Form + std::fmt::Debug>(text: &str) -> (Option<String>, String) {
    match of::<M>(text) {
        Err(Unreadable::Malformed { detail, pointer }) => (pointer, detail),
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn a_request_is_read_by_either_of_its_names() {
    let text = r#" {"users": {"ids": ["ada", "bob"]}, "excludeUsers": ["bob"], "data" : {"a": [1.0, 9007199254740993]},
        "durability": "DURABILITY_STORED", "ttl": "1.500s", "deliverAt": "2026-12-01T09:00:00+01:00", "subject": null} "#;
    let request: PublishRequest = of(text).unwrap();
    let expected = PublishRequest {
        audience: Some(Audience::Users(Users {
            ids: vec!["ada".into(), "bob".into()],
        })),
        exclude_users: vec!["bob".into()],
        payload: Some(Payload::DataJson(r#"{"a": [1.0, 9007199254740993]}"#.into())),
        durability: Durability::Stored.into(),
        ttl: Some(prost_types::Duration {
            seconds: 1,
            nanos: 500_000_000,
        }),
        deliver_at: Some(prost_types::Timestamp {
            seconds: 1_796_112_000,
            nanos: 0,
        }),
        ..PublishRequest::default()
    };
    assert_eq!(request, expected);
    let by_number: PublishRequest = of(r#"{"durability":2,"data":null}"#).unwrap();
    assert_eq!(by_number.durability, i32::from(Durability::Transient));
    assert_eq!(by_number.payload, Some(Payload::DataJson("null".into())));
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let faults = [
        ("", None),
        ("{", None),
        ("{}x", None),
        ("7", None),
        (r#"{"user":{}}"#, Some("/user")),
        (r#"{"users":["ada"]}"#, Some("/users")),
        (r#"{"users":{"ids":["ada",7]}}"#, Some("/users/ids/1")),
        (r#"{"users":{"ids":[null]}}"#, Some("/users/ids/0")),
        (r#"{"users":{},"topics":{}}"#, Some("/topics")),
        (r#"{"data":1,"dataJson":"1"}"#, Some("/dataJson")),
        (r#"{"id":"a","id":"a"}"#, Some("/id")),
        (r#"{"exclude_users":[],"excludeUsers":[]}"#, Some("/excludeUsers")),
        (r#"{"durability":"stored"}"#, Some("/durability")),
        (r#"{"durability":7}"#, Some("/durability")),
        (r#"{"ttl":"-1s"}"#, Some("/ttl")),
        (r#"{"ttl":5}"#, Some("/ttl")),
        (r#"{"deliver_at":"tomorrow"}"#, Some("/deliver_at")),
        (r#"{"subject":"\ud800"}"#, Some("/subject")),
        (r#"{"a/b~":1}"#, Some("/a~1b~0")),
    ];
    for (text, place) in faults {
        let (pointer, detail) = fault::<PublishRequest>(text);
        assert_eq!(pointer.as_deref(), place, "{text}: {detail}");
        assert!(detail.ends_with('.'), "{detail}");
    }
    let (pointer, _) = fault::<PatchStateRequest>(r#"{"set":{"a":"1","a":"2"}}"#);
    assert_eq!(pointer.as_deref(), Some("/set/a"));
    let long = format!(r#"{{"{}":1}}"#, "x".repeat(5000));
    assert!(fault::<PublishRequest>(&long).0.unwrap().len() < 100);
}

#[test]
fn an_answer_has_all_that_is_there() {
    let answer = GetResponse {
        id: "a".into(),
        time: Some(prost_types::Timestamp {
            seconds: 0,
            nanos: 1_000_000,
        }),
        audience: Some(get_response::Audience {
            kind: get_response::audience::Kind::Everyone.into(),
            count: None,
        }),
        counts: Some(get_response::Counts::default()),
        subject: None,
    };
    let text = String::from_utf8(write(&answer)).unwrap();
    let expected = r#"{"id":"a","time":"1970-01-01T00:00:00.001Z","audience":{"kind":"KIND_EVERYONE"},"counts":{"delivered":0,"read":0,"expired":0,"cancelled":0,"dead":0}}"#;
    assert_eq!(text, expected);
    assert_eq!(of::<GetResponse>(&text).unwrap(), answer);
}

#[test]
fn few_bytes_do_not_become_many() {
    let empty = 40_000;
    let text = format!(r#"{{"notifications":[{}]}}"#, vec!["{}"; empty].join(","));
    assert_eq!(
        of::<PublishBatchRequest>(&text).unwrap_err(),
        Unreadable::TooLarge
    );
    let binary = [0x0a, 0x00].repeat(empty);
    let decode = |most| {
        let mut budget = Budget::new(Bodies::new(1 << 20).room(), most);
        super::super::weight::decode::<PublishBatchRequest>(&binary, &mut budget)
    };
    assert_eq!(decode(1 << 20).unwrap_err(), Unreadable::TooLarge);
    assert_eq!(decode(usize::MAX).unwrap_err(), Unreadable::NoRoom);
    let few = super::super::weight::decode::<PublishBatchRequest>(&binary[..40], &mut budget());
    assert_eq!(few.unwrap().notifications.len(), 20);
}

#[test]
fn nested_values_weigh_what_they_hold() {
    // Field 6 (data) { field 6 (list_value) { field 1 (values) {} … } }
    let values = [0x0a, 0x00].repeat(20_000);
    let mut list = vec![0x32];
    prost::encoding::encode_varint(values.len() as u64, &mut list);
    list.extend_from_slice(&values);
    let mut body = vec![0x32];
    prost::encoding::encode_varint(list.len() as u64, &mut body);
    body.extend_from_slice(&list);
    let read = super::super::weight::decode::<PublishRequest>(&body, &mut budget());
    assert_eq!(read.unwrap_err(), Unreadable::TooLarge);
}

#[test]
fn unknown_fields_are_passed_over_where_the_method_says_so() {
    let text = r#"{"version":[1,{"x":null}],"authorization":"t","extra":{"authorization":"u"},"extra":2}"#;
    let of = |unknown| read::<AuthRequest>(text.as_bytes(), unknown, &mut budget());
    assert_eq!(of(Unknown::PassedOver).unwrap().authorization, "t");
    assert!(of(Unknown::Refused).is_err());
    // What is known is read as strictly.
    for wrong in [
        r#"{"authorization":1}"#,
        r#"{"authorization":"t","authorization":"t"}"#,
    ] {
        let read = read::<AuthRequest>(wrong.as_bytes(), Unknown::PassedOver, &mut budget());
        assert!(read.is_err(), "{wrong}");
    }
}
