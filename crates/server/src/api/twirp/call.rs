//! One call on its way: let in, read, answered, in the one form or the other.

use super::fault::Fault;
use super::form::{self, Form, Unknown};
use super::weight::{self, Budget, Unreadable};
use crate::api::{Api, body};
use axum::body::Body;
use axum::extract::{OriginalUri, Request};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use postrider_transports::Problem;
use std::future::Future;
use std::sync::Arc;

/// What becomes of a call.
pub type Reply = Result<Response, Fault>;

/// A message may take this many times the bytes that its body may have; those of short texts take seven.
const WEIGHT_PER_BYTE: usize = 8;

/// Who was let in.
pub struct Admitted<C> {
    /// Who.
    pub caller: C,
    /// How large the message may be.
    pub most: body::Most,
    /// Whether a message that cannot be read is a notification refused, and counted so.
    pub counts: bool,
    /// What becomes of fields of JSON that the message does not have. Those of protobuf are passed over always.
    pub unknown: Unknown,
}

/// A `POST` with a message, of which nothing was read yet.
pub struct Call {
    api: Arc<Api>,
    method: String,
    path: String,
    headers: HeaderMap,
    body: Body,
    encoding: Encoding,
}

/// How messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Json,
    Protobuf,
}

impl Encoding {
    const ALL: [(Encoding, &'static str); 2] = [
        (Encoding::Json, "application/json"),
        (Encoding::Protobuf, "application/protobuf"),
    ];

    fn name(self) -> &'static str {
        match self {
            Encoding::Json => Self::ALL[0].1,
            Encoding::Protobuf => Self::ALL[1].1,
        }
    }
}

impl Call {
    /// A call of this method. A body of no known type is a wrong route, as Twirp has it.
    pub fn open(api: Arc<Api>, method: String, request: Request) -> Result<Call, Fault> {
        let (parts, body) = request.into_parts();
        let names = Encoding::ALL.map(|(_, name)| name);
        let path = parts.uri.path();
        let wrong = |detail: &str| Fault::bad_route(detail, &parts.method, path);
        let given = body::media_type(&parts.headers, &names).map_err(|problem| wrong(&problem.detail))?;
        let of_name = |(_, name): &(Encoding, &str)| given == Some(*name);
        let encoding = Encoding::ALL.into_iter().find(of_name);
        let (encoding, _) = encoding.ok_or_else(|| {
            wrong("The header Content-Type is missing. Send application/json or application/protobuf.")
        })?;
        Ok(Call {
            path: path.to_owned(),
            headers: parts.headers,
            api,
            method,
            body,
            encoding,
        })
    }

    /// Which method is called.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// The service has no such method.
    pub fn no_method(self) -> Reply {
        let detail = "The service has no such method. Names of methods begin with a capital.";
        Err(Fault::bad_route(detail, &Method::POST, &self.path))
    }

    /// Lets the caller in, reads the message, has it answered.
    pub async fn serve<C, Q, A, F>(
        mut self,
        admit: impl FnOnce(&HeaderMap) -> Result<Admitted<C>, Problem>,
        answer: impl FnOnce(C, Q) -> F,
    ) -> Reply
    where
        Q: Form,
        A: Form,
        F: Future<Output = Result<A, Problem>>,
    {
        let Admitted {
            caller,
            most,
            counts,
            unknown,
        } = admit(&self.headers)?;
        let mut budget = Budget::new(self.api.bodies.room(), most.bytes.saturating_mul(WEIGHT_PER_BYTE));
        let request = match self.read(most, unknown, &mut budget).await {
            Ok(request) => request,
            Err(fault) => {
                if counts {
                    self.api.metrics.count_rejected(fault.problem_code());
                }
                return Err(fault);
            }
        };
        let answer = answer(caller, request).await?;
        Ok(self.encoding.response(&answer))
    }

    async fn read<Q: Form>(
        &mut self,
        most: body::Most,
        unknown: Unknown,
        budget: &mut Budget,
    ) -> Result<Q, Fault> {
        let body = std::mem::take(&mut self.body);
        let body = body::read_whole(&self.api, &self.headers, body, most).await?;
        self.encoding
            .decode(&body, unknown, budget)
            .map_err(|fault| match fault {
                Unreadable::Malformed { detail, pointer } => Fault::malformed(detail, pointer),
                Unreadable::TooLarge => most.problem().into(),
                Unreadable::NoRoom => Problem::unavailable(1).into(),
            })
    }
}

impl Encoding {
    fn decode<M: Form>(self, body: &[u8], unknown: Unknown, budget: &mut Budget) -> Result<M, Unreadable> {
        match self {
            Encoding::Json => form::read(body, unknown, budget),
            Encoding::Protobuf => weight::decode(body, budget),
        }
    }

    fn response<M: Form>(self, message: &M) -> Response {
        let body = match self {
            Encoding::Json => form::write(message),
            Encoding::Protobuf => message.encode_to_vec(),
        };
        let mut response = Response::new(Body::from(Bytes::from(body)));
        let content_type = HeaderValue::from_static(self.name());
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        response
    }
}

/// Anything but a `POST`. What a page asks before it posts is answered as everywhere.
pub async fn wrong_http_method(OriginalUri(uri): OriginalUri, request: Request) -> Response {
    match *request.method() {
        Method::OPTIONS => StatusCode::METHOD_NOT_ALLOWED.into_response(),
        ref method => Fault::bad_route("Twirp calls are made with POST.", method, uri.path()).into_response(),
    }
}
