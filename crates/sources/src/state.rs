//! What is written of a change of a user's state map: a merge (RFC 7396, of texts only), or an increment.
//!
//! Invariant: any bytes give a change or a fault that says where. Whether the change fits the map is the engine's to say.

use crate::InputFault;
use crate::fields::{as_text, fields, kind, not_json, pointer};
use postrider_model::{MAX_STATE_KEYS, StateChange, json};
use serde_json::value::RawValue;

/// Most keys that one change names: as many as a map has, removed, and as many more, set.
pub const MAX_CHANGED: usize = 2 * MAX_STATE_KEYS;
/// A change nests one deep. A little more is read, to say what is wrong with it.
const DEPTH: usize = 8;

/// An object of texts: each is set; null removes.
pub fn decode_merge(body: &[u8]) -> Result<StateChange, InputFault> {
    let members = members(body, |value| match kind(value) {
        "null" => Ok(None),
        "a string" => match serde_json::from_str(value.get()) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err("it holds half of a surrogate pair".into()),
        },
        other => Err(format!(
            "a value must be a string, or null to remove it, not {other}"
        )),
    })?;
    Ok(StateChange::Merge(members))
}

/// An object of integers: each is added.
pub fn decode_increment(body: &[u8]) -> Result<StateChange, InputFault> {
    let members = members(body, |value| {
        let wrong = || format!("what is added must be an integer of 64 bits, not {}", kind(value));
        value.get().parse::<i64>().map_err(|_| match kind(value) {
            "a number" => "what is added must be an integer of 64 bits".into(),
            _ => wrong(),
        })
    })?;
    Ok(StateChange::Increment(members))
}

fn members<T>(
    body: &[u8],
    read: impl Fn(&RawValue) -> Result<T, String>,
) -> Result<Vec<(String, T)>, InputFault> {
    let text = as_text(body)?;
    if !json::nests_within(text.as_bytes(), DEPTH) {
        return Err(InputFault::invalid(format!("it nests more than {DEPTH} deep")));
    }
    if !text.trim_start().starts_with('{') {
        serde_json::from_str::<&RawValue>(text).map_err(not_json)?;
        return Err(InputFault::invalid("a change is a JSON object"));
    }
    let fields = fields(text, MAX_CHANGED + 1)?;
    if fields.len() > MAX_CHANGED {
        let detail = format!("a change names at most {MAX_CHANGED} keys");
        return Err(InputFault::too_large(None, detail));
    }
    let mut members: Vec<(String, T)> = Vec::with_capacity(fields.len());
    let mut seen = std::collections::HashSet::with_capacity(fields.len());
    for (name, value) in fields {
        if !seen.insert(name.clone()) {
            return Err(InputFault::at(pointer(&name), "the key stands there twice"));
        }
        let value = read(value).map_err(|detail| InputFault::at(pointer(&name), detail))?;
        members.push((name.into_owned(), value));
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_sets_and_removes() {
        let change = decode_merge(br#" {"a":"1","b":null,"c\u0064":"\u00fc"} "#).unwrap();
        let expected = [
            ("a".to_owned(), Some("1".to_owned())),
            ("b".to_owned(), None),
            ("cd".to_owned(), Some("ü".to_owned())),
        ];
        assert_eq!(change, StateChange::Merge(expected.into()));
        assert_eq!(decode_merge(b"{}").unwrap(), StateChange::Merge(Vec::new()));
    }

    #[test]
    fn an_increment_adds_integers() {
        let change = decode_increment(br#"{"a":1,"b":-9223372036854775808}"#).unwrap();
        let expected = [("a".to_owned(), 1), ("b".to_owned(), i64::MIN)];
        assert_eq!(change, StateChange::Increment(expected.into()));
    }

    #[test]
    fn faults_point_at_their_place() {
        let merges = [
            (r#"{"a":1}"#, Some("/a")),
            (r#"{"a":{"b":"c"}}"#, Some("/a")),
            (r#"{"x/y~":[]}"#, Some("/x~1y~0")),
            (r#"{"a":"1","a":"2"}"#, Some("/a")),
            (r#"{"a":"\ud800"}"#, Some("/a")),
            ("[]", None),
            ("null", None),
            ("", None),
            ("{", None),
            (r#"{"a":[[[[[[[[[]]]]]]]]]}"#, None),
        ];
        for (body, pointer) in merges {
            let fault = decode_merge(body.as_bytes()).unwrap_err();
            assert_eq!(fault.pointer.as_deref(), pointer, "{body}: {fault}");
        }
        for value in ["\"1\"", "1.5", "1e3", "9223372036854775808", "null", "true", "[]"] {
            let fault = decode_increment(format!(r#"{{"a":{value}}}"#).as_bytes()).unwrap_err();
            assert_eq!(fault.pointer.as_deref(), Some("/a"), "{value}: {fault}");
        }
        let many: Vec<_> = (0..=MAX_CHANGED).map(|i| format!("\"k{i}\":null")).collect();
        let all = format!("{{{}}}", many.join(","));
        assert!(decode_merge(all.as_bytes()).unwrap_err().is_too_large);
        let fits = format!("{{{}}}", many[1..].join(","));
        assert!(decode_merge(fits.as_bytes()).is_ok());
    }
}
