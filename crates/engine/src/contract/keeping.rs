//! Bounds on keeping: age, count, bytes.

use super::kit::{Kit, Make, notification_id, of_user, user_id};
use super::{Outcome, holds, same};
use crate::{Broadcasts, EngineError, Redriven, Rules};
use postrider_model::{DeadReason, FeedId, MarkKind, Millis, State};

const AGE: Millis = Millis::from_secs(10);
const AUDIT: Millis = Millis::from_secs(100);

pub(super) fn rules(case: &str) -> Rules {
    let rules = Rules {
        age: AGE,
        audit: AUDIT,
        dedupe: Millis::from_secs(20),
        ..Rules::default()
    };
    match case {
        "a_full_feed_makes_its_oldest_dead"
        | "a_full_wide_feed_expires_its_oldest"
        | "a_dead_letter_keeps_its_body" => Rules {
            entries_per_feed: 3,
            ..rules
        },
        "a_feed_is_bounded_by_bytes" => Rules {
            bytes_per_feed: 3000,
            ..rules
        },
        "all_is_bounded_by_bytes" | "what_cannot_give_way_refuses" => Rules {
            total_bytes: 20_000,
            ..rules
        },
        "new_users_begin_with_their_first_session" => Rules {
            broadcasts: Broadcasts::FromFirstSession,
            ..rules
        },
        _ => rules,
    }
}

pub(super) async fn what_is_too_old_is_forgotten(kit: &mut Kit) -> Outcome {
    let feed = of_user("ada")?;
    kit.publish_all(["a", "b"].map(|id| Make::new(id).user("ada")))
        .await?;
    kit.ack("ada", &["b"]).await?;
    kit.pass(Millis(AGE.0 - 1)).await;
    kit.publish(Make::new("c").user("ada")).await?;
    same!(kit.told(&feed).await?, ["a", "b", "c"], "a moment before");
    kit.pass(Millis(1)).await;
    same!(kit.told(&feed).await?, ["c"], "then");
    same!(
        kit.state("a", "ada").await?,
        Some(State::Expired),
        "what was pending"
    );
    same!(
        kit.state("b", "ada").await?,
        Some(State::Delivered),
        "what was delivered"
    );
    let story = kit.story("a", "ada").await?.ok_or("no story".to_owned())?;
    holds!(
        story
            .marks
            .iter()
            .any(|mark| mark.kind == MarkKind::Expired && mark.why == "retention"),
        "why: {:?}",
        story.marks
    );
    let stored = kit.engine().lookup(&notification_id("a")?).await?;
    holds!(
        stored.is_some_and(|stored| stored.notification.data.is_empty()),
        "the record, without its body"
    );
    kit.pass(Millis(AUDIT.0 - AGE.0 - 1)).await;
    same!(
        kit.state("a", "ada").await?,
        Some(State::Expired),
        "as long as records are kept"
    );
    kit.pass(Millis(1)).await;
    same!(kit.state("a", "ada").await?, None, "and then");
    holds!(
        kit.engine().lookup(&notification_id("b")?).await?.is_none(),
        "no record is left"
    );
    same!(
        kit.state("c", "ada").await?,
        Some(State::Expired),
        "of the later one"
    );
    Ok(())
}

pub(super) async fn many_recipients_grow_old(kit: &mut Kit) -> Outcome {
    let users = (0..1500).map(|n| format!("u-{n:04}"));
    kit.publish(Make::new("a").users(users)).await?;
    kit.ack("u-0700", &["a"]).await?;
    kit.pass(AGE).await;
    for user in ["u-0000", "u-0699", "u-1499"] {
        same!(kit.state("a", user).await?, Some(State::Expired), "of {user}");
        same!(
            kit.told(&of_user(user)?).await?,
            Vec::<String>::new(),
            "the feed of {user}"
        );
    }
    same!(
        kit.state("a", "u-0700").await?,
        Some(State::Delivered),
        "of who had it"
    );
    same!(kit.states("a").await?.len(), 1500, "recipients");
    kit.pass(AUDIT).await;
    same!(kit.states("a").await?.len(), 0, "recipients after the audit");
    holds!(
        kit.engine().lookup(&notification_id("a")?).await?.is_none(),
        "no record is left"
    );
    Ok(())
}

pub(super) async fn wide_ones_grow_old_too(kit: &mut Kit) -> Outcome {
    kit.publish_all([Make::new("e"), Make::new("t").topics(&["x"])])
        .await?;
    kit.ack("ada", &["e"]).await?;
    kit.pass(AGE).await;
    same!(
        kit.told(&FeedId::All).await?,
        Vec::<String>::new(),
        "everyone's feed"
    );
    same!(
        kit.state("e", "ada").await?,
        Some(State::Delivered),
        "of who had it"
    );
    same!(
        kit.state("e", "bob").await?,
        Some(State::Expired),
        "of who had not"
    );
    kit.publish(Make::new("f")).await?;
    let end = kit.place(&FeedId::All, 2).await?;
    kit.through("bob", &FeedId::All, end).await?;
    same!(
        kit.state("e", "bob").await?,
        Some(State::Expired),
        "though a floor passed it"
    );
    kit.pass(AUDIT).await;
    same!(kit.state("e", "ada").await?, None, "after the audit");
    Ok(())
}

pub(super) async fn marks_grow_old(kit: &mut Kit) -> Outcome {
    let feed = of_user("ada")?;
    kit.publish(Make::new("a").user("ada")).await?;
    kit.pass(Millis(AGE.0 / 2)).await;
    kit.read("ada", &["a"]).await?;
    kit.pass(Millis(AGE.0 / 2)).await;
    same!(kit.told(&feed).await?, ["read a"], "the mark is younger");
    kit.pass(AGE).await;
    same!(kit.told(&feed).await?, Vec::<String>::new(), "too old as well");
    kit.publish(Make::new("b").user("ada")).await?;
    same!(kit.place(&feed, 3).await?.offset, 3, "offsets go on");
    Ok(())
}

pub(super) async fn a_full_feed_makes_its_oldest_dead(kit: &mut Kit) -> Outcome {
    let feed = of_user("ada")?;
    kit.publish_all(["a", "b", "c"].map(|id| Make::new(id).user("ada")))
        .await?;
    kit.ack("ada", &["a"]).await?;
    kit.publish_all(["d", "e"].map(|id| Make::new(id).user("ada")))
        .await?;
    same!(kit.told(&feed).await?, ["c", "d", "e"], "what is held");
    same!(
        kit.state("a", "ada").await?,
        Some(State::Delivered),
        "had been delivered"
    );
    same!(kit.state("b", "ada").await?, Some(State::Dead), "had not");
    let letter = kit.letter().await?;
    same!(letter.reason, DeadReason::Overflow, "why");
    same!(letter.notification, Some(notification_id("b")?), "which");
    let end = kit.place(&feed, 5).await?;
    kit.through("ada", &feed, end).await?;
    same!(
        kit.state("b", "ada").await?,
        Some(State::Dead),
        "a floor does not deliver it"
    );
    same!(
        kit.engine().redrive(vec![letter.id]).await?,
        [Redriven::Yes],
        "redrive"
    );
    same!(kit.state("b", "ada").await?, Some(State::Pending), "then");
    same!(kit.told(&feed).await?, ["d", "e", "b"], "at the end");
    Ok(())
}

pub(super) async fn a_full_wide_feed_expires_its_oldest(kit: &mut Kit) -> Outcome {
    kit.publish_all(["a", "b", "c", "d"].map(Make::new)).await?;
    same!(kit.told(&FeedId::All).await?, ["b", "c", "d"], "what is held");
    same!(kit.state("a", "ada").await?, Some(State::Expired), "what went");
    same!(kit.engine().count_dead_letters().await?, 0, "dead letters");
    Ok(())
}

pub(super) async fn a_feed_is_bounded_by_bytes(kit: &mut Kit) -> Outcome {
    let feed = of_user("ada")?;
    for n in 0..10 {
        kit.publish(Make::new(format!("n-{n}")).user("ada").data("x".repeat(1000)))
            .await?;
    }
    same!(kit.told(&feed).await?, ["n-8", "n-9"], "what is held");
    kit.publish_all((0..10).map(|n| Make::new(format!("small-{n}")).user("ada")))
        .await?;
    kit.publish(Make::new("large").user("ada").data("x".repeat(5000)))
        .await?;
    same!(kit.told(&feed).await?, ["large"], "the last is never given up");
    same!(kit.engine().count_dead_letters().await?, 20, "dead letters");
    Ok(())
}

pub(super) async fn all_is_bounded_by_bytes(kit: &mut Kit) -> Outcome {
    let mut accepted = 0;
    for n in 0..40 {
        let make = Make::new(format!("n-{n}"))
            .user(&format!("u-{n}"))
            .data("x".repeat(1000));
        match kit.publish(make).await {
            Ok(_) => accepted += 1,
            Err(EngineError::Full) => {}
            Err(error) => return Err(error.into()),
        }
        kit.pass(Millis(1)).await;
    }
    holds!(accepted >= 35, "only {accepted} were accepted");
    same!(
        kit.state("n-0", "u-0").await?.unwrap_or(State::Expired),
        State::Expired,
        "the oldest"
    );
    same!(
        kit.state("n-39", "u-39").await?,
        Some(State::Pending),
        "the newest"
    );
    let mut held = 0;
    for n in 0..40 {
        held += kit.told(&of_user(&format!("u-{n}"))?).await?.len();
    }
    holds!((5..=20).contains(&held), "{held} are held");
    Ok(())
}

pub(super) async fn what_cannot_give_way_refuses(kit: &mut Kit) -> Outcome {
    let later = |n: u64| {
        Make::new(format!("later-{n}"))
            .user("ada")
            .deliver_in(Millis(5 * AGE.0))
    };
    for n in 0.. {
        match kit.publish(later(n).data("x".repeat(1000))).await {
            Ok(_) => {}
            Err(EngineError::Full) => break,
            Err(error) => return Err(error.into()),
        }
        holds!(n < 30, "{n} were accepted");
    }
    let refused = kit.publish(Make::new("now").user("ada")).await;
    holds!(
        matches!(refused, Err(EngineError::Full)),
        "what would only push others out: {refused:?}"
    );
    kit.pass(Millis(5 * AGE.0)).await;
    holds!(
        kit.told(&of_user("ada")?).await?.len() > 5,
        "what was accepted comes"
    );
    kit.pass(AUDIT).await;
    kit.publish(Make::new("now").user("ada")).await?;
    same!(
        kit.state("now", "ada").await?,
        Some(State::Pending),
        "once there is room"
    );
    Ok(())
}

pub(super) async fn what_is_scheduled_is_kept(kit: &mut Kit) -> Outcome {
    let feed = of_user("ada")?;
    kit.publish(Make::new("a").user("ada").deliver_in(Millis(5 * AGE.0)))
        .await?;
    kit.pass(Millis(5 * AGE.0)).await;
    same!(kit.told(&feed).await?, ["a"], "when it is due");
    kit.pass(Millis(AGE.0 - 1)).await;
    same!(
        kit.state("a", "ada").await?,
        Some(State::Pending),
        "its age counts from then"
    );
    kit.pass(Millis(1)).await;
    same!(kit.state("a", "ada").await?, Some(State::Expired), "in the end");
    Ok(())
}

pub(super) async fn a_dead_letter_keeps_its_body(kit: &mut Kit) -> Outcome {
    for id in ["a", "b", "c", "d"] {
        kit.publish(Make::new(id).user("ada").data("[7]")).await?;
    }
    kit.pass(Millis(2 * AGE.0)).await;
    let letter = kit.letter().await?;
    holds!(!letter.body.is_empty(), "its body: {letter:?}");
    same!(
        kit.engine().redrive(vec![letter.id]).await?,
        [Redriven::Yes],
        "redrive"
    );
    same!(kit.told(&of_user("ada")?).await?, ["a"], "redriven");
    kit.pass(AGE).await;
    let stored = kit.engine().lookup(&notification_id("a")?).await?;
    holds!(
        stored.is_some_and(|stored| stored.notification.data.is_empty()),
        "it grows old again"
    );
    Ok(())
}

pub(super) async fn ids_and_request_keys_are_free_again(kit: &mut Kit) -> Outcome {
    let make = |data: &str| Make::new("a").user("ada").data(data);
    kit.publish(make("1")).await?;
    kit.publish(Make::new("r").user("ada").request("key", 1)).await?;
    kit.pass(AGE).await;
    holds!(kit.publish(make("1")).await?.repeated, "known without its body");
    let conflict = kit.publish(make("2")).await;
    holds!(
        matches!(conflict, Err(EngineError::IdConflict(_))),
        "other content: {conflict:?}"
    );
    kit.pass(Millis::from_secs(20)).await;
    kit.publish(Make::new("s").user("ada").request("key", 2)).await?;
    kit.pass(AUDIT).await;
    holds!(
        !kit.publish(make("2")).await?.repeated,
        "a new one under an old id"
    );
    Ok(())
}

pub(super) async fn new_users_begin_with_their_first_session(kit: &mut Kit) -> Outcome {
    kit.publish_all([Make::new("a").first(), Make::new("b")]).await?;
    kit.engine().arrive(&user_id("ada")?).await?;
    kit.publish(Make::new("c")).await?;
    kit.engine().arrive(&user_id("ada")?).await?;
    same!(kit.start("ada", &FeedId::All).await?, 2, "where ada begins");
    same!(
        kit.state("a", "ada").await?,
        None,
        "ada is no recipient of what came before"
    );
    same!(
        kit.state("c", "ada").await?,
        Some(State::Pending),
        "but of what came after"
    );
    let end = kit.place(&FeedId::All, 3).await?;
    same!(kit.through("ada", &FeedId::All, end).await?, 1, "up to a cursor");
    same!(kit.start("ada", &FeedId::All).await?, 3, "then");
    same!(kit.ack("ada", &["a", "c"]).await?, 0, "by ids");
    Ok(())
}
