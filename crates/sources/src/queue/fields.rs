//! A message that is nothing but fields, as the JSON object that its decoder expects.
//!
//! Invariant: what comes out is one JSON object, whatever the fields hold; a value that is no UTF-8 is refused, since no
//! JSON can hold it.

use super::Message;
use postrider_model::json;
use postrider_router::Fault;
use serde_json::value::RawValue;

/// Fields that are lists in a notification.
const LISTS: [&str; 3] = ["users", "topics", "exclude_users"];

/// The fields as a notification's: a list may be written as JSON, or as the one name that it holds; `data` is JSON, or a
/// text; all others are texts.
pub(super) fn as_notification(message: &Message) -> Result<Vec<u8>, Fault> {
    object(message, &[], |name, text, out| {
        let parsed = || serde_json::from_str::<&RawValue>(text).ok();
        if LISTS.contains(&name) {
            if text.trim_start().starts_with('[') {
                let list = parsed().ok_or_else(|| {
                    let what =
                        "begins with [ and is no list in JSON: write [\"ada\",\"bob\"], or one name alone";
                    Fault::invalid(format!("/{name}"), format!("the field `{name}` {what}"))
                })?;
                out.extend_from_slice(list.get().as_bytes());
            } else {
                out.push(b'[');
                json::push_string(out, text);
                out.push(b']');
            }
        } else if let Some(data) = parsed().filter(|_| name == "data") {
            out.extend_from_slice(data.get().as_bytes());
        } else {
            json::push_string(out, text);
        }
        Ok(())
    })
}

/// The fields as a JSON object of texts, but for those in `without`.
pub(super) fn as_texts(message: &Message, without: &[&str]) -> Result<Vec<u8>, Fault> {
    object(message, without, |_, text, out| {
        json::push_string(out, text);
        Ok(())
    })
}

fn object(
    message: &Message,
    without: &[&str],
    push_value: impl Fn(&str, &str, &mut Vec<u8>) -> Result<(), Fault>,
) -> Result<Vec<u8>, Fault> {
    let mut out = vec![b'{'];
    for (name, value) in &message.fields {
        if without.contains(&name.as_str()) {
            continue;
        }
        let text = std::str::from_utf8(value).map_err(|_| {
            let name: String = name.chars().take(64).collect();
            Fault::invalid("", format!("the field `{name}` is not UTF-8"))
        })?;
        if out.len() > 1 {
            out.push(b',');
        }
        json::push_string(&mut out, name);
        out.push(b':');
        push_value(name, text, &mut out)?;
    }
    out.push(b'}');
    Ok(out)
}
