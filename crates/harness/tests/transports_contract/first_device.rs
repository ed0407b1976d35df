//! `devices: first`: every live session gets it, and the first acknowledgement by id takes it from the others.

use anyhow::{Context, Result, ensure};
use postrider_harness::http::Cut;
use postrider_harness::inbox::{AckMode, Inbox, Received, Transport, wait_for};
use postrider_harness::wait::within;
use serde_json::json;

use crate::{Bench, before_marker, ids, notified};

crate::contract!(
    the_first_ack_takes_it_from_the_others,
    neither_evidence_nor_a_cursor_takes_it,
    a_session_that_comes_back_is_told,
    whoever_comes_late_does_not_get_it,
    read_takes_it_too,
);

/// One to the user, and one to everyone, each for the first device.
fn publish(bench: &Bench) -> Result<[String; 2]> {
    let accepted = |body| bench.publisher().accepted(&body);
    Ok([
        accepted(json!({"users": ["ada"], "devices": "first", "data": 1}))?,
        accepted(json!({"devices": "first", "data": 2}))?,
    ])
}

/// The ids, in any order: between feeds there is none.
fn both(inbox: &mut dyn Inbox) -> Result<Vec<String>> {
    let mut got = ids(inbox, 2)?;
    got.sort();
    Ok(got)
}

fn sorted(sent: &[String; 2]) -> Vec<String> {
    let mut sent = sent.to_vec();
    sent.sort();
    sent
}

fn taken(id: &str) -> impl Fn(&Received) -> Option<()> {
    move |r| {
        matches!(r, Received::Withdrawn { id: of, reason } if of == id && reason == "taken").then_some(())
    }
}

/// Acknowledges by the session's own word where its wire has one, else beside it. True where the session is known.
fn take(bench: &Bench, inbox: &mut dyn Inbox, id: &str) -> Result<bool> {
    if bench.transport == Transport::WebSocket {
        inbox.send(&json!({"type": "ack", "ids": [id], "ref": 1}))?;
        let settled = |r: &Received| match r {
            Received::Settled { count, .. } => Some(*count),
            _ => None,
        };
        ensure!(wait_for(inbox, within(30), "the ack's answer", settled)? == 1);
        return Ok(true);
    }
    ensure!(bench.user("ada")?.ack(&[id])? == 1);
    Ok(false)
}

fn the_first_ack_takes_it_from_the_others(bench: &Bench) -> Result<()> {
    let mut one = bench.open("ada", AckMode::Explicit)?;
    let mut other = bench.open("ada", AckMode::Auto)?;
    let sent = publish(bench)?;
    ensure!(both(&mut *one)? == sorted(&sent) && both(&mut *other)? == sorted(&sent));
    for id in &sent {
        let known = take(bench, &mut *one, id)?;
        wait_for(&mut *other, within(30), "taken", taken(id)).with_context(|| id.clone())?;
        if known {
            let before = before_marker(bench, &mut *one, "ada")?;
            ensure!(
                !before.iter().any(|r| taken(id)(r).is_some()),
                "the taker was told: {before:?}"
            );
        }
        ensure!(bench.user("ada")?.ack(&[id])? == 0, "taken twice");
        ensure!(bench.publisher().count(id, "delivered")? == 1);
    }
    Ok(())
}

fn neither_evidence_nor_a_cursor_takes_it(bench: &Bench) -> Result<()> {
    let sent = publish(bench)?;
    let mut auto = bench.open("ada", AckMode::Auto)?;
    ensure!(both(&mut *auto)? == sorted(&sent));
    let plain = bench.publish("ada", json!(3))?;
    let everyone = bench.publisher().accepted(&json!({"data": 4}))?;
    for id in [&plain, &everyone] {
        postrider_harness::wait::until_true("the others settle by themselves", within(30), || {
            crate::turn(&mut *auto)?;
            Ok(bench.publisher().count(id, "delivered")? == 1)
        })?;
    }
    let cursor = before_marker(bench, &mut *auto, "ada")?;
    let cursor = cursor.iter().rev().find_map(|r| match r {
        Received::Cursor(cursor) => Some(cursor.clone()),
        _ => None,
    });
    if let Some(cursor) = cursor {
        bench.user("ada")?.ack_cursor(&cursor)?;
    }
    auto.cut(Cut::Close);
    ensure!(
        bench.publisher().count(&sent[0], "delivered")? == 0,
        "a cursor took it"
    );
    let mut fresh = bench.open("ada", AckMode::Explicit)?;
    let mut before = before_marker(bench, &mut *fresh, "ada")?;
    ensure!(!notified(&before).contains(&&*plain), "{before:?}");
    // One of them is for everyone: between two feeds there is no order.
    postrider_harness::wait::until_true("both are pending still", within(30), || {
        let are_there = sent.iter().all(|id| notified(&before).contains(&&**id));
        if !are_there {
            before.extend(crate::turn(&mut *fresh)?);
        }
        Ok(are_there)
    })
}

fn a_session_that_comes_back_is_told(bench: &Bench) -> Result<()> {
    let sent = publish(bench)?;
    let mut inbox = bench.open("ada", AckMode::Explicit)?;
    both(&mut *inbox)?;
    let mut cursor = None;
    for received in before_marker(bench, &mut *inbox, "ada")? {
        if let Received::Cursor(newer) = received {
            cursor = Some(newer);
        }
    }
    inbox.cut(Cut::Reset);
    ensure!(bench.user("ada")?.ack(&[&sent[0], &sent[1]])? == 2);
    let cursor = cursor.context("no cursor came")?;
    let mut back = bench
        .connect("ada")?
        .cursor(&cursor)
        .ack(AckMode::Explicit)
        .open(bench.transport)?;
    let before = before_marker(bench, &mut *back, "ada")?;
    for id in &sent {
        ensure!(
            before.iter().any(|r| taken(id)(r).is_some()),
            "not told of {id}: {before:?}"
        );
        ensure!(!notified(&before).contains(&&**id), "{before:?}");
    }
    Ok(())
}

fn whoever_comes_late_does_not_get_it(bench: &Bench) -> Result<()> {
    let sent = publish(bench)?;
    bench.user("ada")?.ack(&[&sent[0], &sent[1]])?;
    for transport in postrider_harness::inbox::TRANSPORTS {
        let mut late = bench.connect("ada")?.ack(AckMode::None).open(transport)?;
        let before = before_marker(bench, &mut *late, "ada")?;
        ensure!(
            !sent.iter().any(|id| notified(&before).contains(&&**id)),
            "still there on {transport}: {before:?}"
        );
        ensure!(
            !before.iter().any(|r| matches!(r, Received::Withdrawn { .. })),
            "{before:?}"
        );
    }
    Ok(())
}

fn read_takes_it_too(bench: &Bench) -> Result<()> {
    let mut other = bench.open("ada", AckMode::Explicit)?;
    let sent = publish(bench)?;
    both(&mut *other)?;
    ensure!(bench.user("ada")?.read(&[&sent[0], &sent[1]])? == 2);
    let mut told = Vec::new();
    while !sent.iter().all(|id| told.contains(id)) {
        let more = |r: &Received| match r {
            Received::Read(ids) => Some(ids.clone()),
            Received::Withdrawn { id, .. } => Some(vec![id.clone()]),
            _ => None,
        };
        told.extend(wait_for(&mut *other, within(30), "read or taken", more)?);
    }
    Ok(())
}
