//! What is for the first device that takes it.

use super::kit::{Kit, Make, of_user, user_id};
use super::{Outcome, same};
use postrider_model::{FeedId, Millis, SettleKind, SettleTarget, State};

pub(super) async fn the_first_ack_by_id_takes_it(kit: &mut Kit) -> Outcome {
    let feed = of_user("ada")?;
    kit.publish(Make::new("a").user("ada").first()).await?;
    same!(kit.ack("ada", &["a"]).await?, 1, "the first");
    same!(kit.ack("ada", &["a"]).await?, 0, "the second");
    same!(kit.state("a", "ada").await?, Some(State::Delivered), "then");
    same!(kit.told(&feed).await?, ["a", "withdrawn a at 1 (taken)"], "told");
    let inbox = kit.inbox("ada", &feed).await?;
    same!(inbox.entries[0].dismissed, true, "for later sessions");
    same!(inbox.floor, 2, "the floor");
    Ok(())
}

pub(super) async fn reading_takes_it(kit: &mut Kit) -> Outcome {
    kit.publish(Make::new("a").user("ada").first()).await?;
    same!(kit.read("ada", &["a"]).await?, 1, "read");
    same!(kit.state("a", "ada").await?, Some(State::Read), "then");
    let told = kit.told(&of_user("ada")?).await?;
    same!(told, ["a", "withdrawn a at 1 (taken)", "read a"], "told");
    Ok(())
}

pub(super) async fn a_cursor_does_not_take_it(kit: &mut Kit) -> Outcome {
    let feed = of_user("ada")?;
    let all = [Make::new("a"), Make::new("b").first(), Make::new("c")].map(|make| make.user("ada"));
    kit.publish_all(all).await?;
    let end = kit.place(&feed, 3).await?;
    same!(kit.through("ada", &feed, end).await?, 2, "the others");
    same!(
        kit.state("b", "ada").await?,
        Some(State::Pending),
        "after a cursor"
    );
    let target = SettleTarget::Through(vec![(feed.clone(), end)]);
    same!(
        kit.settle("ada", SettleKind::Read, target).await?,
        2,
        "the others, read"
    );
    same!(
        kit.state("b", "ada").await?,
        Some(State::Pending),
        "after reading up to a cursor"
    );
    same!(kit.floor("ada", &feed).await? >= 3, true, "the floor passes it");
    same!(kit.start("ada", &feed).await?, 1, "where a new session begins");
    let states: Vec<_> = kit
        .inbox("ada", &feed)
        .await?
        .entries
        .iter()
        .filter_map(|e| e.state)
        .collect();
    same!(
        states[..3],
        [State::Read, State::Pending, State::Read],
        "in the inbox"
    );
    same!(kit.ack("ada", &["b"]).await?, 1, "taken");
    same!(kit.state("b", "ada").await?, Some(State::Delivered), "then");
    let standing = kit.engine().standing(&user_id("ada")?, &feed, 1, 3).await?;
    same!(
        (standing.open, standing.first_open),
        (vec![], None),
        "nothing is open"
    );
    Ok(())
}

pub(super) async fn everyones_is_taken_by_each_user_alone(kit: &mut Kit) -> Outcome {
    kit.publish_all([Make::new("e").first(), Make::new("f")]).await?;
    let end = kit.place(&FeedId::All, 2).await?;
    kit.through("ada", &FeedId::All, end).await?;
    same!(
        kit.state("e", "ada").await?,
        Some(State::Pending),
        "after a cursor"
    );
    same!(
        kit.state("f", "ada").await?,
        Some(State::Delivered),
        "of the other"
    );
    same!(
        kit.start("ada", &FeedId::All).await?,
        0,
        "where a new session begins"
    );
    same!(kit.ack("ada", &["e"]).await?, 1, "taken");
    same!(
        kit.told(&of_user("ada")?).await?,
        ["withdrawn e at 1 (taken)"],
        "told ada only"
    );
    same!(kit.told(&FeedId::All).await?, ["e", "f"], "told everyone");
    same!(kit.state("e", "bob").await?, Some(State::Pending), "of bob");
    Ok(())
}

pub(super) async fn open_ones_expire_and_are_cancelled(kit: &mut Kit) -> Outcome {
    let feed = of_user("ada")?;
    let second = Millis::from_secs(1);
    kit.publish_all([
        Make::new("a").user("ada").first().ttl(second),
        Make::new("b").user("ada").first(),
        Make::new("e").first().ttl(second),
    ])
    .await?;
    let (end, all) = (kit.place(&feed, 2).await?, kit.place(&FeedId::All, 1).await?);
    kit.through("ada", &feed, end).await?;
    kit.through("ada", &FeedId::All, all).await?;
    kit.pass(second).await;
    kit.cancel("b").await?;
    same!(kit.state("a", "ada").await?, Some(State::Expired), "expired");
    same!(kit.state("b", "ada").await?, Some(State::Cancelled), "cancelled");
    same!(
        kit.state("e", "ada").await?,
        Some(State::Expired),
        "expired for everyone"
    );
    let standing = kit.engine().standing(&user_id("ada")?, &feed, 1, 9).await?;
    same!(standing.first_open, None, "nothing is open");
    Ok(())
}
