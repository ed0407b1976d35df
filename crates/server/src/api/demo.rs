//! The page of `postrider demo`: files that are part of the binary, and the keys it hands out.
//!
//! Invariant: nothing here comes from a disk or another host, and the page may load nothing that does not come from
//! here. The keys are told to nobody who called the server by a name of their own: such a name can be made to point
//! at this machine by whoever owns it, and their page would then count as this one.

use super::{Api, Refusal, text};
use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use postrider_transports::Problem;
use serde_json::Value;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// The page's files beside the page itself, by name. Each is one line here and one file in the folder.
const FILES: &[(&str, &str)] = &[
    ("announce.js", include_str!("../../assets/demo/announce.js")),
    ("api.js", include_str!("../../assets/demo/api.js")),
    ("code.js", include_str!("../../assets/demo/code.js")),
    ("composer.js", include_str!("../../assets/demo/composer.js")),
    ("deeds.js", include_str!("../../assets/demo/deeds.js")),
    ("device.js", include_str!("../../assets/demo/device.js")),
    ("dom.js", include_str!("../../assets/demo/dom.js")),
    ("happenings.js", include_str!("../../assets/demo/happenings.js")),
    ("icon.svg", include_str!("../../assets/demo/icon.svg")),
    ("inbox.js", include_str!("../../assets/demo/inbox.js")),
    ("keys.js", include_str!("../../assets/demo/keys.js")),
    ("list.js", include_str!("../../assets/demo/list.js")),
    ("long_poll.js", include_str!("../../assets/demo/long_poll.js")),
    ("main.js", include_str!("../../assets/demo/main.js")),
    ("session.js", include_str!("../../assets/demo/session.js")),
    ("sse.js", include_str!("../../assets/demo/sse.js")),
    ("style.css", include_str!("../../assets/demo/style.css")),
    ("tally.js", include_str!("../../assets/demo/tally.js")),
    ("timeline.js", include_str!("../../assets/demo/timeline.js")),
    ("tour.js", include_str!("../../assets/demo/tour.js")),
    ("user.js", include_str!("../../assets/demo/user.js")),
    ("websocket.js", include_str!("../../assets/demo/websocket.js")),
    ("wire.js", include_str!("../../assets/demo/wire.js")),
    ("words.js", include_str!("../../assets/demo/words.js")),
];
const PAGE: &str = include_str!("../../assets/demo/index.html");

/// What the page may do: load from here, ask here, and put text into itself, never HTML.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// The page, with the keys that it hands out.
#[derive(Clone)]
pub struct DemoPage(String);

/// Keys are not for logs.
impl fmt::Debug for DemoPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DemoPage")
    }
}

impl DemoPage {
    /// `keys`: `{"api_key": …, "users": {name: token}}`.
    pub fn new(keys: &Value) -> DemoPage {
        DemoPage(keys.to_string())
    }
}

/// The page's routes.
pub fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/demo", get(page))
        .route("/demo/", get(page))
        .route("/demo/keys.json", get(keys))
        .route("/demo/{file}", get(file))
}

async fn page() -> Response {
    answer("text/html; charset=utf-8", PAGE)
}

async fn file(path: Result<Path<String>, PathRejection>) -> Result<Response, Refusal> {
    let Path(name) = path.map_err(|_| Problem::not_found())?;
    let found = FILES.iter().find(|(file, _)| *file == name);
    let (name, content) = found.ok_or_else(Problem::not_found)?;
    Ok(answer(media_type(name), *content))
}

async fn keys(State(api): State<Arc<Api>>, headers: HeaderMap) -> Result<Response, Refusal> {
    let page = api.demo.as_ref().ok_or_else(Problem::not_found)?;
    if !is_by_address(text(&headers, header::HOST.as_str()).unwrap_or("")) {
        let detail = "Open the demo by its address, as `postrider demo` printed it, or by localhost.";
        return Err(Problem {
            detail: detail.into(),
            ..Problem::origin()
        }
        .into());
    }
    Ok(answer("application/json", page.0.clone()))
}

/// Whether a `Host` header is an address or `localhost`, which nobody else can make point here.
fn is_by_address(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(""),
        None => host.split(':').next().unwrap_or(""),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

fn media_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        _ => "image/svg+xml",
    }
}

fn answer(media_type: &'static str, content: impl Into<Body>) -> Response {
    let headers: [(HeaderName, &str); 6] = [
        (header::CONTENT_TYPE, media_type),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ];
    let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
    (StatusCode::OK, HeaderMap::from_iter(headers), content.into()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path as FilePath;

    #[test]
    fn every_file_of_the_folder_is_served() {
        let folder = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo");
        let there = std::fs::read_dir(folder).unwrap();
        let mut there: BTreeSet<String> = there
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert!(there.remove("index.html"));
        let served = FILES.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(there, served);
    }

    #[test]
    fn modules_import_only_what_is_served() {
        for (name, content) in FILES.iter().filter(|(name, _)| name.ends_with(".js")) {
            let imports = content.lines().filter(|line| line.starts_with("import "));
            for import in imports {
                let from = import.split('\'').nth(1).and_then(|from| from.strip_prefix("./"));
                let is_served = FILES.iter().any(|(file, _)| Some(*file) == from);
                assert!(is_served, "{name}: {import}");
            }
        }
    }

    #[tokio::test]
    async fn a_name_that_is_no_text_is_not_found() {
        let request = axum::http::Request::get("/demo/%FF").body(Body::empty()).unwrap();
        let mut router: Router = Router::new().route("/demo/{file}", get(file));
        let response = tower_service::Service::call(&mut router, request).await.unwrap();
        assert_eq!(response.status(), 404);
        assert_eq!(
            response.headers()[header::CONTENT_TYPE],
            "application/problem+json"
        );
    }

    /// What the policy forbids, a reader of the sources need not look for.
    #[test]
    fn nothing_is_inline_and_no_text_becomes_html() {
        for forbidden in [
            " style=",
            " onclick=",
            "<style",
            "<script>",
            "http://",
            "https://",
        ] {
            assert!(!PAGE.contains(forbidden), "the page has {forbidden}");
        }
        let scripts = FILES.iter().filter(|(name, _)| name.ends_with(".js"));
        for (name, content) in scripts {
            for forbidden in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
            ] {
                assert!(!content.contains(forbidden), "{name} has {forbidden}");
            }
        }
    }

    #[test]
    fn a_name_of_somebody_elses_is_no_address() {
        for host in [
            "127.0.0.1:8080",
            "127.0.0.1",
            "localhost:8080",
            "LOCALHOST",
            "[::1]:8080",
            "192.168.0.7:80",
        ] {
            assert!(is_by_address(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "[",
            "[evil]",
        ] {
            assert!(!is_by_address(host), "{host}");
        }
    }
}
