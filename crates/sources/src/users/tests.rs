use super::*;
use proptest::prelude::*;

/// What a reader makes of a text that comes in these pieces: line, then the id or the fault.
fn read(mut reader: UserReader, pieces: &[&[u8]]) -> Result<Vec<UserLine>, UserFault> {
    let mut lines = Vec::new();
    for piece in pieces {
        reader.push(Bytes::copy_from_slice(piece));
        while let Some(line) = reader.take()? {
            lines.push(line);
        }
        assert!(reader.held() <= 2 * LINE_BYTES);
    }
    reader.finish();
    while let Some(line) = reader.take()? {
        lines.push(line);
    }
    assert_eq!(reader.take()?, None);
    Ok(lines)
}

fn csv(text: &str) -> Result<Vec<UserLine>, UserFault> {
    read(UserReader::csv(), &[text.as_bytes()])
}

fn ndjson(text: &str) -> Vec<UserLine> {
    read(UserReader::ndjson(), &[text.as_bytes()]).unwrap()
}

fn good(lines: &[UserLine]) -> Vec<(u64, &str)> {
    let good = lines
        .iter()
        .filter_map(|line| Some((line.number, line.user.as_ref().ok()?)));
    good.map(|(number, draft)| (number, draft.user.as_str()))
        .collect()
}

fn fault(line: &str) -> InputFault {
    decode_line(line.as_bytes()).unwrap_err()
}

#[test]
fn every_field_of_json() {
    let draft = decode_line(
        br#" {"id":"ada","email":"ada@example.com","mobile":"+49 170 1","locale":"de-DE","time_zone":"Europe/Berlin",
            "attributes":{"plan":"pro","caf\u00e9":""},"topics":["b","a","b"]} "#,
    )
    .unwrap();
    assert_eq!(draft.user.as_str(), "ada");
    assert_eq!(draft.profile.email.as_deref(), Some("ada@example.com"));
    assert_eq!(draft.profile.mobile.as_deref(), Some("+49 170 1"));
    assert_eq!(draft.profile.locale.as_deref(), Some("de-DE"));
    assert_eq!(draft.profile.time_zone.as_deref(), Some("Europe/Berlin"));
    assert_eq!(draft.profile.attributes["plan"], "pro");
    assert_eq!(draft.profile.attributes["café"], "");
    let topics = draft.topics.unwrap();
    assert_eq!(topics.iter().map(Topic::as_str).collect::<Vec<_>>(), ["a", "b"]);
    let bare = decode_line(br#"{"id":"a","email":null,"attributes":null,"topics":null}"#).unwrap();
    assert_eq!((bare.profile, bare.topics), (Profile::default(), None));
    let none = decode_line(br#"{"id":"a","topics":[]}"#).unwrap();
    assert_eq!(none.topics, Some(Vec::new()));
}

#[test]
fn faults_of_json_point_at_their_place() {
    let table = [
        (r#"{}"#, Some("/id")),
        (r#"{"id":""}"#, Some("/id")),
        (r#"{"id":7}"#, Some("/id")),
        (r#"{"id":"a\u0000"}"#, Some("/id")),
        (r#"{"id":"a","email":"ada"}"#, Some("/email")),
        (r#"{"id":"a","email":"@b"}"#, Some("/email")),
        (r#"{"id":"a","email":"a b@c"}"#, Some("/email")),
        (r#"{"id":"a","email":7}"#, Some("/email")),
        (r#"{"id":"a","mobile":"call me"}"#, Some("/mobile")),
        (r#"{"id":"a","mobile":"+"}"#, Some("/mobile")),
        (r#"{"id":"a","locale":"de DE"}"#, Some("/locale")),
        (r#"{"id":"a","time_zone":""}"#, Some("/time_zone")),
        (r#"{"id":"a","attributes":[]}"#, Some("/attributes")),
        (
            r#"{"id":"a","attributes":{"b":"a\u0000"}}"#,
            Some("/attributes/b"),
        ),
        (r#"{"id":"a","attributes":{"x/y":1}}"#, Some("/attributes/x~1y")),
        (r#"{"id":"a","attributes":{"":"1"}}"#, Some("/attributes/")),
        (
            r#"{"id":"a","attributes":{"x":"1","x":"2"}}"#,
            Some("/attributes/x"),
        ),
        (r#"{"id":"a","attributes":{"x":"\ud800"}}"#, Some("/attributes/x")),
        (r#"{"id":"a","topics":"news"}"#, Some("/topics")),
        (r#"{"id":"a","topics":["ok","no way"]}"#, Some("/topics/1")),
        (r#"{"id":"a","topics":["ok",7]}"#, Some("/topics/1")),
        (r#"{"id":"a","Email":"a@b"}"#, Some("/Email")),
        (r#"{"id":"a","id":"b"}"#, Some("/id")),
        (r#"["a"]"#, None),
        (r#""a""#, None),
        (r#"{"id":"a""#, None),
        (r#"{"id":"a","attributes":[[[[[[[[[]]]]]]]]]}"#, None),
    ];
    for (line, pointer) in table {
        let fault = fault(line);
        assert_eq!(fault.pointer.as_deref(), pointer, "{line}: {fault}");
        assert!(!fault.is_too_large, "{line}");
    }
    assert!(decode_line(b"{\"id\":\"\xff\"}").is_err());
    let with_id = decode_user(UserId::new("a").unwrap(), br#"{"id":"b"}"#);
    assert_eq!(
        with_id.unwrap_err().pointer.as_deref(),
        Some("/id"),
        "the path says who"
    );
}

#[test]
fn what_is_too_large_is_told_so() {
    let many = |count: usize| {
        (0..count)
            .map(|i| format!("\"a{i}\":\"\""))
            .collect::<Vec<_>>()
            .join(",")
    };
    let topics = |count: usize| {
        (0..count)
            .map(|i| format!("\"t{i}\""))
            .collect::<Vec<_>>()
            .join(",")
    };
    let table = [
        (
            format!(r#"{{"id":"a","attributes":{{{}}}}}"#, many(MAX_ATTRIBUTES)),
            None,
        ),
        (
            format!(r#"{{"id":"a","attributes":{{{}}}}}"#, many(MAX_ATTRIBUTES + 1)),
            Some("/attributes"),
        ),
        (
            format!(r#"{{"id":"a","attributes":{{"x":"{}"}}}}"#, "x".repeat(1024)),
            None,
        ),
        (
            format!(r#"{{"id":"a","attributes":{{"x":"{}"}}}}"#, "x".repeat(1025)),
            Some("/attributes/x"),
        ),
        (format!(r#"{{"id":"a","topics":[{}]}}"#, topics(MAX_TOPICS)), None),
        (
            format!(r#"{{"id":"a","topics":[{}]}}"#, topics(MAX_TOPICS + 1)),
            Some("/topics"),
        ),
        (
            format!(r#"{{"id":"a","email":"{}@b"}}"#, "x".repeat(400)),
            Some("/email"),
        ),
    ];
    for (line, pointer) in table {
        match (decode_line(line.as_bytes()), pointer) {
            (Ok(_), None) => {}
            (Err(fault), Some(_)) => {
                assert_eq!((fault.is_too_large, fault.pointer.as_deref()), (true, pointer));
            }
            (other, _) => panic!("{pointer:?}: {other:?}"),
        }
    }
}

#[test]
fn lines_of_ndjson_have_their_numbers() {
    let lines = ndjson("\u{feff}{\"id\":\"a\"}\n\n  \r\n{\"id\":\"b\"}\r\nnonsense\n{\"id\":\"c\"}");
    assert_eq!(good(&lines), [(1, "a"), (4, "b"), (6, "c")]);
    assert_eq!(lines[2].number, 5);
    let long = format!(
        "{{\"id\":\"a\"}}\n{}\n{{\"id\":\"b\"}}\n",
        "x".repeat(LINE_BYTES + 1)
    );
    let lines = ndjson(&long);
    assert_eq!(good(&lines), [(1, "a"), (3, "b")]);
    assert!(lines[1].user.as_ref().unwrap_err().fault.is_too_large);
    assert!(ndjson("").is_empty() && ndjson("\n\n").is_empty());
}

#[test]
fn csv_reads_columns_in_any_order() {
    let text = "\u{feff}email,id,attributes.plan,topics,attributes.note\r\n\
                ada@example.com,ada,pro,news sport;eu,\"one, \"\"two\"\"\nthree\"\r\n\
                \r\n\
                ,bob,,,\r\n\
                eve@example.com,\"eve, the second\",x,a,y";
    let lines = csv(text).unwrap();
    assert_eq!(good(&lines), [(2, "ada"), (5, "bob"), (6, "eve, the second")]);
    let ada = lines[0].user.as_ref().unwrap();
    assert_eq!(ada.profile.attributes["plan"], "pro");
    assert_eq!(ada.profile.attributes["note"], "one, \"two\"\nthree");
    let topics = ada.topics.as_ref().unwrap();
    assert_eq!(
        topics.iter().map(Topic::as_str).collect::<Vec<_>>(),
        ["eu", "news", "sport"]
    );
    let bob = lines[1].user.as_ref().unwrap();
    assert_eq!(bob.profile, Profile::default());
    assert_eq!(bob.topics, Some(Vec::new()), "the column says: none");
    assert_eq!(
        csv("id\na").unwrap()[0].user.as_ref().unwrap().topics,
        None,
        "no column: as they are"
    );
}

#[test]
fn a_header_that_cannot_be_understood_refuses_all() {
    for (text, names) in [
        ("", "no header"),
        ("\r\n\n", "no header"),
        ("email\na@b\n", "`id`"),
        ("id,surname\na,b\n", "`surname`"),
        ("id,Email\na,b\n", "`Email`"),
        ("id,id\na,b\n", "`id`"),
        ("id,attributes.\na,b\n", "`attributes.`"),
        ("id,\"email\na,b\n", "not closed"),
        ("{\"id\":\"a\"}\n", "not known"),
    ] {
        let fault = csv(text).unwrap_err();
        assert!(fault.fault.detail.contains(names), "{text:?}: {}", fault.fault);
    }
    let wide = (0..200)
        .map(|i| format!("attributes.a{i}"))
        .collect::<Vec<_>>()
        .join(",");
    assert!(csv(&format!("id,{wide}\n")).unwrap_err().fault.is_too_large);
}

#[test]
fn a_bad_record_harms_no_other() {
    let text = "id,email\na,a@b\nb\nc,c@d,e\nd,nobody\n,e@f\n\u{1},e@f\ng,g@h\n";
    let lines = csv(text).unwrap();
    assert_eq!(good(&lines), [(2, "a"), (8, "g")]);
    let told: Vec<_> = lines
        .iter()
        .filter_map(|line| Some((line.number, line.user.as_ref().err()?.column.as_deref())))
        .collect();
    let expected = [
        (3, None),
        (4, None),
        (5, Some("email")),
        (6, Some("id")),
        (7, Some("id")),
    ];
    assert_eq!(told, expected);
    let not_text = read(UserReader::csv(), &[b"id\na\nb\xff\nc\n"]).unwrap();
    assert_eq!(good(&not_text), [(2, "a"), (4, "c")]);
    let long = format!("id,email\n{},x\nok,\n", "x".repeat(LINE_BYTES + 9));
    assert_eq!(good(&csv(&long).unwrap()), [(3, "ok")]);
    let wide = format!("id,email\na{}\nok,\n", ",".repeat(5000));
    assert_eq!(good(&csv(&wide).unwrap()), [(3, "ok")]);
    for (text, is_good) in [("\u{feff}id\na", true), ("\u{feff}\u{feff}id\na", false)] {
        for at in 0..6 {
            let (one, other) = text.as_bytes().split_at(at);
            let read = read(UserReader::csv(), &[one, other]);
            assert_eq!(read.is_ok(), is_good, "{text:?} cut at {at}");
        }
    }
    assert!(read(UserReader::csv(), &[b"\xef\xbb"]).is_err());
    let open = csv("id,email\na,a@b\nb,\"b@c\nc,c@d\n").unwrap();
    assert_eq!(good(&open), [(2, "a")]);
    assert_eq!(open[1].number, 3, "where it was opened");
}

proptest! {
    #[test]
    fn how_the_input_is_cut_changes_nothing(
        text in "(id|[ab,\"\r\n ]){0,40}",
        header in proptest::bool::ANY,
        cuts in proptest::collection::vec(1usize..9, 0..30),
    ) {
        let text = if header { format!("id,email\r\n{text}") } else { text };
        let mut pieces: Vec<&[u8]> = Vec::new();
        let mut rest = text.as_bytes();
        for cut in cuts {
            let (piece, after) = rest.split_at(cut.min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        pieces.push(rest);
        let whole = [text.as_bytes()];
        prop_assert_eq!(read(UserReader::csv(), &pieces), read(UserReader::csv(), &whole));
        prop_assert_eq!(read(UserReader::ndjson(), &pieces), read(UserReader::ndjson(), &whole));
    }
}

/// What the directory shows of a user can be imported again, whatever had to be escaped.
#[test]
fn the_largest_user_fits_a_line() {
    let topics = postrider_model::MAX_INBOX_FEEDS;
    let topics: Vec<_> = (0..topics).map(|n| format!("{n:x<128}")).collect();
    let text = |n: usize| format!("{n:\"<64}");
    let attributes: serde_json::Map<_, _> = (0..MAX_ATTRIBUTES)
        .map(|n| (text(n), "\n".repeat(1024).into()))
        .collect();
    let user = serde_json::json!({
        "id": "\\".repeat(256), "email": format!("{}@b", "\"".repeat(318)), "attributes": attributes, "topics": topics,
    });
    let line = user.to_string();
    assert!(line.len() <= LINE_BYTES, "{}", line.len());
    assert!(decode_line(line.as_bytes()).is_ok());
}
