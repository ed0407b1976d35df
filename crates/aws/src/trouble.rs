//! What an error of a service means to who called it.

use crate::SdkError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use std::error::Error;
use std::fmt;

/// Codes by which services say that they are asked too often, or for the same by several at once.
const THROTTLED: [&str; 12] = [
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "RequestThrottled",
    "RequestThrottledException",
    "TooManyRequestsException",
    "ProvisionedThroughputExceededException",
    "LimitExceededException",
    "RequestLimitExceeded",
    "KmsThrottled",
    "TransactionConflictException",
    "TransactionInProgressException",
];
/// A text for the operator has at most so many characters.
const MOST_CHARS: usize = 400;

/// Why a call failed. The text is for the operator: it may name hosts, queues and roles, never a credential or a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trouble {
    /// It cannot be reached, is not well, or does not answer in time.
    Away(String),
    /// It is asked too often.
    Throttled(String),
    /// It answers, and will not. Asking again does not mend it.
    Refused {
        /// The service's name for it, such as `AccessDenied`; empty where it gave none.
        code: String,
        /// What it said.
        text: String,
    },
}

impl Trouble {
    /// Whether to ask again, later, may help though nobody mends anything.
    pub fn is_transient(&self) -> bool {
        !matches!(self, Trouble::Refused { .. })
    }

    /// Whether it was refused by one of these names.
    pub fn is(&self, names: &[&str]) -> bool {
        matches!(self, Trouble::Refused { code, .. } if names.contains(&code.as_str()))
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Away(text) | Trouble::Throttled(text) | Trouble::Refused { text, .. } => {
                f.write_str(text)
            }
        }
    }
}

impl Error for Trouble {}

/// What an error of the SDK means.
pub fn trouble<E>(error: &SdkError<E, HttpResponse>) -> Trouble
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let SdkError::ServiceError(failed) = error else {
        return match error {
            // No credentials, no region, or a call that is wrong in itself.
            SdkError::ConstructionFailure(_) => Trouble::Refused {
                code: String::new(),
                text: reasons(error),
            },
            _ => Trouble::Away(reasons(error)),
        };
    };
    let status = failed.raw().status().as_u16();
    // Old names come as `AWS.SimpleQueueService.NonExistentQueue`, or with a name space before a `#`.
    let code = failed.err().code().unwrap_or_default();
    let code = code.rsplit(['#', '.']).next().unwrap_or_default();
    let text = match failed.err().message() {
        Some(message) => format!("{code}: {message}"),
        None => format!("{code} (status {status})"),
    };
    let text = shortened(&text);
    if status == 429 || THROTTLED.contains(&code) {
        Trouble::Throttled(text)
    } else if status >= 500 {
        Trouble::Away(text)
    } else {
        Trouble::Refused {
            code: code.to_owned(),
            text,
        }
    }
}

/// An error and what caused it, in one line.
fn reasons(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let next_text = next.to_string();
        if !text.ends_with(&next_text) {
            text.push_str(": ");
            text.push_str(&next_text);
        }
        cause = next.source();
    }
    shortened(&text)
}

fn shortened(text: &str) -> String {
    let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    one_line.chars().take(MOST_CHARS).collect()
}
