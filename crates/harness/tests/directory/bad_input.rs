//! Bad requests to every route of the directory, and to those of state maps and presence.
//!
//! Invariant checked: each is refused with a problem document and the status that its fault has, and changes nothing.

use crate::{check, start};
use anyhow::{Result, ensure};
use postrider_harness::http::Request;
use postrider_harness::node::{KEY_PUBLISH, KEY_READ};
use postrider_harness::people::People;
use serde_json::json;

/// A problem document with this status and code.
fn refused(people: &mut People, request: Request, status: u16, code: &str) -> Result<()> {
    let shown = String::from_utf8_lossy(&request.bytes()).into_owned();
    let answer = people.call(request)?;
    let is_problem = answer.head.header("content-type") == Some("application/problem+json");
    let told = answer.code();
    ensure!(
        answer.status() == status && told.as_deref() == Some(code) && is_problem,
        "{status} {code} was to come for\n{shown}\nnot {} {}",
        answer.status(),
        answer.text()
    );
    Ok(())
}

#[test]
fn every_route_needs_the_scope_manage() {
    check(|| {
        let (node, _) = start(&[])?;
        let routes = [
            ("GET", "/v1/users"),
            ("PUT", "/v1/users/ada"),
            ("GET", "/v1/users/ada"),
            ("DELETE", "/v1/users/ada"),
            ("DELETE", "/v1/users/ada?erase=true"),
            ("POST", "/v1/users/import"),
            ("GET", "/v1/topics/news"),
            ("GET", "/v1/topics/news/members"),
            ("PUT", "/v1/topics/news/members/ada"),
            ("DELETE", "/v1/topics/news/members/ada"),
            ("GET", "/v1/users/ada/state"),
            ("PATCH", "/v1/users/ada/state"),
            ("DELETE", "/v1/users/ada/state"),
            ("POST", "/v1/users/ada/state/increment"),
        ];
        for (method, target) in routes {
            for key in [KEY_PUBLISH, KEY_READ] {
                let mut other = People::new(&node.endpoint, key);
                refused(&mut other, Request::new(method, target), 403, "scope")?;
            }
            let answer = node.endpoint.connect(None)?;
            let mut answer = answer;
            let answer = answer.call(&Request::new(method, target), postrider_harness::wait::within(20))?;
            ensure!(
                answer.status() == 401 && answer.code().as_deref() == Some("key_missing"),
                "{method} {target}"
            );
        }
        Ok(())
    });
}

#[test]
fn users_that_cannot_be() {
    check(|| {
        let (_node, mut people) = start(&[])?;
        let put = |body: &str| Request::new("PUT", "/v1/users/ada").body("application/json", body);
        let bodies = [
            ("", 400, "invalid_user"),
            ("{", 400, "invalid_user"),
            ("[]", 400, "invalid_user"),
            ("null", 400, "invalid_user"),
            (r#"{"id":"ada"}"#, 400, "invalid_user"),
            (r#"{"name":"Ada"}"#, 400, "invalid_user"),
            (r#"{"email":"ada"}"#, 400, "invalid_user"),
            (r#"{"email":["a@b"]}"#, 400, "invalid_user"),
            (r#"{"mobile":"0x12"}"#, 400, "invalid_user"),
            (r#"{"locale":"\u0000"}"#, 400, "invalid_user"),
            (r#"{"time_zone":"Europe Berlin"}"#, 400, "invalid_user"),
            (r#"{"attributes":"none"}"#, 400, "invalid_user"),
            (r#"{"attributes":{"a":null}}"#, 400, "invalid_user"),
            (r#"{"attributes":{"a":"\u001b[1m"}}"#, 400, "invalid_user"),
            (r#"{"topics":"news"}"#, 400, "invalid_user"),
            (r#"{"topics":["a b"]}"#, 400, "invalid_user"),
            (r#"{"topics":[["a"]]}"#, 400, "invalid_user"),
            (r#"{"email":"a@b","email":"a@b"}"#, 400, "invalid_user"),
        ];
        for (body, status, code) in bodies {
            refused(&mut people, put(body), status, code)?;
        }
        let deep = format!("{{\"attributes\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
        refused(&mut people, put(&deep), 400, "invalid_user")?;
        let long = json!({"attributes": {"a": "x".repeat(2000)}}).to_string();
        refused(&mut people, put(&long), 413, "too_large")?;
        refused(&mut people, put(&" ".repeat(300 << 10)), 413, "too_large")?;
        let typed = Request::new("PUT", "/v1/users/ada").body("text/plain", "{}");
        refused(&mut people, typed, 415, "unsupported_media_type")?;
        for id in ["a%00b", "%0A", "%ff", &"x".repeat(257)] {
            let request = Request::new("PUT", &format!("/v1/users/{id}")).body("application/json", "{}");
            let answer = people.call(request)?;
            ensure!([400, 404].contains(&answer.status()), "{id}: {}", answer.text());
        }
        ensure!(people.ids()?.is_empty(), "nothing was written");
        Ok(())
    });
}

#[test]
fn paths_and_queries_that_cannot_be() {
    check(|| {
        let (_node, mut people) = start(&[])?;
        let mut bad = |method: &str, target: &str| {
            refused(&mut people, Request::new(method, target), 400, "invalid_request")
        };
        for target in [
            "/v1/users?limit=0",
            "/v1/users?limit=1001",
            "/v1/users?limit=x",
            "/v1/users?after=",
            "/v1/users?before=a",
            "/v1/topics/news/members?limit=0",
            "/v1/topics/news/members?after=%01",
            "/v1/topics/a%20b",
            "/v1/topics/%C3%BC/members",
            "/v1/topics/a%20b/presence",
            "/v1/topics/news/presence?users=perhaps",
            "/v1/topics/news/presence?users=true&limit=0",
            "/v1/users/a%01/presence",
            "/v1/users/a%01/state",
        ] {
            bad("GET", target)?;
        }
        bad("PUT", "/v1/topics/a%20b/members/ada")?;
        bad("DELETE", "/v1/topics/news/members/%01")?;
        bad("DELETE", "/v1/users/ada?erase=perhaps")?;
        bad("DELETE", "/v1/users/ada?all=true")?;
        bad("POST", "/v1/users/import?bad_lines=mend")?;
        bad("POST", "/v1/users/import?lines=skip")?;
        for (method, target) in [
            ("POST", "/v1/users"),
            ("PATCH", "/v1/users/ada"),
            ("POST", "/v1/topics/news"),
            ("POST", "/v1/topics/news/members/ada"),
            ("PUT", "/v1/users/ada/state"),
            ("POST", "/v1/users/ada/presence"),
            ("POST", "/v1/inbox/state"),
        ] {
            refused(
                &mut people,
                Request::new(method, target),
                405,
                "method_not_allowed",
            )?;
        }
        Ok(())
    });
}

#[test]
fn state_changes_that_cannot_be() {
    check(|| {
        let (_node, mut people) = start(&[])?;
        let table = [
            ("PATCH", "/v1/users/ada/state", r#"{"a":1}"#),
            ("PATCH", "/v1/users/ada/state", r#"{"a":true}"#),
            ("PATCH", "/v1/users/ada/state", r#"{"a":{"b":"c"}}"#),
            ("PATCH", "/v1/users/ada/state", r#"{"a":"1","a":"2"}"#),
            ("PATCH", "/v1/users/ada/state", r#"{"":"1"}"#),
            ("PATCH", "/v1/users/ada/state", r#"{"a\nb":"1"}"#),
            ("PATCH", "/v1/users/ada/state", "[]"),
            ("PATCH", "/v1/users/ada/state", ""),
            ("POST", "/v1/users/ada/state/increment", r#"{"a":"1"}"#),
            ("POST", "/v1/users/ada/state/increment", r#"{"a":1.0}"#),
            (
                "POST",
                "/v1/users/ada/state/increment",
                r#"{"a":9223372036854775808}"#,
            ),
            ("POST", "/v1/users/ada/state/increment", r#"{"a":null}"#),
            ("POST", "/v1/users/ada/state/increment", "7"),
        ];
        for (method, target, body) in table {
            let request = Request::new(method, target).body("application/json", body);
            refused(&mut people, request, 400, "invalid_request")?;
        }
        let long = json!({"a": "x".repeat(200 << 10)}).to_string();
        let request = Request::new("PATCH", "/v1/users/ada/state").body("application/json", long);
        refused(&mut people, request, 413, "too_large")?;
        let merge =
            Request::new("PATCH", "/v1/users/ada/state").body("application/merge-patch+json", r#"{"a":"1"}"#);
        ensure!(people.call(merge)?.status() == 200);
        let typed = Request::new("PATCH", "/v1/users/ada/state").body("text/plain", "{}");
        refused(&mut people, typed, 415, "unsupported_media_type")?;
        ensure!(people.state("ada")?.0 == json!({"a": "1"}));
        Ok(())
    });
}

/// Nothing is decoded, and nothing taken for what it is not.
#[test]
fn bodies_that_are_coded() {
    check(|| {
        let (_node, mut people) = start(&[])?;
        let table = [
            ("PUT", "/v1/users/ada", "application/json", "{}"),
            ("POST", "/v1/users/import", "text/csv", "id\nada\n"),
            (
                "POST",
                "/v1/users/import?bad_lines=refuse",
                "text/csv",
                "id\nada\n",
            ),
            ("PATCH", "/v1/users/ada/state", "application/json", "{}"),
            ("POST", "/v1/users/ada/state/increment", "application/json", "{}"),
            ("POST", "/v1/notifications", "application/json", r#"{"data":1}"#),
            (
                "POST",
                "/v1/notifications",
                "application/x-ndjson",
                r#"{"data":1}"#,
            ),
        ];
        for (method, target, content_type, body) in table {
            let request = |coding: &str| {
                let request = Request::new(method, target).header("Content-Encoding", coding);
                request.body(content_type, body)
            };
            refused(&mut people, request("gzip"), 415, "unsupported_media_type")?;
            ensure!(people.ids()?.is_empty(), "{method} {target} was taken");
            let plain = people.call(request("Identity"))?;
            ensure!(
                (200..300).contains(&plain.status()),
                "{method} {target}: {}",
                plain.text()
            );
            people.ask("DELETE", "/v1/users/ada")?;
        }
        Ok(())
    });
}

/// What is too large is told what would help.
#[test]
fn bodies_that_are_too_large() {
    check(|| {
        let (_node, mut people) = start(&[("http.max_body", "64KiB")])?;
        for (method, target, content_type, advice) in [
            ("PUT", "/v1/users/ada", "application/json", "Send less."),
            ("PATCH", "/v1/users/ada/state", "application/json", "Send less."),
            (
                "POST",
                "/v1/users/import?bad_lines=refuse",
                "text/csv",
                "bad_lines=skip",
            ),
            ("POST", "/v1/notifications", "application/json", "NDJSON"),
        ] {
            let request = Request::new(method, target).body(content_type, " ".repeat(300 << 10));
            let answer = people.call(request)?;
            let detail = answer.json()?["detail"].as_str().unwrap_or_default().to_owned();
            ensure!(
                answer.status() == 413 && detail.contains(advice),
                "{target}: {detail}"
            );
        }
        Ok(())
    });
}

#[test]
fn imports_that_cannot_be() {
    check(|| {
        let (_node, mut people) = start(&[])?;
        for content_type in [
            "application/json",
            "application/x-www-form-urlencoded",
            "text/plain",
            "multipart/form-data",
        ] {
            let answer = people.import("", content_type, "{}")?;
            ensure!(answer.status() == 415, "{content_type}: {}", answer.text());
        }
        let long = format!("{{\"id\":\"a\"}}\n{}\n{{\"id\":\"b\"}}\n", "x".repeat(300 << 10));
        let answer = people.import("", "application/x-ndjson", long)?.json()?;
        ensure!(
            answer["imported"] == 2 && answer["bad_lines"][0]["code"] == "too_large",
            "{answer}"
        );
        let answer = people.import("", "application/x-ndjson", "")?.json()?;
        ensure!(
            answer["lines"] == 0 && answer["bad_lines"] == json!([]),
            "{answer}"
        );
        let binary: Vec<u8> = (0..=255).cycle().take(100_000).collect();
        let answer = people.import("", "application/x-ndjson", binary.clone())?;
        ensure!(
            answer.status() == 200 && answer.json()?["imported"] == 0,
            "{}",
            answer.text()
        );
        ensure!(people.import("", "text/csv", binary)?.status() == 400);
        Ok(())
    });
}
