//! A stage's address, in whatever form operators have it.

/// Not an address of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no http:// or https:// address")]
pub struct NoEndpoint;

/// The address that `/@connections/ID` is put behind: `wss://` is `https://`, and what is behind the stage is left out.
///
/// # Errors
/// It is no such address.
pub fn endpoint_url(text: &str) -> Result<String, NoEndpoint> {
    let text = text.trim_end_matches('/');
    let text = text.strip_suffix("/@connections").unwrap_or(text);
    let (scheme, rest) = text.split_once("://").ok_or(NoEndpoint)?;
    let scheme = match scheme {
        "https" | "wss" => "https",
        "http" | "ws" => "http",
        _ => return Err(NoEndpoint),
    };
    let is_plain = |c: char| c.is_ascii_graphic() && !"?#@\\\"<>".contains(c);
    if rest.is_empty() || rest.starts_with('/') || !rest.chars().all(is_plain) {
        return Err(NoEndpoint);
    }
    Ok(format!("{scheme}://{}", rest.trim_end_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (text, url) in [
            ("https://a.b/prod", "https://a.b/prod"),
            ("wss://a.b/prod/", "https://a.b/prod"),
            ("https://a.b/prod/@connections", "https://a.b/prod"),
            ("https://a.b/prod/@connections/", "https://a.b/prod"),
            ("http://127.0.0.1:4566", "http://127.0.0.1:4566"),
            ("ws://[::1]:80/", "http://[::1]:80"),
        ] {
            assert_eq!(endpoint_url(text).as_deref(), Ok(url), "{text}");
        }
        for wrong in [
            "",
            "a.b/prod",
            "ftp://a",
            "https://",
            "https:///x",
            "https://a b",
            "https://a?x=1",
            "https://u@a",
        ] {
            assert_eq!(endpoint_url(wrong), Err(NoEndpoint), "{wrong}");
        }
    }
}
