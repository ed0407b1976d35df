//! The head of an HTTP/1.1 request, read without copying: request line, headers, parameters, cookies.
//!
//! Invariant: a [`Head`] is unambiguous. It has a `Host` (in 1.1), no second copy of a header that may
//! come once only, and not both ways of telling a body's length; so nobody behind it can read it otherwise.
//! Does not read bodies, decide who may do what, or know what most paths mean.

use crate::problem::Problem;
use std::borrow::Cow;

/// A head larger than this is refused (431). Bytes.
pub const MAX_HEAD: usize = 16 * 1024;
/// A head with more headers than this is refused (431).
pub const MAX_HEADERS: usize = 64;

/// Headers whose meaning would be open if they came twice.
const SINGLE: [&str; 7] = [
    "host",
    "content-length",
    "authorization",
    "origin",
    "last-event-id",
    "sec-websocket-key",
    "sec-websocket-version",
];
/// Stands for a value that is not UTF-8: present, but no rule accepts it.
const UNREADABLE: &str = "\u{fffd}";

/// What the bytes received so far are.
#[derive(Debug)]
pub enum Parsed<'a> {
    /// The beginning of a head.
    Partial,
    /// A head, and how many bytes it takes; what follows is its body, or the next request.
    Complete(Head<'a>, usize),
    /// No head that this server accepts. Answer and close: what follows cannot be told apart.
    Invalid(Problem),
}

/// A complete head.
#[derive(Debug)]
pub struct Head<'a> {
    /// The method, as sent.
    pub method: &'a str,
    /// The request target, as sent.
    pub target: &'a str,
    /// The target's path, still percent-encoded.
    pub path: &'a str,
    /// The target's query without the `?`, still percent-encoded; empty where there is none.
    pub query: &'a str,
    /// 0 or 1: the minor version of HTTP/1.
    pub version_minor: u8,
    headers: Vec<httparse::Header<'a>>,
}

/// The ways to receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InboxRoute {
    /// `GET /v1/inbox`
    Poll,
    /// `GET /v1/inbox/stream`
    Stream,
    /// `GET /v1/inbox/ws`
    WebSocket,
}

/// Which way to receive the request asks for, if any. Paths are compared exactly.
pub fn inbox_route(method: &str, path: &str) -> Option<InboxRoute> {
    match (method, path) {
        ("GET", "/v1/inbox") => Some(InboxRoute::Poll),
        ("GET", "/v1/inbox/stream") => Some(InboxRoute::Stream),
        ("GET", "/v1/inbox/ws") => Some(InboxRoute::WebSocket),
        _ => None,
    }
}

/// Whether a client begins to speak HTTP/2 without having asked (RFC 9113, 3.4). True as soon as
/// [`parse`] would refuse such bytes.
pub fn is_http2_preface(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PRI * HTTP/2")
}

/// Whether these bytes begin what a client of HTTP/2 says first, and do not end it.
pub fn is_partial_http2_preface(bytes: &[u8]) -> bool {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    bytes.len() < PREFACE.len() && PREFACE.starts_with(bytes)
}

/// Reads a head from the beginning of a connection's, or of the next request's, bytes.
pub fn parse(bytes: &[u8]) -> Parsed<'_> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(&bytes[..bytes.len().min(MAX_HEAD)]) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => return Parsed::Partial,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Parsed::Invalid(Problem::head_too_large());
        }
        Err(error) => {
            return invalid(format!(
                "The request's head is not HTTP/1.1 ({error}). Correct the client."
            ));
        }
    };
    let (Some(method), Some(target), Some(version_minor)) = (request.method, request.path, request.version)
    else {
        return invalid("The request line is not whole. Correct the client.");
    };
    let Some((path, query)) = split_target(method, target) else {
        return invalid("The request target is neither a path nor a URL. Send a path that begins with `/`.");
    };
    let headers = request.headers.to_vec();
    let head = Head {
        method,
        target,
        path,
        query,
        version_minor,
        headers,
    };
    match head.ambiguity() {
        Some(detail) => invalid(detail),
        None => Parsed::Complete(head, length),
    }
}

fn invalid(detail: impl Into<String>) -> Parsed<'static> {
    Parsed::Invalid(Problem::invalid_request(detail))
}

/// Path and query of a target in origin, absolute, asterisk or authority form (RFC 9112, 3.2).
fn split_target<'a>(method: &str, target: &'a str) -> Option<(&'a str, &'a str)> {
    if method == "CONNECT" || (target == "*" && method == "OPTIONS") {
        return Some((target, ""));
    }
    let target = target.split('#').next().unwrap_or(target);
    let origin = if target.starts_with('/') {
        target
    } else {
        let (scheme, rest) = target.split_once("://")?;
        if !["http", "https"]
            .iter()
            .any(|known| scheme.eq_ignore_ascii_case(known))
        {
            return None;
        }
        &rest[rest.find(['/', '?']).unwrap_or(rest.len())..]
    };
    let (path, query) = origin.split_once('?').unwrap_or((origin, ""));
    Some((if path.is_empty() { "/" } else { path }, query))
}

impl<'a> Head<'a> {
    /// The first header of this name, in any case. A value that is not UTF-8 reads as U+FFFD.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.header_values(name).next()
    }

    /// All values of the headers of this name, in order.
    pub fn header_values(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.headers
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| {
                str::from_utf8(header.value)
                    .unwrap_or(UNREADABLE)
                    .trim_matches([' ', '\t'])
            })
    }

    /// The names of all headers, as sent and in order.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn names(&self) -> impl Iterator<Item = &'a str> {
        self.headers.iter().map(|header| header.name)
    }

    /// Whether a comma-separated header holds this token, in any case.
    pub fn lists(&self, name: &str, token: &str) -> bool {
        self.header_values(name)
            .flat_map(|value| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case(token))
    }

    /// The query parameter of this name, decoded: `%xx`, and `+` as a space.
    ///
    /// # Errors
    /// `invalid_request` where it is given twice, or its escapes or the UTF-8 in them are broken.
    pub fn param(&self, name: &str) -> Result<Option<Cow<'a, str>>, Problem> {
        self.params([name]).get(name)
    }

    /// Finds the query's parameters of these names, all in one pass.
    pub(crate) fn params<'n, const N: usize>(&self, names: [&'n str; N]) -> Params<'a, 'n, N> {
        let mut found = [Found::No; N];
        for pair in self.query.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let nth = decode(key).and_then(|key| names.iter().position(|name| **name == *key));
            if let Some(found) = nth.and_then(|nth| found.get_mut(nth)) {
                *found = match found {
                    Found::No => Found::Once(value),
                    Found::Once(_) | Found::Twice => Found::Twice,
                };
            }
        }
        Params { names, found }
    }

    /// The value of the first cookie of this name, without quotes around it.
    pub fn cookie(&self, name: &str) -> Option<&'a str> {
        self.header_values("cookie")
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| {
                let unquoted = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
                unquoted.unwrap_or(value)
            })
    }

    /// Whether the client wants to send another request on this connection (RFC 9112, 9.3).
    pub fn keep_alive(&self) -> bool {
        let close = self.lists("connection", "close");
        !close && (self.version_minor > 0 || self.lists("connection", "keep-alive"))
    }

    /// Whether it asks to go on as a WebSocket. The rest of the handshake is checked by
    /// [`crate::websocket::handshake`].
    pub fn is_websocket_upgrade(&self) -> bool {
        self.lists("connection", "upgrade") && self.lists("upgrade", "websocket")
    }

    /// Whether a body follows.
    pub fn has_body(&self) -> bool {
        let length = self.header("content-length");
        self.header("transfer-encoding").is_some()
            || length.is_some_and(|digits| digits.bytes().any(|b| b != b'0'))
    }

    /// Why two readers could take this head for different requests.
    fn ambiguity(&self) -> Option<String> {
        if let Some(name) = SINGLE
            .iter()
            .find(|name| self.header_values(name).nth(1).is_some())
        {
            return Some(format!("The header `{name}` is given twice. Send it once."));
        }
        if self.version_minor > 0 && self.header("host").is_none() {
            return Some("The header `host` is missing. Send it: HTTP/1.1 requires it.".into());
        }
        let length = self.header("content-length")?;
        if length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) {
            return Some(
                "The header `content-length` is not a number. Send the body's length in bytes.".into(),
            );
        }
        let both = self.header("transfer-encoding").is_some();
        both.then(|| "Both `content-length` and `transfer-encoding` are given. Send one of them.".into())
    }
}

/// The query's parameters of some names.
pub(crate) struct Params<'a, 'n, const N: usize> {
    names: [&'n str; N],
    found: [Found<'a>; N],
}

/// A parameter as it stands in the query, still percent-encoded.
#[derive(Clone, Copy)]
enum Found<'a> {
    No,
    Once(&'a str),
    Twice,
}

impl<'a, const N: usize> Params<'a, '_, N> {
    /// See [`Head::param`]. The name is one of those that were looked for.
    pub fn get(&self, name: &str) -> Result<Option<Cow<'a, str>>, Problem> {
        let nth = self.names.iter().position(|known| *known == name);
        debug_assert!(nth.is_some(), "{name} was not looked for");
        match nth.and_then(|nth| self.found.get(nth)) {
            None | Some(Found::No) => Ok(None),
            Some(Found::Twice) => Err(param_fault(name, "is given twice. Give it once.")),
            Some(Found::Once(value)) => decode(value)
                .map(Some)
                .ok_or_else(|| param_fault(name, "is not percent-encoded UTF-8. Encode it anew.")),
        }
    }
}

fn param_fault(name: &str, fault: &str) -> Problem {
    Problem::invalid_request(format!("The parameter `{name}` {fault}"))
}

/// The names and values of a form, or of a query, in order; `None` for what [`decode`] cannot read.
pub(crate) fn form_values(text: &str) -> impl Iterator<Item = (Option<Cow<'_, str>>, Option<Cow<'_, str>>)> {
    text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name), decode(value))
    })
}

/// Undoes `application/x-www-form-urlencoded`. `None`: a broken escape, or not UTF-8.
fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains(['%', '+']) {
        return Some(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
            other => other,
        });
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests;
