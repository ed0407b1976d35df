//! Presence: who is there, over every transport, and who comes and goes.

use crate::{check, start, texts};
use anyhow::{Result, ensure};
use postrider_harness::http::{Cut, Request};
use postrider_harness::inbox::{Connect, Inbox, TRANSPORTS, Transport};
use postrider_harness::node::{KEY_PUBLISH, KEY_READ, Node};
use postrider_harness::people::People;
use postrider_harness::token;
use postrider_harness::wait::{until_true, within};
use std::time::Duration;

/// Short, so that leaving can be waited for.
const LINGER: (&str, &str) = ("presence.linger", "300ms");

fn open(node: &Node, user: &str, transport: Transport, topics: &[&str]) -> Result<Box<dyn Inbox>> {
    let connect = Connect::new(&node.endpoint, &token::user(user)?).topics(topics);
    let mut session = connect.open(transport)?;
    // One turn, so that a long poll is under way.
    session.next(within(0))?;
    Ok(session)
}

fn online(people: &mut People, user: &str) -> Result<bool> {
    Ok(people.ask("GET", &format!("/v1/users/{user}/presence"))?["online"] == true)
}

#[test]
fn a_user_is_there_while_a_session_is() {
    check(|| {
        let (node, mut people) = start(&[LINGER])?;
        let none = people.ask("GET", "/v1/users/ada/presence")?;
        ensure!(
            none == serde_json::json!({"user": "ada", "online": false, "sessions": []}),
            "{none}"
        );
        for transport in TRANSPORTS {
            let session = open(&node, "ada", transport, &[])?;
            until_true("online", within(30), || online(&mut people, "ada"))?;
            if transport != Transport::LongPoll {
                let shown = people.ask("GET", "/v1/users/ada/presence")?;
                ensure!(
                    shown["sessions"][0]["transport"] == transport.to_string(),
                    "{shown}"
                );
                ensure!(shown["sessions"][0]["session"].is_string(), "{shown}");
            }
            ensure!(!online(&mut people, "bob")?);
            session.cut(Cut::Close);
            until_true("offline", within(30), || Ok(!online(&mut people, "ada")?))?;
        }
        let many = [0, 1, 2].map(|_| open(&node, "ada", Transport::Sse, &[]));
        until_true("three sessions", within(30), || {
            let shown = people.ask("GET", "/v1/users/ada/presence")?;
            Ok(shown["sessions"].as_array().map(Vec::len) == Some(3))
        })?;
        drop(many);
        Ok(())
    });
}

#[test]
fn a_topic_counts_members_and_session_topics() {
    check(|| {
        let (mut node, mut people) = start(&[LINGER, ("topics.open", r#"["*"]"#)])?;
        people.join("news", "ada")?;
        people.join("news", "absent")?;
        let _ada = open(&node, "ada", Transport::WebSocket, &[])?;
        let _again = open(&node, "ada", Transport::Sse, &[])?;
        let _bob = open(&node, "bob", Transport::Sse, &["news"])?;
        let _eve = open(&node, "eve", Transport::Sse, &[])?;
        let counts = |people: &mut People| -> Result<(u64, u64)> {
            let shown = people.ask("GET", "/v1/topics/news/presence")?;
            let of = |name: &str| shown[name].as_u64().unwrap_or(0);
            Ok((of("sessions"), of("users")))
        };
        until_true("both are counted", within(30), || {
            Ok(counts(&mut people)? == (3, 2))
        })?;
        let named = people.ask("GET", "/v1/topics/news/presence?users=true")?;
        ensure!(
            texts(&named["present"]) == ["ada", "bob"] && named["after"].is_null(),
            "{named}"
        );
        let page = people.ask("GET", "/v1/topics/news/presence?users=true&limit=1")?;
        ensure!(
            texts(&page["present"]) == ["ada"] && page["after"] == "ada",
            "{page}"
        );
        let page = people.ask("GET", "/v1/topics/news/presence?users=true&limit=1&after=ada")?;
        ensure!(
            texts(&page["present"]) == ["bob"] && page["after"].is_null(),
            "{page}"
        );
        let topic = people.ask("GET", "/v1/topics/news")?;
        ensure!(
            topic["members"] == 2 && topic["presence"]["users"] == 2,
            "{topic}"
        );

        // A membership counts from when it begins to when it ends, for sessions that are open.
        people.join("news", "eve")?;
        until_true("who joins is counted", within(30), || {
            Ok(counts(&mut people)? == (4, 3))
        })?;
        people.leave("news", "ada")?;
        until_true("who leaves is not", within(30), || {
            Ok(counts(&mut people)? == (2, 2))
        })?;

        // Nobody is there after a crash.
        node.kill9()?;
        node.restart()?;
        let mut people = People::new(&node.endpoint, KEY_READ);
        ensure!(counts(&mut people)? == (0, 0) && !online(&mut people, "ada")?);
        Ok(())
    });
}

#[test]
fn who_comes_and_goes_is_told() {
    check(|| {
        let (mut node, mut people) = start(&[LINGER])?;
        let ada = open(&node, "ada", Transport::WebSocket, &[])?;
        until_true("ada is there", within(30), || online(&mut people, "ada"))?;
        let reader = People::new(&node.endpoint, KEY_READ);
        let mut all = reader.presence("")?;
        let mut bobs = reader.presence("?user=bob&user=eve")?;
        ensure!(all.snapshot(within(30))? == ["ada"]);
        ensure!(bobs.snapshot(within(30))?.is_empty());
        let bob = open(&node, "bob", Transport::Sse, &[])?;
        all.expect("join", "bob", within(30))?;
        bobs.expect("join", "bob", within(30))?;
        // A second session changes nothing; the end of the last one does, once the linger is over.
        let second = open(&node, "bob", Transport::WebSocket, &[])?;
        bob.cut(Cut::Close);
        ada.cut(Cut::Reset);
        all.expect("leave", "ada", within(30))?;
        second.cut(Cut::Close);
        all.expect("leave", "bob", within(30))?;
        bobs.expect("leave", "bob", within(30))?;
        // A topic's watch tells of those who hear it.
        people.join("news", "eve")?;
        let mut topic = reader.presence("?topic=news")?;
        ensure!(topic.snapshot(within(30))?.is_empty());
        let _eve = open(&node, "eve", Transport::Sse, &[])?;
        topic.expect("join", "eve", within(30))?;
        bobs.expect("join", "eve", within(30))?;
        people.leave("news", "eve")?;
        topic.expect("leave", "eve", within(30))?;
        // The stream ends with the node.
        node.signal_term()?;
        while bobs.event(within(60))?.is_some() {}
        ensure!(node.wait_exit(Duration::from_secs(20))?.success());
        Ok(())
    });
}

/// A client that only reconnects, or polls again, does not leave.
#[test]
fn coming_back_in_time_is_not_leaving() {
    check(|| {
        let (node, mut people) = start(&[("presence.linger", "5m")])?;
        let mut watch = people.presence("")?;
        ensure!(watch.snapshot(within(30))?.is_empty());
        for transport in TRANSPORTS {
            let session = open(&node, "ada", transport, &[])?;
            session.cut(Cut::Close);
        }
        watch.expect("join", "ada", within(30))?;
        ensure!(online(&mut people, "ada")?, "lingers");
        let _bob = open(&node, "bob", Transport::Sse, &[])?;
        // What comes next is bob, and nothing of ada.
        watch.expect("join", "bob", within(30))
    });
}

#[test]
fn presence_needs_a_scope() {
    check(|| {
        let (node, mut people) = start(&[])?;
        for target in [
            "/v1/users/ada/presence",
            "/v1/topics/news/presence",
            "/v1/presence/stream",
        ] {
            let mut publisher = People::new(&node.endpoint, KEY_PUBLISH);
            let answer = publisher.call(Request::new("GET", target))?;
            ensure!(
                answer.status() == 403 && answer.code().as_deref() == Some("scope"),
                "{target}"
            );
        }
        for query in [
            "?topic=a&user=b",
            "?topic=a%20b",
            "?topic=a&topic=b",
            "?users=ada",
        ] {
            let answer = people.call(Request::new("GET", &format!("/v1/presence/stream{query}")))?;
            ensure!(answer.status() == 400, "{query}: {}", answer.text());
        }
        Ok(())
    });
}
