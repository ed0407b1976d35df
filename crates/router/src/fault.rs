//! Why a notification is not accepted, in words for the publisher.

use std::fmt;

/// The stable code of a fault. The interface promises these words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultCode {
    /// A rule of the publish interface is broken.
    InvalidNotification,
    /// `users` or `topics` is an empty list.
    EmptyAudience,
    /// The publisher lacks a scope.
    Scope,
    /// Over a configured limit.
    TooLarge,
}

impl FaultCode {
    /// The word for it in the interface.
    pub fn as_str(self) -> &'static str {
        match self {
            FaultCode::InvalidNotification => "invalid_notification",
            FaultCode::EmptyAudience => "empty_audience",
            FaultCode::Scope => "scope",
            FaultCode::TooLarge => "too_large",
        }
    }
}

impl fmt::Display for FaultCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One fault. Holds no part of the payload, so it may be logged and counted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Fault {
    /// What kind of fault.
    pub code: FaultCode,
    /// What is wrong, for the person who wrote the publisher.
    pub detail: String,
    /// JSON pointer (RFC 6901) to the offending place, where it has one.
    pub pointer: Option<String>,
}

impl Fault {
    /// A fault of the notification as a whole.
    pub fn new(code: FaultCode, detail: impl Into<String>) -> Fault {
        Fault {
            code,
            detail: detail.into(),
            pointer: None,
        }
    }

    /// A fault at a place of the notification, e.g. `/users/3`.
    pub fn at(code: FaultCode, pointer: impl Into<String>, detail: impl Into<String>) -> Fault {
        Fault {
            code,
            detail: detail.into(),
            pointer: Some(pointer.into()),
        }
    }

    /// [`FaultCode::InvalidNotification`] at a place.
    pub fn invalid(pointer: impl Into<String>, detail: impl Into<String>) -> Fault {
        Fault::at(FaultCode::InvalidNotification, pointer, detail)
    }
}
