//! Where a member's topics stand: for new members and old cursors, what was lost, and what is bounded.

use super::kit::{Kit, Make, WHOLE, of_topic, of_user, topic_named, user_id};
use super::membership::{DELIVERED, PENDING, only_start, pending, publish};
use super::wakes::Wakes;
use super::{Fault, Outcome, same};
use crate::{DirectoryError, MemberChange, MemberStart, PageWanted, Rules, read_inbox};
use postrider_model::{Cursor, Epoch, FeedId, Millis, Position, State, Stay};

const HOUR: Millis = Millis::from_secs(3600);
/// Topics of one user, where a case is about that.
const TOPICS: usize = 3;
/// Stays that are remembered of one user in one topic.
const STAYS: usize = 256;

/// Small numbers where a case is about them.
pub(super) fn rules(case: &str) -> Rules {
    match case {
        "topics_and_stays_are_bounded" => Rules {
            topics_per_user: TOPICS,
            ..Rules::default()
        },
        "old_topics_leave_the_inbox" => Rules {
            age: HOUR,
            audit: Millis(2 * HOUR.0),
            dedupe: HOUR,
            ..Rules::default()
        },
        _ => Rules::default(),
    }
}

pub(super) async fn a_new_member_starts_at_the_join(kit: &mut Kit) -> Outcome {
    publish(kit, &["x", "y"], &["t"]).await?;
    kit.join("ada", "t").await?;
    same!(kit.floor("ada", &of_topic("t")?).await?, 2, "the floor");
    let start = only_start(kit, "ada", None).await?;
    let place = kit.place(&of_topic("t")?, 2).await?;
    same!((start.is_current, start.place), (true, None), "without a cursor");
    same!(
        (start.start.floor, start.start.begins, start.start.held),
        (2, 2, None),
        "where it begins"
    );
    // A client that was away when the user joined has nothing of the topic; another device may have had it.
    publish(kit, &["z"], &["t"]).await?;
    kit.ack("ada", &["z"]).await?;
    let start = only_start(kit, "ada", Some(Cursor::default())).await?;
    same!(
        (start.place, start.start.held),
        (Some(place), Some(true)),
        "with a cursor of before"
    );
    kit.join("ada", "empty").await?;
    let starts = kit.member_starts("ada", Some(Cursor::default())).await?;
    same!(
        starts.iter().map(|one| one.topic.as_str()).collect::<Vec<_>>(),
        ["empty", "t"],
        "by name"
    );
    same!(
        (starts[0].place, starts[0].start.held),
        (Some(Position::START), Some(true)),
        "of an empty one"
    );
    Ok(())
}

pub(super) async fn a_cursor_finds_its_place(kit: &mut Kit) -> Outcome {
    let feed = of_topic("t")?;
    kit.join("ada", "t").await?;
    publish(kit, &["a", "b"], &["t"]).await?;
    let (one, two) = (kit.place(&feed, 1).await?, kit.place(&feed, 2).await?);
    let at = |place| Some(Cursor::new([(&feed, place)]));
    let judged = |start: MemberStart| (start.place, start.start.held);
    same!(
        judged(only_start(kit, "ada", at(one)).await?),
        (Some(one), Some(true)),
        "as it was"
    );
    kit.leave("ada", "t").await?;
    publish(kit, &["c", "d"], &["t"]).await?;
    let four = kit.place(&feed, 4).await?;
    same!(
        judged(only_start(kit, "ada", at(two)).await?),
        (Some(two), Some(true)),
        "at the end"
    );
    // A session may have been told to go on before it heard of the leave.
    same!(
        judged(only_start(kit, "ada", at(four)).await?),
        (Some(two), Some(true)),
        "behind the end"
    );
    kit.join("ada", "t").await?;
    same!(
        judged(only_start(kit, "ada", at(two)).await?),
        (Some(four), Some(true)),
        "between two stays"
    );
    same!(
        judged(only_start(kit, "ada", at(one)).await?),
        (Some(one), Some(true)),
        "within the first"
    );
    let elsewhere = Position {
        epoch: Epoch(two.epoch.0 ^ 1),
        ..two
    };
    let gap = only_start(kit, "ada", at(elsewhere)).await?;
    same!(judged(gap), (Some(elsewhere), Some(false)), "what is no place");
    Ok(())
}

pub(super) async fn what_a_member_lost_is_a_gap(kit: &mut Kit) -> Outcome {
    let feed = of_topic("t")?;
    kit.join("ada", "t").await?;
    publish(kit, &["a", "b"], &["t"]).await?;
    let (one, two) = (kit.place(&feed, 1).await?, kit.place(&feed, 2).await?);
    kit.leave("ada", "t").await?;
    publish(kit, &["c", "d"], &["t"]).await?;
    kit.join("ada", "t").await?;
    publish(kit, &["e", "f"], &["t"]).await?;
    let before = kit.place(&feed, 4).await?;
    kit.engine().trim(&feed, 5).await?;
    let at = |place| Some(Cursor::new([(&feed, place)]));
    let spared = only_start(kit, "ada", at(two)).await?;
    same!(
        (spared.place, spared.start.held),
        (Some(before), Some(true)),
        "nothing of ada's was lost"
    );
    let lost = only_start(kit, "ada", at(one)).await?;
    same!(lost.start.held, Some(false), "one was lost");
    kit.engine().trim(&feed, 6).await?;
    same!(
        only_start(kit, "ada", at(two)).await?.start.held,
        Some(false),
        "one was lost later"
    );
    Ok(())
}

pub(super) async fn old_topics_leave_the_inbox(kit: &mut Kit) -> Outcome {
    let (ada, feed) = (user_id("ada")?, of_topic("t")?);
    kit.join("ada", "t").await?;
    publish(kit, &["a", "b"], &["t"]).await?;
    kit.ack("ada", &["a"]).await?;
    kit.leave("ada", "t").await?;
    kit.pass(HOUR).await;
    publish(kit, &["c"], &["t"]).await?;
    same!(kit.member_starts("ada", None).await?, [], "topics of the inbox");
    same!(
        kit.state("a", "ada").await?,
        DELIVERED,
        "what became of it is known"
    );
    same!(
        kit.state("b", "ada").await?,
        Some(State::Expired),
        "of the other too"
    );
    kit.pass(HOUR).await;
    same!(kit.state("a", "ada").await?, None, "until the record is gone");
    kit.join("ada", "t").await?;
    let memberships = kit.engine().memberships(&ada).await?;
    let stays: Vec<_> = memberships.iter().flat_map(|one| &one.stays).collect();
    same!(
        stays,
        [&Stay {
            after: 3,
            through: None
        }],
        "what is remembered"
    );
    same!(kit.floor("ada", &feed).await?, 3, "the floor");
    Ok(())
}

pub(super) async fn topics_and_stays_are_bounded(kit: &mut Kit) -> Outcome {
    let join = |user: &'static str, topic: String| {
        let engine = kit.engine();
        async move {
            let (topic, user) = (topic_named(&topic)?, user_id(user)?);
            let change = MemberChange {
                topic,
                user,
                joins: true,
            };
            Ok::<_, Fault>(engine.change_members(vec![change]).await?.remove(0))
        }
    };
    for n in 0..TOPICS {
        same!(join("ada", format!("t-{n}")).await?, Ok(true), "topic {n}");
    }
    let refused = Err(DirectoryError::TooManyTopics { most: TOPICS });
    same!(join("ada", "more".into()).await?, refused.clone(), "one more");
    same!(join("ada", "t-1".into()).await?, Ok(false), "one that is there");
    publish(kit, &["a"], &["t-1"]).await?;
    kit.leave("ada", "t-0").await?;
    kit.leave("ada", "t-1").await?;
    same!(
        join("ada", "more".into()).await?,
        Ok(true),
        "in place of one that held nothing"
    );
    same!(
        join("ada", "most".into()).await?,
        refused,
        "in place of one that holds something"
    );
    kit.engine().trim(&of_topic("t-1")?, 2).await?;
    same!(join("ada", "most".into()).await?, Ok(true), "once that is gone");
    for n in 0..STAYS {
        same!(join("bob", "t".into()).await?, Ok(true), "stay {n}");
        publish(kit, &[&format!("n-{n}")], &["t"]).await?;
        kit.leave("bob", "t").await?;
        publish(kit, &[&format!("x-{n}")], &["t"]).await?;
    }
    let topic = topic_named("t")?;
    same!(
        join("bob", "t".into()).await?,
        Err(DirectoryError::TooManyStays { topic }),
        "too often"
    );
    kit.engine().trim(&of_topic("t")?, 2).await?;
    same!(
        join("bob", "t".into()).await?,
        Ok(true),
        "once a stay holds nothing"
    );
    Ok(())
}

pub(super) async fn members_are_told_in_order(kit: &mut Kit) -> Outcome {
    let users = [of_user("ada")?, of_user("bob")?, of_user("eve")?];
    let feeds = [&users[..], &[of_topic("t")?]].concat();
    let wakes = Wakes::listen(kit, &feeds).await?;
    publish(kit, &["a"], &["t"]).await?;
    let change = |user: &str, joins| -> Result<_, Fault> {
        let (topic, user) = (topic_named("t")?, user_id(user)?);
        Ok(MemberChange { topic, user, joins })
    };
    let changes = vec![
        change("ada", true)?,
        change("bob", true)?,
        change("ada", false)?,
        change("eve", false)?,
    ];
    kit.engine().change_members(changes).await?;
    publish(kit, &["b"], &["t"]).await?;
    kit.leave("bob", "t").await?;
    let told = [
        "topic/t a",
        "ada joins t at 1",
        "bob joins t at 1",
        "ada leaves t at 1",
        "topic/t b",
        "bob leaves t at 2",
    ];
    wakes.tell(kit, &told).await
}

pub(super) async fn membership_survives_a_restart(kit: &mut Kit) -> Outcome {
    kit.join("ada", "t").await?;
    publish(kit, &["a", "b"], &["t"]).await?;
    kit.ack("ada", &["a"]).await?;
    kit.restart().await;
    publish(kit, &["c"], &["t"]).await?;
    let shown = kit.shown("ada", "t").await?;
    let states: Vec<_> = shown.iter().map(|(id, state)| (id.as_str(), *state)).collect();
    same!(
        states,
        [("a", DELIVERED), ("b", PENDING), ("c", PENDING)],
        "the inbox"
    );
    same!(
        only_start(kit, "ada", None).await?.start.begins,
        1,
        "where it begins"
    );
    same!(
        kit.engine().members(&topic_named("t")?, None, 9).await?.count,
        1,
        "members"
    );
    let feed = FeedId::Topic(topic_named("t")?);
    same!(kit.floor("ada", &feed).await?, 1, "the floor");
    Ok(())
}

pub(super) async fn what_waits_is_for_those_who_are_there(kit: &mut Kit) -> Outcome {
    kit.join("ada", "t").await?;
    kit.publish(Make::new("n").topics(&["t"]).deliver_in(HOUR))
        .await?;
    same!(kit.state("n", "ada").await?, PENDING, "a member now");
    same!(kit.state("n", "bob").await?, None, "no member now");
    kit.leave("ada", "t").await?;
    kit.join("bob", "t").await?;
    kit.pass(HOUR).await;
    same!(kit.state("n", "ada").await?, None, "who left before it came");
    same!(kit.shown("bob", "t").await?, pending(&["n"]), "who was there");
    Ok(())
}

pub(super) async fn a_session_topic_leaves_to_membership_what_is_shown_there(kit: &mut Kit) -> Outcome {
    kit.join("ada", "early").await?;
    publish(kit, &["both"], &["early", "asked"]).await?;
    publish(kit, &["late"], &["joined-later", "asked"]).await?;
    publish(kit, &["plain"], &["asked"]).await?;
    kit.join("ada", "joined-later").await?;
    kit.leave("ada", "early").await?;
    let asked = of_topic("asked")?;
    for (user, expected) in [("ada", [false, true, true]), ("bob", [true, true, true])] {
        let wanted = PageWanted {
            user: user_id(user)?,
            feed: asked.clone(),
            member: false,
            after: 0,
            limit: WHOLE,
        };
        let page = read_inbox(&*kit.engine(), wanted, kit.now()).await?;
        let shown: Vec<_> = page.entries.iter().map(|one| one.shown).collect();
        same!(
            shown,
            expected,
            "what {user} is shown of a topic that was asked for"
        );
    }
    Ok(())
}
