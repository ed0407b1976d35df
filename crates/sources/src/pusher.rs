//! The decoder `pusher`: `{"users": [ids], "exclude_users": [ids], "data": any}`, as it is or in the envelope that a topic
//! of Amazon SNS puts around it.
//!
//! Invariant: no users, or an empty list, means everyone: intake says whether the source may. Other fields are passed
//! over; `data` is never taken apart. What has `data` is a request and no envelope, whatever else it has.

use crate::fields::{as_text, fields, not_json, texts};
use crate::http::{LENIENT_FIELDS, Most, check_depth};
use postrider_model::json;
use postrider_router::{Draft, Fault};
use serde_json::value::RawValue;

/// The fields by which an envelope is known: its kind, and the request as a string.
const KIND: &str = "Type";
const MESSAGE: &str = "Message";

/// Decodes one request, which may be in an envelope.
pub fn decode(body: &[u8], most: &Most) -> Result<Draft, Fault> {
    let text = as_text(body)?;
    check_depth(text, most)?;
    match enveloped(text)? {
        None => request(text, most),
        Some(within) => {
            check_depth(&within, most)?;
            request(&within, most)
        }
    }
}

/// The request in an envelope; `None` where it stands by itself, good or bad.
fn enveloped(text: &str) -> Result<Option<String>, Fault> {
    // Nearly everything is no envelope, and need not be read twice.
    if !text.trim_start().starts_with('{') || !text.contains("\"Message\"") {
        return Ok(None);
    }
    let fields = fields(text, LENIENT_FIELDS)?;
    let string = |wanted: &str| {
        let (_, value) = fields.iter().find(|(name, _)| name.as_ref() == wanted)?;
        serde_json::from_str::<String>(value.get()).ok()
    };
    if fields.iter().any(|(name, _)| name.as_ref() == "data")
        || string(KIND).as_deref() != Some("Notification")
    {
        return Ok(None);
    }
    Ok(string(MESSAGE))
}

fn request(text: &str, most: &Most) -> Result<Draft, Fault> {
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
    fn a_request_in_an_envelope() {
        let wrap = |kind: &str, more: &str| {
            let within = serde_json::to_string(r#"{"users":["a"],"data":{"Message":"x"}}"#).unwrap();
            format!(
                r#"{{"Type":"{kind}","MessageId":"7","TopicArn":"arn:aws:sns:r:1:t","Message":{within}{more}}}"#
            )
        };
        let draft = decoded(&wrap("Notification", "")).unwrap();
        assert_eq!(draft.users.unwrap(), ["a"]);
        assert_eq!(&draft.data[..], br#"{"Message":"x"}"#);
        // Raw delivery of something that looks like one.
        let raw = decoded(&wrap("Notification", r#","data":1"#)).unwrap();
        assert_eq!((raw.users, &raw.data[..]), (None, &b"1"[..]));
        for (wrong, what) in [
            (wrap("SubscriptionConfirmation", ""), "`data` is required"),
            (wrap("Notification", "").replace("users", "Users"), ""),
            (
                r#"{"Type":"Notification","Message":7}"#.into(),
                "`data` is required",
            ),
            (
                r#"{"Type":"Notification","Message":"no"}"#.into(),
                "it is not valid JSON",
            ),
            (
                r#"{"Type":"Notification","Message":"[]"}"#.into(),
                "a request is a JSON object",
            ),
        ] {
            match decoded(&wrong) {
                Ok(draft) => assert!(what.is_empty() && draft.users.is_none(), "{wrong}"),
                Err(fault) => assert!(!what.is_empty() && fault.contains(what), "{wrong}: {fault}"),
            }
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
