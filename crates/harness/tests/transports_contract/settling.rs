//! Acknowledgement: `auto`, `explicit`, `none`, and what other sessions of the user see of it.

use anyhow::{Context, Result, ensure};
use postrider_harness::http::Cut;
use postrider_harness::inbox::{AckMode, Inbox, Received, Transport, wait_for};
use postrider_harness::wait::{until_true, within};
use serde_json::json;

use crate::{Bench, before_marker, ids, notified, turn};

crate::contract!(
    auto_settles_by_itself,
    auto_is_the_default,
    auto_settles_through_a_cursor_on_return,
    auto_settles_while_the_feed_never_rests,
    explicit_settles_on_the_word_only,
    explicit_cursor_only_positions,
    explicit_ack_by_cursor_settles_all_up_to_it,
    none_never_settles,
    an_ack_on_one_session_is_for_all,
    an_ack_of_unknown_ids_is_no_error,
    read_is_told_to_other_sessions,
    read_is_told_to_a_session_that_comes_back,
    history_knows_the_states,
);

/// Lets the session do its part until the notification is delivered and no longer pending.
fn settles(bench: &Bench, inbox: &mut dyn Inbox, user: &str, id: &str) -> Result<()> {
    let (asker, mut publisher) = (bench.user(user)?, bench.publisher());
    until_true(&format!("{id} delivered"), within(30), || {
        turn(inbox)?;
        Ok(!asker.pending()?.iter().any(|p| p == id) && publisher.count(id, "delivered")? == 1)
    })
}

fn settles_under(bench: &Bench, mode: AckMode) -> Result<()> {
    let id = bench.publish("ada", json!(1))?;
    let mut inbox = bench.open("ada", mode)?;
    ensure!(ids(&mut *inbox, 1)? == [id.clone()]);
    settles(bench, &mut *inbox, "ada", &id)?;
    inbox.cut(Cut::Close);
    let mut fresh = bench.open("ada", mode)?;
    ensure!(notified(&before_marker(bench, &mut *fresh, "ada")?).is_empty());
    Ok(())
}

fn auto_settles_by_itself(bench: &Bench) -> Result<()> {
    settles_under(bench, AckMode::Auto)
}

fn auto_is_the_default(bench: &Bench) -> Result<()> {
    settles_under(bench, AckMode::Default)
}

fn auto_settles_through_a_cursor_on_return(bench: &Bench) -> Result<()> {
    let id = bench.publish("ada", json!(1))?;
    // Watching takes the cursor and gives no evidence.
    let mut watching = bench.open("ada", AckMode::None)?;
    ids(&mut *watching, 1)?;
    let cursor = cursor(&mut *watching)?;
    ensure!(bench.user("ada")?.pending()? == [id.clone()]);
    let mut back = bench
        .connect("ada")?
        .cursor(&cursor)
        .ack(AckMode::Auto)
        .open(bench.transport)?;
    settles(bench, &mut *back, "ada", &id)
}

fn auto_settles_while_the_feed_never_rests(bench: &Bench) -> Result<()> {
    let mut inbox = bench.open("ada", AckMode::Auto)?;
    let (asker, mut publisher) = (bench.user("ada")?, bench.publisher());
    let first = publisher.accepted(&json!({"data": "to all"}))?;
    until_true("the first of many settled", within(30), || {
        publisher.accepted(&json!({"data": "to all"}))?;
        turn(&mut *inbox)?;
        Ok(!asker.pending()?.contains(&first))
    })
}

fn explicit_settles_on_the_word_only(bench: &Bench) -> Result<()> {
    let user = bench.user("ada")?;
    let kept = bench.publish("ada", json!(1))?;
    let acked = bench.publish("ada", json!(2))?;
    let mut inbox = bench.open("ada", AckMode::Explicit)?;
    ensure!(ids(&mut *inbox, 2)? == [kept.clone(), acked.clone()]);
    wait_longer_than_auto(bench, &mut *inbox)?;
    ensure!(
        user.pending()? == [kept.clone(), acked.clone()],
        "settled without the client's word"
    );
    if bench.transport == Transport::WebSocket {
        inbox.send(&json!({"type": "ack", "ids": [acked]}))?;
        until_true("the ack frame settles", within(30), || {
            Ok(user.pending()? == [kept.clone()])
        })?;
    } else {
        ensure!(user.ack(&[&acked])? == 1);
    }
    ensure!(
        user.pending()? == [kept.clone()],
        "an explicit ack holds as soon as it is answered"
    );
    ensure!(user.ack(&[&acked])? == 0, "settled twice");
    inbox.cut(Cut::Reset);
    let mut again = bench.open("ada", AckMode::Explicit)?;
    ensure!(notified(&before_marker(bench, &mut *again, "ada")?) == [kept.as_str()]);
    Ok(())
}

/// Gives automatic settlement all the time it needs, had it been at work here: another user's automatic session
/// settles something that was published later.
fn wait_longer_than_auto(bench: &Bench, inbox: &mut dyn Inbox) -> Result<()> {
    for round in 0..2 {
        let user = format!("yardstick-{round}");
        let id = bench.publish(&user, json!(0))?;
        let mut auto = bench.open(&user, AckMode::Auto)?;
        ids(&mut *auto, 1)?;
        settles(bench, &mut *auto, &user, &id)?;
        turn(inbox)?;
    }
    Ok(())
}

fn explicit_cursor_only_positions(bench: &Bench) -> Result<()> {
    let id = bench.publish("ada", json!(1))?;
    let mut inbox = bench.open("ada", AckMode::Explicit)?;
    ids(&mut *inbox, 1)?;
    let cursor = cursor(&mut *inbox)?;
    inbox.cut(Cut::Close);
    // Pending entries at or below the cursor come first.
    let mut back = bench
        .connect("ada")?
        .cursor(&cursor)
        .ack(AckMode::Explicit)
        .open(bench.transport)?;
    ensure!(notified(&before_marker(bench, &mut *back, "ada")?) == [id.as_str()]);
    Ok(())
}

fn explicit_ack_by_cursor_settles_all_up_to_it(bench: &Bench) -> Result<()> {
    let user = bench.user("ada")?;
    bench.publish("ada", json!(1))?;
    bench.publish("ada", json!(2))?;
    let mut inbox = bench.open("ada", AckMode::Explicit)?;
    ids(&mut *inbox, 2)?;
    let cursor = cursor(&mut *inbox)?;
    let later = bench.publish("ada", json!(3))?;
    ensure!(user.ack_cursor(&cursor)? == 2);
    ensure!(user.pending()? == [later]);
    Ok(())
}

fn none_never_settles(bench: &Bench) -> Result<()> {
    let id = bench.publish("ada", json!(1))?;
    let mut inbox = bench.open("ada", AckMode::None)?;
    ids(&mut *inbox, 1)?;
    let cursor = cursor(&mut *inbox)?;
    wait_longer_than_auto(bench, &mut *inbox)?;
    inbox.cut(Cut::Close);
    let mut back = bench
        .connect("ada")?
        .cursor(&cursor)
        .ack(AckMode::None)
        .open(bench.transport)?;
    wait_longer_than_auto(bench, &mut *back)?;
    ensure!(bench.publisher().count(&id, "pending")? == 1);
    ensure!(bench.user("ada")?.pending()? == [id]);
    Ok(())
}

fn an_ack_on_one_session_is_for_all(bench: &Bench) -> Result<()> {
    let id = bench.publish("ada", json!(1))?;
    let mut one = bench.open("ada", AckMode::Explicit)?;
    let mut other = bench.open("ada", AckMode::Explicit)?;
    ensure!(ids(&mut *one, 1)? == [id.clone()] && ids(&mut *other, 1)? == [id.clone()]);
    bench.user("ada")?.ack(&[&id])?;
    for transport in postrider_harness::inbox::TRANSPORTS {
        let mut later = bench.connect("ada")?.ack(AckMode::None).open(transport)?;
        let before = before_marker(bench, &mut *later, "ada")?;
        ensure!(
            !notified(&before).contains(&id.as_str()),
            "still pending on {transport}"
        );
    }
    ensure!(bench.publisher().count(&id, "delivered")? == 1);
    Ok(())
}

fn an_ack_of_unknown_ids_is_no_error(bench: &Bench) -> Result<()> {
    let bobs = bench.publish("bob", json!(1))?;
    ensure!(bench.user("ada")?.ack(&["no-such-id", &bobs])? == 0);
    ensure!(
        bench.user("bob")?.pending()? == [bobs],
        "one user's ack settled another's"
    );
    Ok(())
}

fn is_read_of(id: &str) -> impl Fn(&Received) -> Option<()> {
    move |received| matches!(received, Received::Read(ids) if ids.iter().any(|i| i == id)).then_some(())
}

fn read_is_told_to_other_sessions(bench: &Bench) -> Result<()> {
    let id = bench.publish("ada", json!(1))?;
    let mut one = bench.open("ada", AckMode::Explicit)?;
    let mut other = bench.open("ada", AckMode::Explicit)?;
    ids(&mut *one, 1)?;
    ids(&mut *other, 1)?;
    if bench.transport == Transport::WebSocket {
        one.send(&json!({"type": "read", "ids": [id]}))?;
    } else {
        ensure!(bench.user("ada")?.read(&[&id])? == 1);
    }
    wait_for(&mut *other, within(30), "the read mark", is_read_of(&id))?;
    until_true("counted as read", within(30), || {
        Ok(bench.publisher().count(&id, "read")? == 1)
    })?;
    ensure!(bench.publisher().count(&id, "pending")? == 0);
    ensure!(bench.user("ada")?.pending()?.is_empty(), "read implies delivered");
    Ok(())
}

fn read_is_told_to_a_session_that_comes_back(bench: &Bench) -> Result<()> {
    let id = bench.publish("ada", json!(1))?;
    let mut inbox = bench.open("ada", AckMode::None)?;
    ids(&mut *inbox, 1)?;
    let cursor = cursor(&mut *inbox)?;
    inbox.cut(Cut::Reset);
    bench.user("ada")?.read(&[&id])?;
    let mut back = bench
        .connect("ada")?
        .cursor(&cursor)
        .ack(AckMode::None)
        .open(bench.transport)?;
    let before = before_marker(bench, &mut *back, "ada")?;
    ensure!(
        before.iter().any(|r| is_read_of(&id)(r).is_some()),
        "the read mark was missed: {before:?}"
    );
    Ok(())
}

fn history_knows_the_states(bench: &Bench) -> Result<()> {
    let user = bench.user("ada")?;
    let sent: Vec<String> = (0..4)
        .map(|n| bench.publish("ada", json!(n)))
        .collect::<Result<_>>()?;
    user.ack(&[&sent[1]])?;
    user.read(&[&sent[2]])?;
    bench.publisher().cancel(&sent[3])?;
    let history = user.history(50)?;
    let states: Vec<(&str, &str)> = history
        .iter()
        .map(|n| {
            (
                n["id"].as_str().unwrap_or_default(),
                n["state"].as_str().unwrap_or_default(),
            )
        })
        .filter(|(id, _)| *id != sent[3])
        .collect();
    let wanted = [
        (&*sent[2], "read"),
        (&*sent[1], "delivered"),
        (&*sent[0], "pending"),
    ];
    ensure!(states == wanted, "newest first: {states:?}");
    Ok(())
}

fn cursor(inbox: &mut dyn Inbox) -> Result<String> {
    let found = |received: &Received| match received {
        Received::Cursor(cursor) => Some(cursor.clone()),
        _ => None,
    };
    wait_for(inbox, within(30), "a cursor", found).context("after a batch")
}
