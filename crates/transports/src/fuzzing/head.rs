//! Heads of HTTP requests.

use crate::head::{Head, MAX_HEAD, MAX_HEADERS, Parsed, is_http2_preface, parse};

/// Places at which one input is cut.
const CUTS: usize = 24;

/// A head is a head wherever the bytes after it end, and no beginning of it is one; what it says can be written
/// anew and says the same; nothing in it has two meanings.
pub fn http_head(data: &[u8]) {
    match parse(data) {
        Parsed::Partial => assert!(data.len() < MAX_HEAD, "{} bytes are no head yet", data.len()),
        Parsed::Invalid(problem) => {
            assert!(matches!(problem.status, 400 | 431), "{problem:?}");
            assert!(
                matches!(parse(&extended(data)), Parsed::Invalid(_)),
                "valid once more comes"
            );
        }
        Parsed::Complete(head, length) => {
            assert!(length <= data.len() && length <= MAX_HEAD && !is_http2_preface(data));
            for cut in cuts(length) {
                assert!(
                    matches!(parse(&data[..cut]), Parsed::Partial),
                    "cut at {cut} of {length}"
                );
            }
            let longer = extended(data);
            match parse(&longer) {
                Parsed::Complete(again, at) => {
                    assert_eq!(at, length);
                    assert_same(&head, &again);
                }
                other => panic!("with more after it: {other:?}"),
            }
            assert_unambiguous(&head);
            assert_parameters(&head);
            assert_written_anew(&head);
        }
    }
}

fn extended(data: &[u8]) -> Vec<u8> {
    [data, b"GET / HTTP/1.1\r\nhost: other\r\n\r\n"].concat()
}

fn cuts(length: usize) -> impl Iterator<Item = usize> {
    (0..length).step_by((length / CUTS).max(1)).chain([length - 1])
}

fn assert_same(one: &Head<'_>, other: &Head<'_>) {
    assert_eq!(
        (one.method, one.target, one.path, one.query, one.version_minor),
        (
            other.method,
            other.target,
            other.path,
            other.query,
            other.version_minor
        )
    );
    assert_eq!(one.names().collect::<Vec<_>>(), other.names().collect::<Vec<_>>());
    for name in one.names() {
        assert!(one.header_values(name).eq(other.header_values(name)), "{name}");
    }
}

fn assert_unambiguous(head: &Head<'_>) {
    assert!(head.names().count() <= MAX_HEADERS);
    for single in ["host", "content-length", "authorization"] {
        assert!(head.header_values(single).count() <= 1, "{single} twice");
    }
    if let Some(length) = head.header("content-length") {
        assert!(
            length.bytes().all(|byte| byte.is_ascii_digit()) && !length.is_empty(),
            "{length:?}"
        );
        assert_eq!(
            head.header("transfer-encoding"),
            None,
            "two ways to tell the body's end"
        );
    }
    assert!(head.version_minor == 0 || head.header("host").is_some());
}

/// A parameter that needs no decoding reads as it stands.
fn assert_parameters(head: &Head<'_>) {
    for name in ["wait", "cursor", "topics"] {
        let Ok(Some(value)) = head.param(name) else {
            continue;
        };
        assert!(value.len() <= head.query.len());
        if !head.query.contains(['%', '+']) {
            assert!(
                value.is_empty() || head.query.contains(&format!("{name}={value}")),
                "{name}={value}"
            );
        }
    }
}

fn assert_written_anew(head: &Head<'_>) {
    let mut text = format!(
        "{} {} HTTP/1.{}\r\n",
        head.method, head.target, head.version_minor
    );
    let mut seen: Vec<&str> = Vec::new();
    for name in head.names() {
        if seen.iter().any(|other| other.eq_ignore_ascii_case(name)) {
            continue;
        }
        seen.push(name);
        for value in head.header_values(name) {
            text += &format!("{name}: {value}\r\n");
        }
    }
    text += "\r\n";
    match parse(text.as_bytes()) {
        Parsed::Complete(again, length) => {
            assert_eq!(length, text.len());
            for name in seen {
                assert!(head.header_values(name).eq(again.header_values(name)), "{name}");
            }
            assert_eq!(
                (head.method, head.path, head.query),
                (again.method, again.path, again.query)
            );
        }
        // A line may have ended without CR, and what is not UTF-8 reads as U+FFFD: it may have grown.
        Parsed::Invalid(problem) if problem.status == 431 && text.len() > MAX_HEAD => {}
        other => panic!("{text:?} gave {other:?}"),
    }
}
