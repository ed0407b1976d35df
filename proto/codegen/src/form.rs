//! The JSON of messages, and what they weigh, as calls into the server's `twirp::{form, weight}`.
//!
//! What the server's JSON cannot hold is refused here, rather than written in another way than protobuf's JSON says.

use crate::names::{camel, path, snake};
use anyhow::{Context as _, Result, bail};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto};

/// The code for all messages and enums of a file.
pub fn package(file: &FileDescriptorProto) -> Result<String> {
    let mut code = String::from(
        "use crate::api::twirp::form::{Form, Reader, Unreadable, Words, Writer};
        use crate::api::twirp::weight::{Part, Shape};
        use serde_json::value::RawValue;\n",
    );
    let package = file.package();
    for one in &file.enum_type {
        push_enum(&mut code, one, one.name());
    }
    for one in &file.message_type {
        push_message(&mut code, one, &format!(".{package}.{}", one.name()), package)?;
    }
    Ok(code)
}

fn push_enum(code: &mut String, one: &EnumDescriptorProto, path: &str) {
    let names: Vec<String> = one
        .value
        .iter()
        .map(|value| format!("{:?}", value.name()))
        .collect();
    code.push_str(&format!(
        "impl Words for {path} {{
            const WORDS: &'static [&'static str] = &[{}];
            fn of_word(word: &str) -> Option<Self> {{ Self::from_str_name(word) }}
            fn word(&self) -> &'static str {{ self.as_str_name() }}
        }}\n",
        names.join(", ")
    ));
}

fn push_message(code: &mut String, message: &DescriptorProto, full: &str, package: &str) -> Result<()> {
    let this = path(full, package);
    let maps: Vec<&DescriptorProto> = (message.nested_type.iter())
        .filter(|nested| nested.options.as_ref().is_some_and(|options| options.map_entry()))
        .collect();
    let about = About {
        message,
        package,
        module: this
            .rsplit_once("::")
            .map_or(String::new(), |(outer, _)| format!("{outer}::"))
            + &snake(message.name()),
        maps: &maps,
    };
    let (mut reads, mut writes, mut parts) = (String::new(), String::new(), String::new());
    for field in &message.field {
        let pieces = about
            .field(field)
            .with_context(|| format!("{full}.{}", field.name()))?;
        reads.push_str(&pieces.read);
        parts.push_str(&pieces.part);
        writes.push_str(&pieces.write);
    }
    let (read, write) = match message.field.is_empty() {
        true => ("(_, _, _)", "_"),
        false => ("(name, value, reader)", "writer"),
    };
    let (name, value, reader) = match read.starts_with("(_") {
        true => ("_", "_", "_"),
        false => ("name", "value", "reader"),
    };
    let body = match message.field.is_empty() {
        true => "Ok(false)".to_owned(),
        false => format!("match name {{ {reads} _ => return Ok(false), }} Ok(true)"),
    };
    code.push_str(&format!(
        "impl Form for {this} {{
            const SHAPE: Shape = Shape(&[{parts}]);
            fn read_field(&mut self, {name}: &str, {value}: &RawValue, {reader}: &mut Reader) -> Result<bool, Unreadable> {{
                {body}
            }}
            fn write_fields(&self, {write}: &mut Writer) {{ {writes} }}
        }}\n"
    ));
    for one in &message.enum_type {
        push_enum(code, one, &path(&format!("{full}.{}", one.name()), package));
    }
    for nested in message.nested_type.iter().filter(|nested| !maps.contains(nested)) {
        push_message(code, nested, &format!("{full}.{}", nested.name()), package)?;
    }
    Ok(())
}

/// What is written of one field.
#[derive(Default)]
struct Pieces {
    read: String,
    write: String,
    part: String,
}

struct About<'a> {
    message: &'a DescriptorProto,
    package: &'a str,
    /// Where prost puts what is nested in it.
    module: String,
    maps: &'a [&'a DescriptorProto],
}

impl About<'_> {
    fn field(&self, field: &FieldDescriptorProto) -> Result<Pieces> {
        let member = snake(field.name());
        let oneof = field.oneof_index.filter(|_| !field.proto3_optional());
        let (read, write) = match oneof {
            Some(index) => self.of_oneof(field, index)?,
            None => {
                check(field, self.is_map(field))?;
                match field.r#type() {
                    Type::Enum if field.label() != Label::Repeated && !field.proto3_optional() => {
                        let words = path(field.type_name(), self.package);
                        (
                            format!("reader.set_word::<{words}>(&mut self.{member}, value)?"),
                            format!("writer.put_word::<{words}>({:?}, self.{member});", field.name()),
                        )
                    }
                    Type::Enum => bail!("the JSON of such an enum is not written yet"),
                    _ => (
                        format!("reader.set(&mut self.{member}, value)?"),
                        format!("writer.put({:?}, &self.{member});", field.name()),
                    ),
                }
            }
        };
        let names = match (field.name(), field.json_name()) {
            (name, json) if name == json || json.is_empty() => format!("{name:?}"),
            (name, json) => format!("{name:?} | {json:?}"),
        };
        Ok(Pieces {
            read: format!("{names} => {read},\n"),
            write,
            part: self.part(field),
        })
    }

    fn of_oneof(&self, field: &FieldDescriptorProto, index: i32) -> Result<(String, String)> {
        let oneof = usize::try_from(index)
            .ok()
            .and_then(|at| self.message.oneof_decl.get(at));
        let oneof = oneof.context("a oneof that is not there")?.name();
        let (member, choice) = (snake(oneof), format!("{}::{}", self.module, camel(oneof)));
        let variant = format!("{choice}::{}", camel(field.name()));
        let mut write = format!(
            "if let Some({variant}(value)) = &self.{member} {{ writer.put({:?}, value); }}",
            field.name()
        );
        let read = match field.type_name() {
            // Any JSON is taken as it is written, by the text that stands beside it. Only requests have one, and those
            // are not written here.
            VALUE => {
                write.clear();
                let text = format!("{}_json", field.name());
                let has_text = |other: &FieldDescriptorProto| {
                    other.name() == text
                        && other.r#type() == Type::String
                        && other.oneof_index == field.oneof_index
                };
                if !self.message.field.iter().any(has_text) {
                    bail!(
                        "the JSON of a Value is read into the string `{text}` of the same oneof, which is not there"
                    );
                }
                format!(
                    "reader.choose_text(&mut self.{member}, value, {choice}::{})?",
                    camel(&text)
                )
            }
            _ => {
                check(field, false)?;
                format!("reader.choose(&mut self.{member}, value, {variant})?")
            }
        };
        Ok((read, write))
    }

    /// What each occurrence of it takes in memory, beside the bytes of its texts.
    fn part(&self, field: &FieldDescriptorProto) -> String {
        let is_list = field.label() == Label::Repeated;
        let number = field.number();
        let (bytes, within) = match field.r#type() {
            Type::Message if self.is_map(field) => {
                ("size_of::<(String, String)>()".to_owned(), "None".to_owned())
            }
            Type::Message if field.type_name() == VALUE => (
                "0".to_owned(),
                "Some(&crate::api::twirp::weight::VALUE)".to_owned(),
            ),
            Type::Message if field.type_name().starts_with(".google.") => return String::new(),
            Type::Message => {
                let one = path(field.type_name(), self.package);
                let bytes = if is_list {
                    format!("size_of::<{one}>()")
                } else {
                    "0".to_owned()
                };
                (bytes, format!("Some(&<{one} as Form>::SHAPE)"))
            }
            _ if is_list => ("size_of::<String>()".to_owned(), "None".to_owned()),
            _ => return String::new(),
        };
        format!("Part {{ number: {number}, bytes: {bytes}, within: {within} }},")
    }

    fn is_map(&self, field: &FieldDescriptorProto) -> bool {
        let name = field.type_name().rsplit('.').next().unwrap_or_default();
        self.maps.iter().any(|map| map.name() == name)
    }
}

const VALUE: &str = ".google.protobuf.Value";

/// Refuses what the server's JSON has no form for.
fn check(field: &FieldDescriptorProto, is_map: bool) -> Result<()> {
    let known = match field.r#type() {
        Type::String | Type::Enum => true,
        Type::Bool | Type::Uint32 | Type::Uint64 => field.label() != Label::Repeated,
        Type::Message if is_map => true,
        Type::Message if field.type_name().starts_with(".google.") => {
            let of_time = [".google.protobuf.Timestamp", ".google.protobuf.Duration"];
            of_time.contains(&field.type_name())
        }
        Type::Message => true,
        _ => false,
    };
    if !known {
        bail!("the JSON of such a field is not written yet");
    }
    Ok(())
}
