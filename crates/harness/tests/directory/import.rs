//! Imports that come to their end.

use crate::{check, start, texts};
use anyhow::{Context, Result, ensure};
use postrider_harness::http::Request;
use postrider_harness::people::People;
use serde_json::{Value, json};
use std::fmt::Write as _;

const NDJSON: &str = "application/x-ndjson";

/// So many users, three topics each.
pub fn users(from: usize, count: usize) -> String {
    (from..from + count).fold(String::new(), |mut lines, n| {
        let (a, b) = (n % 10, n % 100);
        writeln!(
            lines,
            r#"{{"id":"user-{n:06}","email":"user-{n}@example.com","locale":"en","attributes":{{"plan":"pro"}},"topics":["everybody","ten-{a}","hundred-{b}"]}}"#
        )
        .unwrap();
        lines
    })
}

/// How many members a topic has.
pub fn members(people: &mut People, topic: &str) -> Result<u64> {
    people.ask("GET", &format!("/v1/topics/{topic}"))?["members"]
        .as_u64()
        .context("no members")
}

fn counts(answer: &Value) -> [Option<u64>; 6] {
    ["lines", "imported", "created", "changed", "unchanged", "rejected"].map(|name| answer[name].as_u64())
}

#[test]
fn ten_thousand_users_twice() {
    check(|| {
        let (_node, mut people) = start(&[])?;
        let lines = users(0, 10_000);
        let answer = people.import("", NDJSON, lines.clone())?.json()?;
        ensure!(
            counts(&answer) == [10_000, 10_000, 10_000, 0, 0, 0].map(Some),
            "{answer}"
        );
        let again = people.import("", NDJSON, lines)?.json()?;
        ensure!(
            counts(&again) == [10_000, 10_000, 0, 0, 10_000, 0].map(Some),
            "{again}"
        );
        ensure!(people.ids()?.len() == 10_000);
        for (topic, count) in [("everybody", 10_000), ("ten-3", 1_000), ("hundred-42", 100)] {
            ensure!(members(&mut people, topic)? == count, "{topic}");
        }
        // One who changes among those who do not.
        let moved = format!(
            "{}{}",
            users(0, 5),
            r#"{"id":"user-000007","topics":["everybody"]}"#
        );
        let answer = people.import("", NDJSON, moved)?.json()?;
        ensure!(counts(&answer) == [6, 6, 0, 1, 5, 0].map(Some), "{answer}");
        ensure!(members(&mut people, "ten-7")? == 999);
        Ok(())
    });
}

const BAD: &str = "{\"id\":\"a\",\"email\":\"a@b\"}\n\nnonsense\n{\"id\":\"b\",\"mail\":\"a@b\"}\n{\"id\":\"\"}\n{\"id\":\"c\",\"attributes\":{\"x\":7}}\n{\"id\":\"d\"}";

#[test]
fn bad_lines_are_skipped_and_told_by_number() {
    check(|| {
        let (_node, mut people) = start(&[])?;
        let answer = people.import("", NDJSON, BAD)?;
        ensure!(answer.status() == 200, "{}", answer.text());
        let answer = answer.json()?;
        ensure!(counts(&answer) == [6, 2, 2, 0, 0, 4].map(Some), "{answer}");
        let bad = answer["bad_lines"].as_array().context("no bad_lines")?;
        let told: Vec<_> = bad
            .iter()
            .map(|one| (one["line"].as_u64(), one["pointer"].as_str()))
            .collect();
        let expected = [
            (3, None),
            (4, Some("/mail")),
            (5, Some("/id")),
            (6, Some("/attributes/x")),
        ];
        ensure!(
            told == expected.map(|(line, pointer)| (Some(line), pointer)),
            "{answer}"
        );
        ensure!(
            bad.iter()
                .all(|one| one["code"] == "invalid_user" && one["detail"].is_string()),
            "{answer}"
        );
        ensure!(people.ids()? == ["a", "d"]);
        Ok(())
    });
}

#[test]
fn one_bad_line_refuses_all_where_that_is_asked() {
    check(|| {
        let (_node, mut people) = start(&[("http.max_body", "64KiB")])?;
        for accept in ["application/json", NDJSON] {
            let request = Request::new("POST", "/v1/users/import?bad_lines=refuse").header("Accept", accept);
            let answer = people.call(request.body(NDJSON, BAD))?;
            let problem = answer.json()?;
            ensure!(
                answer.status() == 400 && problem["code"] == "bad_lines",
                "{problem}"
            );
            ensure!(problem["lines"] == 6 && problem["rejected"] == 4, "{problem}");
            ensure!(problem["bad_lines"][0]["line"] == 3, "{problem}");
        }
        ensure!(people.ids()?.is_empty(), "nothing was imported");
        let good = people
            .import("?bad_lines=refuse", NDJSON, users(0, 100))?
            .json()?;
        ensure!(counts(&good) == [100, 100, 100, 0, 0, 0].map(Some), "{good}");
        let large = people.import("?bad_lines=refuse", NDJSON, users(0, 1000))?;
        ensure!(
            large.status() == 413 && large.code().as_deref() == Some("too_large"),
            "{}",
            large.text()
        );
        let streamed = people.import("", NDJSON, users(0, 1000))?;
        ensure!(
            streamed.status() == 200,
            "skipping does not need it whole: {}",
            streamed.text()
        );
        Ok(())
    });
}

/// What the line itself shows to be too much is no surprise of the engine's, which would come when others are imported.
#[test]
fn too_many_topics_refuse_all_where_that_is_asked() {
    check(|| {
        let (_node, mut people) = start(&[("inbox.max_feeds", "5")])?;
        // Three is the most; a topic named twice counts once.
        let ndjson = "{\"id\":\"a\"}\n{\"id\":\"b\",\"topics\":[\"1\",\"2\",\"3\",\"4\"]}\n{\"id\":\"c\",\"topics\":[\"1\",\"2\",\"3\",\"3\"]}";
        let csv = "id,topics\na,\nb,1 2 3 4\nc,1 2 3 3\n";
        for (content_type, text, (line, member, place)) in [
            (NDJSON, ndjson, (2, "pointer", "/topics")),
            ("text/csv", csv, (3, "column", "topics")),
        ] {
            let answer = people.import("?bad_lines=refuse", content_type, text)?;
            let problem = answer.json()?;
            ensure!(
                answer.status() == 400 && problem["code"] == "bad_lines",
                "{problem}"
            );
            ensure!(problem["lines"] == 3 && problem["rejected"] == 1, "{problem}");
            let bad = &problem["bad_lines"][0];
            ensure!(
                bad["line"] == line && bad[member] == place && bad["code"] == "too_large",
                "{bad}"
            );
            ensure!(people.ids()?.is_empty(), "nothing was imported");
            // Skipping, the engine says the same of the same line.
            let skipped = people.import("", content_type, text)?.json()?;
            ensure!(skipped["bad_lines"] == problem["bad_lines"], "{skipped}");
            ensure!(people.ids()? == ["a", "c"]);
            for id in ["a", "c"] {
                people.ask("DELETE", &format!("/v1/users/{id}"))?;
            }
        }
        Ok(())
    });
}

#[test]
fn csv_with_every_column() {
    check(|| {
        let (_node, mut people) = start(&[])?;
        let text = "topics,id,attributes.plan,email,mobile,locale,time_zone,attributes.note\r\n\
                    news;sport eu,ada,pro,ada@example.com,+49 170 1,de-DE,Europe/Berlin,\"a, \"\"b\"\"\r\nc\"\r\n\
                    ,bob,,,,,,\r\n\
                    x,eve,,nobody,,,,\r\n\
                    x,too few\r\n\
                    no/way!,dan,,,,,,\r\n";
        let answer = people.import("", "text/csv; charset=utf-8", text)?.json()?;
        ensure!(counts(&answer) == [5, 2, 2, 0, 0, 3].map(Some), "{answer}");
        let bad = answer["bad_lines"].as_array().context("no bad_lines")?;
        let told: Vec<_> = bad
            .iter()
            .map(|one| (one["line"].as_u64(), one["column"].as_str()))
            .collect();
        ensure!(
            told == [
                (Some(5), Some("email")),
                (Some(6), None),
                (Some(7), Some("topics"))
            ],
            "{answer}"
        );
        let ada = people.user("ada")?.context("no ada")?;
        ensure!(
            ada["attributes"] == json!({"plan": "pro", "note": "a, \"b\"\r\nc"}),
            "{ada}"
        );
        ensure!(
            ada["email"] == "ada@example.com" && ada["mobile"] == "+49 170 1" && ada["locale"] == "de-DE"
        );
        ensure!(
            ada["topics"] == json!([{"topic": "eu"}, {"topic": "news"}, {"topic": "sport"}]),
            "{ada}"
        );
        // Without the column the topics stay; with an empty cell there are none.
        people.import("", "text/csv", "id,email\nada,a@b\n")?;
        ensure!(texts(&people.ask("GET", "/v1/topics/news/members")?["members"]) == ["ada"]);
        people.import("", "text/csv", "id,topics\nada,\n")?;
        ensure!(texts(&people.ask("GET", "/v1/topics/news/members")?["members"]).is_empty());
        for header in ["", "email\na@b\n", "id,surname\na,b\n", "id,id\na,b\n"] {
            let answer = people.import("", "text/csv", header)?;
            let code = answer.code();
            ensure!(
                answer.status() == 400 && code.as_deref() == Some("invalid_request"),
                "{header:?}: {}",
                answer.text()
            );
        }
        let unknown = people.import("", "text/csv", "id,surname\na,b\n")?.json()?;
        ensure!(
            unknown["detail"]
                .as_str()
                .is_some_and(|detail| detail.contains("`surname`")),
            "{unknown}"
        );
        Ok(())
    });
}

/// Progress is told while the rest is still to come.
#[test]
fn progress_line_by_line() {
    check(|| {
        let (_node, people) = start(&[])?;
        let mut import = people.import_stream()?;
        import.send(&users(0, 10))?;
        let mut told = import.line()?.context("no progress")?;
        while told["imported"] != 10 {
            told = import.line()?.context("no progress")?;
        }
        import.send("nonsense\n{\"id\":\"a\"}\n{\"id\":\"b\"")?;
        let bad = import.line()?.context("no bad line")?;
        ensure!(bad["line"] == 11 && bad["code"] == "invalid_user", "{bad}");
        let told = import.line()?.context("no progress")?;
        ensure!(told["rejected"] == 1, "{told}");
        import.send("}")?;
        import.finish()?;
        let mut last = told;
        while let Some(line) = import.line()? {
            last = line;
        }
        ensure!(
            last["done"] == true && counts(&last) == [13, 12, 12, 0, 0, 1].map(Some),
            "{last}"
        );
        Ok(())
    });
}

/// A body that names very many bad lines is answered with the first thousand, and all are counted.
#[test]
fn the_list_of_bad_lines_is_bounded() {
    check(|| {
        let (node, mut people) = start(&[])?;
        let answer = people.import("", NDJSON, "7\n".repeat(200_000))?.json()?;
        ensure!(answer["rejected"] == 200_000 && answer["lines"] == 200_000);
        ensure!(answer["bad_lines"].as_array().map(Vec::len) == Some(1000));
        ensure!(node.metric(r#"postrider_users_imported_total{outcome="rejected"}"#)? == 200_000.0);
        Ok(())
    });
}
