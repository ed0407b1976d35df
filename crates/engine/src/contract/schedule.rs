//! What time does: expiry and delivery later.

use super::kit::{Kit, Make, of_user};
use super::{Outcome, same};
use postrider_model::{FeedId, Millis, State};

const SECOND: Millis = Millis::from_secs(1);

pub(super) async fn expiry_of_a_users_entry(kit: &mut Kit) -> Outcome {
    kit.publish(Make::new("a").users(["ada", "bob", "cyd"]).ttl(SECOND))
        .await?;
    kit.ack("bob", &["a"]).await?;
    kit.read("cyd", &["a"]).await?;
    kit.pass(Millis(999)).await;
    same!(
        kit.state("a", "ada").await?,
        Some(State::Pending),
        "a moment before"
    );
    kit.pass(Millis(1)).await;
    let wanted = [
        ("ada", State::Expired),
        ("bob", State::Delivered),
        ("cyd", State::Read),
    ];
    for (user, state) in wanted {
        same!(kit.state("a", user).await?, Some(state), "of {user}");
    }
    same!(
        kit.told(&of_user("ada")?).await?,
        ["a", "withdrawn a at 1 (expired)"],
        "told"
    );
    same!(kit.told(&of_user("bob")?).await?, ["a"], "told to who had it");
    same!(kit.ack("ada", &["a"]).await?, 0, "a late ack");
    same!(kit.read("ada", &["a"]).await?, 0, "read late");
    same!(
        kit.state("a", "ada").await?,
        Some(State::Expired),
        "after a late ack"
    );
    Ok(())
}

pub(super) async fn expiry_of_a_wide_entry(kit: &mut Kit) -> Outcome {
    kit.publish(Make::new("e").ttl(SECOND)).await?;
    kit.publish(Make::new("t").topics(&["x"]).ttl(SECOND)).await?;
    kit.ack("bob", &["e"]).await?;
    kit.pass(SECOND).await;
    same!(
        kit.state("e", "ada").await?,
        Some(State::Expired),
        "of who did not have it"
    );
    same!(
        kit.state("e", "bob").await?,
        Some(State::Delivered),
        "of who had it"
    );
    same!(
        kit.told(&FeedId::All).await?,
        ["e", "withdrawn e at 1 (expired)"],
        "told"
    );
    same!(kit.ack("ada", &["e"]).await?, 0, "a late ack");
    let entry = &kit.inbox("ada", &FeedId::All).await?.entries[0];
    same!(
        (entry.state, entry.dismissed),
        (Some(State::Expired), true),
        "in the inbox"
    );
    Ok(())
}

pub(super) async fn a_cursor_does_not_deliver_what_expired(kit: &mut Kit) -> Outcome {
    for (feed, id) in [(of_user("ada")?, "x"), (FeedId::All, "y")] {
        let make = |id: String| match feed {
            FeedId::All => Make::new(id),
            _ => Make::new(id).user("ada"),
        };
        kit.publish(make(id.into()).ttl(SECOND)).await?;
        kit.publish(make(format!("{id}-lives"))).await?;
        kit.pass(SECOND).await;
        let place = kit.place(&feed, 2).await?;
        same!(kit.through("ada", &feed, place).await?, 1, "settled in {feed}");
        same!(
            kit.state(id, "ada").await?,
            Some(State::Expired),
            "{id}, with the floor above it"
        );
    }
    Ok(())
}

pub(super) async fn deliver_at_appends_at_its_time(kit: &mut Kit) -> Outcome {
    kit.publish(Make::new("later").user("ada").deliver_in(SECOND))
        .await?;
    kit.publish(Make::new("wide").exclude(&["eve"]).deliver_in(SECOND))
        .await?;
    kit.publish(Make::new("now").user("ada")).await?;
    same!(kit.told(&of_user("ada")?).await?, ["now"], "before its time");
    same!(
        kit.state("later", "ada").await?,
        Some(State::Pending),
        "its state before"
    );
    same!(
        kit.state("wide", "ada").await?,
        Some(State::Pending),
        "the wide one's before"
    );
    same!(kit.state("wide", "eve").await?, None, "for who is excluded");
    same!(
        kit.ack("ada", &["later", "wide"]).await?,
        0,
        "an ack before it was delivered"
    );
    kit.pass(Millis(999)).await;
    same!(kit.told(&of_user("ada")?).await?, ["now"], "a moment before");
    kit.pass(Millis(1)).await;
    same!(kit.told(&of_user("ada")?).await?, ["now", "later"], "at its time");
    same!(
        kit.told(&FeedId::All).await?,
        ["wide"],
        "the wide one at its time"
    );
    same!(kit.ack("ada", &["later", "wide"]).await?, 2, "an ack");
    kit.pass(SECOND).await;
    same!(kit.told(&of_user("ada")?).await?.len(), 2, "entries later on");
    Ok(())
}

pub(super) async fn a_scheduled_one_is_idempotent(kit: &mut Kit) -> Outcome {
    let make = Make::new("a").user("ada").deliver_in(SECOND);
    kit.publish(make.clone()).await?;
    same!(kit.publish(make.clone()).await?.repeated, true, "before its time");
    kit.pass(SECOND).await;
    same!(kit.publish(make).await?.repeated, true, "after its time");
    kit.pass(Millis::from_secs(5)).await;
    same!(kit.told(&of_user("ada")?).await?, ["a"], "entries");
    Ok(())
}

pub(super) async fn cancel_before_it_is_due(kit: &mut Kit) -> Outcome {
    kit.publish(Make::new("a").users(["ada", "bob"]).deliver_in(SECOND))
        .await?;
    kit.publish(Make::new("e").deliver_in(SECOND)).await?;
    same!(kit.cancel("a").await?, Some(Some(2)), "cancelled");
    same!(kit.cancel("e").await?, Some(None), "the wide one cancelled");
    kit.pass(SECOND).await;
    for feed in [of_user("ada")?, of_user("bob")?, FeedId::All] {
        same!(kit.told(&feed).await?.len(), 0, "entries of {feed}");
    }
    for id in ["a", "e"] {
        same!(
            kit.state(id, "ada").await?,
            Some(State::Cancelled),
            "the state of {id}"
        );
    }
    Ok(())
}

pub(super) async fn expiry_before_it_is_due(kit: &mut Kit) -> Outcome {
    let late = Millis::from_secs(2);
    kit.publish(Make::new("a").user("ada").ttl(SECOND).deliver_in(late))
        .await?;
    kit.publish(Make::new("e").ttl(SECOND).deliver_in(late)).await?;
    kit.pass(SECOND).await;
    for step in 0..2 {
        for id in ["a", "e"] {
            same!(
                kit.state(id, "ada").await?,
                Some(State::Expired),
                "{id}, step {step}"
            );
        }
        same!(kit.told(&of_user("ada")?).await?.len(), 0, "entries, step {step}");
        same!(
            kit.told(&FeedId::All).await?.len(),
            0,
            "entries of all, step {step}"
        );
        kit.pass(late).await;
    }
    same!(
        kit.cancel("a").await?,
        Some(Some(0)),
        "cancelled after it expired"
    );
    same!(kit.state("a", "ada").await?, Some(State::Expired), "then");
    Ok(())
}

pub(super) async fn cancel_after_expiry_changes_nothing(kit: &mut Kit) -> Outcome {
    kit.publish(Make::new("a").user("ada").ttl(SECOND)).await?;
    kit.publish(Make::new("e").ttl(SECOND)).await?;
    kit.pass(SECOND).await;
    same!(kit.cancel("a").await?, Some(Some(0)), "cancelled");
    same!(kit.cancel("e").await?, Some(None), "the wide one");
    for id in ["a", "e"] {
        same!(
            kit.state(id, "ada").await?,
            Some(State::Expired),
            "the state of {id}"
        );
    }
    same!(kit.told(&of_user("ada")?).await?.len(), 2, "entries");
    same!(kit.told(&FeedId::All).await?.len(), 2, "entries of all");
    Ok(())
}

pub(super) async fn many_due_at_once(kit: &mut Kit) -> Outcome {
    let make = |n| Make::new(format!("n-{n:03}")).user("ada");
    kit.publish_all((0..300).map(|n| make(n).ttl(SECOND))).await?;
    kit.publish_all((300..600).map(|n| make(n).deliver_in(SECOND)))
        .await?;
    kit.pass(SECOND).await;
    let told = kit.told(&of_user("ada")?).await?;
    same!(told.len(), 900, "300 expired, told so, and 300 delivered");
    let place = kit.place(&of_user("ada")?, 900).await?;
    same!(kit.through("ada", &of_user("ada")?, place).await?, 300, "settled");
    same!(
        kit.state("n-299", "ada").await?,
        Some(State::Expired),
        "an expired one"
    );
    same!(
        kit.state("n-300", "ada").await?,
        Some(State::Delivered),
        "a delivered one"
    );
    Ok(())
}

pub(super) async fn a_schedule_survives_a_restart(kit: &mut Kit) -> Outcome {
    kit.publish(Make::new("a").user("ada").deliver_in(SECOND)).await?;
    kit.publish(Make::new("b").user("ada").ttl(SECOND)).await?;
    if !kit.restart().await {
        return Ok(());
    }
    kit.pass(SECOND).await;
    let mut told = kit.told(&of_user("ada")?).await?;
    told.sort();
    same!(told, ["a", "b", "withdrawn b at 1 (expired)"], "after a restart");
    Ok(())
}
