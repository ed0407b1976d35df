//! Which positions are places of a feed, over trims and restarts.

use super::kit::{Kit, Make, of_user};
use super::{Outcome, holds, same};
use postrider_model::{Epoch, FeedId, Position, State};

pub(super) async fn a_place_is_held_in_its_epoch_only(kit: &mut Kit) -> Outcome {
    let feed = of_user("ada")?;
    kit.publish_all((0..3).map(|n| Make::new(format!("n-{n}")).user("ada")))
        .await?;
    let head = kit.place(&feed, 3).await?;
    let other = Epoch(head.epoch.0 ^ 1);
    for (position, held) in [
        (head, true),
        (Position { offset: 1, ..head }, true),
        (Position { offset: 4, ..head }, false),
        (
            Position {
                offset: u64::MAX,
                ..head
            },
            false,
        ),
        (Position { epoch: other, ..head }, false),
        (
            Position {
                epoch: other,
                offset: 1,
            },
            false,
        ),
        (
            Position {
                epoch: Epoch(0),
                offset: 2,
            },
            false,
        ),
        (Position::START, true),
    ] {
        let answer = kit.engine().holds(&[(feed.clone(), position)]).await?;
        same!(answer, [held], "whether {position:?} is held");
    }
    let answer = kit.engine().holds(&[(FeedId::All, head), (feed, head)]).await?;
    same!(answer, [false, true], "answers in the order asked");
    Ok(())
}

pub(super) async fn the_start_is_held_until_something_is_trimmed(kit: &mut Kit) -> Outcome {
    let feed = of_user("ada")?;
    let start = [(feed.clone(), Position::START)];
    same!(
        kit.engine().holds(&start).await?,
        [true],
        "the start of an empty feed"
    );
    kit.publish(Make::new("a").user("ada")).await?;
    same!(
        kit.engine().holds(&start).await?,
        [true],
        "the start of a whole feed"
    );
    kit.engine().trim(&feed, 2).await?;
    same!(
        kit.engine().holds(&start).await?,
        [false],
        "the start of a trimmed feed"
    );
    Ok(())
}

pub(super) async fn old_places_are_gaps_after_a_trim(kit: &mut Kit) -> Outcome {
    let feed = of_user("ada")?;
    kit.publish_all((0..6).map(|n| Make::new(format!("n-{n}")).user("ada")))
        .await?;
    let places: Vec<_> = kit
        .feed(&feed)
        .await?
        .iter()
        .map(|e| (feed.clone(), e.position))
        .collect();
    kit.engine().trim(&feed, 4).await?;
    let held = kit.engine().holds(&places).await?;
    // Who stands just before the oldest has missed nothing.
    same!(
        held,
        [false, false, true, true, true, true],
        "held places of 1..=6, trimmed below 4"
    );
    let wrong = Position {
        epoch: Epoch(places[2].1.epoch.0 ^ 1),
        offset: 3,
    };
    same!(
        kit.engine().holds(&[(feed.clone(), wrong)]).await?,
        [false],
        "another epoch just before the oldest"
    );
    for (_, place) in &places[..3] {
        same!(
            kit.through("ada", &feed, *place).await?,
            0,
            "through a trimmed place"
        );
    }
    same!(
        kit.state("n-3", "ada").await?,
        Some(State::Pending),
        "the held ones"
    );
    kit.engine().trim(&feed, 99).await?;
    let held = kit.engine().holds(&places).await?;
    same!(held, [false, false, false, false, false, true], "all trimmed");
    Ok(())
}

pub(super) async fn a_restart_begins_an_epoch(kit: &mut Kit) -> Outcome {
    let feed = of_user("ada")?;
    kit.publish(Make::new("a").user("ada")).await?;
    let old = kit.place(&feed, 1).await?;
    if !kit.restart().await {
        return Ok(());
    }
    same!(kit.place(&feed, 1).await?, old, "the old entry's place");
    kit.publish(Make::new("b").user("ada")).await?;
    let new = kit.place(&feed, 2).await?;
    holds!(
        new.epoch != old.epoch,
        "the epoch {:?} went on over a restart",
        old.epoch
    );
    let places = [
        old,
        new,
        Position { offset: 2, ..old },
        Position { offset: 1, ..new },
    ];
    let held = kit
        .engine()
        .holds(&places.map(|place| (feed.clone(), place)))
        .await?;
    same!(held, [true, true, false, false], "places after a restart");
    same!(
        kit.through("ada", &feed, places[2]).await?,
        0,
        "the new offset in the old epoch"
    );
    same!(kit.through("ada", &feed, old).await?, 1, "the old place");
    Ok(())
}
