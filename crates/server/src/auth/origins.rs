//! Origins (RFC 6454) whose pages may use the API.

/// The configured list.
#[derive(Debug, Clone)]
pub struct Origins {
    named: Vec<String>,
    any: bool,
}

impl Origins {
    /// From `http.allowed_origins`.
    pub fn new(origins: &[String]) -> Origins {
        let named = origins.iter().filter(|origin| *origin != "*");
        Origins {
            named: named.map(|origin| origin.to_ascii_lowercase()).collect(),
            any: origins.iter().any(|origin| origin == "*"),
        }
    }

    /// Whether a text is an origin, or `*`.
    pub fn is_origin(text: &str) -> bool {
        let host = match text.split_once("://") {
            Some((scheme, host)) if !scheme.is_empty() => host,
            _ => return text == "*",
        };
        !host.is_empty() && !host.contains(['/', '?', '#', '@', '*']) && !host.contains(char::is_whitespace)
    }

    /// Whether this origin is in the list by name; `*` does not count, since a cookie must not go to anyone.
    pub fn names(&self, origin: &str) -> bool {
        self.named.contains(&origin.to_ascii_lowercase())
    }

    /// The headers that let a page of `origin` read an answer.
    pub fn headers(&self, origin: &str) -> Option<Vec<(&'static str, String)>> {
        const EXPOSED: &str = "Retry-After, Allow, WWW-Authenticate";
        let mut headers = if self.names(origin) {
            vec![
                ("Access-Control-Allow-Origin", origin.to_owned()),
                ("Access-Control-Allow-Credentials", "true".to_owned()),
            ]
        } else if self.any {
            vec![("Access-Control-Allow-Origin", "*".to_owned())]
        } else {
            return None;
        };
        headers.push(("Access-Control-Expose-Headers", EXPOSED.to_owned()));
        headers.push(("Vary", "Origin".to_owned()));
        Some(headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_origins_may_bring_cookies_and_any_may_not() {
        let origins = Origins::new(&["https://App.example".into(), "*".into()]);
        assert!(origins.names("https://app.example") && !origins.names("https://evil.example"));
        let header = |origin: &str, name: &str| {
            let headers = origins.headers(origin).unwrap();
            headers
                .into_iter()
                .find(|(n, _)| *n == name)
                .map(|(_, value)| value)
        };
        assert_eq!(
            header("https://app.example", "Access-Control-Allow-Credentials").as_deref(),
            Some("true")
        );
        assert_eq!(
            header("https://evil.example", "Access-Control-Allow-Credentials"),
            None
        );
        assert_eq!(
            header("https://evil.example", "Access-Control-Allow-Origin").as_deref(),
            Some("*")
        );
        assert!(Origins::new(&[]).headers("https://app.example").is_none());
    }

    #[test]
    fn what_an_origin_is() {
        for (text, expected) in [
            ("https://a.example", true),
            ("http://localhost:3000", true),
            ("*", true),
            ("a.example", false),
            ("https://a.example/", false),
            ("https://*.example", false),
            ("https://", false),
        ] {
            assert_eq!(Origins::is_origin(text), expected, "{text}");
        }
    }
}
