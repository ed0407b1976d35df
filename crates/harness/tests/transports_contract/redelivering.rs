//! What is not acknowledged is sent again, and stops being sent: under `ack=explicit` only.

use anyhow::{Context, Result, ensure};
use postrider_harness::http::Cut;
use postrider_harness::inbox::{AckMode, Inbox, Received, Transport, next_notification, wait_for};
use postrider_harness::wait::{until, until_true, within};
use serde_json::json;

use crate::{Bench, before_marker, notified, turn};

/// Short, so that the tests are; the proportions are those of the defaults.
const SETS: &[(&str, &str)] = &[("delivery.ack_timeout", "300ms"), ("delivery.max_attempts", "4")];

crate::contract!(
    set super::SETS;
    sent_again_until_acknowledged,
    an_ack_of_another_device_stops_it,
    after_max_attempts_it_stalls_and_another_session_gets_it,
    what_was_taken_back_is_not_sent_again,
    what_has_expired_is_not_sent_again,
    auto_and_none_send_nothing_again,
    what_is_new_comes_between,
    a_later_session_counts_on,
);

/// An explicit session that shows repeats, also where polls are its wire.
fn explicit(bench: &Bench) -> Result<Box<dyn Inbox>> {
    let mut connect = bench.connect("ada")?.ack(AckMode::Explicit);
    connect.repeats = true;
    connect.open(bench.transport)
}

/// The next notification must be this one, for this attempt. Polls come as they please: of those within one timeout
/// one is counted.
fn again(bench: &Bench, inbox: &mut dyn Inbox, id: &str, attempt: u64) -> Result<()> {
    let got = next_notification(inbox, within(20)).with_context(|| format!("{id}, attempt {attempt}"))?;
    let least = if bench.transport == Transport::LongPoll {
        2
    } else {
        attempt
    };
    let right = got.attempt.is_some_and(|n| (least..=attempt).contains(&n));
    ensure!(got.id == id && right, "{attempt} of {id}: {}", got.raw);
    Ok(())
}

/// The next notification must be this one, for the first time.
fn first(inbox: &mut dyn Inbox, id: &str) -> Result<()> {
    let got = next_notification(inbox, within(20)).with_context(|| id.to_owned())?;
    ensure!(got.id == id && got.attempt.is_none(), "{id}: {}", got.raw);
    Ok(())
}

/// Lets as much time pass as two redeliveries take: another user gets one of its own twice more.
fn two_timeouts(bench: &Bench, inbox: &mut dyn Inbox, user: &str) -> Result<Vec<Received>> {
    let id = bench.publish("yardstick", json!(0))?;
    let mut other = bench
        .connect("yardstick")?
        .ack(AckMode::Explicit)
        .open(Transport::Sse)?;
    wait_for(
        &mut *other,
        within(20),
        "a third attempt",
        |received| match received {
            Received::Notification(n) => (n.id == id && n.attempt == Some(3)).then_some(()),
            _ => None,
        },
    )?;
    bench.user("yardstick")?.ack(&[&id])?;
    before_marker(bench, inbox, user)
}

fn not_again(bench: &Bench, inbox: &mut dyn Inbox, id: &str) -> Result<()> {
    // What was on its way when it was settled.
    before_marker(bench, inbox, "ada")?;
    let later = two_timeouts(bench, inbox, "ada")?;
    ensure!(!notified(&later).contains(&id), "{id} was sent again: {later:?}");
    Ok(())
}

fn sent_again_until_acknowledged(bench: &Bench) -> Result<()> {
    let mut inbox = explicit(bench)?;
    let id = bench.publish("ada", json!(1))?;
    first(&mut *inbox, &id)?;
    for n in [2, 3] {
        again(bench, &mut *inbox, &id, n)?;
    }
    if bench.transport == Transport::WebSocket {
        inbox.send(&json!({"type": "ack", "ids": [id], "ref": 1}))?;
        let settled = |r: &Received| matches!(r, Received::Settled { count: 1, .. }).then_some(());
        wait_for(&mut *inbox, within(30), "the ack's answer", settled)?;
    } else {
        ensure!(bench.user("ada")?.ack(&[&id])? == 1);
    }
    not_again(bench, &mut *inbox, &id)
}

fn an_ack_of_another_device_stops_it(bench: &Bench) -> Result<()> {
    let id = bench.publish("ada", json!(1))?;
    let mut inbox = explicit(bench)?;
    first(&mut *inbox, &id)?;
    bench.user("ada")?.ack(&[&id])?;
    not_again(bench, &mut *inbox, &id)
}

fn after_max_attempts_it_stalls_and_another_session_gets_it(bench: &Bench) -> Result<()> {
    let id = bench.publish("ada", json!(1))?;
    let mut inbox = explicit(bench)?;
    first(&mut *inbox, &id)?;
    for n in [2, 3, 4] {
        again(bench, &mut *inbox, &id, n)?;
    }
    if bench.transport == Transport::LongPoll {
        // A poll is no session over time: it begins with what is pending, however often.
        return again(bench, &mut *inbox, &id, 5);
    }
    let stalled = |r: &Received| match r {
        Received::Stalled(ids) => Some(ids.clone()),
        Received::Notification(n) => Some(vec![format!("again: {}", n.raw)]),
        _ => None,
    };
    let told = wait_for(&mut *inbox, within(30), "delivery_stalled", stalled)?;
    ensure!(told == [id.clone()], "{told:?}");
    let mut other = explicit(bench)?;
    let there = next_notification(&mut *other, within(30))?;
    ensure!(there.id == id && there.attempt > Some(1), "{}", there.raw);
    let later = two_timeouts(bench, &mut *inbox, "ada")?;
    ensure!(
        !notified(&later).contains(&&*id),
        "sent to the session that it stalled for: {later:?}"
    );
    ensure!(
        !later.iter().any(|r| stalled(r) == Some(vec![id.clone()])),
        "told twice"
    );
    ensure!(bench.publisher().count(&id, "pending")? == 1);
    Ok(())
}

fn what_was_taken_back_is_not_sent_again(bench: &Bench) -> Result<()> {
    let id = bench.publish("ada", json!(1))?;
    let mut inbox = explicit(bench)?;
    first(&mut *inbox, &id)?;
    bench.publisher().cancel(&id)?;
    let withdrawn = |r: &Received| matches!(r, Received::Withdrawn { id: of, .. } if *of == id).then_some(());
    wait_for(&mut *inbox, within(30), "withdrawn", withdrawn)?;
    let later = two_timeouts(bench, &mut *inbox, "ada")?;
    ensure!(
        !notified(&later).contains(&&*id),
        "cancelled, and sent again: {later:?}"
    );
    Ok(())
}

fn what_has_expired_is_not_sent_again(bench: &Bench) -> Result<()> {
    let body = json!({"users": ["ada"], "data": 1, "ttl": "500ms"});
    let mut inbox = explicit(bench)?;
    // Before it has used up its attempts; on a slow machine it may expire before it comes: then another one.
    let mut told = Vec::new();
    let id = until("one to come before it expires", within(60), || {
        let id = bench.publisher().accepted(&body)?;
        while !notified(&told).contains(&id.as_str()) {
            if bench.publisher().count(&id, "expired")? == 1 {
                return Ok(None);
            }
            told.extend(turn(&mut *inbox)?);
        }
        Ok(Some(id))
    })?;
    let withdrawn = |r: &Received| matches!(r, Received::Withdrawn { id: of, .. } if *of == id);
    until_true("withdrawn", within(30), || {
        told.extend(turn(&mut *inbox)?);
        Ok(told.iter().any(withdrawn))
    })?;
    let later = two_timeouts(bench, &mut *inbox, "ada")?;
    ensure!(
        !notified(&later).contains(&&*id),
        "expired, and sent again: {later:?}"
    );
    Ok(())
}

fn auto_and_none_send_nothing_again(bench: &Bench) -> Result<()> {
    for (user, mode) in [("ada", AckMode::Auto), ("bob", AckMode::None)] {
        let mut inbox = bench.open(user, mode)?;
        let id = bench.publish(user, json!(1))?;
        first(&mut *inbox, &id)?;
        let later = two_timeouts(bench, &mut *inbox, user)?;
        ensure!(
            !notified(&later).contains(&&*id),
            "{mode:?} sent it again: {later:?}"
        );
    }
    Ok(())
}

fn what_is_new_comes_between(bench: &Bench) -> Result<()> {
    let mut inbox = explicit(bench)?;
    let old = bench.publish("ada", json!(1))?;
    first(&mut *inbox, &old)?;
    again(bench, &mut *inbox, &old, 2)?;
    let sent: Vec<String> = (0..5)
        .map(|n| bench.publish("ada", json!(n)))
        .collect::<Result<_>>()?;
    let mut firsts = Vec::new();
    while firsts.len() < sent.len() {
        let next = next_notification(&mut *inbox, within(30))?;
        if !firsts.contains(&next.id) && next.id != old {
            ensure!(next.attempt.is_none(), "the first of it: {}", next.raw);
            firsts.push(next.id);
        }
    }
    ensure!(firsts == sent, "out of order: {firsts:?}");
    Ok(())
}

fn a_later_session_counts_on(bench: &Bench) -> Result<()> {
    let id = bench.publish("ada", json!(1))?;
    let mut inbox = explicit(bench)?;
    first(&mut *inbox, &id)?;
    again(bench, &mut *inbox, &id, 2)?;
    inbox.cut(Cut::Close);
    // The count reaches the engine soon after the entry reaches the client.
    until_true("a third attempt", within(30), || {
        let mut later = explicit(bench)?;
        let there = next_notification(&mut *later, within(30))?;
        ensure!(there.id == id && there.attempt > Some(1), "{}", there.raw);
        Ok(there.attempt >= Some(3))
    })
}
