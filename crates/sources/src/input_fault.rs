//! What is wrong with what was written of a user or of a state, and where.

use postrider_router::{Fault, FaultCode};

/// One fault. Holds no part of what was written but names of fields, so it may be logged and counted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct InputFault {
    /// Something is over its bound, rather than of a wrong form.
    pub is_too_large: bool,
    /// What is wrong, for the person who wrote it.
    pub detail: String,
    /// JSON pointer (RFC 6901) to the offending place, where it has one.
    pub pointer: Option<String>,
}

impl InputFault {
    /// Of a wrong form, as a whole.
    pub fn invalid(detail: impl Into<String>) -> InputFault {
        InputFault {
            is_too_large: false,
            detail: detail.into(),
            pointer: None,
        }
    }

    /// Of a wrong form, at a place.
    pub fn at(pointer: impl Into<String>, detail: impl Into<String>) -> InputFault {
        InputFault {
            pointer: Some(pointer.into()),
            ..InputFault::invalid(detail)
        }
    }

    /// Over a bound.
    pub fn too_large(pointer: Option<String>, detail: impl Into<String>) -> InputFault {
        InputFault {
            is_too_large: true,
            pointer,
            ..InputFault::invalid(detail)
        }
    }
}

/// What the pieces of JSON objects say, which they share with notifications.
impl From<Fault> for InputFault {
    fn from(fault: Fault) -> InputFault {
        InputFault {
            is_too_large: fault.code == FaultCode::TooLarge,
            detail: fault.detail,
            pointer: fault.pointer,
        }
    }
}
