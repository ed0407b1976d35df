//! JSON as bytes: makes `data` compact without touching what is inside strings or how numbers are
//! written, and measures how deep a document nests before anything parses it.

use bytes::Bytes;
use memchr::memchr2;

/// Removes white space outside strings. `text` must be valid JSON; the bytes of strings and numbers stay
/// as they were written, so the result is on one line.
pub fn compact(text: &str) -> Bytes {
    let mut rest = text.as_bytes();
    if !holds_space(rest) {
        return Bytes::copy_from_slice(rest);
    }
    let mut out = Vec::with_capacity(rest.len());
    while let Some(first) = rest.first() {
        let taken = match first {
            b'"' => string_length(rest),
            b' ' | b'\t' | b'\n' | b'\r' => {
                rest = &rest[1..];
                continue;
            }
            _ => {
                let ends = |b: &u8| matches!(b, b'"' | b' ' | b'\t' | b'\n' | b'\r');
                rest.iter().position(ends).unwrap_or(rest.len())
            }
        };
        out.extend_from_slice(&rest[..taken]);
        rest = &rest[taken..];
    }
    Bytes::from(out)
}

/// Whether there is white space anywhere, in strings too. Looks at many bytes at a time.
fn holds_space(text: &[u8]) -> bool {
    let space = |found: bool, b: &u8| found | matches!(b, b' ' | b'\t' | b'\n' | b'\r');
    text.chunks(64).any(|chunk| chunk.iter().fold(false, space))
}

/// The length of the string that `text` begins with, quotes included.
fn string_length(text: &[u8]) -> usize {
    let mut at = 1;
    while let Some(found) = text.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        if text[at + found] == b'"' {
            return at + found + 1;
        }
        at += found + 2;
    }
    text.len()
}

/// The deepest nesting of arrays and objects in `text`, without parsing it: 0 for a scalar. Counts
/// correctly for valid JSON, and never runs away on anything else.
pub fn depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0usize, 0usize);
    let mut in_string = false;
    let mut escaped = false;
    for &b in text {
        match b {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Whether arrays and objects nest at most `most` deep, as [`depth`] counts. Where few begin at all, which is usual,
/// it looks at many bytes at a time.
pub fn nests_within(text: &[u8], most: usize) -> bool {
    // The two differ in one bit. A chunk's count fits a byte, which lets the compiler count many at a time.
    let opens = |b: &u8| u8::from(b & !0x20 == b'[');
    let opening = text
        .chunks(128)
        .map(|chunk| usize::from(chunk.iter().map(opens).sum::<u8>()));
    opening.sum::<usize>() <= most || depth(text) <= most
}

/// Appends `text` as a JSON string.
pub fn push_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    if !text.bytes().any(|b| b < 0x20 || b == b'"' || b == b'\\') {
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
        return;
    }
    for ch in text.chars() {
        match ch {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            c if (c as u32) < 0x20 => out.extend_from_slice(format!("\\u{:04x}", c as u32).as_bytes()),
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn compact_keeps_strings_and_numbers() {
        let text = "{ \"a b\" : [ 1.0 , 1e5,\n\t\"x \\\" y\\\\\" ] }";
        assert_eq!(
            compact(text),
            Bytes::from_static(br#"{"a b":[1.0,1e5,"x \" y\\"]}"#)
        );
        assert_eq!(compact(" \"\" "), Bytes::from_static(b"\"\""));
    }

    #[test]
    fn depth_ignores_brackets_in_strings() {
        assert_eq!(depth(b"1"), 0);
        assert_eq!(depth(br#"{"a":[{"b":"[[[\"[["}]}"#), 3);
        assert_eq!(depth(b"]]]["), 1);
    }

    #[test]
    fn few_brackets_need_no_second_look() {
        assert!(nests_within(b"[[]]", 2) && !nests_within(b"[[]]", 1));
        assert!(nests_within(b"[[],[],[]]", 2));
        assert!(nests_within(br#""[[[""#, 0));
    }

    proptest! {
        #[test]
        fn compact_is_what_serde_writes(value in json_value(), spaces in "[ \\t\\n\\r]{0,3}") {
            let plain = serde_json::to_string(&value).unwrap();
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            for text in [&plain, &pretty, &format!("{spaces}{plain}{spaces}")] {
                prop_assert_eq!(&compact(text)[..], plain.as_bytes());
                let found = depth(text.as_bytes());
                for most in 0..6 {
                    prop_assert_eq!(nests_within(text.as_bytes(), most), found <= most);
                }
            }
        }

        #[test]
        fn compact_never_panics(text in r#"["\\\\ a{\[]{0,20}"#) {
            prop_assert!(compact(&text).len() <= text.len());
        }
    }

    fn json_value() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            any::<i64>().prop_map(Into::into),
            any::<String>().prop_map(Into::into),
            Just(serde_json::Value::Null),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                proptest::collection::btree_map(any::<String>(), inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    #[test]
    fn strings_are_escaped_as_serde_reads_them() {
        let text = "a\"b\\c\n\u{1}ü\u{7f}";
        let mut out = Vec::new();
        push_string(&mut out, text);
        assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
    }
}
