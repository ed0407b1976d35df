//! Audiences that are not a list of users: topics and everyone, less the excluded.

use anyhow::{Result, ensure};
use postrider_harness::http::Cut;
use postrider_harness::inbox::{AckMode, Received, next_notification, wait_for};
use postrider_harness::node::Node;
use postrider_harness::wait::within;
use serde_json::json;

use crate::{Bench, before_marker, ids, notified};

crate::contract!(
    everyone_gets_a_broadcast,
    a_broadcast_waits_for_a_user_never_seen,
    the_excluded_do_not_get_it,
    a_topic_reaches_those_who_asked,
    an_id_in_two_topics_comes_once,
    a_topic_is_resumed_by_cursor,
    a_broadcast_keeps_its_place_beside_others,
    counts_of_wide_audiences_are_null,
    topics_that_are_not_open_are_refused,
);

fn everyone_gets_a_broadcast(bench: &Bench) -> Result<()> {
    let mut sessions = Vec::new();
    for user in ["ada", "bob", "eve"] {
        sessions.push(bench.open(user, AckMode::Default)?);
    }
    let id = bench.publisher().accepted(&json!({"data": "to all"}))?;
    for session in &mut sessions {
        ensure!(ids(&mut **session, 1)? == [id.clone()]);
    }
    Ok(())
}

fn a_broadcast_waits_for_a_user_never_seen(bench: &Bench) -> Result<()> {
    let id = bench.publisher().accepted(&json!({"data": "to all"}))?;
    for user in ["ada", "never seen before"] {
        let mut inbox = bench.open(user, AckMode::Explicit)?;
        // No order is promised between `all` and the user's own feed, in which the marker stands.
        ensure!(ids(&mut *inbox, 1)? == [id.as_str()]);
        ensure!(notified(&before_marker(bench, &mut *inbox, user)?).is_empty());
    }
    ensure!(bench.user("ada")?.ack(&[&id])? == 1);
    ensure!(!bench.user("ada")?.pending()?.contains(&id));
    ensure!(
        bench.user("bob")?.pending()? == [id],
        "one user's ack settled a broadcast for another"
    );
    Ok(())
}

fn the_excluded_do_not_get_it(bench: &Bench) -> Result<()> {
    let mut bob = bench.connect("bob")?.topics(&["news"]).open(bench.transport)?;
    let mut ada = bench.connect("ada")?.topics(&["news"]).open(bench.transport)?;
    let mut sent = Vec::new();
    for audience in [
        json!({"users": ["ada", "bob"]}),
        json!({"topics": ["news"]}),
        json!({}),
    ] {
        let mut body = audience;
        body["exclude_users"] = json!(["bob", "nobody"]);
        body["data"] = json!("not for bob");
        sent.push(bench.publisher().accepted(&body)?);
    }
    let mut got = ids(&mut *ada, 3)?;
    got.sort();
    sent.sort();
    ensure!(got == sent);
    ensure!(notified(&before_marker(bench, &mut *bob, "bob")?).is_empty());
    Ok(())
}

fn a_topic_reaches_those_who_asked(bench: &Bench) -> Result<()> {
    let mut in_topic = bench
        .connect("ada")?
        .topics(&["news:eu/sport", "weather"])
        .open(bench.transport)?;
    let mut outside = bench.connect("bob")?.topics(&["weather"]).open(bench.transport)?;
    let id = bench
        .publisher()
        .accepted(&json!({"topics": ["news:eu/sport"], "data": 1}))?;
    let got = next_notification(&mut *in_topic, within(30))?;
    ensure!((got.id.as_str(), got.topic.as_deref()) == (id.as_str(), Some("news:eu/sport")));
    ensure!(notified(&before_marker(bench, &mut *outside, "bob")?).is_empty());
    Ok(())
}

fn an_id_in_two_topics_comes_once(bench: &Bench) -> Result<()> {
    let mut inbox = bench.connect("ada")?.topics(&["a", "b"]).open(bench.transport)?;
    let id = bench
        .publisher()
        .accepted(&json!({"topics": ["a", "b", "a"], "data": 1}))?;
    let last = bench.publisher().accepted(&json!({"topics": ["b"], "data": 2}))?;
    // Between two feeds no order is promised: the first may come by either topic, before or after the second.
    let mut got = vec![
        next_notification(&mut *inbox, within(30))?.id,
        next_notification(&mut *inbox, within(30))?.id,
    ];
    got.sort();
    let mut wanted = vec![id.clone(), last];
    wanted.sort();
    ensure!(got == wanted, "{got:?}");
    ensure!(!notified(&before_marker(bench, &mut *inbox, "ada")?).contains(&id.as_str()));
    Ok(())
}

fn a_topic_is_resumed_by_cursor(bench: &Bench) -> Result<()> {
    let connect = bench.connect("ada")?.topics(&["news"]);
    let mut inbox = connect.open(bench.transport)?;
    let first = bench
        .publisher()
        .accepted(&json!({"topics": ["news"], "data": 1}))?;
    ensure!(ids(&mut *inbox, 1)? == [first]);
    let cursor = |r: &Received| {
        if let Received::Cursor(c) = r {
            Some(c.clone())
        } else {
            None
        }
    };
    let cursor = wait_for(&mut *inbox, within(30), "a cursor", cursor)?;
    inbox.cut(Cut::Reset);
    let missed: Vec<String> = (0..5)
        .map(|n| {
            bench
                .publisher()
                .accepted(&json!({"topics": ["news"], "data": n}))
        })
        .collect::<Result<_>>()?;
    let mut back = connect.cursor(&cursor).open(bench.transport)?;
    ensure!(ids(&mut *back, 5)? == missed);
    Ok(())
}

fn a_broadcast_keeps_its_place_beside_others(bench: &Bench) -> Result<()> {
    let mut inbox = bench.connect("ada")?.topics(&["t"]).open(bench.transport)?;
    let mut by_feed = [const { Vec::new() }; 3];
    for n in 0..60 {
        let mut body = [json!({"users": ["ada"]}), json!({"topics": ["t"]}), json!({})][n % 3].clone();
        body["data"] = json!(n);
        by_feed[n % 3].push(bench.publisher().accepted(&body)?);
    }
    let got = ids(&mut *inbox, 60)?;
    for feed in by_feed {
        let own: Vec<&String> = got.iter().filter(|id| feed.contains(id)).collect();
        ensure!(own == feed.iter().collect::<Vec<_>>(), "order within a feed");
    }
    Ok(())
}

fn counts_of_wide_audiences_are_null(bench: &Bench) -> Result<()> {
    for (kind, body) in [
        ("everyone", json!({"data": 1})),
        ("topics", json!({"topics": ["t"], "data": 1})),
    ] {
        let id = bench.publisher().accepted(&body)?;
        let told = bench.publisher().look(&id)?.json()?;
        ensure!(
            told["audience"]["kind"] == kind && told["audience"]["count"].is_null(),
            "{told}"
        );
        ensure!(told["counts"]["pending"].is_null(), "{told}");
        let cancelled = bench.publisher().cancel(&id)?.json()?;
        ensure!(cancelled["cancelled"].is_null(), "{cancelled}");
    }
    let mut inbox = bench.connect("ada")?.topics(&["t"]).open(bench.transport)?;
    ensure!(
        notified(&before_marker(bench, &mut *inbox, "ada")?).is_empty(),
        "a cancelled broadcast came"
    );
    Ok(())
}

fn topics_that_are_not_open_are_refused(bench: &Bench) -> Result<()> {
    let node = Node::start(&[("topics.open", r#"["public:*"]"#)])?;
    let token = postrider_harness::token::user("ada")?;
    let connect = || postrider_harness::inbox::Connect::new(&node.endpoint, &token);
    let refused = connect()
        .topics(&["public:a", "secret"])
        .refusal(bench.transport)?;
    ensure!(
        refused.status() == 403 && refused.code().as_deref() == Some("scope"),
        "{}",
        refused.text()
    );
    let mut open = connect().topics(&["public:a"]).open(bench.transport)?;
    let mut publisher =
        postrider_harness::publish::Publisher::new(&node.endpoint, postrider_harness::node::KEY);
    let id = publisher.accepted(&json!({"topics": ["public:a"], "data": 1}))?;
    ensure!(ids(&mut *open, 1)? == [id]);
    Ok(())
}
