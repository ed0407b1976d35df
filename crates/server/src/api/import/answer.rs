//! What an import answers: counts, bad lines, and how far it is.

use crate::api::refusal::{Code, sentence};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use postrider_sources::users::UserFault;
use postrider_transports::{Problem, problem};
use schemars::JsonSchema;
use serde::Serialize;

/// Bad lines that one answer lists; the others are counted. An answer line by line lists all.
pub const BAD_LINES: usize = 1000;

/// What became of the users of an import.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Tally {
    /// Users that were read: no blank lines, no header.
    pub lines: u64,
    /// Those that the directory has now as they were written: the next three together.
    pub imported: u64,
    /// Those that were not known.
    pub created: u64,
    /// Those of whom something is different now.
    pub changed: u64,
    /// Those who were so already.
    pub unchanged: u64,
    /// Bad lines.
    pub rejected: u64,
}

/// A line that could not be imported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct BadLine {
    /// Which line it is, or where its record begins: from 1, blank lines and a header counted.
    pub line: u64,
    /// `invalid_user` or `too_large`; `unavailable` where what is kept of the user is damaged.
    pub code: &'static str,
    /// What is wrong, as a sentence.
    pub detail: String,
    /// JSON pointer to the offending place (NDJSON).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// The offending column, by its name in the header (CSV).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
}

impl BadLine {
    /// Of a line, from what is wrong with it.
    pub fn of(line: u64, UserFault { fault, column }: UserFault) -> BadLine {
        BadLine {
            line,
            code: if fault.is_too_large {
                "too_large"
            } else {
                "invalid_user"
            },
            detail: sentence(&fault),
            pointer: fault.pointer,
            column,
        }
    }
}

/// The whole answer, where no progress was asked for.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Imported {
    /// What became of the users.
    #[serde(flatten)]
    pub tally: Tally,
    /// The first 1,000 bad lines.
    pub bad_lines: Vec<BadLine>,
}

/// A line of an answer that tells how far it is.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Progress {
    /// Users that were read so far.
    lines: u64,
    /// Users that were imported so far.
    imported: u64,
    /// Bad lines so far.
    rejected: u64,
}

/// The last line of such an answer.
#[derive(Debug, Serialize, JsonSchema)]
pub struct End {
    /// All of the input was read. False: it broke off, and `code` and `detail` say why. What was imported stays, and
    /// importing the same again is safe.
    done: bool,
    /// What became of the users.
    #[serde(flatten)]
    tally: Tally,
    /// Why it broke off: the code of a problem.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    /// Why it broke off, as a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

/// Beside a problem's own, the members of the problem `bad_lines`.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct Refused {
    /// Users that were read.
    pub lines: u64,
    /// Bad lines.
    pub rejected: u64,
    /// The first 1,000 of them.
    pub bad_lines: Vec<BadLine>,
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let problem = Problem::bad_lines(format!(
            "{} of {} users cannot be imported, so none was. Mend them, or send bad_lines=skip.",
            self.rejected, self.lines
        ));
        let mut json = problem.json();
        let mut members = serde_json::to_vec(&self).unwrap_or_default();
        if let Some(first) = members.first_mut() {
            // The two objects become one.
            json.pop();
            *first = b',';
            json.append(&mut members);
        }
        let mut response = Response::new(json.into());
        *response.status_mut() = axum::http::StatusCode::BAD_REQUEST;
        response.extensions_mut().insert(Code(problem.code));
        let content_type = HeaderValue::from_static(problem::CONTENT_TYPE);
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        response
    }
}

/// The bad lines of a batch, and how far it is.
pub fn progress_lines(bad: &[BadLine], tally: Tally) -> Bytes {
    let mut out = Vec::new();
    for line in bad {
        push_line(&mut out, line);
    }
    let Tally {
        lines,
        imported,
        rejected,
        ..
    } = tally;
    let progress = Progress {
        lines,
        imported,
        rejected,
    };
    push_line(&mut out, &progress);
    out.into()
}

/// The end: all was read, or this came between.
pub fn end_line(tally: Tally, broke: Option<&Problem>) -> Bytes {
    let mut out = Vec::new();
    let end = End {
        done: broke.is_none(),
        tally,
        code: broke.map(|problem| problem.code),
        detail: broke.map(|problem| problem.detail.clone()),
    };
    push_line(&mut out, &end);
    out.into()
}

fn push_line(out: &mut Vec<u8>, line: &impl Serialize) {
    // Texts and numbers only: this cannot fail.
    out.append(&mut serde_json::to_vec(line).unwrap_or_default());
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_sources::InputFault;
    use serde_json::{Value, json};

    const TALLY: Tally = Tally {
        lines: 4,
        imported: 3,
        created: 1,
        changed: 1,
        unchanged: 1,
        rejected: 1,
    };

    fn bad() -> BadLine {
        let fault = InputFault::at("/email", "`email` must be good");
        BadLine::of(7, fault.into())
    }

    fn parsed(lines: &[u8]) -> Vec<Value> {
        let lines = lines.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
    }

    #[test]
    fn an_answer_line_by_line() {
        let bad_line = json!({"line": 7, "code": "invalid_user", "detail": "`email` must be good.", "pointer": "/email"});
        assert_eq!(
            parsed(&progress_lines(&[bad()], TALLY)),
            [bad_line, json!({"lines": 4, "imported": 3, "rejected": 1})]
        );
        let mut end = json!({"done": true, "lines": 4, "imported": 3, "created": 1, "changed": 1, "unchanged": 1, "rejected": 1});
        assert_eq!(parsed(&end_line(TALLY, None)), [end.clone()]);
        let broke = Problem::unavailable(1);
        end["done"] = json!(false);
        end["code"] = json!("unavailable");
        end["detail"] = json!(broke.detail);
        assert_eq!(parsed(&end_line(TALLY, Some(&broke))), [end]);
    }

    #[tokio::test]
    async fn a_refusal_is_a_problem_that_lists_the_lines() {
        let refused = Refused {
            lines: 9,
            rejected: 1,
            bad_lines: vec![bad()],
        };
        let response = refused.into_response();
        assert_eq!(response.status(), 400);
        let body = axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
        let json: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            (&json["code"], &json["status"]),
            (&json!("bad_lines"), &json!(400))
        );
        assert_eq!((&json["lines"], &json["rejected"]), (&json!(9), &json!(1)));
        assert_eq!(json["bad_lines"][0]["line"], 7);
    }
}
