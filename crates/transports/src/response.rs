//! HTTP/1.1 answers as bytes, ready for one write.
//!
//! Invariant: every answer says `Cache-Control: no-store` (the raw stream `no-cache`) and how the connection goes on, and no value
//! can add a header or end the head, whatever it holds.
//! Does not decide what to answer, and writes no `Date` (RFC 9110 allows that to a server without a clock).

use crate::problem::{self, Problem};
use bytes::Bytes;

/// More headers for an answer, e.g. those of CORS.
pub type Extra<'a> = &'a [(&'a str, &'a str)];

/// Appends the head of a 200 whose JSON body has so many bytes, such as a long poll's.
pub fn push_json_head(out: &mut Vec<u8>, length: usize, keep_alive: bool, extra: Extra) {
    let mut head = ResponseHead::behind(std::mem::take(out), 200);
    head.header("Content-Type", "application/json");
    head.length(length);
    head.header("Connection", connection(keep_alive));
    head.end(extra);
    *out = head.0;
}

/// 202 with a JSON body: a publish request's notifications are durable.
pub fn accepted(body: &[u8], keep_alive: bool, extra: Extra) -> Bytes {
    let mut head = ResponseHead::new(202);
    head.header("Content-Type", "application/json");
    head.complete(body, connection(keep_alive), extra)
}

/// A refusal, with the headers its status asks for.
pub fn problem(problem: &Problem, keep_alive: bool, extra: Extra) -> Bytes {
    let mut head = ResponseHead::new(problem.status);
    head.header("Content-Type", problem::CONTENT_TYPE);
    for (name, value) in problem.headers() {
        head.header(name, &value);
    }
    // RFC 9110, 7.8: who sends Upgrade also names it in Connection.
    let connection = match (problem.status, keep_alive) {
        (426, true) => "keep-alive, upgrade",
        (426, false) => "close, upgrade",
        _ => connection(keep_alive),
    };
    head.complete(&problem.json(), connection, extra)
}

/// 204, as the answer to a CORS preflight; `extra` says what is allowed.
pub fn no_content(keep_alive: bool, extra: Extra) -> Bytes {
    let mut head = ResponseHead::new(204);
    head.header("Connection", connection(keep_alive));
    head.finish(extra)
}

/// The head of an event stream. Its end is the connection's end, so that events are the same bytes for
/// every session, without chunk sizes between them.
pub fn event_stream(extra: Extra) -> Bytes {
    let mut head = ResponseHead::new(200);
    head.header("Content-Type", "text/event-stream");
    head.header("X-Accel-Buffering", "no");
    head.header("Connection", "close");
    head.finish(extra)
}

/// The head of a stream of bare bodies, as its clients know it, of chunks or until the connection's end.
pub fn raw_stream(is_chunked: bool, extra: Extra) -> Bytes {
    let mut head = ResponseHead::new(200);
    head.header("Content-Type", "text/event-stream");
    head.header("Cache-Control", "no-cache");
    head.header("X-Accel-Buffering", "no");
    if is_chunked {
        head.header("Transfer-Encoding", "chunked");
    }
    head.header("Connection", "close");
    head.end_as_is(extra);
    head.0.into()
}

/// An answer with a JSON body, after which the connection ends.
pub fn json(status: u16, body: &[u8], extra: Extra) -> Bytes {
    let mut head = ResponseHead::new(status);
    head.header("Content-Type", "application/json");
    head.complete(body, connection(false), extra)
}

/// Appends a 101: from the next byte on, both sides speak WebSocket. `subprotocol` is echoed where it was offered.
pub fn push_switching_protocols(out: &mut Vec<u8>, accept: &str, subprotocol: Option<&str>, extra: Extra) {
    // What a session is told next is mostly behind it.
    out.reserve(256);
    let mut head = ResponseHead::behind(std::mem::take(out), 101);
    head.header("Connection", "Upgrade");
    head.header("Upgrade", "websocket");
    head.header("Sec-WebSocket-Accept", accept);
    if let Some(name) = subprotocol {
        head.header("Sec-WebSocket-Protocol", name);
    }
    head.end(extra);
    *out = head.0;
}

fn connection(keep_alive: bool) -> &'static str {
    if keep_alive { "keep-alive" } else { "close" }
}

/// A head under construction.
struct ResponseHead(Vec<u8>);

impl ResponseHead {
    fn new(status: u16) -> Self {
        Self::behind(Vec::with_capacity(512), status)
    }

    /// Behind what is there already.
    fn behind(bytes: Vec<u8>, status: u16) -> Self {
        let mut head = Self(bytes);
        head.0.extend_from_slice(b"HTTP/1.1 ");
        head.number(usize::from(status));
        head.0.push(b' ');
        head.0.extend_from_slice(reason(status).as_bytes());
        head.0.extend_from_slice(b"\r\n");
        head
    }

    /// Writes a header. A byte that has no place in one becomes a space.
    fn header(&mut self, name: &str, value: &str) {
        self.clean(name);
        self.0.extend_from_slice(b": ");
        self.clean(value);
        self.0.extend_from_slice(b"\r\n");
    }

    fn clean(&mut self, text: &str) {
        let from = self.0.len();
        self.0.extend_from_slice(text.as_bytes());
        for byte in &mut self.0[from..] {
            if byte.is_ascii_control() {
                *byte = b' ';
            }
        }
    }

    fn number(&mut self, number: usize) {
        let mut digits = [0u8; 20];
        let (mut at, mut left) = (digits.len(), number);
        while at == digits.len() || left > 0 {
            at -= 1;
            digits[at] = b'0' + (left % 10) as u8;
            left /= 10;
        }
        self.0.extend_from_slice(&digits[at..]);
    }

    fn length(&mut self, length: usize) {
        self.0.extend_from_slice(b"Content-Length: ");
        self.number(length);
        self.0.extend_from_slice(b"\r\n");
    }

    fn complete(mut self, body: &[u8], connection: &str, extra: Extra) -> Bytes {
        self.length(body.len());
        self.header("Connection", connection);
        self.end(extra);
        self.0.extend_from_slice(body);
        self.0.into()
    }

    fn finish(mut self, extra: Extra) -> Bytes {
        self.end(extra);
        self.0.into()
    }

    fn end(&mut self, extra: Extra) {
        self.header("Cache-Control", "no-store");
        self.end_as_is(extra);
    }

    /// Where the head says itself how it may be cached.
    fn end_as_is(&mut self, extra: Extra) {
        for (name, value) in extra {
            self.header(name, value);
        }
        self.0.extend_from_slice(b"\r\n");
    }
}

/// The phrase of a status. Clients ignore it; people read it.
fn reason(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        202 => "Accepted",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: Bytes) -> String {
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn a_poll_answer_byte_for_byte() {
        let cors = [
            ("Access-Control-Allow-Origin", "https://a.example"),
            ("Vary", "Origin"),
        ];
        let mut answer = b"before ".to_vec();
        push_json_head(&mut answer, 7, true, &cors);
        assert_eq!(
            text(answer.into()),
            "before HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\
             Connection: keep-alive\r\nCache-Control: no-store\r\n\
             Access-Control-Allow-Origin: https://a.example\r\nVary: Origin\r\n\r\n"
        );
    }

    #[test]
    fn an_accepted_publish_byte_for_byte() {
        assert_eq!(
            text(accepted(b"{\"id\":\"n\",\"accepted\":true}", true, &[])),
            "HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: 26\r\n\
             Connection: keep-alive\r\nCache-Control: no-store\r\n\r\n{\"id\":\"n\",\"accepted\":true}"
        );
        let mut empty = Vec::new();
        push_json_head(&mut empty, 0, false, &[]);
        assert!(text(empty.into()).contains("\r\nContent-Length: 0\r\nConnection: close\r\n"));
    }

    #[test]
    fn the_head_of_a_stream_has_no_length() {
        assert_eq!(
            text(event_stream(&[])),
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Accel-Buffering: no\r\n\
             Connection: close\r\nCache-Control: no-store\r\n\r\n"
        );
    }

    #[test]
    fn problems_bring_their_headers() {
        let answer = text(problem(&Problem::token_missing(), false, &[]));
        assert!(
            answer.starts_with("HTTP/1.1 401 Unauthorized\r\nContent-Type: application/problem+json\r\n")
        );
        assert!(answer.contains("\r\nWWW-Authenticate: Bearer\r\n"));
        assert!(answer.contains("\r\nConnection: close\r\n"));
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
        let answer = text(problem(&Problem::upgrade_required(), true, &[]));
        assert!(
            answer.contains("\r\nConnection: keep-alive, upgrade\r\n")
                && answer.contains("\r\nUpgrade: websocket\r\n")
        );
    }

    #[test]
    fn switching_names_the_subprotocol_only_where_it_was_offered() {
        let switching = |subprotocol| {
            let mut out = Vec::new();
            push_switching_protocols(&mut out, "abc=", subprotocol, &[]);
            text(out.into())
        };
        let with = switching(Some("postrider.v1"));
        assert!(with.starts_with(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        ));
        assert!(with.contains("\r\nSec-WebSocket-Accept: abc=\r\nSec-WebSocket-Protocol: postrider.v1\r\n"));
        assert!(!switching(None).contains("Protocol:"));
    }

    #[test]
    fn no_value_can_add_a_header() {
        let answer = text(no_content(true, &[("X", "a\r\nSet-Cookie: b\0")]));
        assert!(answer.ends_with("\r\nX: a  Set-Cookie: b \r\n\r\n"), "{answer}");
    }
}
