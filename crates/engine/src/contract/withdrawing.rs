//! Taking back: cancel and collapse.

use super::kit::{Kit, Make, of_topic, of_user};
use super::{Outcome, holds, same};
use postrider_model::{FeedId, Millis, SettleKind, SettleTarget, State};

pub(super) async fn cancel_judges_each_recipient(kit: &mut Kit) -> Outcome {
    kit.publish(Make::new("a").users(["ada", "bob", "cyd", "dee"]))
        .await?;
    kit.ack("bob", &["a"]).await?;
    kit.read("cyd", &["a"]).await?;
    same!(kit.cancel("a").await?, Some(Some(2)), "how many became cancelled");
    for (user, state, told) in [
        (
            "ada",
            State::Cancelled,
            &["a", "withdrawn a at 1 (cancelled)"][..],
        ),
        ("bob", State::Delivered, &["a", "withdrawn a at 1 (cancelled)"]),
        ("cyd", State::Read, &["a", "read a"]),
    ] {
        same!(kit.state("a", user).await?, Some(state), "of {user}");
        same!(kit.told(&of_user(user)?).await?, told, "told to {user}");
        let entry = &kit.inbox(user, &of_user(user)?).await?.entries[0];
        same!(
            entry.dismissed,
            user == "bob",
            "whether it is taken off for {user}"
        );
    }
    same!(kit.ack("ada", &["a"]).await?, 0, "a late ack");
    same!(kit.ack("bob", &["a"]).await?, 0, "a repeated ack");
    same!(kit.read("bob", &["a"]).await?, 1, "reading what was delivered");
    let place = kit.place(&of_user("dee")?, 2).await?;
    same!(
        kit.through("dee", &of_user("dee")?, place).await?,
        0,
        "a late cursor"
    );
    same!(
        kit.state("a", "dee").await?,
        Some(State::Cancelled),
        "after a late cursor"
    );
    Ok(())
}

pub(super) async fn cancel_of_a_wide_one_spares_who_had_it(kit: &mut Kit) -> Outcome {
    for id in ["e-1", "e-2"] {
        kit.publish(Make::new(id)).await?;
    }
    kit.ack("ada", &["e-2"]).await?;
    let place = kit.place(&FeedId::All, 2).await?;
    kit.through("bob", &FeedId::All, place).await?;
    kit.read("cyd", &["e-2"]).await?;
    same!(kit.cancel("e-2").await?, Some(None), "the count of a wide one");
    for (user, state) in [
        ("ada", State::Delivered),
        ("bob", State::Delivered),
        ("cyd", State::Read),
        ("dee", State::Cancelled),
    ] {
        same!(kit.state("e-2", user).await?, Some(state), "of {user}");
        let entry = &kit.inbox(user, &FeedId::All).await?.entries[1];
        same!(
            (entry.state, entry.dismissed),
            (Some(state), true),
            "in the inbox of {user}"
        );
    }
    same!(
        kit.told(&FeedId::All).await?,
        ["e-1", "e-2", "withdrawn e-2 at 2 (cancelled)"],
        "told to all"
    );
    same!(kit.ack("dee", &["e-2"]).await?, 0, "a late ack");
    same!(kit.state("e-2", "dee").await?, Some(State::Cancelled), "after it");
    kit.publish(Make::new("t").topics(&["x", "y"])).await?;
    same!(kit.cancel("t").await?, Some(None), "the count of a topic's");
    for topic in ["x", "y"] {
        let told = kit.told(&of_topic(topic)?).await?;
        same!(told, ["t", "withdrawn t at 1 (cancelled)"], "told to {topic}");
    }
    Ok(())
}

pub(super) async fn a_floor_does_not_deliver_what_was_cancelled(kit: &mut Kit) -> Outcome {
    kit.publish_all((1..=3).map(|n| Make::new(format!("e-{n}"))))
        .await?;
    kit.cancel("e-2").await?;
    let place = kit.place(&FeedId::All, 3).await?;
    same!(kit.through("ada", &FeedId::All, place).await?, 2, "settled");
    kit.ack("bob", &["e-1", "e-3"]).await?;
    for user in ["ada", "bob"] {
        holds!(
            kit.floor(user, &FeedId::All).await? >= 3,
            "the floor of {user} stayed behind"
        );
        same!(
            kit.state("e-2", user).await?,
            Some(State::Cancelled),
            "the cancelled one for {user}"
        );
        let entry = &kit.inbox(user, &FeedId::All).await?.entries[1];
        same!(entry.state, Some(State::Cancelled), "in the inbox of {user}");
    }
    let target = SettleTarget::Through(vec![(FeedId::All, place)]);
    same!(kit.settle("ada", SettleKind::Read, target).await?, 2, "read");
    same!(
        kit.state("e-2", "ada").await?,
        Some(State::Cancelled),
        "after reading through it"
    );
    Ok(())
}

pub(super) async fn cancel_of_the_unknown_and_again(kit: &mut Kit) -> Outcome {
    same!(kit.cancel("zzz").await?, None, "an unknown id");
    kit.publish(Make::new("a").users(["ada", "bob"])).await?;
    kit.publish(Make::new("e")).await?;
    same!(kit.cancel("a").await?, Some(Some(2)), "the first time");
    same!(kit.cancel("a").await?, Some(Some(0)), "the second time");
    same!(kit.cancel("e").await?, Some(None), "a wide one");
    same!(kit.cancel("e").await?, Some(None), "a wide one again");
    same!(kit.told(&of_user("ada")?).await?.len(), 2, "entries");
    same!(kit.told(&FeedId::All).await?.len(), 2, "entries of all");
    same!(
        kit.publish(Make::new("a").users(["ada", "bob"])).await?.repeated,
        true,
        "published again"
    );
    Ok(())
}

pub(super) async fn collapse_judges_each_recipient(kit: &mut Kit) -> Outcome {
    let make = |id| Make::new(id).users(["ada", "bob"]).collapse("k");
    kit.publish(make("a")).await?;
    kit.publish(Make::new("other").user("ada").collapse("kk")).await?;
    kit.ack("bob", &["a"]).await?;
    kit.publish(make("b")).await?;
    kit.publish(Make::new("c").user("ada").collapse("k")).await?;
    for (id, user, state) in [
        ("a", "ada", State::Cancelled),
        ("a", "bob", State::Delivered),
        ("b", "ada", State::Cancelled),
        ("b", "bob", State::Pending),
        ("c", "ada", State::Pending),
        ("other", "ada", State::Pending),
    ] {
        same!(kit.state(id, user).await?, Some(state), "{id} for {user}");
    }
    let told = ["a", "withdrawn a at 1 (collapsed)", "b"];
    same!(kit.told(&of_user("bob")?).await?, told, "told to bob");
    let why = kit
        .story("a", "ada")
        .await?
        .and_then(|mut story| story.marks.pop());
    same!(why.map(|mark| mark.why), Some("collapsed".into()), "the reason");
    same!(
        kit.cancel("b").await?,
        Some(Some(1)),
        "cancelled of the half collapsed one"
    );
    Ok(())
}

pub(super) async fn collapse_in_a_wide_feed(kit: &mut Kit) -> Outcome {
    kit.publish(Make::new("a").collapse("k")).await?;
    kit.publish(Make::new("u").user("ada").collapse("k")).await?;
    kit.ack("bob", &["a"]).await?;
    kit.publish(Make::new("b").collapse("k")).await?;
    same!(
        kit.state("a", "ada").await?,
        Some(State::Cancelled),
        "of who did not have it"
    );
    same!(
        kit.state("a", "bob").await?,
        Some(State::Delivered),
        "of who had it"
    );
    same!(
        kit.state("u", "ada").await?,
        Some(State::Pending),
        "the same key in another feed"
    );
    let told = ["a", "withdrawn a at 1 (collapsed)", "b"];
    same!(kit.told(&FeedId::All).await?, told, "told to all");
    kit.publish(Make::new("later").collapse("k").deliver_in(Millis(5)))
        .await?;
    same!(
        kit.state("b", "ada").await?,
        Some(State::Pending),
        "while the next is scheduled"
    );
    kit.pass(Millis(5)).await;
    same!(
        kit.state("b", "ada").await?,
        Some(State::Cancelled),
        "when the next is delivered"
    );
    Ok(())
}

pub(super) async fn final_states_stay(kit: &mut Kit) -> Outcome {
    let ids = ["r", "x", "c"];
    for id in ids {
        let ttl = if id == "x" {
            Millis(10)
        } else {
            Millis::from_secs(50)
        };
        kit.publish(Make::new(id).user("ada").ttl(ttl)).await?;
        kit.publish(Make::new(format!("w{id}")).ttl(ttl)).await?;
    }
    kit.read("ada", &["r", "wr"]).await?;
    kit.pass(Millis(10)).await;
    kit.cancel("c").await?;
    kit.cancel("wc").await?;
    let finals = [State::Read, State::Expired, State::Cancelled];
    for step in 0..5 {
        for (id, state) in ids.iter().zip(finals) {
            for id in [(*id).to_owned(), format!("w{id}")] {
                same!(kit.state(&id, "ada").await?, Some(state), "{id} at step {step}");
            }
        }
        let all = ["r", "x", "c", "wr", "wx", "wc"];
        match step {
            0 => same!(kit.ack("ada", &all).await?, 0, "late acks"),
            1 => same!(kit.read("ada", &all).await?, 0, "read late"),
            2 => {
                for id in all {
                    kit.cancel(id).await?;
                }
            }
            3 => kit.pass(Millis::from_secs(100)).await,
            _ => {}
        }
    }
    Ok(())
}
