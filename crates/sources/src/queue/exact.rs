//! A payload as `data`, so that every byte of it can be had again.
//!
//! Invariant: a transport that writes a JSON string's content, and anything else as it is, writes the payload byte for byte.
//! Pure.

use bytes::Bytes;
use postrider_model::json;
use serde_json::value::RawValue;

/// More deeply nested documents travel as text: whoever parses them should not have to.
const DEPTH: usize = 64;

/// JSON that is no string, begins and ends without white space and has no line breaks, as it is; any other text, JSON
/// strings among it, as a JSON string. Bytes that are no UTF-8 come from no source that is exact: as `{"base64":"…"}`.
pub(super) fn exact(payload: &[u8]) -> Bytes {
    let Ok(text) = std::str::from_utf8(payload) else {
        return postrider_model::data_of(payload);
    };
    let is_bare = text.trim().len() == text.len() && !text.starts_with('"') && !text.contains(['\n', '\r']);
    if is_bare && json::nests_within(payload, DEPTH) && serde_json::from_str::<&RawValue>(text).is_ok() {
        return Bytes::copy_from_slice(payload);
    }
    let mut out = Vec::with_capacity(text.len() + 2);
    json::push_string(&mut out, text);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the bare dialect writes of `data`.
    fn written(data: &[u8]) -> Vec<u8> {
        match serde_json::from_slice::<String>(data) {
            Ok(text) => text.into_bytes(),
            Err(_) => data.to_vec(),
        }
    }

    #[test]
    fn json_stays_json_and_text_becomes_a_string() {
        for (payload, data) in [
            (r#"{"a": 1,  "b":[ ]}"#, r#"{"a": 1,  "b":[ ]}"#),
            ("1.50", "1.50"),
            ("null", "null"),
            ("hello", r#""hello""#),
            (r#""hello""#, r#""\"hello\"""#),
            (" {}", r#"" {}""#),
            ("{\n}", r#""{\n}""#),
            ("", r#""""#),
            ("{} {}", r#""{} {}""#),
        ] {
            assert_eq!(exact(payload.as_bytes()), data.as_bytes(), "{payload}");
            assert_eq!(written(&exact(payload.as_bytes())), payload.as_bytes());
        }
        let deep = "[".repeat(65) + &"]".repeat(65);
        assert_eq!(written(&exact(deep.as_bytes())), deep.as_bytes());
        assert!(exact(deep.as_bytes()).starts_with(b"\""));
    }

    proptest! {
        #[test]
        fn byte_for_byte(text in "[ \\[\\]{}\",:a0\\\\\u{e9}\n\r\t.-]{0,24}") {
            let data = exact(text.as_bytes());
            prop_assert!(serde_json::from_slice::<&RawValue>(&data).is_ok());
            prop_assert!(!data.contains(&b'\n'));
            prop_assert_eq!(written(&data), text.as_bytes());
        }
    }
}
