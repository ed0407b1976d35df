//! The strict cases of the Autobahn suite as tables, and the rule that cutting changes nothing.

use super::*;
use proptest::prelude::*;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Said {
    Text(String),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

fn own(message: Message) -> Said {
    match message {
        Message::Text(text) => Said::Text(text.into()),
        Message::Ping(payload) => Said::Ping(payload.into()),
        Message::Pong(payload) => Said::Pong(payload.into()),
        Message::Close(code, reason) => Said::Close(code, reason.into()),
    }
}

type Outcome = (Vec<Said>, Option<Fault>);

fn read(pieces: impl IntoIterator<Item = Vec<u8>>) -> (Outcome, Decoder) {
    let mut decoder = Decoder::default();
    let (mut said, mut fault) = (Vec::new(), None);
    for mut piece in pieces {
        if let Err(error) = decoder.feed(&mut piece, |message| said.push(own(message))) {
            assert_eq!(fault.replace(error), None, "a second fault");
        }
    }
    ((said, fault), decoder)
}

fn read_whole(bytes: &[u8]) -> Outcome {
    let whole = read([bytes.to_vec()]).0;
    let octets = read(bytes.chunks(1).map(<[u8]>::to_vec)).0;
    assert_eq!(whole, octets, "whole and octet by octet");
    whole
}

/// A masked frame; `first` is its first byte.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        n @ 0..=125 => out.push(0x80 | n as u8),
        n @ 126..=0xFFFF => {
            out.push(0x80 | 126);
            out.extend((n as u16).to_be_bytes());
        }
        n => {
            out.push(0x80 | 127);
            out.extend((n as u64).to_be_bytes());
        }
    }
    let mask = [0x12, 0xF0, 0x00, 0xA5];
    out.extend(mask);
    out.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
    out
}

fn text(text: &str) -> Said {
    Said::Text(text.into())
}

#[test]
fn at_rest_it_is_small_and_holds_nothing() {
    assert!(size_of::<Decoder>() <= 64, "{} bytes", size_of::<Decoder>());
    let mut bytes = frame(0x01, b"ab");
    bytes.extend(frame(0x89, b"ping"));
    bytes.extend(frame(0x80, "cü".as_bytes()));
    for size in 1..bytes.len() {
        let (outcome, decoder) = read(bytes.chunks(size).map(<[u8]>::to_vec));
        assert_eq!(outcome, (vec![Said::Ping(b"ping".to_vec()), text("abcü")], None));
        assert_eq!(decoder.held.capacity(), 0);
    }
}

#[test]
fn lengths_up_to_the_limit() {
    for length in [0, 125, 126, 127, 128, 65_535, MAX_MESSAGE] {
        let payload = "*".repeat(length);
        assert_eq!(
            read([frame(0x81, payload.as_bytes())]).0,
            (vec![text(&payload)], None),
            "{length}"
        );
    }
    let over = vec![b'*'; MAX_MESSAGE + 1];
    assert_eq!(
        read([frame(0x81, &over)[..14].to_vec()]).0,
        (vec![], Some(TOO_BIG))
    );
    let mut halves = frame(0x01, &over[..MAX_MESSAGE]);
    halves.extend(frame(0x80, b"*"));
    assert_eq!(read([halves]).0.1.unwrap().code, 1009);
}

#[test]
fn a_message_has_a_bounded_number_of_frames() {
    let most = |n: u16| {
        [
            vec![frame(0x01, b"a")],
            vec![frame(0x00, b""); usize::from(n) - 2],
            vec![frame(0x80, b"")],
        ]
    };
    assert_eq!(
        read([most(MAX_FRAMES).concat().concat()]).0,
        (vec![text("a")], None)
    );
    assert_eq!(
        read([most(MAX_FRAMES + 1).concat().concat()]).0.1.unwrap().code,
        1009
    );
}

#[test]
fn faults_come_after_the_messages_before_them() {
    for (name, bytes, code) in [
        ("RSV1", frame(0xC1, b"x"), 1002),
        ("RSV2", frame(0xA1, b"x"), 1002),
        ("RSV3 on a ping", frame(0x99, b""), 1002),
        ("opcode 3", frame(0x83, b""), 1002),
        ("opcode 7", frame(0x87, b"x"), 1002),
        ("opcode 11", frame(0x8B, b""), 1002),
        ("opcode 15", frame(0x8F, b""), 1002),
        ("unmasked", vec![0x81, 1, b'x'], 1002),
        ("ping of 126", frame(0x89, &[0; 126]), 1002),
        ("close of 126", frame(0x88, &[3; 126]), 1002),
        ("fragmented ping", frame(0x09, b""), 1002),
        ("continuation of nothing", frame(0x80, b"x"), 1002),
        ("open continuation of nothing", frame(0x00, b"x"), 1002),
        (
            "text in text",
            [frame(0x01, b"a"), frame(0x81, b"b")].concat(),
            1002,
        ),
        (
            "binary in text",
            [frame(0x01, b"a"), frame(0x82, b"b")].concat(),
            1002,
        ),
        ("length 5 in two bytes", vec![0x81, 0xFE, 0, 5, 0, 0, 0, 0], 1002),
        (
            "length 5 in eight bytes",
            vec![0x81, 0xFF, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0],
            1002,
        ),
        (
            "length with the top bit",
            vec![0x81, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            1002,
        ),
        (
            "length of 4 GiB",
            vec![0x81, 0xFF, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
            1009,
        ),
        ("binary", frame(0x82, b"x"), 1003),
        ("fragmented binary", frame(0x02, b"x"), 1003),
        ("half a close code", frame(0x88, &[3]), 1002),
        (
            "close reason not UTF-8",
            frame(0x88, b"\x03\xe8\xce\xba\xff"),
            1007,
        ),
        ("text not UTF-8", frame(0x81, b"\xce\xba\xe1\xbd\xb9\xff"), 1007),
        (
            "text ends inside a character",
            frame(0x81, b"\xce\xba\xe1\xbd"),
            1007,
        ),
        (
            "message ends inside a character",
            [frame(0x01, b"\xe1"), frame(0x80, b"\xbd")].concat(),
            1007,
        ),
        ("surrogate", frame(0x81, b"\xed\xa0\x80"), 1007),
        ("overlong", frame(0x81, b"\xc0\xaf"), 1007),
        ("above U+10FFFF", frame(0x81, b"\xf4\x90\x80\x80"), 1007),
    ] {
        let bytes = [frame(0x81, b"before"), bytes, frame(0x81, b"after")].concat();
        let (said, fault) = read_whole(&bytes);
        assert_eq!(
            (said, fault.map(|f| f.code)),
            (vec![text("before")], Some(code)),
            "{name}"
        );
    }
}

#[test]
fn text_that_cannot_become_utf8_fails_before_its_frame_ends() {
    let long = frame(
        0x81,
        &[b"\xce\xba\xe1\xbd\xb9\xf4\x90".as_slice(), &[b'x'; 100]].concat(),
    );
    assert_eq!(read([long[..6 + 7].to_vec()]).0.1, Some(NOT_UTF8));
    let fragments = [frame(0x01, b"\xce\xba\xf4"), frame(0x00, b"\x90")].concat();
    assert_eq!(read_whole(&fragments).1, Some(NOT_UTF8));
    let start_only = frame(0x01, b"\xce\xba\xf4\x8f\xbf");
    assert_eq!(read_whole(&start_only), (vec![], None));
    assert!(
        read([vec![0x82, 0x81]]).0.1.is_some(),
        "judged by its first two bytes"
    );
}

#[test]
fn characters_may_cross_fragments() {
    let message = "κόσμε 𝄞 \u{10FFFF}\u{FFFE}";
    let bytes = message.as_bytes();
    let mut frames = frame(0x01, &bytes[..1]);
    for byte in &bytes[1..] {
        frames.extend(frame(0x00, &[*byte]));
        frames.extend(frame(0x8A, b"between"));
    }
    frames.extend(frame(0x80, b""));
    let (said, fault) = read_whole(&frames);
    assert_eq!((said.last(), fault), (Some(&text(message)), None));
    assert_eq!(said.len(), bytes.len());
}

#[test]
fn close_codes() {
    let valid = [
        1000u16, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999,
    ];
    for code in valid {
        let payload = [&code.to_be_bytes()[..], "tschüß".as_bytes()].concat();
        let bytes = [frame(0x88, &payload), frame(0x81, b"after")].concat();
        assert_eq!(
            read_whole(&bytes),
            (vec![Said::Close(Some(code), "tschüß".into())], None)
        );
    }
    for code in [
        0u16, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535,
    ] {
        let (said, fault) = read_whole(&frame(0x88, &code.to_be_bytes()));
        assert_eq!((said, fault.map(|f| f.code)), (vec![], Some(1002)), "{code}");
    }
    let (outcome, decoder) = read([frame(0x88, b"")]);
    assert_eq!(outcome, (vec![Said::Close(None, String::new())], None));
    assert!(decoder.is_ended());
    let longest = [b"\x03\xe8".as_slice(), &[b'*'; 123]].concat();
    assert_eq!(
        read_whole(&frame(0x88, &longest)).0,
        [Said::Close(Some(1000), "*".repeat(123))]
    );
}

#[test]
fn a_close_ends_an_unfinished_message() {
    let bytes = [frame(0x01, b"a"), frame(0x88, b""), frame(0x80, b"b")].concat();
    let (outcome, decoder) = read(bytes.chunks(3).map(<[u8]>::to_vec));
    assert_eq!(outcome, (vec![Said::Close(None, String::new())], None));
    assert_eq!(decoder.held.capacity(), 0);
}

/// What a well-behaved client may send: its bytes, and what they say.
fn script() -> impl Strategy<Value = (Vec<u8>, Vec<Said>)> {
    let control = || {
        (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..126)).prop_map(|(ping, payload)| {
            let first = if ping { 0x89 } else { 0x8A };
            (
                frame(first, &payload),
                if ping {
                    Said::Ping(payload)
                } else {
                    Said::Pong(payload)
                },
            )
        })
    };
    let fragment = (0usize..200, proptest::option::of(control()));
    let message = ("\\PC{0,200}", proptest::collection::vec(fragment, 0..5)).prop_map(|(message, cuts)| {
        let (mut bytes, mut said, mut rest) = (Vec::new(), Vec::new(), message.as_bytes());
        let mut opcode = TEXT;
        for (length, between) in cuts {
            let (piece, after) = rest.split_at(length.min(rest.len()));
            bytes.extend(frame(opcode, piece));
            (opcode, rest) = (CONTINUATION, after);
            if let Some((control, what)) = between {
                bytes.extend(control);
                said.push(what);
            }
        }
        bytes.extend(frame(0x80 | opcode, rest));
        said.push(Said::Text(message));
        (bytes, said)
    });
    proptest::collection::vec(
        prop_oneof![message, control().prop_map(|(b, s)| (b, vec![s]))],
        1..6,
    )
    .prop_map(|parts| {
        parts
            .into_iter()
            .fold((vec![], vec![]), |(mut bytes, mut said), part| {
                bytes.extend(part.0);
                said.extend(part.1);
                (bytes, said)
            })
    })
}

/// Cuts `bytes` into pieces of the given lengths, over and over.
fn cut(bytes: &[u8], lengths: &[usize]) -> Vec<Vec<u8>> {
    let (mut pieces, mut rest) = (Vec::new(), bytes);
    for length in lengths.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at((*length).min(rest.len()));
        pieces.push(piece.to_vec());
        rest = after;
    }
    pieces
}

fn lengths() -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(1usize..150, 1..20)
}

proptest! {
    #[test]
    fn any_cut_gives_what_was_said((bytes, said) in script(), lengths in lengths()) {
        let (outcome, decoder) = read(cut(&bytes, &lengths));
        prop_assert_eq!(outcome, (said, None));
        prop_assert_eq!(decoder.held.capacity(), 0);
    }

    #[test]
    fn any_cut_of_damaged_input_gives_the_same_messages_and_fault(
        (mut bytes, _) in script(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        lengths in lengths(),
    ) {
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let whole = read([bytes.clone()]).0;
        prop_assert_eq!(&read(cut(&bytes, &lengths)).0, &whole);
        prop_assert_eq!(&read(cut(&bytes, &[1])).0, &whole);
    }

    #[test]
    fn any_bytes_hold_no_more_than_a_message(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let (_, decoder) = read([bytes]);
        prop_assert!(decoder.held.len() <= MAX_MESSAGE + 125);
    }
}
