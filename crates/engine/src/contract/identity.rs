//! The same thing said twice happens once.

use super::kit::{Kit, Make, notification_id, of_user};
use super::{Outcome, holds, same};
use crate::EngineError;
use tokio::task::JoinSet;

pub(super) async fn the_same_again_is_repeated(kit: &mut Kit) -> Outcome {
    for make in [Make::new("a").user("ada"), Make::new("e")] {
        same!(kit.publish(make.clone()).await?.repeated, false, "the first time");
        same!(kit.publish(make.clone()).await?.repeated, true, "the second time");
        let feed = make.publication(kit.now()).feeds[0].clone();
        same!(kit.feed(&feed).await?.len(), 1, "entries of {feed}");
        if kit.restart().await {
            same!(kit.publish(make).await?.repeated, true, "after a restart");
        }
    }
    Ok(())
}

pub(super) async fn other_content_is_a_conflict(kit: &mut Kit) -> Outcome {
    kit.publish(Make::new("a").user("ada")).await?;
    let other = kit.publish(Make::new("a").user("ada").data("1")).await;
    let id = notification_id("a")?;
    holds!(
        matches!(&other, Err(EngineError::IdConflict(which)) if *which == id),
        "other content under the same id was answered {other:?}"
    );
    let twice = [Make::new("b").user("ada"), Make::new("b").user("bob")];
    let batch = twice.iter().map(|make| make.publication(kit.now())).collect();
    let receipts = kit.engine().publish(batch).await;
    holds!(
        receipts[0].is_ok() && matches!(receipts[1], Err(EngineError::IdConflict(_))),
        "two contents in one batch were answered {receipts:?}"
    );
    same!(
        kit.told(&of_user("ada")?).await?,
        ["a", "b"],
        "what was delivered"
    );
    Ok(())
}

pub(super) async fn concurrent_twins_make_one_entry(kit: &mut Kit) -> Outcome {
    let mut twins = JoinSet::new();
    for _ in 0..16 {
        let (engine, now) = (kit.engine(), kit.now());
        twins.spawn(async move {
            engine
                .publish(vec![Make::new("a").user("ada").publication(now)])
                .await
        });
    }
    let mut fresh = 0;
    while let Some(receipts) = twins.join_next().await {
        for receipt in receipts.map_err(|error| error.to_string())? {
            fresh += usize::from(!receipt?.repeated);
        }
    }
    same!(fresh, 1, "twins that were not repeated");
    same!(kit.told(&of_user("ada")?).await?, ["a"], "entries");
    Ok(())
}

pub(super) async fn a_request_key_is_bound_to_its_content(kit: &mut Kit) -> Outcome {
    let make = |id: &str, key: &str, content| Make::new(id).user("ada").request(key, content);
    kit.publish_all([make("a", "k", 1), make("b", "k", 1)]).await?;
    same!(
        kit.publish(make("a", "k", 1)).await?.repeated,
        true,
        "the same request"
    );
    let other = kit.publish(make("c", "k", 2)).await;
    holds!(
        matches!(other, Err(EngineError::RequestConflict)),
        "another body: {other:?}"
    );
    kit.publish(make("d", "kk", 2)).await?;
    same!(
        kit.told(&of_user("ada")?).await?,
        ["a", "b", "d"],
        "what was delivered"
    );
    if kit.restart().await {
        let other = kit.publish(make("c", "k", 2)).await;
        holds!(
            matches!(other, Err(EngineError::RequestConflict)),
            "after a restart: {other:?}"
        );
    }
    Ok(())
}

pub(super) async fn one_refused_leaves_the_others(kit: &mut Kit) -> Outcome {
    kit.publish(Make::new("b").user("ada")).await?;
    let makes = ["a", "b", "c"].map(|id| Make::new(id).user("ada").data("7"));
    let batch = makes.iter().map(|make| make.publication(kit.now())).collect();
    let answers = kit.engine().publish(batch).await;
    let answers: Vec<_> = answers.iter().map(Result::is_ok).collect();
    same!(answers, [true, false, true], "answers in order");
    same!(kit.told(&of_user("ada")?).await?, ["b", "a", "c"], "entries");
    Ok(())
}

pub(super) async fn lookup_tells_what_was_stored(kit: &mut Kit) -> Outcome {
    let make = Make::new("a")
        .users(["ada", "bob", "eve"])
        .exclude(&["eve"])
        .data("[1.0]");
    kit.publish(make.clone()).await?;
    kit.publish(Make::new("e")).await?;
    let engine = kit.engine();
    let Some(stored) = engine.lookup(&notification_id("a")?).await? else {
        return Err("lookup does not know what was accepted".to_owned().into());
    };
    let sent = make.publication(kit.now()).notification;
    same!(stored.notification.data, sent.data, "data, byte for byte");
    same!(stored.notification.exclude, sent.exclude, "the excluded");
    same!(
        (stored.recipients, stored.cancelled_at),
        (Some(2), None),
        "recipients"
    );
    kit.cancel("a").await?;
    let stored = engine.lookup(&notification_id("a")?).await?;
    same!(
        stored.and_then(|s| s.cancelled_at),
        Some(kit.now()),
        "when it was cancelled"
    );
    let stored = engine.lookup(&notification_id("e")?).await?;
    same!(
        stored.map(|s| s.recipients),
        Some(None),
        "recipients of a wide one"
    );
    holds!(
        engine.lookup(&notification_id("b")?).await?.is_none(),
        "an unknown id is known"
    );
    Ok(())
}
