//! The decoder `pusher`: `{"users": [ids], "exclude_users": [ids], "data": any}`.
//!
//! Invariant: no users, or an empty list, means everyone: intake says whether the source may. Other fields are passed
//! over; `data` is never taken apart.

use crate::fields::{as_text, fields, not_json, texts};
use crate::http::{LENIENT_FIELDS, Most, check_depth};
use postrider_model::json;
use postrider_router::{Draft, Fault};
use serde_json::value::RawValue;

/// Decodes one request.
pub fn decode(body: &[u8], most: &Most) -> Result<Draft, Fault> {
    let text = as_text(body)?;
    check_depth(text, most)?;
    if !text.trim_start().starts_with('{') {
        serde_json::from_str::<&RawValue>(text).map_err(not_json)?;
        return Err(Fault::invalid("", "a request is a JSON object"));
    }
    let mut draft = Draft::default();
    let mut data = None;
    for (name, value) in fields(text, LENIENT_FIELDS)? {
        match name.as_ref() {
            "users" if value.get() == "null" => {}
            "users" => {
                draft.users = Some(texts("users", value, most.users)?).filter(|users| !users.is_empty())
            }
            "exclude_users" if value.get() == "null" => {}
            "exclude_users" => draft.exclude_users = texts("exclude_users", value, most.exclude_users)?,
            "data" => data = Some(json::compact(value.get())),
            _ => {}
        }
    }
    draft.data = data.ok_or_else(|| Fault::invalid("/data", "`data` is required"))?;
    Ok(draft)
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_router::Limits;

    fn decoded(text: &str) -> Result<Draft, String> {
        decode(text.as_bytes(), &Most::from(&Limits::default())).map_err(|fault| fault.to_string())
    }

    #[test]
    fn requests() {
        let draft =
            decoded(r#"{"users":["a","b"],"exclude_users":["b"],"data":{"x": 1},"trace":7}"#).unwrap();
        assert_eq!(draft.users.unwrap(), ["a", "b"]);
        assert_eq!(draft.exclude_users, ["b"]);
        assert_eq!(&draft.data[..], br#"{"x":1}"#);
        for everyone in [
            r#"{"data":1}"#,
            r#"{"users":[],"data":1}"#,
            r#"{"users":null,"exclude_users":null,"data":1}"#,
        ] {
            assert_eq!(decoded(everyone).unwrap().users, None, "{everyone}");
        }
    }

    #[test]
    fn what_is_refused() {
        for (text, what) in [
            ("", "it is not valid JSON"),
            ("[]", "a request is a JSON object"),
            (r#"{"users":["a"]}"#, "`data` is required"),
            (r#"{"users":[1],"data":1}"#, "must be a string"),
            (r#"{"users":"a","data":1}"#, "must be an array of strings"),
            (
                &format!("{{\"data\":{}{}}}", "[".repeat(99), "]".repeat(99)),
                "it nests 100 deep",
            ),
        ] {
            let fault = decoded(text).unwrap_err();
            assert!(fault.contains(what), "{text}: {fault}");
        }
    }
}
