//! Members of topics: what of a topic is a user's, and what becomes of it.

use super::dead_letters::{ATTEMPTS, TIMEOUT, exhaust};
use super::kit::{Kit, Make, of_topic, of_user, user_id};
use super::{Fault, Outcome, holds, same};
use crate::{MemberStart, StartsWanted};
use postrider_model::{Cursor, DeadReason, Epoch, Millis, Position, SettleKind, SettleTarget, State, Stay};

pub(super) const PENDING: Option<State> = Some(State::Pending);
pub(super) const DELIVERED: Option<State> = Some(State::Delivered);

pub(super) async fn publish(kit: &Kit, ids: &[&str], topics: &[&str]) -> Outcome {
    let makes = ids.iter().map(|id| Make::new(*id).topics(topics));
    Ok(kit.publish_all(makes).await?)
}

pub(super) fn pending(ids: &[&str]) -> Vec<(String, Option<State>)> {
    ids.iter().map(|id| ((*id).to_owned(), PENDING)).collect()
}

/// The one topic of a user's inbox.
pub(super) async fn only_start(kit: &Kit, user: &str, cursor: Option<Cursor>) -> Result<MemberStart, Fault> {
    let mut starts = kit.member_starts(user, cursor).await?;
    holds!(starts.len() == 1, "one topic, not {starts:?}");
    starts.pop().ok_or_else(|| Fault::from("no topic".to_owned()))
}

pub(super) async fn what_came_during_a_stay_is_the_users(kit: &mut Kit) -> Outcome {
    publish(kit, &["before"], &["t"]).await?;
    same!(kit.join("ada", "t").await?, true, "joining");
    same!(kit.join("ada", "t").await?, false, "joining again");
    publish(kit, &["first"], &["t"]).await?;
    same!(kit.leave("ada", "t").await?, true, "leaving");
    same!(kit.leave("ada", "t").await?, false, "leaving again");
    publish(kit, &["between"], &["t"]).await?;
    same!(kit.shown("ada", "t").await?, pending(&["first"]), "after leaving");
    kit.join("ada", "t").await?;
    publish(kit, &["second"], &["t"]).await?;
    same!(
        kit.shown("ada", "t").await?,
        pending(&["first", "second"]),
        "in the inbox"
    );
    for (id, state) in [
        ("before", None),
        ("first", PENDING),
        ("between", None),
        ("second", PENDING),
    ] {
        same!(kit.state(id, "ada").await?, state, "the state of {id}");
        same!(
            kit.ack("ada", &[id]).await?,
            u64::from(state.is_some()),
            "an ack of {id}"
        );
    }
    same!(kit.state("first", "ada").await?, DELIVERED, "then");
    same!(
        kit.states("between").await?,
        [],
        "recipients of what came between"
    );
    same!(
        kit.states("first").await?,
        [("ada".to_owned(), State::Delivered)],
        "who did something"
    );
    same!(kit.state("second", "bob").await?, None, "who never joined");
    let engine = kit.engine();
    let stay = |after, through| Stay { after, through };
    let memberships = engine.memberships(&user_id("ada")?).await?;
    same!(
        memberships[0].stays,
        [stay(1, Some(2)), stay(3, None)],
        "the stays"
    );
    Ok(())
}

pub(super) async fn what_came_before_leaving_is_still_delivered(kit: &mut Kit) -> Outcome {
    kit.join("ada", "t").await?;
    publish(kit, &["a", "b"], &["t"]).await?;
    kit.leave("ada", "t").await?;
    publish(kit, &["c", "d"], &["t"]).await?;
    let start = only_start(kit, "ada", None).await?;
    same!(start.is_current, false, "whether something will come");
    let head = kit.place(&of_topic("t")?, 2).await?;
    same!(
        (start.start.begins, start.start.span.head),
        (0, head),
        "where it begins and ends"
    );
    same!(
        kit.inbox("ada", &of_topic("t")?).await?.entries.len(),
        2,
        "entries that are read"
    );
    same!(
        kit.through("ada", &of_topic("t")?, kit.place(&of_topic("t")?, 4).await?)
            .await?,
        2,
        "settled"
    );
    let start = only_start(kit, "ada", None).await?;
    same!(start.start.begins, 2, "where it begins then");
    same!(kit.state("c", "ada").await?, None, "what came later");
    Ok(())
}

pub(super) async fn an_empty_stay_vanishes(kit: &mut Kit) -> Outcome {
    let ada = user_id("ada")?;
    kit.join("ada", "t").await?;
    kit.leave("ada", "t").await?;
    same!(kit.engine().memberships(&ada).await?, [], "memberships");
    same!(kit.member_starts("ada", None).await?, [], "topics of the inbox");
    kit.join("ada", "t").await?;
    publish(kit, &["a"], &["t"]).await?;
    kit.leave("ada", "t").await?;
    kit.join("ada", "t").await?;
    let memberships = kit.engine().memberships(&ada).await?;
    same!(memberships[0].stays.len(), 1, "stays with nothing between them");
    holds!(memberships[0].is_current(), "a member who came back");
    Ok(())
}

pub(super) async fn one_delivery_however_many_topics(kit: &mut Kit) -> Outcome {
    for topic in ["b", "c"] {
        kit.join("ada", topic).await?;
    }
    kit.join("bob", "c").await?;
    kit.publish(Make::new("n").topics(&["a", "c", "b"]).exclude(&["eve"]))
        .await?;
    same!(
        kit.shown("ada", "c").await?,
        pending(&["n"]),
        "in the first of ada's"
    );
    same!(kit.shown("ada", "b").await?, [], "in the other");
    same!(kit.shown("bob", "c").await?, pending(&["n"]), "of bob");
    same!(kit.ack("ada", &["n"]).await?, 1, "one ack");
    same!(kit.ack("ada", &["n"]).await?, 0, "and no other");
    same!(
        kit.states("n").await?,
        [("ada".to_owned(), State::Delivered)],
        "who did something"
    );
    same!(kit.state("n", "bob").await?, PENDING, "of bob");
    let end = kit.place(&of_topic("b")?, 1).await?;
    same!(
        kit.through("ada", &of_topic("b")?, end).await?,
        0,
        "through the other"
    );
    kit.join("eve", "c").await?;
    kit.publish(Make::new("m").topics(&["c"]).exclude(&["eve"]))
        .await?;
    same!(kit.shown("eve", "c").await?, [], "of one who is excluded");
    same!(kit.state("m", "eve").await?, None, "the state");
    same!(kit.ack("eve", &["m"]).await?, 0, "the ack");
    Ok(())
}

pub(super) async fn a_session_topic_keeps_no_state(kit: &mut Kit) -> Outcome {
    publish(kit, &["a", "b"], &["t"]).await?;
    let feed = of_topic("t")?;
    let end = kit.place(&feed, 2).await?;
    same!(kit.through("ada", &feed, end).await?, 0, "through a place");
    same!(kit.read("ada", &["a"]).await?, 0, "reading");
    same!(kit.states("a").await?, [], "states");
    same!(kit.floor("ada", &feed).await?, 0, "a floor");
    // One who is a member hears it as a member, and one who left has what is left of the stay first.
    kit.join("ada", "t").await?;
    publish(kit, &["c"], &["t"]).await?;
    let wanted = StartsWanted {
        user: user_id("ada")?,
        places: vec![(feed.clone(), None)],
        cursor: None,
        state: false,
    };
    for is_current in [true, false] {
        let starts = kit
            .engine()
            .starts(std::slice::from_ref(&wanted))
            .await
            .remove(0)?;
        let members: Vec<_> = starts.members.iter().map(|member| member.is_current).collect();
        same!(
            (starts.feeds.len(), members),
            (1, vec![is_current]),
            "asked for, and had"
        );
        kit.leave("ada", "t").await?;
    }
    Ok(())
}

pub(super) async fn acks_move_the_floor_over_what_is_not_the_users(kit: &mut Kit) -> Outcome {
    let feed = of_topic("t")?;
    for round in 0..3 {
        publish(kit, &[&format!("x-{round}")], &["t"]).await?;
        kit.join("ada", "t").await?;
        publish(kit, &[&format!("a-{round}"), &format!("b-{round}")], &["t"]).await?;
        kit.leave("ada", "t").await?;
    }
    kit.join("ada", "t").await?;
    same!(kit.floor("ada", &feed).await?, 1, "before the first stay");
    same!(kit.ack("ada", &["a-1", "a-0"]).await?, 2, "acks");
    same!(kit.floor("ada", &feed).await?, 2, "up to what is pending");
    same!(kit.ack("ada", &["b-0"]).await?, 1, "an ack");
    same!(kit.floor("ada", &feed).await?, 5, "over what was not ada's");
    same!(kit.ack("ada", &["b-1", "a-2", "b-2"]).await?, 3, "the rest");
    same!(kit.floor("ada", &feed).await?, 9, "the floor");
    publish(kit, &["c"], &["t"]).await?;
    same!(kit.start("ada", &feed).await?, 9, "where a session begins");
    same!(
        kit.shown("ada", "t").await?.last().cloned(),
        Some(("c".to_owned(), PENDING)),
        "what is left"
    );
    Ok(())
}

pub(super) async fn through_a_position_of_a_topic(kit: &mut Kit) -> Outcome {
    let feed = of_topic("t")?;
    publish(kit, &["before"], &["t"]).await?;
    kit.join("ada", "t").await?;
    publish(kit, &["a", "b"], &["t"]).await?;
    kit.publish(Make::new("short").topics(&["t"]).ttl(Millis(5)))
        .await?;
    kit.publish(Make::new("away").topics(&["t"])).await?;
    kit.cancel("away").await?;
    kit.pass(Millis(5)).await;
    let at = kit.place(&feed, 5).await?;
    same!(kit.through("ada", &feed, at).await?, 2, "settled");
    let states = [
        ("a", State::Delivered),
        ("short", State::Expired),
        ("away", State::Cancelled),
    ];
    for (id, state) in states {
        same!(kit.state(id, "ada").await?, Some(state), "the state of {id}");
    }
    holds!(kit.floor("ada", &feed).await? >= 5, "the floor moved");
    same!(kit.through("ada", &feed, at).await?, 0, "again");
    let elsewhere = Position {
        epoch: Epoch(at.epoch.0 ^ 1),
        ..at
    };
    same!(
        kit.through("ada", &feed, elsewhere).await?,
        0,
        "through what is no place"
    );
    Ok(())
}

pub(super) async fn reading_in_a_topic_tells_the_others(kit: &mut Kit) -> Outcome {
    let feed = of_topic("t")?;
    kit.join("ada", "t").await?;
    publish(kit, &["a", "b", "c"], &["t"]).await?;
    same!(kit.read("ada", &["b"]).await?, 1, "read");
    same!(kit.told(&of_user("ada")?).await?, ["read b"], "told");
    let target = SettleTarget::Through(vec![(feed.clone(), kit.place(&feed, 3).await?)]);
    same!(
        kit.settle("ada", SettleKind::Read, target).await?,
        2,
        "up to a place"
    );
    same!(kit.state("c", "ada").await?, Some(State::Read), "then");
    same!(kit.floor("ada", &feed).await?, 3, "the floor");
    Ok(())
}

pub(super) async fn cancelled_and_collapsed_for_members(kit: &mut Kit) -> Outcome {
    for user in ["ada", "bob"] {
        kit.join(user, "t").await?;
    }
    kit.publish(Make::new("old").topics(&["t"]).collapse("k")).await?;
    kit.publish(Make::new("a").topics(&["t"])).await?;
    kit.ack("bob", &["old", "a"]).await?;
    kit.publish(Make::new("new").topics(&["t"]).collapse("k")).await?;
    same!(kit.cancel("a").await?, Some(None), "cancelled");
    for (user, state) in [("ada", State::Cancelled), ("bob", State::Delivered)] {
        for id in ["old", "a"] {
            same!(kit.state(id, user).await?, Some(state), "{id} of {user}");
        }
    }
    let shown = kit.shown("ada", "t").await?;
    let shown: Vec<_> = shown.iter().map(|(what, _)| what.as_str()).collect();
    let told = [
        "withdrawn old at 1 (collapsed)",
        "new",
        "withdrawn a at 2 (cancelled)",
    ];
    same!(shown[2..], told, "what ada is told");
    // Who came later is told nothing of what was never shown.
    kit.publish(Make::new("b").topics(&["t"])).await?;
    kit.join("eve", "t").await?;
    kit.cancel("b").await?;
    same!(kit.shown("eve", "t").await?, [], "what eve is told");
    Ok(())
}

pub(super) async fn the_first_device_of_a_member(kit: &mut Kit) -> Outcome {
    let feed = of_topic("t")?;
    kit.join("ada", "t").await?;
    kit.publish_all([
        Make::new("a").topics(&["t"]).first(),
        Make::new("b").topics(&["t"]),
    ])
    .await?;
    let end = kit.place(&feed, 2).await?;
    same!(
        kit.through("ada", &feed, end).await?,
        1,
        "what is for all devices"
    );
    same!(kit.state("a", "ada").await?, PENDING, "what is for the first");
    same!(kit.start("ada", &feed).await?, 0, "where a session begins");
    same!(
        only_start(kit, "ada", None).await?.start.begins,
        0,
        "as it is told"
    );
    same!(kit.ack("ada", &["a"]).await?, 1, "taken");
    same!(
        kit.told(&of_user("ada")?).await?,
        ["withdrawn a at 1 (taken)"],
        "told"
    );
    same!(kit.start("ada", &feed).await?, 2, "where a session begins then");
    Ok(())
}

pub(super) async fn a_member_gives_up(kit: &mut Kit) -> Outcome {
    let feed = of_topic("t")?;
    for user in ["ada", "bob"] {
        kit.join(user, "t").await?;
    }
    publish(kit, &["a"], &["t"]).await?;
    kit.attempt("eve", &feed, 1).await?;
    exhaust(kit, "ada", &feed, 1).await?;
    same!(
        kit.state("a", "ada").await?,
        Some(State::Dead),
        "after {ATTEMPTS} attempts"
    );
    same!(kit.state("a", "bob").await?, PENDING, "of bob");
    same!(kit.state("a", "eve").await?, None, "of one who is no member");
    let letter = kit.letter().await?;
    same!(
        (letter.reason, letter.attempts),
        (DeadReason::MaxAttempts, ATTEMPTS),
        "why"
    );
    kit.leave("ada", "t").await?;
    kit.engine().redrive(vec![letter.id]).await?;
    same!(kit.told(&of_user("ada")?).await?, ["a"], "in the own feed");
    same!(kit.state("a", "ada").await?, PENDING, "redriven");
    same!(kit.ack("ada", &["a"]).await?, 1, "one ack");
    same!(
        kit.states("a").await?,
        [("ada".to_owned(), State::Delivered)],
        "who did something"
    );
    kit.pass(TIMEOUT).await;
    same!(kit.state("a", "ada").await?, DELIVERED, "and stays so");
    Ok(())
}

pub(super) async fn trimmed_it_is_expired_for_members(kit: &mut Kit) -> Outcome {
    let feed = of_topic("t")?;
    publish(kit, &["x"], &["t"]).await?;
    for user in ["ada", "bob"] {
        kit.join(user, "t").await?;
    }
    publish(kit, &["a", "b", "c"], &["t"]).await?;
    kit.ack("bob", &["a"]).await?;
    kit.engine().trim(&feed, 4).await?;
    for (user, id, state) in [
        ("ada", "a", State::Expired),
        ("bob", "a", State::Delivered),
        ("bob", "b", State::Expired),
    ] {
        same!(kit.state(id, user).await?, Some(state), "{id} of {user}");
    }
    let end = kit.place(&feed, 4).await?;
    same!(kit.through("ada", &feed, end).await?, 1, "settled");
    same!(
        kit.state("b", "ada").await?,
        Some(State::Expired),
        "no floor delivers what is gone"
    );
    same!(kit.state("x", "ada").await?, None, "what came before");
    Ok(())
}
