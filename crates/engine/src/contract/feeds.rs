//! Feeds as logs: order, pages, trimming, the end.

use super::kit::{Kit, Make, WHOLE, of_topic, of_user};
use super::{Outcome, holds, same};
use crate::{EngineError, ReadLimit, Sync};
use postrider_model::{FeedId, FeedSpan, Millis, State};
use tokio::task::JoinSet;

pub(super) async fn offsets_have_no_holes_under_concurrent_publishers(kit: &mut Kit) -> Outcome {
    let mut publishers = JoinSet::new();
    for p in 0..8 {
        let (engine, now) = (kit.engine(), kit.now());
        publishers.spawn(async move {
            for n in 0..25 {
                let mine = Make::new(format!("p{p}-{n}")).users(["ada", "bob"]);
                let wide = Make::new(format!("w{p}-{n}"));
                for receipt in engine
                    .publish(vec![mine.publication(now), wide.publication(now)])
                    .await
                {
                    receipt?;
                }
            }
            Ok::<_, EngineError>(())
        });
    }
    while let Some(done) = publishers.join_next().await {
        done.map_err(|error| error.to_string())??;
    }
    for feed in [of_user("ada")?, of_user("bob")?, FeedId::All] {
        let entries = kit.feed(&feed).await?;
        let offsets: Vec<_> = entries.iter().map(|entry| entry.position.offset).collect();
        same!(offsets, (1..=200).collect::<Vec<_>>(), "offsets of {feed}");
        for p in 0..8 {
            let ids = kit.told(&feed).await?;
            let own = ids.iter().filter(|id| id[1..].starts_with(&format!("{p}-")));
            let numbers: Vec<_> = own.map(|id| id[3..].to_owned()).collect();
            let wanted: Vec<_> = (0..25).map(|n| n.to_string()).collect();
            same!(numbers, wanted, "one publisher's own order in {feed}");
        }
        let span = kit.engine().spans(std::slice::from_ref(&feed)).await?[0];
        same!((span.first, span.head.offset), (1, 200), "the span of {feed}");
    }
    Ok(())
}

pub(super) async fn offsets_follow_the_order_of_the_batch(kit: &mut Kit) -> Outcome {
    kit.publish_all(["a", "b", "c"].map(|id| Make::new(id).user("ada")))
        .await?;
    kit.publish(Make::new("d").user("ada")).await?;
    same!(kit.told(&of_user("ada")?).await?, ["a", "b", "c", "d"], "order");
    Ok(())
}

pub(super) async fn pages_are_bounded_by_entries_and_by_bytes(kit: &mut Kit) -> Outcome {
    let feed = of_user("ada")?;
    let large = format!("\"{}\"", "x".repeat(98));
    kit.publish_all((0..10).map(|n| Make::new(format!("n-{n}")).user("ada").data(large.clone())))
        .await?;
    let engine = kit.engine();
    for (entries, bytes, wanted) in [
        (3, usize::MAX, 3),
        (100, 250, 3),
        (100, 200, 2),
        (100, 1, 1),
        (0, 0, 1),
        (100, usize::MAX, 8),
    ] {
        let page = engine.read(&feed, 2, ReadLimit { entries, bytes }).await?;
        let offsets: Vec<_> = page.entries.iter().map(|entry| entry.position.offset).collect();
        let all: Vec<_> = (3..=10).collect();
        same!(
            offsets,
            all[..wanted],
            "a page of {entries} entries and {bytes} bytes"
        );
        same!(page.span.head.offset, 10, "the head beside a page");
    }
    for after in [10, 11, u64::MAX] {
        let page = engine.read(&feed, after, WHOLE).await?;
        holds!(page.entries.is_empty(), "entries after {after}, past the head");
    }
    Ok(())
}

pub(super) async fn an_unknown_feed_is_empty(kit: &mut Kit) -> Outcome {
    kit.publish(Make::new("a").user("ada")).await?;
    let feeds = [of_user("ad")?, of_user("adaa")?, of_topic("ada")?, FeedId::All];
    for (feed, span) in feeds.iter().zip(kit.engine().spans(&feeds).await?) {
        same!(span, FeedSpan::EMPTY, "the span of {feed}");
        same!(kit.feed(feed).await?.len(), 0, "entries of {feed}");
    }
    Ok(())
}

pub(super) async fn trimmed_entries_are_gone_and_the_rest_stays(kit: &mut Kit) -> Outcome {
    for feed in [of_user("ada")?, FeedId::All] {
        let make = |n| match feed {
            FeedId::All => Make::new(format!("w-{n}")),
            _ => Make::new(format!("n-{n}")).user("ada"),
        };
        kit.publish_all((0..10).map(make)).await?;
        let engine = kit.engine();
        for (before, first) in [(0, 1), (4, 4), (2, 4), (11, 11), (99, 11)] {
            engine.trim(&feed, before).await?;
            let span = engine.spans(std::slice::from_ref(&feed)).await?[0];
            same!(
                (span.first, span.head.offset),
                (first, 10),
                "{feed} before {before}"
            );
            let page = engine.read(&feed, 0, WHOLE).await?;
            same!(page.entries.len() as u64, 11 - first, "entries of {feed}");
        }
        kit.publish(make(10)).await?;
        let span = engine.spans(std::slice::from_ref(&feed)).await?[0];
        same!((span.first, span.head.offset), (11, 11), "{feed} goes on");
        drop(engine);
        if kit.restart().await {
            let span = kit.engine().spans(std::slice::from_ref(&feed)).await?[0];
            same!((span.first, span.head.offset), (11, 11), "{feed} after a restart");
        }
    }
    Ok(())
}

pub(super) async fn trimming_expires_what_nobody_had(kit: &mut Kit) -> Outcome {
    let own = of_user("ada")?;
    kit.publish_all((1..=4).map(|n| Make::new(format!("n-{n}")).user("ada")))
        .await?;
    kit.publish_all((1..=4).map(|n| Make::new(format!("w-{n}"))))
        .await?;
    kit.ack("ada", &["n-1", "w-1"]).await?;
    for feed in [&own, &FeedId::All] {
        kit.engine().trim(feed, 4).await?;
    }
    for x in ["n", "w"] {
        let state = kit.state(&format!("{x}-1"), "ada").await?;
        same!(state, Some(State::Delivered), "{x}-1, which was had");
        let state = kit.state(&format!("{x}-2"), "ada").await?;
        same!(state, Some(State::Expired), "{x}-2, trimmed");
        same!(
            kit.ack("ada", &[&format!("{x}-3")]).await?,
            0,
            "a late ack of {x}-3"
        );
    }
    let places = [kit.place(&own, 4).await?, kit.place(&FeedId::All, 4).await?];
    same!(
        kit.through("ada", &own, places[0]).await?,
        1,
        "through the held one"
    );
    same!(
        kit.through("ada", &FeedId::All, places[1]).await?,
        1,
        "through the held wide one"
    );
    for id in ["n-2", "n-3", "w-2", "w-3"] {
        let state = kit.state(id, "ada").await?;
        same!(state, Some(State::Expired), "{id}, with the floor above it");
    }
    for id in ["n-1", "w-1", "n-4", "w-4"] {
        same!(kit.state(id, "ada").await?, Some(State::Delivered), "{id}");
    }
    Ok(())
}

pub(super) async fn trimming_changes_no_other_state(kit: &mut Kit) -> Outcome {
    kit.publish(Make::new("n").users(["ada", "bob", "cyd"])).await?;
    kit.publish(Make::new("w")).await?;
    kit.publish(Make::new("x").ttl(Millis(10))).await?;
    kit.publish(Make::new("last").users(["ada", "bob", "cyd"]))
        .await?;
    kit.ack("ada", &["n", "w", "x"]).await?;
    kit.read("bob", &["n", "w"]).await?;
    kit.cancel("n").await?;
    kit.cancel("w").await?;
    kit.pass(Millis(20)).await;
    let mut before = Vec::new();
    for id in ["n", "w", "x"] {
        for user in ["ada", "bob", "cyd"] {
            before.push((id, user, kit.state(id, user).await?));
        }
    }
    for feed in [of_user("ada")?, of_user("bob")?, of_user("cyd")?, FeedId::All] {
        kit.engine().trim(&feed, u64::MAX).await?;
    }
    for (id, user, state) in before {
        same!(
            kit.state(id, user).await?,
            state,
            "{id} for {user} after trimming"
        );
    }
    Ok(())
}

pub(super) async fn a_closed_engine_refuses(kit: &mut Kit) -> Outcome {
    kit.publish(Make::new("a").user("ada")).await?;
    let engine = kit.engine();
    kit.close().await;
    let receipt = kit.publish(Make::new("b").user("ada")).await;
    holds!(
        matches!(receipt, Err(EngineError::Closed)),
        "publish answered {receipt:?}"
    );
    let settled = engine.settle(Vec::new(), Sync::Durable).await;
    holds!(
        matches!(settled, Err(EngineError::Closed)),
        "settle answered {settled:?}"
    );
    drop(engine);
    if kit.restart().await {
        same!(kit.told(&of_user("ada")?).await?, ["a"], "after a restart");
    }
    Ok(())
}
