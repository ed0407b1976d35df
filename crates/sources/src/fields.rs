//! The pieces of a JSON object: its fields as they stand there, texts and lists of texts, and where what is wrong stands.
//!
//! Invariant: no list and no object is kept beyond the number asked for, so that what is decoded takes no more memory
//! than the text; nothing recurses.

use postrider_router::{Fault, FaultCode};
use serde::Deserialize;
use serde::de::{Deserializer as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

/// A field's name, and its value as it was written.
pub type Field<'a> = (Cow<'a, str>, &'a RawValue);

/// The bytes as text.
pub fn as_text(bytes: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(bytes).map_err(|e| {
        let detail = format!("it is not UTF-8: byte {} is wrong", e.valid_up_to());
        Fault::new(FaultCode::InvalidNotification, detail)
    })
}

/// serde_json's own words name a place, and never repeat what stands there.
pub fn not_json(error: serde_json::Error) -> Fault {
    Fault::new(
        FaultCode::InvalidNotification,
        format!("it is not valid JSON: {error}"),
    )
}

/// The fields of a text that begins with `{`, of more than `most` the first `most`.
pub fn fields(text: &str, most: usize) -> Result<Vec<Field<'_>>, Fault> {
    let mut input = serde_json::Deserializer::from_str(text);
    let fields = (&mut input).deserialize_map(Fields { most }).map_err(not_json)?;
    input.end().map_err(not_json)?;
    Ok(fields)
}

/// A JSON pointer to a field, escaped as RFC 6901 says, and of bounded length.
pub fn pointer(name: &str) -> String {
    let name: String = name.chars().take(64).collect();
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// The value is of another type than it must be.
pub fn wrong_type(field: &str, value: &RawValue, wanted: &str) -> Fault {
    Fault::invalid(
        format!("/{field}"),
        format!("`{field}` must be {wanted}, not {}", kind(value)),
    )
}

/// What a value is, in words.
pub fn kind(value: &RawValue) -> &'static str {
    match value.get().as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// A text.
pub fn text(field: &str, value: &RawValue) -> Result<String, Fault> {
    if kind(value) != "a string" {
        return Err(wrong_type(field, value, "a string"));
    }
    serde_json::from_str(value.get()).map_err(|_| {
        Fault::invalid(
            format!("/{field}"),
            format!("`{field}` holds half of a surrogate pair"),
        )
    })
}

/// The texts of a list, of more than `most` the first `most` + 1.
pub fn texts(field: &str, value: &RawValue, most: usize) -> Result<Vec<String>, Fault> {
    if let Ok(texts) = list(value, most + 1) {
        return Ok(texts);
    }
    // One of them is no text: which?
    let Ok(items) = list::<&RawValue>(value, most + 1) else {
        return Err(wrong_type(field, value, "an array of strings"));
    };
    items
        .iter()
        .enumerate()
        .map(|(i, item)| text(&format!("{field}/{i}"), item))
        .collect()
}

/// A list, of more than `most` the first `most`.
pub fn list<'a, T: Deserialize<'a>>(value: &'a RawValue, most: usize) -> serde_json::Result<Vec<T>> {
    serde_json::Deserializer::from_str(value.get()).deserialize_seq(AtMost::new(most))
}

struct Fields {
    most: usize,
}

impl<'de> Visitor<'de> for Fields {
    type Value = Vec<Field<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(Name(name)) = map.next_key()? {
            let value = map.next_value()?;
            if fields.len() < self.most {
                fields.push((name, value));
            }
        }
        Ok(fields)
    }
}

/// A key, borrowed where it has no escapes.
struct Name<'a>(Cow<'a, str>);

impl<'de> serde::Deserialize<'de> for Name<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Name<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }
        d.deserialize_str(Visit)
    }
}

/// Reads a list, and keeps its first `most` items.
pub struct AtMost<T> {
    most: usize,
    items: PhantomData<T>,
}

impl<T> AtMost<T> {
    /// At most so many.
    pub fn new(most: usize) -> AtMost<T> {
        let items = PhantomData;
        AtMost { most, items }
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for AtMost<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while items.len() < self.most {
            match seq.next_element()? {
                Some(item) => items.push(item),
                None => return Ok(items),
            }
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(items)
    }
}
