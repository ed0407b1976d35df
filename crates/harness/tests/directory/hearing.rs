//! What sessions hear of topics that their users join and leave, over every transport.

use crate::{check, start};
use anyhow::{Context, Result, bail, ensure};
use postrider_harness::inbox::{AckMode, Connect, Inbox, Received, TRANSPORTS, Transport};
use postrider_harness::node::{KEY, Node};
use postrider_harness::people::People;
use postrider_harness::publish::Publisher;
use postrider_harness::token;
use postrider_harness::user::User;
use postrider_harness::wait::within;
use serde_json::{Value, json};

fn publish(node: &Node, id: &str, mut notification: Value) -> Result<()> {
    notification["id"] = json!(id);
    notification["data"] = json!(id);
    Publisher::new(&node.endpoint, KEY).accepted(&notification)?;
    Ok(())
}

fn connect(node: &Node, user: &str) -> Result<Connect> {
    Ok(Connect::new(&node.endpoint, &token::user(user)?).ack(AckMode::None))
}

/// A session hears these, in any order, since none is promised between feeds, and nothing else up to a marker that is
/// published to the user alone. What comes too late for that shows at the next marker. Returns the cursor then.
fn hears(
    node: &Node,
    session: &mut dyn Inbox,
    (user, marker): (&str, &str),
    expected: &[String],
) -> Result<String> {
    publish(node, marker, json!({"users": [user]}))?;
    let mut missing = expected.to_vec();
    let mut is_marked = false;
    loop {
        match session.next(within(60))? {
            Some(Received::Notification(one)) if one.id == marker => is_marked = true,
            // Of an earlier session of the test.
            Some(Received::Notification(one)) if one.id.contains("-mark") => {}
            Some(Received::Notification(one)) => {
                let at = missing.iter().position(|id| *id == one.id);
                let at =
                    at.with_context(|| format!("{} came before {marker}, not of {expected:?}", one.id))?;
                missing.remove(at);
            }
            Some(Received::Cursor(cursor)) if is_marked && missing.is_empty() => return Ok(cursor),
            Some(Received::End(end)) => bail!("the session ended: {end:?}"),
            Some(_) => {}
            None => bail!("before {marker}, these did not come: {missing:?}"),
        }
    }
}

/// Runs a test over every transport, each with a topic and a user of its own.
fn over_all(test: fn(&Node, &mut People, Transport, &str, &str) -> Result<()>) -> Result<()> {
    let (node, mut people) = start(&[("topics.open", r#"["open-*"]"#)])?;
    for transport in TRANSPORTS {
        let (topic, user) = (format!("topic/{transport}"), format!("user {transport}"));
        let done = test(&node, &mut people, transport, &topic, &user);
        done.map_err(|e| e.context(format!("over {transport}")))?;
    }
    Ok(())
}

#[test]
fn a_session_hears_from_joining_to_leaving() {
    check(|| {
        over_all(|node, people, transport, topic, user| {
            let to_topic = || json!({"topics": [topic]});
            let id = |name: &str| format!("{transport}-{name}");
            let mut session = connect(node, user)?.open(transport)?;
            let mut hears =
                |marker: &str, expected: &[String]| hears(node, &mut *session, (user, &id(marker)), expected);
            publish(node, &id("before"), to_topic())?;
            hears("mark1", &[])?;
            people.join(topic, user)?;
            publish(node, &id("first"), to_topic())?;
            publish(node, &id("second"), to_topic())?;
            hears("mark2", &[id("first"), id("second")])?;
            people.leave(topic, user)?;
            publish(node, &id("after"), to_topic())?;
            hears("mark3", &[])?;
            people.join(topic, user)?;
            publish(node, &id("again"), to_topic())?;
            hears("mark4", &[id("again")])?;
            publish(
                node,
                &id("without"),
                json!({"topics": [topic], "exclude_users": [user]}),
            )?;
            hears("mark5", &[])?;
            Ok(())
        })
    });
}

/// Whoever comes back with a cursor gets what came during the stays meanwhile, and nothing of what came between.
#[test]
fn a_cursor_goes_on_over_leaving_and_joining() {
    check(|| {
        over_all(|node, people, transport, topic, user| {
            let to_topic = || json!({"topics": [topic]});
            let id = |name: &str| format!("{transport}-{name}");
            let goes_on = |cursor: Option<String>, marker: &str, expected: &[String]| {
                let connect = connect(node, user)?;
                let connect = match cursor {
                    Some(cursor) => connect.cursor(&cursor),
                    None => connect,
                };
                hears(
                    node,
                    &mut *connect.open(transport)?,
                    (user, &id(marker)),
                    expected,
                )
            };
            people.join(topic, user)?;
            publish(node, &id("seen"), to_topic())?;
            let cursor = goes_on(None, "mark1", &[id("seen")])?;
            publish(node, &id("mine1"), to_topic())?;
            people.leave(topic, user)?;
            publish(node, &id("between"), to_topic())?;
            let cursor = goes_on(Some(cursor), "mark2", &[id("mine1")])?;
            people.join(topic, user)?;
            publish(node, &id("mine2"), to_topic())?;
            goes_on(Some(cursor), "mark3", &[id("mine2")])?;
            // Without a cursor: all that is pending of the stays.
            goes_on(None, "mark4", &[id("seen"), id("mine1"), id("mine2")])?;
            Ok(())
        })
    });
}

/// A topic that is asked for and one that the user is a member of are heard side by side; one that is both, once.
#[test]
fn members_and_session_topics_side_by_side() {
    check(|| {
        over_all(|node, people, transport, topic, user| {
            let id = |name: &str| format!("{transport}-{name}");
            let open = format!("open-{transport}");
            let both = format!("open-both-{transport}");
            people.join(topic, user)?;
            people.join(&both, user)?;
            let asking = connect(node, user)?.topics(&[&open, &both]);
            let mut session = asking.open(transport)?;
            hears(node, &mut *session, (user, &id("mark1")), &[])?;
            publish(node, &id("member"), json!({"topics": [topic]}))?;
            publish(node, &id("asked"), json!({"topics": [open]}))?;
            publish(node, &id("both"), json!({"topics": [both]}))?;
            publish(node, &id("all"), json!({"topics": [topic, open, both]}))?;
            let expected = ["member", "asked", "both", "all"].map(id);
            let cursor = hears(node, &mut *session, (user, &id("mark2")), &expected)?;
            drop(session);
            publish(node, &id("later"), json!({"topics": [both]}))?;
            let mut back = asking.cursor(&cursor).open(transport)?;
            hears(node, &mut *back, (user, &id("mark3")), &[id("later")])?;
            Ok(())
        })
    });
}

/// What a member acknowledged by one way does not come by another; and the counts tell of it.
#[test]
fn what_a_member_acknowledged_is_delivered() {
    check(|| {
        over_all(|node, people, transport, topic, user| {
            let id = |name: &str| format!("{transport}-{name}");
            people.join(topic, user)?;
            publish(node, &id("one"), json!({"topics": [topic]}))?;
            publish(node, &id("two"), json!({"topics": [topic]}))?;
            let member = User::new(&node.endpoint, user)?;
            ensure!(member.read(&[&id("one")])? == 1);
            let mut session = connect(node, user)?.open(transport)?;
            hears(node, &mut *session, (user, &id("mark1")), &[id("two")])?;
            ensure!(member.ack(&[&id("two")])? == 1);
            let mut publisher = Publisher::new(&node.endpoint, KEY);
            ensure!(publisher.count(&id("one"), "read")? == 1);
            ensure!(publisher.count(&id("two"), "delivered")? == 1);
            let story = people.ask("GET", &format!("/v1/notifications/{}/timeline", id("two")))?;
            let events = story["events"].as_array().map(Vec::as_slice).unwrap_or_default();
            let is_told = |one: &Value| one["event"] == "delivered" && one["user"] == user;
            ensure!(events.iter().any(is_told), "{story}");
            Ok(())
        })
    });
}
