//! Forgetting a user.

use super::kit::{Kit, Make, notification_id, of_user, user_id};
use super::{Outcome, holds, same};
use postrider_model::{DeadLetter, DeadLetterFilter, FeedId, Millis, State};

pub(super) async fn a_user_is_forgotten(kit: &mut Kit) -> Outcome {
    let (user, feed) = (user_id("ada")?, of_user("ada")?);
    for n in 0..20 {
        kit.publish(Make::new(format!("n-{n}")).user("ada")).await?;
    }
    kit.publish(Make::new("e")).await?;
    kit.ack("ada", &["n-3", "e"]).await?;
    kit.read("ada", &["n-4"]).await?;
    let place = kit.place(&feed, 3).await?;
    kit.through("ada", &feed, place).await?;
    same!(kit.engine().erase(&user).await?, true, "something was known");
    same!(kit.told(&feed).await?, Vec::<String>::new(), "the feed");
    holds!(
        kit.engine().lookup(&notification_id("n-3")?).await?.is_none(),
        "a notification for nobody else"
    );
    same!(kit.state("n-3", "ada").await?, None, "its state");
    same!(
        kit.states("e").await?,
        Vec::<(String, State)>::new(),
        "of a broadcast"
    );
    same!(
        kit.state("e", "ada").await?,
        Some(State::Pending),
        "as if never seen"
    );
    same!(kit.engine().erase(&user).await?, false, "again");
    Ok(())
}

pub(super) async fn others_keep_what_is_theirs(kit: &mut Kit) -> Outcome {
    kit.publish(Make::new("a").users(["ada", "bob"])).await?;
    kit.publish(Make::new("b").user("ad")).await?;
    kit.publish(Make::new("c").user("ada2")).await?;
    kit.ack("bob", &["a"]).await?;
    kit.engine().erase(&user_id("ada")?).await?;
    same!(
        kit.state("a", "bob").await?,
        Some(State::Delivered),
        "bob's state"
    );
    same!(kit.states("a").await?.len(), 1, "recipients left");
    let stored = kit.engine().lookup(&notification_id("a")?).await?;
    same!(
        stored.and_then(|stored| stored.recipients),
        Some(1),
        "their count"
    );
    for user in ["ad", "ada2"] {
        same!(kit.told(&of_user(user)?).await?.len(), 1, "of {user}");
    }
    kit.engine().erase(&user_id("bob")?).await?;
    holds!(
        kit.engine().lookup(&notification_id("a")?).await?.is_none(),
        "the last recipient went"
    );
    Ok(())
}

pub(super) async fn a_feed_goes_on_after_erasing(kit: &mut Kit) -> Outcome {
    let feed = of_user("ada")?;
    kit.publish_all(["a", "b", "c"].map(|id| Make::new(id).user("ada")))
        .await?;
    let (old, head) = (kit.place(&feed, 2).await?, kit.place(&feed, 3).await?);
    kit.engine().erase(&user_id("ada")?).await?;
    let places = [(feed.clone(), old), (feed.clone(), head)];
    same!(kit.engine().holds(&places).await?, [false, true], "places");
    kit.restart().await;
    kit.publish(Make::new("d").user("ada")).await?;
    same!(kit.place(&feed, 4).await?.offset, 4, "no place is given twice");
    same!(
        kit.state("d", "ada").await?,
        Some(State::Pending),
        "as for any user"
    );
    kit.restart().await;
    let span = kit.engine().spans(std::slice::from_ref(&feed)).await?[0];
    same!((span.first, span.head.offset), (4, 4), "the span");
    same!(kit.told(&feed).await?, ["d"], "the feed");
    Ok(())
}

pub(super) async fn scheduled_and_dead_go_too(kit: &mut Kit) -> Outcome {
    let feed = of_user("ada")?;
    kit.publish(Make::new("later").user("ada").deliver_in(Millis::from_secs(60)))
        .await?;
    kit.publish(
        Make::new("both")
            .users(["ada", "bob"])
            .deliver_in(Millis::from_secs(60)),
    )
    .await?;
    kit.engine().erase(&user_id("ada")?).await?;
    kit.pass(Millis::from_secs(60)).await;
    same!(kit.told(&feed).await?, Vec::<String>::new(), "nothing comes");
    same!(kit.told(&of_user("bob")?).await?, ["both"], "bob's comes");
    same!(
        kit.told(&FeedId::All).await?,
        Vec::<String>::new(),
        "nothing else came"
    );
    same!(
        kit.letters(&DeadLetterFilter::default()).await?,
        Vec::<DeadLetter>::new(),
        "dead letters"
    );
    Ok(())
}
