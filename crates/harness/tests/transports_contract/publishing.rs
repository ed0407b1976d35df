//! Publishing more than once: ids, `Idempotency-Key`, and what each shape of request answers. What counts is what
//! arrives, so these run over the transports too.

use anyhow::{Result, ensure};
use postrider_harness::http::Request;
use postrider_harness::inbox::AckMode;
use postrider_harness::publish::Item;
use postrider_harness::wait::within;
use serde_json::{Value, json};

use crate::{Bench, before_marker, notified};

crate::contract!(
    the_same_id_and_content_is_one_delivery,
    the_same_id_with_other_content_is_a_conflict,
    an_idempotency_key_covers_a_request_of_any_shape,
    concurrent_twins_are_one_delivery,
    an_array_answers_for_each,
    a_stream_answers_each_line_in_order,
);

/// Everything that reaches a fresh session of the user.
fn delivered(bench: &Bench, user: &str) -> Result<Vec<String>> {
    let mut inbox = bench.open(user, AckMode::None)?;
    let before = before_marker(bench, &mut *inbox, user)?;
    Ok(notified(&before).into_iter().map(str::to_owned).collect())
}

fn the_same_id_and_content_is_one_delivery(bench: &Bench) -> Result<()> {
    let mut publisher = bench.publisher();
    // Defaults filled in, keys in another order, white space: the same content.
    let twins = [
        r#"{"id":"twin","users":["ada"],"data":{"a":1.0}}"#,
        r#"{"data":{"a":1.0},"exclude_users":[],"durability":"stored","devices":"all","users":["ada"],"id":"twin"}"#,
        r#" { "id" : "twin", "users" : [ "ada" ], "data":{"a":1.0} } "#,
    ];
    let answers: Vec<Value> = twins
        .iter()
        .map(|body| {
            let answer = publisher.raw("application/json", *body)?;
            ensure!(answer.status() == 202, "{} {}", answer.status(), answer.text());
            answer.json()
        })
        .collect::<Result<_>>()?;
    ensure!(
        answers.iter().all(|a| *a == answers[0]),
        "answers differ: {answers:?}"
    );
    ensure!(delivered(bench, "ada")? == ["twin"]);
    Ok(())
}

fn the_same_id_with_other_content_is_a_conflict(bench: &Bench) -> Result<()> {
    let mut publisher = bench.publisher();
    let first = json!({"id": "one", "users": ["ada"], "data": 1, "subject": "s"});
    publisher.accepted(&first)?;
    for (field, value) in [
        ("data", json!(2)),
        ("users", json!(["bob"])),
        ("subject", json!("t")),
        ("exclude_users", json!(["eve"])),
    ] {
        let mut other = first.clone();
        other[field] = value;
        let answer = publisher.one(&other)?;
        ensure!(
            answer.status() == 409,
            "{field}: {} {}",
            answer.status(),
            answer.text()
        );
        ensure!(
            answer.code().as_deref() == Some("id_conflict"),
            "{}",
            answer.text()
        );
    }
    let answer = publisher.raw(
        "application/json",
        r#"{"id":"one","users":["ada"],"data":1.0,"subject":"s"}"#,
    )?;
    ensure!(
        answer.status() == 409,
        "content is the bytes of data: {} {}",
        answer.status(),
        answer.text()
    );
    ensure!(delivered(bench, "ada")? == ["one"] && delivered(bench, "bob")?.is_empty());
    Ok(())
}

fn an_idempotency_key_covers_a_request_of_any_shape(bench: &Bench) -> Result<()> {
    let mut publisher = bench.publisher();
    let bodies = [
        ("application/json", r#"{"users":["ada"],"data":1}"#),
        (
            "application/json",
            r#"[{"users":["ada"],"data":1},{"users":["ada"],"data":2}]"#,
        ),
        (
            "application/x-ndjson",
            "{\"users\":[\"ada\"],\"data\":1}\n{\"users\":[\"ada\"],\"data\":2}\n",
        ),
    ];
    for (n, (content_type, body)) in bodies.into_iter().enumerate() {
        let mut call = |body: &str| {
            let request =
                Request::new("POST", "/v1/notifications").header("Idempotency-Key", &format!("key-{n}"));
            publisher.call(request.body(content_type, body))
        };
        let (first, second) = (call(body)?, call(body)?);
        ensure!(first.status() == 202, "{} {}", first.status(), first.text());
        ensure!(
            second.status() == 202 && first.body == second.body,
            "{} / {}",
            first.text(),
            second.text()
        );
        let other = call(&body.replace("\"data\":1", "\"data\":9"))?;
        // A stream is answered line by line, so there a line that differs is a conflict of its own.
        let streamed = content_type == "application/x-ndjson";
        ensure!(
            other.status() == if streamed { 202 } else { 409 } && other.text().contains("id_conflict"),
            "the same key for another request: {} {}",
            other.status(),
            other.text()
        );
    }
    ensure!(delivered(bench, "ada")?.len() == 5);
    Ok(())
}

fn concurrent_twins_are_one_delivery(bench: &Bench) -> Result<()> {
    for round in 0..10 {
        let body = json!({"id": format!("twin-{round}"), "users": ["ada"], "data": round});
        std::thread::scope(|scope| {
            let publish = || bench.publisher().accepted(&body);
            let twins: Vec<_> = (0..8).map(|_| scope.spawn(publish)).collect();
            twins
                .into_iter()
                .try_for_each(|t| t.join().map_err(|_| anyhow::anyhow!("panicked"))?.map(|_| ()))
        })?;
    }
    let wanted: Vec<String> = (0..10).map(|round| format!("twin-{round}")).collect();
    ensure!(delivered(bench, "ada")? == wanted);
    Ok(())
}

fn an_array_answers_for_each(bench: &Bench) -> Result<()> {
    let good = |n: u32| json!({"id": format!("n{n}"), "users": ["ada"], "data": n});
    let array = [
        good(0),
        json!({"users": [], "data": 1}),
        good(2),
        json!({"users": ["ada"]}),
        good(4),
    ];
    let items = bench.publisher().array(&array)?;
    for (at, item) in items.iter().enumerate() {
        match (at, item) {
            (0 | 2 | 4, Item::Accepted(id)) => ensure!(*id == format!("n{at}")),
            (1, Item::Rejected(code, _)) => ensure!(code == "empty_audience", "{code}"),
            (3, Item::Rejected(code, _)) => ensure!(code == "invalid_notification", "{code}"),
            _ => anyhow::bail!("index {at}: {item:?}"),
        }
    }
    ensure!(delivered(bench, "ada")? == ["n0", "n2", "n4"]);
    Ok(())
}

fn a_stream_answers_each_line_in_order(bench: &Bench) -> Result<()> {
    let mut stream = bench.publisher().stream()?;
    let deadline = within(20);
    // Each answer comes while the request is still open.
    for n in 0..20 {
        let bad = n % 5 == 3;
        let line = if bad {
            "{not json".to_owned()
        } else {
            json!({"id": format!("n{n}"), "users": ["ada"], "data": n}).to_string()
        };
        stream.send(&line)?;
        match stream
            .answer(deadline)?
            .ok_or_else(|| anyhow::anyhow!("the answer ended early"))?
        {
            Item::Accepted(id) => ensure!(!bad && id == format!("n{n}")),
            Item::Rejected(code, _) => ensure!(bad && code == "invalid_notification", "line {n}: {code}"),
        }
    }
    ensure!(stream.status() == Some(202), "{:?}", stream.status());
    // And many at once.
    for n in 20..500 {
        stream.send(&json!({"id": format!("n{n}"), "users": ["ada"], "data": n}).to_string())?;
    }
    stream.finish()?;
    for n in 20..500 {
        ensure!(
            stream.answer(deadline)? == Some(Item::Accepted(format!("n{n}"))),
            "line {n}"
        );
    }
    ensure!(stream.answer(deadline)?.is_none(), "more answers than lines");
    let wanted: Vec<String> = (0..500)
        .filter(|n| *n >= 20 || n % 5 != 3)
        .map(|n| format!("n{n}"))
        .collect();
    ensure!(delivered(bench, "ada")? == wanted);
    Ok(())
}
