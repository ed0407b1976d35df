use super::super::generated::postrider_v1::{Everyone, Topics, Users};
use super::*;
use prost_types::{ListValue, Struct};

fn request(payload: Payload) -> PublishRequest {
    PublishRequest {
        audience: Some(Audience::Everyone(Everyone {})),
        payload: Some(payload),
        ..PublishRequest::default()
    }
}

fn text(text: &str) -> PublishRequest {
    request(Payload::DataJson(text.into()))
}

fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

fn place(request: PublishRequest) -> Option<String> {
    draft(request, 8).unwrap_err().pointer
}

#[test]
fn nobody_everyone_and_silence_are_three_things() {
    let with = |audience| PublishRequest {
        audience,
        ..text("1")
    };
    let of = |audience| draft(with(audience), 8).map(|draft| (draft.users, draft.topics));
    assert_eq!(of(Some(Audience::Everyone(Everyone {}))), Ok((None, None)));
    assert_eq!(
        of(Some(Audience::Users(Users::default()))),
        Ok((Some(vec![]), None))
    );
    assert_eq!(
        of(Some(Audience::Topics(Topics::default()))),
        Ok((None, Some(vec![])))
    );
    assert_eq!(of(None).unwrap_err().code, FaultCode::InvalidNotification);
}

#[test]
fn the_payload_is_what_was_written() {
    let of = |request| String::from_utf8(draft(request, 8).unwrap().data.to_vec()).unwrap();
    assert_eq!(
        of(text(r#" {"b": 9007199254740993, "a": 1.0} "#)),
        r#"{"b":9007199254740993,"a":1.0}"#
    );
    let members = [
        ("b", value(Kind::NumberValue(7.0))),
        ("a", value(Kind::NumberValue(0.5))),
        ("c", value(Kind::NumberValue(1e300))),
        ("d", value(Kind::NullValue(0))),
        (
            "e",
            value(Kind::ListValue(ListValue {
                values: vec![
                    value(Kind::BoolValue(true)),
                    value(Kind::StringValue("\"".into())),
                ],
            })),
        ),
    ];
    let fields = members.map(|(name, value)| (name.to_owned(), value)).into();
    let written = of(request(Payload::Data(value(Kind::StructValue(Struct {
        fields,
    })))));
    assert_eq!(written, r#"{"a":0.5,"b":7,"c":1e+300,"d":null,"e":[true,"\""]}"#);
}

#[test]
fn what_is_no_payload_is_refused() {
    for not_json in ["", "{", "1,\"users\":[]", "1 2", "nul"] {
        assert_eq!(place(text(not_json)).as_deref(), Some("/data_json"), "{not_json}");
    }
    for kind in [
        None,
        Some(Kind::NumberValue(f64::NAN)),
        Some(Kind::NumberValue(f64::INFINITY)),
    ] {
        assert_eq!(
            place(request(Payload::Data(Value { kind }))).as_deref(),
            Some("/data")
        );
    }
    let none = PublishRequest {
        payload: None,
        ..text("1")
    };
    assert_eq!(place(none).as_deref(), Some("/data"));
}

#[test]
fn nesting_counts_the_notification_around_it() {
    let nested = |deep: usize| "[".repeat(deep) + &"]".repeat(deep);
    assert!(draft(text(&nested(7)), 8).is_ok());
    let fault = draft(text(&nested(8)), 8).unwrap_err();
    assert!(fault.detail.contains("nests 9 deep"), "{fault}");
    let list = |inner| value(Kind::ListValue(ListValue { values: inner }));
    let deep = (0..7).fold(list(vec![]), |inner, _| list(vec![inner]));
    assert!(draft(request(Payload::Data(deep)), 8).is_err());
}

#[test]
fn values_that_are_not_known_are_told() {
    let faults = [
        (
            PublishRequest {
                durability: 7,
                ..text("1")
            },
            "/durability",
        ),
        (
            PublishRequest {
                devices: 7,
                ..text("1")
            },
            "/devices",
        ),
        (
            PublishRequest {
                ttl: Some(prost_types::Duration {
                    seconds: -1,
                    nanos: 0,
                }),
                ..text("1")
            },
            "/ttl",
        ),
        (
            PublishRequest {
                deliver_at: Some(prost_types::Timestamp {
                    seconds: -1,
                    nanos: 0,
                }),
                ..text("1")
            },
            "/deliver_at",
        ),
    ];
    for (request, pointer) in faults {
        assert_eq!(place(request).as_deref(), Some(pointer));
    }
}

#[test]
fn places_have_the_names_of_the_request() {
    let of = |pointer: &str| {
        let problem = Problem::invalid_notification("No.", Some(pointer.into()));
        placed(problem).pointer.unwrap_or_default()
    };
    assert_eq!(of("/users/3"), "/users/ids/3");
    assert_eq!(of("/users"), "/users/ids");
    assert_eq!(of("/topics/0"), "/topics/names/0");
    assert_eq!(of("/exclude_users/0"), "/exclude_users/0");
    assert!(!placed(Problem::empty_audience()).detail.contains("leave"));
}
