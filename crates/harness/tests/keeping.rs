//! What ends a notification beside an acknowledgement: attempts, full feeds, age, erasing; and what an operator
//! can do about dead letters.
//!
//! Invariant checked: whatever is given up can be found, with its reason, and brought back; whoever is erased
//! leaves nothing that can be asked for.

#![allow(missing_docs, clippy::unwrap_used)]
#![allow(
    clippy::disallowed_methods,
    reason = "a black-box test is a driver: it reads clocks, spawns and draws"
)]

use anyhow::{Context, Result, ensure};
use postrider_harness::http::{Answer, Cut, Request};
use postrider_harness::inbox::{AckMode, Connect, Received, Transport, wait_for};
use postrider_harness::node::{KEY, Node};
use postrider_harness::publish::Publisher;
use postrider_harness::token;
use postrider_harness::user::User;
use postrider_harness::wait::{until_true, within};
use serde_json::{Value, json};

fn check(test: fn() -> Result<()>) {
    if let Err(e) = test() {
        panic!("{e:?}");
    }
}

fn entry(id: &str) -> impl Fn(&Received) -> Option<Option<u64>> {
    let id = id.to_owned();
    move |received| match received {
        Received::Notification(entry) if entry.id == id => Some(entry.attempt),
        _ => None,
    }
}

fn letters(publisher: &mut Publisher, query: &str) -> Result<Vec<Value>> {
    let answer = publisher.call(Request::new("GET", &format!("/v1/dead-letters{query}")))?;
    ensure!(answer.status() == 200, "{} {}", answer.status(), answer.text());
    let page = answer.json()?;
    Ok(page["dead_letters"]
        .as_array()
        .context("no dead_letters")?
        .clone())
}

fn post(publisher: &mut Publisher, path: &str, body: &str) -> Result<Answer> {
    publisher.call(Request::new("POST", path).body("application/json", body))
}

fn ids(letters: &[Value]) -> Vec<&str> {
    letters
        .iter()
        .filter_map(|letter| letter["notification"].as_str())
        .collect()
}

#[test]
fn attempts_end_in_a_dead_letter_that_can_be_redriven() {
    check(|| {
        let node = Node::start(&[
            ("delivery.ack_timeout", "200ms"),
            ("delivery.max_attempts", "2"),
            ("delivery.max_total_attempts", "2"),
        ])?;
        let mut publisher = Publisher::new(&node.endpoint, KEY);
        let connect = Connect::new(&node.endpoint, &token::user("ada")?);
        let mut session = connect
            .clone()
            .ack(AckMode::Explicit)
            .open(Transport::WebSocket)?;
        publisher.accepted(
            &json!({"id": "job", "users": ["ada", "bob"], "subject": "Do it", "data": {"n": 1.0}}),
        )?;
        ensure!(wait_for(&mut *session, within(30), "the first", entry("job"))?.is_none());
        ensure!(wait_for(&mut *session, within(30), "the second", entry("job"))? == Some(2));
        until_true("dead", within(30), || Ok(publisher.count("job", "dead")? == 1))?;

        ensure!(
            letters(&mut publisher, "?user=bob")?.is_empty(),
            "of the other user"
        );
        let all = letters(&mut publisher, "")?;
        ensure!(all.len() == 1, "{all:?}");
        let letter = &all[0];
        let wanted = json!({"notification": "job", "user": "ada", "reason": "max_attempts", "attempts": 2,
            "subject": "Do it", "data": {"n": 1.0}});
        for (name, value) in wanted.as_object().unwrap() {
            ensure!(letter[name] == *value, "{name} of {letter}");
        }
        let id = letter["id"].as_str().context("no id")?;
        let shown = publisher.call(Request::new("GET", &format!("/v1/dead-letters/{id}")))?;
        ensure!(shown.json()? == *letter, "{}", shown.text());

        // From here on nobody counts attempts.
        session.cut(Cut::Close);
        until_true("the session to be over", within(30), || {
            Ok(node.metric("postrider_sessions{transport=\"websocket\"}")? == 0.0)
        })?;
        let mut session = connect.ack(AckMode::None).open(Transport::WebSocket)?;
        let answer = post(&mut publisher, &format!("/v1/dead-letters/{id}/redrive"), "")?;
        ensure!(
            answer.status() == 202 && answer.json()? == json!({"redriven": 1}),
            "{}",
            answer.text()
        );
        let again = post(&mut publisher, &format!("/v1/dead-letters/{id}/redrive"), "")?;
        ensure!(again.status() == 404, "{}", again.text());
        wait_for(&mut *session, within(30), "the redriven one", entry("job"))?;
        ensure!(User::new(&node.endpoint, "ada")?.ack(&["job"])? == 1, "its ack");
        let story = publisher
            .call(Request::new("GET", "/v1/notifications/job/timeline?user=ada"))?
            .json()?;
        let events = story["events"].as_array().context("no events")?;
        let events: Vec<_> = events
            .iter()
            .filter_map(|event| event["event"].as_str())
            .collect();
        ensure!(events == ["accepted", "dead", "redriven", "delivered"], "{story}");
        let history = User::new(&node.endpoint, "ada")?.history(10)?;
        ensure!(
            history.len() == 1
                && history[0]["state"] == "delivered"
                && history[0]["delivered_at"].is_string(),
            "{history:?}"
        );
        Ok(())
    });
}

#[test]
fn a_full_feed_gives_its_oldest_up_and_operators_can_act() {
    check(|| {
        let mut node = Node::start(&[("retention.entries_per_feed", "3")])?;
        let mut publisher = Publisher::new(&node.endpoint, KEY);
        for n in 0..9 {
            let user = ["ada", "bob", "cyd"][n % 3];
            publisher.accepted(&json!({"id": format!("n-{n}"), "users": [user], "data": n}))?;
        }
        for n in 9..15 {
            let user = ["ada", "bob"][n % 2];
            publisher.accepted(&json!({"id": format!("n-{n}"), "users": [user], "data": n}))?;
        }
        let all = letters(&mut publisher, "")?;
        ensure!(ids(&all) == ["n-1", "n-0", "n-4", "n-3", "n-7", "n-6"], "{all:?}");
        ensure!(ids(&letters(&mut publisher, "?user=ada")?) == ["n-0", "n-3", "n-6"]);
        ensure!(letters(&mut publisher, "?user=cyd")?.is_empty());
        ensure!(letters(&mut publisher, "?reason=max_attempts")?.is_empty());
        let first = letters(&mut publisher, "?limit=4")?;
        let after = first.last().unwrap()["id"].as_str().unwrap();
        ensure!(ids(&letters(&mut publisher, &format!("?limit=4&after={after}"))?) == ["n-7", "n-6"]);

        for (target, status) in [
            ("?limit=0", 400),
            ("?limit=1001", 400),
            ("?reason=sorrow", 400),
            ("?after=x", 400),
            ("?user=", 400),
            ("/dl-0000000000000001", 404),
            ("/nonsense", 404),
        ] {
            let answer = publisher.call(Request::new("GET", &format!("/v1/dead-letters{target}")))?;
            ensure!(answer.status() == status, "{target}: {}", answer.text());
        }
        for (body, status) in [
            (r#"{"rate":0}"#, 400),
            (r#"{"rat":1}"#, 400),
            ("[]", 400),
            ("", 400),
            (r#"{"user":""}"#, 400),
        ] {
            let answer = post(&mut publisher, "/v1/dead-letters/redrive", body)?;
            ensure!(answer.status() == status, "{body}: {}", answer.text());
        }
        ensure!(
            letters(&mut publisher, "")?.len() == 6,
            "a bad request changed something"
        );

        let id = all[0]["id"].as_str().unwrap();
        let deleted = publisher.call(Request::new("DELETE", &format!("/v1/dead-letters/{id}")))?;
        ensure!(deleted.status() == 200, "{}", deleted.text());
        ensure!(publisher.count("n-1", "dead")? == 1, "it stays dead");

        // Acknowledged, so that nothing is pushed out again by what comes back.
        for user in ["ada", "bob"] {
            let user = User::new(&node.endpoint, user)?;
            user.ack_cursor(&user.cursor(&[])?)?;
        }
        node.kill9()?;
        node.restart()?;
        let mut publisher = Publisher::new(&node.endpoint, KEY);
        ensure!(letters(&mut publisher, "")?.len() == 5, "after a crash");
        let answer = post(&mut publisher, "/v1/dead-letters/redrive", r#"{"user":"ada"}"#)?;
        ensure!(answer.json()? == json!({"redriven": 3}), "{}", answer.text());
        ensure!(User::new(&node.endpoint, "ada")?.pending()? == ["n-0", "n-3", "n-6"]);
        let answer = post(
            &mut publisher,
            "/v1/dead-letters/redrive",
            r#"{"reason":"overflow","rate":20}"#,
        )?;
        ensure!(
            answer.status() == 202 && answer.json()? == json!({"redriven": 2}),
            "{}",
            answer.text()
        );
        until_true("redriven at a rate", within(30), || {
            Ok(letters(&mut publisher, "")?.is_empty())
        })?;
        ensure!(User::new(&node.endpoint, "bob")?.pending()? == ["n-4", "n-7"]);
        Ok(())
    });
}

#[test]
fn full_dead_letters_refuse_until_someone_looks() {
    check(|| {
        let node = Node::start(&[("retention.entries_per_feed", "1"), ("dead_letters.max", "2")])?;
        let mut publisher = Publisher::new(&node.endpoint, KEY);
        ensure!(node.ready()?.0 == 200, "ready");
        for n in 0..3 {
            publisher.accepted(&json!({"users": ["ada"], "data": n}))?;
        }
        let refused = publisher.one(&json!({"users": ["ada"], "data": 3}))?;
        ensure!(
            refused.status() == 503 && refused.code().as_deref() == Some("unavailable"),
            "{}",
            refused.text()
        );
        ensure!(refused.head.header("retry-after").is_some(), "no Retry-After");
        ensure!(node.metric("postrider_dead_letters")? == 2.0, "the gauge");
        let (status, told) = node.ready()?;
        // Receiving and making room go on here: a balancer must not take the node out.
        ensure!(
            status == 200 && told["refusing"] == "dead_letters",
            "{status}: {told}"
        );
        let id = letters(&mut publisher, "")?[0]["id"].as_str().unwrap().to_owned();
        publisher.call(Request::new("DELETE", &format!("/v1/dead-letters/{id}")))?;
        let (status, told) = node.ready()?;
        ensure!(
            status == 200 && told.get("refusing").is_none(),
            "{status}: {told}"
        );
        publisher.accepted(&json!({"users": ["ada"], "data": 3}))?;
        Ok(())
    });
}

#[test]
fn what_is_too_old_expires_and_a_cursor_into_it_is_a_gap() {
    check(|| {
        let node = Node::start(&[("retention.age", "8s")])?;
        let mut publisher = Publisher::new(&node.endpoint, KEY);
        let ada = User::new(&node.endpoint, "ada")?;
        publisher.accepted(&json!({"id": "early", "users": ["ada"], "data": 0}))?;
        let mut connect = Connect::new(&node.endpoint, &ada.token);
        connect.cursor = Some(ada.cursor(&[])?);
        publisher.accepted(&json!({"id": "old", "users": ["ada"], "data": 1}))?;
        until_true("expired", within(30), || {
            Ok(publisher.count("old", "expired")? == 1)
        })?;
        until_true("nothing is held", within(30), || Ok(ada.history(10)?.is_empty()))?;
        publisher.accepted(&json!({"id": "new", "users": ["ada"], "data": 2}))?;
        let mut session = connect.open(Transport::WebSocket)?;
        let gap = |received: &Received| matches!(received, Received::Gap(_)).then_some(());
        wait_for(&mut *session, within(30), "the gap", gap)?;
        let story = publisher
            .call(Request::new("GET", "/v1/notifications/old/timeline?user=ada"))?
            .json()?;
        ensure!(story["events"][1]["reason"] == "retention", "{story}");
        Ok(())
    });
}

#[test]
fn an_erased_user_leaves_nothing_and_goes_on() {
    check(|| {
        let mut node = Node::start(&[])?;
        let mut publisher = Publisher::new(&node.endpoint, KEY);
        for n in 0..50 {
            let users = if n % 10 == 0 {
                json!(["ada", "bob"])
            } else {
                json!(["ada"])
            };
            publisher.accepted(&json!({"id": format!("n-{n}"), "users": users, "data": n}))?;
        }
        publisher.accepted(
            &json!({"id": "later", "users": ["ada"], "data": 0, "deliver_at": "2099-01-01T00:00:00Z"}),
        )?;
        let ada = User::new(&node.endpoint, "ada")?;
        ada.read(&["n-3"])?;
        let mut session = Connect::new(&node.endpoint, &ada.token).open(Transport::WebSocket)?;
        wait_for(&mut *session, within(30), "what came before", entry("n-49"))?;

        let target = "/v1/users/ada?erase=true";
        let answer = publisher.call(Request::new("DELETE", "/v1/users/ada?erase=maybe"))?;
        ensure!(answer.status() == 400, "{}", answer.text());
        // Without that word only the directory forgets, which does not know her; what she got stays.
        for target in ["/v1/users/ada", "/v1/users/ada?erase=false"] {
            let answer = publisher.call(Request::new("DELETE", target))?;
            ensure!(
                answer.json()? == json!({"removed": false}),
                "{target}: {}",
                answer.text()
            );
        }
        ensure!(publisher.look("n-3")?.status() == 200);
        let answer = publisher.call(Request::new("DELETE", target))?;
        ensure!(answer.json()? == json!({"erased": true}), "{}", answer.text());
        let look = |publisher: &mut Publisher| -> Result<()> {
            for id in ["n-3", "n-49", "later"] {
                ensure!(publisher.look(id)?.status() == 404, "{id} is still known");
            }
            ensure!(
                publisher.look("n-10")?.json()?["audience"]["count"] == 1,
                "bob's part"
            );
            Ok(())
        };
        look(&mut publisher)?;
        ensure!(ada.history(100)?.is_empty(), "history");
        ensure!(
            User::new(&node.endpoint, "bob")?.history(100)?.len() == 5,
            "bob's history"
        );

        publisher.accepted(&json!({"id": "after", "users": ["ada"], "data": 1}))?;
        wait_for(&mut *session, within(30), "a session goes on", entry("after"))?;
        node.kill9()?;
        node.restart()?;
        let mut publisher = Publisher::new(&node.endpoint, KEY);
        look(&mut publisher)?;
        let ada = User::new(&node.endpoint, "ada")?;
        let history = ada.history(100)?;
        ensure!(history.len() == 1 && history[0]["id"] == "after", "{history:?}");
        Ok(())
    });
}
