//! Users one by one.

use crate::{check, start};
use anyhow::{Context, ensure};
use postrider_harness::node::KEY;
use postrider_harness::publish::Publisher;
use postrider_harness::user::User;
use serde_json::{Value, json};

fn topics(user: &Value) -> Vec<&str> {
    let list = user["topics"].as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(|one| one["topic"].as_str()).collect()
}

#[test]
fn what_was_put_is_shown_and_survives_a_crash() {
    check(|| {
        let (mut node, mut people) = start(&[])?;
        let body = json!({
            "email": "ada@example.com", "mobile": "+49 170 1234567", "locale": "de-DE",
            "time_zone": "Europe/Berlin", "attributes": {"plan": "pro", "city": "Köln"}, "topics": ["news", "eu/west"],
        });
        let first = people.send("PUT", "/v1/users/ada", &body)?;
        ensure!(first.status() == 201, "{} {}", first.status(), first.text());
        let shown = first.json()?;
        ensure!(shown["id"] == "ada" && shown["email"] == body["email"] && shown["mobile"] == body["mobile"]);
        ensure!(shown["locale"] == body["locale"] && shown["time_zone"] == body["time_zone"]);
        ensure!(shown["attributes"] == body["attributes"] && topics(&shown) == ["eu/west", "news"]);
        ensure!(shown["created_at"].is_string() && shown["created_at"] == shown["changed_at"]);
        ensure!(people.user("ada")?.as_ref() == Some(&shown));

        let again = people.send("PUT", "/v1/users/ada", &body)?;
        ensure!(
            again.status() == 200 && again.json()? == shown,
            "the same again: {}",
            again.text()
        );

        // What is not said goes, but for the topics.
        let less = people
            .send("PUT", "/v1/users/ada", &json!({"locale": "fr"}))?
            .json()?;
        ensure!(less.get("email").is_none() && less["attributes"] == json!({}) && less["locale"] == "fr");
        ensure!(topics(&less) == ["eu/west", "news"] && less["created_at"] == shown["created_at"]);
        let other = people.put("ada", &json!({"topics": ["news", "sport"]}))?;
        ensure!(topics(&other) == ["news", "sport"], "{other}");

        node.kill9()?;
        node.restart()?;
        let mut people = postrider_harness::people::People::new(&node.endpoint, KEY);
        ensure!(people.user("ada")? == Some(other));
        Ok(())
    });
}

#[test]
fn ids_of_every_kind_are_listed_in_order() {
    check(|| {
        let (_node, mut people) = start(&[])?;
        let mut ids = ["ada", "a/b", "a b", "ü", "%41", "?x=1", "a,b", "..", "+", "Ada"]
            .map(str::to_owned)
            .to_vec();
        for id in &ids {
            ensure!(people.put(id, &json!({}))?["id"] == id.as_str(), "{id}");
            ensure!(people.user(id)?.is_some(), "{id}");
        }
        ids.sort();
        ensure!(people.ids()? == ids, "{:?}", people.ids()?);
        let mut paged = Vec::new();
        let mut after = String::new();
        loop {
            let page = people.ask("GET", &format!("/v1/users?limit=3{after}"))?;
            let users = page["users"].as_array().context("no users")?;
            ensure!(users.len() <= 3);
            paged.extend(
                users
                    .iter()
                    .filter_map(|user| user["id"].as_str().map(str::to_owned)),
            );
            let Some(last) = page["after"].as_str() else { break };
            after = format!("&after={}", postrider_harness::http::escape(last));
        }
        ensure!(paged == ids, "{paged:?}");
        Ok(())
    });
}

/// The import's path is also that of a user, who is one like any other.
#[test]
fn a_user_may_be_called_import() {
    check(|| {
        let (_node, mut people) = start(&[])?;
        let nobody = people.user("import")?;
        ensure!(nobody.is_none(), "{nobody:?}");
        let shown = people.put("import", &json!({"email": "a@b", "topics": ["news"]}))?;
        ensure!(shown["id"] == "import" && people.user("import")?.as_ref() == Some(&shown));
        people.merge("import", &json!({"theme": "dark"}))?;
        ensure!(people.state("import")?.0 == json!({"theme": "dark"}));
        ensure!(people.ids()? == ["import"]);
        ensure!(people.ask("DELETE", "/v1/users/import?erase=true")? == json!({"erased": true}));
        ensure!(people.user("import")?.is_none() && people.state("import")?.0 == json!({}));
        ensure!(people.ask("GET", "/v1/topics/news/members")?["count"] == 0);
        people.import("", "text/csv", "id\nimport\n")?;
        ensure!(people.ask("DELETE", "/v1/users/import")? == json!({"removed": true}));
        Ok(())
    });
}

/// A page ends where it is large enough, however many were asked for; those that follow are not lost.
#[test]
fn pages_of_large_profiles_are_bounded() {
    check(|| {
        let (_node, mut people) = start(&[])?;
        let attributes: serde_json::Map<_, _> = (0..64)
            .map(|n| (format!("a{n}"), json!("x".repeat(1024))))
            .collect();
        let ids: Vec<String> = (0..50).map(|n| format!("u{n:02}")).collect();
        let lines = ids.iter().map(|id| json!({"id": id, "attributes": attributes}));
        let lines: Vec<String> = lines.map(|line| line.to_string()).collect();
        let answer = people
            .import("", "application/x-ndjson", lines.join("\n"))?
            .json()?;
        ensure!(answer["imported"] == 50, "{answer}");
        let page = people.ask("GET", "/v1/users?limit=1000")?;
        let length = page.to_string().len();
        ensure!(((1 << 20)..(5 << 18)).contains(&length), "{length} bytes");
        ensure!(page["after"].is_string());
        ensure!(people.ids()? == ids, "page by page all of them");
        Ok(())
    });
}

/// Taken out of the directory, the inbox stays; erased, nothing does.
#[test]
fn removing_and_erasing() {
    check(|| {
        let (node, mut people) = start(&[])?;
        people.put("ada", &json!({"email": "a@b", "topics": ["news"]}))?;
        people.merge("ada", &json!({"theme": "dark"}))?;
        let mut publisher = Publisher::new(&node.endpoint, KEY);
        let id = publisher.accepted(&json!({"users": ["ada"], "data": 1}))?;
        let ada = User::new(&node.endpoint, "ada")?;
        ensure!(people.ask("DELETE", "/v1/users/ada")? == json!({"removed": true}));
        ensure!(people.ask("DELETE", "/v1/users/ada")? == json!({"removed": false}));
        ensure!(people.user("ada")?.is_none() && people.ids()?.is_empty());
        ensure!(
            people.ask("GET", "/v1/topics/news/members")?
                == json!({"members": [], "count": 0, "after": null})
        );
        ensure!(ada.pending()? == [id], "the inbox stays");
        ensure!(
            people.state("ada")?.0 == json!({"theme": "dark"}),
            "so does the state"
        );

        let version = people.state("ada")?.1;
        people.put("ada", &json!({"email": "a@b", "topics": ["news"]}))?;
        ensure!(people.ask("DELETE", "/v1/users/ada?erase=true")? == json!({"erased": true}));
        ensure!(people.ask("DELETE", "/v1/users/ada?erase=true")? == json!({"erased": false}));
        ensure!(people.user("ada")?.is_none() && ada.pending()?.is_empty());
        ensure!(people.ask("GET", "/v1/topics/news/members")?["count"] == 0);
        ensure!(people.state("ada")?.0 == json!({}));
        let answer = people.merge("ada", &json!({"theme": "light"}))?.json()?;
        ensure!(
            answer["version"].as_u64() > Some(version),
            "versions rise over an erase: {answer}"
        );
        Ok(())
    });
}
