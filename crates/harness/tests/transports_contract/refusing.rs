//! Who is not let in, and how a session ends that may no longer be.

use anyhow::{Result, ensure};
use postrider_harness::http::Cut;
use postrider_harness::inbox::{AckMode, Connect, End, Inbox, Received, Transport, wait_for};
use postrider_harness::node::KEY;
use postrider_harness::token::{now_seconds, until, user};
use postrider_harness::wait::{until_true, within};
use serde_json::{Value, json};

use crate::{Bench, before_marker, ids, turn};

crate::contract!(
    a_bad_cursor_is_refused,
    a_cursor_of_another_user_is_refused,
    no_token_and_wrong_kinds_are_refused,
    the_session_ends_with_its_token,
    a_new_token_prolongs_a_websocket,
    a_ticket_opens_a_session,
    bad_parameters_are_refused,
);

/// How long a token is good that ends while its session goes on; for a part of a second less.
const TOKEN_SECONDS: u64 = 7;

fn expect(answer: &postrider_harness::http::Answer, status: u16, code: &str) -> Result<()> {
    ensure!(
        answer.status() == status && answer.code().as_deref() == Some(code),
        "wanted {status} {code}, got {} {}",
        answer.status(),
        answer.text()
    );
    let content_type = answer.head.header("content-type").unwrap_or_default();
    ensure!(
        content_type.starts_with("application/problem+json"),
        "content type {content_type:?}"
    );
    Ok(())
}

fn cursor(inbox: &mut dyn Inbox) -> Result<String> {
    let cursor = |r: &Received| {
        if let Received::Cursor(c) = r {
            Some(c.clone())
        } else {
            None
        }
    };
    wait_for(inbox, within(30), "a cursor", cursor)
}

fn a_bad_cursor_is_refused(bench: &Bench) -> Result<()> {
    bench.publish("ada", json!(1))?;
    let mut inbox = bench.open("ada", AckMode::None)?;
    ids(&mut *inbox, 1)?;
    let good = cursor(&mut *inbox)?;
    let long = "A".repeat(20_000);
    for bad in [
        "x",
        "!!!!",
        "0",
        "AAAA",
        "null",
        &good[1..],
        &good[..good.len() / 2],
    ] {
        expect(
            &bench.connect("ada")?.cursor(bad).refusal(bench.transport)?,
            400,
            "invalid_cursor",
        )?;
    }
    // A head of this size may be refused before the cursor is looked at.
    let refused = bench.connect("ada")?.cursor(&long).refusal(bench.transport)?;
    ensure!(
        matches!(refused.status(), 400 | 414 | 431),
        "{}",
        refused.status()
    );
    Ok(())
}

fn a_cursor_of_another_user_is_refused(bench: &Bench) -> Result<()> {
    let secret = bench.publish("ada", json!("ada's"))?;
    let mut inbox = bench.open("ada", AckMode::None)?;
    ids(&mut *inbox, 1)?;
    let adas = cursor(&mut *inbox)?;
    expect(
        &bench.connect("bob")?.cursor(&adas).refusal(bench.transport)?,
        400,
        "invalid_cursor",
    )?;
    ensure!(
        bench.user("ada")?.pending()? == [secret],
        "another user's cursor settled something"
    );
    Ok(())
}

fn no_token_and_wrong_kinds_are_refused(bench: &Bench) -> Result<()> {
    let with = |token: &str| Connect::new(&bench.node.endpoint, token);
    expect(&with("").refusal(bench.transport)?, 401, "token_missing")?;
    expect(&with(KEY).refusal(bench.transport)?, 401, "token_malformed")?;
    expect(&with("a.b.c").refusal(bench.transport)?, 401, "token_malformed")?;
    expect(
        &with(&until("ada", now_seconds() - 60)?).refusal(bench.transport)?,
        401,
        "token_expired",
    )
}

fn the_session_ends_with_its_token(bench: &Bench) -> Result<()> {
    let token = until("ada", now_seconds() + TOKEN_SECONDS)?;
    let mut inbox = Connect::new(&bench.node.endpoint, &token).open(bench.transport)?;
    let id = bench.publish("ada", json!(1))?;
    ensure!(ids(&mut *inbox, 1)? == [id]);
    let end = |r: &Received| {
        if let Received::End(end) = r {
            Some(end.clone())
        } else {
            None
        }
    };
    let end = wait_for(&mut *inbox, within(60), "the end of the token", end)?;
    match (bench.transport, end) {
        (Transport::LongPoll, End::Refused(401, code)) => ensure!(code == "token_expired", "{code}"),
        (Transport::Sse, End::Orderly | End::Broken(_)) => {}
        (Transport::WebSocket, End::Closed(4001, reason)) => {
            let reason: Value = serde_json::from_str(&reason)?;
            ensure!(
                reason["code"] == "token_expired" && reason["retry_ms"].is_u64(),
                "{reason}"
            );
        }
        (transport, end) => anyhow::bail!("{transport} ended by {end:?}"),
    }
    expect(
        &Connect::new(&bench.node.endpoint, &token).refusal(bench.transport)?,
        401,
        "token_expired",
    )
}

/// Only a WebSocket can bring a new token into a session; the others open a new one with the same cursor.
fn a_new_token_prolongs_a_websocket(bench: &Bench) -> Result<()> {
    let old = until("ada", now_seconds() + TOKEN_SECONDS)?;
    let connect = Connect::new(&bench.node.endpoint, &old);
    let mut inbox = connect.open(bench.transport)?;
    bench.publish("ada", json!(1))?;
    ids(&mut *inbox, 1)?;
    if bench.transport == Transport::WebSocket {
        inbox.send(&json!({"type": "token", "token": user("ada")?}))?;
    } else {
        let cursor = cursor(&mut *inbox)?;
        inbox.cut(Cut::Close);
        inbox = bench.connect("ada")?.cursor(&cursor).open(bench.transport)?;
    }
    until_true("the old token expires", within(60), || {
        turn(&mut *inbox)?;
        let asked = connect.open(Transport::LongPoll);
        Ok(asked.is_err())
    })?;
    let id = bench.publish("ada", json!(2))?;
    ensure!(ids(&mut *inbox, 1)? == [id]);
    if bench.transport == Transport::WebSocket {
        inbox.send(&json!({"type": "token", "token": user("bob")?}))?;
        let end = |r: &Received| {
            if let Received::End(end) = r {
                Some(end.clone())
            } else {
                None
            }
        };
        let end = wait_for(&mut *inbox, within(30), "the end", end)?;
        ensure!(
            matches!(end, End::Closed(4500, _)),
            "a session changed its user: {end:?}"
        );
    }
    Ok(())
}

fn a_ticket_opens_a_session(bench: &Bench) -> Result<()> {
    let ticket = bench.user("ada")?.ticket()?;
    let id = bench.publish("ada", json!(1))?;
    let by = |ticket: &str| {
        bench
            .connect("ada")
            .map(|c| c.without_token().query("ticket", ticket))
    };
    let mut inbox = by(&ticket)?.open(bench.transport)?;
    ensure!(ids(&mut *inbox, 1)? == [id]);
    ensure!(before_marker(bench, &mut *inbox, "ada").is_ok());
    let refused = by("no-such-ticket")?.refusal(bench.transport)?;
    ensure!(refused.status() == 401, "{} {}", refused.status(), refused.text());
    ensure!(!bench.node.log().contains(&ticket), "a ticket was logged");
    Ok(())
}

fn bad_parameters_are_refused(bench: &Bench) -> Result<()> {
    let many: Vec<String> = (0..120).map(|n| format!("t{n}")).collect();
    let bad: [(&str, &str); 5] = [
        ("ack", "yes"),
        ("ack", ""),
        ("topics", "a b"),
        ("topics", &"x".repeat(129)),
        ("topics", &many.join(",")),
    ];
    for (name, value) in bad {
        let refused = bench
            .connect("ada")?
            .query(name, value)
            .refusal(bench.transport)?;
        ensure!(
            refused.status() == 400,
            "{name}={value}: {} {}",
            refused.status(),
            refused.text()
        );
        ensure!(
            refused.code().is_some(),
            "{name}={value}: no code in {}",
            refused.text()
        );
    }
    Ok(())
}
