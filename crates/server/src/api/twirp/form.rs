//! Messages as JSON, as protobuf defines it (<https://protobuf.dev/programming-guides/json/>): read strictly, written
//! by the names of the `.proto`.
//!
//! Invariant: a fault says where, and repeats nothing of the payload. What cannot be told apart is refused: fields that
//! stand there twice, a oneof with two of its fields; and fields that are not known, but where the method passes them over. Nothing here recurses but by the messages' own
//! nesting, which is fixed; free JSON is kept as it was written.

mod values;

pub use super::weight::Unreadable;
pub use values::Json;

use super::weight::{Budget, Shape};
use serde::de::{DeserializeSeed, Deserializer as _, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// Most bytes of a field's name in a pointer.
const POINTER_NAME: usize = 64;

/// A message: what is made of its `.proto` beside prost's type.
pub trait Form: prost::Message + Default {
    /// Of which fields there can be many.
    const SHAPE: Shape;
    /// Reads a field; false where there is none of this name.
    fn read_field(&mut self, name: &str, value: &RawValue, reader: &mut Reader) -> Result<bool, Unreadable>;
    /// Writes all fields.
    fn write_fields(&self, writer: &mut Writer);
}

/// An enum: its values by name.
pub trait Words: TryFrom<i32> + Into<i32> + Copy + Default {
    /// All of them.
    const WORDS: &'static [&'static str];
    /// The one of this name.
    fn of_word(word: &str) -> Option<Self>;
    /// Its name.
    fn word(&self) -> &'static str;
}

/// What becomes of fields that a message does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// They are refused: whoever wrote one meant something by it.
    Refused,
    /// They are passed over, as Twirp's servers in Go do.
    PassedOver,
}

/// The message of a JSON body.
pub fn read<M: Form>(body: &[u8], unknown: Unknown, budget: &mut Budget) -> Result<M, Unreadable> {
    let mut reader = Reader {
        place: String::new(),
        unknown,
        budget,
    };
    let text = std::str::from_utf8(body)
        .map_err(|e| reader.wrong(format!("It is not UTF-8: byte {} is wrong.", e.valid_up_to())))?;
    let value =
        serde_json::from_str(text).map_err(|e| reader.wrong(format!("It is not valid JSON: {e}.")))?;
    M::read(value, &mut reader)
}

/// The JSON of a message.
pub fn write<M: Form>(message: &M) -> Vec<u8> {
    let mut writer = Writer { out: Vec::new() };
    message.write(&mut writer);
    writer.out
}

/// Reads values, and knows where it is.
pub struct Reader<'b> {
    /// As a JSON pointer.
    place: String,
    unknown: Unknown,
    budget: &'b mut Budget,
}

impl Reader<'_> {
    /// Reads a field that is no part of a oneof; null leaves it as it is.
    pub fn set<T: Json>(&mut self, field: &mut T, value: &RawValue) -> Result<(), Unreadable> {
        if !is_null(value) {
            *field = T::read(value, self)?;
        }
        Ok(())
    }

    /// Reads an enum, by name or number.
    pub fn set_word<W: Words>(&mut self, field: &mut i32, value: &RawValue) -> Result<(), Unreadable> {
        if is_null(value) {
            return Ok(());
        }
        let word = match serde_json::from_str::<i32>(value.get()) {
            Ok(number) => W::try_from(number).ok(),
            Err(_) => W::of_word(&self.text(value, "a name or number of the enum")?),
        };
        let word = word.ok_or_else(|| self.wrong(format!("It must be one of {}.", W::WORDS.join(", "))))?;
        *field = word.into();
        Ok(())
    }

    /// Reads a field of a oneof.
    pub fn choose<T: Json, O>(
        &mut self,
        choice: &mut Option<O>,
        value: &RawValue,
        of: fn(T) -> O,
    ) -> Result<(), Unreadable> {
        if is_null(value) {
            return Ok(());
        }
        self.choose_none_before(choice)?;
        *choice = Some(of(T::read(value, self)?));
        Ok(())
    }

    /// Takes any JSON as it is written, null too.
    pub fn choose_text<O>(
        &mut self,
        choice: &mut Option<O>,
        value: &RawValue,
        of: fn(String) -> O,
    ) -> Result<(), Unreadable> {
        self.choose_none_before(choice)?;
        *choice = Some(of(value.get().to_owned()));
        Ok(())
    }

    fn choose_none_before<O>(&self, choice: &Option<O>) -> Result<(), Unreadable> {
        match choice {
            None => Ok(()),
            Some(_) => Err(self.wrong("Another field stands in its place already: exactly one of them may.")),
        }
    }

    /// A text.
    fn text(&self, value: &RawValue, wanted: &str) -> Result<String, Unreadable> {
        if !value.get().starts_with('"') {
            return Err(self.wrong(format!("It must be {wanted}, not {}.", kind(value))));
        }
        serde_json::from_str(value.get()).map_err(|_| self.wrong("It holds half of a surrogate pair."))
    }

    /// Reads what stands at a name or a place of a list.
    fn within<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&mut Self) -> Result<T, Unreadable>,
    ) -> Result<T, Unreadable> {
        let outer = self.place.len();
        let name: String = name.chars().take(POINTER_NAME).collect();
        self.place.push('/');
        self.place.push_str(&name.replace('~', "~0").replace('/', "~1"));
        let result = read(self);
        self.place.truncate(outer);
        result
    }

    fn wrong(&self, detail: impl Into<String>) -> Unreadable {
        Unreadable::Malformed {
            detail: detail.into(),
            pointer: (!self.place.is_empty()).then(|| self.place.clone()),
        }
    }

    /// Reads an object, member by member.
    fn members(
        &mut self,
        value: &RawValue,
        each: impl FnMut(&mut Self, &str, &RawValue) -> Result<(), Unreadable>,
    ) -> Result<(), Unreadable> {
        if !value.get().starts_with('{') {
            return Err(self.wrong(format!("It must be an object, not {}.", kind(value))));
        }
        let mut fault = None;
        let (reader, mut each) = (self, each);
        let visit = Members(|name: &str, value: &RawValue| {
            reader
                .within(name, |reader| each(reader, name, value))
                .map_err(|error| fault = Some(error))
        });
        let read = serde_json::Deserializer::from_str(value.get()).deserialize_map(visit);
        settled(read, fault)
    }

    /// Reads a list, item by item.
    fn items(
        &mut self,
        value: &RawValue,
        mut each: impl FnMut(&mut Self, &RawValue) -> Result<(), Unreadable>,
    ) -> Result<(), Unreadable> {
        if !value.get().starts_with('[') {
            return Err(self.wrong(format!("It must be an array, not {}.", kind(value))));
        }
        let (mut fault, mut index) = (None, 0usize);
        let reader = self;
        let visit = Items(|value: &RawValue| {
            let read = reader.within(&index.to_string(), |reader| each(reader, value));
            index += 1;
            read.map_err(|error| fault = Some(error))
        });
        let read = serde_json::Deserializer::from_str(value.get()).deserialize_seq(visit);
        settled(read, fault)
    }
}

/// What stopped the reading: our own fault where there is one.
fn settled(read: serde_json::Result<()>, fault: Option<Unreadable>) -> Result<(), Unreadable> {
    match (fault, read) {
        (Some(fault), _) => Err(fault),
        (None, Ok(())) => Ok(()),
        (None, Err(error)) => Err(Unreadable::Malformed {
            detail: format!("It is not valid JSON: {error}."),
            pointer: None,
        }),
    }
}

fn is_null(value: &RawValue) -> bool {
    value.get() == "null"
}

/// What a value is, in words.
fn kind(value: &RawValue) -> &'static str {
    match value.get().as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// Writes values.
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    /// A field, where it is there.
    pub fn put<T: Json>(&mut self, name: &str, value: &T) {
        if value.is_there() {
            self.name(name);
            value.write(self);
        }
    }

    /// An enum.
    pub fn put_word<W: Words>(&mut self, name: &str, value: i32) {
        self.name(name);
        match W::try_from(value) {
            Ok(word) => self.text(word.word()),
            // One of a later version.
            Err(_) => self.out.extend_from_slice(value.to_string().as_bytes()),
        }
    }

    fn name(&mut self, name: &str) {
        self.next();
        self.text(name);
        self.out.push(b':');
    }

    fn text(&mut self, text: &str) {
        postrider_model::json::push_string(&mut self.out, text);
    }

    /// A comma, unless this is the first of its object or array.
    fn next(&mut self) {
        if !matches!(self.out.last(), Some(b'{' | b'[')) {
            self.out.push(b',');
        }
    }
}

/// Visits the members of an object, until one is wrong.
struct Members<F>(F);

impl<'de, F: FnMut(&str, &RawValue) -> Result<(), ()>> Visitor<'de> for Members<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key_seed(Name)? {
            let value: &RawValue = map.next_value()?;
            (self.0)(&name, value).map_err(|()| A::Error::custom("wrong"))?;
        }
        Ok(())
    }
}

/// Visits the items of an array, until one is wrong.
struct Items<F>(F);

impl<'de, F: FnMut(&RawValue) -> Result<(), ()>> Visitor<'de> for Items<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        while let Some(value) = list.next_element::<&RawValue>()? {
            (self.0)(value).map_err(|()| A::Error::custom("wrong"))?;
        }
        Ok(())
    }
}

/// A name, borrowed where it has no escapes.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: serde::Deserializer<'de>>(self, d: D) -> Result<Cow<'de, str>, D::Error> {
        d.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

#[cfg(test)]
#[path = "form_tests.rs"]
mod tests;
