use super::*;
use postrider_model::{Topic, UserId};
use postrider_router::Limits;

fn decoding(decoder: Decoder, direction: Direction) -> Decoding {
    Decoding {
        decoder,
        direction,
        body_field: None,
        envelope: Envelope::None,
        is_exact: false,
        most: Most::from(&Limits::default()),
    }
}

fn fields(fields: &[(&str, &str)]) -> Message {
    let owned = fields
        .iter()
        .map(|(name, value)| ((*name).to_owned(), Bytes::copy_from_slice(value.as_bytes())));
    Message {
        fields: owned.collect(),
        deliveries: 1,
        ..Message::default()
    }
}

fn body(text: &[u8]) -> Message {
    Message {
        body: Some(Bytes::copy_from_slice(text)),
        deliveries: 1,
        ..Message::default()
    }
}

fn data(draft: &Draft) -> &str {
    std::str::from_utf8(&draft.data).unwrap()
}

#[test]
fn raw_takes_any_payload() {
    let raw = decoding(Decoder::Raw, Direction::Topic("t".into()));
    for (payload, data_then) in [
        (&b"hello"[..], r#""hello""#),
        (b"{\"a\": 1}", r#"{"a":1}"#),
        (b"", r#""""#),
        (b"\xff\x00", r#"{"base64":"/wA="}"#),
    ] {
        let draft = raw.decode(&body(payload)).unwrap();
        assert_eq!(data(&draft), data_then);
        assert_eq!(draft.topics.unwrap(), ["t"]);
    }
}

#[test]
fn fields_are_a_payload_or_a_notification() {
    let raw = decoding(Decoder::Raw, Direction::UserField("customer".into()));
    let draft = raw
        .decode(&fields(&[
            ("customer", "ada"),
            ("order", "7"),
            ("id", "o-7"),
            ("note", "a \"b\""),
        ]))
        .unwrap();
    assert_eq!(draft.users.as_deref(), Some(&["ada".to_owned()][..]));
    assert_eq!(draft.id.as_deref(), Some("o-7"));
    assert_eq!(data(&draft), r#"{"order":"7","note":"a \"b\""}"#);
    let draft = raw
        .decode(&fields(&[("customer", "ada"), ("data", "[1, 2]"), ("x", "y")]))
        .unwrap();
    assert_eq!(data(&draft), "[1,2]");

    let whole = decoding(Decoder::Notification, Direction::Decoded);
    let draft = whole
        .decode(&fields(&[
            ("users", "ada"),
            ("data", "plain"),
            ("ttl", "1h"),
            ("other", "x"),
        ]))
        .unwrap();
    assert_eq!(draft.users.unwrap(), ["ada"]);
    assert_eq!(&draft.data[..], br#""plain""#);
    let draft = whole
        .decode(&fields(&[("topics", r#"["a","b"]"#), ("data", r#"{"n": 1}"#)]))
        .unwrap();
    assert_eq!(draft.topics.unwrap(), ["a", "b"]);
    assert_eq!(&draft.data[..], br#"{"n":1}"#);
    let torn = whole.decode(&fields(&[("users", r#"["ada","#), ("data", "1")]));
    let torn = torn.unwrap_err();
    assert_eq!(
        torn.pointer.as_deref(),
        Some("/users"),
        "it is no user of that name"
    );
}

#[test]
fn a_named_field_is_the_payload() {
    let mut whole = decoding(Decoder::Notification, Direction::Decoded);
    whole.body_field = Some("body".into());
    let draft = whole
        .decode(&fields(&[("body", r#"{"users":["ada"],"data":1,"id":"x"}"#)]))
        .unwrap();
    assert_eq!(
        (draft.users.unwrap(), draft.id.unwrap()),
        (vec!["ada".to_owned()], "x".to_owned())
    );
    let fault = whole.decode(&fields(&[("data", "1")])).unwrap_err();
    assert_eq!(fault.detail, "the message has no field `body`");
}

#[test]
fn an_addressee_needs_its_fields() {
    let decoder = decoding(Decoder::Addressee, Direction::Decoded);
    let message = |given: &[(&str, &str)], payload: &[u8]| Message {
        body: Some(Bytes::copy_from_slice(payload)),
        ..fields(given)
    };
    let draft = decoder
        .decode(&message(
            &[("addressee", "ada"), ("subject", "Hi"), ("id", "1")],
            b"hello",
        ))
        .unwrap();
    assert_eq!(
        (draft.users.unwrap(), draft.subject.unwrap(), draft.id.unwrap()),
        (vec!["ada".to_owned()], "Hi".to_owned(), "1".to_owned())
    );
    for (given, payload, what) in [
        (
            &[("subject", "Hi")][..],
            &b"x"[..],
            "the message has no field `addressee`",
        ),
        (
            &[("addressee", "ada")],
            b"x",
            "the message has no field `subject`",
        ),
        (
            &[("addressee", "ada"), ("subject", "Hi")],
            b"",
            "the message is empty",
        ),
    ] {
        assert_eq!(decoder.decode(&message(given, payload)).unwrap_err().detail, what);
    }
}

#[test]
fn the_channel_says_for_whom() {
    let raw = decoding(Decoder::Raw, Direction::Channel);
    let on = |feed| Message { feed, ..body(b"x") };
    let draft = raw
        .decode(&on(Some(FeedId::User(UserId::new("ada").unwrap()))))
        .unwrap();
    assert_eq!(draft.users.unwrap(), ["ada"]);
    let draft = raw
        .decode(&on(Some(FeedId::Topic(Topic::new("t").unwrap()))))
        .unwrap();
    assert_eq!(draft.topics.unwrap(), ["t"]);
    assert!(raw.decode(&on(None)).is_err());
}

#[test]
fn a_field_that_is_no_text_is_a_fault() {
    let mut message = fields(&[("users", "ada")]);
    message.fields.push(("data".into(), Bytes::from_static(b"\xff")));
    let whole = decoding(Decoder::Notification, Direction::Decoded);
    assert_eq!(
        whole.decode(&message).unwrap_err().detail,
        "the field `data` is not UTF-8"
    );
}

#[test]
fn an_addressees_id_is_any_text_and_each_users_own() {
    let decoder = decoding(Decoder::Addressee, Direction::Decoded);
    let key_of = |decoder: &Decoding, user: &str, id: Option<&[u8]>| {
        let mut message = Message {
            name: Some("m-1".into()),
            body: Some(Bytes::from_static(b"hello")),
            ..fields(&[("addressee", user), ("subject", "Hi")])
        };
        let id = id.map(|id| ("id".to_owned(), Bytes::copy_from_slice(id)));
        message.fields.extend(id);
        let mut draft = decoder.decode(&message).unwrap();
        (decoder.key(&message, &mut draft), draft.id)
    };
    let long = "x".repeat(1_000);
    for id in ["1", "two words", "a/b", &long] {
        let (key, own) = key_of(&decoder, "ada", Some(id.as_bytes()));
        assert_eq!((key, own), (Some(format!("ada\0{id}")), None));
    }
    assert_ne!(
        key_of(&decoder, "ada", Some(b"spring")),
        key_of(&decoder, "bob", Some(b"spring"))
    );
    for none in [None, Some(&b""[..]), Some(b"\xff")] {
        assert_eq!(key_of(&decoder, "ada", none), (Some("m-1".into()), None));
    }
    let raw = decoding(Decoder::Raw, Direction::UserField("addressee".into()));
    assert_eq!(
        key_of(&raw, "ada", Some(b"o-7")),
        (Some("m-1".into()), Some("o-7".into())),
        "with other decoders it is the notification's id"
    );
}
