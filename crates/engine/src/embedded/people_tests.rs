//! The directory where its rows are damaged, and where it is large.

use super::codec::key;
use super::store::{Batch, Memory, Store, Table};
use super::tests::Here;
use super::{Embedded, EmbeddedOptions, Rules};
use crate::contract::Make;
use crate::{
    Directory, DirectoryError, EngineError, Feeds, Inboxes, MemberChange, Put, Recipients, Settlements,
    StartsWanted, States, Sync, UserPut, Users,
};
use postrider_model::{
    Attempt, FeedId, NotificationId, Profile, SettleKind, SettleTarget, State, StateChange, Timestamp, Topic,
    UserId,
};
use std::sync::Arc;

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

fn put(name: &str, topics: &[&str]) -> UserPut {
    UserPut {
        user: user(name),
        profile: Profile::default(),
        topics: Some(topics.iter().map(|name| topic(name)).collect()),
    }
}

fn join(name: &str, to: &str) -> MemberChange {
    MemberChange {
        topic: topic(to),
        user: user(name),
        joins: true,
    }
}

fn wanted(name: &str) -> StartsWanted {
    StartsWanted {
        user: user(name),
        places: Vec::new(),
        cursor: None,
        state: false,
    }
}

fn add(by: i64) -> StateChange {
    StateChange::Increment(vec![("n".to_owned(), by)])
}

fn store_fault<T: std::fmt::Debug>(answer: Result<T, EngineError>, table: &str) {
    let named = matches!(&answer, Err(EngineError::Store(text)) if text.contains(&format!("`{table}`")));
    assert!(named, "{table}: {answer:?}");
}

/// An engine over a store that can be damaged, with ada and bob in `t`.
async fn damaged(damage: &[(Table, Vec<u8>)]) -> Embedded {
    let store = Arc::new(Memory::default());
    let here = Here::open(false, NOW);
    let open = || Embedded::with_store(store.clone(), None, here.clock.options(None)).unwrap();
    let engine = open();
    engine
        .put_users(vec![put("ada", &["t", "u"]), put("bob", &["t"])])
        .await
        .unwrap();
    engine.change_state(&user("ada"), add(1)).await.unwrap().unwrap();
    engine.close();
    let mut batch = Batch::default();
    for (table, row) in damage {
        batch.put(*table, row.clone(), b"\x03?".to_vec());
    }
    store.commit(&batch, true).unwrap();
    open()
}

#[tokio::test]
async fn a_damaged_row_is_its_own_users_trouble_until_the_user_is_erased() {
    let ada = key::user(&user("ada"));
    let tables = [Table::Users, Table::Memberships, Table::States];
    let engine = damaged(&tables.map(|table| (table, ada.clone()))).await;
    store_fault(engine.user(&user("ada")).await, "users");
    store_fault(engine.memberships(&user("ada")).await, "memberships");
    store_fault(engine.starts(&[wanted("ada")]).await.remove(0), "memberships");
    store_fault(engine.state(&user("ada")).await, "states");
    store_fault(engine.change_state(&user("ada"), add(1)).await, "states");
    store_fault(engine.remove_user(&user("ada")).await, "memberships");
    let answers = engine
        .put_users(vec![put("ada", &["t"]), put("bob", &["t", "u"])])
        .await
        .unwrap();
    let is_named = |fault: &DirectoryError| matches!(fault, DirectoryError::Unreadable { fault } if fault.contains("`users`"));
    assert!(answers[0].as_ref().is_err_and(is_named), "{answers:?}");
    assert_eq!(answers[1], Ok(Put::Changed));
    let answers = engine
        .change_members(vec![join("ada", "v"), join("bob", "v")])
        .await
        .unwrap();
    assert!(answers[0].is_err() && answers[1] == Ok(true), "{answers:?}");
    assert!(engine.starts(&[wanted("bob")]).await.remove(0).is_ok());

    assert!(engine.erase(&user("ada")).await.unwrap());
    assert_eq!(engine.user(&user("ada")).await.unwrap(), None);
    assert_eq!(engine.state(&user("ada")).await.unwrap().map().len(), 0);
    for (name, members) in [("t", 1), ("u", 1), ("v", 1)] {
        let page = engine.members(&topic(name), None, 9).await.unwrap();
        assert_eq!((page.users, page.count), (vec![user("bob")], members), "{name}");
    }
    assert_eq!(
        engine.put_users(vec![put("ada", &["t"])]).await.unwrap(),
        [Ok(Put::Created)]
    );
}

#[tokio::test]
async fn a_damaged_row_costs_nobody_else_the_notification() {
    let store = Arc::new(Memory::default());
    let here = Here::open(false, NOW);
    let open = || {
        let rules = Rules {
            max_total_attempts: 1,
            ..Rules::default()
        };
        let options = EmbeddedOptions {
            rules,
            ..here.clock.options(None)
        };
        Embedded::with_store(store.clone(), None, options).unwrap()
    };
    let engine = open();
    let members = vec![join("ada", "t"), join("bob", "t")];
    engine.change_members(members).await.unwrap();
    let publication = Make::new("n").topics(&["t"]).publication(NOW);
    assert!(engine.publish(vec![publication]).await[0].is_ok());
    let attempt = |name| Attempt {
        user: user(name),
        feed: FeedId::Topic(topic("t")),
        offset: 1,
    };
    engine
        .attempt(vec![attempt("ada"), attempt("bob")])
        .await
        .unwrap();
    engine.close();
    let mut batch = Batch::default();
    batch.put(Table::Memberships, key::user(&user("ada")), b"\x03?".to_vec());
    store.commit(&batch, true).unwrap();
    here.clock.set(NOW.plus(Rules::default().ack_timeout));
    let engine = open();
    engine.tick().await.unwrap();
    let id = NotificationId::new("n").unwrap();
    let bob = engine
        .recipients(&id, Recipients::One(user("bob")))
        .await
        .unwrap();
    assert_eq!(bob[0].state, State::Dead, "his last attempt had its time");
    let ada = engine.recipients(&id, Recipients::One(user("ada"))).await;
    store_fault(ada, "memberships");
    let stored = engine.lookup(&id).await.unwrap().unwrap();
    assert_eq!(stored.notification.data, "{}", "it is whole");
}

#[tokio::test]
async fn a_damaged_count_is_counted_anew() {
    let engine = damaged(&[(Table::Topics, b"t".to_vec())]).await;
    store_fault(engine.members(&topic("t"), None, 9).await, "topics");
    assert_eq!(
        engine.change_members(vec![join("eve", "t")]).await.unwrap(),
        [Ok(true)]
    );
    assert_eq!(engine.members(&topic("t"), None, 9).await.unwrap().count, 3);
}

/// 100,000 members: a notification is one entry, and each reads, acknowledges and comes back.
#[tokio::test]
async fn a_large_topic_costs_one_entry() {
    const MEMBERS: usize = 100_000;
    let here = Here::open(false, NOW);
    let engine = here.embedded();
    let names: Vec<_> = (0..MEMBERS).map(|n| format!("u-{n:06}")).collect();
    for names in names.chunks(1000) {
        let batch = names.iter().map(|name| put(name, &["t"])).collect();
        assert!(engine.put_users(batch).await.unwrap().iter().all(Result::is_ok));
    }
    assert_eq!(
        engine.members(&topic("t"), None, 1).await.unwrap().count,
        MEMBERS as u64
    );
    let before = engine.live_bytes();
    let publication = Make::new("n").topics(&["t"]).publication(NOW);
    assert!(engine.publish(vec![publication]).await[0].is_ok());
    let grew = engine.live_bytes() - before;
    assert!(grew < 2000, "{grew} bytes for one notification");
    let one = &names[MEMBERS / 2];
    let settlement = crate::contract::settlement(
        one,
        SettleKind::Delivered,
        SettleTarget::Ids(vec![NotificationId::new("n").unwrap()]),
    );
    let settled = engine
        .settle(vec![settlement.unwrap()], Sync::Durable)
        .await
        .unwrap();
    assert_eq!(settled, [1]);
    let starts = engine.starts(&[wanted(one), wanted(&names[0])]).await;
    let floors: Vec<_> = starts
        .into_iter()
        .map(|starts| starts.unwrap().members[0].start.floor)
        .collect();
    assert_eq!(floors, [1, 0]);
}
