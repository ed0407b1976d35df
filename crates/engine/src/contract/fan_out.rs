//! Who gets what: on write for users, on read for wide audiences.

use super::kit::{Kit, Make, of_topic, of_user, user_id};
use super::{Outcome, holds, same};
use postrider_model::{FeedId, Millis, State};

pub(super) async fn users_get_an_entry_each(kit: &mut Kit) -> Outcome {
    kit.publish(Make::new("a").users(["ada", "bob"])).await?;
    for user in ["ada", "bob"] {
        same!(kit.told(&of_user(user)?).await?, ["a"], "the feed of {user}");
    }
    let wanted = [
        ("ada".to_owned(), State::Pending),
        ("bob".to_owned(), State::Pending),
    ];
    same!(kit.states("a").await?, wanted, "recipients");
    same!(kit.state("a", "eve").await?, None, "of no recipient");
    same!(kit.states("unknown").await?, [], "recipients of an unknown id");
    Ok(())
}

pub(super) async fn a_topic_and_everyone_get_one_entry(kit: &mut Kit) -> Outcome {
    kit.publish(Make::new("t").topics(&["x", "y"])).await?;
    kit.publish(Make::new("e")).await?;
    for (feed, wanted) in [(of_topic("x")?, "t"), (of_topic("y")?, "t"), (FeedId::All, "e")] {
        same!(kit.told(&feed).await?, [wanted], "{feed}");
    }
    let entry = &kit.feed(&of_topic("y")?).await?[0];
    holds!(
        !entry.is_for(&user_id("ada")?, |_| true),
        "an id in two feeds of an inbox is shown twice"
    );
    same!(kit.states("e").await?, [], "no state for who did nothing");
    same!(
        kit.state("e", "ada").await?,
        Some(State::Pending),
        "of everyone, one is asked for"
    );
    Ok(())
}

pub(super) async fn the_excluded_get_nothing(kit: &mut Kit) -> Outcome {
    kit.publish(Make::new("a").users(["ada", "eve"]).exclude(&["eve"]))
        .await?;
    kit.publish(Make::new("e").exclude(&["bob", "eve"])).await?;
    same!(
        kit.told(&of_user("eve")?).await?,
        Vec::<String>::new(),
        "the excluded one's feed"
    );
    let entry = &kit.feed(&FeedId::All).await?[0];
    for (user, gets) in [("ada", true), ("bob", false), ("eve", false)] {
        same!(
            entry.is_for(&user_id(user)?, |_| true),
            gets,
            "whether {user} is shown it"
        );
        same!(
            kit.state("e", user).await?.is_some(),
            gets,
            "whether {user} is a recipient"
        );
    }
    same!(kit.state("a", "eve").await?, None, "the excluded one's state");
    let place = kit.place(&FeedId::All, 1).await?;
    same!(
        kit.through("eve", &FeedId::All, place).await?,
        0,
        "through, by an excluded one"
    );
    same!(kit.states("e").await?, [], "who has a state");
    Ok(())
}

pub(super) async fn a_notification_for_nobody_is_accepted(kit: &mut Kit) -> Outcome {
    let make = Make::new("a").user("eve").exclude(&["eve"]).ttl(Millis(10));
    same!(kit.publish(make.clone()).await?.repeated, false, "at first");
    same!(kit.publish(make).await?.repeated, true, "again");
    same!(kit.states("a").await?, [], "its recipients");
    kit.pass(Millis(10)).await;
    same!(kit.cancel("a").await?, Some(Some(0)), "cancelled");
    Ok(())
}

pub(super) async fn a_wide_list_of_users(kit: &mut Kit) -> Outcome {
    let users = (0..5000).map(|n| format!("u{n:04}"));
    kit.publish(Make::new("a").users(users)).await?;
    kit.ack("u0007", &["a"]).await?;
    kit.read("u4999", &["a"]).await?;
    let states = kit.states("a").await?;
    same!(states.len(), 5000, "recipients");
    holds!(states.is_sorted(), "recipients are not by rising user id");
    same!(kit.cancel("a").await?, Some(Some(4998)), "cancelled");
    for (user, state) in kit.states("a").await? {
        let wanted = match user.as_str() {
            "u0007" => State::Delivered,
            "u4999" => State::Read,
            _ => State::Cancelled,
        };
        same!(state, wanted, "of {user}");
    }
    Ok(())
}
