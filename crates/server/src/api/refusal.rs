//! The one place where what went wrong becomes an answer. An operator's detail stays in the log.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use postrider_engine::{DirectoryError, EngineError};
use postrider_model::LogPace;
use postrider_router::{Fault, FaultCode};
use postrider_sources::InputFault;
use postrider_transports::{Problem, problem};
use std::fmt;

/// After how many seconds it is worth asking a busy store again.
const RETRY_BUSY_S: u32 = 1;
/// The same where an operator has to do something first.
const RETRY_FULL_S: u32 = 30;

/// While a store fails, every request comes to the same.
static REFUSED: LogPace = LogPace::new();

/// The code of the problem that a response tells of, as an extension of it.
#[derive(Clone, Copy)]
pub struct Code(pub &'static str);

/// A problem on its way out.
#[derive(Debug)]
pub struct Refusal(Problem);

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Refusal {
        Refusal(problem)
    }
}

impl From<EngineError> for Refusal {
    fn from(error: EngineError) -> Refusal {
        Refusal(engine_problem(&error))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Refusal(problem) = self;
        let mut response = Response::new(Body::from(problem.json()));
        *response.status_mut() =
            StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.extensions_mut().insert(Code(problem.code));
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static(problem::CONTENT_TYPE),
        );
        for (name, value) in problem.headers() {
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(&value)) {
                headers.insert(name, value);
            }
        }
        response
    }
}

/// A fault of intake, as the client is told it.
pub fn intake_problem(fault: Fault) -> Problem {
    let Fault {
        code,
        detail,
        pointer,
    } = fault;
    let detail = sentence(&detail);
    match code {
        FaultCode::InvalidNotification => Problem::invalid_notification(detail, pointer),
        FaultCode::EmptyAudience => Problem {
            detail,
            pointer,
            ..Problem::empty_audience()
        },
        FaultCode::Scope => Problem {
            detail,
            pointer,
            ..Problem::scope("broadcast")
        },
        FaultCode::TooLarge => Problem::too_large(detail, pointer),
    }
}

/// A fault of what was written of a user or a state, as the client is told it; where it is no bound that is passed, as
/// this problem.
pub fn input_problem(fault: InputFault, invalid: Problem) -> Problem {
    let detail = sentence(&fault);
    match fault.is_too_large {
        true => Problem::too_large(detail, fault.pointer),
        false => Problem {
            detail,
            pointer: fault.pointer,
            ..invalid
        },
    }
}

/// Why the directory does not take a user, as the client is told it.
pub fn directory_problem(error: &DirectoryError, pointer: Option<&str>) -> Problem {
    match error {
        DirectoryError::TooManyTopics { .. } | DirectoryError::TooManyStays { .. } => {
            Problem::too_large(sentence(error), pointer.map(str::to_owned))
        }
        error => {
            if let Some(unsaid) = REFUSED.due(crate::now()) {
                tracing::error!(%error, unsaid, "the directory refused");
            }
            Problem::unavailable(RETRY_FULL_S)
        }
    }
}

/// An error's words as a sentence.
pub fn sentence(error: &dyn fmt::Display) -> String {
    let text = error.to_string();
    let mut chars = text.chars();
    let first = chars
        .next()
        .map(|c| c.to_uppercase().to_string())
        .unwrap_or_default();
    format!("{first}{}.", chars.as_str())
}

/// An engine's error, as the client is told it.
pub fn engine_problem(error: &EngineError) -> Problem {
    match error {
        EngineError::IdConflict(_) => Problem {
            pointer: Some("/id".into()),
            ..Problem::id_conflict()
        },
        EngineError::RequestConflict => {
            let detail = "This Idempotency-Key was used before with another body. Use a new key, or repeat the first body unchanged.";
            Problem {
                detail: detail.into(),
                ..Problem::id_conflict()
            }
        }
        EngineError::Busy => Problem::unavailable(RETRY_BUSY_S),
        EngineError::DeadLettersFull => Problem {
            detail: "There are as many dead letters as this server keeps. Redrive or delete some, then publish again.".into(),
            ..Problem::unavailable(RETRY_FULL_S)
        },
        EngineError::Unready(_) => Problem {
            detail: format!("{} Send the same again later: somebody has to mend it first.", sentence(error)),
            ..Problem::unavailable(RETRY_FULL_S)
        },
        EngineError::Full => Problem {
            detail: "This server holds as much as it may, and none of it may be forgotten yet. Publish again later, or raise retention.total_bytes.".into(),
            ..Problem::unavailable(RETRY_FULL_S)
        },
        error => {
            if let Some(unsaid) = REFUSED.due(crate::now()) {
                tracing::error!(%error, unsaid, "the engine refused");
            }
            Problem::unavailable(RETRY_BUSY_S)
        }
    }
}
