//! What went wrong with a call, as Twirp tells it: `{"code","msg","meta"}`.
//!
//! Invariant: which code a problem has stands in [`CODES`] and nowhere else; its status is the code's.

use crate::api::refusal::Code;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use postrider_model::json::push_string;
use postrider_transports::Problem;

/// The codes that a node answers with, of those of the specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TwirpCode {
    /// Nothing is there.
    NotFound,
    /// No such path or content type.
    BadRoute,
    /// The message cannot be read.
    Malformed,
    /// It can be read, and is wrong whatever the server's state.
    InvalidArgument,
    /// It did not arrive in time.
    DeadlineExceeded,
    /// It was there before, and is another.
    AlreadyExists,
    /// Known, and not allowed.
    PermissionDenied,
    /// Not known.
    Unauthenticated,
    /// Too much in too short a time.
    ResourceExhausted,
    /// Not possible as things are.
    FailedPrecondition,
    /// A fault of the server.
    Internal,
    /// Not now.
    Unavailable,
}

impl TwirpCode {
    /// Its name, and the HTTP status that the specification gives it.
    pub fn parts(self) -> (&'static str, u16) {
        match self {
            TwirpCode::NotFound => ("not_found", 404),
            TwirpCode::BadRoute => ("bad_route", 404),
            TwirpCode::Malformed => ("malformed", 400),
            TwirpCode::InvalidArgument => ("invalid_argument", 400),
            TwirpCode::DeadlineExceeded => ("deadline_exceeded", 408),
            TwirpCode::AlreadyExists => ("already_exists", 409),
            TwirpCode::PermissionDenied => ("permission_denied", 403),
            TwirpCode::Unauthenticated => ("unauthenticated", 401),
            TwirpCode::ResourceExhausted => ("resource_exhausted", 429),
            TwirpCode::FailedPrecondition => ("failed_precondition", 412),
            TwirpCode::Internal => ("internal", 500),
            TwirpCode::Unavailable => ("unavailable", 503),
        }
    }
}

/// The code of each problem that a call can meet. What is too large is no `resource_exhausted`: clients take that for a
/// reason to try again.
pub const CODES: [(&str, TwirpCode); 23] = [
    ("invalid_notification", TwirpCode::InvalidArgument),
    ("empty_audience", TwirpCode::InvalidArgument),
    ("invalid_user", TwirpCode::InvalidArgument),
    ("invalid_cursor", TwirpCode::InvalidArgument),
    ("invalid_request", TwirpCode::InvalidArgument),
    ("too_large", TwirpCode::InvalidArgument),
    ("token_missing", TwirpCode::Unauthenticated),
    ("token_malformed", TwirpCode::Unauthenticated),
    ("token_signature", TwirpCode::Unauthenticated),
    ("token_expired", TwirpCode::Unauthenticated),
    ("token_claims", TwirpCode::Unauthenticated),
    ("key_missing", TwirpCode::Unauthenticated),
    ("key_invalid", TwirpCode::Unauthenticated),
    ("scope", TwirpCode::PermissionDenied),
    ("origin", TwirpCode::PermissionDenied),
    ("not_found", TwirpCode::NotFound),
    ("gone", TwirpCode::NotFound),
    ("id_conflict", TwirpCode::AlreadyExists),
    ("state_conflict", TwirpCode::FailedPrecondition),
    ("rate_limited", TwirpCode::ResourceExhausted),
    ("head_timeout", TwirpCode::DeadlineExceeded),
    ("unavailable", TwirpCode::Unavailable),
    ("internal", TwirpCode::Internal),
];

/// One error.
#[derive(Debug)]
pub struct Fault {
    code: TwirpCode,
    /// Boxed, since every reply may be one.
    problem: Box<Problem>,
    /// Which route was not there.
    route: Option<String>,
}

impl Fault {
    /// A message that cannot be read; `detail` says why.
    pub fn malformed(detail: String, pointer: Option<String>) -> Fault {
        let problem = Problem {
            pointer,
            ..Problem::invalid_request(detail)
        };
        Fault {
            code: TwirpCode::Malformed,
            problem: Box::new(problem),
            route: None,
        }
    }

    /// A path, HTTP method or content type that is not there; `detail` says what is wrong.
    pub fn bad_route(detail: &str, method: &Method, path: &str) -> Fault {
        Fault {
            code: TwirpCode::BadRoute,
            problem: Box::new(Problem::invalid_request(detail)),
            route: Some(format!("{method} {path}")),
        }
    }

    /// The code of the same refusal in the rest of the API.
    pub fn problem_code(&self) -> &'static str {
        self.problem.code
    }

    /// The document.
    fn json(&self) -> Vec<u8> {
        let (code, _) = self.code.parts();
        let mut out = Vec::with_capacity(128 + self.problem.detail.len());
        out.extend_from_slice(b"{\"code\":");
        push_string(&mut out, code);
        out.extend_from_slice(b",\"msg\":");
        push_string(&mut out, &self.problem.detail);
        out.extend_from_slice(b",\"meta\":{\"code\":");
        push_string(&mut out, self.problem.code);
        let retry_after = self.problem.retry_after.map(|seconds| seconds.to_string());
        let members = [
            ("pointer", &self.problem.pointer),
            ("retry_after", &retry_after),
            // The name by which the usual servers tell it.
            ("twirp_invalid_route", &self.route),
        ];
        for (name, value) in members {
            if let Some(value) = value {
                out.push(b',');
                push_string(&mut out, name);
                out.push(b':');
                push_string(&mut out, value);
            }
        }
        out.extend_from_slice(b"}}");
        out
    }
}

impl From<Problem> for Fault {
    fn from(problem: Problem) -> Fault {
        let known = CODES.iter().find(|(code, _)| *code == problem.code);
        Fault {
            code: known.map_or(TwirpCode::Internal, |(_, code)| *code),
            problem: Box::new(problem),
            route: None,
        }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.json()));
        let (_, status) = self.code.parts();
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.extensions_mut().insert(Code(self.problem.code));
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json);
        for (name, value) in self.problem.headers() {
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(&value)) {
                headers.insert(name, value);
            }
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_one_line_in_the_documentation() {
        let document = include_str!("../../../../../docs/twirp.md");
        for (problem, code) in CODES {
            let (name, status) = code.parts();
            let begins = format!("| `{name}` | {status} |");
            let mut lines = document.lines().filter(|line| line.starts_with(&begins));
            assert!(
                lines.any(|line| line.contains(&format!("`{problem}`"))),
                "docs/twirp.md has no line {begins} with `{problem}`"
            );
        }
    }

    #[test]
    fn an_error_says_code_message_and_place() {
        let problem = Problem::too_large("It is \"too\" large.", Some("/data".into()));
        let json: serde_json::Value = serde_json::from_slice(&Fault::from(problem).json()).unwrap();
        let expected = serde_json::json!({
            "code": "invalid_argument", "msg": "It is \"too\" large.", "meta": {"code": "too_large", "pointer": "/data"}
        });
        assert_eq!(json, expected);
        let response = Fault::from(Problem::rate_limited(7)).into_response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["retry-after"], "7");
        let response = Fault::from(Problem::token_expired()).into_response();
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
        let response = Fault::bad_route("No.", &Method::GET, "/twirp/x").into_response();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (404, &HeaderValue::from_static("application/json"))
        );
    }
}
