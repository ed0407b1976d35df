//! Fetches a key set over HTTP, by a blocking client on the issuer's own thread.
//!
//! Invariant: an answer has at most [`SET_BYTES`], comes within [`TIME_LIMIT`], and from the place that was
//! configured: redirects are refused.

use crate::fetch::{What, get};
use std::time::Duration;
use ureq::http::Uri;

/// A longer set is refused.
const SET_BYTES: u64 = 1 << 20;
/// For everything together: name, connection, answer.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// Why nothing was fetched.
#[derive(Debug, thiserror::Error)]
#[error("the key set could not be fetched: {0}")]
pub(super) struct FetchFault(#[from] pub(super) crate::fetch::FetchFault);

/// Whether a text names a place to fetch from, and if not, why.
pub(crate) fn jwks_url_fault(url: &str) -> Option<&'static str> {
    let Ok(uri) = url.parse::<Uri>() else {
        return Some("is no URL");
    };
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Some("must begin with https:// or http://");
    }
    match uri.authority() {
        Some(authority) if authority.as_str().contains('@') => {
            Some("must not hold a user or password: they would be logged")
        }
        Some(authority) if !authority.host().is_empty() && !url.contains('#') => None,
        _ => Some("must be written https://HOST/PATH"),
    }
}

/// Whether whoever is on the way could replace the keys.
pub(crate) fn is_open_to_all(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else {
        return false;
    };
    let is_loopback = uri.host().is_some_and(|host| {
        let host = host.trim_matches(['[', ']']);
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    });
    uri.scheme_str() == Some("http") && !is_loopback
}

/// Fetches what is there now.
pub(super) fn fetch(url: &str) -> Result<Vec<u8>, FetchFault> {
    let set = What {
        accept: "application/jwk-set+json, application/json",
        most: SET_BYTES,
        within: TIME_LIMIT,
    };
    Ok(get(url, &set)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_place_is() {
        for (url, good) in [
            ("https://id.example/.well-known/jwks.json", true),
            ("http://127.0.0.1:8080/jwks?x=1", true),
            ("https://[::1]/jwks", true),
            ("ftp://id.example/jwks", false),
            ("id.example/jwks", false),
            ("/jwks", false),
            ("", false),
            ("https://", false),
            ("https://a b/", false),
            ("https://me:hush@id.example/jwks", false),
            ("https://id.example/jwks#x", false),
        ] {
            assert_eq!(jwks_url_fault(url).is_none(), good, "{url}");
        }
    }

    #[test]
    fn plain_http_is_for_this_machine() {
        for (url, open) in [
            ("http://id.example/jwks", true),
            ("http://10.0.0.1/jwks", true),
            ("http://localhost:1/jwks", false),
            ("http://127.0.0.1/jwks", false),
            ("http://[::1]:3/jwks", false),
            ("https://id.example/jwks", false),
        ] {
            assert_eq!(is_open_to_all(url), open, "{url}");
        }
    }
}
