//! What went wrong with a request, as the client is told it: `application/problem+json` (RFC 9457).
//!
//! Invariant: a detail is a full sentence that says what to do; no constructor is given a token, a key,
//! a ticket or a payload, so none can end up in an answer or, from there, in a log.
//! Knows nothing of connections: [`crate::response`] makes the bytes.

use postrider_model::json::push_string;
use std::borrow::Cow;

/// The media type of [`Problem::json`].
pub const CONTENT_TYPE: &str = "application/problem+json";

/// One refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// The stable name that programs compare.
    pub code: &'static str,
    /// A full sentence for people: what is wrong and what to do.
    pub detail: String,
    /// The offending place of the request's JSON, as an RFC 6901 pointer.
    pub pointer: Option<String>,
    /// After how many seconds it is worth trying again.
    pub retry_after: Option<u32>,
    /// The methods that the resource has, where the method was the fault.
    pub allow: Option<&'static str>,
}

/// Constructors without a parameter: name, status and detail stand in one line each.
macro_rules! fixed {
    ($($(#[$doc:meta])* $name:ident $status:literal $detail:literal;)*) => {
        impl Problem {
            $($(#[$doc])* pub fn $name() -> Problem {
                Problem::new($status, stringify!($name), $detail)
            })*
        }
    };
}

fixed! {
    /// An empty list of users must not turn into a message to all.
    empty_audience 400 "The list of users is empty. Name at least one user, or leave `users` out to address everyone.";
    /// No user token came with the request.
    token_missing 401 "No user token was given. Send it as `Authorization: Bearer`, or use a ticket.";
    /// It is not a token at all.
    token_malformed 401 "The user token cannot be read. Send a JSON Web Token, whole and unchanged.";
    /// It was not signed by a key this server trusts.
    token_signature 401 "The user token is not signed with a key that this server trusts. Get a new one from its issuer.";
    /// Its time is over, or has not begun.
    token_expired 401 "The user token is not valid at this time. Get a new one and connect again.";
    /// It lacks a claim, or holds a wrong one.
    token_claims 401 "The user token lacks a claim that this server requires, or holds a wrong one. Get one with the right user, issuer, audience and expiry.";
    /// No API key came with the request.
    key_missing 401 "No API key was given. Send it as `Authorization: Bearer`.";
    /// It is none of the configured ones.
    key_invalid 401 "The API key is not known. Check that it is whole and has not been replaced.";
    /// A cookie from a page that is not allowed to use it.
    origin 403 "A request with a cookie must come from this site or from an allowed origin. Add the origin to `http.allowed_origins`, or send a token.";
    /// Nothing is there.
    not_found 404 "There is nothing here. Check the path and the id.";
    /// The id, or the key, stands for other content.
    id_conflict 409 "The same id was accepted before with other content. Use a new id, or repeat the first request unchanged.";
    /// It was there, but is no longer kept.
    gone 410 "This is no longer kept. Start again without it.";
    /// The server waits no longer for the head.
    head_timeout 408 "The request's head did not arrive in time. Send it again, without pauses.";
    /// The session limit of the user is reached.
    session_limit 429 "This user has too many sessions. Close one, then connect again.";
    /// The head is larger than the server reads.
    head_too_large 431 "The request's line and headers are larger than 16 KiB, or there are more than 64 headers. Send fewer or shorter ones.";
    /// A fault of the server, which it has logged.
    internal 500 "The server made a mistake, which it has logged. Send the request again; if it fails again, tell the server's operator.";
    /// Only a WebSocket can be had here.
    upgrade_required 426 "This resource speaks WebSocket version 13 over HTTP/1.1 only. Open it with a WebSocket client.";
}

impl Problem {
    fn new(status: u16, code: &'static str, detail: impl Into<String>) -> Problem {
        let detail = detail.into();
        Problem {
            status,
            code,
            detail,
            pointer: None,
            retry_after: None,
            allow: None,
        }
    }

    /// A notification that is not one; `detail` says why.
    pub fn invalid_notification(detail: impl Into<String>, pointer: Option<String>) -> Problem {
        Problem {
            pointer,
            ..Problem::new(400, "invalid_notification", detail)
        }
    }

    /// A user that cannot be one; `detail` says why.
    pub fn invalid_user(detail: impl Into<String>, pointer: Option<String>) -> Problem {
        Problem {
            pointer,
            ..Problem::new(400, "invalid_user", detail)
        }
    }

    /// Users cannot be imported, since some lines are bad; `detail` says how many.
    pub fn bad_lines(detail: impl Into<String>) -> Problem {
        Problem::new(400, "bad_lines", detail)
    }

    /// A state map cannot be changed so, as it is; `detail` says why.
    pub fn state_conflict(detail: impl Into<String>, pointer: Option<String>) -> Problem {
        Problem {
            pointer,
            ..Problem::new(409, "state_conflict", detail)
        }
    }

    /// A cursor that is not one; `detail` says why.
    pub fn invalid_cursor(detail: impl Into<String>) -> Problem {
        Problem::new(400, "invalid_cursor", detail)
    }

    /// A request that does not follow HTTP, or has a wrong parameter; `detail` says which.
    pub fn invalid_request(detail: impl Into<String>) -> Problem {
        Problem::new(400, "invalid_request", detail)
    }

    /// The key, or token, does not have the scope that this needs.
    pub fn scope(needed: &str) -> Problem {
        let detail = format!("This needs the scope `{needed}`. Use a key, or token, that has it.");
        Problem::new(403, "scope", detail)
    }

    /// The server waits no longer for the body.
    pub fn body_timeout() -> Problem {
        Problem {
            detail: "The body did not arrive in time. Send it again, without pauses.".into(),
            ..Problem::head_timeout()
        }
    }

    /// The resource exists, but not with this method; `allow` lists the right ones, e.g. `GET, HEAD`.
    pub fn method_not_allowed(allow: &'static str) -> Problem {
        let detail = format!("This resource has no such method. Use {allow}.");
        Problem {
            allow: Some(allow),
            ..Problem::new(405, "method_not_allowed", detail)
        }
    }

    /// Something is over its limit; `detail` says what and how large it may be.
    pub fn too_large(detail: impl Into<String>, pointer: Option<String>) -> Problem {
        Problem {
            pointer,
            ..Problem::new(413, "too_large", detail)
        }
    }

    /// The body is of a type that is not read here; `supported` lists those that are.
    pub fn unsupported_media_type(supported: &str) -> Problem {
        let detail = format!("The body's Content-Type is not read here. Send {supported}.");
        Problem::new(415, "unsupported_media_type", detail)
    }

    /// Too much in too short a time.
    pub fn rate_limited(retry_after_s: u32) -> Problem {
        let detail =
            "Too many requests in too short a time. Wait as long as Retry-After says, then send it again.";
        Problem {
            retry_after: Some(retry_after_s),
            ..Problem::new(429, "rate_limited", detail)
        }
    }

    /// The server, or something it needs, cannot serve this now.
    pub fn unavailable(retry_after_s: u32) -> Problem {
        let detail = "The server cannot do this now. Wait as long as Retry-After says, then send it again.";
        Problem {
            retry_after: Some(retry_after_s),
            ..Problem::new(503, "unavailable", detail)
        }
    }

    /// The short text that is the same for every problem of this code.
    pub fn title(&self) -> &'static str {
        match self.code {
            "invalid_notification" => "Invalid notification",
            "empty_audience" => "Empty audience",
            "invalid_user" => "Invalid user",
            "bad_lines" => "Bad lines",
            "state_conflict" => "State conflict",
            "invalid_cursor" => "Invalid cursor",
            "token_missing" => "User token missing",
            "token_malformed" => "User token malformed",
            "token_signature" => "User token not trusted",
            "token_expired" => "User token expired",
            "token_claims" => "User token claims refused",
            "key_missing" => "API key missing",
            "key_invalid" => "API key invalid",
            "scope" => "Scope missing",
            "origin" => "Origin not allowed",
            "not_found" => "Not found",
            "method_not_allowed" => "Method not allowed",
            "head_timeout" => "Request timeout",
            "id_conflict" => "Id conflict",
            "gone" => "Gone",
            "too_large" => "Too large",
            "unsupported_media_type" => "Unsupported media type",
            "upgrade_required" => "Upgrade required",
            "rate_limited" => "Rate limited",
            "session_limit" => "Too many sessions",
            "head_too_large" => "Request head too large",
            "internal" => "Internal error",
            "unavailable" => "Unavailable",
            _ => "Invalid request",
        }
    }

    /// The body. `type` is `urn:postrider:problem:<code>`.
    pub fn json(&self) -> Vec<u8> {
        let Problem { status, code, .. } = self;
        let title = self.title();
        let mut out = format!(
            r#"{{"type":"urn:postrider:problem:{code}","title":"{title}","status":{status},"code":"{code}","detail":"#
        )
        .into_bytes();
        push_string(&mut out, &self.detail);
        if let Some(pointer) = &self.pointer {
            out.extend_from_slice(br#","pointer":"#);
            push_string(&mut out, pointer);
        }
        out.push(b'}');
        out
    }

    /// The headers that the status asks for, besides the content's own.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, Cow<'static, str>)> {
        let fixed = |name, value: &'static str| (name, Cow::Borrowed(value));
        let upgrade = self.status == 426;
        [
            (self.status == 401).then(|| fixed("WWW-Authenticate", "Bearer")),
            self.retry_after
                .map(|seconds| ("Retry-After", Cow::Owned(seconds.to_string()))),
            self.allow.map(|methods| fixed("Allow", methods)),
            upgrade.then(|| fixed("Upgrade", "websocket")),
            upgrade.then(|| fixed("Sec-WebSocket-Version", "13")),
        ]
        .into_iter()
        .flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_of_each() -> Vec<Problem> {
        vec![
            Problem::invalid_notification("The member `data` is missing.", Some("/data".into())),
            Problem::empty_audience(),
            Problem::invalid_user("The field `email` is no address.", Some("/email".into())),
            Problem::bad_lines("1 of 2 users cannot be imported."),
            Problem::state_conflict("The key holds no integer.", Some("/unread".into())),
            Problem::invalid_cursor("The cursor is damaged."),
            Problem::invalid_request("The parameter `wait` is not a number."),
            Problem::token_missing(),
            Problem::token_malformed(),
            Problem::token_signature(),
            Problem::token_expired(),
            Problem::token_claims(),
            Problem::key_missing(),
            Problem::key_invalid(),
            Problem::scope("manage"),
            Problem::origin(),
            Problem::not_found(),
            Problem::method_not_allowed("GET"),
            Problem::head_timeout(),
            Problem::id_conflict(),
            Problem::gone(),
            Problem::too_large("The body is larger than 16MiB.", None),
            Problem::unsupported_media_type("application/json"),
            Problem::upgrade_required(),
            Problem::rate_limited(3),
            Problem::session_limit(),
            Problem::head_too_large(),
            Problem::internal(),
            Problem::unavailable(5),
        ]
    }

    #[test]
    fn every_problem_is_json_with_its_own_title_and_a_sentence() {
        let mut titles = std::collections::HashSet::new();
        for problem in one_of_each() {
            let json: serde_json::Value = serde_json::from_slice(&problem.json()).unwrap();
            assert_eq!(json["status"], problem.status);
            assert_eq!(json["code"], problem.code);
            assert_eq!(json["type"], format!("urn:postrider:problem:{}", problem.code));
            assert_eq!(json["detail"], problem.detail);
            assert!(problem.detail.ends_with('.'), "{}", problem.detail);
            assert!(
                titles.insert(problem.title()),
                "two problems are titled {}",
                problem.title()
            );
        }
    }

    #[test]
    fn the_pointer_is_a_member_only_where_there_is_one() {
        let json = |p: Problem| serde_json::from_slice::<serde_json::Value>(&p.json()).unwrap();
        assert_eq!(
            json(Problem::invalid_notification("No.", Some("/a\"b".into())))["pointer"],
            "/a\"b"
        );
        assert!(json(Problem::gone()).get("pointer").is_none());
    }

    #[test]
    fn headers_follow_the_status() {
        let headers = |p: Problem| p.headers().map(|(n, v)| format!("{n}: {v}")).collect::<Vec<_>>();
        assert_eq!(headers(Problem::token_expired()), ["WWW-Authenticate: Bearer"]);
        assert_eq!(headers(Problem::unavailable(5)), ["Retry-After: 5"]);
        assert_eq!(headers(Problem::method_not_allowed("GET")), ["Allow: GET"]);
        assert_eq!(
            headers(Problem::upgrade_required()),
            ["Upgrade: websocket", "Sec-WebSocket-Version: 13"]
        );
        assert!(headers(Problem::not_found()).is_empty());
    }
}
