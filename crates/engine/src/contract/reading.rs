//! Marking as read, and how an inbox shows it all.

use super::kit::{Kit, Make, WHOLE, of_user, user_id};
use super::{Outcome, holds, same};
use crate::{PageWanted, read_inbox};
use postrider_model::{EntryKind, FeedId, MarkKind, SettleKind, SettleTarget, State};

pub(super) async fn read_implies_delivered_and_tells_the_others(kit: &mut Kit) -> Outcome {
    let feed = of_user("ada")?;
    kit.publish_all(["a", "b", "c"].map(|id| Make::new(id).user("ada")))
        .await?;
    kit.ack("ada", &["a"]).await?;
    same!(kit.read("ada", &["a", "b", "zzz"]).await?, 2, "read");
    same!(
        kit.state("b", "ada").await?,
        Some(State::Read),
        "read without an ack before"
    );
    same!(
        kit.told(&feed).await?,
        ["a", "b", "c", "read a b"],
        "the user's feed"
    );
    let entry = kit.feed(&feed).await?.pop();
    let origin = entry.and_then(|entry| match &entry.kind {
        EntryKind::Read { origin, .. } => origin.clone(),
        _ => None,
    });
    same!(
        origin.map(|s| s.to_string()),
        Some("s-1".into()),
        "the origin of the read mark"
    );
    same!(kit.read("ada", &["a"]).await?, 0, "read again");
    same!(kit.ack("ada", &["a"]).await?, 0, "acknowledged after it was read");
    same!(kit.told(&feed).await?.len(), 4, "entries after saying it again");
    same!(
        kit.floor("ada", &feed).await? >= 2,
        true,
        "the floor passes what is read"
    );
    Ok(())
}

pub(super) async fn read_through_a_position(kit: &mut Kit) -> Outcome {
    let feed = of_user("ada")?;
    kit.publish_all((1..=4).map(|n| Make::new(format!("n-{n}")).user("ada")))
        .await?;
    kit.read("ada", &["n-2"]).await?;
    let through = |place| SettleTarget::Through(vec![(feed.clone(), place)]);
    let place = kit.place(&feed, 3).await?;
    same!(
        kit.settle("ada", SettleKind::Read, through(place)).await?,
        2,
        "read through 3"
    );
    same!(
        kit.told(&feed).await?[4..],
        ["read n-2", "read n-1 n-3"],
        "the marks"
    );
    same!(
        kit.state("n-4", "ada").await?,
        Some(State::Pending),
        "the one after"
    );
    same!(
        kit.settle("ada", SettleKind::Read, through(place)).await?,
        0,
        "again"
    );
    let head = kit.place(&feed, 6).await?;
    same!(
        kit.settle("ada", SettleKind::Read, through(head)).await?,
        1,
        "through the head"
    );
    Ok(())
}

pub(super) async fn read_after_delivered_and_only_once(kit: &mut Kit) -> Outcome {
    let feed = of_user("ada")?;
    kit.publish_all(["a", "b"].map(|id| Make::new(id).user("ada")))
        .await?;
    let place = kit.place(&feed, 2).await?;
    same!(kit.through("ada", &feed, place).await?, 2, "delivered");
    same!(kit.read("ada", &["b", "b"]).await?, 1, "read, named twice");
    same!(kit.state("a", "ada").await?, Some(State::Delivered), "a");
    same!(kit.state("b", "ada").await?, Some(State::Read), "b");
    Ok(())
}

pub(super) async fn a_wide_one_is_read_by_one_user_only(kit: &mut Kit) -> Outcome {
    kit.publish(Make::new("e")).await?;
    same!(kit.read("ada", &["e"]).await?, 1, "read");
    same!(kit.state("e", "ada").await?, Some(State::Read), "who read it");
    same!(kit.state("e", "bob").await?, Some(State::Pending), "who did not");
    same!(
        kit.states("e").await?,
        [("ada".to_owned(), State::Read)],
        "who has a state"
    );
    same!(kit.told(&FeedId::All).await?, ["e"], "the feed of all");
    same!(
        kit.told(&of_user("ada")?).await?,
        ["read e"],
        "the reader's own feed"
    );
    same!(kit.told(&of_user("bob")?).await?.len(), 0, "the other's own feed");
    Ok(())
}

pub(super) async fn an_inbox_page_joins_the_states(kit: &mut Kit) -> Outcome {
    let feed = of_user("ada")?;
    kit.publish_all((1..=5).map(|n| Make::new(format!("n-{n}")).user("ada")))
        .await?;
    kit.ack("ada", &["n-1", "n-4"]).await?;
    kit.read("ada", &["n-2"]).await?;
    kit.cancel("n-3").await?;
    kit.cancel("n-4").await?;
    let page = kit.inbox("ada", &feed).await?;
    let found: Vec<_> = page
        .entries
        .iter()
        .map(|one| (one.state, one.dismissed))
        .collect();
    let wanted = [
        (Some(State::Delivered), false),
        (Some(State::Read), false),
        (Some(State::Cancelled), false),
        (Some(State::Delivered), true),
        (Some(State::Pending), false),
        (None, false),
        (None, false),
        (None, false),
    ];
    same!(found, wanted, "states and what is dismissed");
    let engine = kit.engine();
    let ada = user_id("ada")?;
    let wanted = PageWanted {
        user: ada.clone(),
        feed: feed.clone(),
        member: false,
        after: 3,
        limit: WHOLE,
    };
    let rest = read_inbox(&*engine, wanted, kit.now()).await?;
    same!(rest.entries.len(), 5, "a page from the middle");
    same!(rest.entries[0].state, Some(State::Delivered), "its first state");
    let standing = engine.standing(&ada, &feed, 2, 3).await?;
    holds!(
        standing.has(2, MarkKind::Read),
        "the read mark is not in the standing"
    );
    let outside = standing.marks.iter().find(|mark| !(2..=3).contains(&mark.offset));
    holds!(outside.is_none(), "the standing of 2..=3 has {outside:?}");
    Ok(())
}
