//! Cleaning up where rows are damaged, and what outlives its neighbours.

use crate::contract::{Make, settlement};
use crate::embedded::codec::key;
use crate::embedded::store::{Batch, Memory, Store, Table};
use crate::embedded::tests::Here;
use crate::embedded::{Embedded, EmbeddedOptions, Rules};
use crate::{
    DeadLetters as _, Directory as _, Feeds as _, MemberChange, Recipients, Redriven, Settlements as _, Sync,
};
use postrider_model::{
    Attempt, DeadLetterFilter, FeedId, Millis, NotificationId, SettleKind, SettleTarget, Timestamp, Topic,
    UserId,
};
use std::sync::Arc;

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const HOUR: Millis = Millis::from_secs(3600);

fn id(name: &str) -> NotificationId {
    NotificationId::new(name).unwrap()
}

fn of_topic(name: &str) -> FeedId {
    FeedId::Topic(Topic::new(name).unwrap())
}

/// A store, and an engine over it that keeps everything for an hour.
fn begin() -> (Here, Arc<Memory>, impl Fn() -> Embedded) {
    let (here, store) = (Here::open(false, NOW), Arc::new(Memory::default()));
    let (clock, memory) = (here.clock.clone(), store.clone());
    let open = move || {
        let rules = Rules {
            age: HOUR,
            audit: HOUR,
            dedupe: HOUR,
            max_total_attempts: 1,
            ..Rules::default()
        };
        let options = clock.options(None);
        Embedded::with_store(memory.clone(), None, EmbeddedOptions { rules, ..options }).unwrap()
    };
    (here, store, open)
}

async fn moves(engine: &Embedded, user: &str, topic: &str, joins: bool) {
    let change = MemberChange {
        topic: Topic::new(topic).unwrap(),
        user: UserId::new(user).unwrap(),
        joins,
    };
    let moved = engine.change_members(vec![change]).await.unwrap();
    assert_eq!(moved, [Ok(true)], "{user} {topic} {joins}");
}

async fn publish(engine: &Embedded, name: &str, topic: &str, now: Timestamp) {
    let publication = Make::new(name).topics(&[topic]).publication(now);
    assert!(engine.publish(vec![publication]).await[0].is_ok());
}

#[tokio::test]
async fn who_comes_back_still_has_what_was_redriven() {
    let (here, _store, open) = begin();
    let engine = open();
    moves(&engine, "ada", "t", true).await;
    moves(&engine, "bob", "t", true).await;
    publish(&engine, "a", "t", NOW).await;
    publish(&engine, "b", "t", NOW).await;
    let attempt = Attempt {
        user: UserId::new("ada").unwrap(),
        feed: of_topic("t"),
        offset: 1,
    };
    engine.attempt(vec![attempt]).await.unwrap();
    // Nothing waits for an attempt; what is asked next comes after it.
    engine.tick().await.unwrap();
    let half = NOW.plus(Millis(HOUR.0 / 2));
    here.clock.set(half);
    engine.tick().await.unwrap();
    let letters = engine.dead_letters(&DeadLetterFilter::default(), None, 9).await;
    let letter = letters.unwrap().letters[0].id;
    assert_eq!(engine.redrive(vec![letter]).await.unwrap(), [Redriven::Yes]);

    here.clock.set(NOW.plus(HOUR).plus(Millis(1)));
    engine.tick().await.unwrap();
    assert!(
        engine.lookup(&id("b")).await.unwrap().is_none(),
        "its time is over"
    );
    moves(&engine, "bob", "t", false).await;
    publish(&engine, "c", "t", half).await;
    let bobs = async || {
        let bob = Recipients::One(UserId::new("bob").unwrap());
        engine.recipients(&id("a"), bob).await.unwrap().len()
    };
    assert_eq!(bobs().await, 1);
    moves(&engine, "bob", "t", true).await;
    assert_eq!(bobs().await, 1);
}

#[tokio::test]
async fn damaged_rows_keep_no_other_topic_from_being_cleaned() {
    const REST: usize = 6;
    const MANY: usize = super::cleaning::ROUND as usize + REST;
    let (here, store, open) = begin();
    let engine = open();
    for topic in ["s", "t"] {
        moves(&engine, "ada", topic, true).await;
        let ids: Vec<_> = (0..MANY).map(|n| format!("{topic}-{n}")).collect();
        for name in &ids {
            publish(&engine, name, topic, NOW).await;
        }
        // Each by itself and the first last, so that each has a row.
        for name in ids.iter().rev() {
            let read = settlement("ada", SettleKind::Read, SettleTarget::Ids(vec![id(name)])).unwrap();
            assert_eq!(engine.settle(vec![read], Sync::Durable).await.unwrap(), [1]);
        }
    }
    engine.close();
    let feed = key::feed(&of_topic("s"));
    let mut damage = Batch::default();
    damage.put(Table::Meta, [b"cleaning", &feed[..]].concat(), b"\x03?".to_vec());
    damage.put(Table::Meta, [b"to-clean", &feed[..]].concat(), b"\x01".to_vec());
    damage.put(Table::Settlers, [&feed[..], b"\xff"].concat(), b"\x01".to_vec());
    store.commit(&damage, true).unwrap();
    let marks = || {
        let view = store.view().unwrap();
        ["s", "t"].map(|topic| {
            let from = key::user_feed(&UserId::new("ada").unwrap(), &of_topic(topic));
            view.scan(Table::Marks, &from, &key::after(&from), 1000)
                .unwrap()
                .len()
        })
    };
    assert_eq!(marks(), [MANY; 2]);

    here.clock.set(NOW.plus(HOUR).plus(Millis(1)));
    let engine = open();
    engine.tick().await.unwrap();
    assert_eq!(engine.count_dead_letters().await.unwrap(), 0, "nothing is lost");
    engine.close();
    // What came after a round had begun waits for the next.
    let left = marks();
    assert!(left.iter().all(|rows| *rows <= REST), "{left:?}");
}

#[tokio::test]
async fn what_a_due_row_holds_keeps_nothing_from_being_done() {
    let (here, store, open) = begin();
    let engine = open();
    for name in ["a", "b", "c"] {
        let later = Make::new(name).user("ada").deliver_in(HOUR);
        assert!(engine.publish(vec![later.publication(NOW)]).await[0].is_ok());
    }
    engine.close();
    let due = NOW.plus(HOUR);
    let mut damage = Batch::default();
    // Nothing, and what only a newer version can read.
    for (name, value) in [("a", &[][..]), ("b", &[0xfe, 7])] {
        damage.put(Table::Due, key::due(due, 1, &id(name)), value.to_vec());
    }
    store.commit(&damage, true).unwrap();
    let engine = open();
    here.clock.set(due);
    engine.tick().await.unwrap();
    let own = FeedId::User(UserId::new("ada").unwrap());
    assert_eq!(engine.spans(&[own]).await.unwrap()[0].head.offset, 3);
    engine.close();
}
