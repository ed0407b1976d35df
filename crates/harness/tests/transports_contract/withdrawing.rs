//! What is taken back: cancelled, collapsed, expired.

use anyhow::{Result, ensure};
use postrider_harness::http::Cut;
use postrider_harness::inbox::{AckMode, Inbox, Received, wait_for};
use postrider_harness::wait::{until_true, within};
use serde_json::json;

use crate::{Bench, before_marker, ids, notified};

crate::contract!(
    cancelled_is_withdrawn_and_not_delivered_again,
    cancelled_is_told_to_a_session_that_comes_back,
    cancelled_before_anyone_came_is_never_seen,
    a_newer_one_collapses_the_older,
    collapse_is_per_user_and_key,
    expired_is_not_delivered,
);

fn withdrawn(id: &str, reason: &str) -> Received {
    Received::Withdrawn {
        id: id.into(),
        reason: reason.into(),
    }
}

fn wait_withdrawn(inbox: &mut dyn Inbox, id: &str, reason: &str) -> Result<()> {
    let wanted = withdrawn(id, reason);
    wait_for(inbox, within(30), &format!("{wanted:?}"), |r| {
        (*r == wanted).then_some(())
    })
}

fn cancelled_is_withdrawn_and_not_delivered_again(bench: &Bench) -> Result<()> {
    let id = bench.publish("ada", json!(1))?;
    let mut inbox = bench.open("ada", AckMode::Explicit)?;
    ids(&mut *inbox, 1)?;
    let answer = bench.publisher().cancel(&id)?;
    ensure!(
        answer.status() == 200 && answer.json()?["cancelled"] == 1,
        "{}",
        answer.text()
    );
    wait_withdrawn(&mut *inbox, &id, "cancelled")?;
    let mut fresh = bench.open("ada", AckMode::Explicit)?;
    ensure!(notified(&before_marker(bench, &mut *fresh, "ada")?).is_empty());
    ensure!(bench.publisher().count(&id, "cancelled")? == 1);
    Ok(())
}

fn cancelled_is_told_to_a_session_that_comes_back(bench: &Bench) -> Result<()> {
    let id = bench.publish("ada", json!(1))?;
    let mut inbox = bench.open("ada", AckMode::Explicit)?;
    ids(&mut *inbox, 1)?;
    let cursor = |r: &Received| {
        if let Received::Cursor(c) = r {
            Some(c.clone())
        } else {
            None
        }
    };
    let cursor = wait_for(&mut *inbox, within(30), "a cursor", cursor)?;
    inbox.cut(Cut::Close);
    bench.publisher().cancel(&id)?;
    let mut back = bench
        .connect("ada")?
        .cursor(&cursor)
        .ack(AckMode::Explicit)
        .open(bench.transport)?;
    let before = before_marker(bench, &mut *back, "ada")?;
    ensure!(
        before.contains(&withdrawn(&id, "cancelled")) && notified(&before).is_empty(),
        "{before:?}"
    );
    Ok(())
}

fn cancelled_before_anyone_came_is_never_seen(bench: &Bench) -> Result<()> {
    let id = bench
        .publisher()
        .accepted(&json!({"users": ["ada", "bob"], "data": 1}))?;
    let answer = bench.publisher().cancel(&id)?;
    ensure!(answer.json()?["cancelled"] == 2, "{}", answer.text());
    for user in ["ada", "bob"] {
        let mut inbox = bench.open(user, AckMode::Default)?;
        ensure!(notified(&before_marker(bench, &mut *inbox, user)?).is_empty());
    }
    let again = bench.publisher().cancel(&id)?;
    ensure!(
        again.status() == 200 && again.json()?["cancelled"] == 0,
        "{}",
        again.text()
    );
    let unknown = bench.publisher().cancel("no-such-id")?;
    ensure!(
        unknown.status() == 404 && unknown.code().as_deref() == Some("not_found"),
        "{}",
        unknown.text()
    );
    Ok(())
}

fn a_newer_one_collapses_the_older(bench: &Bench) -> Result<()> {
    let publish = |n: u32| {
        let body = json!({"users": ["ada"], "collapse_key": "score", "data": n});
        bench.publisher().accepted(&body)
    };
    let mut inbox = bench.open("ada", AckMode::Explicit)?;
    let older = publish(1)?;
    ensure!(ids(&mut *inbox, 1)? == [older.clone()]);
    let newer = publish(2)?;
    let mut seen = Vec::new();
    while seen.len() < 2 {
        match inbox
            .next(within(30))?
            .ok_or_else(|| anyhow::anyhow!("only {seen:?} came"))?
        {
            Received::Notification(n) => seen.push(n.id),
            Received::Withdrawn { id, reason } => {
                ensure!((id.as_str(), reason.as_str()) == (older.as_str(), "collapsed"));
                seen.push("withdrawn".into());
            }
            Received::End(end) => anyhow::bail!("{end:?}"),
            _ => {}
        }
    }
    seen.sort();
    let mut wanted = vec![newer.clone(), "withdrawn".into()];
    wanted.sort();
    ensure!(seen == wanted, "{seen:?}");
    let mut fresh = bench.open("ada", AckMode::Explicit)?;
    ensure!(notified(&before_marker(bench, &mut *fresh, "ada")?) == [newer.as_str()]);
    Ok(())
}

fn collapse_is_per_user_and_key(bench: &Bench) -> Result<()> {
    let publish = |users: &[&str], key: &str| {
        bench
            .publisher()
            .accepted(&json!({"users": users, "collapse_key": key, "data": key}))
    };
    let both = publish(&["ada", "bob"], "a")?;
    let other_key = publish(&["ada"], "b")?;
    let newer = publish(&["ada"], "a")?;
    ensure!(bench.user("ada")?.pending()? == [other_key, newer]);
    ensure!(
        bench.user("bob")?.pending()? == [both],
        "collapsed for a user whom the newer one is not for"
    );
    Ok(())
}

fn expired_is_not_delivered(bench: &Bench) -> Result<()> {
    let short = bench
        .publisher()
        .accepted(&json!({"users": ["ada"], "data": 1, "ttl": 1}))?;
    let long = bench
        .publisher()
        .accepted(&json!({"users": ["ada"], "data": 2, "ttl": "1h"}))?;
    until_true("it expires", within(30), || {
        Ok(bench.publisher().count(&short, "expired")? == 1)
    })?;
    let mut inbox = bench.open("ada", AckMode::Default)?;
    ensure!(notified(&before_marker(bench, &mut *inbox, "ada")?) == [long.as_str()]);
    ensure!(bench.publisher().count(&short, "pending")? == 0);
    Ok(())
}
