//! What a message takes in memory, found out before it is decoded, so that few bytes cannot become many: an empty
//! notification of a batch is two bytes of protobuf and some hundreds in memory.
//!
//! Invariant: [`decode`] makes no message for whose lists, maps and nested values there was no room. Texts weigh what
//! their body weighs, which has room already.

use super::form::Form;
use crate::bodies::Room;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost_types::Value;

/// Deepest nesting of messages that is followed; prost's own bound.
const DEPTH: usize = 100;
/// Elements of a list that grows take up to twice their size.
const GROWTH: usize = 2;
/// Room is asked for in steps of this.
const STEP: usize = 64 * 1024;

/// What is told of a field that is written in another way than its type is.
pub(super) const WRONG_TYPE: &str = "it has the wrong wire type";

/// Why a body is no message.
#[derive(Debug, PartialEq)]
pub enum Unreadable {
    /// It is none.
    Malformed {
        /// Why, as a sentence.
        detail: String,
        /// Where, as a JSON pointer.
        pointer: Option<String>,
    },
    /// It would take more memory than a message may.
    TooLarge,
    /// It would take more memory than there is now.
    NoRoom,
}

/// Of which fields of a message there can be many.
pub struct Shape(pub &'static [Part]);

/// Such a field.
pub struct Part {
    /// Its number.
    pub number: u32,
    /// What each occurrence takes.
    pub bytes: usize,
    /// The message that it is.
    pub within: Option<&'static Shape>,
}

/// `google.protobuf.Value`: lists and objects of more of them.
pub static VALUE: Shape = Shape(&[
    Part {
        number: 5,
        bytes: 0,
        within: Some(&STRUCT),
    },
    Part {
        number: 6,
        bytes: 0,
        within: Some(&LIST),
    },
]);
static STRUCT: Shape = Shape(&[Part {
    number: 1,
    bytes: size_of::<(String, Value)>(),
    within: Some(&MEMBER),
}]);
static MEMBER: Shape = Shape(&[Part {
    number: 2,
    bytes: 0,
    within: Some(&VALUE),
}]);
static LIST: Shape = Shape(&[Part {
    number: 1,
    bytes: size_of::<Value>(),
    within: Some(&VALUE),
}]);

/// The memory that one message may take.
#[derive(Debug)]
pub struct Budget {
    room: Room,
    held: usize,
    spent: usize,
    most: usize,
}

impl Budget {
    /// At most so many bytes, of this room.
    pub fn new(room: Room, most: usize) -> Budget {
        Budget {
            room,
            held: 0,
            spent: 0,
            most,
        }
    }

    /// One more element of this size.
    pub fn spend(&mut self, bytes: usize) -> Result<(), Unreadable> {
        self.spent = self.spent.saturating_add(bytes.saturating_mul(GROWTH));
        if self.spent > self.most {
            return Err(Unreadable::TooLarge);
        }
        if self.spent > self.held {
            let held = self.spent.saturating_add(STEP);
            if !self.room.hold(held) {
                return Err(Unreadable::NoRoom);
            }
            self.held = held;
        }
        Ok(())
    }
}

/// The message of a protobuf body.
pub fn decode<M: Form>(body: &[u8], budget: &mut Budget) -> Result<M, Unreadable> {
    weigh(body, &M::SHAPE, DEPTH, budget)?;
    M::decode(body).map_err(|error| malformed(&error))
}

fn malformed(error: &prost::DecodeError) -> Unreadable {
    Unreadable::Malformed {
        detail: format!("The body is no such message in protobuf: {error}."),
        pointer: None,
    }
}

fn wrong(why: &str) -> Unreadable {
    Unreadable::Malformed {
        detail: format!("The body is no such message in protobuf: {why}."),
        pointer: None,
    }
}

fn weigh(mut bytes: &[u8], shape: &Shape, depth: usize, budget: &mut Budget) -> Result<(), Unreadable> {
    while !bytes.is_empty() {
        let (number, wire_type) = decode_key(&mut bytes).map_err(|e| malformed(&e))?;
        match shape.0.iter().find(|part| part.number == number) {
            None => skip_field(wire_type, number, &mut bytes, DecodeContext::default())
                .map_err(|e| malformed(&e))?,
            // All of them have a length. prost reads maps without looking, and would count otherwise than is weighed.
            Some(_) if wire_type != WireType::LengthDelimited => {
                return Err(wrong(&format!("{WRONG_TYPE} of field {number}")));
            }
            Some(part) => {
                let length = decode_varint(&mut bytes).map_err(|e| malformed(&e))?;
                let split = usize::try_from(length)
                    .ok()
                    .and_then(|at| bytes.split_at_checked(at));
                let (within, rest) = split.ok_or_else(|| wrong("it ends early"))?;
                bytes = rest;
                budget.spend(part.bytes)?;
                // What nests deeper is not decoded either.
                if let (Some(shape), Some(depth)) = (part.within, depth.checked_sub(1)) {
                    weigh(within, shape, depth, budget)?;
                }
            }
        }
    }
    Ok(())
}
