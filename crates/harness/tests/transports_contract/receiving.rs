//! What comes, in which order, with which bytes, and how a session goes on from a cursor.

use std::collections::HashSet;

use anyhow::{Context, Result, ensure};
use postrider_harness::http::Cut;
use postrider_harness::inbox::{AckMode, Inbox, Received, TRANSPORTS, next_notification};
use postrider_harness::publish::Item;
use postrider_harness::wait::within;
use serde_json::{Value, json};

use crate::{Bench, before_marker, ids, notified};

crate::contract!(
    receives_what_was_published_before,
    receives_live,
    keeps_the_bytes_of_data,
    keeps_data_that_was_written_over_several_lines,
    carries_subject_time_and_expiry,
    resumes_from_any_cursor_without_loss_or_repeat,
    resumes_on_any_transport,
    keeps_the_order_of_a_thousand,
    carries_data_near_the_limit,
    reaches_every_session_of_a_user,
    delivers_to_a_user_named_twice_once,
    takes_any_user_id,
    delivers_transient_to_the_connected_only,
);

fn receives_what_was_published_before(bench: &Bench) -> Result<()> {
    let sent: Vec<String> = (0..3)
        .map(|n| bench.publish("ada", json!(n)))
        .collect::<Result<_>>()?;
    let mut inbox = bench.open("ada", AckMode::Default)?;
    ensure!(ids(&mut *inbox, 3)? == sent);
    ensure!(notified(&before_marker(bench, &mut *inbox, "ada")?).is_empty());
    Ok(())
}

fn receives_live(bench: &Bench) -> Result<()> {
    let mut inbox = bench.open("ada", AckMode::Default)?;
    for n in 0..5 {
        let id = bench.publish("ada", json!(n))?;
        ensure!(ids(&mut *inbox, 1)? == [id]);
    }
    Ok(())
}

/// Compact JSON in forms that a parser and printer would change.
const DATA: [&str; 24] = [
    "null",
    "true",
    "0",
    "-0",
    "1.0",
    "1e5",
    "1E+5",
    "0.10",
    "-1.5e-007",
    "12345678901234567890123456789",
    "3.14159265358979323846264338327950288",
    "\"\"",
    "\"é 漢 👩‍🚀\"",
    r#""\u00e9\u6f22\ud83d\ude80""#,
    r#""\/\\\"\b\f\n\r\t""#,
    "\"\u{2028}\u{2029}\u{7f}\"",
    r#""id: x\n\ndata: y""#,
    "[]",
    "{}",
    r#"{"z":1,"a":{"y":2,"b":3},"A":[1,2.0,3e0]}"#,
    r#"{"a":1,"a":2}"#,
    r#"{"":{"":""}}"#,
    r#"{"id":"not this","type":"cursor","cursor":"nor this"}"#,
    r#""<script>&amp;'`""#,
];

fn keeps_the_bytes_of_data(bench: &Bench) -> Result<()> {
    let mut inbox = bench.open("ada", AckMode::Default)?;
    let mut publisher = bench.publisher();
    for data in DATA {
        publisher
            .accepted_raw(&format!(r#"{{"users":["ada"],"data":{data}}}"#))
            .context(data)?;
    }
    for data in DATA {
        let got = next_notification(&mut *inbox, within(30)).context(data)?;
        ensure!(got.data == data, "sent {data}, got {}", got.data);
    }
    Ok(())
}

fn keeps_data_that_was_written_over_several_lines(bench: &Bench) -> Result<()> {
    let written = "{\r\n  \"a\" : [ 1.0 ,\n\t2 ] }";
    bench
        .publisher()
        .accepted_raw(&format!("{{\"users\":[\"ada\"],\n\"data\": {written} }}"))?;
    let mut inbox = bench.open("ada", AckMode::Default)?;
    let got = next_notification(&mut *inbox, within(30))?;
    let bare: String = got.data.chars().filter(|c| !c.is_whitespace()).collect();
    ensure!(bare == r#"{"a":[1.0,2]}"#, "got {}", got.data);
    Ok(())
}

fn carries_subject_time_and_expiry(bench: &Bench) -> Result<()> {
    let body =
        json!({"id": "order-7", "users": ["ada"], "subject": "Order \"7\" 漢", "data": {}, "ttl": "1h"});
    bench.publisher().accepted(&body)?;
    let mut inbox = bench.open("ada", AckMode::Default)?;
    let got = next_notification(&mut *inbox, within(30))?;
    let raw: Value = serde_json::from_str(&got.raw)?;
    ensure!(got.id == "order-7" && got.subject.as_deref() == Some("Order \"7\" 漢"));
    ensure!(
        raw["time"].as_str().is_some_and(is_rfc3339) && raw["expires_at"].as_str().is_some_and(is_rfc3339)
    );
    for absent in [
        "topic",
        "attempt",
        "users",
        "exclude_users",
        "session",
        "cursor",
        "audience",
    ] {
        ensure!(
            raw.get(absent).is_none(),
            "an entry must not hold {absent}: {raw}"
        );
    }
    Ok(())
}

fn is_rfc3339(time: &str) -> bool {
    let bytes = time.as_bytes();
    bytes.len() >= 20 && bytes[4] == b'-' && bytes[10] == b'T' && time.ends_with('Z')
}

fn resumes_from_any_cursor_without_loss_or_repeat(bench: &Bench) -> Result<()> {
    let mut inbox = bench.open("ada", AckMode::None)?;
    let mut sent = Vec::new();
    let mut cursors = Vec::new();
    for n in 0..8 {
        sent.push(bench.publish("ada", json!(n))?);
        ensure!(ids(&mut *inbox, 1)? == sent[n..]);
        cursors.push(cursor(&mut *inbox)?);
    }
    inbox.cut(Cut::Reset);
    sent.push(bench.publish("ada", json!("while away"))?);
    for (n, cursor) in cursors.iter().enumerate() {
        let mut inbox = bench
            .connect("ada")?
            .cursor(cursor)
            .ack(AckMode::None)
            .open(bench.transport)?;
        let wanted = &sent[n + 1..];
        let got = ids(&mut *inbox, wanted.len())?;
        ensure!(got == wanted, "after cursor {n}: {got:?}, wanted {wanted:?}");
    }
    let mut inbox = bench.connect("ada")?.cursor(&cursors[7]).open(bench.transport)?;
    ensure!(notified(&before_marker(bench, &mut *inbox, "ada")?) == [sent[8].as_str()]);
    Ok(())
}

fn resumes_on_any_transport(bench: &Bench) -> Result<()> {
    let mut inbox = bench.open("ada", AckMode::None)?;
    bench.publish("ada", json!(1))?;
    ids(&mut *inbox, 1)?;
    let cursor = cursor(&mut *inbox)?;
    let second = bench.publish("ada", json!(2))?;
    for transport in TRANSPORTS {
        let mut inbox = bench
            .connect("ada")?
            .cursor(&cursor)
            .ack(AckMode::None)
            .open(transport)?;
        ensure!(
            ids(&mut *inbox, 1)? == [second.clone()],
            "from {} on {transport}",
            bench.transport
        );
    }
    Ok(())
}

fn keeps_the_order_of_a_thousand(bench: &Bench) -> Result<()> {
    let mut inbox = bench.open("ada", AckMode::Default)?;
    let all: Vec<Value> = (0..1000)
        .map(|n| json!({"users": ["ada", "bob"], "data": n}))
        .collect();
    let mut sent = Vec::new();
    for part in all.chunks(250) {
        for item in bench.publisher().array(part)? {
            let Item::Accepted(id) = item else {
                anyhow::bail!("rejected: {item:?}")
            };
            sent.push(id);
        }
    }
    ensure!(
        sent.iter().collect::<HashSet<_>>().len() == 1000,
        "ids that the server made are not unique"
    );
    ensure!(ids(&mut *inbox, 1000)? == sent);
    let mut stored = bench.connect("bob")?;
    stored.poll_limit = 7;
    ensure!(
        ids(&mut *stored.open(bench.transport)?, 1000)? == sent,
        "from the store"
    );
    Ok(())
}

fn carries_data_near_the_limit(bench: &Bench) -> Result<()> {
    let mut inbox = bench.open("ada", AckMode::Default)?;
    for length in [64 * 1024, 256 * 1024 - 2] {
        let data = format!("\"{}\"", "x".repeat(length));
        bench
            .publisher()
            .accepted_raw(&format!(r#"{{"users":["ada"],"data":{data}}}"#))?;
        ensure!(
            next_notification(&mut *inbox, within(20))?.data == data,
            "data of {} bytes changed",
            data.len()
        );
    }
    let over = format!(r#"{{"users":["ada"],"data":"{}"}}"#, "x".repeat(256 * 1024 - 1));
    let answer = bench.publisher().raw("application/json", over)?;
    ensure!(
        answer.status() == 413 && answer.code().as_deref() == Some("too_large"),
        "{}",
        answer.text()
    );
    ensure!(notified(&before_marker(bench, &mut *inbox, "ada")?).is_empty());
    Ok(())
}

fn reaches_every_session_of_a_user(bench: &Bench) -> Result<()> {
    let mut sessions = Vec::new();
    for transport in [bench.transport, TRANSPORTS[0], TRANSPORTS[1], TRANSPORTS[2]] {
        sessions.push(bench.connect("ada")?.open(transport)?);
    }
    let id = bench.publish("ada", json!(1))?;
    for session in &mut sessions {
        ensure!(ids(&mut **session, 1)? == [id.clone()]);
    }
    Ok(())
}

fn delivers_to_a_user_named_twice_once(bench: &Bench) -> Result<()> {
    let id = bench
        .publisher()
        .accepted(&json!({"users": ["ada", "bob", "ada"], "data": 1}))?;
    let mut inbox = bench.open("ada", AckMode::Default)?;
    ensure!(notified(&before_marker(bench, &mut *inbox, "ada")?) == [id.as_str()]);
    Ok(())
}

/// User ids in which a character could have a meaning to a store, a path or a query.
const USERS: [&str; 8] = [
    "a b",
    "*",
    "a/../b",
    "{a}:%00:\\",
    "user/ada",
    "漢字 👩‍🚀",
    "all",
    "a,b;c?d&e=f#g",
];

fn takes_any_user_id(bench: &Bench) -> Result<()> {
    let long = "é".repeat(128);
    for user in USERS.into_iter().chain([long.as_str()]) {
        let id = bench.publish(user, json!(user)).context(user.to_owned())?;
        let mut inbox = bench.open(user, AckMode::Default).context(user.to_owned())?;
        ensure!(
            notified(&before_marker(bench, &mut *inbox, user)?) == [id.as_str()],
            "user {user:?}"
        );
    }
    Ok(())
}

fn delivers_transient_to_the_connected_only(bench: &Bench) -> Result<()> {
    let mut publisher = bench.publisher();
    let early = json!({"users": ["ada"], "durability": "transient", "data": "nobody is here"});
    publisher.accepted(&early)?;
    let mut inbox = bench.open("ada", AckMode::Default)?;
    // At most once: a poll may be between two requests, so go on until one arrives.
    let deadline = within(20);
    let mut sent = Vec::new();
    let got = loop {
        ensure!(
            std::time::Instant::now() < deadline,
            "none of {} transients arrived",
            sent.len()
        );
        crate::turn(&mut *inbox)?;
        sent.push(
            publisher.accepted(&json!({"users": ["ada"], "durability": "transient", "data": sent.len()}))?,
        );
        let got = crate::turn(&mut *inbox)?;
        let got: Vec<String> = notified(&got).into_iter().map(str::to_owned).collect();
        if let Some(id) = got.first() {
            break id.clone();
        }
    };
    ensure!(sent.contains(&got));
    inbox.cut(Cut::Close);
    let mut later = bench.open("ada", AckMode::Default)?;
    ensure!(
        notified(&before_marker(bench, &mut *later, "ada")?).is_empty(),
        "a transient was kept"
    );
    Ok(())
}

/// The next cursor; a notification before it is a failure.
fn cursor(inbox: &mut dyn Inbox) -> Result<String> {
    loop {
        match inbox.next(within(30))?.context("no cursor after the batch")? {
            Received::Cursor(cursor) => return Ok(cursor),
            Received::Notification(n) => anyhow::bail!("{} before the cursor of the batch", n.id),
            Received::End(end) => anyhow::bail!("ended: {end:?}"),
            _ => {}
        }
    }
}
