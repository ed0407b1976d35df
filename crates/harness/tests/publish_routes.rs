//! A publish request takes one of two ways: a small plain one is served by the loop that read it, any other by the
//! API's general server.
//!
//! Invariant checked: nobody can tell from an answer which way its request took.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]
#![allow(
    clippy::disallowed_methods,
    reason = "a black-box test is a driver: it reads clocks, spawns and draws"
)]

use anyhow::{Context, Result, ensure};
use postrider_harness::http::{Answer, Conn, Request, once};
use postrider_harness::node::{KEY, KEY_PUBLISH, KEY_READ, Node};
use postrider_harness::tls::Authority;
use postrider_harness::user::User;
use postrider_harness::wait::within;
use postrider_harness::{publish::Publisher, token};
use serde_json::json;

/// The same resource, by a target that the loops leave to the general server.
const PLAIN: &str = "/v1/notifications";
const OTHER: &str = "http://postrider.test/v1/notifications";

fn check(test: fn() -> Result<()>) {
    if let Err(e) = test() {
        panic!("{e:?}");
    }
}

/// What a client can see of an answer, but for what HTTP lets a server say or leave out.
fn seen(answer: &Answer) -> (u16, Vec<(String, String)>, String) {
    let mut headers = answer.head.headers.clone();
    headers.retain(|(name, _)| !["date", "connection", "content-length"].contains(&name.as_str()));
    headers.sort();
    (answer.status(), headers, answer.text())
}

#[test]
fn both_ways_answer_alike() {
    check(|| {
        let node = Node::start(&[
            ("http.allowed_origins", r#"["https://app.example"]"#),
            ("limits.data", "1KiB"),
        ])?;
        let addr = node.endpoint.addr()?;
        let one = r#"{"id":"n1","users":["ada"],"data":1}"#;
        let large = json!({"users": ["ada"], "data": "x".repeat(2000)}).to_string();
        let bodies: [(&str, &str); 16] = [
            ("accepted", one),
            ("again", one),
            ("another content", r#"{"id":"n1","users":["ada"],"data":2}"#),
            (
                "transient",
                r#"{"id":"t1","users":["ada"],"data":1,"durability":"transient"}"#,
            ),
            ("to everyone", r#"{"id":"e1","data":1}"#),
            ("nothing", ""),
            ("no JSON", "{"),
            ("no object", "7"),
            ("nobody", r#"{"users":[],"data":1}"#),
            ("no data", r#"{"users":["ada"]}"#),
            ("an unknown field", r#"{"users":["ada"],"data":1,"user":1}"#),
            ("too large", &large),
            (
                "an array",
                r#"[{"id":"a1","users":["ada"],"data":1},7,{"id":"a2","users":["bob"],"data":1}]"#,
            ),
            ("an array of nothing", "[]"),
            ("an array of refused", r#"[{"users":[],"data":1},7]"#),
            (
                "an array of conflicts",
                r#"[{"id":"n1","users":["ada"],"data":9}]"#,
            ),
        ];
        let json = |target: &str, body: &str| Request::new("POST", target).body("application/json", body);
        for (name, body) in bodies {
            for key in [Some(KEY), Some(KEY_PUBLISH), Some(KEY_READ), Some("wrong"), None] {
                for extra in [
                    None,
                    Some(("Origin", "https://app.example")),
                    Some(("Origin", "https://evil.example")),
                    Some(("Idempotency-Key", "")),
                ] {
                    let ask = |target: &str| {
                        let mut request = json(target, body);
                        if let Some(key) = key {
                            request = request.bearer(key);
                        }
                        if let Some((header, value)) = extra {
                            request = request.header(header, value);
                        }
                        once(addr, &request)
                    };
                    let (plain, other) = (seen(&ask(PLAIN)?), seen(&ask(OTHER)?));
                    ensure!(
                        plain == other,
                        "{name}, {key:?}, {extra:?}: {plain:?} and {other:?}"
                    );
                }
            }
        }
        Ok(())
    });
}

/// The key stands for the request, by whichever way that comes.
#[test]
fn an_idempotency_key_holds_over_both_ways() {
    check(|| {
        let node = Node::start(&[])?;
        let addr = node.endpoint.addr()?;
        let ask = |target: &str, body: &str| {
            let request = Request::new("POST", target)
                .bearer(KEY)
                .header("Idempotency-Key", "k-1")
                .body("application/json", body);
            once(addr, &request)
        };
        let body = r#"{"users":["ada"],"data":1}"#;
        let first = ask(PLAIN, body)?;
        ensure!(first.status() == 202, "{}", first.text());
        for target in [PLAIN, OTHER] {
            ensure!(ask(target, body)?.body == first.body, "another answer");
            let conflict = ask(target, r#"{"users":["ada"],"data":2}"#)?;
            ensure!(
                conflict.code().as_deref() == Some("id_conflict"),
                "{}",
                conflict.text()
            );
        }
        ensure!(User::new(&node.endpoint, "ada")?.pending()?.len() == 1);
        Ok(())
    });
}

/// A key's rate is one, by whichever way its requests come.
#[test]
fn a_rate_holds_over_both_ways() {
    check(|| {
        let node = Node::start(&[("limits.publish_rate", "2")])?;
        let addr = node.endpoint.addr()?;
        let mut refused = Vec::new();
        for n in 0..12 {
            let target = [PLAIN, OTHER][n % 2];
            let request = Request::new("POST", target)
                .bearer(KEY)
                // No disk has to take it, however slow it is.
                .body(
                    "application/json",
                    r#"{"users":["ada"],"data":1,"durability":"transient"}"#,
                );
            let answer = once(addr, &request)?;
            if answer.status() == 429 {
                ensure!(answer.code().as_deref() == Some("rate_limited"));
                ensure!(answer.head.header("retry-after") == Some("1"));
                refused.push(target);
            }
        }
        ensure!(
            refused.contains(&PLAIN) && refused.contains(&OTHER),
            "{refused:?}"
        );
        Ok(())
    });
}

/// Publishes in any form, a look, a poll, and whatever the server has not: on one connection, in order; with TLS too.
fn everything_on_one_connection(node: &Node) -> Result<()> {
    let publish = |id: &str, body: Vec<u8>| -> Vec<u8> {
        let request = Request::new("POST", PLAIN).bearer(KEY);
        println!("{id}: {} bytes", body.len());
        request.body("application/json", body).bytes()
    };
    let small = |id: &str| {
        let body = json!({"id": id, "users": ["ada"], "data": id}).to_string();
        publish(id, body.into_bytes())
    };
    let ids = |answer: &Answer| answer.json().map(|json| json["id"].clone());
    let mut conn = node.endpoint.connect(None)?;
    // Two at once, then in single bytes.
    conn.write(&[small("p1"), small("p2")].concat())?;
    for id in ["p1", "p2"] {
        let answer = conn.answer(within(20))?.context("no answer")?;
        ensure!(answer.status() == 202 && ids(&answer)? == id, "{}", answer.text());
    }
    for byte in small("p3") {
        conn.write(&[byte])?;
    }
    ensure!(ids(&conn.answer(within(20))?.context("no answer")?)? == "p3");
    // A poll between publishes.
    let token = token::user("ada")?;
    let poll = Request::new("GET", "/v1/inbox?wait=0").bearer(&token);
    let page = conn.call(&poll, within(20))?.json()?;
    ensure!(
        page["notifications"].as_array().map(Vec::len) == Some(3),
        "{page}"
    );
    conn.write(&small("p4"))?;
    ensure!(ids(&conn.answer(within(20))?.context("no answer")?)? == "p4");
    // Larger than a loop takes: the connection goes elsewhere, and everything goes on.
    let body = json!({"id": "large", "users": ["ada"], "data": "x".repeat(100_000)}).to_string();
    conn.write(&publish("large", body.into_bytes()))?;
    ensure!(ids(&conn.answer(within(20))?.context("no answer")?)? == "large");
    conn.write(&small("p5"))?;
    ensure!(ids(&conn.answer(within(20))?.context("no answer")?)? == "p5");
    // An answer here is full with the large one.
    let page = conn.call(&poll, within(20))?.json()?;
    let cursor = page["cursor"].as_str().context("no cursor")?;
    let next = Request::new("GET", &format!("/v1/inbox?wait=0&cursor={cursor}")).bearer(&token);
    let rest = conn.call(&next, within(20))?.json()?;
    for (page, count) in [(&page, 5), (&rest, 1)] {
        ensure!(
            page["notifications"].as_array().map(Vec::len) == Some(count),
            "{page}"
        );
    }
    Ok(())
}

#[test]
fn one_connection_takes_both_ways() {
    check(|| everything_on_one_connection(&Node::start(&[])?));
}

#[test]
fn with_tls_too() {
    check(|| everything_on_one_connection(&Authority::new()?.start(&[])?));
}

/// While the first request waits for the disk, more of the second lies here than a head, and its tail in the socket.
#[test]
fn the_tail_of_a_body_that_comes_while_another_waits_is_read() {
    check(|| {
        let node = Node::start(&[])?;
        let publish = |id: &str, padding: usize| {
            let body = json!({"id": id, "users": ["ada"], "data": "x".repeat(padding)}).to_string();
            let request = Request::new("POST", PLAIN).bearer(KEY);
            request.body("application/json", body).bytes()
        };
        for kib in 17..57 {
            // Bytes of the second that come with the first, and a body that is longer.
            let (ids, ahead) = ([format!("a{kib}"), format!("b{kib}")], kib << 10);
            let (first, second) = (publish(&ids[0], 1), publish(&ids[1], 60_000));
            let mut conn = Conn::open(node.endpoint.addr()?, None)?;
            conn.write(&[&first, &second[..ahead]].concat())?;
            conn.write(&second[ahead..])?;
            for id in ids {
                let answer = conn.answer(within(30))?.context("no answer")?;
                ensure!(
                    answer.status() == 202 && answer.json()?["id"] == id,
                    "{id}: {}",
                    answer.text()
                );
            }
        }
        Ok(())
    });
}

/// Whoever asked has gone: what was accepted is accepted.
#[test]
fn a_publisher_that_does_not_wait_is_served_all_the_same() {
    check(|| {
        let node = Node::start(&[])?;
        let mut bytes = Vec::new();
        for n in 0..50 {
            let body = json!({"id": format!("g{n}"), "users": ["ada"], "data": n}).to_string();
            let request = Request::new("POST", PLAIN).bearer(KEY);
            bytes.extend(request.body("application/json", body).bytes());
        }
        let mut conn = Conn::open(node.endpoint.addr()?, None)?;
        conn.write(&bytes)?;
        let first = conn.answer(within(20))?.context("no answer")?;
        ensure!(first.status() == 202, "{}", first.text());
        drop(conn);
        let mut publisher = Publisher::new(&node.endpoint, KEY);
        let mut held = 0;
        for n in 0..50 {
            held += usize::from(publisher.look(&format!("g{n}"))?.status() == 200);
        }
        // Those that came are there from the first on, without a hole.
        ensure!(held >= 1);
        let pending = User::new(&node.endpoint, "ada")?.pending()?;
        ensure!(pending.len() >= held, "{} of {held}", pending.len());
        Ok(())
    });
}
