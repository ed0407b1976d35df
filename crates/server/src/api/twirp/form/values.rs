//! The JSON of each kind of field.

use super::super::times;
use super::{Form, Reader, Unknown, Unreadable, Writer, kind};
use prost_types::{Duration, Timestamp};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// A field's value.
pub trait Json: Sized {
    /// Reads one that is not null.
    fn read(value: &RawValue, reader: &mut Reader) -> Result<Self, Unreadable>;
    /// Writes it.
    fn write(&self, writer: &mut Writer);
    /// Whether there is anything to write. What has no presence always is there, so that answers show all they have.
    fn is_there(&self) -> bool {
        true
    }
}

impl<M: Form> Json for M {
    fn read(value: &RawValue, reader: &mut Reader) -> Result<Self, Unreadable> {
        let mut message = M::default();
        // As many names as the message has, at most: an unknown one ends it, or is passed over.
        let mut seen: Vec<String> = Vec::new();
        reader.members(value, |reader, name, value| {
            if !message.read_field(name, value, reader)? {
                return match reader.unknown {
                    Unknown::Refused => Err(reader.wrong("The field is not known.")),
                    Unknown::PassedOver => Ok(()),
                };
            }
            // `user_ids` and `userIds` are one field.
            let name = name.replace('_', "").to_ascii_lowercase();
            if seen.contains(&name) {
                return Err(reader.wrong("The field stands there twice."));
            }
            seen.push(name);
            Ok(())
        })?;
        Ok(message)
    }

    fn write(&self, writer: &mut Writer) {
        writer.out.push(b'{');
        self.write_fields(writer);
        writer.out.push(b'}');
    }
}

impl<T: Json> Json for Option<T> {
    fn read(value: &RawValue, reader: &mut Reader) -> Result<Self, Unreadable> {
        T::read(value, reader).map(Some)
    }

    fn write(&self, writer: &mut Writer) {
        if let Some(value) = self {
            value.write(writer);
        }
    }

    fn is_there(&self) -> bool {
        self.is_some()
    }
}

impl<T: Json> Json for Vec<T> {
    fn read(value: &RawValue, reader: &mut Reader) -> Result<Self, Unreadable> {
        let mut list = Vec::new();
        reader.items(value, |reader, value| {
            reader.budget.spend(size_of::<T>())?;
            list.push(T::read(value, reader)?);
            Ok(())
        })?;
        Ok(list)
    }

    fn write(&self, writer: &mut Writer) {
        writer.out.push(b'[');
        for value in self {
            writer.next();
            value.write(writer);
        }
        writer.out.push(b']');
    }
}

impl Json for BTreeMap<String, String> {
    fn read(value: &RawValue, reader: &mut Reader) -> Result<Self, Unreadable> {
        let mut map = BTreeMap::new();
        reader.members(value, |reader, name, value| {
            reader.budget.spend(size_of::<(String, String)>())?;
            match map.insert(name.to_owned(), String::read(value, reader)?) {
                None => Ok(()),
                Some(_) => Err(reader.wrong("The key stands there twice.")),
            }
        })?;
        Ok(map)
    }

    fn write(&self, writer: &mut Writer) {
        writer.out.push(b'{');
        for (name, value) in self {
            writer.put(name, value);
        }
        writer.out.push(b'}');
    }
}

impl Json for String {
    fn read(value: &RawValue, reader: &mut Reader) -> Result<Self, Unreadable> {
        reader.text(value, "a string")
    }

    fn write(&self, writer: &mut Writer) {
        writer.text(self);
    }
}

impl Json for bool {
    fn read(value: &RawValue, reader: &mut Reader) -> Result<Self, Unreadable> {
        serde_json::from_str(value.get())
            .map_err(|_| reader.wrong(format!("It must be a boolean, not {}.", kind(value))))
    }

    fn write(&self, writer: &mut Writer) {
        writer
            .out
            .extend_from_slice(if *self { b"true" } else { b"false" });
    }
}

impl Json for u32 {
    fn read(value: &RawValue, reader: &mut Reader) -> Result<Self, Unreadable> {
        integer(value, reader)
    }

    fn write(&self, writer: &mut Writer) {
        writer.out.extend_from_slice(self.to_string().as_bytes());
    }
}

/// As text, since many clients' numbers are doubles.
impl Json for u64 {
    fn read(value: &RawValue, reader: &mut Reader) -> Result<Self, Unreadable> {
        integer(value, reader)
    }

    fn write(&self, writer: &mut Writer) {
        writer.text(&self.to_string());
    }
}

fn integer<T: std::str::FromStr>(value: &RawValue, reader: &Reader) -> Result<T, Unreadable> {
    let text = value.get().trim_matches('"');
    text.parse()
        .map_err(|_| reader.wrong("It must be a whole number within its bounds."))
}

impl Json for Timestamp {
    fn read(value: &RawValue, reader: &mut Reader) -> Result<Self, Unreadable> {
        let text = reader.text(value, "a string")?;
        times::read_instant(&text).ok_or_else(|| {
            reader.wrong("It must be an RFC 3339 time from 1970 on, such as 2026-12-01T09:00:00Z.")
        })
    }

    fn write(&self, writer: &mut Writer) {
        // Those that the server writes are within bounds.
        writer.text(&times::instant(self).unwrap_or_default().to_string());
    }
}

impl Json for Duration {
    fn read(value: &RawValue, reader: &mut Reader) -> Result<Self, Unreadable> {
        let text = reader.text(value, "a string")?;
        times::read_span(&text).ok_or_else(|| {
            reader.wrong("It must be a duration such as \"90s\", \"1.500s\", \"5m\" or \"24h\".")
        })
    }

    fn write(&self, writer: &mut Writer) {
        let ms = times::span(self).unwrap_or_default().0;
        writer.text(&format!("{}.{:03}s", ms / 1000, ms % 1000));
    }
}
