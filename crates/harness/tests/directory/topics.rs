//! Topics: joining, leaving, and what of a topic is a member's.

use crate::{check, start, texts};
use anyhow::{Context, Result, ensure};
use postrider_harness::http::Request;
use postrider_harness::node::{KEY, Node};
use postrider_harness::people::People;
use postrider_harness::publish::Publisher;
use postrider_harness::user::User;
use serde_json::{Value, json};

/// Publishes to a topic under an id.
fn publish(node: &Node, topic: &str, id: &str) -> Result<()> {
    Publisher::new(&node.endpoint, KEY).accepted(&json!({"topics": [topic], "id": id, "data": id}))?;
    Ok(())
}

#[test]
fn joining_and_leaving_say_what_they_changed() {
    check(|| {
        let (mut node, mut people) = start(&[])?;
        ensure!(people.join("news", "ada")? && !people.join("news", "ada")?);
        ensure!(people.join("news", "bob")? && people.join("news", "a/b")?);
        ensure!(people.user("bob")?.is_some(), "who joins is known");
        let page = people.ask("GET", "/v1/topics/news/members")?;
        ensure!(
            texts(&page["members"]) == ["a/b", "ada", "bob"] && page["count"] == 3,
            "{page}"
        );
        let first = people.ask("GET", "/v1/topics/news/members?limit=2")?;
        ensure!(texts(&first["members"]) == ["a/b", "ada"] && first["count"] == 3 && first["after"] == "ada");
        let rest = people.ask("GET", "/v1/topics/news/members?limit=2&after=ada")?;
        ensure!(
            texts(&rest["members"]) == ["bob"] && rest["after"].is_null(),
            "{rest}"
        );
        ensure!(people.leave("news", "ada")? && !people.leave("news", "ada")?);
        ensure!(!people.leave("news", "nobody")?);
        let topic = people.ask("GET", "/v1/topics/news")?;
        ensure!(topic["topic"] == "news" && topic["members"] == 2, "{topic}");
        ensure!(people.ask("GET", "/v1/topics/unused")?["members"] == 0);
        node.kill9()?;
        node.restart()?;
        let mut people = People::new(&node.endpoint, KEY);
        let page = people.ask("GET", "/v1/topics/news/members")?;
        ensure!(
            texts(&page["members"]) == ["a/b", "bob"] && page["count"] == 2,
            "{page}"
        );
        Ok(())
    });
}

/// Every character of a topic's alphabet, percent-encoded or, where a path may hold it, as it is.
#[test]
fn topics_of_every_character_fit_into_a_path() {
    check(|| {
        let (_node, mut people) = start(&[])?;
        let topic = "A-z.09_a:b/c@d+e~f-g//h";
        ensure!(people.join(topic, "ada")?);
        let plain = "/v1/topics/A-z.09_a:b%2Fc@d+e~f-g%2f%2Fh";
        ensure!(people.ask("PUT", &format!("{plain}/members/ada"))? == json!({"changed": false}));
        ensure!(people.ask("GET", plain)?["topic"] == topic);
        ensure!(texts(&people.ask("GET", &format!("{plain}/members"))?["members"]) == ["ada"]);
        for odd in ["/", "//", "..", ".", "a/", "/members/x", ":", "%2F"] {
            let is_topic = !odd.contains('%');
            let target = format!("/v1/topics/{}/members/ada", postrider_harness::http::escape(odd));
            let answer = people.call(Request::new("PUT", &target))?;
            ensure!(
                answer.status() == if is_topic { 200 } else { 400 },
                "{odd}: {}",
                answer.text()
            );
        }
        Ok(())
    });
}

/// What was published while a user was a member is that user's, also after leaving; what came before or between is not.
#[test]
fn a_member_has_what_came_while_there() {
    check(|| {
        let (node, mut people) = start(&[])?;
        publish(&node, "news", "before")?;
        people.join("news", "ada")?;
        publish(&node, "news", "first")?;
        people.leave("news", "ada")?;
        publish(&node, "news", "between")?;
        people.join("news", "ada")?;
        publish(&node, "news", "second")?;
        people.leave("news", "ada")?;
        publish(&node, "news", "after")?;
        let ada = User::new(&node.endpoint, "ada")?;
        ensure!(ada.pending()? == ["first", "second"], "{:?}", ada.pending()?);
        let shown = ada.history(50)?;
        let states: Vec<_> = shown
            .iter()
            .map(|one| (one["id"].as_str(), one["state"].as_str()))
            .collect();
        let pending = Some("pending");
        ensure!(
            states == [(Some("second"), pending), (Some("first"), pending)],
            "{states:?}"
        );
        ensure!(shown[0]["topic"] == "news", "{}", shown[0]);
        ensure!(User::new(&node.endpoint, "bob")?.history(50)?.is_empty());

        // Its story: a recipient, or none.
        let mut state = |id: &str, user: &str| -> Result<Value> {
            let story = people.ask("GET", &format!("/v1/notifications/{id}/timeline?user={user}"))?;
            Ok(story["state"].clone())
        };
        ensure!(state("first", "ada")? == "pending" && state("second", "ada")? == "pending");
        for id in ["before", "between", "after"] {
            ensure!(state(id, "ada")?.is_null(), "{id} is not ada's");
        }
        ensure!(state("first", "bob")?.is_null(), "bob never was a member");
        Ok(())
    });
}

/// Acknowledging and reading, by id and by cursor, settle what a member got of a topic.
#[test]
fn members_settle() {
    check(|| {
        let (mut node, mut people) = start(&[])?;
        people.join("news", "ada")?;
        for id in ["n1", "n2", "n3", "n4"] {
            publish(&node, "news", id)?;
        }
        let ada = User::new(&node.endpoint, "ada")?;
        ensure!(ada.ack(&["n1"])? == 1 && ada.ack(&["n1"])? == 0);
        ensure!(ada.read(&["n2"])? == 1);
        ensure!(ada.pending()? == ["n3", "n4"], "{:?}", ada.pending()?);
        let bob = User::new(&node.endpoint, "bob")?;
        ensure!(bob.ack(&["n3"])? == 0, "bob is no recipient");
        let cursor = ada.cursor(&[])?;
        ensure!(ada.ack_cursor(&cursor)? == 2);
        ensure!(ada.pending()?.is_empty());
        node.kill9()?;
        node.restart()?;
        ensure!(ada.pending()?.is_empty());
        let states: Vec<String> = ada
            .history(50)?
            .iter()
            .map(|one| {
                Ok(format!(
                    "{} {}",
                    one["id"].as_str().context("id")?,
                    one["state"].as_str().context("state")?
                ))
            })
            .collect::<Result<_>>()?;
        ensure!(
            states == ["n4 delivered", "n3 delivered", "n2 read", "n1 delivered"],
            "{states:?}"
        );
        Ok(())
    });
}

/// A page of the history ends anywhere, also between topics and stays.
#[test]
fn history_pages_over_topics_and_stays() {
    check(|| {
        let (node, mut people) = start(&[])?;
        let mut publisher = Publisher::new(&node.endpoint, KEY);
        let mut expected = Vec::new();
        for round in 0..12 {
            for topic in ["a", "b", "c"] {
                let is_member = round % 3 != 2 || topic == "b";
                match is_member {
                    true => people.join(topic, "ada")?,
                    false => people.leave(topic, "ada")?,
                };
                let id = format!("{topic}{round}");
                publish(&node, topic, &id)?;
                expected.extend(is_member.then_some(id));
            }
            expected.push(publisher.accepted(&json!({"users": ["ada"], "data": round}))?);
        }
        let ada = User::new(&node.endpoint, "ada")?;
        let mut got = Vec::new();
        let mut before = String::new();
        loop {
            let target = format!("/v1/inbox/history?limit=5{before}");
            let page = ada.call(Request::new("GET", &target))?.json()?;
            let list = page["notifications"].as_array().context("no list")?;
            got.extend(
                list.iter()
                    .filter_map(|one| one["id"].as_str().map(str::to_owned)),
            );
            let Some(cursor) = page["cursor"].as_str() else {
                break;
            };
            before = format!("&before={cursor}");
        }
        let all = |ids: &[String]| ids.iter().cloned().collect::<std::collections::BTreeSet<_>>();
        ensure!(
            got.len() == expected.len() && all(&got) == all(&expected),
            "{got:?}\nnot\n{expected:?}"
        );
        Ok(())
    });
}

/// A notification for several topics of a user is one notification.
#[test]
fn several_topics_show_it_once() {
    check(|| {
        let (node, mut people) = start(&[])?;
        people.join("b", "ada")?;
        people.join("c", "ada")?;
        let mut publisher = Publisher::new(&node.endpoint, KEY);
        let id = publisher.accepted(&json!({"topics": ["a", "b", "c"], "data": 1}))?;
        let ada = User::new(&node.endpoint, "ada")?;
        ensure!(ada.pending()? == [id.clone()], "{:?}", ada.pending()?);
        ensure!(ada.history(9)?.len() == 1, "{:?}", ada.history(9)?);
        ensure!(ada.ack(&[&id])? == 1);
        ensure!(ada.pending()?.is_empty());
        Ok(())
    });
}

#[test]
fn a_user_has_so_many_topics() {
    check(|| {
        let (_node, mut people) = start(&[("inbox.max_feeds", "5")])?;
        for topic in ["a", "b", "c"] {
            people.join(topic, "ada")?;
        }
        let answer = people.call(Request::new("PUT", "/v1/topics/d/members/ada"))?;
        ensure!(
            answer.status() == 413 && answer.code().as_deref() == Some("too_large"),
            "{}",
            answer.text()
        );
        let answer = people.send("PUT", "/v1/users/bob", &json!({"topics": ["a", "b", "c", "d"]}))?;
        ensure!(
            answer.status() == 413 && answer.json()?["pointer"] == "/topics",
            "{}",
            answer.text()
        );
        let imports = [
            (
                "application/x-ndjson",
                "{\"id\":\"eve\"}\n{\"id\":\"bob\",\"topics\":[\"a\",\"b\",\"c\",\"d\"]}\n",
            ),
            ("text/csv", "id,topics\neve,\nbob,a b c d\n"),
        ];
        for ((form, body), (place, line)) in imports.into_iter().zip([("pointer", 2), ("column", 3)]) {
            let answer = people.import("", form, body)?.json()?;
            ensure!(answer["imported"] == 1 && answer["rejected"] == 1, "{answer}");
            let bad = &answer["bad_lines"][0];
            ensure!(bad["line"] == line && bad["code"] == "too_large", "{answer}");
            ensure!(
                bad[place].as_str().is_some_and(|place| place.ends_with("topics")),
                "{answer}"
            );
        }
        ensure!(people.user("bob")?.is_none(), "all of it or nothing");
        ensure!(people.ask("GET", "/v1/topics/d")?["members"] == 0);
        people.leave("a", "ada")?;
        ensure!(
            people.join("d", "ada")?,
            "nothing was published meanwhile: there is room again"
        );
        Ok(())
    });
}
