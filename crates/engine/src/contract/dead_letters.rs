//! Attempts, giving up, and what can be done about it.

use super::kit::{Kit, Make, notification_id, of_user, user_id};
use super::{Outcome, holds, same};
use crate::{EngineError, Redriven, Rules};
use bytes::Bytes;
use postrider_model::{
    DeadBody, DeadLetter, DeadLetterFilter, DeadLetterId, DeadReason, FeedId, MarkKind, Millis, State,
    Timestamp,
};

pub(super) const TIMEOUT: Millis = Millis::from_secs(30);
pub(super) const ATTEMPTS: u32 = 3;

pub(super) fn rules() -> Rules {
    Rules {
        ack_timeout: TIMEOUT,
        max_total_attempts: ATTEMPTS,
        ..Rules::default()
    }
}

/// Attempts as often as is allowed, and lets the last one's time pass.
pub(super) async fn exhaust(kit: &Kit, user: &str, feed: &FeedId, offset: u64) -> Outcome {
    for _ in 0..ATTEMPTS {
        kit.attempt(user, feed, offset).await?;
        kit.pass(TIMEOUT).await;
    }
    Ok(())
}

pub(super) async fn attempts_count_once_in_an_ack_timeout(kit: &mut Kit) -> Outcome {
    let feed = of_user("ada")?;
    kit.publish(Make::new("a").user("ada")).await?;
    for _ in 0..5 {
        kit.attempt("ada", &feed, 1).await?;
    }
    kit.attempt("ada", &feed, 7).await?;
    kit.pass(TIMEOUT).await;
    kit.attempt("ada", &feed, 1).await?;
    let standing = kit.engine().standing(&user_id("ada")?, &feed, 1, 10).await?;
    same!(standing.attempts, [(1, 2)], "attempts");
    let page = kit.inbox("ada", &feed).await?;
    same!(page.entries[0].attempts, 2, "as the inbox has it");
    Ok(())
}

pub(super) async fn after_the_last_attempt_it_is_dead(kit: &mut Kit) -> Outcome {
    let feed = of_user("ada")?;
    kit.publish(Make::new("a").users(["ada", "bob"]).data("[1]"))
        .await?;
    for _ in 0..ATTEMPTS {
        same!(kit.state("a", "ada").await?, Some(State::Pending), "so far");
        kit.attempt("ada", &feed, 1).await?;
        same!(
            kit.state("a", "ada").await?,
            Some(State::Pending),
            "while the client has its time"
        );
        kit.pass(TIMEOUT).await;
    }
    same!(kit.state("a", "ada").await?, Some(State::Dead), "after the last");
    same!(kit.state("a", "bob").await?, Some(State::Pending), "of the other");
    let letter = kit.letter().await?;
    let wanted = DeadLetter {
        id: letter.id,
        notification: Some(notification_id("a")?),
        user: Some(user_id("ada")?),
        reason: DeadReason::MaxAttempts,
        detail: None,
        source: "contract".into(),
        attempts: ATTEMPTS,
        time: kit.now(),
        subject: None,
        body: DeadBody::Data(Bytes::from_static(b"[1]")),
    };
    same!(letter, wanted, "the dead letter");
    same!(kit.engine().dead_letter(letter.id).await?, Some(wanted), "shown");
    same!(kit.engine().count_dead_letters().await?, 1, "count");
    Ok(())
}

pub(super) async fn attempts_end_with_an_ack(kit: &mut Kit) -> Outcome {
    let feed = of_user("ada")?;
    kit.publish(Make::new("a").user("ada")).await?;
    for n in 1..=ATTEMPTS {
        kit.attempt("ada", &feed, 1).await?;
        kit.pass(Millis(TIMEOUT.0 - 1)).await;
        if n == ATTEMPTS {
            same!(kit.ack("ada", &["a"]).await?, 1, "at the last moment");
        }
        kit.pass(Millis(1)).await;
    }
    same!(kit.state("a", "ada").await?, Some(State::Delivered), "then");
    same!(kit.engine().count_dead_letters().await?, 0, "dead letters");
    Ok(())
}

pub(super) async fn a_late_ack_takes_it_out(kit: &mut Kit) -> Outcome {
    let feed = of_user("ada")?;
    kit.publish_all([Make::new("a").user("ada"), Make::new("b").user("ada")])
        .await?;
    exhaust(kit, "ada", &feed, 1).await?;
    exhaust(kit, "ada", &feed, 2).await?;
    same!(kit.ack("ada", &["a"]).await?, 1, "late, by id");
    same!(kit.state("a", "ada").await?, Some(State::Delivered), "then");
    let place = kit.place(&feed, 2).await?;
    same!(
        kit.through("ada", &feed, place).await?,
        1,
        "late, by the client's cursor"
    );
    same!(kit.state("b", "ada").await?, Some(State::Delivered), "then");
    same!(kit.engine().count_dead_letters().await?, 0, "dead letters left");
    same!(
        kit.letters(&DeadLetterFilter::default()).await?,
        Vec::<DeadLetter>::new(),
        "listed"
    );
    Ok(())
}

pub(super) async fn a_floor_does_not_deliver_what_is_dead(kit: &mut Kit) -> Outcome {
    let feed = of_user("ada")?;
    kit.publish_all(["a", "b", "c"].map(|id| Make::new(id).user("ada")))
        .await?;
    exhaust(kit, "ada", &feed, 1).await?;
    same!(kit.ack("ada", &["b", "c"]).await?, 2, "what came after it");
    same!(kit.floor("ada", &feed).await?, 3, "the floor");
    same!(
        kit.state("a", "ada").await?,
        Some(State::Dead),
        "passed by the floor"
    );
    same!(kit.ack("ada", &["a"]).await?, 1, "late");
    same!(
        kit.state("a", "ada").await?,
        Some(State::Delivered),
        "by a word about it"
    );
    Ok(())
}

pub(super) async fn redriven_it_is_pending_again(kit: &mut Kit) -> Outcome {
    let feed = of_user("ada")?;
    kit.publish(Make::new("a").user("ada")).await?;
    exhaust(kit, "ada", &feed, 1).await?;
    let letter = kit.letter().await?.id;
    let engine = kit.engine();
    let unknown = DeadLetterId(letter.0 + 1);
    same!(
        engine.redrive(vec![letter, unknown, letter]).await?,
        [Redriven::Yes, Redriven::Unknown, Redriven::Unknown],
        "redrive"
    );
    same!(kit.told(&feed).await?, ["a", "a"], "the feed");
    same!(kit.state("a", "ada").await?, Some(State::Pending), "then");
    same!(engine.count_dead_letters().await?, 0, "dead letters left");
    let place = kit.inbox("ada", &feed).await?;
    same!(place.entries[0].state, Some(State::Dead), "the old place");
    same!(place.entries[1].attempts, 0, "attempts begin anew");
    exhaust(kit, "ada", &feed, 2).await?;
    same!(
        kit.state("a", "ada").await?,
        Some(State::Dead),
        "and so it can die again"
    );
    same!(
        engine.redrive(vec![kit.letter().await?.id]).await?,
        [Redriven::Yes],
        "again"
    );
    same!(kit.ack("ada", &["a"]).await?, 1, "acknowledged in the end");
    let story = kit.story("a", "ada").await?;
    let kinds: Vec<_> = story
        .iter()
        .flat_map(|story| story.marks.iter().map(|mark| mark.kind))
        .collect();
    let wanted = [
        MarkKind::Dead,
        MarkKind::Redriven,
        MarkKind::Dead,
        MarkKind::Redriven,
        MarkKind::Delivered,
    ];
    let mut sorted = kinds.clone();
    sorted.sort();
    let mut all = wanted.to_vec();
    all.sort();
    same!(sorted, all, "the whole story");
    Ok(())
}

pub(super) async fn a_broadcast_is_redriven_for_one(kit: &mut Kit) -> Outcome {
    kit.publish(Make::new("e")).await?;
    exhaust(kit, "ada", &FeedId::All, 1).await?;
    same!(kit.state("e", "ada").await?, Some(State::Dead), "of ada");
    same!(kit.state("e", "bob").await?, Some(State::Pending), "of bob");
    let letter = kit.letter().await?.id;
    same!(
        kit.engine().redrive(vec![letter]).await?,
        [Redriven::Yes],
        "redrive"
    );
    same!(kit.told(&FeedId::All).await?, ["e"], "everyone's feed");
    same!(kit.told(&of_user("ada")?).await?, ["e"], "ada's feed");
    same!(kit.state("e", "ada").await?, Some(State::Pending), "of ada");
    same!(kit.ack("ada", &["e"]).await?, 1, "acknowledged");
    same!(
        kit.states("e").await?,
        [("ada".into(), State::Delivered)],
        "states"
    );
    Ok(())
}

pub(super) async fn what_ran_out_cannot_be_redriven(kit: &mut Kit) -> Outcome {
    let feed = of_user("ada")?;
    kit.publish(Make::new("a").user("ada").ttl(Millis::from_secs(120)))
        .await?;
    exhaust(kit, "ada", &feed, 1).await?;
    kit.pass(Millis::from_secs(120)).await;
    same!(kit.state("a", "ada").await?, Some(State::Dead), "past its time");
    let letter = kit.letter().await?.id;
    same!(
        kit.engine().redrive(vec![letter]).await?,
        [Redriven::Expired],
        "redrive"
    );
    same!(kit.engine().count_dead_letters().await?, 1, "it keeps its place");
    Ok(())
}

pub(super) async fn what_was_taken_back_cannot_be_redriven(kit: &mut Kit) -> Outcome {
    kit.publish_all([Make::new("e"), Make::new("c").collapse("k")])
        .await?;
    exhaust(kit, "ada", &FeedId::All, 1).await?;
    exhaust(kit, "ada", &FeedId::All, 2).await?;
    kit.cancel("e").await?;
    kit.publish(Make::new("d").collapse("k")).await?;
    for letter in kit.letters(&DeadLetterFilter::default()).await? {
        let answer = kit.engine().redrive(vec![letter.id]).await?;
        same!(
            answer,
            [Redriven::Impossible],
            "redrive of {:?}",
            letter.notification
        );
    }
    same!(
        kit.told(&of_user("ada")?).await?,
        Vec::<String>::new(),
        "ada's feed"
    );
    Ok(())
}

pub(super) async fn discarded_it_stays_dead(kit: &mut Kit) -> Outcome {
    let feed = of_user("ada")?;
    kit.publish(Make::new("a").user("ada")).await?;
    exhaust(kit, "ada", &feed, 1).await?;
    let letter = kit.letter().await?.id;
    same!(kit.engine().discard(letter).await?, true, "the first time");
    same!(kit.engine().discard(letter).await?, false, "again");
    same!(kit.engine().dead_letter(letter).await?, None, "shown");
    same!(kit.state("a", "ada").await?, Some(State::Dead), "its state");
    same!(
        kit.engine().redrive(vec![letter]).await?,
        [Redriven::Unknown],
        "redrive"
    );
    Ok(())
}

pub(super) async fn cancelled_it_is_no_dead_letter(kit: &mut Kit) -> Outcome {
    let feed = of_user("ada")?;
    kit.publish(Make::new("a").user("ada")).await?;
    exhaust(kit, "ada", &feed, 1).await?;
    kit.cancel("a").await?;
    same!(kit.state("a", "ada").await?, Some(State::Cancelled), "its state");
    same!(kit.engine().count_dead_letters().await?, 0, "dead letters left");
    Ok(())
}

pub(super) async fn filters_and_pages(kit: &mut Kit) -> Outcome {
    let engine = kit.engine();
    for n in 0..4 {
        let user = ["ada", "bob"][n % 2];
        let feed = of_user(user)?;
        kit.publish(Make::new(format!("n-{n}")).user(user)).await?;
        exhaust(kit, user, &feed, n as u64 / 2 + 1).await?;
    }
    let all: Vec<_> = kit
        .letters(&DeadLetterFilter::default())
        .await?
        .iter()
        .map(|l| l.id)
        .collect();
    holds!(all.len() == 4 && all.is_sorted(), "oldest first: {all:?}");
    let of = |user: &str| -> Result<DeadLetterFilter, super::Fault> {
        Ok(DeadLetterFilter {
            user: Some(user_id(user)?),
            ..Default::default()
        })
    };
    let ids = |letters: Vec<DeadLetter>| letters.iter().map(|l| l.id).collect::<Vec<_>>();
    same!(ids(kit.letters(&of("ada")?).await?), [all[0], all[2]], "of ada");
    same!(
        ids(kit.letters(&of("cyd")?).await?),
        Vec::<DeadLetterId>::new(),
        "of nobody"
    );
    let other = DeadLetterFilter {
        reason: Some(DeadReason::Overflow),
        ..Default::default()
    };
    same!(
        ids(kit.letters(&other).await?),
        Vec::<DeadLetterId>::new(),
        "for another reason"
    );
    let source = DeadLetterFilter {
        source: Some("contract".into()),
        reason: Some(DeadReason::MaxAttempts),
        ..of("bob")?
    };
    same!(ids(kit.letters(&source).await?), [all[1], all[3]], "by all three");
    let (mut seen, mut after) = (Vec::new(), None);
    for _ in 0..10 {
        let page = engine
            .dead_letters(&DeadLetterFilter::default(), after, 3)
            .await?;
        holds!(page.letters.len() <= 3, "a page of {}", page.letters.len());
        seen.extend(ids(page.letters));
        after = page.after;
        if after.is_none() {
            break;
        }
    }
    same!(seen, all, "page by page");
    let bare = DeadLetterFilter {
        bare: true,
        ..Default::default()
    };
    holds!(
        kit.letters(&bare)
            .await?
            .iter()
            .all(|letter| letter.body == DeadBody::Missing),
        "bare letters have no bodies"
    );
    Ok(())
}

pub(super) async fn what_cannot_be_decoded_is_buried(kit: &mut Kit) -> Outcome {
    let letter = DeadLetter {
        id: DeadLetterId::START,
        notification: None,
        user: None,
        reason: DeadReason::Undecodable,
        detail: Some("at byte 1: no JSON".into()),
        source: "queue".into(),
        attempts: 2,
        time: Timestamp(0),
        subject: None,
        body: DeadBody::Raw(Bytes::from_static(b"\xff{")),
    };
    let id = kit.engine().bury(letter.clone()).await?;
    let wanted = DeadLetter {
        id,
        time: kit.now(),
        ..letter.clone()
    };
    same!(kit.letter().await?, wanted, "what was buried");
    same!(
        kit.engine().redrive(vec![id]).await?,
        [Redriven::Impossible],
        "redrive"
    );
    same!(kit.engine().discard(id).await?, true, "discard");
    let wordy = DeadLetter {
        detail: Some("é".repeat(10_000)),
        ..letter
    };
    kit.engine().bury(wordy.clone()).await?;
    same!(
        kit.letter().await?.detail,
        wordy.detail.as_deref().and_then(DeadLetter::detail_of),
        "no more of a detail than may be kept"
    );
    Ok(())
}

pub(super) async fn full_dead_letters_refuse(kit: &mut Kit) -> Outcome {
    for (n, user) in ["ada", "bob"].into_iter().enumerate() {
        kit.publish(Make::new(format!("n-{n}")).user(user)).await?;
        exhaust(kit, user, &of_user(user)?, 1).await?;
    }
    let refused = kit.publish(Make::new("x").user("cyd")).await;
    holds!(
        matches!(refused, Err(EngineError::DeadLettersFull)),
        "full: {refused:?}"
    );
    holds!(
        kit.publish(Make::new("n-0").user("ada")).await?.repeated,
        "what is known is known"
    );
    let first = kit.letters(&DeadLetterFilter::default()).await?[0].id;
    kit.engine().discard(first).await?;
    kit.publish(Make::new("x").user("cyd")).await?;
    Ok(())
}

pub(super) async fn dead_letters_survive_a_restart(kit: &mut Kit) -> Outcome {
    let feed = of_user("ada")?;
    kit.publish_all([Make::new("a").user("ada"), Make::new("b").user("ada")])
        .await?;
    exhaust(kit, "ada", &feed, 1).await?;
    for _ in 0..ATTEMPTS {
        kit.attempt("ada", &feed, 2).await?;
        kit.pass(Millis(TIMEOUT.0 / 2)).await;
        if !kit.restart().await {
            return Ok(());
        }
        kit.pass(Millis(TIMEOUT.0 / 2)).await;
    }
    let letters = kit.letters(&DeadLetterFilter::default()).await?;
    holds!(letters.len() == 2, "both, not {letters:?}");
    same!(kit.engine().count_dead_letters().await?, 2, "count");
    Ok(())
}
