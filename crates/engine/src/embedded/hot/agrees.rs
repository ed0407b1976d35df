//! Judges what is answered from memory by what the store says at the same time. The random histories of the model
//! test ask this after each step; here are those that it does not come to, and what must be a hit.

use crate::contract::{Kit, Make, settlement};
use crate::embedded::tests::Here;
use crate::inbox::{share, stretch};
use crate::{Engine, PageWanted, ReadLimit, Starts, StartsWanted};
use postrider_model::{
    Cursor, Entry, EntryKind, Epoch, FeedId, InboxPage, Millis, NotificationId, Position, SettleKind,
    SettleTarget, Timestamp, Topic, UserId,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How many answers came from memory; each is what the store says.
async fn hits(engine: &Arc<dyn Engine>, user: &str, now: Timestamp) -> usize {
    let user = UserId::new(user).unwrap();
    let mut hits = 0;
    for feed in [FeedId::User(user.clone()), FeedId::All] {
        let head = head(engine, &feed).await;
        for after in 0..=head.offset {
            hits += usize::from(starts_agree(engine, &user, &feed, place(engine, &feed, after).await).await);
            for entries in [1, 3, 1000] {
                hits += usize::from(page_agrees(engine, &user, &feed, after, entries, now).await);
            }
        }
        let elsewhere = Position {
            epoch: Epoch(1),
            offset: head.offset,
        };
        hits += usize::from(starts_agree(engine, &user, &feed, Some(elsewhere)).await);
        hits += usize::from(starts_agree(engine, &user, &feed, None).await);
    }
    hits
}

/// The same at few places: near the head, and one farther back.
pub(in crate::embedded) async fn judge(engine: &Arc<dyn Engine>, user: &str, now: Timestamp) {
    let user = UserId::new(user).unwrap();
    for feed in [FeedId::User(user.clone()), FeedId::All] {
        let head = head(engine, &feed).await.offset;
        for back in [1, 3] {
            let after = head.saturating_sub(back);
            starts_agree(engine, &user, &feed, place(engine, &feed, after).await).await;
            page_agrees(engine, &user, &feed, after, 2, now).await;
        }
    }
}

/// How many answers about these topics came from memory, to a user who may be a member; each is what the store says.
pub(in crate::embedded) async fn judge_topics(
    engine: &Arc<dyn Engine>,
    user: &str,
    topics: &[FeedId],
    now: Timestamp,
) -> usize {
    let user = UserId::new(user).unwrap();
    let mut hits = 0;
    for feed in topics {
        let head = head(engine, feed).await.offset;
        let mut cursors = vec![None, Some(Cursor::default())];
        for back in [0, 1, head] {
            let after = head.saturating_sub(back);
            let place = place(engine, feed, after).await;
            cursors.extend(place.map(|place| Some(Cursor::new([(feed, place)]))));
            for member in [true, false] {
                hits += usize::from(topic_page_agrees(engine, &user, feed, member, after, now).await);
            }
        }
        for cursor in cursors {
            let places = vec![(feed.clone(), cursor.as_ref().and_then(|cursor| cursor.get(feed)))];
            for places in [places, Vec::new()] {
                let wanted = StartsWanted {
                    user: user.clone(),
                    places,
                    cursor: cursor.clone(),
                    state: false,
                };
                let hot = engine.starts_now(&wanted);
                let cold = engine
                    .starts(std::slice::from_ref(&wanted))
                    .await
                    .remove(0)
                    .unwrap();
                hits += usize::from(hot.is_some());
                assert_eq!(*hot.as_ref().unwrap_or(&cold), cold, "for {wanted:?}");
            }
        }
    }
    hits
}

async fn topic_page_agrees(
    engine: &Arc<dyn Engine>,
    user: &UserId,
    feed: &FeedId,
    member: bool,
    after: u64,
    now: Timestamp,
) -> bool {
    let limit = ReadLimit {
        entries: 100,
        bytes: usize::MAX,
    };
    let hot = engine.page_now(user, feed, member, after, limit, now);
    let wanted = PageWanted {
        user: user.clone(),
        feed: feed.clone(),
        member,
        after,
        limit,
    };
    let cold = engine.pages(&[wanted], now).await.remove(0).unwrap();
    if let Some(hot) = &hot {
        assert_eq!(told(hot), told(&cold), "{feed} after {after} of {user}: {member}");
    }
    hot.is_some()
}

async fn head(engine: &Arc<dyn Engine>, feed: &FeedId) -> Position {
    engine.spans(std::slice::from_ref(feed)).await.unwrap()[0].head
}

async fn place(engine: &Arc<dyn Engine>, feed: &FeedId, offset: u64) -> Option<Position> {
    let limit = ReadLimit {
        entries: 1,
        bytes: usize::MAX,
    };
    match offset.checked_sub(1) {
        None => Some(Position::START),
        Some(before) => {
            let page = engine.read(feed, before, limit).await.unwrap();
            page.entries.first().map(|entry| entry.position)
        }
    }
}

async fn starts_agree(
    engine: &Arc<dyn Engine>,
    user: &UserId,
    feed: &FeedId,
    place: Option<Position>,
) -> bool {
    let other = match feed {
        FeedId::All => FeedId::User(user.clone()),
        _ => FeedId::All,
    };
    let places = vec![(feed.clone(), place), (other, None)];
    let wanted = StartsWanted {
        user: user.clone(),
        places,
        cursor: None,
        state: false,
    };
    let (hot, places) = (engine.starts_now(&wanted), &wanted.places);
    // By the plain looks, which know of no memory.
    let spans: Vec<_> = places.iter().map(|(feed, _)| feed.clone()).collect();
    let spans = engine.spans(&spans).await.unwrap();
    let mut plain = Vec::new();
    for ((feed, place), span) in places.iter().zip(spans) {
        let standing = engine.standing(user, feed, 1, 0).await.unwrap();
        let held = match place {
            None => None,
            Some(place) => engine.holds(&[(feed.clone(), *place)]).await.unwrap().pop(),
        };
        plain.push((span, standing.floor, standing.start(), held));
    }
    let told = |starts: Starts| -> Vec<_> {
        let parts = starts
            .feeds
            .into_iter()
            .map(|start| (start.span, start.floor, start.begins, start.held));
        parts.collect()
    };
    let cold = engine.starts(&[wanted]).await.pop().unwrap().unwrap();
    assert_eq!(told(cold), plain, "where feeds of {user} stand, from the store");
    if let Some(hot) = hot {
        assert_eq!(told(hot), plain, "where feeds of {user} stand, from memory");
        return true;
    }
    false
}

async fn page_agrees(
    engine: &Arc<dyn Engine>,
    user: &UserId,
    feed: &FeedId,
    after: u64,
    entries: usize,
    now: Timestamp,
) -> bool {
    let limit = ReadLimit {
        entries,
        bytes: usize::MAX,
    };
    let hot = engine.page_now(user, feed, false, after, limit, now);
    // By the plain looks.
    let read = engine.read(feed, after, limit).await.unwrap();
    let (from, to) = stretch(&read.entries);
    let standing = engine.standing(user, feed, from, to).await.unwrap();
    let plain = share(read.entries, read.span, &standing, now);
    let wanted = PageWanted {
        user: user.clone(),
        feed: feed.clone(),
        member: false,
        after,
        limit,
    };
    let cold = engine.pages(&[wanted], now).await.pop().unwrap().unwrap();
    assert_eq!(told(&cold), told(&plain), "{feed} after {after}, from the store");
    if let Some(hot) = hot {
        assert_eq!(told(&hot), told(&plain), "{feed} after {after}, from memory");
        return true;
    }
    false
}

/// All that a page says.
fn told(page: &InboxPage) -> String {
    let entries = page.entries.iter().map(|one| {
        let Entry { position, kind, .. } = &*one.entry;
        let what = match kind {
            EntryKind::Notification(n, withdrawn) => {
                let n = (
                    &n.id,
                    n.time,
                    &n.subject,
                    &n.data,
                    n.expires_at,
                    n.devices,
                    &n.exclude,
                );
                format!("{n:?} {withdrawn:?}")
            }
            mark => format!("{mark:?}"),
        };
        format!(
            "{position:?} {what} {} {:?} {} {}",
            one.shown, one.state, one.dismissed, one.attempts
        )
    });
    let entries: Vec<_> = entries.collect();
    format!("{:?} {} {entries:#?}", page.span, page.floor)
}

async fn kit(on_disk: bool) -> Kit {
    Kit::new(Box::new(Here::open(on_disk, Kit::BEGIN)))
}

#[tokio::test]
async fn what_was_opened_once_is_answered_from_memory() {
    let kit = kit(true).await;
    let engine = kit.engine();
    let wanted = StartsWanted {
        user: UserId::new("ada").unwrap(),
        places: Vec::new(),
        cursor: None,
        state: false,
    };
    assert_eq!(engine.starts_now(&wanted), None, "not seen yet");
    let before = hits(&engine, "ada", kit.now()).await;
    assert!(before > 0, "an inbox that holds nothing is known too");
    for n in 0..4 {
        kit.publish(Make::new(format!("a-{n}")).user("ada"))
            .await
            .unwrap();
        kit.publish(Make::new(format!("all-{n}"))).await.unwrap();
    }
    // Two feeds with five places each; at each the start and three pages; and two more starts of each.
    assert_eq!(hits(&engine, "ada", kit.now()).await, 2 * (5 * 4 + 2));
    let ids = ["a-0", "all-1"].map(|id| NotificationId::new(id).unwrap());
    let ids = SettleTarget::Ids(ids.to_vec());
    kit.settle("ada", SettleKind::Delivered, ids).await.unwrap();
    let after = hits(&engine, "ada", kit.now()).await;
    assert!(after > 10, "{after}: above a mark memory answers");
}

#[tokio::test]
async fn members_are_answered_from_memory() {
    let kit = kit(true).await;
    let engine = kit.engine();
    let topic = FeedId::Topic(Topic::new("t").unwrap());
    for user in ["ada", "bob"] {
        kit.join(user, "t").await.unwrap();
    }
    for n in 0..4 {
        kit.publish(Make::new(format!("t-{n}")).topics(&["t"]))
            .await
            .unwrap();
    }
    let judge = async |user| judge_topics(&engine, user, std::slice::from_ref(&topic), kit.now()).await;
    judge("ada").await;
    // Three places with two pages each; five cursors, with the topic asked for and without.
    const ALL: usize = 3 * 2 + 5 * 2;
    assert_eq!(judge("ada").await, ALL, "what was asked once");
    judge("bob").await;
    kit.publish(Make::new("t-4").topics(&["t"])).await.unwrap();
    assert_eq!(judge("bob").await, ALL, "what was appended since");
    let at = kit.place(&topic, 5).await.unwrap();
    let target = SettleTarget::Through(vec![(topic.clone(), at)]);
    kit.settle("bob", SettleKind::Delivered, target).await.unwrap();
    assert_eq!(judge("bob").await, ALL, "what was acknowledged");
    kit.leave("bob", "t").await.unwrap();
    judge("bob").await;
    kit.join("bob", "t").await.unwrap();
    judge("bob").await;
    assert_eq!(judge("bob").await, ALL, "who came back");
    // One who is no member hears a session topic.
    judge("eve").await;
    assert_eq!(
        judge("eve").await,
        ALL - 3,
        "a session topic: no pages by membership"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn beside_a_writer_no_answer_is_older_than_its_question() {
    let kit = kit(false).await;
    let engine = kit.engine();
    let done = Arc::new(AtomicBool::new(false));
    let mut readers = tokio::task::JoinSet::new();
    for reader in 0..3 {
        let (engine, done) = (engine.clone(), done.clone());
        readers.spawn(async move {
            let mut hits = 0u64;
            let user = UserId::new(["ada", "bob"][reader % 2]).unwrap();
            let places = vec![(FeedId::User(user.clone()), None), (FeedId::All, None)];
            while !done.load(Ordering::Relaxed) {
                let feeds: Vec<_> = places.iter().map(|(feed, _)| feed.clone()).collect();
                let before = engine.spans(&feeds).await.unwrap();
                let wanted = StartsWanted {
                    user: user.clone(),
                    places: places.clone(),
                    cursor: None,
                    state: false,
                };
                let starts = match engine.starts_now(&wanted) {
                    Some(starts) => {
                        hits += 1;
                        starts
                    }
                    None => engine.starts(&[wanted]).await.pop().unwrap().unwrap(),
                };
                let after = engine.spans(&feeds).await.unwrap();
                for ((before, start), after) in before.iter().zip(&starts.feeds).zip(after) {
                    let at = start.span.head.offset;
                    assert!(before.head.offset <= at && at <= after.head.offset, "{start:?}");
                    assert!(start.floor <= at, "a floor above the head: {start:?}");
                }
                tokio::task::yield_now().await;
            }
            hits
        });
    }
    for n in 0..400u32 {
        let make = Make::new(format!("n-{n}"));
        let make = match n % 3 {
            0 => make,
            1 => make.user("ada"),
            _ => make.users(["ada", "bob"]),
        };
        kit.publish(make).await.unwrap();
        let feed = FeedId::All;
        if let Ok(at) = kit.place(&feed, u64::from(n / 3 + 1)).await {
            let target = SettleTarget::Through(vec![(feed, at)]);
            kit.settle("ada", SettleKind::Delivered, target).await.unwrap();
        }
    }
    done.store(true, Ordering::Relaxed);
    for hits in readers.join_all().await {
        assert!(hits > 0, "memory never answered");
    }
}

/// Evidence of many users about a wide feed and their own, as sessions hand it over: no look at the store is needed,
/// and the floors are the same.
#[tokio::test]
async fn evidence_moves_floors_as_the_store_would() {
    let kit = kit(true).await;
    let engine = kit.engine();
    let users: Vec<_> = (0..20).map(|n| format!("u-{n}")).collect();
    let mut sent = 0;
    for round in 0..4u64 {
        for user in &users {
            hits(&engine, user, kit.now()).await;
            kit.publish(Make::new(format!("{user}-{round}")).user(user))
                .await
                .unwrap();
        }
        for _ in 0..=round {
            sent += 1;
            kit.publish(Make::new(format!("all-{sent}"))).await.unwrap();
        }
        let all = kit.place(&FeedId::All, sent).await.unwrap();
        let mut batch = Vec::new();
        for user in &users {
            let own = FeedId::User(UserId::new(user).unwrap());
            let place = kit.place(&own, round + 1).await.unwrap();
            for (feed, place) in [(own, place), (FeedId::All, all)] {
                let target = SettleTarget::Through(vec![(feed, place)]);
                batch.push(settlement(user, SettleKind::Delivered, target).unwrap());
            }
        }
        engine.settle(batch, crate::Sync::Lazy).await.unwrap();
        kit.pass(Millis(0)).await;
        for user in &users {
            let own = FeedId::User(UserId::new(user).unwrap());
            assert_eq!(
                kit.floor(user, &own).await.unwrap(),
                round + 1,
                "{user}, round {round}"
            );
            assert_eq!(
                kit.floor(user, &FeedId::All).await.unwrap(),
                sent,
                "{user}, round {round}"
            );
            hits(&engine, user, kit.now()).await;
        }
    }
}
