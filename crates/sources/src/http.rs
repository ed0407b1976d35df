//! The publish interface's JSON: one object, or an array of them, to drafts.
//!
//! Invariant: nesting is measured before anything is parsed, nothing here recurses, no list grows beyond what intake has to
//! see of it, and `data` is never taken apart: its numbers and strings reach the client as they were written.

use crate::fields::{AtMost, Field, as_text, fields, kind, not_json, pointer, text, texts, wrong_type};
use postrider_model::{Devices, Durability, Millis, Timestamp, json};
use postrider_router::{Draft, Fault, FaultCode, Limits};
use serde::de::Deserializer as _;
use serde_json::value::RawValue;

/// The fields a notification may have, in the order in which the interface lists them.
pub const FIELDS: [&str; 12] = [
    "users",
    "topics",
    "exclude_users",
    "subject",
    "data",
    "id",
    "durability",
    "ttl",
    "deliver_at",
    "collapse_key",
    "policy",
    "devices",
];

/// More fields than this no object can have without naming one twice or an unknown one.
const FIELDS_READ: usize = FIELDS.len() + 1;

/// Of an object whose unknown fields are passed over so many fields are read; what comes after them is passed over too.
pub(crate) const LENIENT_FIELDS: usize = 256;

/// What a body holds: one notification, or several that stand each for itself.
#[derive(Debug)]
pub enum Body<'a> {
    /// One object.
    One(Box<Result<Draft, Fault>>),
    /// An array; the places correspond.
    Array(Items<'a>),
}

/// The notifications of an array, each decoded when it is asked for.
#[derive(Debug)]
pub struct Items<'a> {
    texts: std::vec::IntoIter<&'a RawValue>,
    most: Most,
}

impl Iterator for Items<'_> {
    type Item = Result<Draft, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        let text = self.texts.next()?;
        Some(decode(text.get(), &self.most))
    }
}

/// What is not read any further, so that what is decoded takes no more memory than the text. Of a list with more
/// entries one more than these is kept, from which intake sees that they are too many.
#[derive(Debug, Clone, Copy)]
pub struct Most {
    /// How deep a notification may nest.
    pub depth: usize,
    /// Notifications of an array.
    pub array: usize,
    /// Entries of `users`.
    pub users: usize,
    /// Entries of `exclude_users`.
    pub exclude_users: usize,
    /// Entries of `topics`.
    pub topics: usize,
}

impl From<&Limits> for Most {
    fn from(limits: &Limits) -> Most {
        Most {
            depth: limits.json_depth,
            array: limits.array,
            users: limits.users_per_notification,
            exclude_users: limits.exclude_users,
            topics: limits.topics_per_notification,
        }
    }
}

/// Decodes a whole body that is no NDJSON. An `Err` is a fault of the body itself.
pub fn decode_body<'a>(body: &'a [u8], most: &Most) -> Result<Body<'a>, Fault> {
    let text = as_text(body)?;
    if !text.trim_start().starts_with('[') {
        return Ok(Body::One(Box::new(decode(text, most))));
    }
    let array = most.array;
    let mut input = serde_json::Deserializer::from_str(text);
    let items: Vec<&RawValue> = (&mut input)
        .deserialize_seq(AtMost::new(array + 1))
        .map_err(not_json)?;
    input.end().map_err(not_json)?;
    if items.len() > array {
        let detail = format!("the array has more than {array} notifications; send several, or NDJSON");
        return Err(Fault::new(FaultCode::TooLarge, detail));
    }
    Ok(Body::Array(Items {
        texts: items.into_iter(),
        most: *most,
    }))
}

/// Decodes one line of NDJSON.
pub fn decode_line(line: &[u8], most: &Most) -> Result<Draft, Fault> {
    decode(as_text(line)?, most)
}

/// Decodes one notification of a source whose producers may write what they like beside: unknown fields are passed over.
pub fn decode_lenient(body: &[u8], most: &Most) -> Result<Draft, Fault> {
    let text = object(as_text(body)?, most)?;
    let mut fields = fields(text, LENIENT_FIELDS)?;
    fields.retain(|(name, _)| FIELDS.contains(&name.as_ref()));
    draft(&fields, most)
}

fn decode(text: &str, most: &Most) -> Result<Draft, Fault> {
    draft(&fields(object(text, most)?, FIELDS_READ)?, most)
}

/// A text that begins as an object does, and does not nest too deeply.
fn object<'a>(text: &'a str, most: &Most) -> Result<&'a str, Fault> {
    check_depth(text, most)?;
    if !text.trim_start().starts_with('{') {
        serde_json::from_str::<&RawValue>(text).map_err(not_json)?;
        return Err(Fault::invalid("", "a notification is a JSON object"));
    }
    Ok(text)
}

/// Refuses what nests too deeply, before anything parses it.
pub(crate) fn check_depth(text: &str, most: &Most) -> Result<(), Fault> {
    let json_depth = most.depth;
    if json::nests_within(text.as_bytes(), json_depth) {
        return Ok(());
    }
    let depth = json::depth(text.as_bytes());
    let detail = format!("it nests {depth} deep; at most {json_depth} levels are allowed");
    Err(Fault::new(FaultCode::InvalidNotification, detail))
}

fn draft(fields: &[Field<'_>], most: &Most) -> Result<Draft, Fault> {
    let mut draft = Draft::default();
    let mut data = None;
    for (i, (name, value)) in fields.iter().enumerate() {
        if fields[..i].iter().any(|(before, _)| before == name) {
            return Err(Fault::invalid(pointer(name), "the field stands there twice"));
        }
        match name.as_ref() {
            "users" => draft.users = Some(texts("users", value, most.users)?),
            "topics" => draft.topics = Some(texts("topics", value, most.topics)?),
            "exclude_users" => draft.exclude_users = texts("exclude_users", value, most.exclude_users)?,
            "subject" => draft.subject = Some(text("subject", value)?),
            "data" => data = Some(json::compact(value.get())),
            "id" => draft.id = Some(text("id", value)?),
            "durability" => {
                let words = [
                    ("stored", Durability::Stored),
                    ("transient", Durability::Transient),
                ];
                draft.durability = one_of("durability", value, words)?;
            }
            "ttl" => draft.ttl = Some(ttl(value)?),
            "deliver_at" => draft.deliver_at = Some(deliver_at(value)?),
            "collapse_key" => draft.collapse_key = Some(text("collapse_key", value)?),
            "policy" => draft.policy = Some(text("policy", value)?),
            "devices" => {
                draft.devices = one_of(
                    "devices",
                    value,
                    [("all", Devices::All), ("first", Devices::First)],
                )?
            }
            unknown => return Err(Fault::invalid(pointer(unknown), unknown_field(unknown))),
        }
    }
    draft.data = data.ok_or_else(|| Fault::invalid("/data", "`data` is required"))?;
    Ok(draft)
}

fn unknown_field(name: &str) -> String {
    let plain = name.to_ascii_lowercase().replace('-', "_");
    let plain = plain.trim_end_matches('s');
    match FIELDS.iter().find(|field| field.trim_end_matches('s') == plain) {
        Some(near) => format!("the field is not known; `{near}` is"),
        None => format!(
            "the field is not known; a notification may have {}",
            FIELDS.join(", ")
        ),
    }
}

fn one_of<T: Copy>(field: &str, value: &RawValue, words: [(&str, T); 2]) -> Result<T, Fault> {
    let given = text(field, value)?;
    match words.iter().find(|(word, _)| *word == given) {
        Some((_, meaning)) => Ok(*meaning),
        None => {
            let detail = format!("`{field}` must be `{}` or `{}`", words[0].0, words[1].0);
            Err(Fault::invalid(format!("/{field}"), detail))
        }
    }
}

fn ttl(value: &RawValue) -> Result<Millis, Fault> {
    const FORMS: &str = "a duration such as \"24h\" or \"90s\", or a number of seconds";
    let wrong = || Fault::invalid("/ttl", format!("`ttl` must be {FORMS}"));
    match kind(value) {
        "a string" => Millis::parse(&text("ttl", value)?).map_err(|_| wrong()),
        "a number" => {
            let seconds: f64 = value.get().parse().map_err(|_| wrong())?;
            let ms = (seconds * 1000.0).round();
            if (0.0..9e15).contains(&ms) {
                Ok(Millis(ms as u64))
            } else {
                Err(wrong())
            }
        }
        _ => Err(wrong_type("ttl", value, FORMS)),
    }
}

fn deliver_at(value: &RawValue) -> Result<Timestamp, Fault> {
    Timestamp::parse_rfc3339(&text("deliver_at", value)?).ok_or_else(|| {
        Fault::invalid(
            "/deliver_at",
            "`deliver_at` must be an RFC 3339 time such as 2026-12-01T09:00:00Z",
        )
    })
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
