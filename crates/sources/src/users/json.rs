//! A user as a JSON object.

use super::UserDraft;
use super::checks::{self, EMAIL, LOCALE, MAX_ATTRIBUTES, MAX_TOPICS, MOBILE, TIME_ZONE, TextField};
use crate::InputFault;
use crate::fields::{Field, as_text, fields, kind, not_json, pointer, text, texts, wrong_type};
use postrider_model::{Profile, UserId, json};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// The fields of a user, the id where it is not said elsewhere.
const FIELDS: &str = "email, mobile, locale, time_zone, attributes and topics";
/// More fields than this no object can have without naming one twice or an unknown one.
const FIELDS_READ: usize = 8;
/// A user nests two deep. A little more is read, to say what is wrong with it.
const DEPTH: usize = 8;

/// What was written of a user whose id stands elsewhere.
pub fn decode_user(user: UserId, body: &[u8]) -> Result<UserDraft, InputFault> {
    let text = as_text(body)?;
    let mut draft = UserDraft {
        user,
        profile: Profile::default(),
        topics: None,
    };
    read(&mut draft, &object(text)?, false)?;
    Ok(draft)
}

/// What was written of a user on one line, with its id.
pub fn decode_line(line: &[u8]) -> Result<UserDraft, InputFault> {
    let text = as_text(line)?;
    let fields = object(text)?;
    let id = fields.iter().find(|(name, _)| name == "id");
    let (_, id) = id.ok_or_else(|| InputFault::at("/id", "`id` is required"))?;
    let mut draft = UserDraft {
        user: checks::user_id(&self::text("id", id)?)?,
        profile: Profile::default(),
        topics: None,
    };
    read(&mut draft, &fields, true)?;
    Ok(draft)
}

fn object(text: &str) -> Result<Vec<Field<'_>>, InputFault> {
    if !json::nests_within(text.as_bytes(), DEPTH) {
        return Err(InputFault::invalid(format!("it nests more than {DEPTH} deep")));
    }
    if !text.trim_start().starts_with('{') {
        serde_json::from_str::<&RawValue>(text).map_err(not_json)?;
        return Err(InputFault::invalid("a user is a JSON object"));
    }
    Ok(fields(text, FIELDS_READ)?)
}

/// Null stands for a field that is not there.
fn read(draft: &mut UserDraft, fields: &[Field<'_>], with_id: bool) -> Result<(), InputFault> {
    for (i, (name, value)) in fields.iter().enumerate() {
        if fields[..i].iter().any(|(before, _)| before == name) {
            return Err(InputFault::at(pointer(name), "the field stands there twice"));
        }
        let profile = &mut draft.profile;
        match name.as_ref() {
            "id" if with_id => {}
            "email" => profile.email = text_of(&EMAIL, value)?,
            "mobile" => profile.mobile = text_of(&MOBILE, value)?,
            "locale" => profile.locale = text_of(&LOCALE, value)?,
            "time_zone" => profile.time_zone = text_of(&TIME_ZONE, value)?,
            "attributes" => profile.attributes = attributes(value)?,
            "topics" if kind(value) == "null" => {}
            "topics" => {
                let texts = texts("topics", value, MAX_TOPICS)?;
                draft.topics = Some(checks::topics(texts.iter().map(String::as_str))?);
            }
            unknown => {
                let detail = format!("the field is not known; a user may have {FIELDS}");
                return Err(InputFault::at(pointer(unknown), detail));
            }
        }
    }
    Ok(())
}

fn text_of(field: &TextField, value: &RawValue) -> Result<Option<String>, InputFault> {
    match kind(value) {
        "null" => Ok(None),
        _ => field.check(text(field.name, value)?).map(Some),
    }
}

fn attributes(value: &RawValue) -> Result<BTreeMap<String, String>, InputFault> {
    match kind(value) {
        "null" => return Ok(BTreeMap::new()),
        "an object" => {}
        _ => return Err(wrong_type("attributes", value, "an object of strings").into()),
    }
    let fields = fields(value.get(), MAX_ATTRIBUTES + 1)?;
    if fields.len() > MAX_ATTRIBUTES {
        return Err(checks::too_many_attributes());
    }
    let mut attributes = BTreeMap::new();
    for (name, value) in fields {
        let place = format!("/attributes{}", pointer(&name));
        checks::attribute_name(&name, &place)?;
        let value = text_at(&place, value)?;
        if attributes
            .insert(name.into_owned(), checks::attribute(value, &place)?)
            .is_some()
        {
            return Err(InputFault::at(place, "the attribute stands there twice"));
        }
    }
    Ok(attributes)
}

/// A text whose place is a pointer that is made already.
fn text_at(place: &str, value: &RawValue) -> Result<String, InputFault> {
    let at = |detail: String| InputFault::at(place, detail);
    if kind(value) != "a string" {
        return Err(at(format!("an attribute must be a string, not {}", kind(value))));
    }
    serde_json::from_str(value.get()).map_err(|_| at("it holds half of a surrogate pair".into()))
}
