//! Acknowledging: by ids, through positions, lazily; floors and marks.

use super::kit::{Kit, Make, by_ids, of_topic, of_user, settlement, user_id};
use super::{Outcome, holds, same};
use crate::Sync;
use postrider_model::{
    Epoch, Evidence, FeedId, MarkKind, Millis, Position, SettleKind, SettleTarget, State, Transport,
};

pub(super) async fn by_ids_counts_once(kit: &mut Kit) -> Outcome {
    kit.publish_all(["a", "b", "c"].map(|id| Make::new(id).users(["ada", "bob"])))
        .await?;
    same!(kit.ack("ada", &["a", "c", "a"]).await?, 2, "acknowledged");
    same!(kit.ack("ada", &["a", "b"]).await?, 1, "acknowledged then");
    same!(
        kit.state("a", "bob").await?,
        Some(State::Pending),
        "of the other user"
    );
    let batch = [("ada", "a"), ("bob", "a"), ("bob", "a"), ("bob", "c")];
    let batch = batch.map(|(user, id)| settlement(user, SettleKind::Delivered, by_ids(&[id])?));
    let batch = batch.into_iter().collect::<Result<Vec<_>, _>>()?;
    same!(
        kit.engine().settle(batch, Sync::Durable).await?,
        [0, 1, 0, 1],
        "counts in order"
    );
    same!(
        kit.engine().settle(Vec::new(), Sync::Durable).await?,
        Vec::<u64>::new(),
        "nothing to settle"
    );
    Ok(())
}

pub(super) async fn unknown_ids_are_no_error(kit: &mut Kit) -> Outcome {
    kit.publish(Make::new("a").user("bob")).await?;
    same!(
        kit.ack("ada", &["zzz", "a"]).await?,
        0,
        "an unknown id and another user's"
    );
    same!(kit.read("ada", &["zzz", "a"]).await?, 0, "the same read");
    same!(kit.told(&of_user("ada")?).await?.len(), 0, "the user's feed");
    same!(
        kit.state("a", "bob").await?,
        Some(State::Pending),
        "the other's state"
    );
    Ok(())
}

pub(super) async fn through_a_position_settles_all_before_it(kit: &mut Kit) -> Outcome {
    let feed = of_user("ada")?;
    kit.publish_all((1..=5).map(|n| Make::new(format!("n-{n}")).user("ada")))
        .await?;
    kit.ack("ada", &["n-2"]).await?;
    let place = kit.place(&feed, 3).await?;
    same!(kit.through("ada", &feed, place).await?, 2, "through 3");
    same!(kit.through("ada", &feed, place).await?, 0, "again");
    same!(kit.floor("ada", &feed).await?, 3, "the floor");
    same!(
        kit.state("n-3", "ada").await?,
        Some(State::Delivered),
        "at the place"
    );
    same!(
        kit.state("n-4", "ada").await?,
        Some(State::Pending),
        "after the place"
    );
    same!(kit.ack("ada", &["n-1"]).await?, 0, "an id below the floor");
    Ok(())
}

pub(super) async fn through_a_wide_feed(kit: &mut Kit) -> Outcome {
    kit.publish_all((1..=3).map(|n| Make::new(format!("e-{n}"))))
        .await?;
    kit.publish(Make::new("mine").user("ada")).await?;
    let all = kit.place(&FeedId::All, 2).await?;
    let own = kit.place(&of_user("ada")?, 1).await?;
    let target = SettleTarget::Through(vec![(FeedId::All, all), (of_user("ada")?, own)]);
    same!(
        kit.settle("ada", SettleKind::Delivered, target).await?,
        3,
        "through both feeds"
    );
    same!(
        kit.state("e-2", "ada").await?,
        Some(State::Delivered),
        "below the floor"
    );
    same!(kit.state("e-3", "ada").await?, Some(State::Pending), "above it");
    same!(
        kit.state("e-1", "bob").await?,
        Some(State::Pending),
        "of another user"
    );
    same!(
        kit.states("e-1").await?,
        [("ada".to_owned(), State::Delivered)],
        "who has a state"
    );
    same!(kit.states("e-3").await?, [], "who has a state above the floor");
    Ok(())
}

pub(super) async fn positions_that_are_none_settle_nothing(kit: &mut Kit) -> Outcome {
    kit.publish_all(["a", "b"].map(|id| Make::new(id).users(["ada", "bob"])))
        .await?;
    kit.publish(Make::new("e")).await?;
    let (ada, bob) = (of_user("ada")?, of_user("bob")?);
    let head = kit.place(&ada, 2).await?;
    let other = Epoch(head.epoch.0 ^ 1);
    let theirs = kit.place(&bob, 2).await?;
    for (feed, position, what) in [
        (&ada, Position { epoch: other, ..head }, "another epoch"),
        (
            &ada,
            Position {
                epoch: Epoch(0),
                ..head
            },
            "no epoch",
        ),
        (&ada, Position { offset: 3, ..head }, "above the head"),
        (
            &ada,
            Position {
                offset: u64::MAX,
                ..head
            },
            "the largest offset",
        ),
        (&ada, Position { offset: 0, ..head }, "offset 0"),
        (&ada, Position::START, "the start"),
        (&bob, theirs, "another user's feed"),
        (&of_topic("x")?, head, "an unknown feed"),
        (&FeedId::All, head, "above the head of all"),
    ] {
        for kind in [SettleKind::Delivered, SettleKind::Read] {
            let target = SettleTarget::Through(vec![(feed.clone(), position)]);
            same!(kit.settle("ada", kind, target).await?, 0, "through {what}");
        }
        same!(kit.floor("ada", feed).await?, 0, "the floor after {what}");
    }
    for user in ["ada", "bob"] {
        same!(
            kit.state("b", user).await?,
            Some(State::Pending),
            "the state for {user}"
        );
        same!(kit.floor(user, &of_user(user)?).await?, 0, "the floor of {user}");
    }
    Ok(())
}

pub(super) async fn a_floor_never_goes_back_nor_passes_the_head(kit: &mut Kit) -> Outcome {
    let feed = of_user("ada")?;
    kit.publish_all((1..=4).map(|n| Make::new(format!("n-{n}")).user("ada")))
        .await?;
    let places: Vec<_> = kit.feed(&feed).await?.iter().map(|e| e.position).collect();
    for (to, floor) in [(1, 2), (0, 2), (3, 4), (2, 4), (3, 4)] {
        kit.through("ada", &feed, places[to]).await?;
        same!(
            kit.floor("ada", &feed).await?,
            floor,
            "the floor after {}",
            to + 1
        );
    }
    kit.engine().trim(&feed, 99).await?;
    kit.ack("ada", &["n-1"]).await?;
    same!(kit.floor("ada", &feed).await?, 4, "the floor after a trim");
    Ok(())
}

pub(super) async fn single_acks_move_the_floor_when_they_meet(kit: &mut Kit) -> Outcome {
    let feed = of_user("ada")?;
    kit.publish_all((1..=4).map(|n| Make::new(format!("n-{n}")).user("ada")))
        .await?;
    for (id, floor) in [("n-3", 0), ("n-1", 1), ("n-2", 3), ("n-4", 4)] {
        same!(kit.ack("ada", &[id]).await?, 1, "ack of {id}");
        same!(kit.floor("ada", &feed).await?, floor, "the floor after {id}");
    }
    Ok(())
}

pub(super) async fn the_excluded_settle_nothing(kit: &mut Kit) -> Outcome {
    kit.publish(Make::new("e").exclude(&["eve"])).await?;
    same!(kit.ack("eve", &["e"]).await?, 0, "an ack");
    same!(kit.read("eve", &["e"]).await?, 0, "read");
    let target = SettleTarget::Through(vec![(FeedId::All, kit.place(&FeedId::All, 1).await?)]);
    same!(
        kit.settle("eve", SettleKind::Read, target).await?,
        0,
        "read through it"
    );
    same!(
        kit.told(&of_user("eve")?).await?.len(),
        0,
        "told of what was kept from them"
    );
    same!(kit.states("e").await?, [], "who has a state");
    Ok(())
}

pub(super) async fn lazily_shows_eventually(kit: &mut Kit) -> Outcome {
    kit.publish_all(["a", "b"].map(|id| Make::new(id).user("ada")))
        .await?;
    let place = kit.place(&of_user("ada")?, 1).await?;
    let targets = [
        by_ids(&["b"])?,
        SettleTarget::Through(vec![(of_user("ada")?, place)]),
    ];
    let batch = targets.map(|target| settlement("ada", SettleKind::Delivered, target));
    let batch = batch.into_iter().collect::<Result<Vec<_>, _>>()?;
    same!(
        kit.engine().settle(batch, Sync::Lazy).await?,
        [0, 0],
        "counts nobody waited for"
    );
    let kit = &*kit;
    kit.eventually("the lazy acks", || async {
        let states = [kit.state("a", "ada").await?, kit.state("b", "ada").await?];
        Ok(states == [Some(State::Delivered); 2])
    })
    .await
}

pub(super) async fn marks_tell_who_and_on_what_evidence(kit: &mut Kit) -> Outcome {
    kit.publish_all(["a", "b"].map(|id| Make::new(id).user("ada")))
        .await?;
    kit.pass(Millis(5)).await;
    let acked_at = kit.now();
    kit.ack("ada", &["a"]).await?;
    let place = kit.place(&of_user("ada")?, 2).await?;
    let mut pong = settlement(
        "ada",
        SettleKind::Delivered,
        SettleTarget::Through(vec![(of_user("ada")?, place)]),
    )?;
    pong.evidence = Evidence::Pong;
    kit.engine().settle(vec![pong], Sync::Durable).await?;
    kit.pass(Millis(5)).await;
    kit.read("ada", &["b"]).await?;
    for (id, whys) in [("a", &["client"][..]), ("b", &["pong", "client"])] {
        let marks = kit
            .story(id, "ada")
            .await?
            .map(|story| story.marks)
            .unwrap_or_default();
        let found: Vec<_> = marks.iter().map(|mark| mark.why.as_str()).collect();
        same!(found, whys, "evidence for {id}, oldest first");
        same!(marks[0].kind, MarkKind::Delivered, "the first mark of {id}");
        same!(marks[0].time, acked_at, "its time");
        same!(marks[0].transport, Some(Transport::WebSocket), "its transport");
        let session = marks[0].session.as_ref().map(|session| session.to_string());
        same!(session, Some("s-1".into()), "its session");
    }
    kit.cancel("b").await?;
    Ok(())
}

/// More entries than an engine should walk at once.
pub(super) async fn many_entries_at_once(kit: &mut Kit) -> Outcome {
    const MANY: u64 = 5000;
    for (feed, id) in [(of_user("ada")?, "n"), (FeedId::All, "w")] {
        let make = |n| match feed {
            FeedId::All => Make::new(format!("{id}-{n}")),
            _ => Make::new(format!("{id}-{n}")).user("ada"),
        };
        kit.publish_all((1..=MANY).map(make)).await?;
        let head = kit.place(&feed, MANY).await?;
        let half = kit.place(&feed, MANY / 2).await?;
        same!(kit.through("ada", &feed, half).await?, MANY / 2, "half of {feed}");
        let target = SettleTarget::Through(vec![(feed.clone(), head)]);
        same!(
            kit.settle("ada", SettleKind::Read, target).await?,
            MANY,
            "read in {feed}"
        );
        same!(
            kit.through("ada", &feed, head).await?,
            0,
            "the rest of {feed}, read already"
        );
        holds!(
            kit.floor("ada", &feed).await? >= MANY,
            "the floor of {feed} stayed behind"
        );
        kit.engine().trim(&feed, MANY).await?;
        let span = kit.engine().spans(std::slice::from_ref(&feed)).await?[0];
        same!(span.first, MANY, "the first held entry of {feed}");
    }
    Ok(())
}

pub(super) async fn settlements_survive_a_restart(kit: &mut Kit) -> Outcome {
    kit.publish_all(["a", "b", "c"].map(|id| Make::new(id).user("ada")))
        .await?;
    kit.publish(Make::new("e")).await?;
    kit.ack("ada", &["b", "e"]).await?;
    kit.read("ada", &["c"]).await?;
    if !kit.restart().await {
        return Ok(());
    }
    for (id, state) in [
        ("a", State::Pending),
        ("b", State::Delivered),
        ("c", State::Read),
        ("e", State::Delivered),
    ] {
        same!(kit.state(id, "ada").await?, Some(state), "{id} after a restart");
    }
    same!(
        kit.ack("ada", &["a", "b"]).await?,
        1,
        "acknowledged after a restart"
    );
    let floor = kit
        .engine()
        .standing(&user_id("ada")?, &of_user("ada")?, 1, 9)
        .await?
        .floor;
    same!(floor, 4, "the floor");
    Ok(())
}
