//! What a node refused, and what to do about it.

use crate::exit::Failure;
use serde_json::Value;
use std::fmt;
use std::time::Duration;

/// An answer that is no success.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The HTTP status.
    pub status: u16,
    /// The problem's code; `None` where the answer is no problem document.
    pub code: Option<String>,
    /// The whole document.
    pub problem: Value,
    /// How long the node wants to be left alone.
    pub retry_after: Option<Duration>,
}

impl Refused {
    /// Whether the same may be taken later.
    pub fn is_transient(&self) -> bool {
        matches!(self.status, 408 | 429) || self.status >= 500
    }

    /// In a few words, without advice.
    pub fn short(&self) -> String {
        let code = self.code.as_deref().unwrap_or("no API");
        format!("{} {}", self.status, crate::term::plain(code))
    }

    fn text(&self, name: &str) -> &str {
        self.problem[name].as_str().unwrap_or_default()
    }
}

impl std::error::Error for Refused {}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(code) = &self.code else {
            return write!(
                f,
                "{} was answered, and not by a node's API: is --url the address of http.listen?",
                self.status
            );
        };
        let detail = crate::term::plain(self.text("detail")).into_owned();
        write!(f, "the node refused with {} {code}: {detail}", self.status)?;
        let place = crate::term::plain(self.text("pointer")).into_owned();
        if !place.is_empty() {
            write!(f, " (at {place})")?;
        }
        // Where the node wants a longer pause its own words say why.
        let is_short = self.retry_after.is_none_or(|pause| pause < SHORT);
        match advice(code).filter(|_| code != "unavailable" || is_short) {
            Some(advice) => write!(f, "\n  {advice}"),
            None => Ok(()),
        }
    }
}

/// A node that is away for a moment wants no longer pause.
const SHORT: Duration = Duration::from_secs(10);

/// What to do next, where the node's own words do not say it in terms of this command line.
fn advice(code: &str) -> Option<&'static str> {
    Some(match code {
        "key_missing" | "key_invalid" => {
            "give a key of the node's auth.api_keys as --key or POSTRIDER_KEY, not a user token"
        }
        "scope" => "use a key that has the scope: auth.api_keys gives each its scopes",
        "token_expired" => "mint another with `postrider token`, or ask your identity provider",
        "token_signature" => "the token must be signed with a key that the node knows: see auth.jwt",
        "rate_limited" => "wait a moment, or publish as NDJSON, which is only taken more slowly",
        "unavailable" => "it mostly passes by itself: do the same again in a moment",
        _ => return None,
    })
}

/// Reads a problem document.
pub fn refusal(status: u16, body: &str, retry_after: Option<u64>) -> Refused {
    let problem: Value = serde_json::from_str(body).unwrap_or_default();
    let is_problem = problem["detail"].is_string();
    Refused {
        status,
        code: problem["code"].as_str().filter(|_| is_problem).map(str::to_owned),
        problem,
        retry_after: retry_after.map(Duration::from_secs),
    }
}

/// A request that got no answer.
pub fn unreachable_node(error: ureq::Error) -> Failure {
    let advice = "the node gave no answer: is it running, and is --url right?";
    Failure::Other(anyhow::Error::new(error).context(advice))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_to_do() {
        let body = r#"{"code":"scope","detail":"the key lacks `manage`","pointer":""}"#;
        let told = refusal(403, body, None).to_string();
        assert!(
            told.starts_with("the node refused with 403 scope: the key lacks `manage`\n"),
            "{told}"
        );
        assert!(told.contains("auth.api_keys"), "{told}");
        let away = |pause| {
            let body = r#"{"code":"unavailable","detail":"the store is full"}"#;
            refusal(503, body, pause)
                .to_string()
                .contains("it mostly passes by itself")
        };
        assert_eq!([None, Some(1), Some(30)].map(away), [true, true, false]);
        let told = refusal(404, "<html>", None).to_string();
        assert!(told.contains("http.listen"), "{told}");
    }
}
