//! CORS: a preflight for every route, and whose pages may read what.

use crate::*;
use postrider_harness::http::Answer;
use postrider_harness::token::user;

const ROUTES: [(&str, &str); 9] = [
    ("/v1/notifications", "POST"),
    ("/v1/notifications/n", "DELETE"),
    ("/v1/notifications/n/timeline", "GET"),
    ("/v1/inbox", "GET"),
    ("/v1/inbox/stream", "GET"),
    ("/v1/inbox/ws", "GET"),
    ("/v1/inbox/ack", "POST"),
    ("/v1/inbox/history", "GET"),
    ("/v1/tickets", "POST"),
];

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.head.header(name)
}

fn ask(node: &Node, method: &str, path: &str, origin: &str) -> Result<Answer> {
    let request = Request::new(method, path).header("Origin", origin);
    let request = if method == "OPTIONS" {
        request.header("Access-Control-Request-Method", "GET")
    } else {
        request.bearer(&user("ada")?)
    };
    once(node.endpoint.addr()?, &request)
}

#[test]
fn every_route_has_its_preflight() {
    check(
        &[("http.allowed_origins", r#"["https://app.example"]"#)],
        |node| {
            for (path, method) in ROUTES {
                let answer = ask(node, "OPTIONS", path, "https://app.example")?;
                ensure!(answer.status() == 204, "{path}: {}", said(&answer));
                let methods = header(&answer, "access-control-allow-methods").unwrap_or_default();
                ensure!(methods.contains(method), "{path}: {methods}");
                let headers = header(&answer, "access-control-allow-headers").unwrap_or_default();
                ensure!(
                    headers.contains("Authorization") && headers.contains("Last-Event-ID"),
                    "{path}: {headers}"
                );
                ensure!(
                    header(&answer, "access-control-allow-origin") == Some("https://app.example"),
                    "{path}"
                );
                ensure!(
                    header(&answer, "access-control-allow-credentials") == Some("true"),
                    "{path}"
                );
                ensure!(
                    header(&answer, "vary").is_some_and(|vary| vary.contains("Origin")),
                    "{path}"
                );
                let other = ask(node, "OPTIONS", path, "https://evil.example")?;
                ensure!(
                    header(&other, "access-control-allow-origin").is_none(),
                    "{path}: evil"
                );
            }
            Ok(())
        },
    );
}

#[test]
fn answers_are_for_the_pages_that_were_named() {
    check(
        &[("http.allowed_origins", r#"["https://app.example","*"]"#)],
        |node| {
            for path in ["/v1/inbox?wait=0", "/v1/inbox/history", "/v1/nothing"] {
                let named = ask(node, "GET", path, "https://app.example")?;
                ensure!(
                    header(&named, "access-control-allow-origin") == Some("https://app.example"),
                    "{path}"
                );
                ensure!(
                    header(&named, "access-control-allow-credentials") == Some("true"),
                    "{path}"
                );
                let any = ask(node, "GET", path, "https://any.example")?;
                ensure!(header(&any, "access-control-allow-origin") == Some("*"), "{path}");
                ensure!(
                    header(&any, "access-control-allow-credentials").is_none(),
                    "{path}: credentials for anyone"
                );
                for answer in [named, any] {
                    ensure!(
                        header(&answer, "vary").is_some_and(|vary| vary.contains("Origin")),
                        "{path}"
                    );
                    ensure!(header(&answer, "cache-control") == Some("no-store"), "{path}");
                }
            }
            Ok(())
        },
    );
}
